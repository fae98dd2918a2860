"""Events that follow identifies, and identifies without news: how many, how soon, and of whom."""

from collections.abc import Container
from typing import Any

import pytest

from cio_proxy.apis.parts import Envelope
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.heartbeats import IDENTIFYING
from cio_proxy.model import EMPTY_DOCUMENT, NO_CREDENTIALS, Call, Exchange, Finding, Person
from cio_proxy.rules.trigger_on_every_update import (
    UPDATES,
    has_more,
    is_lasting,
    is_update,
    lasting,
    sent_at,
)

from .alone import NOW, history, lifetimes, remembered

RULE = "trigger-on-every-update"
FEW = {"events": 2, "event_people": 2, "people": 1, "times": 3}
CUSTOMERS = "track.customer.io/api/v1/customers"
type Sent = tuple[float, str, str, Any]


def identify(person: object, at: float, **attributes: Any) -> Sent:
    return at, "PUT", f"{CUSTOMERS}/{person}", attributes or {"plan": "pro"}


def event(person: object, at: float, name: str = "user_updated") -> Sent:
    return at, "POST", f"{CUSTOMERS}/{person}/events", {"name": name}


def pairs(count: int, *, gap: float = 1, people: int | None = None, start: float = 0) -> list[Sent]:
    """Identifies of people, each with its event."""
    sent = []
    for number in range(count):
        person, at = number % (people or count), start + 100.0 * number
        sent += [identify(person, at), event(person, at + gap)]
    return sent


async def found(*sent: Sent, refused: Container[int] = (), failed: Container[int] = (), **params: Any) -> list[Finding]:
    return await history(RULE, *sent, params=FEW | params, refused=refused, failed=failed)


# --- events --------------------------------------------------------------------------------------------


async def test_the_event_that_follows_each_identify_is_told_with_its_numbers() -> None:
    (finding,) = await found(*pairs(3))
    assert finding.message == (
        "this event follows nearly every identify: about 2 events of 2 people today, and 1 identifies"
    ) or finding.message.endswith("and 2 identifies")
    assert (finding.pointer, finding.confidence, finding.name) == ("/name", "likely", "user_updated")
    assert "no identify trigger" in finding.effect


@pytest.mark.parametrize(
    ("params", "count"), [({"events": 2}, 1), ({"events": 3}, 0), ({"event_people": 2}, 1), ({"event_people": 3}, 0)]
)
async def test_it_takes_so_many_events_of_so_many_people(params: dict[str, Any], count: int) -> None:
    assert len(await found(*pairs(3), **params)) == count


async def test_events_of_few_people_are_not_told() -> None:
    assert await found(*pairs(8, people=1)) == []
    assert len(await found(*pairs(8, people=2))) == 6


@pytest.mark.parametrize(("gap", "count"), [(0, 1), (5, 1), (5.1, 0)])
async def test_the_event_follows_within_seconds(gap: float, count: int) -> None:
    assert len(await found(*pairs(3, gap=gap))) == count
    assert len(await found(*pairs(3, gap=6), follows=6)) == 1


@pytest.mark.parametrize(("others", "count"), [(2, 1), (3, 0)])
async def test_identifies_without_the_event_speak_for_it(others: int, count: int) -> None:
    begun = pairs(10)
    more = [identify(f"o{number}", 1000 + number) for number in range(others)]
    last = [identify("z", 2000), event("z", 2001)]
    assert len([each for each in await found(*begun, *more, *last) if each.time == NOW + 2001]) == count


@pytest.mark.parametrize(("others", "count"), [(1, 1), (2, 0)])
async def test_events_without_an_identify_speak_for_it(others: int, count: int) -> None:
    more = [event(f"o{number}", 1000 + number) for number in range(others)]
    last = [identify("z", 2000), event("z", 2001)]
    assert len([each for each in await found(*pairs(10), *more, *last) if each.time == NOW + 2001]) == count


