"""What the proxy remembers: the contract of a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from cio_proxy.model import NOTHING, Deadline, Fact, Key, Value


class Reading(NamedTuple):
    """What a store knew when it was asked.

    `in_flight` are the keys that others are about to teach; `since` is when it was first asked, or last lost a fact.
    `whole` is False once it lost or missed one: then nobody can say any more that every person is known.
    """

    values: Mapping[Key, Value] = cast(Mapping[Key, Value], NOTHING)
    in_flight: frozenset[Key] = frozenset()
    since: float = 0.0
    whole: bool = True


class Store(Protocol):
    """Keeps sealed facts. Joining is commutative, associative and idempotent, so order never matters."""

    async def get_many(self, keys: Collection[Key], marks: Collection[Key], now: float) -> Reading:
        """Read `keys`, and mark those of `marks` in flight that nothing is known of yet."""

    async def join_many(self, facts: Sequence[Fact], unmark: Collection[Key], now: float) -> None:
        """Join facts into what is known, and take marks back."""

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """Lease the deadlines that have passed."""

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines whose findings are out."""

    def missed(self, now: float) -> None:
        """Something passed that nobody looked at: what is known is whole only from now on."""

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept."""
