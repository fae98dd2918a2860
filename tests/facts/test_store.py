"""Every store keeps the same contract: what was joined is found again, forgotten in time, and shared."""

from __future__ import annotations

import pytest

from cio_proxy.audit import Sealer, sealed_with
from cio_proxy.facts import LEASE_SECONDS, MARK_SECONDS, Store
from cio_proxy.model import Deadline, Fact, Finding, Groups, Key, Sample, Span, Value

SEALER = Sealer(sealed_with(b"k" * 32))
SEED = Finding(rule="r", severity="error", confidence="likely", pointer="", message="", effect="", fix="")


def key(subject: str, kind: str = "identified") -> Key:
    return SEALER.key(Key(kind, "ws", subject))


async def read(store: Store, asked: Key, now: float) -> Value | None:
    kept = (await store.get_many([asked.of], (), now)).records.get(asked.of, {}).get(asked.kind)
    return None if kept is None else kept.value


async def flying(store: Store, asked: Key, now: float) -> bool:
    return asked in (await store.get_many([asked.of], (), now)).in_flight


def members(limit: int, *texts: str) -> Sample:
    return Sample(limit, plain=frozenset(texts)).sealed(SEALER)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Span(10, 10), Span(5.123456789, 5.123456789)),
        (members(3, "a", "b"), members(3, "c", "d", "e")),
        (Groups(2, {"b": members(2, "x")}), Groups(2, {"a": members(2, "y", "z"), "b": members(2, "w")})),
        (Deadline(50.5, "r", (key("a"),), SEED), Deadline(40.25, "r", (key("b"),), SEED)),
    ],
    ids=["span", "sample", "groups", "deadline"],
)
async def test_what_was_joined_is_read_until_its_time_is_over(store: Store, first: Value, second: Value) -> None:
    await store.join_many([Fact(key("a"), first, ttl=60)], (), now=10)
    await store.join_many([Fact(key("a"), second, ttl=60)], (), now=11)
    assert await read(store, key("a"), 20) == first.join(second)  # type: ignore[arg-type]
    assert await read(store, key("a"), 72) is None


async def test_all_facts_of_a_subject_are_read_together_each_with_its_own_time(store: Store) -> None:
    await store.join_many([Fact(key("a", "x"), Span(1, 1), 60), Fact(key("a", "y"), Span(2, 2), 10)], (), now=2)
    record = (await store.get_many([key("a").of, key("b").of], (), 5)).records
    assert {kind: kept.value for kind, kept in record[key("a").of].items()} == {"x": Span(1, 1), "y": Span(2, 2)}
    assert record[key("a").of]["x"].expiry == 62
    assert not record.get(key("b").of)
    assert list((await store.get_many([key("a").of], (), 13)).records[key("a").of]) == ["x"]


async def test_one_fact_may_be_taught_twice_at_once(store: Store) -> None:
    await store.join_many([Fact(key("a"), Span(2, 2), 60), Fact(key("a"), Span(1, 3), 60)], (), now=2)
    assert await read(store, key("a"), 3) == Span(1, 3)


async def test_workspaces_are_apart(store: Store) -> None:
    await store.join_many([Fact(key("a"), Span(1, 1), 60)], (), now=1)
    assert await read(store, key("a")._replace(workspace="other"), 2) is None


async def test_a_mark_is_seen_by_others_until_it_is_taken_back(store: Store) -> None:
    mine = await store.get_many([key("a").of], [key("a")], now=0)
    theirs = await store.get_many([key("a").of], [key("a")], now=1)
    assert not mine.in_flight
    assert theirs.in_flight == {key("a")}
    await store.join_many([], [key("a")], now=2)
    assert await flying(store, key("a"), 2), "the second learner is still there"
    await store.join_many([], [key("a")], now=3)
    assert not await flying(store, key("a"), 3)


async def test_a_mark_of_a_learner_that_died_runs_out(store: Store) -> None:
    await store.get_many([key("a").of], [key("a")], now=0)
    assert await flying(store, key("a"), MARK_SECONDS - 1)
    assert not await flying(store, key("a"), MARK_SECONDS + 1)


async def test_what_is_known_is_never_marked(store: Store) -> None:
    await store.join_many([Fact(key("a"), Span(0, 0), ttl=60)], (), now=0)
    await store.get_many([key("a").of], [key("a")], now=1)
    assert not await flying(store, key("a"), 2)


async def test_a_deadline_is_leased_once_and_gone_once_acknowledged(store: Store) -> None:
    await store.join_many([Fact(key("a"), Deadline(50, "r", (), SEED), ttl=600)], (), now=0)
    assert list(await store.due(49)) == []
    assert list(await store.due(50)) == [(key("a"), Deadline(50, "r", (), SEED))]
    assert list(await store.due(51)) == []
    await store.acknowledge([key("a")])
    assert await read(store, key("a"), 52) is None
    assert list(await store.due(50 + 2 * LEASE_SECONDS)) == []


async def test_a_deadline_whose_claimer_died_is_given_to_another(store: Store) -> None:
    await store.join_many([Fact(key("a"), Deadline(50, "r", (), SEED), ttl=6000)], (), now=0)
    assert len(await store.due(50)) == 1
    assert len(await store.due(51 + LEASE_SECONDS)) == 1


async def test_an_earlier_deadline_takes_the_place_of_a_later_one(store: Store) -> None:
    for at in 50, 40, 60:
        await store.join_many([Fact(key("a"), Deadline(at, "r", (), SEED), ttl=600)], (), now=0)
    assert [deadline.at for _, deadline in await store.due(45)] == [40]
    assert list(await store.due(99)) == []


async def test_all_facts_of_a_kind_can_be_scanned(store: Store) -> None:
    facts = [Fact(key(str(number), kind), Span(number, number), 60) for number in range(50) for kind in "xy"]
    await store.join_many(facts, (), now=50)
    found = {asked: kept.value async for asked, kept in store.scan("y")}
    assert found == {fact.key: fact.value for fact in facts if fact.key.kind == "y"}


async def test_what_is_known_is_counted_by_kind_and_cleared(store: Store) -> None:
    await store.join_many([Fact(key(each, "x"), Span(0, 0), 60) for each in "abc"], (), now=0)
    await store.join_many([Fact(key("a", "y"), Span(0, 0), 60)], (), now=0)
    await store.tend(1)
    assert store.known() == {"x": 3, "y": 1}
    await store.clear()
    await store.tend(2)
    assert sum(store.known().values()) == 0
    assert await read(store, key("a", "x"), 3) is None
