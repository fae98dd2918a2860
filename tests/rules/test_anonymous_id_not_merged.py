"""What one client is, whom it may have joined, and when a window begins."""

import json
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
    Key,
    Kind,
    Outcome,
    OutcomeKind,
    Person,
    RuleSettings,
    Sample,
    Settings,
    Span,
)
from cio_proxy.rules import RULES
from cio_proxy.rules.anonymous_id_not_merged import DAY, learn

RULE = tuple(rule for rule in RULES if rule.info.id == "anonymous-id-not-merged")
NOW = 1.75e9
HOUR = 3_600.0
PARAMS: Mapping[str, Any] = {"window": HOUR, "new_within": 300.0, "visitors": 2, "people": 2, "remember": 10 * HOUR}
JUST_NOW = "just now"

NO_EXCEPTIONS: Mapping[int, Any] = {}

Request = tuple[str, str, dict[str, Any]]


def visit(anonymous: str = "a", **more: Any) -> Request:
    return ("POST", "/api/v1/events", {"name": "pricing_viewed", "anonymous_id": anonymous, **more})


def identify(id: str, **body: Any) -> Request:
    return ("PUT", f"/api/v1/customers/{id}", {"email": f"p{id}@example.com", "created_at": JUST_NOW, **body})


VISITORS = [visit("a"), visit("b")]
PEOPLE = [identify("1"), identify("2")]


async def found(
    *sent: Request,
    agents: tuple[str, ...] = ("x",),
    connections: str = "c",
    at: Mapping[int, float] = NO_EXCEPTIONS,
    statuses: Mapping[int, int] = NO_EXCEPTIONS,
    **more: Any,
) -> list[Finding]:
    """The findings of these requests, one a second unless `at` says when, up to the end of the second window."""
    moments = [NOW + at.get(number, number) for number in range(len(sent))]
    recorded = [
        (
            Exchange(
                id=str(number),
                at=moments[number],
                method=method,
                target=target.encode(),
                host=more.get("host", "track.customer.io"),
                headers=((b"User-Agent", agents[number % len(agents)].encode()),) if agents else (),
                body=json.dumps(body).replace(f'"{JUST_NOW}"', str(moments[number])).encode(),
                connection=connections[number % len(connections)] if connections else "",
            ),
            Recorded(moments[number], statuses.get(number, 200)),
        )
        for number, (method, target, body) in enumerate(sent)
    ]
    settings = Settings(rules={"anonymous-id-not-merged": RuleSettings(params=PARAMS)})
    return await audit_recorded(
        recorded, Engine(settings, RULE, sealed_with(b"k" * 32)), end=NOW + more.get("end", 2 * HOUR)
    )


async def test_enough_of_both_and_none_joined() -> None:
    (finding,) = await found(*VISITORS, *PEOPLE)
    assert (finding.pointer, finding.confidence, finding.exchange) == ("/anonymous_id", "likely", "0")
    assert finding.time == NOW + HOUR
    assert await found(*PEOPLE, *VISITORS) == []  # nobody is counted before there are visitors
    assert len(await found(visit("a"), *PEOPLE, visit("b"))) == 1
    assert await found(*VISITORS, *PEOPLE, end=HOUR - 1) == []
    assert len(await found(*VISITORS, *PEOPLE, end=HOUR + DAY / 2)) == 1


async def test_too_few_of_either_say_nothing() -> None:
    assert await found(visit("a"), visit("a"), *PEOPLE) == []
    assert await found(*VISITORS, identify("1"), identify("1")) == []
    assert await found(*VISITORS) == await found(*PEOPLE) == []


