"""Facts in memory: bounded by a number of facts, fleeting and least recently used first out; gone with the process."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence

from cio_proxy.facts import Reading
from cio_proxy.model import Deadline, Fact, Key, Value

MARK_SECONDS = 30.0
NONE: frozenset[Key] = frozenset()
FLEETING = 30.0
"""Seconds to live up to which a fact is dropped as soon as it has expired: there may be one for every event."""


class MemoryStore:
    """A store that ends with the process."""

    def __init__(self, limit: int = 200_000) -> None:
        self.limit = limit
        self.evicted = 0
        self._since: float | None = None
        self._whole = True
        self._facts: OrderedDict[Key, tuple[Value, float]] = OrderedDict()
        self._marks: dict[Key, tuple[int, float]] = {}
        self._deadlines: list[tuple[float, Key]] = []
        self._fleeting: list[tuple[float, Key]] = []
        self._leased: set[Key] = set()
        self._kinds: Counter[str] = Counter()

    async def get_many(self, keys: Collection[Key], marks: Collection[Key], now: float) -> Reading:
        """Read `keys`; mark those of `marks` that are unknown, for at most 30 s."""
        if self._since is None:
            self._since = now
        values = {}
        for key in keys:
            if (kept := self._facts.get(key)) is not None:
                if kept[1] > now:
                    values[key] = kept[0]
                    self._facts.move_to_end(key)
                else:
                    self._drop(key)
        in_flight = NONE
        if self._marks:
            in_flight = frozenset(key for key in keys if (mark := self._marks.get(key)) and mark[1] > now)
        for key in marks:
            if key not in values:
                holders = self._marks.get(key, (0, 0.0))[0]
                self._marks[key] = (holders + 1, now + MARK_SECONDS)
        if len(self._marks) > self.limit:
            self._marks = {key: mark for key, mark in self._marks.items() if mark[1] > now}
        return Reading(values, in_flight, self._since, self._whole)

    async def join_many(self, facts: Sequence[Fact], unmark: Collection[Key], now: float) -> None:
        """Join facts; take back one mark of each key of `unmark`."""
        self._drop_fleeting(now)
        for key, value, ttl in facts:
            self._join(key, value, now + ttl, now)
        for key in unmark:
            holders, expiry = self._marks.get(key, (0, 0.0))
            if holders > 1:
                self._marks[key] = (holders - 1, expiry)
            else:
                self._marks.pop(key, None)

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """Deadlines at or before a moment, each once until it is acknowledged."""
        found: list[tuple[Key, Deadline]] = []
        while self._deadlines and self._deadlines[0][0] <= before:
            at, key = heapq.heappop(self._deadlines)
            value = self._facts.get(key, (None, 0.0))[0]
            if isinstance(value, Deadline) and value.at == at and key not in self._leased:
                self._leased.add(key)
                found.append((key, value))
        return found

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines."""
        for key in keys:
            self._leased.discard(key)
            self._drop(key)

    def missed(self, now: float) -> None:
        """Something passed unseen, or was forgotten."""
        self._since = now
        self._whole = False

    def clear(self) -> None:
        """Forget everything."""
        self._facts.clear()
        self._marks.clear()
        self._deadlines.clear()
        self._leased.clear()
        self._kinds.clear()
        self._fleeting.clear()
        self._since = None
        self._whole = True

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept."""
        return dict(self._kinds)

    def _get(self, key: Key, now: float) -> Value | None:
        kept = self._facts.get(key)
        if kept is None:
            return None
        value, expiry = kept
        if expiry <= now:
            self._drop(key)
            return None
        self._facts.move_to_end(key)
        return value

    def _join(self, key: Key, value: Value, expiry: float, now: float) -> None:
        old = self._get(key, now)
        joined: Value = value
        if old is None:
            self._kinds[key.kind] += 1
            if expiry - now <= FLEETING:
                heapq.heappush(self._fleeting, (expiry, key))
        elif type(old) is type(value):
            joined = old.join(value)  # type: ignore[arg-type]
            expiry = max(expiry, self._facts[key][1])
        self._facts[key] = (joined, expiry)
        if isinstance(joined, Deadline):
            heapq.heappush(self._deadlines, (joined.at, key))
        while len(self._facts) > self.limit:
            if self._fleeting:
                self._drop(heapq.heappop(self._fleeting)[1])
            else:
                self._drop(next(iter(self._facts)))
                self.missed(now)
            self.evicted += 1

    def _drop_fleeting(self, now: float) -> None:
        while self._fleeting and self._fleeting[0][0] <= now:
            _, key = heapq.heappop(self._fleeting)
            if self._get(key, now) is not None:  # it was taught again
                heapq.heappush(self._fleeting, (self._facts[key][1], key))

    def _drop(self, key: Key) -> None:
        if self._facts.pop(key, None) is not None:
            self._kinds[key.kind] -= 1
