"""The journal: findings as JSON lines in a file that is rotated by size, and the latest of them in memory.

The first findings of a kind (a fingerprint) are written in full, later ones summarised, so that a
fault in a busy loop costs a line a minute. `count` says how many occurrences a line stands for: over
all lines of a fingerprint it sums to the occurrences, less those counted as `dropped`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cio_proxy.model import End, Finding, JournalSettings
from cio_proxy.sinks.record import record
from cio_proxy.sinks.writer import Writer

log = logging.getLogger("cio_proxy")

IN_FULL: Final = 3
"""How many findings of a fingerprint get a line of their own."""
SUMMARY_SECONDS: Final = 60.0
"""Finding time that one summary line covers."""
FINGERPRINTS: Final = 10_000
"""How many fingerprints are told apart; the one unseen longest makes room."""
RING: Final = 10_000
CLOSE_SECONDS: Final = 5.0


class Entry(NamedTuple):
    """A line of the journal: its number, counted from 1, and the finding that stands for `count` occurrences."""

    number: int
    finding: Finding
    count: int


@dataclass(slots=True)
class _Kind:
    """What happened to one fingerprint: lines written, and occurrences not yet in any line."""

    latest: Finding
    lines: int = 0
    waiting: int = 0
    since: float = 0.0


class Journal:
    """A sink that keeps findings. Without a path it keeps them in memory only.

    `dropped` is called with the number of occurrences that will never be in the file (full queue,
    full disk); `degraded` with True when the file cannot be written and False when it can again.
    Both may be called from the thread that writes.
    """

    def __init__(
        self,
        settings: JournalSettings,
        *,
        dropped: Callable[[int], None] = lambda count: None,
        degraded: Callable[[bool], None] = lambda on: None,
        fingerprints: int = FINGERPRINTS,
    ) -> None:
        self.dropped = 0
        self._count_dropped = dropped
        self._degraded = degraded
        self._lock = threading.Lock()
        self._drops = threading.Lock()
        self._kinds: OrderedDict[str, _Kind] = OrderedDict()
        self._fingerprints = fingerprints
        self._waiting: dict[str, None] = {}
        """Fingerprints with occurrences in no line yet, the longest waiting first."""
        self._ring: deque[Entry] = deque(maxlen=RING)
        self._written = 0
        self._closed = False
        self._out: _Out | None = None
        if settings.path is not None:
            self._out = _Out(settings.path, settings, self._drop, degraded)

    def found(self, finding: Finding) -> None:
        """Take one finding: write it in full, or count it for its fingerprint's next line."""
        with self._lock:
            for entry in self._take(finding):
                self._put(entry)

    def ended(self, end: End) -> None:
        """The journal holds findings, not exchanges."""

    def read(
        self, after: int = 0, limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """The oldest kept lines after line number `after` whose fields equal the filters, and a cursor for more.

        The cursor is the `after` of the next page, None on the last one.
        """
        with self._lock:
            entries = list(self._ring)
        wanted = (filters or {}).items()
        page: list[Entry] = []
        for entry in entries:
            if entry.number > after and all(getattr(entry.finding, name) == value for name, value in wanted):
                if len(page) == limit:
                    return [record(e.finding, e.count) for e in page], page[-1].number
                page.append(entry)
        return [record(e.finding, e.count) for e in page], None

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write everything that waits. What the file does not take in so many seconds counts as dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            last = [self._summary(fingerprint) for fingerprint in list(self._waiting)]
        if self._writer is not None and self._file is not None:
            undone = self._writer.close(last, seconds=seconds)
            self._drop(sum(entry.count for entry in undone))
            if not self._writer.alive:
                self._file.close()

    def _take(self, finding: Finding) -> Iterator[Entry]:
        """The lines that are due now that this finding has come."""
        fingerprint = finding.fingerprint
        kind = self._kinds.get(fingerprint)
        if kind is None:
            kind = self._kinds[fingerprint] = _Kind(finding)
            if len(self._kinds) > self._fingerprints:
                yield from self._evict()
        else:
            self._kinds.move_to_end(fingerprint)
        kind.latest = finding
        if kind.lines < IN_FULL:
            kind.lines += 1
            yield self._entry(finding, 1)
        elif self._closed:
            yield self._entry(finding, 1)
        else:
            kind.waiting += 1
            if kind.waiting == 1:
                kind.since = finding.time
                self._waiting[fingerprint] = None
        while self._waiting:
            longest = next(iter(self._waiting))
            # A clock set back must not silence summaries until it has caught up.
            if abs(finding.time - self._kinds[longest].since) < SUMMARY_SECONDS:
                return
            yield self._summary(longest)

    def _evict(self) -> Iterator[Entry]:
        oldest = next(iter(self._kinds))
        if oldest in self._waiting:
            yield self._summary(oldest)
        del self._kinds[oldest]

    def _summary(self, fingerprint: str) -> Entry:
        kind = self._kinds[fingerprint]
        count, kind.waiting = kind.waiting, 0
        del self._waiting[fingerprint]
        return self._entry(kind.latest, count)

    def _entry(self, finding: Finding, count: int) -> Entry:
        self._written += 1
        entry = Entry(self._written, finding, count)
        self._ring.append(entry)
        return entry

    def _put(self, entry: Entry) -> None:
        if self._writer is not None and (self._closed or not self._writer.put(entry)):
            self._drop_locked(entry.count)
