"""What was seen and what was judged: the summary of the admin API (design §5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cio_proxy.model import End, Finding, RuleInfo
from cio_proxy.sinks.score import ACCEPTED, Score

REASONS: Final = 20
"""How many reasons for not judging are told apart, a rule."""


@dataclass(slots=True)
class _Rule:
    applicable: int = 0
    exercised: int = 0
    fired: int = 0
    unavailable: dict[str, int] = field(default_factory=dict)


class Coverage:
    """Counts exchanges, calls and findings, and how often each rule could judge."""

    def __init__(self, rules: Sequence[RuleInfo]) -> None:
        self._requests = 0
        self._calls = 0
        self._blocked = 0
        self._by_rule: Counter[str] = Counter()
        self._rules = {rule.id: _Rule() for rule in rules}
        self._score = Score()

    def found(self, finding: Finding) -> None:
        """Count a finding that is neither exempt nor baselined."""
        if finding.action not in ACCEPTED:
            self._by_rule[finding.rule] += 1
        self._score.found(finding)

    def ended(self, end: End) -> None:
        """Count an exchange and its calls."""
        self._requests += 1
        self._calls += len(end.calls)
        self._blocked += end.ending in ("blocked", "partial")
        self._score.passed(end.exchange.at)

    def judged(self, rule: str, applicable: bool, fired: bool, unavailable: str | None) -> None:
        """A rule looked at a call: one of its kinds, with or without a finding, or unable to judge and why.

        A finding that comes later, with the answer or a deadline, is told with `applicable` False.
        """
        seen = self._rules[rule]
        seen.fired += fired
        if not applicable:
            return
        seen.applicable += 1
        if unavailable is None:
            seen.exercised += 1
        else:
            if unavailable not in seen.unavailable and len(seen.unavailable) >= REASONS:
                unavailable = "other"
            seen.unavailable[unavailable] = seen.unavailable.get(unavailable, 0) + 1

    def summary(self) -> dict[str, Any]:
        """The counts so far; `blocked` are exchanges of which all or a part was refused."""
        return {
            "requests": self._requests,
            "calls": self._calls,
            "blocked": self._blocked,
            "by_rule": dict(self._by_rule),
            "coverage": {
                id: {
                    "applicable": seen.applicable,
                    "exercised": seen.exercised,
                    "fired": seen.fired,
                    "unavailable": dict(seen.unavailable),
                }
                for id, seen in self._rules.items()
            },
            "score": self._score.value(),
        }
