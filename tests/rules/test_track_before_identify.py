"""Words of a sign-up, what deletes a person, whose clock counts, and what is read where every person is known."""

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import (
    Call,
    Exchange,
    Fact,
    Finding,
    Groups,
    Key,
    Kind,
    Outcome,
    OutcomeKind,
    People,
    Person,
    Sample,
    Settings,
    Span,
)
from cio_proxy.rules import RULES
from cio_proxy.rules.track_before_identify import check, is_sign_up, learn, review

RULE = tuple(rule for rule in RULES if rule.info.id == "track-before-identify")
NOW = 1.75e9
PERSON = b"/api/v1/customers/42"
SIGN_UP = b'{"name": "signed_up"}'


async def found(
    *sent: tuple[float, str, bytes, bytes, int], people: People = "partial", connections: str = "a"
) -> list[Finding]:
    """The findings of requests, each with its time, method, target, body and status, on these connections in turn."""
    recorded = [
        (
            Exchange(
                id=str(number),
                at=NOW + at,
                method=method,
                target=target,
                host="track.customer.io",
                headers=(),
                body=body,
                connection=connections[number % len(connections)],
            ),
            Recorded(NOW + at, status),
        )
        for number, (at, method, target, body, status) in enumerate(sent)
    ]
    return await audit_recorded(recorded, Engine(Settings(people=people), RULE, sealed_with(b"k" * 32)))


def identify(
    at: float, body: bytes = b'{"email": "a@example.com"}', status: int = 200
) -> tuple[float, str, bytes, bytes, int]:
    return (at, "PUT", PERSON, body, status)


def event(at: float, body: bytes = SIGN_UP, status: int = 200) -> tuple[float, str, bytes, bytes, int]:
    return (at, "POST", PERSON + b"/events", body, status)


async def test_what_is_not_known_may_be_on_its_way() -> None:
    (unknown, *_) = await found(event(0), people="complete")
    assert (unknown.confidence, unknown.early) == ("certain", True)
    (late,) = await found(event(0), identify(1), people="partial")
    assert (late.confidence, late.early) == ("likely", False)


WHOSE = ["user", "account", "customer", "member"]
HOW = ["", "_complete", "Completed", " success", "_finished"]


@pytest.mark.parametrize("what", ["signup", "signed_up", "Sign Up", "signedUp"])
def test_names_of_a_sign_up(what: str) -> None:
    for whose in ("", *WHOSE, "person", "profile"):
        for how in HOW:
            assert is_sign_up(f"{whose}_{what}{how}"), (whose, what, how)
    assert not is_sign_up(f"order_{what}")
    assert not is_sign_up(f"{what}_failed")
    assert not is_sign_up("x" * 100 + what)


@pytest.mark.parametrize("whose", WHOSE)
def test_who_registered_is_somebody(whose: str) -> None:
    for what in ("registered", *(f"registration{how}" for how in HOW)):
        assert is_sign_up(f"{whose}_{what}"), what
        assert not is_sign_up(what)  # for a webinar, a course
    assert not is_sign_up(f"{whose}_created")


def test_a_sign_up_is_read_from_a_hundred_characters() -> None:
    assert is_sign_up("_" * 94 + "signup")
    assert not is_sign_up("_" * 95 + "signup")
    assert is_sign_up("_" * 94 + "signupx")


async def test_the_first_identify_after_a_sign_up() -> None:
    (finding,) = await found(event(0), identify(5))
    assert (finding.confidence, finding.related) == ("likely", ("0",))
    assert await found(event(0, b'{"name": "a"}'), identify(5)) == []
    assert await found(event(0, b'{"name": ""}'), identify(5, b'{"created_at": 1750000000}')) == []


@pytest.mark.parametrize("status", [400, 500])
async def test_an_event_that_was_not_accepted_proves_nothing(status: int) -> None:
    assert await found(event(0, SIGN_UP, status), identify(5)) == []


@pytest.mark.parametrize("name", ["created_at", "createdAt"])
@pytest.mark.parametrize(("offset", "count"), [(-301, 0), (-300, 1), (0, 1), (5, 1)])
async def test_who_was_created_before_the_event_was_known_then(name: str, offset: int, count: int) -> None:
    body = b'{"%s": %d}' % (name.encode(), NOW + offset)
    before = (-1_000.0, "PUT", b"/api/v1/customers/7", b"{}", 200)
    findings = await found(before, event(0, b'{"name": "a"}'), identify(5, body))
    assert [finding.confidence for finding in findings] == ["certain"] * count


