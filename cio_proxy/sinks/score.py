"""The score: 100, less a weight for each rule that fired (design §5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cio_proxy.model import Finding, Severity

WEIGHTS: Final[Mapping[str, int]] = {
    "hardcoded-credentials": 20,
    "track-before-identify": 15,
    "millisecond-timestamp": 5,
}
"""Where the pitfall document gives them."""
BY_SEVERITY: Final[Mapping[Severity, int]] = {"error": 10, "warning": 5, "info": 1}
WINDOW: Final = 24 * 3600.0
ACCEPTED: Final = frozenset({"exempt", "baselined"})
"""What the operator has taken note of does not count."""


class Score:
    """What the last 24 hours of exchange time cost, once a rule."""

    def __init__(self) -> None:
        self._now = 0.0
        self._fired: dict[str, tuple[float, int]] = {}

    def passed(self, time: float) -> None:
        """Exchange time has come this far."""
        self._now = max(self._now, time)

    def found(self, finding: Finding) -> None:
        """Note a finding, unless it is exempt or baselined."""
        if finding.action in ACCEPTED:
            return
        self.passed(finding.time)
        weight = WEIGHTS.get(finding.rule) or BY_SEVERITY[finding.severity]
        last = self._fired.get(finding.rule, (finding.time, 0))[0]
        self._fired[finding.rule] = (max(last, finding.time), weight)

    def value(self) -> int:
        """From 100, nothing fired, to 0."""
        cost = sum(weight for last, weight in self._fired.copy().values() if self._now - last <= WINDOW)
        return max(0, 100 - cost)