@pytest.mark.parametrize(("others", "count"), [(1, 1), (2, 0)])
async def test_an_event_after_an_event_follows_no_identify(others: int, count: int) -> None:
    more = [event("o", 1000 + number) for number in range(others)]
    last = [identify("z", 2000), event("z", 2001)]
    assert len([each for each in await found(*pairs(10), *more, *last) if each.time == NOW + 2001]) == count
    assert await found(identify(1, 0), event(1, 1), event(1, 2), events=1, event_people=1) == []


@pytest.mark.parametrize(
    ("events", "identifies", "count"), [(10, 7, 0), (10, 8, 1), (10, 12, 1), (10, 13, 0), (4, 5, 1), (4, 6, 0)]
)
async def test_for_four_events_there_are_five_identifies_at_most(events: int, identifies: int, count: int) -> None:
    sent = [identify(person, 0) for person in "ab"]
    sent += [event("ab"[number % 2], 1 + number / 10) for number in range(events)]
    sent += [identify(f"o{number}", 10 + number) for number in range(identifies)]
    last = event("z", 100)
    assert len([each for each in await found(*sent, last) if each.time == NOW + 100]) == count


async def test_what_was_refused_is_neither_followed_nor_follows() -> None:
    sent = pairs(3)
    assert await found(*sent, refused=range(0, 6, 2)) == await found(*sent, refused=range(1, 6, 2)) == []


async def test_hardly_any_identifies_are_no_pairs() -> None:
    """One identify after which the event is sent many times."""
    sent = [identify(1, 0), identify(2, 0), *[event(1 + number % 2, 1 + number / 10) for number in range(20)]]
    assert await found(*sent) == []


async def test_each_day_is_counted_by_itself() -> None:
    midnight = 86_400 - NOW % 86_400
    assert await found(*pairs(2, start=midnight - 250), *pairs(1, start=midnight + 1)) == []
    assert len(await found(*pairs(3, start=midnight + 1))) == 1


async def test_two_events_are_counted_apart() -> None:
    sent = pairs(2)
    assert await found(*sent, identify(7, 500), event(7, 501, "profile_updated")) == []


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_names_of_updates(name: str) -> None:
    assert is_update(call("event", name=name))
    assert is_update(call("event", name=name[:4].title() + "_-. " + name[4:].upper()))
    assert not is_update(call("event", name=f"{name}x"))
    assert not is_update(call("identify", name=name))


def test_what_an_app_names_after_what_happened_is_no_update() -> None:
    for name in ("plan_upgraded", "address_changed", "order updated", "", "update" + "_" * 55):
        assert not is_update(call("event", name=name))
    assert is_update(call("event", name="update" + "_" * 54))
    assert not is_update(call("event"))


def test_every_spelling_of_an_update_is_tried() -> None:
    wanted = "identify user_updated profile_updated attributes_changed customer_updated user_identified"
    assert all(is_update(call("event", name=name)) for name in wanted.split())
    assert len(UPDATES) == 41


# --- identifies ----------------------------------------------------------------------------------------


def churning(person: object, *times: float) -> list[Sent]:
    return [identify(person, at, plan="pro", visits=number) for number, at in enumerate(times)]


async def test_identifies_without_news_are_told_with_their_numbers() -> None:
    (finding,) = await found(*churning(1, 0, 1, 2), *churning(2, 10, 11, 30))
    assert finding.message == (
        "3 identifies of this person within 20 s changed numbers and times only, and so did those of about 1 people"
        " today"
    )
    assert (finding.pointer, finding.confidence) == ("", "likely")


@pytest.mark.parametrize(("last", "count"), [(70, 1), (70.1, 0)])
async def test_identifies_within_a_minute(last: float, count: int) -> None:
    assert len(await found(*churning(1, 0, 1, 2), *churning(2, 10, 11, last))) == count


@pytest.mark.parametrize(("times", "count"), [(2, 4), (3, 3), (4, 2), (5, 1), (6, 0)])
async def test_so_many_identifies(times: int, count: int) -> None:
    assert len(await found(*churning(1, 0, 1, 2, 3, 4, 5), times=times)) == count


