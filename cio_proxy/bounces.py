"""What an app, or a mail server, says of mail that came back or was not wanted.

Pure functions. An app's word, in attributes and names of events, is taken for more than it may mean: a rule that knows
of one reaction too many is only silent. Of a server's reply the code alone counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

LIMIT: Final = 4_096
"""Characters of a reply that are looked at."""

type Sign = Literal["cleared", "negative", "positive", "status"]
type Permanence = Literal["address", "permanent", "other"]

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
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3}\.\d{1,3})(?!\.?\d)")
_BASIC = re.compile(r"(?<![\d.])[245]\d\d(?![\d.]*\d)")
_NO_ADDRESS = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10", "2.1"})
_NO_MAIL = frozenset({"0.0", "0.1", "1.0", "1.4", "4.1", "4.4", "4.310", "5.0"})
_REFUSING = frozenset({"521", "550", "551", "553", "556"})


def marks(name: str) -> bool:
    """Whether an event of this name says that mail came back, or was not wanted."""
    return _marks(name[:200])


@lru_cache(5_000)
def _marks(name: str) -> bool:
    return _MARK.search(name) is not None


def reacts(attributes: Mapping[str, object]) -> bool:
    """Whether attributes clear the address, opt out, or mark that mail came back or was not wanted."""
    names = tuple(attributes)
    signs = _signs(names) if len(names) <= 100 else _signs.__wrapped__(names)
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


def _says(sign: Sign, value: object) -> bool:
    if sign == "cleared":
        return value is None or value == ""
    if sign == "status":
        return value is False or (isinstance(value, str) and _BAD.search(value[:200]) is not None)
    if sign == "negative":
        return _is_yes(value)
    if isinstance(value, str):
        return value.strip().lower() in ("0", "no", "off", "n") or "false" in value[:2_000].lower()
    return _holds_false(value) or value == 0


def _is_yes(value: object) -> bool:
    return value.strip().lower() not in _NO if isinstance(value, str) else bool(value)


def _holds_false(value: object, depth: int = 4) -> bool:
    if isinstance(value, dict) and depth:
        return any(_holds_false(member, depth - 1) for member in value.values())
    return value is False


def permanence(message: str) -> Permanence | None:
    """What the SMTP code in the text of a bounce says; None where there is no code.

    `address`: there is no such mailbox or domain, or it is closed. `permanent`: the mail will not be taken, and nothing
    says that it is not for the address. `other`: it may be taken later (4.x.x), or another mail may be, since this one
    was refused for what is in it or for who sent it (RFC 3463, RFC 7504, RFC 7505).
    """
    message = message[:LIMIT]
    if enhanced := _ENHANCED.search(message):
        if enhanced[1] != "5":
            return "other"
        return _permanence(enhanced[2])
    if basic := _BASIC.search(message):
        return "permanent" if basic[0] in _REFUSING else "other"
    return None


def _permanence(code: str) -> Permanence:
    if code in _NO_ADDRESS:
        return "address"
    return "permanent" if code in _NO_MAIL else "other"
