"""How far the audit reached: what each rule could judge, what it did, and why it could not (design §5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cio_proxy.model import End, Finding, RuleInfo
from cio_proxy.sinks.metrics import score


class Coverage:
    """A sink that keeps plain counts for `/api/summary`."""

    def __init__(self, rules: Sequence[RuleInfo]) -> None:
        self._rules = tuple(rules)
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self._requests = self._calls = self._blocked = 0
        self._by_rule: Counter[str] = Counter()
        self._fired: dict[str, str] = {}
        self._judged: dict[str, list[int]] = {rule.id: [0, 0, 0] for rule in self._rules}
        self._unavailable: dict[str, Counter[str]] = {rule.id: Counter() for rule in self._rules}

    def judged(self, rule: str, applicable: bool, fired: bool, unavailable: str | None) -> None:
        """One rule looked at one call."""
        counts = self._judged[rule]
        counts[0] += applicable
        counts[1] += unavailable is None
        counts[2] += fired
        if unavailable is not None:
            reasons = self._unavailable[rule]
            reasons[unavailable if unavailable in reasons or len(reasons) < 20 else "other"] += 1

    def found(self, finding: Finding) -> None:
        """Count a finding."""
        self._by_rule[finding.rule] += 1
        if finding.action not in ("exempt", "baselined"):
            self._fired[finding.rule] = finding.severity

    def ended(self, end: End) -> None:
        """Count an exchange."""
        self._requests += 1
        self._calls += len(end.calls)
        self._blocked += end.ending == "blocked" or end.ending == "partial"

    def summary(self) -> dict[str, Any]:
        """The counts of the run."""
        return {
            "requests": self._requests,
            "calls": self._calls,
            "blocked": self._blocked,
            "by_rule": dict(self._by_rule),
            "coverage": {
                rule: {
                    "applicable": applicable,
                    "exercised": exercised,
                    "fired": fired,
                    "unavailable": dict(self._unavailable[rule]),
                }
                for rule, (applicable, exercised, fired) in self._judged.items()
            },
            "score": score(self._fired),
        }
