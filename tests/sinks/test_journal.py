"""The journal on real files: nothing is lost unsaid, nothing stops traffic, memory is bounded."""

import json
import logging
import os
import resource
import stat
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cio_proxy.model import End, Exchange, Finding, JournalSettings
from cio_proxy.sinks.journal import IN_FULL, Journal


def finding(fingerprint: str = "a", time: float = 0.0, id: str = "", **fields: Any) -> Finding:
    words: dict[str, Any] = {"rule": "millisecond-timestamp", "severity": "error", "confidence": "certain"}
    words |= {"pointer": "", "message": "m", "effect": "e", "fix": "f"}
    return Finding(**{**words, **fields}, fingerprint=fingerprint, time=time, id=id)


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a journal, the rotated files first."""
    rotated = sorted(path.parent.glob(path.name + ".*"), key=lambda p: -int(p.suffix[1:]))
    return [json.loads(line) for file in (*rotated, path) if file.exists() for line in file.read_bytes().splitlines()]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread to have done its work."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 10 s"
        time.sleep(0.005)


def test_the_first_findings_of_a_kind_are_written_in_full_then_summarised_each_minute(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(path=str(tmp_path / "j")))
    for second in range(150):
        journal.found(finding(time=1000.0 + second, id=f"f{second}"))
    journal.close()
    written = [(line["id"], line["count"]) for line in lines(tmp_path / "j")]
    assert written == [("f0", 1), ("f1", 1), ("f2", 1), ("f63", 61), ("f124", 61), ("f149", 25)]


def test_a_kind_that_went_quiet_is_summarised_by_the_findings_of_others() -> None:
    journal = Journal(JournalSettings())
    for _ in range(5):
        journal.found(finding("quiet"))
    journal.found(finding("other", time=60.0))
    assert [line["count"] for line in journal.read(filters={"fingerprint": "quiet"})[0]] == [1, 1, 1, 2]


def test_a_kind_that_went_quiet_is_summarised_by_clean_traffic_too() -> None:
    journal = Journal(JournalSettings())
    for _ in range(5):
        journal.found(finding("quiet", time=1000.0))
    exchange = Exchange(id="e", at=1061.0, method="GET", target=b"/", host="h", headers=(), body=b"")
    journal.ended(End(exchange=exchange, api="track_v1", ending="forwarded"))
    assert [line["count"] for line in journal.read()[0]] == [1, 1, 1, 2]


def test_what_is_refused_from_now_on_has_lines_of_its_own() -> None:
    journal = Journal(JournalSettings())
    for action in ("would_block",) * 5 + ("blocked",) * 5:
        journal.found(finding(action=action))
    journal.close()
    counted: Counter[str] = Counter()
    for line in journal.read()[0]:
        counted[line["action"]] += line["count"]
    assert counted == {"would_block": 5, "blocked": 5}


def test_a_clock_that_was_set_back_does_not_silence_summaries() -> None:
    journal = Journal(JournalSettings())
    for _ in range(5):
        journal.found(finding(time=1e9))
    journal.found(finding(time=1e9 - 3600))
    assert sum(line["count"] for line in journal.read()[0]) == 6


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([-90.0, 0.0, 0.5, 20.0, 61.0])), max_size=80),
    queue=st.sampled_from([1, 1000]),
    max_bytes=st.sampled_from([700, 1 << 20]),
)
def test_counts_sum_to_the_occurrences_less_what_was_dropped(
    steps: list[tuple[str, float]], queue: int, max_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        dropped: list[int] = []
        shape = JournalSettings(path=str(path), queue=queue, max_bytes=max_bytes, keep=1000)
        journal = Journal(shape, dropped=dropped.append, fingerprints=3)
        now = 1000.0
        for fingerprint, seconds in steps:
            now += seconds
            journal.found(finding(fingerprint, now))
        journal.close()
        occurrences = Counter(fingerprint for fingerprint, _ in steps)
        kept, written = Counter[str](), Counter[str]()
        for line in journal.read(limit=1000)[0]:
            kept[line["fingerprint"]] += line["count"]
        for line in lines(path):
            written[line["fingerprint"]] += line["count"]
        assert kept == occurrences
        assert written <= occurrences
        assert written.total() + journal.dropped == occurrences.total()
        assert journal.dropped == sum(dropped)
        if queue == 1000:
            assert journal.dropped == 0


def test_files_rotate_by_size_keep_whole_lines_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(JournalSettings(path=str(path), max_bytes=2000, keep=2))
    for number in range(40):
        journal.found(finding(str(number), id=str(number)))
    journal.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["j", "j.1", "j.2"]
    assert all(p.stat().st_size <= 2000 and stat.S_IMODE(p.stat().st_mode) == 0o600 for p in tmp_path.iterdir())
    ids = [int(line["id"]) for line in lines(path)]
    assert ids == list(range(40 - len(ids), 40))


def test_without_old_files_to_keep_the_journal_starts_over(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(path=str(tmp_path / "j"), max_bytes=1000, keep=0))
    for number in range(10):
        journal.found(finding(str(number)))
    journal.close()
    assert [p.name for p in tmp_path.iterdir()] == ["j"]


def test_a_second_run_appends_makes_the_file_private_and_closes_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"cut off by a crash')
    path.chmod(0o644)
    journal = Journal(JournalSettings(path=str(path)))
    journal.found(finding(id="next"))
    journal.close()
    first, second = path.read_bytes().splitlines()
    assert first == b'{"cut off by a crash'
    assert json.loads(second)["id"] == "next"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_queue_drops_counts_and_never_waits(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)  # nobody reads it yet: the writer stalls once the pipe is full
    told: list[int] = []
    journal = Journal(JournalSettings(path=str(path), queue=10), dropped=told.append)
    for number in range(1000):
        journal.found(finding(str(number)))
    assert journal.dropped == sum(told) > 0
    reader, received, done = os.open(path, os.O_RDONLY | os.O_NONBLOCK), bytearray(), threading.Event()
    thread = threading.Thread(target=drain, args=(reader, received, done))
    thread.start()
    journal.close()
    done.set()
    thread.join()
    os.close(reader)
    assert len(received.splitlines()) + journal.dropped == 1000


def test_closing_a_stalled_journal_ends_and_counts_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    journal = Journal(JournalSettings(path=str(path), queue=500))
    for number in range(500):
        journal.found(finding(str(number)))
    journal.close(seconds=0.05)
    assert 0 < journal.dropped < 500


def drain(reader: int, into: bytearray, done: threading.Event) -> None:
    """Read a pipe until its writer has finished and it is empty."""
    while True:
        finished = done.is_set()
        try:
            into += os.read(reader, 1 << 16)
        except BlockingIOError:
            if finished:
                return
            time.sleep(0.001)
        else:
            if finished:
                return


class Disk(NamedTuple):
    """A place with room for a few lines, and how to make room."""

    folder: Path
    free: Callable[[], None]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Disk]:
    """A tmpfs that is full but for a page; where that cannot be mounted, a limit on the size of files."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(28 * 1024))
        try:
            yield Disk(tmp_path, ballast.unlink)
        finally:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            yield Disk(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_counted_logged_once_leaves_no_torn_line_and_heals(
    full_disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    degraded: list[bool] = []
    path = full_disk.folder / "j"
    journal = Journal(JournalSettings(path=str(path)), degraded=degraded.append)
    for number in range(30):
        journal.found(finding(str(number)))
    until(lambda: path.exists() and path.read_bytes().count(b"\n") + journal.dropped == 30)
    assert journal.dropped > 0
    assert degraded == [True]
    full_disk.free()
    for number in range(30, 40):
        journal.found(finding(str(number)))
    journal.close()
    written = [line["fingerprint"] for line in lines(path)]
    assert written[-10:] == [str(number) for number in range(30, 40)]
    assert len(written) + journal.dropped == 40
    assert degraded == [True, False]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert len(journal.read()[0]) == 40


def test_a_device_that_is_always_full_is_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(JournalSettings(path="/dev/full"))
    for _ in range(100):
        journal.found(finding())
    journal.close()
    assert journal.dropped == 100
    assert caplog.messages == ["journal /dev/full: No space left on device; traffic goes on, missing lines are counted"]


def test_a_folder_that_is_not_there_is_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, degraded = tmp_path / "later" / "j", list[bool]()
    journal = Journal(JournalSettings(path=str(path)), degraded=degraded.append)
    assert caplog.messages == [f"journal {path}: its folder is not there; traffic goes on, missing lines are counted"]
    path.parent.mkdir()
    journal.found(finding())
    journal.close()
    assert degraded == [True, False]
    assert len(lines(path)) == 1


def test_a_folder_that_comes_later_heals_and_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "later" / "j"
    journal = Journal(JournalSettings(path=str(path)))
    journal.found(finding("early"))
    until(lambda: journal.dropped == 1)
    path.parent.mkdir()
    journal.found(finding("first"))
    until(lambda: path.exists() and len(lines(path)) == 1)
    path.rename(tmp_path / "moved")
    journal.found(finding("second"))
    journal.close()
    assert [line["fingerprint"] for line in lines(path)] == ["second"]
    assert [line["fingerprint"] for line in lines(tmp_path / "moved")] == ["first"]


def test_memory_is_bounded_in_kinds_and_lines() -> None:
    journal = Journal(JournalSettings(), fingerprints=50, ring=100)
    for number in range(1000):
        journal.found(finding(str(number)))
    page, following = journal.read(limit=1000)
    assert following is None
    assert [line["fingerprint"] for line in page] == [str(number) for number in range(900, 1000)]
    assert len(journal._kinds) == 50


def test_pages_follow_their_cursor_and_filters_choose() -> None:
    journal = Journal(JournalSettings())
    for number in range(10):
        journal.found(finding(str(number), severity="error" if number % 2 else "warning"))
    seen, after = [], 0
    pages = 0
    while True:
        page, following = journal.read(after=after, limit=2, filters={"severity": "error"})
        seen += [line["fingerprint"] for line in page]
        pages += 1
        if following is None:
            break
        after = following
    assert seen == ["1", "3", "5", "7", "9"]
    assert pages == 3
    assert journal.read(filters={"severity": "error", "fingerprint": "2"}) == ([], None)


def test_a_finding_after_the_close_is_kept_in_memory_and_counted_as_dropped(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(path=str(tmp_path / "j")))
    journal.close()
    journal.close()
    for _ in range(IN_FULL + 2):
        journal.found(finding())
    assert journal.dropped == IN_FULL + 2
    assert sum(line["count"] for line in journal.read()[0]) == IN_FULL + 2
