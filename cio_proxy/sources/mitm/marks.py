"""A sink that shows findings on mitmproxy's own flows: a mark by the worst severity, and a comment."""

from __future__ import annotations

from typing import Final
from weakref import WeakValueDictionary

from mitmproxy import ctx, http
from mitmproxy.hooks import UpdateHook

from cio_proxy.model import SEVERITIES, End, Finding, Severity

SYMBOLS: Final[dict[Severity, str]] = {
    "error": ":red_circle:",
    "warning": ":yellow_circle:",
    "info": ":large_blue_circle:",
}
LINES: Final = 20
"""How much of a flow's comment is ours at most."""


class Marks:
    """Knows flows by their exchange as long as mitmproxy keeps them. A user's own mark or comment stays."""

    def __init__(self) -> None:
        self._flows: WeakValueDictionary[str, http.HTTPFlow] = WeakValueDictionary()

    def note(self, flow: http.HTTPFlow, exchange: str) -> None:
        """Remember which flow an exchange is."""
        self._flows[exchange] = flow

    def found(self, finding: Finding) -> None:
        """Mark the flow of a finding, also long after its answer."""
        flow = self._flows.get(finding.exchange)
        if flow is None:
            return
        worst = [
            severity for severity in SEVERITIES if SYMBOLS[severity] == flow.marked or severity == finding.severity
        ]
        if not flow.marked or flow.marked in SYMBOLS.values():
            flow.marked = SYMBOLS[worst[0]]
        line, lines = f"{finding.rule}: {finding.message}", flow.comment.splitlines()
        if line not in lines and len(lines) < LINES:
            flow.comment = "\n".join([*lines, line])
        if not flow.live:  # a live one is shown anew after each of its hooks
            ctx.master.addons.trigger(UpdateHook([flow]))

    def ended(self, end: End) -> None:
        """An exchange without findings leaves its flow as it is."""
