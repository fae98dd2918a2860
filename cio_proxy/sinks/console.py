"""Findings for people, on stderr: each new kind once, readable, then only how many more there were."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, TextIO

from cio_proxy.model import End, Finding, Taken
from cio_proxy.sinks.record import clean, compact, exemption, named
from cio_proxy.sinks.score import ACCEPTED
from cio_proxy.sinks.writer import Writer

SUMMARY_SECONDS: Final = 10.0
KINDS: Final = 1_000
"""How many kinds (a fingerprint, and what was done) are shown; what comes beyond is only counted."""
CLOSE_SECONDS: Final = 2.0


class Page(Protocol):
    """Where findings are shown."""

    def show(self, finding: Finding) -> None:
        """Show one finding."""

    def again(self, counts: str) -> None:
        """Show what happened again."""


class Console:
    """A sink for the operator's eyes. What is exempt or in the baseline is not shown.

    A thread of its own prints, so that a slow terminal or a full pipe does not hold up traffic;
    `dropped` is called with the number of findings that could not be shown.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._clock = clock
        self._dropped = dropped
        self._shown: set[tuple[str, Taken]] = set()
        self._again: Counter[tuple[str, Taken]] = Counter()
        self._summed_up = clock()
        self._page = page(sys.stderr if stream is None else stream)
        self._writer: Writer[Finding | str] = Writer(self._write, size=KINDS, name="console")

    def found(self, finding: Finding) -> None:
        """Show a finding of a new kind; count one of a kind that was shown."""
        if finding.action in ACCEPTED:
            return
        same = (finding.fingerprint, finding.action)
        if same in self._shown or len(self._shown) >= KINDS:
            self._again[finding.rule, finding.action] += 1
            self._sum_up()
            return
        self._shown.add(same)
        if not self._writer.put(finding):
            self._dropped(1)

    def ended(self, end: End) -> None:
        """An exchange without findings moves summaries on, too."""
        if self._again:
            self._sum_up()

    def close(self) -> None:
        """Show what waits, and the last counts."""
        last = [summary(self._again)] if self._again else []
        self._again.clear()
        undone = self._writer.close(last, seconds=CLOSE_SECONDS)
        if lost := sum(isinstance(item, Finding) for item in undone):
            self._dropped(lost)

    def _sum_up(self) -> None:
        now = self._clock()
        if now - self._summed_up >= SUMMARY_SECONDS and self._writer.put(summary(self._again)):
            self._again.clear()
            self._summed_up = now

    def _write(self, item: Finding | str) -> None:
        try:
            if isinstance(item, str):
                self._page.again(item)
            else:
                self._page.show(item)
        except Exception:  # the terminal is gone, and with it the place to say so
            if isinstance(item, Finding):
                self._dropped(1)


class Lines:
    """Prints a line for each finding, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, finding: Finding) -> None:
        """Print one finding on one line."""
        self._print(line(finding))

    def again(self, counts: str) -> None:
        """Print what happened again."""
        self._print(counts)

    def _print(self, text: str) -> None:
        self._stream.write(f"cio-proxy: {text}\n")
        self._stream.flush()


def page(stream: TextIO) -> Page:
    """Blocks for a terminal, lines for anything else. rich is imported for a terminal only."""
    if not stream.isatty():
        return Lines(stream)
    from cio_proxy.sinks.block import Terminal

    return Terminal(stream)


def line(finding: Finding) -> str:
    """A finding on one line: what, where, the fix, and how to exempt it."""
    taken = "" if finding.action == "logged" else f" {finding.action}"
    where = " ".join(filter(None, (finding.method, finding.endpoint, finding.pointer.rstrip(":"), named(finding))))
    instead = "" if finding.corrected is None else f" Instead: {compact(finding.corrected)}."
    said = f"{finding.message}. Fix: {finding.fix}{instead} Exempt: {exemption(finding)}"
    return clean(f"{finding.severity} {finding.rule}{taken} at {where}: {said}")


def summary(counts: Counter[tuple[str, Taken]]) -> str:
    """How often each rule fired again, the most frequent first, and what was done about it."""
    return "again: " + ", ".join(
        f"{count:,} {rule}" + ("" if taken == "logged" else f" {taken}")
        for (rule, taken), count in counts.most_common()
    )
