"""Facts in a file outlive the process, are shared between processes, and a file that cannot be used stops nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cio_proxy.audit import Sealer, sealed_with
from cio_proxy.facts import Unusable
from cio_proxy.facts.sqlite import SqliteStore
from cio_proxy.facts.workspace import EVERY, LOST, seen, subject, watch
from cio_proxy.model import Deadline, Fact, Finding, Key, Sample, Span, Value

SEALER = Sealer(sealed_with(b"k" * 32))
SEED = Finding(rule="r", severity="error", confidence="likely", pointer="", message="", effect="", fix="")


def key(subject: str, kind: str = "identified") -> Key:
    return SEALER.key(Key(kind, "ws", subject))


async def read(store: SqliteStore, asked: Key, now: float = 10) -> Value | None:
    kept = (await store.get_many([asked.of], (), now)).records.get(asked.of, {}).get(asked.kind)
    return None if kept is None else kept.value


@asynccontextmanager
async def opened(path: Path, limit: int = 1_000) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, limit, lambda: 5.0)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "facts.sqlite"


def teacher(path: Path, code: str) -> subprocess.Popen[str]:
    """A process that has a store and runs a coroutine with it."""
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom cio_proxy.facts.sqlite import SqliteStore\n"
        "from cio_proxy.model import Fact, Key, Sample, Span\n"
        f"async def main():\n    store = SqliteStore(Path({str(path)!r}))\n{code}\n    await store.close()\n"
        "asyncio.run(main())\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_what_was_taught_is_known_after_a_restart_and_nobody_else_may_read_it(path: Path) -> None:
    async with opened(path) as store:
        await store.join_many([Fact(key("a"), Span(1, 1), 60)], (), now=1)
        assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}
    async with opened(path) as store:
        assert await read(store, key("a")) == Span(1, 1)
        await store.tend(2)
        assert store.known() == {"identified": 1}
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_two_processes_that_teach_the_same_at_once_lose_nothing(path: Path) -> None:
    teaching = """
    for number in range(150):
        await store.join_many([
            Fact(Key("who", "ws", "all"), Sample(1000, (int(sys.argv[1]) + number,)), 60),
            Fact(Key("when", "ws", "all"), Span(1000 - number, number), 60),
        ], (), now=1)"""
    programs = [teacher(path, teaching.replace("sys.argv[1]", str(1000 * each))) for each in range(2)]
    for program in programs:
        _, err = program.communicate(timeout=60)
        assert program.returncode == 0, err
    async with opened(path) as store:
        await store.tend(2)
        assert store.known() == {"who": 1, "when": 1}
        hashes = await read(store, Key("who", "ws", "all"))
        assert hashes == Sample(1000, (*range(150), *range(1000, 1150)))
        assert await read(store, Key("when", "ws", "all")) == Span(851, 149)


async def test_after_kill_9_all_is_known_that_was_said_to_be(path: Path) -> None:
    program = teacher(
        path,
        """
    for number in range(100_000):
        await store.join_many([Fact(Key("x", "ws", str(number)), Span(1, 1), 60)], (), now=1)
        print(number, flush=True)""",
    )
    assert program.stdout is not None
    for line in program.stdout:
        if line == "300\n":
            program.send_signal(signal.SIGKILL)
    program.communicate(timeout=30)
    async with opened(path) as store:
        for number in range(301):
            assert await read(store, Key("x", "ws", str(number))) == Span(1, 1)
    assert not list(path.parent.glob("*corrupt*"))


async def test_marks_and_leases_are_shared_between_processes(path: Path) -> None:
    async with opened(path) as mine, opened(path) as theirs:
        await mine.get_many([key("a").of], [key("a")], now=0)
        assert (await theirs.get_many([key("a").of], (), now=1)).in_flight == {key("a")}
        await mine.join_many([Fact(key("d"), Deadline(3, "r", (), SEED), 60)], [key("a")], now=2)
        assert not (await theirs.get_many([key("a").of], (), now=3)).in_flight
        assert len([*await mine.due(4), *await theirs.due(4)]) == 1
        await theirs.acknowledge([key("d")])
        assert await read(mine, key("d")) is None


async def test_an_earlier_deadline_does_not_break_the_lease_of_the_one_in_hand(path: Path) -> None:
    async with opened(path) as store:
        await store.join_many([Fact(key("d"), Deadline(3, "r", (), SEED), 600)], (), now=2)
        assert len(await store.due(4)) == 1
        await store.join_many([Fact(key("d"), Deadline(2, "r", (), SEED), 600)], (), now=4)
        assert not await store.due(5)


async def test_who_was_taught_longest_ago_is_evicted_and_told_of_but_fleeting_facts_go_first(path: Path) -> None:
    async with opened(path, limit=6) as store:
        await store.join_many([seen("ws", 0.0), Fact(key("a"), Span(1, 1), 600)], (), now=1)
        await store.join_many([Fact(key("b"), Span(2, 2), 600)], (), now=2)
        await store.join_many([Fact(key(f"f{each}", "event-sent"), Span(3, 3), 5) for each in range(3)], (), now=3)
        await store.join_many([Fact(key("c"), Span(4, 4), 600)], (), now=4)
        await store.tend(4)
        assert store.known() == {"observed": 1, "identified": 3, "event-sent": 2}
        assert not (await store.get_many([subject("ws")], (), 4)).records[subject("ws")].get(LOST)
        await store.join_many([seen("ws", 5.0), Fact(key("a"), Span(5, 5), 600)], (), now=5)
        for number in range(3):
            await store.join_many([Fact(key(f"d{number}"), Span(6, 6), 600)], (), now=6)
        assert [await read(store, key(name)) is not None for name in "abc"] == [True, False, True]
        record = (await store.get_many([subject("ws")], (), 7)).records[subject("ws")]
        assert watch(record, 7, None)._replace(until=0) == (6, 0, True, False, 6)


async def test_that_a_whole_workspace_was_evicted_is_known_of_all(path: Path) -> None:
    async with opened(path, limit=2) as store:
        for number in range(4):
            await store.join_many([seen(f"ws{number}", number)], (), now=number)
        assert (await store.get_many([EVERY], (), 9)).records[EVERY][LOST].value == Span(2, 3)


async def test_what_has_expired_is_removed(path: Path) -> None:
    async with opened(path) as store:
        await store.join_many([Fact(key(str(each)), Span(1, 1), each) for each in range(1, 11)], (), now=0)
        await store.get_many([key("x").of], [key("x")], now=0)
        await store.tend(5)
        assert store.known() == {"identified": 5}
        await store.tend(99)
        assert store.known() == {}
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM facts").fetchone() == (0,)
    file.close()


def damaged(path: Path) -> bytes:
    """A file of facts that is whole at the beginning and broken further on."""
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("how", ["garbage", "torn", "damaged"])
async def test_a_file_that_is_corrupt_at_the_start_is_set_aside_and_the_loss_is_known(
    path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await store.join_many([Fact(key(str(each)), Span(1, 1), 60) for each in range(200)], (), now=1)
    if how == "garbage":
        path.write_bytes(b"not a database at all\0" * 100)
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:6000])
    else:
        damaged(path)
    broken = path.read_bytes()
    async with opened(path) as store:
        assert (await store.get_many([EVERY], (), 9)).records[EVERY][LOST].value == Span(5, 5)
        await store.join_many([Fact(key("a"), Span(1, 1), 60)], (), now=1)
        assert await read(store, key("a")) == Span(1, 1)
    assert path.with_name("facts.sqlite.corrupt-5").read_bytes() == broken
    assert [record.getMessage() for record in caplog.records] == [
        f"facts: {path} is corrupt and was renamed {path}.corrupt-5; a new one is begun, what was known is lost"
    ]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if await holds():
                    return
            except sqlite3.Error:
                pass
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["removed", "overwritten"])
async def test_a_file_that_is_lost_in_use_is_begun_anew(path: Path, how: str) -> None:
    async with opened(path) as store, opened(path) as other:
        await store.join_many([Fact(key(str(each)), Span(1, 1), 60) for each in range(500)], (), now=1)
        if how == "removed":
            path.unlink()
        else:
            with sqlite3.connect(path) as file:
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            file.close()
            path.write_bytes(b"x" * 8192)

        with pytest.raises(sqlite3.Error):
            await read(store, key("b"))

        async def teaches() -> bool:
            await store.join_many([Fact(key("b"), Span(2, 2), 60)], (), now=2)
            await other.join_many([Fact(key("c"), Span(3, 3), 60)], (), now=2)
            return all([await read(each, key(name)) for each in (store, other) for name in "bc"])

        await eventually(teaches)
        assert (await other.get_many([EVERY], (), 9)).records[EVERY][LOST].value == Span(5, 5)


async def test_a_text_of_somebody_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("id,email\n42,ada@example.com\n")
    path.chmod(0o640)
    with pytest.raises(Unusable, match="is a text, no file of facts: name another file"):
        SqliteStore(path)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("id,email\n42,ada@example.com\n", 0o640)


async def test_a_file_of_a_later_version_or_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(Unusable, match="was written by a later version of cio-proxy"):
        SqliteStore(path)
    with sqlite3.connect(path.with_name("other")) as file:
        file.execute("CREATE TABLE theirs (x)")
    file.close()
    with pytest.raises(Unusable, match="belongs to another program"):
        SqliteStore(path.with_name("other"))
    assert not list(path.parent.glob("*corrupt*"))


async def test_a_file_that_cannot_be_made_stops_nothing_and_is_made_once_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("in the way")
    async with opened(tmp_path / "state" / "facts.sqlite") as store:
        with pytest.raises(sqlite3.Error):
            await read(store, key("a"))
        with pytest.raises(OSError, match="exists"):
            await store.join_many([Fact(key("a"), Span(1, 1), 60)], (), now=1)
        (tmp_path / "state").unlink()
        await store.join_many([Fact(key("a"), Span(1, 1), 60)], (), now=1)
        assert await read(store, key("a")) == Span(1, 1)
    assert len(caplog.records) == 1


async def test_a_full_disk_loses_nothing_that_was_known_and_heals(path: Path) -> None:
    full = teacher(
        path,
        """
    import os, resource, sqlite3
    async def known():
        subject = Key("x", "ws", "before").of
        return bool((await store.get_many([subject], (), 2)).records)
    await store.join_many([Fact(Key("x", "ws", "before"), Span(1, 1), 60)], (), now=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    written, failed = 0, 0
    for number in range(100):
        facts = [Fact(Key("x", "ws", f"{number}-{each}-" + "x" * 50), Span(1, 1), 60) for each in range(20)]
        try:
            await store.join_many(facts, (), now=1)
            written += 1
        except sqlite3.Error:
            failed += 1
    assert written and failed and await known(), (written, failed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.join_many([Fact(Key("x", "ws", "after"), Span(1, 1), 60)], (), now=1)
    assert await known()
    await store.tend(2)
    assert store.known() == {"x": 20 * written + 2}""",
    )
    _, err = full.communicate(timeout=60)
    assert full.returncode == 0, err


async def test_a_file_that_cannot_be_opened_is_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        async with opened(path):
            pass
    assert str(path) in caplog.text
    assert os.listdir(path) == []
