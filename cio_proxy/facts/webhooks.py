"""Which webhooks came before: taught by the engine itself, since every count of them would be wrong else.

Customer.io sends a webhook again until the app answers 2xx, for up to seven days (reference 7.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cio_proxy.model import MINUTE, WEBHOOK, Call, Fact, Key, Known, Outcome, Sample

REMEMBERED: Final = 9 * 86_400.0
EACH_MINUTE: Final = 500
"""Webhooks of one minute, by their own time, that are known one by one; of more of them a repeat may count again."""


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That a webhook came."""
    if not (event := _event(call)):
        return ()
    return (Fact(_key(call), Sample(EACH_MINUTE, plain=frozenset({event})), REMEMBERED),)


def came_before(call: Call, known: Known) -> bool:
    """Whether the same webhook came before."""
    event = _event(call)
    if not event or (minute := known.sample(_key(call))) is None:
        return False
    return known.member(event) in minute.hashes


def _event(call: Call) -> str:
    event = call.body.get("event_id")
    return event if isinstance(event, str) else ""


def _key(call: Call) -> Key:
    at = call.body.get("timestamp")
    told = isinstance(at, int | float) and abs(call.at - at) < REMEMBERED
    minute = int(at // MINUTE) if told and isinstance(at, int | float) else None
    return Key(WEBHOOK, call.workspace, f"webhooks of {minute}")
