"""Who is another person than those who had an anonymous id before, and what is taught of it."""

from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import Call, Exchange, Finding, Groups, Kind, Outcome, OutcomeKind, Person, Sample, Settings, Span
from cio_proxy.rules import RULES
from cio_proxy.rules.shared_anonymous_id import learn

RULE = tuple(rule for rule in RULES if rule.info.id == "shared-anonymous-id")
NOW = 1.75e9
DAY = 86_400.0


def item(identifiers: str, attributes: str = "{}", anonymous: str = "a") -> str:
    rest = attributes.replace("{", f'{{"anonymous_id": "{anonymous}"', 1).replace('""', '", "')
    return f'{{"type": "person", "action": "identify", "identifiers": {{{identifiers}}}, "attributes": {rest}}}'


async def found(*items: str, every: float = 1.0) -> list[Finding]:
    """The findings of v2 operations, one a request."""
    recorded = [
        (
            Exchange(
                id=str(number),
                at=NOW + number * every,
                method="POST",
                target=b"/api/v2/entity",
                host="track.customer.io",
                headers=(),
                body=each.encode(),
            ),
            Recorded(NOW + number * every, 200),
        )
        for number, each in enumerate(items)
    ]
    return await audit_recorded(recorded, Engine(Settings(), RULE, sealed_with(b"k" * 32)))


ADA, BOB, EVE = item('"id": "1"'), item('"id": "2"'), item('"id": "3"')


async def test_the_second_person_is_likely_and_every_further_one_certain() -> None:
    findings = await found(ADA, ADA, BOB, ADA, EVE, BOB)
    assert [(f.exchange, f.confidence, f.related) for f in findings] == [
        ("2", "likely", ("0",)),
        ("4", "certain", ("0",)),
    ]
    assert {finding.pointer for finding in findings} == {"/attributes/anonymous_id"}


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ('"id": "1"', '"id": "2"', 1),
        ('"cio_id": "1"', '"cio_id": "2"', 1),
        ('"email": "a@b.c"', '"email": "b@b.c"', 1),
        ('"phone": "+4915112345678"', '"phone": "+4915112345679"', 1),
        ('"email": "A@b.c"', '"email": "a@B.c"', 0),
        ('"id": "1"', '"cio_id": "2"', 0),
        ('"id": "1"', '"email": "b@b.c"', 0),
        ('"phone": "+4915112345678"', '"email": "b@b.c"', 0),
        ('"id": "1", "email": "a@b.c"', '"id": "2", "email": "a@b.c"', 0),  # an id that changed
        ('"id": "1", "email": "a@b.c"', '"id": "1", "email": "b@b.c"', 0),  # an address that changed
        ('"id": "1", "email": "a@b.c"', '"email": "b@b.c"', 0),
        ('"email": "a@b.c"', '"id": "1", "email": "b@b.c"', 0),
        ('"id": "1", "email": "a@b.c"', '"id": "2", "email": "b@b.c"', 1),
    ],
)
async def test_people_are_compared_by_the_same_kind_of_identifier(one: str, other: str, count: int) -> None:
    assert len(await found(item(one), item(other))) == count


async def test_each_anonymous_id_is_judged_by_itself_and_for_thirty_days() -> None:
    assert await found(ADA, item('"id": "2"', anonymous="b")) == []
    assert len(await found(ADA, BOB, every=29 * DAY)) == 1
    assert await found(ADA, BOB, every=31 * DAY) == []


async def test_who_was_merged_or_renamed_is_not_judged() -> None:
    merge = '{"type": "person", "action": "merge", "primary": {"id": "%s"}, "secondary": {"id": "%s"}}'
    assert await found(ADA, merge % (1, 2), BOB) == []
    assert await found(ADA, merge % (2, 1), BOB) == []
    assert len(await found(ADA, merge % (1, 3), BOB)) == 1
    rename = '{"type": "person", "action": "identify", "identifiers": {"cio_id": "c"}, "attributes": {"%s": "%s"}}'
    assert await found(ADA, rename % ("id", "2"), BOB) == []
    mail = item('"email": "a@b.c"'), item('"email": "b@b.c"')
    assert await found(mail[0], rename % ("email", "b@b.c"), mail[1]) == []
    assert len(await found(ADA, rename % ("plan", "2"), BOB)) == 1


async def test_only_who_is_identified_is_judged() -> None:
    event = '{"type": "person", "action": "event", "name": "a", "identifiers": {"anonymous_id": "a"}}'
    assert await found(ADA, event, BOB.replace("identify", "event")) == []


def taught(person: Person, kind: Kind = "identify", ending: OutcomeKind = "accepted", **more: Any) -> list[Any]:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"", connection="c")
    call = Call(exchange=exchange, api="track_v1", kind=kind, endpoint="", workspace="w", person=person, **more)
    return [(*fact.key[:3], fact.value, fact.ttl) for fact in learn(call, Outcome(ending, NOW), {"remember": 9.0})]


def test_what_is_taught_of_an_accepted_identify() -> None:
    who, first = taught(Person(id="42", email="a@b.c", anonymous="x"))
    people = {"id": Sample(8, plain=frozenset({"42"})), "email": Sample(8, plain=frozenset({"a@b.c"}))}
    assert who == ("identified-with", "w", "anonymous:x", Groups(4, people), 9.0)
    assert first[:3] == ("identified-first", "w", "anonymous:x")
    assert (first[3].first, first[3].last, first[3].origin, first[4]) == (NOW, NOW, ("1", "c"), 9.0)
    assert taught(Person(id="42", anonymous="x"), ending="unknown") == []
    assert taught(Person(id="42")) == taught(Person(anonymous="x")) == []


def test_what_is_taught_of_who_was_renamed() -> None:
    seen = Span(NOW, NOW)
    assert taught(Person(id="42"), "merge", "unknown", merged=Person(email="a@b.c")) == [
        ("renamed", "w", "id:42", seen, 9.0),
        ("renamed", "w", "email:a@b.c", seen, 9.0),
    ]
    assert [fact[2] for fact in taught(Person(cio_id="c", email="a@b.c"))] == ["email:a@b.c", "cio_id:c"]
    assert taught(Person(cio_id="c")) == []
