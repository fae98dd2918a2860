"""A store that waits on something else, borne with: whoever asks it waits a moment at most, and no longer.

A read that takes too long has failed, but for what this process was late itself. A write holds the answer back for a
moment and then goes on behind; while one does, nobody waits for the next. What failed is left alone for a second, and
then tried by one caller, so that a store that is slow or gone slows no traffic, and is used again as soon as it is
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from cio_proxy.facts import Rate, Reading, Slots, Store
from cio_proxy.model import Deadline, Fact, Kept, Key, Subject

READ_SECONDS: Final = 0.1
"""How long an exchange waits for what is known."""
LATE_SECONDS: Final = 0.01
"""How much later than it should the loop may come to look, and not count as busy itself."""
RESERVE_SECONDS: Final = 2.0
"""How long a slot in a schedule is waited for: whoever asks may wait, and a burst makes this process slow itself."""
HELD_SECONDS: Final = 0.05
"""How long a write holds an answer back."""
BEHIND_SECONDS: Final = 10.0
"""How long a write may go on behind."""
BEHIND: Final = 1_000
"""How many writes may go on at once."""
REST_SECONDS: Final = 1.0
"""How long what failed is left alone."""
SLOW_SECONDS: Final = 5.0
"""How long what no exchange waits for may take."""

type Lost = Callable[[float, str, BaseException], None]


class Full(Exception):
    """More writes go on behind than may."""


class Patient:
    """A store with patience. `lost` is told of facts that were lost behind: when they were taught, where, and why."""

    def __init__(self, store: Store, lost: Lost) -> None:
        self.store = store
        self._lost = lost
        self._reading = _Rest()
        self._writing = _Rest()
        self._reserving = _Rest()
        self._tasks: set[asyncio.Task[None]] = set()
        self._behind = 0
        """How many writes nobody waits for any more."""

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        """What the store knows. Raises what it raises, TimeoutError, or again what it raised a moment ago."""
        self._reading.ask()
        try:
            reading = await _read(self.store.get_many(subjects, announced, now))
        except Exception as error:
            self._reading.failed(error)
            raise
        self._reading.did()
        return reading

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        """Have facts joined, if it takes only a moment before this returns. Raises what the store raises by then."""
        self._writing.ask()
        if len(self._tasks) >= BEHIND:
            raise Full
        writing = self._written(facts, settled, now)
        task = asyncio.Task(writing, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            try:
                if not self._behind:
                    await asyncio.wait({task}, timeout=HELD_SECONDS)
            finally:
                if not task.done():
                    self._behind += 1
                    task.add_done_callback(partial(self._ended, {fact.key.workspace for fact in facts}, now))
        if task.done():
            task.result()

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """The deadlines that have passed."""
        async with asyncio.timeout(SLOW_SECONDS):
            return await self.store.due(before)

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines."""
        async with asyncio.timeout(SLOW_SECONDS):
            await self.store.acknowledge(keys)

    def scan(self, kind: str) -> AsyncIterator[tuple[Key, Kept]]:
        """Every fact of a kind, however long it takes."""
        return self.store.scan(kind)

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        """Take slots in a schedule. Raises what the store raises, TimeoutError, or again what it raised last."""
        self._reserving.ask()
        try:
            async with asyncio.timeout(RESERVE_SECONDS):
                slots = await self.store.reserve(key, number, rate)
        except Exception as error:
            self._reserving.failed(error)
            raise
        self._reserving.did()
        return slots

    async def clear(self) -> None:
        """Forget everything."""
        async with asyncio.timeout(SLOW_SECONDS):
            await self.store.clear()

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept."""
        return self.store.known()

    async def tend(self, now: float) -> None:
        """Do what has to be done now and then."""
        async with asyncio.timeout(SLOW_SECONDS):
            await self.store.tend(now)

    async def close(self) -> None:
        """Wait a little for what goes on behind, and let go."""
        if self._tasks:
            _, undone = await asyncio.wait(self._tasks, timeout=SLOW_SECONDS)
            for task in undone:
                task.cancel()
            await asyncio.gather(*undone, return_exceptions=True)
        with contextlib.suppress(Exception):  # it is over, one way or the other
            async with asyncio.timeout(SLOW_SECONDS):
                await self.store.close()

    async def _written(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                await self.store.join_many(facts, settled, now)
        except Exception as error:
            self._writing.failed(error)
            raise
        self._writing.did()

    def _ended(self, workspaces: Collection[str], now: float, task: asyncio.Task[None]) -> None:
        self._behind -= 1
        error = TimeoutError() if task.cancelled() else task.exception()
        if error is not None:
            for workspace in workspaces:
                self._lost(now, workspace, error)


async def _read(asked: Coroutine[Any, Any, Reading]) -> Reading:
    """What a store knows. Raises what it raises, or TimeoutError.

    By how much the loop is late when the time is over, the answer may be there and not looked at yet: so much is waited
    once more, and nothing where the loop was idle.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.Task(asked, loop=loop, eager_start=True)
    try:
        if not task.done():
            due = loop.time() + READ_SECONDS
            await asyncio.wait({task}, timeout=READ_SECONDS)
            late = loop.time() - due
            if not task.done() and late > LATE_SECONDS:
                await asyncio.wait({task}, timeout=min(late, READ_SECONDS))
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.add_done_callback(_forgotten)
            task.cancel()


def _forgotten(task: asyncio.Task[Reading]) -> None:
    """Nobody asks any more how a task ended."""
    if not task.cancelled():
        task.exception()


class _Rest:
    """Leaves what failed alone for a while, and then lets one caller try it."""

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._until = 0.0

    def ask(self) -> None:
        """Raises what was raised last, while it is left alone."""
        if self._error is not None:
            now = time.monotonic()
            if now < self._until:
                raise self._error.with_traceback(None)
            self._until = now + REST_SECONDS

    def failed(self, error: Exception) -> None:
        self._error, self._until = error, time.monotonic() + REST_SECONDS

    def did(self) -> None:
        self._error = None
