"""What an app does about mail that somebody cannot, or will not take: taught by the engine, since several rules ask.

Every way counts (reference 9.15): deletion, suppression, an opt-out, an attribute or an event that marks the address,
the provider's own suppression list, a segment. To know of one too many only makes a rule silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from cio_proxy.model import REACTED, Call, Fact, Json, Key, Kind, Span, leaves

type Sign = Literal["cleared", "negative", "positive", "status"]

KINDS: frozenset[Kind] = frozenset(
    {
        *("identify", "event", "delete", "suppress", "merge", "unsubscribe", "report_metric", "segment_add"),
        *("webhook_metric", "other"),
    }
)
REMEMBERED: Final = 40 * 86_400.0
FEW: Final = 10
"""So many people at once are put into a segment for a reason of their own; more of them are an import."""

_NEGATIVE = re.compile(r"bounc|undeliver|complain|spam|unsub|opt(?:ed)?[_ -]?out|do[_ -]?not|block[_ -]?list")
_NEGATIVE_MAIL = re.compile(r"invalid|suppress|unreach|block|disabl|inactive|bad|dead|stop|wrong")
_POSITIVE = re.compile(r"subscri|opt(?:ed)?[_ -]?in|consent")
_POSITIVE_MAIL = re.compile(r"valid|deliverab|reachab|active|enabl|ok\b|good|allow|market")
_STATUS = re.compile(r"status|state|health|quality|result|verification")
_BAD = re.compile(
    r"bounc|invalid|bad|undeliv|block|suppress|inactive|disabl|fail|unsub|complain|spam|dead|reject|risk|wrong",
    re.IGNORECASE,
)
_MARK = re.compile(r"bounc|complain|spam|undeliver|unsub|invalid[_ -]?e?mail|e?mail[_ -]?invalid", re.IGNORECASE)
_NO = frozenset({"", "0", "false", "no", "none", "null", "never", "n", "off"})


def learn(call: Call) -> Iterable[Fact]:
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


@lru_cache(5_000)
def marks(name: str) -> bool:
    """Whether an event of this name says that mail came back, or was not wanted."""
    return _MARK.search(name) is not None


def reacts(attributes: Mapping[str, Json]) -> bool:
    """Whether attributes clear the address, opt out, or mark that mail came back or was not wanted."""
    signs = _signs(tuple(attributes))
    return bool(signs) and any(_says(sign, attributes[name]) for name, sign in signs)


@lru_cache(2_000)
def _signs(names: tuple[str, ...]) -> tuple[tuple[str, Sign], ...]:
    """The attributes that may be a sign, and of what kind."""
    return tuple((name, sign) for name in names if (sign := _sign(name[:200].lower())) is not None)


def _sign(name: str) -> Sign | None:
    mail = "mail" in name
    if name == "email":
        return "cleared"
    if mail and _STATUS.search(name):
        return "status"
    if _NEGATIVE.search(name) or (mail and _NEGATIVE_MAIL.search(name)):
        return "negative"
    return "positive" if _POSITIVE.search(name) or (mail and _POSITIVE_MAIL.search(name)) else None


def _says(sign: Sign, value: Any) -> bool:
    if sign == "cleared":
        return value is None or value == ""
    if sign == "status":
        return value is False or (isinstance(value, str) and _BAD.search(value[:200]) is not None)
    if sign == "negative":
        return _is_yes(value)
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0", "no", "off", "n") or "false" in value[:2_000].lower()
    return any(leaf is False for leaf, _ in leaves(value)) or (value == 0 and value is not None)


def _is_yes(value: Json) -> bool:
    return value.strip().lower() not in _NO if isinstance(value, str) else bool(value)
