"""Who was two people until an identify said that they are one."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import IDENTIFIED, Call, Exchange, Finding, Key, Kind, Outcome, OutcomeKind, Person, Settings, Span
from cio_proxy.rules import RULES
from cio_proxy.rules.split_identity import review

RULE = tuple(rule for rule in RULES if rule.info.id == "split-identity")
NOW = 1_750_000_000
MAIL = {"email": "a@example.com"}
Request = tuple[str, str, dict[str, Any]]
FIRST: Request = ("PUT", "/api/v1/customers/7", {"plan": "pro"})


def by_id(**body: Any) -> Request:
    return ("PUT", "/api/v1/customers/42", {"plan": "pro", **body})


def by_mail(**body: Any) -> Request:
    return ("PUT", "/api/v1/customers/a%40example.com", {"plan": "pro", **body})


MADE = {"created_at": NOW}
BOTH = by_id(**MAIL)


async def found(*sent: Request, statuses: tuple[int, ...] = (), every: float = 1.0) -> list[Finding]:
    recorded = [
        (
            Exchange(
                id=str(number),
                at=NOW + number * every,
                method=method,
                target=target.encode(),
                host="track.customer.io",
                headers=(),
                body=b"" if method == "DELETE" else json.dumps(body).encode(),
            ),
            Recorded(NOW + number * every, dict(enumerate(statuses)).get(number, 200)),
        )
        for number, (method, target, body) in enumerate(sent)
    ]
    return await audit_recorded(recorded, Engine(Settings(), RULE, sealed_with(b"k" * 32)))


async def test_the_identify_with_both_is_told_once_with_where_each_was_identified() -> None:
    (finding,) = await found(by_id(**MADE), by_mail(), BOTH, BOTH, by_mail(id="42"))
    assert (finding.exchange, finding.pointer, finding.confidence) == ("2", "path:", "likely")
    assert finding.related == ("0", "1")
    (finding,) = await found(by_mail(**MADE), by_id(), by_mail(id="42"))
    assert finding.related == ("1", "0")


async def test_one_of_the_two_has_to_be_made_by_itself_before_our_eyes() -> None:
    assert await found(by_id(), by_mail(), BOTH) == []
    assert await found(by_id(**MADE), BOTH) == []
    assert await found(by_mail(**MADE), BOTH) == []
    assert await found(by_mail(**MADE), by_mail(id="42"), by_id(), BOTH) == []
    assert await found(by_id(_update=True), by_id(**MADE), by_mail(), BOTH) == []  # there before
    assert len(await found(FIRST, by_id(created_at=NOW - 60), by_mail(), BOTH)) == 1  # by the clock of another machine
    assert await found(FIRST, by_id(created_at=NOW - 61), by_mail(), BOTH) == []


@pytest.mark.parametrize("name", ["created_at", "createdAt"])
@pytest.mark.parametrize(("age", "count"), [(3_600, 1), (3_601, 0), (-3_600, 1), (-3_601, 0)])
async def test_how_fresh_a_person_is(name: str, age: int, count: int) -> None:
    sent = FIRST, FIRST, by_id(**{name: NOW + 20_000 - age}), by_mail(), BOTH
    assert len(await found(*sent, every=10_000)) == count


@pytest.mark.parametrize(
    "between",
    [
        ("POST", "/api/v1/merge_customers", {"primary": {"id": "42"}, "secondary": MAIL}),
        ("POST", "/api/v1/merge_customers", {"primary": {"id": "7"}, "secondary": {"id": "42"}}),
        ("POST", "/api/v1/merge_customers", {"primary": MAIL, "secondary": {"id": "7"}}),
        ("POST", "/api/v1/forms/f/submit", {"data": {"id": "42", **MAIL}}),
        ("PUT", "/api/v1/customers/cio_1", {"id": "42"}),
        ("PUT", "/api/v1/customers/cio_1", MAIL),
        ("PUT", "/api/v1/customers/42", {"email": "b@example.com"}),
        ("PUT", "/api/v1/customers/42", {"email": "b@example.com", "_update": True}),
        ("DELETE", "/api/v1/customers/42", {}),
        ("DELETE", "/api/v1/customers/a%40example.com", {}),
        ("POST", "/api/v1/customers/42/suppress", {}),
    ],
)
async def test_who_was_joined_renamed_or_deleted_is_not_judged(between: Request) -> None:
    assert await found(by_id(**MADE), by_mail(), between, BOTH) == []
    refused = await found(by_id(**MADE), by_mail(), between, BOTH, statuses=(200, 200, 400))
    assert len(refused) == 1
    assert await found(by_id(**MADE), by_mail(), between, BOTH, statuses=(200, 200, 500)) == []


async def test_a_form_with_the_address_alone_joins_nothing() -> None:
    form = ("POST", "/api/v1/forms/f/submit", {"data": MAIL})
    assert len(await found(by_id(**MADE), by_mail(), form, BOTH)) == 1
    assert await found(by_id(**MADE), form, BOTH) == []


async def test_only_what_was_accepted_is_held_against_an_app() -> None:
    for number in range(2):
        for status in (400, 500):
            statuses = tuple(status if each == number else 200 for each in range(3))
            assert await found(by_id(**MADE), by_mail(), BOTH, statuses=statuses) == []
    assert await found(by_id(**MADE, _update=True), by_mail(), BOTH) == []
    assert await found(by_id(**MADE), by_mail(_update=True), BOTH) == []


async def test_a_canonical_id_is_how_an_identifier_is_changed() -> None:
    renaming = ("PUT", "/api/v1/customers/cio_1", {"id": "42", **MAIL})
    assert await found(by_id(**MADE), by_mail(), renaming) == []


class Remembered:
    """These kinds of facts are known of everybody."""

    params: Mapping[str, Any] = {"remember": 9.0, "new_within": 3_600.0}

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds

    def span(self, key: Key) -> Span | None:
        return Span(0.0, 0.0) if key.kind in self._kinds else None


def taught(
    person: Person, kind: Kind = "identify", ending: OutcomeKind = "accepted", known: Collection[str] = (), **more: Any
) -> list[Any]:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"", connection="c")
    call = Call(exchange=exchange, api="track_v1", kind=kind, endpoint="", workspace="w", person=person, **more)
    facts = review(call, Outcome(ending, NOW), Remembered(known))  # type: ignore[arg-type]  # all that it asks
    return [(*fact.key[:3], tuple(fact.value), fact.ttl) for fact in facts]  # type: ignore[arg-type]


SEEN = (NOW, NOW, ("", ""))
HERE = (NOW, NOW, ("1", "c"))


def test_what_is_taught_of_who_is_identified_by_one_identifier_for_the_first_time() -> None:
    assert taught(Person(id="42")) == [("alone", "w", "id:42", HERE, 9.0)]
    assert taught(Person(email="a@b.c"), attributes={"created_at": NOW - 5}) == [
        ("alone", "w", "email:a@b.c", HERE, 9.0),
        ("made-alone", "w", "email:a@b.c", (NOW - 5, NOW, ("", "")), 9.0),
    ]
    assert taught(Person(id="42"), known=[IDENTIFIED]) == taught(Person(id="42"), ending="unknown") == []
    assert taught(Person(anonymous="a")) == taught(Person(email="a@b.c"), "form_submit") == []


def test_what_is_taught_of_who_was_joined() -> None:
    both = Person(id="42", email="a@b.c")
    joined = [("joined-identity", "w", each, SEEN, 9.0) for each in ("id:42", "email:a@b.c")]
    assert taught(both) == taught(both, ending="unknown") == taught(both, "form_submit") == joined
    assert taught(both, known=[IDENTIFIED, "alone"]) == joined
    assert taught(both, known=[IDENTIFIED]) == taught(both, ending="refused") == []
    merged = taught(Person(id="42"), "merge", merged=Person(id="43"))
    assert [fact[:3] for fact in merged] == [("joined-identity", "w", "id:42"), ("joined-identity", "w", "id:43")]
    assert [fact[0] for fact in taught(Person(id="42"), "merge")] == ["joined-identity"]


async def test_one_batch_is_read_in_its_order() -> None:
    def items(*calls: tuple[dict[str, Any], dict[str, Any]]) -> Request:
        batch = [{"type": "person", "action": "identify", "identifiers": i, "attributes": a} for i, a in calls]
        return ("POST", "/api/v2/batch", {"batch": batch})

    apart = items(({"id": "42"}, MADE), (MAIL, {"plan": "pro"}))
    assert len(await found(apart, BOTH)) == 1
    joined = items(({"id": "42"}, MADE), (MAIL, {"plan": "pro"}), ({"id": "42"}, {"email": "b@example.com"}))
    assert await found(joined, BOTH) == []
