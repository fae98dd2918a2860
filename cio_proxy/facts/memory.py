"""Facts in memory: bounded by a number of facts, fleeting and least recently used first out; gone with the process."""

from __future__ import annotations

import heapq
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from cio_proxy.facts import FLEETING, LEASE_SECONDS, MARK_SECONDS, Rate, Reading, Slots, workspace
from cio_proxy.model import Deadline, Fact, Kept, Key, Record, Subject, Value, made

NONE: frozenset[Key] = frozenset()
NOBODY = (0, 0.0)
SCHEDULES = 1_000
"""How many schedules are kept whose slots have passed."""


class _Row(dict[str, Kept]):
    """A record that is never changed but replaced: whoever reads it may keep it. Nothing expires before `earliest`."""

    __slots__ = ("earliest",)
    earliest: float


def _row(record: Record, earliest: float) -> _Row:
    row = _Row(record)
    row.earliest = earliest
    return row


EMPTY = _row({}, float("inf"))


class MemoryStore:
    """A store that ends with the process. `limit` is a number of facts."""

    def __init__(self, limit: int = 200_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self.evicted = 0
        self._start()

    def _start(self) -> None:
        self._records: OrderedDict[Subject, _Row] = OrderedDict()
        self._count = 0
        self._kinds: Counter[str] = Counter()
        self._marks: dict[Subject, dict[str, tuple[int, float]]] = {}
        """How many are about to teach a fact, and until when that is believed."""
        self._deadlines: list[tuple[float, Key]] = []
        self._leased: dict[Key, float] = {}
        self._planned: dict[Key, float] = {}
        """Until when the slots of a schedule are taken."""
        self._fleeting: list[tuple[float, Key]] = []
        self._forgotten: float | None = None
        """When the record of a whole workspace was evicted last."""

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        """Read the records of `subjects`; mark those of `announced` that are unknown."""
        records: dict[Subject, Record] = {}
        rows = self._records
        for subject in subjects:
            if (row := rows.get(subject)) is not None:
                rows.move_to_end(subject)
                records[subject] = row if row.earliest > now else self._living(subject, row, now)
            elif self._forgotten is not None and not subject.sealed:
                records[subject] = _forgotten(subject, self._forgotten)
        in_flight = self._in_flight(subjects, now) if self._marks else NONE
        for key in announced:
            subject = key.of
            if key.kind not in records.get(subject, ()):
                marks = self._marks.setdefault(subject, {})
                marks[key.kind] = (marks.get(key.kind, NOBODY)[0] + 1, now + MARK_SECONDS)
        if len(self._marks) > self.limit:
            self._drop_marks(now)
        return made(Reading, (records, in_flight))

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        """Join facts; take back one mark of each key of `settled`."""
        if self._fleeting and self._fleeting[0][0] <= now:
            self._drop_fleeting(now)
        grown: dict[Subject, _Row] = {}
        for key, value, ttl, _ in facts:
            self._join(key, value, now + ttl, now, grown)
        for key in settled:
            self._settle(key)
        if self._count > self.limit:
            self._evict(now)

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """Deadlines at or before a moment, each leased to one caller."""
        found: list[tuple[Key, Deadline]] = []
        while self._deadlines and self._deadlines[0][0] <= before:
            _, key = heapq.heappop(self._deadlines)
            kept = self._records.get(key.of, EMPTY).get(key.kind)
            if kept is None or not isinstance(kept.value, Deadline) or kept.value.at > before:
                continue
            if self._leased.get(key, before) <= before:
                self._leased[key] = before + LEASE_SECONDS
                heapq.heappush(self._deadlines, (before + LEASE_SECONDS, key))
                found.append((key, kept.value))
        return found

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines."""
        for key in keys:
            self._leased.pop(key, None)
            self._drop(key)

    async def scan(self, kind: str) -> AsyncIterator[tuple[Key, Kept]]:
        """Every fact of a kind, least recently used first."""
        for subject, record in list(self._records.items()):
            if (kept := record.get(kind)) is not None:
                yield Key(kind, *subject), kept

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        """Take slots in a schedule."""
        now = self._clock()
        slots, self._planned[key] = rate.slots(self._planned.get(key), number, now)
        if len(self._planned) > SCHEDULES:
            self._planned = {key: until for key, until in self._planned.items() if until > now}
        return slots

    async def clear(self) -> None:
        """Forget everything."""
        self._start()

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept."""
        return dict(self._kinds)

    async def tend(self, now: float) -> None:
        """Nothing has to be done now and then."""

    async def close(self) -> None:
        """There is nothing to write."""

    def _living(self, subject: Subject, row: _Row, now: float) -> Record:
        living = {kind: kept for kind, kept in row.items() if kept.expiry > now}
        self._count -= len(row) - len(living)
        for kind in row.keys() - living.keys():
            self._kinds[kind] -= 1
        if not living:
            del self._records[subject]
            return EMPTY
        row = self._records[subject] = _row(living, min([kept.expiry for kept in living.values()]))
        return row

    def _in_flight(self, subjects: Collection[Subject], now: float) -> frozenset[Key]:
        marked = [(subject, self._marks[subject]) for subject in subjects if subject in self._marks]
        return frozenset(
            Key(kind, *subject) for subject, marks in marked for kind, (_, expiry) in marks.items() if expiry > now
        )

    def _join(self, key: Key, value: Value, expiry: float, now: float, grown: dict[Subject, _Row]) -> None:
        """Join a fact. The rows in `grown` are new, and nobody reads them yet."""
        kind, subject = key.kind, key.of
        row = grown.get(subject)
        if row is None:
            row = self._records.get(subject, EMPTY)
            if not row and self._forgotten is not None and not subject.sealed:
                row = _row(_forgotten(subject, self._forgotten), self._forgotten + workspace.LIFE)
                self._kinds[workspace.LOST] += 1
                self._count += 1
            row = grown[subject] = self._records[subject] = _row(row, row.earliest)
            self._records.move_to_end(subject)
        old = row.get(kind)
        if old is None:
            self._kinds[kind] += 1
            self._count += 1
            if expiry - now <= FLEETING:
                heapq.heappush(self._fleeting, (expiry, key))
        elif old.expiry > now and type(old.value) is type(value):
            value = old.value.join(value)  # type: ignore[arg-type]
            expiry = max(expiry, old.expiry)
        row[kind] = made(Kept, (value, expiry))
        row.earliest = min(row.earliest, expiry)
        if isinstance(value, Deadline):
            heapq.heappush(self._deadlines, (value.at, key))

    def _settle(self, key: Key) -> None:
        marks = self._marks.get(key.of)
        if marks is None:
            return
        holders, expiry = marks.get(key.kind, NOBODY)
        if holders > 1:
            marks[key.kind] = (holders - 1, expiry)
        elif marks.pop(key.kind, None) is not None and not marks:
            del self._marks[key.of]

    def _drop_marks(self, now: float) -> None:
        for subject, marks in list(self._marks.items()):
            if all(expiry <= now for _, expiry in marks.values()):
                del self._marks[subject]

    def _evict(self, now: float) -> None:
        while self._count > self.limit:
            self.evicted += 1
            if self._fleeting:
                self._drop(heapq.heappop(self._fleeting)[1])
                continue
            if (oldest := next(iter(self._records))) == workspace.EVERY:
                if len(self._records) == 1:
                    return
                self._records.move_to_end(oldest)
                continue
            subject, record = self._records.popitem(last=False)
            self._count -= len(record)
            self._kinds.subtract(record.keys())
            if not subject.sealed:
                self._forgotten = now
            elif self._count:  # else the limit is too small for anything, and the workspace is forgotten with the rest
                fact = workspace.lost(subject.workspace, now)
                self._join(fact.key, fact.value, now + fact.ttl, now, {})
            else:
                self._forgotten = now

    def _drop_fleeting(self, now: float) -> None:
        while self._fleeting and self._fleeting[0][0] <= now:
            _, key = heapq.heappop(self._fleeting)
            kept = self._records.get(key.of, EMPTY).get(key.kind)
            if kept is None:
                continue
            if kept.expiry > now:  # it was taught again
                heapq.heappush(self._fleeting, (kept.expiry, key))
            else:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        row = self._records.get(key.of, EMPTY)
        if key.kind not in row:
            return
        self._kinds[key.kind] -= 1
        self._count -= 1
        if len(row) > 1:
            self._records[key.of] = _row({kind: row[kind] for kind in row if kind != key.kind}, row.earliest)
        else:
            del self._records[key.of]


def _forgotten(subject: Subject, at: float) -> Record:
    fact = workspace.lost(subject.workspace, at)
    return {fact.key.kind: Kept(fact.value, at + fact.ttl)}
