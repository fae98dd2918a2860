"""The engine holds its own whatever a rule does."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cio_proxy.audit import FINDINGS, LARGEST, UNREAD, Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import (
    IDENTIFIED,
    Call,
    Exchange,
    Fact,
    Finding,
    Form,
    Kept,
    Key,
    Known,
    Outcome,
    Settings,
    Span,
    Unavailable,
)
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


def test_a_rule_is_asked_once_whether_a_form_concerns_it_and_about_no_call_of_one_that_does_not() -> None:
    forms: list[tuple[str, ...]] = []

    def concerns(form: Form) -> bool:
        forms.append(form.attributes)
        return "plan" in form.attributes

    rule = replace(RULES[0], concerns=concerns, check=lambda call, known: [finding(1)])
    engine = Engine(Settings(), [rule], SEAL)
    bodies = [b'{"plan": "pro"}', b'{"size": 1}', b'{"plan": "basic"}', b'{"size": 2}']
    found = [engine.judge(engine.open(replace(EXCHANGE, body=body)), Reading()).findings for body in bodies]
    assert [len(each) for each in found] == [1, 0, 1, 0]
    assert forms == [("plan",), ("size",)]


def test_the_form_of_a_large_call_is_not_kept() -> None:
    forms: list[Form] = []

    def concerns(form: Form) -> bool:
        forms.append(form)
        return True

    rule = replace(RULES[0], concerns=concerns)
    engine = Engine(Settings(), [rule], SEAL)
    large = replace(EXCHANGE, body=b'{"plan": "%s"}' % (b"a" * LARGEST))
    for exchange in (large, large, EXCHANGE, EXCHANGE):
        engine.open(exchange)
    assert [form.body for form in forms] == [("plan",), ("plan",), ()]


def test_a_rule_that_cannot_say_whether_a_form_concerns_it_is_asked_about_its_calls() -> None:
    def concerns(form: Form) -> bool:
        raise RuntimeError

    errors: list[str] = []
    rule = replace(RULES[0], concerns=concerns, check=lambda call, known: [finding(1)])
    assert len(judged(rule, rule_error=lambda rule, error: errors.append(rule))) == 1
    assert errors == [INFO.id]


def settled(exchange: Exchange, rule: Rule, reading: Reading = UNREAD) -> list[tuple[str, str]]:
    """The kinds and subjects of what an accepted exchange teaches, beside who exists and since when."""
    engine = Engine(Settings(), (rule,), SEAL)
    opened = engine.open(exchange)
    engine.judge(opened, reading)
    facts = engine.settle(opened, Outcome("accepted", exchange.at, 200)).facts
    return [(fact.key.kind, fact.key.subject) for fact in facts if fact.key.kind in ("found", "again")]


def test_a_review_teaches_what_follows_from_the_answer_sealed_and_only_if_it_is_new() -> None:
    key = Key("found", "w", "id:42")

    def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding | Fact]:
        return [Fact(key, Span(call.at, call.at), 60.0), finding(1)]

    rule = replace(RULES[0], review=review)
    ((kind, subject),) = settled(EXCHANGE, rule)
    assert (kind, len(subject), "42" in subject) == ("found", 16, False)
    of = Key(kind, "w", subject).of
    kept = Reading({of: {kind: Kept(Span(1.0, EXCHANGE.at), EXCHANGE.at + 60.0)}})
    assert settled(EXCHANGE, rule, kept) == []


def test_the_review_of_a_later_call_knows_what_earlier_ones_of_its_exchange_taught() -> None:
    def review(call: Call, outcome: Outcome, known: Known) -> Iterator[Fact]:
        key = Key(IDENTIFIED, call.workspace, "id:42")
        yield Fact(Key("again" if known.span(key) else "found", "w", "x"), Span(call.at, call.at), 60.0)

    item = b'{"type": "person", "action": "identify", "identifiers": {"id": "42"}, "attributes": {}}'
    body = b'{"batch": [' + item + b", " + item + b"]}"
    batch = replace(EXCHANGE, method="POST", target=b"/api/v2/batch", body=body)
    assert [kind for kind, _ in settled(batch, replace(RULES[0], review=review))] == ["found", "again"]

    def counted(call: Call, outcome: Outcome, known: Known) -> Iterator[Fact]:
        key = Key("found", "w", "x")
        yield Fact(key._replace(kind="again") if known.span(key) else key, Span(call.at, call.at), 60.0)

    assert [kind for kind, _ in settled(batch, replace(RULES[0], review=counted))] == ["found", "again"]