@pytest.mark.parametrize(("people", "count"), [(1, 1), (2, 0)])
async def test_so_many_people(people: int, count: int) -> None:
    assert len(await found(*churning(1, 0, 1, 2), *churning(2, 10, 11, 12), people=people)) == count


async def test_a_change_that_lasts_is_news() -> None:
    sent = churning(1, 0, 1, 2)
    assert await found(*sent, identify(1, 3, plan="team", visits=9)) == []
    assert await found(*sent, identify(1, 2.5, plan="team", visits=9), *churning(1, 3)) == []
    assert len(await found(*sent, *churning(1, 3))) == 1


async def test_of_two_identifies_the_one_before_is_looked_at_alone() -> None:
    sent = [identify(1, 0, plan="team", visits=0), *churning(1, 1, 2, 3)]
    assert len(await found(*sent, times=2)) == 1


async def test_what_says_the_same_as_the_one_before_is_another_rules() -> None:
    same = [identify(1, at, plan="pro", visits=1) for at in (0, 1, 2, 3, 4, 5)]
    assert await found(*same) == []
    assert await found(*churning(1, 0, 1, 2), identify(1, 3, plan="pro", visits=2)) == []


async def test_what_was_refused_is_not_counted() -> None:
    assert await remembered(RULE, event(1, 0, "order_completed")) == {}
    kept = await remembered(RULE, *churning(1, 0, 1, 2), event(1, 3), params=FEW)
    assert kept.keys() == {"identify-churn", "identify-churning", "update-events"}


async def test_what_may_not_have_been_accepted_is_not_counted() -> None:
    sent = [*churning(1, 0, 1, 2), *churning(2, 10, 11, 12)]
    assert len(await found(*sent)) == 1
    assert await found(*sent, failed=(3,)) == await found(*sent, failed=(4,)) == []


async def test_of_identifies_at_once_two_are_remembered() -> None:
    kept = await remembered(RULE, *(identify(1, 0, plan=plan, visits=1) for plan in ("a", "b", "c")))
    ((_, latest),) = kept["identify-churn"]
    assert [len(sample.hashes) for sample in latest.samples.values()] == [4]


async def test_three_hundred_events_are_told_apart() -> None:
    kept = await remembered(RULE, *[event(number, number / 10) for number in range(310)])
    ((_, alone),) = kept["update-events"]
    assert [len(said.hashes) for said in alone.samples.values()] == [300]


async def test_a_day_is_forgotten_two_days_later_and_an_identify_within_a_minute() -> None:
    kept = await lifetimes(RULE, event(1, 0), *churning(1, 1, 2, 3), params=FEW)
    day = 86_400.0
    del kept["observed"], kept["identified"]
    assert kept == {"identify-churn": 60.0, "identify-churning": 2 * day, "update-events": 2 * day}


async def test_history_is_no_churn() -> None:
    batch = {
        "batch": [
            {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {"plan": "a", "n": n}}
            for n in range(6)
        ]
    }
    assert await found((0, "POST", "track.customer.io/api/v2/batch", batch)) == []
    told = [{"type": "identify", "userId": "1", "traits": {"plan": "a", "n": n}} for n in range(6)]
    sent = (0, "POST", "cdp.customer.io/v1/batch", {"batch": told})
    assert len(await found(sent, (50, *sent[1:]))) == 6
    for each in told:
        each["timestamp"] = "2020-01-01T00:00:00Z"
    assert await found(sent, (50, *sent[1:])) == []


@pytest.mark.parametrize(
    ("attributes", "more"),
    [
        ({"plan": "pro"}, True),
        ({"plan": "pro", "n": 1}, True),
        ({"vip": False}, False),
        ({"status": "away", "lastSeen": 7, "n": 1}, False),
        ({"vip": False, "plan": "pro"}, True),
        ({"tags": []}, True),
        ({"n": 1, "x": 1.5, "gone": None}, False),
        ({"seen": "2026-11-24T10:00:00Z", "at": "1750000000"}, False),
        ({"last_page": "/a", "LastSeen": "b"}, False),
        ({"plan": "pro", "beat": True}, False),
        ({}, False),
    ],
)
def test_a_heartbeat_has_nothing_that_lasts_but_states(attributes: dict[str, Any], more: bool) -> None:
    assert has_more(attributes, ("beat",)) is more


