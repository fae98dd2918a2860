"""Every example of every rule gives exactly the findings it names, with all rules on."""

from collections import Counter

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import overlay
from cio_proxy.examples import Example, read
from cio_proxy.masking import masked
from cio_proxy.model import Settings
from cio_proxy.rules import RULES, Rule
from cio_proxy.selftest import START, played

REFUSING = {"wrong-api-key", "millisecond-timestamp", "pii-in-name", "oversized-payload"}
"""Reference 9.19 and no more; `tests/sources/test_blocking.py` shows each being refused."""
by_id = {rule.info.id: rule.info for rule in RULES}
CASES = [(rule, example) for rule in RULES for example in read(rule.examples)]


@pytest.mark.parametrize(("rule", "example"), CASES, ids=[f"{r.info.id}: {e.kind}: {e.name}" for r, e in CASES])
async def test_an_example_gives_exactly_its_findings(rule: Rule, example: Example) -> None:
    if example.kind == "todo":
        pytest.xfail("a known miss")
    settings = overlay(Settings(), dict(example.config), rules=[r.info for r in RULES])
    errors: list[object] = []
    engine = Engine(
        settings, RULES, sealed_with(b"k" * 32), rule_error=lambda rule, error: errors.append((rule, error))
    )
    findings = await played(example, engine)
    given = Counter((finding.rule, finding.pointer, finding.confidence) for finding in findings)
    wanted = Counter((e.rule, masked(e.pointer), e.confidence) for s in example.play(START) for e in s.step.expects)
    wanted.update((e.rule, masked(e.pointer), e.confidence) for e in example.end_expects)
    assert given == wanted
    assert errors == []
    assert all(by_id[finding.rule].refuses for finding in findings if finding.refusable)


@pytest.mark.parametrize("rule", RULES, ids=[rule.info.id for rule in RULES])
def test_a_rule_has_enough_examples_of_each_kind(rule: Rule) -> None:
    kinds = Counter(example.kind for example in read(rule.examples))
    assert kinds["bad"] >= 3
    assert kinds["good"] >= 3
    assert kinds["near miss"] >= 1
    assert kinds["hostile"] >= 1


def test_no_other_rules_refuse_by_default_than_those_that_may() -> None:
    assert {id for id, info in by_id.items() if info.refuses} == REFUSING
