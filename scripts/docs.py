"""Writes the generated parts anew: README's rule table, the shipped configuration's rules, the dashboard, the picture.

`--check` changes nothing and fails when a text is not up to date.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

import dashboard
from cio_proxy import explain

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "terminal.svg"


def with_table(text: str) -> str:
    """The README with its rule table written from the rules."""
    between = re.compile(r"(<!-- rules -->\n).*?(<!-- /rules -->)", re.DOTALL)
    return between.sub(lambda match: f"{match[1]}\n{explain.table()}\n{match[2]}", text)


def with_rules(text: str) -> str:
    """The shipped configuration with its last section, the rules, written from the rules."""
    before, _, _ = text.partition("# rules:\n")
    return before + explain.options()


GENERATED: dict[Path, Callable[[str], str]] = {
    ROOT / "README.md": with_table,
    ROOT / "config" / "cio-proxy.yaml": with_rules,
    ROOT / "config" / "grafana" / "cio-proxy.json": lambda _: dashboard.text(),
}


def picture(terminal: str) -> str:
    """A terminal's text, with its colours, as an SVG that loads nothing."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(terminal), end="")
    svg = console.export_svg(title="make demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Write or check."""
    old = [file for file, renewed in GENERATED.items() if renewed(file.read_text()) != file.read_text()]
    if "--check" in sys.argv:
        names = ", ".join(str(file.relative_to(ROOT)) for file in old)
        sys.exit(f"{names}: not up to date; run `make docs`" if old else 0)
    for file in old:
        file.write_text(GENERATED[file](file.read_text()))
    if not sys.stdin.isatty() and (terminal := sys.stdin.read()):
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(picture(terminal))


if __name__ == "__main__":
    main()
