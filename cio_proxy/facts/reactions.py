"""What an app does about mail that somebody cannot, or will not take: taught by the engine, since several rules ask.

Every way counts (reference 9.15): deletion, suppression, an opt-out, an attribute or an event that marks the address,
the provider's own suppression list, a segment. To know of one too many only makes a rule silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from cio_proxy.bounces import marks, reacts
from cio_proxy.model import REACTED, Call, Fact, Key, Kind, Outcome, Span

KINDS: frozenset[Kind] = frozenset(
    {
        *("identify", "event", "delete", "suppress", "merge", "unsubscribe", "report_metric", "segment_add"),
        *("webhook_metric", "other"),
    }
)
REMEMBERED: Final = 40 * 86_400.0
FEW: Final = 10
"""So many people at once are put into a segment for a reason of their own; more of them are an import."""


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That an app reacted to something, with whom the call is about."""
    if call.joined is None:
        return ()
    match call.kind:
        case "identify":
            return _facts(call, call.identifiers) if reacts(call.attributes) else ()
        case "event":
            return _facts(call, call.identifiers) if call.name is not None and marks(call.name) else ()
        case "delete" | "suppress":
            return _facts(call, call.identifiers)
        case "merge":
            return _facts(call, call.merged.identifiers())
        case _:
            return _facts(call, _others(call))


def _facts(call: Call, subjects: Iterable[str]) -> Iterator[Fact]:
    workspace = call.joined
    if workspace is not None:
        span = Span(call.at, call.at)
        for subject in subjects:
            yield Fact(Key(REACTED, workspace, subject), span, REMEMBERED)


def _others(call: Call) -> Iterator[str]:
    match call.kind:
        case "unsubscribe":
            yield f"delivery:{call.data.get('delivery_id')}"
        case "report_metric" if marks(str(call.body.get("metric"))[:50]):
            yield f"delivery:{call.body.get('delivery_id')}"
        case "segment_add":
            ids = call.body.get("ids")
            for id in ids if isinstance(ids, list) and len(ids) <= FEW else ():
                yield f"email:{str(id)[:500].lower()}" if "@" in str(id)[:500] else f"id:{str(id)[:500]}"
        case "webhook_metric" if not call.credentials.fault and call.name in ("unsubscribed", "dropped"):
            yield from call.identifiers
            if isinstance(recipient := call.data.get("recipient"), str):
                yield f"email:{recipient.lower()}"
        case "webhook_metric" if not call.credentials.fault and call.name == "cio_subscription_preferences_changed":
            yield from call.identifiers
        case "other" if call.endpoint == "/v1/esp/suppression/{type}/{email}" and call.exchange.method == "POST":
            yield from call.identifiers