@pytest.mark.parametrize(
    "joining",
    [
        identify("3", anonymous_id="c"),
        identify("3", anonymous_id="c", _update=True),
        identify("3", anonymous_id="c", created_at=1_600_000_000),
    ],
)
async def test_one_joined_id_is_enough_for_silence(joining: Request) -> None:
    assert await found(*VISITORS, joining, *PEOPLE) == []
    assert await found(joining, *VISITORS, *PEOPLE) == []
    assert await found(*VISITORS, joining, *PEOPLE, statuses={2: 500}) == []
    assert len(await found(*VISITORS, joining, *PEOPLE, statuses={2: 400})) == 1
    at = {1: 8 * HOUR, 2: 8 * HOUR, 3: 8 * HOUR, 4: 8 * HOUR}
    assert await found(joining, *VISITORS, *PEOPLE, at=at, end=9.5 * HOUR) == []
    at = dict.fromkeys(at, 9.5 * HOUR)
    assert len(await found(joining, *VISITORS, *PEOPLE, at=at, end=11 * HOUR)) == 1  # so long ago


async def test_one_client_is_one_user_agent_without_its_version() -> None:
    assert len(await found(*VISITORS, *PEOPLE, agents=("node/1.0", "node/2.0"))) == 1
    assert len(await found(*VISITORS, *PEOPLE, agents=("node /1.0", " node"))) == 1
    assert len(await found(*VISITORS, *PEOPLE, agents=())) == 1
    assert await found(*VISITORS, *PEOPLE, agents=("a", "a", "b", "b")) == []
    joined = identify("3", anonymous_id="c")
    assert await found(*VISITORS, *PEOPLE, joined, agents=("a", "a", "a", "a", "b")) == []  # any client may join them


@pytest.mark.parametrize(
    ("connections", "count"),
    [("a", 1), ("ab", 1), ("aabb", 0), ("aaab", 0), ("abba", 1), ("", 0)],
)
async def test_one_client_sends_both_over_one_connection(connections: str, count: int) -> None:
    assert len(await found(*VISITORS, *PEOPLE, connections=connections)) == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"created_at": NOW + 3 - 300}, 1),
        ({"created_at": NOW + 2 - 300}, 0),
        ({"created_at": NOW + 3 + 300}, 1),
        ({"created_at": NOW + 4 + 300}, 0),
        ({"created_at": "soon"}, 0),
        ({"created_at": None}, 0),
        ({"_update": True}, 0),
        ({"_update": False}, 1),
    ],
)
async def test_who_has_just_signed_up_may_have_been_a_visitor(body: dict[str, Any], count: int) -> None:
    assert len(await found(*VISITORS, identify("1"), identify("2", **body))) == count


async def test_only_what_was_accepted_is_held_against_a_client() -> None:
    for number in range(4):
        for status in (400, 500):
            assert await found(*VISITORS, *PEOPLE, statuses={number: status}) == []


async def test_a_window_begins_with_the_first_visitor_and_after_the_one_before() -> None:
    sent = [*VISITORS, *PEOPLE, visit("c"), visit("d"), visit("e")]
    at = {4: HOUR / 2, 5: HOUR + 60, 6: 2 * HOUR}
    assert [f.exchange for f in await found(*sent, at=at, end=4 * HOUR)] == ["0", "5"]
    refused = await found(*VISITORS, visit("c"), *PEOPLE, statuses={0: 400}, end=4 * HOUR)
    assert [f.exchange for f in refused] == ["1"]


async def test_pages_and_screens_are_visits_too_and_invitations_are_not() -> None:
    assert len(await found(visit("a", type="page"), visit("b", type="screen"), *PEOPLE)) == 1
    invitation = ("POST", "/api/v1/events", {"name": "friend_invited"})
    assert await found(visit("a"), invitation, *PEOPLE) == []


async def test_a_pipelines_call_with_both_ids_knows_them() -> None:
    def call(type: str, **body: Any) -> Request:
        return ("POST", f"/v1/{type}", body)

    traits = {"createdAt": JUST_NOW}
    people = call("identify", userId="1", traits=traits), call("identify", userId="2", traits=traits)
    visits = call("page", anonymousId="a"), call("track", anonymousId="b", event="a")
    (finding,) = await found(*visits, *people, host="cdp.customer.io")
    assert finding.pointer == "/anonymousId"
    both = call("track", userId="1", anonymousId="a", event="a")
    assert await found(*visits, both, *people, host="cdp.customer.io") == []
    nobody = call("identify", anonymousId="a"), call("identify", anonymousId="b")
    assert await found(*visits, *nobody, host="cdp.customer.io") == []
    assert await found(*nobody, *people, host="cdp.customer.io") == []


