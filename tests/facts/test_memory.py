"""Facts in memory are found again, forgotten in time, and bounded."""

from cio_proxy.audit import sealed_with
from cio_proxy.facts.memory import MARK_SECONDS, MemoryStore
from cio_proxy.model import Deadline, Fact, Finding, Key, Span

SEAL = sealed_with(b"k" * 32)


def key(subject: str, kind: str = "identified") -> Key:
    return Key(kind, "ws", subject).sealed(SEAL)


async def test_what_was_joined_is_read_until_its_time_is_over() -> None:
    store = MemoryStore()
    await store.join_many([Fact(key("a"), Span(10, 10), ttl=60)], (), now=10)
    await store.join_many([Fact(key("a"), Span(5, 5), ttl=60)], (), now=11)
    assert (await store.get_many([key("a")], (), now=20)).values == {key("a"): Span(5, 10)}
    assert (await store.get_many([key("a")], (), now=72)).values == {}
    assert store.known() == {"identified": 0}


async def test_a_mark_is_seen_by_others_until_it_is_taken_back() -> None:
    store = MemoryStore()
    mine = await store.get_many([key("a")], [key("a")], now=0)
    theirs = await store.get_many([key("a")], [key("a")], now=1)
    assert not mine.in_flight
    assert theirs.in_flight == {key("a")}
    await store.join_many([], [key("a")], now=2)
    assert (await store.get_many([key("a")], (), now=2)).in_flight == {key("a")}, "the second learner is still there"
    await store.join_many([], [key("a")], now=3)
    assert not (await store.get_many([key("a")], (), now=3)).in_flight


async def test_a_mark_of_a_learner_that_died_runs_out() -> None:
    store = MemoryStore()
    await store.get_many([key("a")], [key("a")], now=0)
    assert not (await store.get_many([key("a")], (), now=MARK_SECONDS + 1)).in_flight


async def test_what_is_known_is_never_marked() -> None:
    store = MemoryStore()
    await store.join_many([Fact(key("a"), Span(0, 0), ttl=60)], (), now=0)
    await store.get_many([key("a")], [key("a")], now=1)
    assert not (await store.get_many([key("a")], (), now=2)).in_flight


async def test_the_least_recently_used_fact_is_evicted_and_counted() -> None:
    store = MemoryStore(limit=2)
    for number, name in enumerate("ab"):
        await store.join_many([Fact(key(name), Span(number, number), ttl=60)], (), now=number)
    await store.get_many([key("a")], (), now=3)
    await store.join_many([Fact(key("c"), Span(3, 3), ttl=60)], (), now=3)
    assert set((await store.get_many([key("a"), key("b"), key("c")], (), now=4)).values) == {key("a"), key("c")}
    assert store.evicted == 1


async def test_fleeting_facts_are_dropped_in_time_although_nobody_asks_for_them() -> None:
    store = MemoryStore()
    for number in range(1_000):
        await store.join_many([Fact(key(str(number), "event-sent"), Span(number, number), ttl=3)], (), now=number)
    assert store.known() == {"event-sent": 3}


async def test_a_fleeting_fact_that_is_taught_again_lives_on() -> None:
    store = MemoryStore()
    for now in 0, 2, 4:
        await store.join_many([Fact(key("a"), Span(now, now), ttl=3)], (), now=now)
    assert (await store.get_many([key("a")], (), now=6)).values == {key("a"): Span(0, 4)}
    await store.join_many([], (), now=7)
    assert store.known() == {"identified": 0}


async def test_fleeting_facts_give_way_to_lasting_ones() -> None:
    store = MemoryStore(limit=2)
    await store.join_many([Fact(key("a"), Span(0, 0), ttl=3600)], (), now=0)
    for number in range(5):
        await store.join_many([Fact(key(str(number), "event-sent"), Span(1, 1), ttl=3)], (), now=1)
    await store.join_many([Fact(key("b"), Span(1, 1), ttl=3600)], (), now=1)
    assert set((await store.get_many([key("a"), key("b")], (), now=2)).values) == {key("a"), key("b")}
    assert store.known() == {"identified": 2, "event-sent": 0}


async def test_a_deadline_is_leased_once_and_gone_once_acknowledged() -> None:
    seed = Finding(rule="r", severity="error", confidence="likely", pointer="", message="", effect="", fix="")
    store = MemoryStore()
    await store.join_many([Fact(key("a"), Deadline(50, "r", (), seed), ttl=600)], (), now=0)
    assert await store.due(49) == []
    assert [k for k, _ in await store.due(50)] == [key("a")]
    assert await store.due(51) == []
    await store.acknowledge([key("a")])
    assert (await store.get_many([key("a")], (), now=52)).values == {}
