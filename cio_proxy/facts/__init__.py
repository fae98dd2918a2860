"""What the proxy remembers: the contract of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from math import floor
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


class Slots(NamedTuple):
    """When some of what was asked for may go: the first in so many seconds, which may be past, and the next in turn.

    The others of it, beyond `granted`, have no slot.
    """

    first: float
    granted: int


class Rate(NamedTuple):
    """How fast something may go: so many a second, so many at once, and planned so many seconds ahead at most."""

    each: float
    burst: float
    ahead: float

    def slots(self, planned: float | None, number: int, now: float) -> tuple[Slots, float]:
        """Slots for `number` more, from when `planned` is taken, and until when it is taken then.

        This is the generic cell rate algorithm: never more than `each * t + burst` are let go within t seconds. What is
        planned further ahead than can be was planned by another clock, and is forgotten.
        """
        step = 1 / self.each
        at_once = (max(1.0, self.burst) - 1) * step
        begin = now if planned is None or planned > now + at_once + self.ahead + 2 * step else max(planned, now)
        first = begin - at_once - now
        granted = min(number, max(0, floor((self.ahead - first) / step + EXACT) + 1))
        return Slots(first, granted), begin + granted * step


EXACT = 1e-6
"""The part of a step by which sums of floats may be wrong."""


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

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        """Take slots in the schedule under this sealed key, for so many at once, in the order of those who ask.

        The time is the store's own, since its users' clocks differ; no exchange's, since somebody really waits.
        """

    async def clear(self) -> None:
        """Forget everything."""

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept, as of the last `tend`."""

    async def tend(self, now: float) -> None:
        """Do what has to be done now and then: called every few seconds while traffic is live."""

    async def close(self) -> None:
        """Write what is still to be written, and let go."""
