"""Writes the generated parts of the README anew: the rule table and the terminal picture.

`--check` changes nothing and fails when the table is not up to date.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cio_proxy.explain import table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "terminal.svg"
TABLE = re.compile(r"(<!-- rules -->\n).*?(<!-- /rules -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The README with its rule table written from the rules."""
    return TABLE.sub(lambda match: f"{match[1]}\n{table()}\n{match[2]}", text)


def picture(terminal: str) -> str:
    """A terminal's text, with its colours, as an SVG that loads nothing."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(terminal), end="")
    svg = console.export_svg(title="make demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Write or check."""
    text = README.read_text()
    if "--check" in sys.argv:
        sys.exit(0 if renewed(text) == text else "README.md: the rule table is old; run `make readme`")
    README.write_text(renewed(text))
    if not sys.stdin.isatty() and (terminal := sys.stdin.read()):
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(picture(terminal))


if __name__ == "__main__":
    main()
