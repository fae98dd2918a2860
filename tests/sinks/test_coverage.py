"""The summary says what was seen, judged, found and refused."""

from dataclasses import replace

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Address, Call, End, Exchange, Finding, RuleInfo, Settings, Waits
from cio_proxy.rules import RULES
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


def test_what_rules_look_at_beside_exchanges_is_covered_and_is_no_call() -> None:
    coverage = Coverage([replace(RULE, kinds=frozenset({"other"}))])
    coverage.looked((replace(CALL, kind="other"),))
    coverage.looked((replace(CALL, kind="other"),))
    coverage.unable("missing-email", "too few")
    summary = coverage.summary()
    told = summary["coverage"]["missing-email"]
    assert (summary["calls"], told["applicable"], told["exercised"]) == (0, 2, 1)
    coverage.reset()
    assert coverage.summary()["coverage"]["missing-email"]["applicable"] == 0


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


def test_what_the_latency_probe_tells_is_counted_as_judged_where_there_was_enough() -> None:
    rule = next(rule for rule in RULES if rule.info.id == "blocking-on-analytics")
    coverage = Coverage([rule.info])
    settings = Settings(inbound=Address("127.0.0.1", 0), app="http://127.0.0.1:9")
    engine = Engine(settings, (rule,), sealed_with(b"k" * 32), unable=coverage.unable)
    auditor = Auditor(engine, MemoryStore(), (coverage,), looked=coverage.looked)
    asked = replace(EXCHANGE, method="POST", target=b"/orders/{}", host="", listener="inbound")
    proved = Waits("POST /orders/{}", "event order_placed", True, 0.6, 20, 20, 400, 1)
    timed = proved._replace(traced=False, held=0, held_followed=0)
    few = timed._replace(traced=True, free=20)
    for waits in (proved, proved._replace(held_followed=0), timed, few):
        auditor.noticed(asked, 200, (waits,))
    assert coverage.summary()["requests"] == coverage.summary()["calls"] == 0
    assert coverage.summary()["coverage"]["blocking-on-analytics"] == {
        "applicable": 4,
        "exercised": 2,
        "fired": 1,
        "unavailable": {
            "nothing was held back, and no trace tells which request a call is part of": 1,
            "nothing was held back, and there are too few calls for a hint": 1,
        },
    }