async def test_created_at_goes_before_its_other_spelling() -> None:
    body = b'{"created_at": %d, "createdAt": %d}' % (NOW, NOW - 9_000)
    assert len(await found(event(0, b'{"name": "a"}'), identify(5, body))) == 1


async def test_who_was_identified_or_deleted_before_is_not_new() -> None:
    assert await found(identify(-9), event(0), identify(5)) == []
    assert await found(identify(-9, status=500), event(0), identify(5)) == []
    assert await found((-9, "DELETE", PERSON, b"", 200), event(0), identify(5)) == []
    assert await found((-9, "POST", PERSON + b"/suppress", b"", 200), event(0), identify(5)) == []
    assert len(await found(identify(-9, status=400), event(0), identify(5))) == 1


@pytest.mark.parametrize(("late", "count"), [(300, 1), (301, 0)])
async def test_a_sign_up_and_an_identify_belong_together_for_five_minutes(late: int, count: int) -> None:
    assert len(await found(event(0), identify(late))) == count


@pytest.mark.parametrize(("age", "count"), [(3601, 0), (3600, 1), (0, 1)])
async def test_an_event_of_more_than_an_hour_ago_says_nothing_of_the_order(age: int, count: int) -> None:
    body = b'{"name": "signed_up", "timestamp": %d}' % (NOW - age)
    assert len(await found(event(0, body), identify(5))) == count


async def test_what_was_before_anybody_looked_proves_nothing() -> None:
    body = b'{"created_at": %d}' % (NOW - 1)
    assert await found(event(0, b'{"name": "a"}'), identify(5, body)) == []


async def test_two_connections_may_overtake_each_other_by_ten_seconds() -> None:
    assert await found(event(0), identify(10.0), connections="ab") == []
    assert len(await found(event(0), identify(10.25), connections="ab")) == 1
    assert len(await found(event(0), identify(0.25))) == 1


async def test_an_identify_right_after_the_event_is_not_told_as_no_time_at_all() -> None:
    (finding,) = await found(event(0), identify(0.004))
    assert finding.message == "the first identify came less than 0.1 s after a sign-up event for the same person"


async def test_an_update_alone_creates_nobody() -> None:
    assert await found(event(0), identify(5, b'{"_update": true, "a": 1}')) == []


async def test_any_identifier_of_the_person_will_do() -> None:
    body = b'{"id": "7", "email": "b@example.com", "created_at": 1750000000}'
    by_mail = (0.0, "POST", b"/api/v1/customers/b@example.com/events", b'{"name": "a"}', 200)
    (finding,) = await found(by_mail, (5.0, "PUT", b"/api/v1/customers/7", body, 200))
    assert finding.confidence == "certain"


async def test_where_every_person_is_known_an_unknown_one_is_told_at_once() -> None:
    (finding,) = await found(event(0, b'{"name": "a"}'), people="complete")
    assert (finding.confidence, finding.name) == ("certain", "a")
    assert await found(identify(-9), event(0), people="complete") == []
    deleted = (-5.0, "DELETE", PERSON, b"", 200)
    assert len(await found(identify(-66), deleted, event(0), people="complete")) == 1
    assert await found(identify(-65), deleted, event(0), people="complete") == []  # kept to the minute
    assert await found(deleted, identify(-5), event(0), people="complete") == []
    suppressed = (-5.0, "POST", PERSON + b"/suppress", b"", 200)
    assert len(await found(identify(-66), suppressed, event(0), people="complete")) == 1
    anonymous = (0.0, "POST", b"/api/v1/events", b'{"name": "a", "anonymous_id": "x"}', 200)
    assert await found(anonymous, people="complete") == []


DAY = 86_400.0
FIRST = (-4 * DAY, "PUT", b"/api/v1/customers/7", b'{"email": "first@example.com"}', 200)
Sent = tuple[float, str, bytes, bytes, int]


def late(number: int, at: float = 0, gap: float = 5, body: bytes = b'{"email": "p%d@example.com"}') -> list[Sent]:
    """An event, and then the first identify of the same person."""
    path = b"/api/v1/customers/p%d" % number
    body = body % number if b"%d" in body else body
    return [(at, "POST", path + b"/events", b'{"name": "a"}', 200), (at + gap, "PUT", path, body, 200)]


