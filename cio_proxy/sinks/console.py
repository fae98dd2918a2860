"""The console: one readable block for each new kind of finding on a terminal, one plain line elsewhere."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from cio_proxy.model import End, Finding

if TYPE_CHECKING:
    from rich.console import Console as Terminal

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
EVERY_SECONDS = 10.0
KINDS = 5_000


class Console:
    """A sink on stderr. What repeats is only counted, and summed up every ten seconds."""

    def __init__(self, stream: TextIO | None = None, terminal: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._seen: set[str] = set()
        self._again: Counter[str] = Counter()
        self._summed = 0.0
        self._terminal: Terminal | None = None
        if terminal if terminal is not None else self._stream.isatty():
            from rich.console import Console as Terminal

            self._terminal = Terminal(file=self._stream, highlight=False, force_terminal=terminal)

    def found(self, finding: Finding) -> None:
        """Show a finding that is new, count one that is not."""
        if finding.fingerprint in self._seen or len(self._seen) >= KINDS:
            self._again[finding.rule] += 1
            if finding.time - self._summed >= EVERY_SECONDS:
                self._sum(finding.time)
            return
        self._seen.add(finding.fingerprint)
        if self._terminal is None:
            self._print(line(finding))
        else:
            self._terminal.print(block(finding))

    def ended(self, end: End) -> None:
        """Exchanges are not shown."""

    def close(self) -> None:
        """Say what was only counted."""
        self._sum(0.0)

    def _sum(self, time: float) -> None:
        self._summed = time
        if self._again:
            counts = ", ".join(f"{rule} ×{count}" for rule, count in sorted(self._again.items()))
            self._again.clear()
            self._print(f"cio-proxy: again: {counts}")

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):
            return


def line(finding: Finding) -> str:
    """One plain line."""
    where = f"{finding.method} {finding.endpoint} {finding.pointer}".rstrip()
    return (
        f"cio-proxy: {finding.severity} {finding.rule} ({finding.confidence}, {finding.action}): {finding.message}"
        f" at {where}. {finding.fix}"
    )


def block(finding: Finding) -> str:
    """A block of rich markup."""
    from rich.markup import escape

    colour = COLOURS[finding.severity]
    fix = (
        finding.fix
        if finding.corrected is None
        else f"{finding.fix} → {json.dumps(finding.corrected, ensure_ascii=False)}"
    )
    where = f"{finding.method} {finding.endpoint}  {finding.pointer}"
    rows = [
        f"[bold {colour}]●[/] [bold]{finding.rule}[/]  [{colour}]{finding.severity}[/] [dim]{finding.confidence},"
        f" {finding.action.replace('_', ' ')}[/]",
        f"  {escape(finding.message)}",
        f"  [dim]where[/]  {escape(where)}",
        f"  [dim]then[/]   {escape(finding.effect)}",
        f"  [dim]fix[/]    [green]{escape(fix)}[/]",
        f"  [dim]more[/]   [dim]cio-proxy explain {finding.rule}[/]",
        "",
    ]
    return "\n".join(rows)
