"""Findings for people, on a real terminal and on a pipe."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from cio_proxy.model import End, Exchange, Finding
from cio_proxy.sinks.console import KINDS, Console

FINDING = Finding(
    rule="millisecond-timestamp",
    severity="error",
    confidence="certain",
    pointer="/created_at",
    message="1792000000000 is a time in milliseconds where seconds are documented",
    effect="Customer.io stores it as a date in the year 58756.",
    fix="Send whole Unix seconds.",
    corrected=1792000000,
    action="would_block",
    method="PUT",
    endpoint="/api/v1/customers/{identifier}",
    client="customerio-node",
    fingerprint="a",
)
END = End(
    exchange=Exchange(id="e", at=0.0, method="PUT", target=b"/", host="h", headers=(), body=b""),
    api="track_v1",
    ending="forwarded",
)
BLOCK = """\
▌ error  millisecond-timestamp  ·  would be blocked
▌ 1792000000000 is a time in milliseconds where seconds are documented
▌
▌ where    PUT /api/v1/customers/{identifier}  /created_at  from customerio-node
▌ effect   Customer.io stores it as a date in the year 58756.
▌ fix      Send whole Unix seconds.
▌ instead  1792000000
▌ more     cio-proxy explain millisecond-timestamp
exempt: - {rule: "millisecond-timestamp", endpoint: "/api/v1/customers/{identifier}", \
pointer: "/created_at", reason: "..."}
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


type Shown = Callable[..., str]
END_OF_TEXT = "\x03"


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """Show findings on a pseudo-terminal of 90 columns, and give what it received."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()

    def show(*findings: Finding) -> str:
        with os.fdopen(slave, "w", encoding="utf-8") as stream:
            console = Console(stream)
            for finding in findings:
                console.found(finding)
            console.close()
            stream.write(END_OF_TEXT)
            stream.flush()
            received = b""
            while not received.endswith(END_OF_TEXT.encode()):  # a terminal hands on what it gets bit by bit
                received += os.read(master, 1 << 16)
        return received.decode().removesuffix(END_OF_TEXT).replace("\r\n", "\n")

    yield show
    os.close(master)


def bare(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_a_block_with_all_a_reader_needs(on_terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "90")
    assert bare(on_terminal(FINDING)) == BLOCK


def test_colours_follow_the_severity(on_terminal: Shown) -> None:
    assert "\x1b[31m▌" in on_terminal(FINDING)


def test_no_color_leaves_no_colour(on_terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = on_terminal(FINDING)
    assert "\x1b[31m" not in shown
    assert "millisecond-timestamp" in shown


def test_a_terminal_sees_no_command_that_a_client_sent(on_terminal: Shown) -> None:
    hostile = replace(FINDING, message="an \x1b]0;owned\x07 \x9b1m [red]event[/red] :smile:\nerror  forged")
    shown = on_terminal(hostile)
    assert "\x1b]0;" not in shown
    assert "\x9b" not in shown
    assert "[red]event[/red] :smile:\\nerror  forged" in shown


def shown_in_lines(*findings: Finding) -> list[str]:
    stream = StringIO()
    console = Console(stream)
    for finding in findings:
        console.found(finding)
    console.close()
    return stream.getvalue().splitlines()


def test_what_is_refused_from_now_on_is_shown_anew() -> None:
    first, refused, again = shown_in_lines(FINDING, replace(FINDING, action="blocked"), FINDING)
    assert "millisecond-timestamp would_block at" in first
    assert "millisecond-timestamp blocked at" in refused
    assert again == "cio-proxy: again: 1 millisecond-timestamp would_block"


def test_a_pipe_gets_one_line_for_a_new_kind_and_counts_for_the_rest() -> None:
    where, message = "PUT /api/v1/customers/{identifier}", f"{FINDING.message}. Fix: {FINDING.fix} Instead: 1792000000."
    other = replace(FINDING, fingerprint="b", action="logged", pointer="")
    exempt = 'Exempt: - {rule: "millisecond-timestamp", endpoint: "/api/v1/customers/{identifier}"'
    pointed = ', pointer: "/created_at", reason: "..."}'
    assert shown_in_lines(FINDING, FINDING, other, FINDING) == [
        f"cio-proxy: error millisecond-timestamp would_block at {where} /created_at: {message} {exempt}{pointed}",
        f'cio-proxy: error millisecond-timestamp at {where}: {message} {exempt}, reason: "..."}}',
        "cio-proxy: again: 2 millisecond-timestamp would_block",
    ]


@pytest.mark.parametrize(
    ("name", "glob"),
    [
        ("viewed_123e4567-e89b-12d3-a456-426614174000", "viewed_*"),
        ("order_8412377_viewed", "order_*_viewed"),
        ("mail to <email> sent", "mail to * sent"),
        ("ada@example.com", "*"),
        ("order_placed", "order_placed"),
    ],
)
def test_the_line_that_exempts_fits_a_name_whatever_its_variable_part_is(name: str, glob: str) -> None:
    (line,) = shown_in_lines(replace(FINDING, name=name))
    assert f'name: "{glob}", reason' in line


def test_what_the_operator_accepted_is_not_shown() -> None:
    assert shown_in_lines(replace(FINDING, action="exempt"), replace(FINDING, action="baselined")) == []


def test_counts_come_at_most_every_ten_seconds_also_when_only_clean_traffic_passes() -> None:
    stream, clock = StringIO(), Clock()
    console = Console(stream, clock=clock)
    for _ in range(1001):
        console.found(FINDING)
    clock.now = 9.9
    console.ended(END)
    clock.now = 10.0
    console.ended(END)
    clock.now = 15.0
    console.found(replace(FINDING, rule="missing-email"))
    console.ended(END)
    console.close()
    assert stream.getvalue().splitlines()[1:] == [
        "cio-proxy: again: 1,000 millisecond-timestamp would_block",
        "cio-proxy: again: 1 missing-email would_block",
    ]


def test_kinds_without_end_are_counted_beyond_a_limit() -> None:
    stream, deadline = StringIO(), time.monotonic() + 30
    console = Console(stream)
    for number in range(KINDS + 50):
        console.found(replace(FINDING, fingerprint=str(number)))
        while number < KINDS and len(stream.getvalue().splitlines()) < number - 100:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    console.close()
    assert stream.getvalue().splitlines()[-1] == "cio-proxy: again: 50 millisecond-timestamp would_block"


class Broken(StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_terminal_that_is_gone_is_counted_and_stops_nothing() -> None:
    dropped: list[int] = []
    console = Console(Broken(), dropped=dropped.append)
    console.found(FINDING)
    console.close()
    assert dropped == [1]


def test_rich_is_imported_for_a_terminal_only() -> None:
    code = "import sys; from cio_proxy.sinks.console import Console; Console().close(); sys.exit('rich' in sys.modules)"
    result: Any = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert result.returncode == 0, result.stderr
