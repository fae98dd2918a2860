"""The report of a run for people: each kind of finding once, the worst first, and how often it was met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from cio_proxy.model import SEVERITIES
from cio_proxy.sinks.console import page, summary
from cio_proxy.sinks.kinds import Kind


def report(kinds: Sequence[Kind], stream: TextIO) -> None:
    """Write the findings of a run."""
    shown = page(stream)
    for kind in sorted(kinds, key=_worst_first):
        shown.show(kind.first)
        if kind.count > 1:
            shown.again(summary(Counter({(kind.first.rule, kind.first.action): kind.count - 1})))


def _worst_first(kind: Kind) -> tuple[int, str, int]:
    return SEVERITIES.index(kind.first.severity), kind.first.rule, -kind.count
