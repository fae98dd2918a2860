"""What is known of a workspace as a whole: since when it was watched, and whether anything was missed.

These are facts like all others, so every replica knows of what one of them missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from cio_proxy.model import MOST_SITES, SITES, Fact, Groups, Key, People, Record, Sample, Span, Subject, made

OBSERVED = "observed"
"""The kind of the fact that traffic was seen."""
LOST = "lost"
"""The kind of the fact that something was forgotten, or passed unseen."""
IMPORTED = "imported"
"""The kind of the fact that every person was told to the proxy."""
ALIVE = "alive"
"""The kind of the fact that a proxy was running."""
EVERY = Subject("", "every")
"""The subject of what is known of all workspaces at once."""
LIFE = 5 * 365 * 86_400.0
"""Seconds for which it is remembered that somebody exists: as good as ever, since nobody may be accused who does."""


NEVER = float("-inf")


class Watch(NamedTuple):
    """From when on nothing was missed, whether anything ever was, and whether every person may be known.

    `until` is when traffic was seen last, to the minute.
    """

    since: float
    until: float = NEVER
    lossy: bool = False
    whole: bool = True
    lost: float = NEVER
    """When something was missed last."""

    def and_of(self, other: Watch) -> Watch:
        """What holds for a workspace where facts of another one are asked, too."""
        lossy, whole = self.lossy or other.lossy, self.whole and other.whole
        return Watch(max(self.since, other.since), self.until, lossy, whole, max(self.lost, other.lost))

    def people(self, configured: People) -> People:
        """What the configuration asserts, unless it cannot be true any more."""
        return configured if self.whole else "partial"


def subject(workspace: str) -> Subject:
    """The subject of the facts about a workspace."""
    return made(Subject, (workspace, ""))


def seen(workspace: str, at: float) -> Fact:
    """The fact that traffic was seen."""
    return Fact(Key(OBSERVED, workspace, ""), Span(at, at), LIFE)


def lost(workspace: str, at: float) -> Fact:
    """The fact that something passed unseen, or was forgotten."""
    return Fact(Key(LOST, workspace, ""), Span(at, at), LIFE)


def alive(at: float) -> Fact:
    """The fact that a proxy was running."""
    return Fact(Key(ALIVE, *EVERY), Span(at, at), LIFE)


def lost_everywhere(at: float) -> Fact:
    """The fact that something passed unseen, or was forgotten, and nobody knows of which workspace."""
    return Fact(Key(LOST, *EVERY), Span(at, at), LIFE)


def sites(workspaces: Iterable[str]) -> Fact:
    """The fact that these are the workspaces of Track sites."""
    return Fact(Key(SITES, *EVERY), Groups(MOST_SITES, dict.fromkeys(workspaces, Sample(1, (0,)))), LIFE)


def sites_in(record: Record) -> Collection[str]:
    """The workspaces of Track sites that a record tells of."""
    kept = record.get(SITES)
    return kept.value.samples if kept is not None and isinstance(kept.value, Groups) else ()


def imported(workspace: str, at: float) -> Fact:
    """The fact that from now on every person is known again."""
    return Fact(Key(IMPORTED, workspace, ""), Span(at, at), LIFE)


def watch(record: Record, now: float, missed: float | None, empty: bool = False) -> Watch:
    """What a workspace's record says, and what this process missed and could not write down yet.

    Whoever was there before is only known once everybody was imported, but where the workspace began `empty`.
    """
    observed = span(record, OBSERVED)
    since, until = (now, NEVER) if observed is None else (min(observed.first, now), observed.last)
    loss, told = span(record, LOST), span(record, IMPORTED)
    if loss is None and missed is None:
        return made(Watch, (since, until, False, empty or told is not None, NEVER))
    gap = max(each for each in (loss and loss.last, missed) if each is not None)
    return Watch(max(since, gap), until, True, told is not None and told.last >= gap, gap)


def span(record: Record, kind: str) -> Span | None:
    """The span of a kind in a record."""
    kept = record.get(kind)
    return kept.value if kept is not None and isinstance(kept.value, Span) else None