@pytest.mark.parametrize("name", sorted(IDENTIFYING))
def test_identifiers_are_no_news(name: str) -> None:
    assert not is_lasting(name, "a")
    assert is_lasting(f"{name}_", "a")


# --- what is said, and when --------------------------------------------------------------------------


def call(kind: Any, api: Any = "track_v1", item: int | None = None, **parts: Any) -> Call:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="x", headers=(), body=b"{}")
    return Envelope(exchange, api, "w", "w", NO_CREDENTIALS, EMPTY_DOCUMENT).call(kind, "other", item=item, **parts)


def test_what_an_identify_says() -> None:
    one = call("identify", attributes={"plan": "pro", "n": 1, "_timestamp": 1})
    other = call("identify", attributes={"plan": "pro", "n": 2, "_timestamp": 1})
    later = call("identify", attributes={"plan": "pro", "n": 1, "_timestamp": 2})
    related = call("identify", attributes={"plan": "pro", "n": 1}, body={"cio_relationships": [1]})
    assert lasting(one) == lasting(other) != lasting(related)
    assert one.state == later.state not in (other.state, related.state)
    assert lasting(call("identify", attributes={"\ud800": "a"})) != call("identify", attributes={"\ud800": "a"}).state


@pytest.mark.parametrize(
    ("made", "at"),
    [
        (call("identify"), NOW),
        (call("identify", attributes={"_timestamp": NOW - 60}), NOW - 60),
        (call("identify", attributes={"_timestamp": NOW + 60}), NOW + 60),
        (call("identify", attributes={"_timestamp": NOW - 61}), None),
        (call("identify", body={"timestamp": 1_700_000_000}), NOW),
        (call("identify", item=0), None),
        (call("identify", "track_v2", item=0), None),
        (call("identify", "pipelines", item=0), NOW),
        (call("identify", "pipelines", body={"timestamp": "2025-06-15T15:06:30Z"}), NOW - 10),
        (call("identify", "pipelines", body={"timestamp": "2025-06-15T15:05:30Z"}), None),
        (call("identify", "pipelines", attributes={"_timestamp": 1_700_000_000}), NOW),
    ],
)
def test_when_a_call_was_made(made: Call, at: float | None) -> None:
    assert sent_at(made) == at


async def test_a_heartbeat_is_no_churn() -> None:
    beats = [identify(1, at, online=True, plan="pro", visits=number) for number, at in enumerate((0, 1, 2, 3, 4))]
    assert await found(*beats) == []
    assert len(await found(*beats, heartbeats=())) == 2
    alone = [identify(1, at, email="a@example.com", visits=number) for number, at in enumerate((0, 1, 2, 3, 4))]
    assert await found(*alone) == []


async def test_what_is_known_is_of_one_workspace() -> None:
    sent = [event(1, 1), identify(1, 0), event(1, 3)]
    kept = await remembered(RULE, *sent, params=FEW)
    assert {subject.split("\0")[0] for subject, _ in kept["update-events"]} == {"updates"}
    track = "cdp.customer.io/v1/track"
    other = [(at, "POST", track, {"userId": "9", "event": "user_updated"}) for at in (10.0, 11.0)]
    assert await found(*pairs(2), *other) == []


def test_who_is_spoken_of_is_part_of_what_is_said() -> None:
    one, other = (call("identify", attributes={"plan": "pro"}, person=Person(id=id)) for id in "12")
    assert lasting(one) != lasting(other)
    assert one.state != other.state
    assert one.state != lasting(one)
    assert len(one.state) == 32


async def test_all_facts_are_of_the_workspace_of_the_call() -> None:
    store = MemoryStore()
    await history(RULE, *churning(1, 0, 1, 2), event(1, 3), params=FEW, store=store)
    kinds = ("identify-churn", "identify-churning", "update-events")
    assert len({key.workspace for kind in kinds async for key, _ in store.scan(kind)}) == 1
