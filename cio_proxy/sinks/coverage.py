"""What was seen and what was judged: the summary of the admin API (design §5)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from cio_proxy.model import PACED, Api, Call, End, Exemption, Finding, Kind, Paced, RuleInfo, Taken
from cio_proxy.sinks.record import rfc3339
from cio_proxy.sinks.score import ACCEPTED, Score

REASONS: Final = 20
"""How many reasons for not judging are told apart, a rule."""


class Coverage:
    """Counts exchanges, calls and findings, and how often each rule could judge."""

    def __init__(self, rules: Sequence[RuleInfo] = (), exemptions: Sequence[Exemption] = ()) -> None:
        self.follow(rules, exemptions)
        self.reset()

    def follow(self, rules: Sequence[RuleInfo], exemptions: Sequence[Exemption]) -> None:
        """These rules and exemptions are in force from now on."""
        self._rules = tuple(rules)
        self._exemptions = tuple(exemptions)

    def reset(self) -> None:
        """Forget all that was counted."""
        self._requests = 0
        self._blocked = 0
        self._paced: Counter[Paced] = Counter()
        self._calls: Counter[tuple[Api, Kind]] = Counter()
        self._looks: Counter[tuple[Api, Kind]] = Counter()
        self._by_rule: Counter[str] = Counter()
        self._fired: Counter[str] = Counter()
        self._exempted: Counter[Exemption] = Counter()
        self._accepted: Counter[Taken] = Counter()
        self._unavailable: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._score = Score()

    def found(self, finding: Finding) -> None:
        """Count a finding; one that is exempt or baselined only as fired."""
        self._fired[finding.rule] += 1
        if finding.action in ACCEPTED:
            self._accepted[finding.action] += 1
        else:
            self._by_rule[finding.rule] += 1
        self._score.found(finding)

    def ended(self, end: End) -> None:
        """Count an exchange and its calls."""
        self._requests += 1
        for call in end.calls:
            self._calls[call.api, call.kind] += 1
        self._blocked += end.ending in ("blocked", "partial")
        self._score.passed(end.exchange.at)

    def looked(self, calls: Sequence[Call]) -> None:
        """Rules looked at what stands for a request of the app's own users: no call with Customer.io."""
        for call in calls:
            self._looks[call.api, call.kind] += 1

    def paced(self, result: Paced) -> None:
        """An exchange came too fast: it was held, or passed all the same, or would have been held."""
        self._paced[result] += 1

    def unable(self, rule: str, reason: str) -> None:
        """A rule could not judge a call."""
        reasons = self._unavailable[rule]
        reasons[reason if reason in reasons or len(reasons) < REASONS else "other"] += 1

    def exempted(self, exemption: Exemption) -> None:
        """An exemption covered a finding."""
        self._exempted[exemption] += 1

    def summary(self) -> dict[str, Any]:
        """The counts so far; `blocked` are exchanges of which all or a part was refused."""
        return {
            "requests": self._requests,
            "calls": self._calls.total(),
            "blocked": self._blocked,
            "paced": {result: self._paced[result] for result in PACED},
            "by_rule": dict(self._by_rule),
            "exempt": self._accepted["exempt"],
            "baselined": self._accepted["baselined"],
            "coverage": {rule.id: self._of(rule) for rule in self._rules},
            "exemptions": [self._use_of(exemption) for exemption in self._exemptions],
            "score": self._score.value(),
        }

    def _use_of(self, exemption: Exemption) -> dict[str, Any]:
        return {
            "exemption": exemption.label,
            "reason": exemption.reason,
            "owner": exemption.owner,
            "expires": None if exemption.expires is None else rfc3339(exemption.expires),
            "used": self._exempted[exemption],
        }

    def _of(self, rule: RuleInfo) -> dict[str, Any]:
        """Applicable are calls, and looks, of the kinds that the rule declares; exercised those it could judge."""
        seen = self._calls + self._looks
        applicable = sum(count for (api, kind), count in seen.items() if api in rule.apis and kind in rule.kinds)
        unavailable = self._unavailable[rule.id]
        return {
            "applicable": applicable,
            "exercised": applicable - sum(unavailable.values()),
            "fired": self._fired[rule.id],
            "unavailable": dict(unavailable),
        }
