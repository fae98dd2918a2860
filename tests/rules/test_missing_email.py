"""What is remembered of a person, and how fresh one has to be."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import (
    Call,
    Deadline,
    Exchange,
    Finding,
    Groups,
    Json,
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
from cio_proxy.rules.missing_email import DAY, learn

from .alone import history, told

RULE = tuple(rule for rule in RULES if rule.info.id == "missing-email")
NOW = 1.75e9
PARAMS = {"window": 600.0, "new_within": 3600.0, "remember": 7.0, "required": ()}


def call(person: Person, /, **attributes: Json) -> Call:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"")
    return Call(
        exchange=exchange,
        api="track_v1",
        kind="identify",
        endpoint="",
        workspace="w",
        person=person,
        attributes=attributes,
    )


def taught(
    person: Person, kind: OutcomeKind = "accepted", required: tuple[str, ...] = (), /, **attributes: Json
) -> list[tuple[str, str, str, Any, float]]:
    facts = learn(call(person, **attributes), Outcome(kind, NOW), PARAMS | {"required": required})
    return [(*fact.key[:3], fact.value, fact.ttl) for fact in facts if fact.key.kind != "new-people"]


def test_an_address_is_remembered_under_each_identifier_whatever_the_answer() -> None:
    seen = Span(NOW, NOW)
    person = Person(id="42", email="a@example.com")
    endings: tuple[OutcomeKind, ...] = ("accepted", "unknown")
    for kind in endings:
        assert taught(person, kind) == [
            ("has-email", "w", "id:42", seen, 7.0),
            ("has-email", "w", "email:a@example.com", seen, 7.0),
        ]
    assert [fact[0] for fact in taught(Person(id="a@example.com"))] == ["has-email"]
    assert [fact[0] for fact in taught(Person(id="42"), _update=True)] == ["has-email"]


def test_a_new_person_without_one_has_a_window() -> None:
    ((kind, workspace, subject, deadline, ttl),) = taught(Person(id="42", cio_id="a3"), created_at=NOW)
    assert (kind, workspace, subject, ttl) == ("missing-email", "w", "id:42", 600.0 + DAY)
    assert isinstance(deadline, Deadline)
    assert (deadline.at, deadline.rule) == (NOW + 600.0, "missing-email")
    assert [key[:3] for key in deadline.watch] == [
        ("has-email", "w", "id:42"),
        ("has-email", "w", "cio_id:a3"),
        ("new-people", "w", f"{WEEK:.0f}\0new people"),
        ("new-people", "w", f"{WEEK - 1:.0f}\0new people"),
    ]
    assert taught(Person(id="42", phone="+4915112345678"), created_at=NOW) == []
    assert taught(Person(id="42"), "accepted", created_at=NOW, phone="+4915112345678") == []


@pytest.mark.parametrize(
    ("name", "age", "fresh"),
    [
        ("created_at", 3600, True),
        ("created_at", 3601, False),
        ("created_at", -3600, True),
        ("created_at", -3601, False),
        ("createdAt", 0, True),
        ("created", 0, False),
    ],
)
def test_how_fresh_a_person_is(name: str, age: int, fresh: bool) -> None:
    attributes: dict[str, Json] = {name: NOW - age}
    assert bool(taught(Person(id="42"), "accepted", **attributes)) == fresh
    assert taught(Person(id="42"), "unknown", **attributes) == []
    assert taught(Person(cio_id="c"), "accepted", **attributes) != [] or not fresh
    assert taught(Person(anonymous="x"), "accepted", **attributes) == []


async def found(*sent: tuple[float, bytes, int], people: People = "complete", end: float = 0.0) -> list[Finding]:
    recorded = [
        (
            Exchange(
                id=str(number),
                at=NOW + at,
                method="PUT",
                target=b"/api/v1/customers/42",
                host="track.customer.io",
                headers=(),
                body=body,
            ),
            Recorded(NOW + at, status),
        )
        for number, (at, body, status) in enumerate(sent)
    ]
    engine = Engine(Settings(people=people), RULE, sealed_with(b"k" * 32))
    return await audit_recorded(recorded, engine, end=NOW + end)


NEW: Mapping[str, bytes] = {"new": b'{"created_at": 1750000000}', "mail": b'{"email": "a@example.com"}'}


async def test_where_every_person_is_known_a_new_one_is_told_at_once_and_once() -> None:
    (finding,) = await found((0, NEW["new"], 200))
    assert (finding.pointer, finding.confidence) == ("/email", "likely")
    assert await found((0, NEW["new"], 200), people="partial") == []
    assert await found((-1, NEW["mail"], 200), (0, NEW["new"], 200)) == []
    assert await found((-1, b'{"a": 1}', 200), (0, NEW["new"], 200)) == []
    assert await found((0, b'{"created_at": 1700000000}', 200)) == []


async def test_an_address_that_follows_in_time_is_fine() -> None:
    assert len(await found((0, NEW["new"], 200), people="partial", end=601)) == 1
    assert await found((0, NEW["new"], 200), (599, NEW["mail"], 200), people="partial", end=601) == []


REQUIRED = ("plan", "phone", "email", "plan")
ADA = Person(id="42", email="a@example.com")


def test_what_is_required_is_remembered_of_each_identifier_apart() -> None:
    seen = Span(NOW, NOW)
    assert taught(ADA, "unknown", REQUIRED, plan="pro")[2:] == [
        ("has-attribute", "w", "id:42\0plan", seen, 7.0),
        ("has-attribute", "w", "email:a@example.com\0plan", seen, 7.0),
    ]
    by_phone = taught(Person(phone="+4915112345678"), "accepted", ("phone",))
    assert [fact[:3] for fact in by_phone] == [("has-attribute", "w", "phone:+4915112345678\0phone")]
    assert {fact[0] for fact in taught(ADA, "accepted", REQUIRED, _update=True)} == {"has-email", "has-attribute"}
    assert taught(Person(anonymous="x"), "accepted", REQUIRED, created_at=NOW) == []


@pytest.mark.parametrize("value", [None, "", ...])
def test_each_required_attribute_has_a_window_of_its_own(value: Any) -> None:
    given: dict[str, Json] = {} if value is ... else {"plan": value}
    *mail, plan, phone = taught(ADA, "accepted", REQUIRED, created_at=NOW, **given)
    assert [fact[0] for fact in mail] == ["has-email"] * 2
    assert plan[:3] == ("missing-email", "w", "id:42\0plan")
    assert phone[:3] == ("missing-email", "w", "id:42\0phone")
    assert plan[4] == 600.0 + DAY
    deadline = plan[3]
    assert (deadline.at, deadline.seed.pointer, deadline.seed.name) == (NOW + 600.0, "/plan", "plan")
    assert [key[:3] for key in deadline.watch] == [
        ("has-attribute", "w", "id:42\0plan"),
        ("has-attribute", "w", "email:a@example.com\0plan"),
    ]


def test_zero_and_false_are_values() -> None:
    for value in (0, False):
        assert [f[0] for f in taught(ADA, "accepted", ("plan",), created_at=NOW, plan=value)[2:]] == [
            "has-attribute"
        ] * 2


def test_an_old_person_has_no_window_for_what_is_required() -> None:
    assert taught(ADA, "accepted", ("plan",), created_at=NOW - 9_000)[2:] == []
    assert taught(ADA, "unknown", ("plan",), created_at=NOW)[2:] == []


def test_a_device_makes_up_for_an_address_and_for_nothing_else() -> None:
    device = replace(call(Person(id="42")), kind="device_add")
    facts = learn(device, Outcome("accepted", NOW), PARAMS | {"required": ("plan",)})
    assert [fact.key.kind for fact in facts] == ["has-email"]


@pytest.mark.parametrize("kind", ["delete", "suppress", "merge"])
def test_of_who_is_gone_nothing_is_missing(kind: Kind) -> None:
    gone = replace(call(Person(id="42")), kind=kind, merged=Person(id="43"))
    facts = list(learn(gone, Outcome("accepted", NOW), PARAMS | {"required": ("plan",)}))
    ids = ("42", "43") if kind == "merge" else ("42",)
    emails = [("has-email", "w", f"id:{id}") for id in ids]
    assert [fact.key[:3] for fact in facts] == [*emails, *(("has-attribute", "w", f"id:{id}\0plan") for id in ids)]


WEEK = NOW // (7 * DAY)


def counted(person: Person, kind: OutcomeKind = "accepted", /, **attributes: Json) -> list[Any]:
    facts = learn(call(person, **attributes), Outcome(kind, NOW), PARAMS)
    return [(fact.key, fact.value, fact.ttl) for fact in facts if fact.key.kind == "new-people"]


def test_new_people_are_counted_with_and_without_an_address() -> None:
    def fact(*labels: str) -> list[Any]:
        key = Key("new-people", "w", f"{WEEK:.0f}\0new people", named=True)
        return [(key, Groups(2, dict.fromkeys(labels, Sample(100, plain=frozenset({"id:42"})))), 14 * DAY)]

    assert counted(Person(id="42"), created_at=NOW) == fact("new")
    assert counted(Person(id="42", phone="+4915112345678"), created_at=NOW) == fact("new")
    assert counted(Person(id="42", email="a@b.c"), created_at=NOW - 3600) == fact("new", "with an address")
    assert counted(Person(id="42"), created_at=NOW - 3601) == counted(Person(id="42")) == []
    assert counted(Person(id="42"), "unknown", created_at=NOW) == []
    assert counted(Person(id="42"), created_at=NOW, _update=True) == []
    assert counted(Person(anonymous="x"), created_at=NOW) == []
    gone = replace(call(Person(id="42"), created_at=NOW), kind="delete")
    assert {fact.key.kind for fact in learn(gone, Outcome("accepted", NOW), PARAMS)} == {"has-email"}


def put(at: float, id: str, **body: Any) -> tuple[float, str, str, Any]:
    return (at, "PUT", f"track.customer.io/api/v1/customers/{id}", body)


def new(at: float, id: str, **body: Any) -> tuple[float, str, str, Any]:
    return put(at, id, created_at=NOW + at, **body)


async def confidences(*sent: Any, settings: Settings | None = None, **params: Any) -> list[str]:
    """Of the person 42; the last call lets all deadlines pass."""
    later = put(sent[-1][0] + 7200, "7", email="z@example.com")
    found = await history("missing-email", *sent, later, params=params, settings=settings)
    ours = {f"{number:08x}" for number, each in enumerate(sent) if each[2].endswith("/42")}
    return [finding.confidence for finding in found if finding.exchange in ours]


def mail(id: str) -> dict[str, str]:
    return {"email": f"p{id}@example.com"}


@pytest.mark.parametrize(
    ("without", "addressed", "params", "confidence"),
    [
        (0, 0, {}, "likely"),
        (1, 0, {}, "likely"),
        (2, 0, {}, "possible"),
        (2, 2, {}, "possible"),  # two of five, with the person who is judged
        (2, 3, {}, "likely"),  # three of six
        (1, 0, {"people": 2}, "possible"),
        (2, 2, {"share": 40}, "likely"),
        (2, 3, {"share": 51}, "possible"),
        (0, 2, {"share": 67}, "possible"),
        (0, 2, {"share": 66}, "likely"),
    ],
)
async def test_where_most_new_people_have_no_address_nobody_is_accused(
    without: int, addressed: int, params: dict[str, Any], confidence: str
) -> None:
    people = [new(n, str(n)) for n in range(without)]
    people += [new(n, str(n), **mail(str(n))) for n in range(4, 4 + addressed)]
    assert await confidences(*people, new(9, "42"), **params) == [confidence]


@pytest.mark.parametrize(
    ("later", "confidence"),
    [
        ([put(20, "1", **mail("1")), put(21, "2", **mail("2"))], "likely"),
        ([put(20, "1", **mail("1")), put(21, "1", **mail("2"))], "possible"),
        ([put(20, "1", plan="pro"), put(21, "2", plan="pro")], "possible"),
        ([put(61, "1", **mail("1")), put(62, "2", **mail("2"))], "likely"),
        ([put(61.5, "1", **mail("1")), put(62.5, "2", **mail("2"))], "possible"),
    ],
)
async def test_an_address_that_follows_in_time_counts(later: list[Any], confidence: str) -> None:
    assert await confidences(new(1, "1"), new(2, "2"), new(9, "42"), *later, window=60.0) == [confidence]


@pytest.mark.parametrize("known", ["partial", "complete"])
@pytest.mark.parametrize(
    ("without", "after", "confidence"),
    [(2, 7 * DAY, "possible"), (2, 14 * DAY, "likely"), (1, 7 * DAY, "likely"), (1, 9, "likely"), (2, 9, "possible")],
)
async def test_this_week_and_the_last_one_count(known: People, without: int, after: float, confidence: str) -> None:
    people = [new(n, str(n)) for n in range(without)]
    assert await confidences(*people, new(after, "42"), settings=Settings(people=known)) == [confidence]


async def test_what_is_required_is_likely_whoever_has_an_address() -> None:
    sent = [*(new(n, str(n)) for n in range(1, 5)), new(9, "42")]
    assert await confidences(*sent, required=("plan",)) == ["possible", "likely"]


def reviewed(
    person: Person, kind: Kind = "identify", ending: OutcomeKind = "accepted", /, **spans: tuple[str, float]
) -> list[Any]:
    class Remembered:
        params: Mapping[str, Any] = PARAMS

        def span(self, key: Key) -> Span | None:
            subject, at = spans.get(key.kind.replace("-", "_"), ("", 0.0))
            return Span(at, at) if key.subject == subject else None

    review = RULE[0].review
    assert review is not None
    return list(review(replace(call(person), kind=kind), Outcome(ending, NOW), Remembered()))  # type: ignore[arg-type]


def test_whose_address_followed_is_taught() -> None:
    ada = Person(id="42", email="a@example.com")
    made = ("id:42", NOW - 600)
    (fact,) = reviewed(ada, identified=made)
    assert fact.value == Groups(2, {"with an address": Sample(100, plain=frozenset({"id:42"}))})
    assert fact.key.subject == f"{WEEK:.0f}\0new people"
    assert len(reviewed(ada, identified=("email:a@example.com", NOW))) == 1
    assert reviewed(ada, identified=("id:42", NOW - 601)) == reviewed(ada) == []
    assert reviewed(ada, identified=made, has_email=("id:42", NOW)) == []
    assert reviewed(Person(id="42"), identified=made) == reviewed(ada, "merge", identified=made) == []
    assert reviewed(ada, "identify", "unknown", identified=made) == []


def test_who_was_new_last_week_is_read_where_a_missing_address_is_told_at_once() -> None:
    needs = RULE[0].needs
    assert needs is not None
    new = call(Person(id="42"))
    assert [key.subject for key in needs(new, "complete")] == [f"{WEEK - 1:.0f}\0new people"]
    assert not needs(new, "partial")
    assert not needs(call(Person(id="42", email="a@example.com")), "complete")
    assert not needs(replace(new, kind="merge"), "complete")


def test_an_id_that_is_an_address_is_one_where_every_person_is_known() -> None:
    body = {"type": "person", "action": "identify", "attributes": {"created_at": NOW}}
    known = Settings(people="complete")

    def asked(id: str) -> int:
        request = body | {"identifiers": {"id": id}}
        return len(told("missing-email", "POST", "track.customer.io/api/v2/entity", request, settings=known))

    assert asked("42") == 1
    assert asked("a@example.com") == 0
