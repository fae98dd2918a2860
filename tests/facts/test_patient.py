"""A store that is slow or gone slows nobody, and is used again as soon as it is back."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from cio_proxy.facts import Reading, patient
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.patient import Full, Patient
from cio_proxy.model import Fact, Key, Span, Subject

KEY = Key("x", "ws", "a")
FACTS = [Fact(KEY, Span(1, 1), 60)]


class Weak(MemoryStore):
    """A store that takes its time, or fails."""

    seconds = 0.0
    broken = False
    asked = 0

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        await self._weakness()
        return await super().get_many(subjects, announced, now)

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        await self._weakness()
        await super().join_many(facts, settled, now)

    async def _weakness(self) -> None:
        self.asked += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.broken:
            raise ConnectionError


class Watched:
    """A patient store, what it rests on, and what it lost."""

    def __init__(self) -> None:
        self.weak = Weak()
        self.lost: list[tuple[float, str, type[BaseException]]] = []
        self.store = Patient(self.weak, lambda at, name, error: self.lost.append((at, name, type(error))))

    async def reads(self) -> bool:
        return bool((await self.store.get_many([KEY.of], (), 2)).records)

    async def writes(self) -> None:
        await self.store.join_many(FACTS, (), now=1)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long what failed is left alone here."""
    monkeypatch.setattr(patient, "REST_SECONDS", 0.2)
    return 0.2


@asynccontextmanager
async def takes(least: float, most: float) -> AsyncIterator[None]:
    started = time.perf_counter()
    yield
    assert least <= time.perf_counter() - started < most


async def test_a_quick_store_is_used_as_it_is() -> None:
    watched = Watched()
    await watched.writes()
    assert await watched.reads()
    assert watched.weak.asked == 2


async def test_a_slow_read_fails_once_and_then_nobody_waits_until_it_is_tried_again(rests: float) -> None:
    watched = Watched()
    watched.weak.seconds = 2.0
    async with takes(0.09, 1.5):
        with pytest.raises(TimeoutError):
            await watched.reads()
    async with takes(0, 1.0):
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await watched.reads()
    assert watched.weak.asked == 1
    watched.weak.seconds = 0
    await asyncio.sleep(rests)
    assert not await watched.reads()
    assert not await watched.reads()
    assert watched.weak.asked == 3


class Distant(Weak):
    """A store that answers after a few steps, each of which the loop has to look at."""

    steps = 5

    async def _weakness(self) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(0.001)


def busy(seconds: float) -> None:
    """The loop does something else as soon as it can, and for so long."""
    asyncio.get_running_loop().call_soon(time.sleep, seconds)


async def test_what_the_loop_itself_was_late_for_is_no_failure_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "READ_SECONDS", 0.3)
    watched = Watched()
    watched.store = Patient(Distant(), lambda at, name, error: None)
    for _ in range(3):
        busy(2 * patient.READ_SECONDS)
        assert not await watched.reads()


async def test_a_store_that_does_not_answer_has_failed_on_a_busy_loop_too() -> None:
    watched = Watched()
    watched.weak.seconds = 30
    busy(2 * patient.READ_SECONDS)
    with pytest.raises(TimeoutError):
        await watched.reads()
    with pytest.raises(TimeoutError):
        await watched.reads()
    assert watched.weak.asked == 1


async def test_a_read_that_was_given_up_goes_on_no_more_and_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    class Failing(Weak):
        async def _weakness(self) -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()
                raise ConnectionError

    store = Patient(Failing(), lambda at, name, error: None)
    with pytest.raises(TimeoutError):
        await store.get_many([KEY.of], (), 2)
    async with asyncio.timeout(5):
        await ended.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


async def test_a_caller_that_leaves_takes_its_read_along() -> None:
    watched = Watched()
    ended = asyncio.Event()

    class Waiting(Weak):
        async def _weakness(self) -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

    watched.store = Patient(Waiting(), lambda at, name, error: None)
    leaving = asyncio.create_task(watched.reads())
    await asyncio.sleep(0.01)
    leaving.cancel()
    async with asyncio.timeout(5):
        await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_what_failed_is_tried_by_one_caller_alone(rests: float) -> None:
    watched = Watched()
    watched.weak.broken = True
    with pytest.raises(ConnectionError):
        await watched.reads()
    await asyncio.sleep(rests)
    watched.weak.seconds = 0.02
    results = await asyncio.gather(*(watched.reads() for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionError}
    assert watched.weak.asked == 2


async def test_a_write_holds_the_answer_back_for_a_moment_and_then_goes_on_behind() -> None:
    watched = Watched()
    watched.weak.seconds = 0.8
    async with takes(0.04, 0.7):
        await watched.writes()
    async with takes(0, 0.5):
        for _ in range(20):
            await watched.writes()
    watched.weak.seconds = 0
    assert not await watched.reads()
    await watched.store.close()
    assert await watched.reads()
    assert watched.lost == []


async def test_writes_that_end_in_time_are_waited_for_although_there_are_many() -> None:
    watched = Watched()
    watched.weak.seconds = 0.01
    await asyncio.gather(*(watched.writes() for _ in range(20)))
    watched.weak.seconds = 0
    assert len(watched.store._tasks) == 0


async def test_what_is_lost_behind_is_told(rests: float) -> None:
    watched = Watched()
    watched.weak.seconds, watched.weak.broken = 0.1, True
    await watched.writes()
    await watched.store.join_many([], [KEY], now=1)
    await asyncio.sleep(0.15)
    assert watched.lost == [(1, "ws", ConnectionError)]
    with pytest.raises(ConnectionError):
        await watched.writes()


async def test_a_write_that_fails_at_once_is_not_lost_behind_but_raised() -> None:
    watched = Watched()
    watched.weak.broken = True
    with pytest.raises(ConnectionError):
        await watched.writes()
    assert watched.lost == []


async def test_a_client_that_leaves_stops_no_write() -> None:
    watched = Watched()
    watched.weak.seconds = 0.04
    leaving = asyncio.create_task(watched.writes())
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.sleep(0.05)
    watched.weak.seconds = 0
    assert await watched.reads()


async def test_only_so_many_writes_go_on_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "BEHIND", 3)
    watched = Watched()
    watched.weak.seconds = 30
    for _ in range(3):
        await watched.writes()
    with pytest.raises(Full):
        await watched.writes()
    monkeypatch.setattr(patient, "SLOW_SECONDS", 0.05)
    await watched.store.close()
    assert watched.lost == [(1, "ws", TimeoutError)] * 3


async def test_a_write_that_never_ends_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "BEHIND_SECONDS", 0.1)
    watched = Watched()
    watched.weak.seconds = 30
    await watched.writes()
    await asyncio.sleep(0.15)
    assert watched.lost == [(1, "ws", TimeoutError)]


async def test_a_store_that_does_not_let_go_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clinging(Weak):
        async def close(self) -> None:
            await asyncio.sleep(30)

    monkeypatch.setattr(patient, "SLOW_SECONDS", 0.05)
    async with takes(0, 5):
        await Patient(Clinging(), lambda at, name, error: None).close()
