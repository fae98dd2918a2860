"""The engine holds its own whatever a rule does."""

from collections.abc import Iterator
from dataclasses import replace

from cio_proxy.audit import FINDINGS, Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Call, Exchange, Finding, Known, Settings, Unavailable
from cio_proxy.rules import RULES, Rule

SEAL = sealed_with(b"k" * 32)
EXCHANGE = Exchange(
    id="e", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=b"{}"
)
INFO = RULES[0].info


def finding(number: int) -> Finding:
    return INFO.finding(f"/{number}", "m", effect="e", fix="f", confidence="certain")


def judged(*rules: Rule, **engine: object) -> tuple[Finding, ...]:
    judge = Engine(Settings(), rules, SEAL, **engine)  # type: ignore[arg-type]
    return judge.judge(judge.open(EXCHANGE), Reading()).findings


def test_a_rule_says_at_most_twenty_things_about_one_call_and_stops_looking() -> None:
    looked: list[int] = []

    def check(call: Call, known: Known) -> Iterator[Finding]:
        for number in range(100_000):
            looked.append(number)
            yield finding(number)

    assert len(judged(replace(RULES[0], check=check))) == FINDINGS
    assert len(looked) == FINDINGS


def test_a_rule_that_raises_is_counted_and_the_others_go_on() -> None:
    def bad(call: Call, known: Known) -> Iterator[Finding]:
        yield finding(1)
        raise RuntimeError

    def good(call: Call, known: Known) -> Iterator[Finding]:
        yield finding(2)

    errors: list[str] = []
    found = judged(
        replace(RULES[0], check=bad),
        replace(RULES[0], check=good),
        rule_error=lambda rule, error: errors.append(f"{rule} {type(error).__name__}"),
    )
    assert [each.pointer for each in found] == ["/1", "/2"]
    assert errors == [f"{INFO.id} RuntimeError"]


def test_what_a_rule_could_not_judge_is_told_with_the_reason() -> None:
    reasons: list[tuple[str, str]] = []
    unable = replace(RULES[0], check=lambda call, known: [Unavailable("people are partial")])
    assert judged(unable, unable=lambda rule, reason: reasons.append((rule, reason))) == ()
    assert reasons == [(INFO.id, "people are partial")]
