"""Holds exchanges that come faster than they may, and releases them in their order.

A schedule is shared by all replicas (`Store.reserve`); those that wait in this process stand in one line for each, so
that nobody overtakes. What finds no slot in time is held for as long as may be and passes. When the store does not
answer, what comes passes at once, though still behind those that are held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from cio_proxy.facts import Rate, Store
from cio_proxy.model import Key, Paced

HELD: Final = 10_000
"""How many exchanges are held at once; more pass."""
TICK: Final = 1e-6
"""Seconds between two that would go at the same time, so that they go in their order."""


@dataclass(slots=True)
class _Waiting:
    """One who stands in line: `go` is what becomes of it."""

    go: asyncio.Future[Paced | None]
    timer: asyncio.TimerHandle | None = None
    result: Paced | None = None

    def release(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.go.done():
            self.go.set_result(self.result)


@dataclass(slots=True)
class _Line:
    """Those who share a schedule, in the order in which they came."""

    waiting: dict[int, _Waiting] = field(default_factory=dict)
    new: list[_Waiting] = field(default_factory=list)
    """Those who have no time yet."""
    people: Counter[str] = field(default_factory=Counter)
    """Whose calls are held."""
    last: float = float("-inf")
    """When the last one goes."""
    tail: _Waiting | None = None
    """The last one that has a time."""
    planning: asyncio.Task[None] | None = None

    def is_free(self) -> bool:
        """Whether nobody who has a time waits for it."""
        return self.tail is None or self.tail.go.done()


class Pacing:
    """Holds exchanges of this process. `told` hears of each that did not simply go on, and for how long it was held."""

    def __init__(self, store: Store, told: Callable[[Paced, float], None] = lambda result, seconds: None) -> None:
        self._store = store
        self._told = told
        self._lines: dict[Key, _Line] = {}
        self._held = 0
        self._ended = False

    async def hold(self, key: Key, rate: Rate, people: Collection[str], urgent: bool, enforced: bool) -> None:
        """Wait until an exchange may go on. Raises what the store raises; then it may go on as well.

        One that is `urgent` waits only behind what is held of the same people. Unless `enforced`, nobody waits.
        """
        line = self._lines.get(key)
        if self._ended or (urgent and (line is None or line.people.keys().isdisjoint(people))):
            return
        if not enforced:
            slots = await self._store.reserve(key, 1, rate)
            if slots.first > 0 or not slots.granted:
                self._told("would", 0.0)
        elif self._held >= HELD:
            self._told("passed", 0.0)
        else:
            loop = asyncio.get_running_loop()
            began = loop.time()
            result = await self._held_in(line or self._lines.setdefault(key, _Line()), key, rate, people)
            if result is not None:
                self._told(result, loop.time() - began)

    def release(self) -> None:
        """Let everybody go now, in their order, and hold nobody any more."""
        self._ended = True
        self.let_go()

    def let_go(self) -> None:
        """Let everybody go now, in their order: whoever comes later is not held, or not by the same rate."""
        for line in self._lines.values():
            for each in line.waiting.values():
                each.release()

    async def _held_in(self, line: _Line, key: Key, rate: Rate, people: Collection[str]) -> Paced | None:
        loop = asyncio.get_running_loop()
        mine = _Waiting(loop.create_future())
        line.waiting[id(mine)] = mine
        line.new.append(mine)
        line.people.update(people)
        self._held += 1
        if line.planning is None or line.planning.done():  # it may be done at once
            line.planning = loop.create_task(self._plan(line, key, rate))
        try:
            return await mine.go
        finally:
            self._held -= 1
            del line.waiting[id(mine)]
            line.people.subtract(people)
            for person in people:
                if not line.people[person]:
                    del line.people[person]
            if not line.waiting:
                self._lines.pop(key, None)

    async def _plan(self, line: _Line, key: Key, rate: Rate) -> None:
        """Give everybody who has come a time; who comes meanwhile is asked for together."""
        loop = asyncio.get_running_loop()
        while line.new:
            new, line.new = line.new, []
            try:
                slots = await self._store.reserve(key, len(new), rate)
            except Exception as error:
                self._let_pass(line, new, error)
                continue
            now = loop.time()
            for number, each in enumerate(new):
                has_slot = number < slots.granted
                wanted = now + (max(0.0, slots.first + number / rate.each) if has_slot else rate.ahead)
                at = wanted if line.is_free() else max(wanted, line.last + TICK)
                each.result = None if at <= now else "held" if has_slot else "passed"
                self._at(line, at, each)

    def _let_pass(self, line: _Line, new: Collection[_Waiting], error: Exception) -> None:
        for each in new:
            if line.is_free():
                if not each.go.done():
                    each.go.set_exception(error)
            else:
                each.result = "passed"
                self._at(line, line.last + TICK, each)

    def _at(self, line: _Line, at: float, each: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        is_first, line.last, line.tail = line.is_free(), at, each
        if self._ended or (is_first and at <= loop.time()):
            each.release()
        else:
            each.timer = loop.call_at(at, each.release)
