"""The self-test at start-up: every rule must find what its first bad example shows."""

from __future__ import annotations

from collections.abc import Sequence

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import overlay
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.examples import Example, ExampleError, read
from cio_proxy.model import Finding, Settings
from cio_proxy.rules import RULES, Rule

START = 1_750_000_000.0
KEY = bytes(32)


async def failing(rules: Sequence[Rule] = RULES) -> dict[str, str]:
    """The rules that do not find the fault of their first bad example, each with the reason."""
    reasons = {rule.info.id: await _reason(rule, rules) for rule in rules}
    return {id: reason for id, reason in reasons.items() if reason}


async def played(example: Example, engine: Engine) -> list[Finding]:
    """The findings of an example that begins at `START`."""
    recorded = [
        (each.exchange, Recorded(each.answered_at, each.status, each.response, each.location, each.waits))
        for each in example.play(START)
    ]
    end = None if example.end is None else START + example.end
    return await audit_recorded(recorded, engine, end=end)


async def _reason(rule: Rule, rules: Sequence[Rule]) -> str:
    try:
        example = next(filter(_is_first_look, read(rule.examples)), None)
    except ExampleError as error:
        return str(error)
    if example is None:
        return f"{rule.examples.name} has no bad example without a repeat"
    errors: list[str] = []
    settings = overlay(Settings(), dict(example.config), rules=[each.info for each in rules])
    engine = Engine(settings, [rule], sealed_with(KEY), rule_error=lambda _, error: errors.append(type(error).__name__))
    findings = await played(example, engine)
    if errors:
        return f"{errors[0]} in its first bad example"
    return "" if findings else f"it finds nothing in its first bad example, '{example.name}'"


def _is_first_look(example: Example) -> bool:
    return example.kind == "bad" and all(step.repeat == 1 for step in example.exchanges)
