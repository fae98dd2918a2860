"""Facts in a SQLite file: they survive restarts and `kill -9`, and the processes of one machine share them.

Reading is a range of one table and runs where it is asked for. All writing is done by one thread, which commits at
once whatever was asked for meanwhile; each change is read, joined and written under the file's lock, so that no process
loses what another one taught. The operating system keeps a commit: only a loss of power loses the latest ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from cio_proxy.facts import FLEETING, LEASE_SECONDS, MARK_SECONDS, Rate, Reading, Slots, Unusable, workspace
from cio_proxy.facts.encoding import decode, encode
from cio_proxy.model import Deadline, Fact, Kept, Key, Subject

log = logging.getLogger("cio_proxy")

VERSION: Final = 1
"""Of the schema: it stands in the file as its `user_version`."""
APPLICATION: Final = 0x43696F50
"""The file's `application_id`, so that no other program's file is written to."""
MARK: Final = "?"
"""What stands before the kind of a fact that is about to be taught; how many will do so stands in place of a value."""
GROUP: Final = 500
"""How many changes are committed together at most."""
CHUNK: Final = 2_000
"""How many rows are removed, or looked through, at a time."""
TENDED: Final = 20
"""How many such chunks are removed each time the store is tended."""
LOCK_SECONDS: Final = 5.0
"""How long the writing thread waits for another process that writes."""
FIRST_OUT: Final = -1e10
"""Before all who are taught: fleeting facts are evicted first."""
NEVER_OUT: Final = 1e18

SCHEMA: Final = f"""
CREATE TABLE facts (
    workspace TEXT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    value BLOB NOT NULL,
    expiry REAL NOT NULL,
    taught REAL NOT NULL, -- those with the least are evicted first
    due REAL, -- when to look at a deadline: when it has passed, then when its lease has
    PRIMARY KEY (workspace, subject, kind)
) WITHOUT ROWID;
CREATE INDEX by_expiry ON facts (expiry);
CREATE INDEX by_taught ON facts (taught);
CREATE INDEX by_due ON facts (due) WHERE due IS NOT NULL;
CREATE TABLE counts (kind TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
AT: Final = "workspace = ? AND subject = ? AND kind = ?"
FAILURES: Final = (sqlite3.Error,)
"""What a store raises whose file cannot be read or written now."""

type Row = tuple[str, str, str]


class _Job(NamedTuple):
    change: Callable[[_Changes], Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SqliteStore:
    """A store in the file `path`, made with its folder when it is not there. `limit` is a number of facts.

    Raises Unusable for a file that must not be written to. What else is wrong with it stops nothing: it is tried again
    at every change.
    """

    def __init__(self, path: Path, limit: int = 200_000, clock: Callable[[], float] = time.time) -> None:
        self.path = path.expanduser()
        self.limit = limit
        self._clock = clock
        self._known: dict[str, int] = {}
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._file: int | None = None
        """The inode of the file that is written to."""
        self._read: int | None = None
        """The inode of the file that is read."""
        self._doubtful = False
        """Whether the file is to be checked before it is written to."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            log.warning("facts: %s cannot be opened now, and is tried again: %s", self.path, error)
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)
        self._thread.start()

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        """Read the records of `subjects`; mark those of `announced` that are unknown, and wait until others see it."""
        records: dict[Subject, dict[str, Kept]] = {}
        in_flight: set[Key] = set()
        asked: dict[str, list[str]] = {}
        for name, sealed in subjects:
            asked.setdefault(name, []).append(sealed)
        for name, all_sealed in asked.items():
            for start in range(0, len(all_sealed), GROUP):
                part = all_sealed[start : start + GROUP]
                for sealed, kind, value, expiry in self._rows(_reading(len(part)), name, now, *part):
                    if kind[0] == MARK:
                        in_flight.add(Key(kind[1:], name, sealed))
                    elif (read := decode(value)) is not None:
                        records.setdefault(Subject(name, sealed), {})[kind] = Kept(read, expiry)
        marks = [key for key in announced if key.kind not in records.get(key.of, ())]
        if marks:
            await self._do(lambda changes: changes.mark(marks, now))
        return Reading(records, frozenset(in_flight))

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        """Join facts; take back one mark of each key of `settled`. Both are committed when this returns."""

        def change(changes: _Changes) -> None:
            for fact in facts:
                changes.join(fact, now)
            changes.settle(settled)
            changes.now = now if changes.now is None else max(changes.now, now)

        await self._do(change)

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """Deadlines at or before a moment, each leased to one caller of one process."""
        rows = self._rows("SELECT workspace, subject, kind FROM facts WHERE due <= ? LIMIT ?", before, CHUNK)
        return await self._do(lambda changes: changes.lease(rows, before)) if rows else []

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines."""
        await self._do(lambda changes: changes.drop([(*key.of, key.kind) for key in keys]))

    async def scan(self, kind: str) -> AsyncIterator[tuple[Key, Kept]]:
        """Every fact of a kind, in the order of the file."""
        last: Row = ("", "", "")
        while True:
            rows = self._rows(
                "SELECT workspace, subject, kind, value, expiry FROM facts"
                " WHERE (workspace, subject, kind) > (?, ?, ?) ORDER BY workspace, subject, kind LIMIT ?",
                *last,
                CHUNK // 4,
            )
            if not rows:
                return
            for name, sealed, found, value, expiry in rows:
                if found == kind and (read := decode(value)) is not None:
                    yield Key(kind, name, sealed), Kept(read, expiry)
            last = rows[-1][:3]
            await asyncio.sleep(0)

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        """Take slots in a schedule that the processes of this machine share; so is its clock."""
        return await self._do(lambda changes: changes.reserve((*key.of, MARK + key.kind), number, rate, self._clock()))

    async def clear(self) -> None:
        """Forget everything."""
        await self._do(lambda changes: changes.clear())
        self._known = {}

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept, as of the last `tend`."""
        return self._known

    async def tend(self, now: float) -> None:
        """Remove what has expired, and look whether the file is still the one at its place."""
        for _ in range(TENDED):
            if await self._do(lambda changes: changes.expire(now)) < CHUNK:
                break
        self._known = await self._do(lambda changes: changes.counts())

    async def close(self) -> None:
        """Write what waits, and let go of the file."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, LOCK_SECONDS)
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._reader().execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._doubtful = self._doubtful or _is_broken(error)
            raise

    def _reader(self) -> sqlite3.Connection:
        """The connection for reading, to the file that is written to. Raises sqlite3.Error when there is none."""
        if self._reading is None or self._read != self._file:
            if self._reading is not None:
                self._reading.close()
                self._reading = None
            if self._file is None:
                raise sqlite3.OperationalError("the file of facts is not open")
            self._read = self._file
            self._reading = _connected(self.path, 0.0)
            self._reading.execute("PRAGMA query_only = true")
        return self._reading

    async def _do[T](self, change: Callable[[_Changes], T]) -> T:
        """Have something changed, and wait until it is committed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(change, done, loop))
        return await done

    def _run(self) -> None:
        ended = False
        while not ended:
            waiting = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < GROUP:
                    waiting.append(self._jobs.get_nowait())
            ended = None in waiting
            if jobs := [job for job in waiting if job is not None]:
                self._told(jobs, *self._committed(jobs))
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _committed(self, jobs: Sequence[_Job]) -> tuple[list[Any], Exception | None]:
        try:
            if self._writing is None or self._doubtful or not self._is_in_place():
                self._open()
            assert self._writing is not None  # noqa: S101 just opened
            with _transaction(self._writing):
                changes = _Changes(self._writing, self.limit)
                results = [job.change(changes) for job in jobs]
                changes.finish()
        except Exception as error:
            self._doubtful = self._doubtful or _is_broken(error)
            return [], error
        return results, None

    @staticmethod
    def _told(jobs: Sequence[_Job], results: Sequence[Any], error: Exception | None) -> None:
        def tell(jobs: Sequence[_Job]) -> None:
            for number, job in enumerate(jobs):
                if job.done.done():
                    continue
                if error is None:
                    job.done.set_result(results[number])
                else:
                    job.done.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who waited
            jobs[0].loop.call_soon_threadsafe(tell, jobs)

    def _is_in_place(self) -> bool:
        try:
            return self.path.stat().st_ino == self._file
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        writing, self._writing, self._file = self._writing, None, None
        if writing is not None:
            with contextlib.suppress(sqlite3.Error):
                writing.close()

    def _open(self) -> None:
        """Open the file for writing; one that is broken is set aside. Raises Unusable, OSError and sqlite3.Error."""
        had_one = self._file is not None
        self._let_go()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(self.path.parent):
            try:
                connection, is_new = self._checked(had_one)
            except sqlite3.DatabaseError as error:
                if not _is_broken(error):
                    raise
                self._set_aside()
                connection, is_new = self._checked(had_one)
                had_one = True
            if had_one and is_new:
                with _transaction(connection):
                    changes = _Changes(connection, self.limit)
                    changes.join(workspace.lost_everywhere(self._clock()), self._clock())
                    changes.finish()
            self._writing = connection
            self._file = self.path.stat().st_ino
            self._doubtful = False

    def _checked(self, is_ours: bool) -> tuple[sqlite3.Connection, bool]:
        """A connection to a file that is whole and of this schema, and whether it was made just now.

        A text is somebody's and no broken file, unless the file was `is_ours` before.
        """
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            start = file.read(4096)
            if start and not is_ours and not start.startswith(b"SQLite format 3\0") and b"\0" not in start:
                raise Unusable(f"{self.path} is a text, no file of facts: name another file")
            os.fchmod(file.fileno(), 0o600)
        connection = _connected(self.path, LOCK_SECONDS)
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _Broken(found)
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != APPLICATION:
                raise Unusable(f"{self.path} belongs to another program: name another file")
            if version > VERSION:
                raise Unusable(
                    f"{self.path} was written by a later version of cio-proxy (schema {version}, this one reads"
                    f" {VERSION}): use that version, or name another file"
                )
            if connection.execute("PRAGMA journal_mode = wal").fetchone() != ("wal",):
                raise Unusable(f"{self.path} lies where SQLite cannot share it: name a file on a local disk")
            connection.execute("PRAGMA synchronous = normal")
            if not tables:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection, not tables

    def _set_aside(self) -> None:
        aside = f"{self.path}.corrupt-{self._clock():.0f}"
        for part in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{part}", f"{aside}{part}")
        log.warning(
            "facts: %s is corrupt and was renamed %s; a new one is begun, what was known is lost", self.path, aside
        )


class _Broken(sqlite3.DatabaseError):
    """What the check of a file found."""


class _Changes:
    """The changes of one transaction."""

    def __init__(self, connection: sqlite3.Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._new: Counter[str] = Counter()
        self.now: float | None = None
        """The latest time at which something was taught."""

    def join(self, fact: Fact, now: float) -> None:
        """Join a fact into what is known."""
        key, value, ttl, _ = fact
        row, expiry = (*key.of, key.kind), now + ttl
        due = value.at if isinstance(value, Deadline) else None
        taught = NEVER_OUT if key.of == workspace.EVERY else now if ttl > FLEETING else FIRST_OUT + now
        kept = self._connection.execute(f"SELECT value, expiry, due FROM facts WHERE {AT}", row).fetchone()  # noqa: S608
        if kept is None:
            self._new[key.kind] += 1
        elif kept[1] > now and type(old := decode(kept[0])) is type(value):
            if isinstance(old, Deadline) and isinstance(value, Deadline):
                leased = kept[2] > old.at
                due = kept[2] if leased or old.at <= value.at else value.at
            value = old.join(value)  # type: ignore[arg-type]
            expiry = max(expiry, kept[1])
        self._connection.execute(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " value = excluded.value, expiry = excluded.expiry, taught = excluded.taught, due = excluded.due",
            (*row, encode(value), expiry, taught, due),
        )

    def mark(self, keys: Iterable[Key], now: float) -> None:
        """Say that somebody is about to teach these."""
        self._connection.executemany(
            "INSERT INTO facts VALUES (?, ?, ?, 1, ?, ?, NULL) ON CONFLICT DO UPDATE SET"
            " value = CASE WHEN expiry > ? THEN value + 1 ELSE 1 END, expiry = excluded.expiry",
            [(*key.of, MARK + key.kind, now + MARK_SECONDS, NEVER_OUT, now) for key in keys],
        )

    def settle(self, keys: Iterable[Key]) -> None:
        """Take back one mark of each."""
        for key in keys:
            row = (*key.of, MARK + key.kind)
            fewer = self._connection.execute(f"UPDATE facts SET value = value - 1 WHERE {AT} AND value > 1", row)  # noqa: S608
            if not fewer.rowcount:
                self._connection.execute(f"DELETE FROM facts WHERE {AT}", row)  # noqa: S608

    def reserve(self, row: Row, number: int, rate: Rate, now: float) -> Slots:
        """Take slots in a schedule; until when they are taken stands in place of a value."""
        kept = self._connection.execute(f"SELECT value FROM facts WHERE {AT}", row).fetchone()  # noqa: S608
        slots, until = rate.slots(None if kept is None else kept[0], number, now)
        self._connection.execute(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE SET"
            " value = excluded.value, expiry = excluded.expiry",
            (*row, until, until, NEVER_OUT),
        )
        return slots

    def lease(self, rows: Iterable[Row], before: float) -> list[tuple[Key, Deadline]]:
        """Take the deadlines among these that nobody else has taken."""
        found: list[tuple[Key, Deadline]] = []
        for row in rows:
            taken = self._connection.execute(
                f"UPDATE facts SET due = ? WHERE {AT} AND due <= ?",  # noqa: S608
                (before + LEASE_SECONDS, *row, before),
            )
            if taken.rowcount:
                (value,) = self._connection.execute(f"SELECT value FROM facts WHERE {AT}", row).fetchone()  # noqa: S608
                deadline = decode(value)
                if isinstance(deadline, Deadline):
                    found.append((Key(row[2], row[0], row[1]), deadline))
        return found

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget these facts and marks."""
        for row in rows:
            if self._connection.execute(f"DELETE FROM facts WHERE {AT}", row).rowcount:  # noqa: S608
                self._new[row[2]] -= 1

    def expire(self, now: float) -> int:
        """Forget some of what has expired; how much it was."""
        rows = self._connection.execute(
            "SELECT workspace, subject, kind FROM facts WHERE expiry <= ? LIMIT ?", (now, CHUNK)
        ).fetchall()
        self.drop(rows)
        return len(rows)

    def counts(self) -> dict[str, int]:
        """How many facts of each kind there were before this transaction."""
        return dict(self._connection.execute("SELECT kind, n FROM counts WHERE n > 0"))

    def clear(self) -> None:
        """Forget everything."""
        self._connection.execute("DELETE FROM facts")
        self._connection.execute("DELETE FROM counts")
        self._new.clear()

    def finish(self) -> None:
        """Keep the counts, and the limit."""
        self._count()
        if self.now is None:
            return
        (total,) = self._connection.execute("SELECT sum(n) FROM counts").fetchone()
        if total is not None and total > self._limit:
            self._evict(total - self._limit, self.now)
            self._count()

    def _count(self) -> None:
        self._connection.executemany(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(kind, new) for kind, new in self._new.items() if new and kind[0] != MARK],
        )
        self._new.clear()

    def _evict(self, excess: int, now: float) -> None:
        rows = self._connection.execute(
            "SELECT workspace, subject, kind, taught FROM facts WHERE taught < ? ORDER BY taught LIMIT ?",
            (NEVER_OUT, excess),
        ).fetchall()
        self.drop(row[:3] for row in rows)
        lasting = [row for row in rows if row[3] > FIRST_OUT / 2]
        if any(not row[1] for row in lasting):
            self.join(workspace.lost_everywhere(now), now)
        for name in {row[0] for row in lasting if row[1]}:
            self.join(workspace.lost(name, now), now)


@lru_cache
def _reading(subjects: int) -> str:
    """The statement that reads so many records."""
    places = ", ".join("?" * subjects)
    return (
        f"SELECT subject, kind, value, expiry FROM facts WHERE workspace = ? AND expiry > ? AND subject IN ({places})"  # noqa: S608
    )


def _connected(path: Path, seconds: float) -> sqlite3.Connection:
    place = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(place, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes, checks or sets aside a file of this folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_broken(error: Exception) -> bool:
    """Whether the file is no database, or no whole one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Broken) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