def right(number: int, at: float = 0) -> list[Sent]:
    """An identify, and then the first event of the same person."""
    return [(at + n, *rest) for n, (_, *rest) in enumerate(reversed(late(number)))]  # type: ignore[misc]


async def many(*people: list[Sent], first: Sent = FIRST) -> int:
    """How often the order alone is reported."""
    sent = [first] + [each for person in people for each in person]
    return len(await found(*sorted(sent, key=lambda each: each[0])))


async def test_the_order_alone_is_told_from_the_twentieth_person_on() -> None:
    wrong = [late(number, number * 10) for number in range(22)]
    assert await many(*wrong[:19]) == 0
    assert await many(*wrong) == 3
    sent = [FIRST] + [each for person in wrong[:20] for each in person]
    (finding,) = await found(*sent)
    assert (finding.confidence, finding.pointer, len(finding.related)) == ("likely", "path:", 1)
    assert "20 people" in finding.message
    assert "for a new person" in finding.effect


async def test_one_in_twenty_who_was_identified_first_is_enough_for_silence() -> None:
    wrong = [late(number, number * 10) for number in range(20)]
    assert await many(right(99, -50), *wrong) == 1  # one of 21
    assert await many(right(98, -60), right(99, -50), *wrong) == 0


async def test_a_batch_in_the_right_order_counts_as_much() -> None:
    wrong = [late(number, number * 10) for number in range(20)]
    item = (
        b'{"type": "person", "action": "identify", "identifiers": {"id": "q%d"}, "attributes": {}},'
        b'{"type": "person", "action": "event", "identifiers": {"id": "q%d"}, "name": "a"}'
    )
    batch = b'{"batch": [' + item % (1, 1) + b", " + item % (2, 2) + b"]}"
    assert await many([(-50.0, "POST", b"/api/v2/batch", batch, 200)], *wrong) == 0


@pytest.mark.parametrize(
    "odd",
    [
        late(0, -2 * DAY),  # an event while nobody had watched for long
        late(0, gap=301),
        late(0, body=b'{"plan": "pro"}'),
        late(0, body=b'{"email": "p0@example.com", "created_at": 1700000000}'),
        late(0, body=b'{"email": "p0@example.com", "_update": true}'),
        [*late(0)[:1], (5.0, "PUT", b"/api/v1/customers/p0", b'{"email": "p0@example.com"}', 500)],
        [late(0)[0], (3.0, "DELETE", b"/api/v1/customers/p0", b"", 200), late(0)[1]],
        [late(1)[0], (3.0, "PUT", b"/api/v1/customers/p1", b'{"email": "p1@example.com"}', 200)],  # somebody twice
    ],
    ids=["in the warm-up", "long after", "no address", "old", "update only", "unsure", "deleted", "the same person"],
)
async def test_who_does_not_count_for_the_wrong_order(odd: list[Sent]) -> None:
    first = (-4 * DAY, *FIRST[1:])
    wrong = [late(number, number * 10) for number in range(1, 20)]
    assert await many(late(20, 200), *wrong, first=first) == 1
    assert await many(odd, *wrong, first=first) == 0


async def test_the_order_counts_from_the_end_of_the_warm_up() -> None:
    wrong = [late(number, number * 10) for number in range(20)]
    assert await many(*wrong, first=(-3 * DAY, *FIRST[1:])) == 1
    assert await many(*wrong, first=(-3 * DAY + 1, *FIRST[1:])) == 0


async def test_who_is_new_by_their_own_date_counts_too() -> None:
    wrong = [late(number, number * 10) for number in range(1, 20)]
    new = late(0, body=b'{"email": "p0@example.com", "created_at": 1750000000}')
    sent = sorted([FIRST, *new, *(each for person in wrong for each in person)], key=lambda each: each[0])
    assert [finding.confidence for finding in await found(*sent)] == ["certain", "likely"]


async def test_what_people_do_later_says_nothing_of_the_right_order() -> None:
    wrong = [[*late(number, number * 10), (number * 10 + 7.0, *late(number)[0][1:])] for number in range(20)]
    assert await many(*wrong) == 1


