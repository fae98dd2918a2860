"""What the proxy remembers: the contract of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from cio_proxy.model import NOTHING, Deadline, Fact, Kept, Key, Record, Subject

MARK_SECONDS = 30.0
"""How long a mark stands of a learner that died."""
LEASE_SECONDS = 60.0
"""How long the findings of a deadline may take: then it is given to whoever asks."""
FLEETING = 30.0
"""Seconds to live up to which a fact is given up first: there may be one for every event."""


class Unusable(Exception):
    """A store that cannot be used as it is configured: what is wrong, and what to do about it."""


class Reading(NamedTuple):
    """What a store knew when it was asked, and which of the facts somebody else is about to teach."""

    records: Mapping[Subject, Record] = cast(Mapping[Subject, Record], NOTHING)
    in_flight: frozenset[Key] = frozenset()


class Store(Protocol):
    """Keeps sealed facts. Joining is commutative, associative and idempotent, so order never matters.

    A store that forgets a fact before its time joins the fact `lost` to the workspace of that fact, or to `EVERY` one.
    Any method may raise: nobody waits longer for it than a moment, and traffic goes on without it.
    """

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        """Read all that is known of `subjects`, and mark those of `announced` in flight that nothing is known of."""

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        """Join facts into what is known, and take marks back."""

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """The deadlines that have passed, each leased to one caller: another one gets it only if this one dies."""

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines whose findings are out."""

    def scan(self, kind: str) -> AsyncIterator[tuple[Key, Kept]]:
        """Every fact of a kind, in no order."""

    async def clear(self) -> None:
        """Forget everything."""

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept, as of the last `tend`."""

    async def tend(self, now: float) -> None:
        """Do what has to be done now and then: called every few seconds while traffic is live."""

    async def close(self) -> None:
        """Write what is still to be written, and let go."""
