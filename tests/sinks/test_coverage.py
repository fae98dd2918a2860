"""The summary says what was seen, judged, found and refused."""

from dataclasses import replace

from cio_proxy.model import Call, End, Exchange, Finding, RuleInfo
from cio_proxy.sinks.coverage import REASONS, Coverage

RULE = RuleInfo(id="missing-email", severity="warning", category="4", kinds=frozenset({"identify"}))
EXCHANGE = Exchange(id="e", at=1000.0, method="PUT", target=b"/", host="h", headers=(), body=b"")
CALL = Call(exchange=EXCHANGE, api="track_v1", kind="identify", endpoint="/", workspace="w")
END = End(exchange=EXCHANGE, api="track_v1", ending="forwarded", calls=(CALL,))
FINDING = Finding(
    rule="missing-email", severity="warning", confidence="likely", pointer="", message="m", effect="e", fix="f"
)


def test_nothing_seen_is_a_clean_summary() -> None:
    assert Coverage([RULE]).summary() == {
        "requests": 0,
        "calls": 0,
        "blocked": 0,
        "paced": {"held": 0, "passed": 0, "would": 0},
        "by_rule": {},
        "exempt": 0,
        "baselined": 0,
        "coverage": {"missing-email": {"applicable": 0, "exercised": 0, "fired": 0, "unavailable": {}}},
        "exemptions": [],
        "score": 100,
    }


def test_exchanges_calls_and_refusals_are_counted() -> None:
    coverage = Coverage([RULE])
    for end in (END, END._replace(calls=(CALL, CALL), ending="partial"), END._replace(ending="blocked")):
        coverage.ended(end)
    summary = coverage.summary()
    assert (summary["requests"], summary["calls"], summary["blocked"]) == (3, 4, 2)


def test_a_rule_is_exercised_where_its_evidence_sufficed() -> None:
    coverage = Coverage([RULE])
    event = Call(exchange=EXCHANGE, api="track_v1", kind="event", endpoint="/", workspace="w")
    coverage.ended(END._replace(calls=(CALL, CALL, CALL, event)))
    coverage.found(FINDING)
    coverage.unable("missing-email", "people are partial")
    assert coverage.summary()["coverage"]["missing-email"] == {
        "applicable": 3,
        "exercised": 2,
        "fired": 1,
        "unavailable": {"people are partial": 1},
    }


def test_reasons_without_end_are_counted_as_other() -> None:
    coverage = Coverage([RULE])
    for number in range(100):
        coverage.unable("missing-email", f"reason {number}")
    reasons = coverage.summary()["coverage"]["missing-email"]["unavailable"]
    assert len(reasons) == REASONS + 1
    assert reasons["other"] == 100 - REASONS


def test_what_the_operator_accepted_is_no_finding_of_the_summary() -> None:
    coverage = Coverage([RULE])
    for action in ("logged", "would_block", "blocked", "exempt", "baselined"):
        coverage.found(replace(FINDING, action=action))
    summary = coverage.summary()
    assert summary["by_rule"] == {"missing-email": 3}
    assert (summary["exempt"], summary["baselined"]) == (1, 1)
    assert summary["score"] == 95
