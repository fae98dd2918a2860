"""What a rule tells, word for word: its page, and on its own examples every finding it makes, `possible` ones too.

The texts are kept in `told/`; `make docs` writes them anew, and what changed is then read in the diff.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import overlay
from cio_proxy.examples import Example, read
from cio_proxy.explain import page
from cio_proxy.model import Finding, RuleSettings, Settings
from cio_proxy.rules import RULES, Rule
from cio_proxy.selftest import played

TOLD = Path(__file__).with_name("told")
SHOWN = (
    *("rule", "severity", "category", "confidence", "pointer", "message", "effect", "fix", "corrected"),
    *("evidence", "name", "refusable", "whole", "item", "related"),
)
CASES = [(rule, example) for rule in RULES for example in read(rule.examples)]
KEPT = {file.stem: json.loads(file.read_text()) for file in TOLD.glob("*.json")}


async def found(rule: Rule, example: Example) -> list[Finding]:
    """All that the rule says when it is alone, whatever the threshold."""
    settings = overlay(Settings(), dict(example.config), rules=[each.info for each in RULES])
    alone = replace(settings.rules.get(rule.info.id, RuleSettings()), report="possible")
    settings = replace(settings, rules={rule.info.id: alone})
    errors: list[object] = []
    engine = Engine(settings, (rule,), sealed_with(b"k" * 32), rule_error=lambda *error: errors.append(error))
    findings = await played(example, engine)
    assert errors == []
    return findings


def told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as they are kept: without what is empty, and of many that differ in their place alone the first."""
    shown = [{key: value for key, value in asdict(f).items() if key in SHOWN and value} for f in findings]
    kept = [list(alike) for _, alike in groupby(shown, lambda each: {**each, "pointer": "", "item": 0, "related": ()})]
    return json.loads(json.dumps([first | ({"times": 1 + len(rest)} if rest else {}) for first, *rest in kept]))  # type: ignore[no-any-return]


def declared(rule: Rule) -> dict[str, Any]:
    """What a rule says of itself, beside its cases."""
    info: dict[str, Any] = {field.name: getattr(rule.info, field.name) for field in fields(rule.info)}
    if not rule.info.caution:
        del info["caution"]
    info |= {"kinds": sorted(rule.info.kinds), "apis": sorted(rule.info.apis)}
    info["params"] = {name: asdict(param) for name, param in rule.info.params.items()}
    return json.loads(json.dumps({"info": info, "page": page(rule).splitlines()}))  # type: ignore[no-any-return]


def title(example: Example) -> str:
    return f"{example.kind}: {example.name}"


@pytest.mark.parametrize("rule", RULES, ids=[rule.info.id for rule in RULES])
async def test_what_is_told_of_a_rule_is_what_is_kept(rule: Rule) -> None:
    if "RENEW" in os.environ:
        cases = {title(each): told(await found(rule, each)) for each in read(rule.examples)}
        text = json.dumps({**declared(rule), "cases": cases}, indent=1, ensure_ascii=False)
        (TOLD / f"{rule.info.id}.json").write_text(text + "\n")
        return
    assert KEPT[rule.info.id] | declared(rule) == KEPT[rule.info.id]
    assert list(KEPT[rule.info.id]["cases"]) == [title(each) for each in read(rule.examples)]


@pytest.mark.parametrize(("rule", "example"), CASES, ids=[f"{r.info.id}: {title(e)}" for r, e in CASES])
async def test_a_rule_alone_tells_the_same_of_an_example(rule: Rule, example: Example) -> None:
    if "RENEW" not in os.environ:
        assert told(await found(rule, example)) == KEPT[rule.info.id]["cases"][title(example)]
