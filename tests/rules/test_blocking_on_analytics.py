"""What blocking-on-analytics makes of what the latency probe knows: both sides of each of its limits."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Finding, Outcome, RuleSettings, Settings, Waits
from cio_proxy.rules import RULES, blocking_on_analytics
from cio_proxy.rules.blocking_on_analytics import difference

from .alone import NOW

ID = "blocking-on-analytics"


def waits(held: str, free: str, *, nested: int = 0, traced: bool = True) -> Waits:
    """Of each kind of calls how many were followed, of how many."""
    (held_followed, of_held), (free_followed, of_free) = (map(int, each.split("/")) for each in (held, free))
    return Waits("POST /orders", "event paid", traced, 1.0, of_held, held_followed, of_free, free_followed, nested)


def told(*known: Waits, **params: Any) -> tuple[list[Finding], list[str]]:
    """What is found at an answer of the app's, and why nothing could be."""
    reasons: list[str] = []
    errors: list[object] = []
    engine = Engine(
        Settings(inbound="127.0.0.1:0", rules={ID: RuleSettings(report="possible", params=params)}),  # type: ignore[arg-type]
        tuple(rule for rule in RULES if rule.info.id == ID),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
        unable=lambda rule, reason: reasons.append(reason),
    )
    request = {"id": "1", "at": NOW, "method": "POST", "target": b"/orders", "host": "shop.example.com"}
    opened = engine.open(Exchange(**request, headers=(), body=b"", listener="inbound"))  # type: ignore[arg-type]
    engine.judge(opened, Reading())
    found = engine.settle(opened, Outcome("accepted", NOW + 1, 200, waits=known)).findings
    assert errors == []
    return list(found), reasons


def test_a_difference_is_told_in_numbers() -> None:
    (finding,), reasons = told(waits("20/20", "1/400"))
    assert reasons == []
    assert finding.message == (
        "POST /orders waits for Customer.io: of 20 answers to event paid that were held back by 1000 ms, 20 were"
        " followed by the app's own within 500 ms; of 400 that were not held, 1"
    )


def test_a_difference_that_is_too_small_is_none() -> None:
    assert difference(waits("10/20", "0/200")) == pytest.approx(0.199, abs=0.0005)
    assert told(waits("10/20", "0/200")) == ([], [])
    assert len(told(waits("10/20", "0/200"), effect=19)[0]) == 1


def test_where_there_is_nothing_to_compare_with_there_is_no_difference_however_small_a_one_is_told() -> None:
    assert told(waits("20/20", "0/0"), effect=0) == ([], [])


@pytest.mark.parametrize(
    ("held", "free", "least"), [("56/70", "48/80", 0.0524), ("9/10", "3/10", 0.1705), ("10/10", "0/10", 0.6075)]
)
def test_the_interval_is_newcombes(held: str, free: str, least: float) -> None:
    """The lower limits that Newcombe (1998, table II, method 10) gives, for 95 %."""
    with patch.object(blocking_on_analytics, "Z", 1.96):
        assert difference(waits(held, free)) == pytest.approx(least, abs=0.0001)


UNTRACED = "nothing was held back, and no trace tells which request a call is part of"
FEW = "nothing was held back, and there are too few calls for a hint"


@pytest.mark.parametrize(
    ("known", "found", "reasons"),
    [
        (waits("0/0", "0/100", nested=95), ["possible"], []),
        (waits("0/0", "0/100", nested=94), [], []),
        (waits("0/0", "0/99", nested=99), [], [FEW]),
        (waits("0/0", "0/100", nested=100, traced=False), [], [UNTRACED]),
    ],
)
def test_without_a_call_that_was_held_there_is_a_hint_at_most(
    known: Waits, found: list[str], reasons: list[str]
) -> None:
    findings, said = told(known)
    assert ([finding.confidence for finding in findings], said) == (found, reasons)
