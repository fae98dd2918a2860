"""A schedule that is shared: no more than the rate allows, whoever asks, and in the order of asking."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.facts import Rate, Slots, Store
from cio_proxy.facts.memory import SCHEDULES, MemoryStore
from cio_proxy.facts.sqlite import SqliteStore
from cio_proxy.model import Key

KEY = Key("pace", "ws", "track")
RATE = Rate(each=1, burst=3, ahead=5)
SOON = 0.5
"""What the tests themselves may take."""


def waits(slots: Slots, rate: Rate) -> list[float]:
    return [max(0.0, slots.first + number / rate.each) for number in range(slots.granted)]


async def test_a_burst_goes_at_once_and_the_rest_in_turn_as_far_ahead_as_may_be(store: Store) -> None:
    slots = await store.reserve(KEY, 20, RATE)
    assert waits(slots, RATE) == pytest.approx([0, 0, 0, 1, 2, 3, 4, 5])
    later = await store.reserve(KEY, 1, RATE)
    assert later.granted == 0
    assert later.first == pytest.approx(6, abs=SOON)


async def test_one_after_the_other_is_the_same_as_together(store: Store) -> None:
    slots = [await store.reserve(KEY, 1, RATE) for _ in range(9)]
    assert [each.granted for each in slots] == [1] * 8 + [0]
    assert [each.first for each in slots] == pytest.approx([-2, -1, 0, 1, 2, 3, 4, 5, 6], abs=SOON)


async def test_slots_come_back_with_time(store: Store) -> None:
    quick = Rate(each=20, burst=2, ahead=0)
    assert (await store.reserve(KEY, 5, quick)).granted == 2
    await asyncio.sleep(0.12)
    assert (await store.reserve(KEY, 5, quick)).granted == 2, "a burst, and no more"
    assert (await store.reserve(KEY, 5, quick)).granted == 0


async def test_schedules_are_apart_and_forgotten_with_everything_else(store: Store) -> None:
    await store.reserve(KEY, 20, RATE)
    for other in (KEY._replace(workspace="other"), KEY._replace(subject="app"), KEY._replace(kind="x")):
        assert (await store.reserve(other, 20, RATE)).granted == 8
    await store.clear()
    assert (await store.reserve(KEY, 20, RATE)).granted == 8


async def test_a_rate_below_one_a_second_and_a_burst_of_less_than_one_still_let_one_go(store: Store) -> None:
    slow = Rate(each=0.1, burst=0.1, ahead=0)
    assert await store.reserve(KEY, 3, slow) == pytest.approx((0, 1), abs=0.01)
    assert await store.reserve(KEY, 3, slow) == pytest.approx((10, 0), abs=SOON)


async def test_it_is_no_fact(store: Store) -> None:
    await store.reserve(KEY, 3, RATE)
    await store.tend(1)
    assert sum(store.known().values()) == 0
    reading = await store.get_many([KEY.of], (), 1)
    assert not reading.records.get(KEY.of)
    assert [key async for key, _ in store.scan("pace")] == []


asked = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 30)), min_size=1, max_size=20)
rates = st.builds(
    Rate, st.sampled_from([0.1, 1, 7, 400]), st.sampled_from([0.1, 1, 2.5, 40]), st.sampled_from([0, 1, 8])
)


@given(asked, rates)
def test_never_more_than_the_rate_and_the_burst_go_and_nobody_overtakes(
    asked: list[tuple[float, int]], rate: Rate
) -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    gone: list[float] = []
    for pause, number in asked:
        now += pause
        slots = asyncio.run(store.reserve(KEY, number, rate))
        for wait in waits(slots, rate):
            assert wait <= rate.ahead + 1e-6 / rate.each
            gone.append(now + wait)
        if slots.granted < number:
            assert slots.first + slots.granted / rate.each > rate.ahead
    assert gone == sorted(gone)
    for first in range(len(gone)):
        for last in range(first, len(gone)):
            allowed = rate.each * (gone[last] - gone[first]) + max(1.0, rate.burst)
            assert last - first + 1 <= allowed + 1e-3


@given(st.floats(-1e9, 1e9), st.integers(1, 5))
def test_a_clock_that_jumps_holds_nobody_longer_than_may_be(jump: float, number: int) -> None:
    now = 1e9
    store = MemoryStore(clock=lambda: now)
    asyncio.run(store.reserve(KEY, 8, RATE))
    now += jump
    slots = asyncio.run(store.reserve(KEY, number, RATE))
    assert slots.first <= RATE.ahead + 2


async def test_schedules_whose_slots_have_passed_are_dropped() -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    for number in range(SCHEDULES * 3):
        now += 2
        await store.reserve(KEY._replace(workspace=str(number)), 1, RATE)
    assert len(store._planned) <= SCHEDULES + 1


PROGRAM = """
import asyncio, json, sys, time
from cio_proxy.facts import Rate
from cio_proxy.model import Key
{opened}
async def main():
    found = []
    for number in range(200):
        if number % 100 == 0:
            print(flush=True)
            sys.stdin.readline()
        slots = await store.reserve(Key("pace", "ws", "track"), 1, Rate(0.1, 1, 9000))
        found.append((time.time(), slots.first, slots.granted))
    await store.close()
    print(json.dumps(found))
asyncio.run(main())
"""
SQLITE = (
    "from pathlib import Path; from cio_proxy.facts.sqlite import SqliteStore; store = SqliteStore(Path({place!r}))"
)
REDIS = "from cio_proxy.facts.redis import RedisStore; store = RedisStore({place!r})"


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_two_processes_share_a_schedule(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "redis":
        pytest.importorskip("redis")
        opened = REDIS.format(place=request.getfixturevalue("redis"))
    else:
        place = tmp_path / "facts.sqlite"
        asyncio.run(SqliteStore(place).close())
        opened = SQLITE.format(place=str(place))
    program = [sys.executable, "-c", PROGRAM.format(opened=opened)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(program, **pipes) for _ in range(2)]
    both_go_on_together(processes)
    both_go_on_together(processes)
    found = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert all(count == 1 for each in found for _, _, count in each)
    begin = min(at + first for each in found for at, first, _ in each)
    slots = [[round((at + first - begin) / 10) for at, first, _ in each] for each in found]
    assert all(each == sorted(each) for each in slots), "in the order of asking"
    assert sorted(slots[0] + slots[1]) == list(range(400)), "and nobody takes what another has"
    assert all(sum(slot < 200 for slot in each) == 100 for each in slots), "half of it before either went on"


def both_go_on_together(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Wait until each of them waits, and let both go."""
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
