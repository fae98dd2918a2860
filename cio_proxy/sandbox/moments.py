"""Moments as Customer.io reads them: Unix seconds, or for Pipelines ISO 8601 (reference 6.4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cio_proxy.model import Json

HOUR = 3600.0
DAY = 24 * HOUR
TRIGGER_WINDOW = 72 * HOUR
"""An event this recent can trigger campaigns [spec: Track]."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CYCLE_DAYS = 146_097  # the calendar repeats every 400 years
_TIME_NAME = re.compile(r"_(?:at|on|date|time|ts)\Z|[a-z]At\Z|\A_?timestamp\Z|\Alast_used\Z|\Asend_at\Z")
_UNITS = ((1e11, 1e14, "milliseconds"), (1e14, 1e17, "microseconds"), (1e17, float("inf"), "nanoseconds"))


def number(value: Json) -> int | float | None:
    """A JSON number to reckon with; a boolean is none, nor is one beyond any unit of time."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 else None


def wrong_unit(value: Json) -> str:
    """The unit of a number too large for seconds, told from its digits (reference 6.4); empty if it may be seconds."""
    count = number(value)
    if count is None:
        return ""
    return next((unit for low, high, unit in _UNITS if low <= count < high), "")


def year_of(seconds: float) -> int:
    """The year that Unix seconds fall in, beyond the year 9999 too: 1704288000000 falls in 55976."""
    cycles, rest = divmod(int(seconds), _CYCLE_DAYS * 86_400)
    return (_EPOCH + timedelta(seconds=rest)).year + 400 * cycles


def attribute_note(name: str, value: Json) -> str:
    """What becomes of a date kept in an attribute; empty where there is nothing to say."""
    if not _TIME_NAME.search(name):
        return ""
    if (unit := wrong_unit(value)) and (count := number(value)) is not None:
        return (
            f"{name} was sent in {unit}: it is stored, shown as the year {year_of(count)}, "
            "and never matches a timestamp condition [docs: Timestamp conditions FAQ]."
        )
    if name == "created_at" and isinstance(value, str) and value:
        return (
            f"{name} is text and not Unix seconds: it is stored, and never matches a timestamp condition "
            "[docs: Timestamp conditions FAQ]; newer pages describe support for ISO 8601 (unverified)."
        )
    return ""


def from_iso(value: Json) -> float | None:
    """Unix seconds of an ISO 8601 text, read as UTC where it names no zone; None if it is no such text."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