class Remembered:
    """An event at this time; whether the person was identified; and so many people of each order."""

    since = NOW - 9 * DAY
    lost = 0.0
    people: People = "partial"
    plan = None

    def __init__(self, event: float | None = None, /, *, identified: bool = False) -> None:
        self.params = {name: param.default for name, param in RULE[0].info.params.items()}
        self.order: dict[str, int] = {}
        self._spans = {"event-first": event, "identified": NOW - 5 if identified else None}

    def span(self, key: Key) -> Span | None:
        at = self._spans.get(key.kind) if key[1:3] == ("w", "id:42") else None
        return None if at is None else Span(at, at)

    def groups(self, key: Key) -> Groups | None:
        return Groups(2, {label: Sample(100, tuple(range(count))) for label, count in self.order.items()})

    def sample(self, key: Key) -> None:
        return None

    def in_flight(self, key: Key) -> bool:
        return False

    def member(self, text: str) -> int:
        return 0

    def label(self, name: str) -> str:
        return name


ADA = Person(id="42", email="a@example.com")


def call(kind: Kind, person: Person = ADA, /, **attributes: float) -> Call:
    exchange = Exchange(id="1", at=NOW, method="POST", target=b"/", host="", headers=(), body=b"", connection="c")
    parts = {"api": "track_v1", "endpoint": "", "workspace": "w", "name": "a"}
    return Call(exchange=exchange, kind=kind, person=person, attributes=attributes, **parts)  # type: ignore[arg-type]


def order(kind: Kind, known: Remembered, ending: OutcomeKind = "accepted", **attributes: float) -> list[Fact]:
    return list(review(call(kind, ADA, **attributes), Outcome(ending, NOW), known))


def test_what_is_taught_of_the_order() -> None:
    key = Key("order", "w", "order of event and identify")

    def fact(label: str) -> Fact:
        return Fact(key, Groups(2, {label: Sample(100, plain=frozenset({"id:42"}))}), 30 * DAY)

    assert order("event", Remembered(identified=True)) == [fact("identify first")]
    assert order("event", Remembered(NOW - 9, identified=True)) == order("event", Remembered()) == []
    assert order("event", Remembered(identified=True), "unknown") == []
    late = Remembered(NOW - 300)
    assert order("identify", late) == order("identify", late, created_at=NOW - 600) == [fact("event first")]
    assert order("identify", late, created_at=NOW - 601) == order("identify", late, "unknown") == []
    assert order("identify", Remembered(NOW - 301)) == order("identify", Remembered(NOW - 300, identified=True)) == []
    anonymous = call("event", Person(anonymous="x"))
    assert list(review(anonymous, Outcome("accepted", NOW), Remembered(identified=True))) == []


@pytest.mark.parametrize(
    ("wrong", "right", "params", "confidence"),
    [
        (19, 0, {}, "likely"),
        (18, 0, {}, "possible"),
        (94, 5, {}, "possible"),  # five of a hundred
        (95, 5, {}, "likely"),
        (None, 0, {"people": 2}, "possible"),
        (4, None, {"people": 5}, "likely"),
    ],
)
def test_how_many_people_make_a_rule(
    wrong: int | None, right: int | None, params: dict[str, float], confidence: str
) -> None:
    known = Remembered(NOW - 300)
    known.params |= params
    known.order = {k: v for k, v in (("event first", wrong), ("identify first", right)) if v is not None}
    (finding,) = check(call("identify"), known)
    assert finding.confidence == confidence


def test_what_is_taught_is_kept_for_as_long_as_the_operator_says() -> None:
    exchange = Exchange(id="1", at=NOW, method="POST", target=b"/", host="", headers=(), body=b"", connection="c")

    def taught(
        kind: Kind, name: str | None = None, ending: OutcomeKind = "accepted"
    ) -> list[tuple[str, str, str, float, float, float, str]]:
        call = Call(
            exchange=exchange, api="track_v1", kind=kind, endpoint="", workspace="w", person=Person(id="42"), name=name
        )
        facts = learn(call, Outcome(ending, NOW), {"remember": 9.0})
        return [
            (*fact.key[:3], fact.ttl, fact.value.first, fact.value.last, fact.value.origin.connection)  # type: ignore[union-attr]
            for fact in facts
        ]

    rest = (9.0, NOW, NOW, "c")
    assert taught("identify") == taught("delete") == []
    assert taught("event", "a") == [("event-first", "w", "id:42", *rest)]
    assert [fact[0] for fact in taught("event", "sign_up")] == ["event-first", "sign-up-first"]
    assert taught("event", "a", ending="unknown") == taught("event", "") == []
