"""A finding as a block for the terminal. The only module of the sinks that needs rich."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cio_proxy.model import Finding, Severity, Taken
from cio_proxy.sinks.record import clean, compact, exemption, named

WIDTH: Final = 100
"""Lines longer than this are hard to read, however wide the terminal is."""
COLOURS: Final[Mapping[Severity, str]] = {"error": "red", "warning": "yellow", "info": "blue"}
TAKEN: Final[Mapping[Taken, tuple[str, str]]] = {
    "logged": ("logged", "dim"),
    "would_block": ("would be blocked", "yellow"),
    "blocked": ("blocked", "bold red"),
    "exempt": ("exempt", "dim"),
    "baselined": ("in the baseline", "dim"),
}


class Terminal:
    """Prints blocks and counts on a terminal, in colour unless `NO_COLOR` is set."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)

    def show(self, finding: Finding) -> None:
        """Print the block of one finding."""
        self._print(block(finding))
        # On a line of its own, however long it is: it is to be copied.
        self._console.print(Text(clean(f"exempt: {exemption(finding)}"), style="dim"), soft_wrap=True)
        self._console.print()

    def again(self, counts: str) -> None:
        """Print what happened again."""
        self._print(Text(counts, style="dim"))
        self._console.print()

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, width=min(self._console.width, WIDTH))


def block(finding: Finding) -> RenderableType:
    """Everything a reader needs to repair the fault, beside a bar in the colour of its severity."""
    colour = COLOURS[finding.severity]
    head = Text.assemble((finding.severity, f"bold {colour}"), "  ", (clean(finding.rule), "bold"))
    head.append("  ·  ", style="dim").append(*TAKEN[finding.action])
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", width=7)
    rows.add_column(overflow="fold")
    rows.add_row("where", where(finding))
    rows.add_row("effect", Text(clean(finding.effect)))
    rows.add_row("fix", Text(clean(finding.fix)))
    if finding.corrected is not None:
        rows.add_row("instead", Text(clean(compact(finding.corrected)), style="green"))
    rows.add_row("more", Text(f"cio-proxy explain {clean(finding.rule)}", style="dim"))
    message = Text(clean(finding.message), overflow="fold")
    return Barred(Group(head, message, Padding(rows, (1, 0, 0, 0), expand=False)), Style.parse(colour))


def where(finding: Finding) -> Text:
    """The request line as a template, the pointer, and who sent it."""
    pointed = " ".join(filter(None, (finding.pointer.rstrip(":"), named(finding))))
    text = Text.assemble(clean(f"{finding.method} {finding.endpoint}"), "  ", (clean(pointed), "cyan"))
    if finding.client != "other":
        text.append(f"  from {clean(finding.client)}", style="dim")
    return text


class Barred:
    """Anything, with a bar down its left side."""

    def __init__(self, inner: RenderableType, style: Style) -> None:
        self._inner = inner
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Segment("| " if options.ascii_only else "▌ ", self._style)
        for line in console.render_lines(self._inner, options.update(width=options.max_width - 2), pad=False):
            yield bar
            yield from line
            yield Segment.line()
