"""The journal: findings as JSON lines in a file that is rotated by size, and the latest of them in memory.

The first findings of a kind (a fingerprint, and what was done about it) are written in full and later
ones summarised, so that a fault in a busy loop costs a line a minute. `count` says how many occurrences
a line stands for: over all lines of a kind it sums to the occurrences, less those counted as `dropped`.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cio_proxy.model import End, Finding, JournalSettings, Taken
from cio_proxy.sinks.record import encode, record
from cio_proxy.sinks.rotated import RotatedFile
from cio_proxy.sinks.writer import Writer

log = logging.getLogger("cio_proxy")

type Same = tuple[str, Taken]
"""A fingerprint, and what was done about it."""

IN_FULL: Final = 3
"""How many findings of a fingerprint get a line of their own."""
SUMMARY_SECONDS: Final = 60.0
"""Finding time that one summary line covers."""
FINGERPRINTS: Final = 10_000
"""How many fingerprints are told apart; the one not seen for longest makes room."""
RING: Final = 10_000
"""How many lines are kept in memory."""
CLOSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal: its number, counted from 1, and a finding that stands for `count` occurrences."""

    number: int
    finding: Finding
    count: int


@dataclass(slots=True)
class _Kind:
    """What is the same: its lines so far, and the occurrences that are in none of them yet."""

    latest: Finding
    lines: int = 0
    waiting: int = 0
    since: float = 0.0


class Journal:
    """A sink that keeps findings. Without a path it keeps them in memory only.

    `dropped` is called with a number of occurrences that will never be in the file (full queue,
    full disk), and `degraded` with True when the file cannot be written and False once it can again.
    Both may be called from the thread that writes.
    """

    def __init__(
        self,
        settings: JournalSettings,
        *,
        dropped: Callable[[int], None] = lambda count: None,
        degraded: Callable[[bool], None] = lambda on: None,
        fingerprints: int = FINGERPRINTS,
        ring: int = RING,
    ) -> None:
        self.dropped = 0
        self._tell_dropped = dropped
        self._tell_degraded = degraded
        self._drops = threading.Lock()
        self._lock = threading.Lock()
        self._limit = fingerprints
        self._kinds: OrderedDict[Same, _Kind] = OrderedDict()
        self._waiting: dict[Same, None] = {}
        """Those with occurrences in no line yet, the longest waiting first."""
        self._ring: deque[Entry] = deque(maxlen=ring)
        self._lines = 0
        self._closed = False
        self._broken = False
        self._told = False
        self._writer: Writer[Entry] | None = None
        if settings.path is not None:
            self._file = RotatedFile(settings.path, settings.max_bytes, settings.keep)
            self._writer = Writer(self._write, finish=self._file.close, size=settings.queue, name="journal")
            if not Path(settings.path).parent.is_dir():  # told now, not only when there is something to lose
                self._broke(FileNotFoundError(errno.ENOENT, "its folder is not there"))

    def found(self, finding: Finding) -> None:
        """Write a finding in full, or count it for its fingerprint's next line."""
        with self._lock:
            for entry in self._due(finding):
                self._put(entry)

    def ended(self, end: End) -> None:
        """An exchange without findings moves summaries on, too."""
        if self._waiting:
            with self._lock:
                for entry in self._overdue(end.exchange.at):
                    self._put(entry)

    def read(
        self, after: int = 0, limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """The oldest lines in memory after line `after` whose fields equal the filters, and a cursor.

        The cursor is the `after` of the next page, or None on the last one.
        """
        with self._lock:
            entries = list(self._ring)
        wanted = (filters or {}).items()
        matching = (
            entry
            for entry in entries
            if entry.number > after and all(getattr(entry.finding, name) == value for name, value in wanted)
        )
        page = list(islice(matching, limit))
        more = next(matching, None) is not None
        return [record(entry.finding, entry.count) for entry in page], page[-1].number if page and more else None

    def reset(self) -> None:
        """Forget the lines in memory; the file keeps them."""
        with self._lock:
            self._ring.clear()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write all that waits; what the file has not taken after so many seconds counts as dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            last = [self._summary(same) for same in list(self._waiting)]
        if self._writer is not None:
            for entry in self._writer.close(last, seconds=seconds):
                self._drop(entry.count)

    def _due(self, finding: Finding) -> Iterator[Entry]:
        """Note a finding, and give the lines that are due now."""
        same = (finding.fingerprint, finding.action)
        kind = self._kinds.get(same)
        if kind is None:
            kind = self._kinds[same] = _Kind(finding)
        self._kinds.move_to_end(same)
        kind.latest = finding
        if kind.lines < IN_FULL or self._closed:
            kind.lines += 1
            yield self._entry(finding, 1)
        else:
            kind.waiting += 1
            if kind.waiting == 1:
                kind.since = finding.time
                self._waiting[same] = None
        yield from self._overdue(finding.time)
        if len(self._kinds) > self._limit:
            oldest = next(iter(self._kinds))
            if oldest in self._waiting:
                yield self._summary(oldest)
            del self._kinds[oldest]

    def _overdue(self, now: float) -> Iterator[Entry]:
        while self._waiting:
            longest = next(iter(self._waiting))
            # A clock that was set back must not silence summaries until it has caught up.
            if abs(now - self._kinds[longest].since) < SUMMARY_SECONDS:
                break
            yield self._summary(longest)

    def _put(self, entry: Entry) -> None:
        if self._writer is not None and (self._closed or not self._writer.put(entry)):
            self._drop(entry.count)

    def _summary(self, same: Same) -> Entry:
        kind = self._kinds[same]
        count, kind.waiting = kind.waiting, 0
        del self._waiting[same]
        return self._entry(kind.latest, count)

    def _entry(self, finding: Finding, count: int) -> Entry:
        self._lines += 1
        entry = Entry(self._lines, finding, count)
        self._ring.append(entry)
        return entry

    def _write(self, entry: Entry) -> None:
        """Put one line in the file; runs in the thread that writes."""
        try:
            self._file.append(encode(record(entry.finding, entry.count)))
        except Exception as error:
            self._drop(entry.count)
            self._broke(error)
        else:
            if self._broken:
                self._broken = False
                self._tell_degraded(False)

    def _broke(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("journal %s: %s; traffic goes on, missing lines are counted", self._file.path, reason)
        if not self._broken:
            self._broken = True
            self._tell_degraded(True)

    def _drop(self, count: int) -> None:
        with self._drops:
            self.dropped += count
        self._tell_dropped(count)
