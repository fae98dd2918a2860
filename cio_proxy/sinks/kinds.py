"""The findings of a run, by their kind: for a report at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cio_proxy.model import SEVERITIES, End, Finding, Severity, Taken
from cio_proxy.sinks.score import ACCEPTED

LIMIT: Final = 1_000
"""How many kinds (a fingerprint, and what was done) are told apart; what comes beyond is only counted."""


@dataclass(slots=True)
class Kind:
    """The first finding of a kind, and how many there were."""

    first: Finding
    count: int = 0


class Kinds:
    """A sink that keeps one finding of each kind. What is exempt or in the baseline is left out."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, Taken], Kind] = {}
        self._worst = len(SEVERITIES)
        self.beyond = 0
        """How many findings are of kinds that are not told apart any more."""

    def found(self, finding: Finding) -> None:
        """Keep a finding of a new kind; count one of a kind that is kept."""
        if finding.action in ACCEPTED:
            return
        self._worst = min(self._worst, SEVERITIES.index(finding.severity))
        key = (finding.fingerprint, finding.action)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= LIMIT:
                self.beyond += 1
                return
            kind = self._kinds[key] = Kind(finding)
        kind.count += 1

    def ended(self, end: End) -> None:
        """An exchange says nothing here."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What was found, each kind once."""
        return tuple(self._kinds.values())

    def reaches(self, severity: Severity) -> bool:
        """Whether anything was found that is so severe, or worse."""
        return self._worst <= SEVERITIES.index(severity)