def taught(kind: Kind, person: Person, ending: OutcomeKind = "accepted", connection: str = "") -> list[Any]:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"", connection=connection)
    call = Call(exchange=exchange, api="track_v1", kind=kind, endpoint="", workspace="w", person=person)
    return [(*fact.key[:3], fact.value, fact.ttl) for fact in learn(call, Outcome(ending, NOW), PARAMS)]


def test_what_is_taught() -> None:
    client = ("w", "client:")
    visitor = Sample(100, plain=frozenset({"a"}))
    assert taught("event", Person(anonymous="a")) == [("visitors", *client, visitor, HOUR + DAY)]
    over = Sample(100, plain=frozenset({"c"}))
    assert taught("event", Person(anonymous="a"), connection="c") == [
        ("visitors", *client, visitor, HOUR + DAY),
        ("visited-over", *client, over, HOUR + DAY),
    ]
    joined = [("joined", "w", "anonymous ids", Span(NOW, NOW), 10 * HOUR)]
    assert taught("identify", Person(id="1", anonymous="a")) == joined
    assert taught("identify", Person(id="1", anonymous="a"), "unknown") == joined
    assert taught("event", Person(anonymous="a"), "unknown") == taught("identify", Person(id="1")) == []
    assert (
        taught("event", Person(id="1")) == taught("event", Person()) == taught("identify", Person(anonymous="a")) == []
    )


def test_the_finding_waits_for_a_day_after_its_window() -> None:
    review = RULE[0].review
    assert review is not None
    exchange = Exchange(id="1", at=NOW, method="POST", target=b"/", host="", headers=(), body=b"", connection="c")
    call = Call(
        exchange=exchange, api="track_v1", kind="event", endpoint="", workspace="w", person=Person(anonymous="a")
    )

    class Remembered:
        params = PARAMS

        def __init__(self, begun: bool) -> None:
            self._begun = begun

        def span(self, key: Key) -> Span | None:
            return Span(NOW, NOW) if self._begun else None

        def sample(self, key: Key) -> Sample | None:
            return Sample(100, (1,)) if key == Key("visited-over", "w", "client:") else None

        def member(self, text: str) -> int:
            return len(text)

    assert list(review(call, Outcome("accepted", NOW), Remembered(True))) == []  # type: ignore[arg-type]
    both = replace(call, person=Person(id="1", anonymous="a"))
    assert list(review(both, Outcome("accepted", NOW), Remembered(False))) == []  # type: ignore[arg-type]
    nobody = replace(call, kind="identify")
    assert list(review(nobody, Outcome("accepted", NOW), Remembered(False))) == []  # type: ignore[arg-type]
    begun, waiting = review(call, Outcome("accepted", NOW), Remembered(False))  # type: ignore[arg-type]
    person = replace(call, kind="identify", person=Person(id="1", email="a@b.c"), attributes={"created_at": NOW})
    (people,) = review(person, Outcome("accepted", NOW), Remembered(True))  # type: ignore[arg-type]
    assert people == (
        Key("identified-people", "w", "client:"),
        Sample(100, plain=frozenset({"id:1"})),
        HOUR + DAY,
        False,
    )
    assert (begun.key.kind, begun.ttl, begun.value) == ("window-begun", HOUR, Span(NOW, NOW))  # type: ignore[union-attr]
    assert (waiting.key.kind, waiting.ttl) == ("anonymous-id-not-merged", HOUR + DAY)  # type: ignore[union-attr]
    assert isinstance(waiting.value, Deadline)  # type: ignore[union-attr]
    assert waiting.value.at == NOW + HOUR  # type: ignore[union-attr]
