"""Facts in memory are bounded, and what was forgotten is told of."""

from cio_proxy.audit import Sealer, sealed_with
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.workspace import seen, subject, watch
from cio_proxy.model import Fact, Key, Span

SEALER = Sealer(sealed_with(b"k" * 32))


def key(subject: str, kind: str = "identified") -> Key:
    return SEALER.key(Key(kind, "ws", subject))


async def known(store: MemoryStore, names: str, now: float) -> set[str]:
    records = (await store.get_many([key(name).of for name in names], (), now)).records
    return {name for name in names if records.get(key(name).of)}


async def test_the_least_recently_used_record_is_evicted_counted_and_told_of() -> None:
    store = MemoryStore(limit=4)
    await store.join_many([seen("ws", 0.0)], (), now=0)
    for number, name in enumerate("ab"):
        await store.join_many([Fact(key(name), Span(number, number), ttl=60)], (), now=number)
    assert await known(store, "a", 2) == {"a"}
    await store.get_many([subject("ws")], (), now=2)
    await store.join_many([Fact(key(name), Span(3, 3), ttl=60) for name in "cd"], (), now=3)
    assert await known(store, "abcd", 4) < {"a", "c", "d"}
    assert store.evicted
    assert sum(store.known().values()) <= 4
    record = (await store.get_many([subject("ws")], (), now=4)).records[subject("ws")]
    assert watch(record, 4, None)._replace(until=0) == (3, 0, True, False, 3)


async def test_a_workspace_that_is_forgotten_as_a_whole_is_known_to_have_been() -> None:
    store = MemoryStore(limit=2)
    await store.join_many([seen("ws", 0.0)], (), now=0)
    await store.join_many([seen(f"ws{number}", 5.0) for number in range(3)], (), now=5)
    record = (await store.get_many([subject("ws")], (), now=6)).records[subject("ws")]
    assert watch(record, 6, None)._replace(until=0) == (6, 0, True, False, 5)
    await store.join_many([seen("ws", 6.0)], (), now=6)
    record = (await store.get_many([subject("ws")], (), now=7)).records[subject("ws")]
    assert not watch(record, 7, None).whole


async def test_memory_stays_bounded_whatever_the_limit() -> None:
    for limit in range(4):
        store = MemoryStore(limit)
        for number in range(20):
            await store.join_many([seen("ws", number), Fact(key(str(number)), Span(0, 0), 60)], (), now=number)
            assert sum(store.known().values()) <= limit + 1


async def test_fleeting_facts_are_dropped_in_time_although_nobody_asks_for_them() -> None:
    store = MemoryStore()
    for number in range(1_000):
        await store.join_many([Fact(key(str(number), "event-sent"), Span(number, number), ttl=3)], (), now=number)
    assert store.known() == {"event-sent": 3}


async def test_a_fleeting_fact_that_is_taught_again_lives_on() -> None:
    store = MemoryStore()
    for now in 0, 2, 4:
        await store.join_many([Fact(key("a"), Span(now, now), ttl=3)], (), now=now)
    kept = (await store.get_many([key("a").of], (), now=6)).records[key("a").of]["identified"]
    assert kept.value == Span(0, 4)
    await store.join_many([], (), now=7)
    assert store.known() == {"identified": 0}


async def test_fleeting_facts_give_way_to_lasting_ones_and_are_no_loss() -> None:
    store = MemoryStore(limit=3)
    await store.join_many([seen("ws", 0.0), Fact(key("a"), Span(0, 0), ttl=3600)], (), now=0)
    for number in range(5):
        await store.join_many([Fact(key(str(number), "event-sent"), Span(1, 1), ttl=3)], (), now=1)
    await store.join_many([Fact(key("b"), Span(1, 1), ttl=3600)], (), now=1)
    assert await known(store, "ab", 2) == {"a", "b"}
    assert store.known() == {"observed": 1, "identified": 2, "event-sent": 0}
