"""A rule's page: what it finds, what Customer.io does, the fix, and its first bad and good examples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from cio_proxy.config import UNITS, value_written
from cio_proxy.examples import Example, read
from cio_proxy.model import RuleInfo
from cio_proxy.rules import RULES, Rule

CATEGORIES = {
    "1": "Authentication and set-up",
    "2": "User identification",
    "3": "Event tracking",
    "4": "Data quality",
    "5": "Campaign configuration",
    "6": "Delivery",
    "7": "Performance",
    "contract": "API contract",
}
TOLD = {"config": "configured", "connection": "connection", "answered": "answered", "waits": "seen by the probe"}
"""What a page calls the tags of an example that its reader needs."""
MOMENTS = {"at": "then, {} after the first", "end": "and nothing more until {} after the first"}


def find(id: str, rules: Sequence[Rule] = RULES) -> Rule:
    """The rule of this id. Raises LookupError with a message that names the closest one."""
    for rule in rules:
        if rule.info.id == id:
            return rule
    near = difflib.get_close_matches(id, [rule.info.id for rule in rules], 1)
    hint = f"did you mean '{near[0]}'?" if near else "`cio-proxy explain` lists them all."
    raise LookupError(f"there is no rule '{id}': {hint}")


def page(rule: Rule) -> str:
    """The page of one rule, as Markdown."""
    info = rule.info
    lines = [
        f"# {info.id}",
        "",
        f"{rule.title}.",
        "",
        " · ".join((info.severity, CATEGORIES[info.category], f"refuses: {_refuses(info)}", info.stage)),
        "",
        rule.prose,
        "",
        f"Fix: {rule.fix}",
    ]
    if info.params:
        lines += ["", "Parameters:"]
        lines += [
            f"  {name}: {param.about} (default {value_written(param.default, UNITS[param.unit])})"
            for name, param in info.params.items()
        ]
    examples = read(rule.examples)
    for kind in ("bad", "good"):
        example = next((e for e in examples if e.kind == kind and not any(s.repeat > 1 for s in e.exchanges)), None)
        if example is not None:
            lines += ["", f"{kind.capitalize()}: {example.name}", "", _block(example)]
    lines += ["", *(f"See {see}" for see in rule.see)]
    return "\n".join(lines) + "\n"


def table(rules: Sequence[Rule] = RULES) -> str:
    """All rules as a Markdown table, for the README."""
    rows = ["| rule | severity | what it finds | refuses, in `enforce` |", "|---|---|---|---|"]
    for rule in rules:
        page = f"cio_proxy/rules/{rule.examples.stem}.py"
        rows.append(f"| [`{rule.info.id}`]({page}) | {rule.info.severity} | {rule.title} | {_refuses(rule.info)} |")
    return "\n".join(rows) + "\n"


def options(rules: Sequence[Rule] = RULES) -> str:
    """The options of every rule with their defaults, as commented YAML, for config/cio-proxy.yaml."""
    lines = ["# rules:"]
    for rule in rules:
        lines += [f"#   {rule.info.id}:", "#     action: default"]
        for name, param in rule.info.params.items():
            lines.append(f"#     # {param.about}")
            if param.choices:
                lines.append(f"#     # one of: {', '.join(param.choices)}")
            lines.append(f"#     {name}: {value_written(param.default, UNITS[param.unit])}")
    return "\n".join(lines) + "\n"


def _refuses(info: RuleInfo) -> str:
    if "block" not in info.actions:
        return "never"
    return "by default" if info.refuses else "on request"


def _block(example: Example) -> str:
    """The requests of an example, when they come and what they meet, without what only a test needs."""
    shown: list[str] = []
    for line in example.source.splitlines()[1:]:
        tag, _, value = line.removeprefix("# @").partition(" ") if line.startswith("# @") else ("", "", "")
        if line == "###":
            then = len(shown)
            shown.append("then")
        elif tag in MOMENTS and "then" in shown:
            shown[then] = MOMENTS[tag].format(value.removeprefix("+"))
        elif tag in TOLD:
            shown.append(f"# {TOLD[tag]}: {value}")
        elif not tag:
            shown.append(line)
    return "\n".join(f"    {line}" for line in shown)
