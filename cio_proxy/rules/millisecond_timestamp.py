"""A time is in milliseconds where Customer.io reads seconds.

Customer.io accepts it with 200 and stores the number. Read as seconds it is tens of thousands of
years ahead: conditions such as "within the past 7 days" never match, and nothing reports an error.

A number that no clock shows in these years, such as a phone number in `created_at`, is never repeated.

Fix: send whole Unix seconds, `Math.floor(Date.now() / 1000)` in JavaScript; where the Pipelines API documents
ISO 8601, send an ISO 8601 string.

See https://docs.customer.io/journeys/timestamp-conditions/
See https://docs.customer.io/integrations/api/track/ (identify, track)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from cio_proxy.model import KINDS, Call, Finding, Json, Known, RuleInfo, Timestamp, keys_of, pointer
from cio_proxy.recognise import PER_SECOND, Unit, number_of, unit, year_of

RULE = RuleInfo(
    id="millisecond-timestamp",
    severity="error",
    category="1",
    kinds=frozenset(KINDS) - {"content_write", "content_read", "webhook_metric", "unreadable", "other"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
    refuses=True,
)

_TIME_NAME = re.compile(r"(?:_(?:at|on|date|time|ts)|[a-z0-9](?:At|On|Date|Time)|^(?:date|timestamp))\Z")
_FROM = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_UNTIL = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_AHEAD = 5 * 365 * 86_400


_LONG = re.compile(rb"[0-9](?:[0-9]{11}|[eE])")
"""What a number beyond seconds has in it: twelve digits, or an exponent."""


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The documented time fields, then every field whose name and value both say that it is a time."""
    if (sketch := call.sketch) is None or call.api == "pipelines":
        return _times(call)
    if b"000000000000" in sketch or b"0e" in sketch or b"0A" in sketch:
        return _times(call) if _LONG.search(call.document.raw) else ()
    return ()  # no number that is more than seconds


def _times(call: Call) -> Iterator[Finding]:
    for field in call.timestamps:
        yield from _documented(field, call.at)
    yield from _named_like_times(call)


def _documented(field: Timestamp, now: float) -> Iterator[Finding]:
    number = number_of(field.value)
    found = None if number is None else unit(number)
    if number is None or found is None:
        return
    if field.expects == "iso8601":
        shown = is_shown(number, found, now)
        seconds = int(number // PER_SECOND[found])
        yield RULE.finding(
            field.pointer,
            f"{number:.0f} is a time in {found} where ISO 8601 is documented"
            if shown
            else f"a number of {_digits(number)} digits stands where ISO 8601 is documented",
            effect="The Pipelines API documents an ISO 8601 string here; what becomes of a number is not documented.",
            fix="Send an ISO 8601 string.",
            corrected=datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if shown else None,
            evidence=field.value if shown else None,
            confidence="possible" if found == "seconds" else "certain",
        )
    elif found != "seconds":
        yield _finding(field.pointer, field.value, number, found, now, documented=True)


def _named_like_times(call: Call) -> Iterator[Finding]:
    """One finding for each name, however many members of a list carry it.

    Attributes and data alone are judged: what a message is rendered with is no date to Customer.io.
    """
    seen: set[str] | None = None
    for value, path in call.leaves:
        number = number_of(value)
        found = None if number is None else unit(number)
        if number is None or found in (None, "seconds") or not _FROM <= number / PER_SECOND[found] < _UNTIL:
            continue
        keys = keys_of(path)
        names = [key for key in keys if isinstance(key, str)]
        if not _TIME_NAME.search(names[-1]):
            continue
        where, shape = pointer(call.body_at, *keys), pointer(call.body_at, *names)
        if not call.holds(where):
            continue
        seen = seen if seen is not None else {field.pointer for field in call.timestamps}
        if shape not in seen:
            seen.add(shape)
            yield _finding(where, value, number, found, call.at, documented=False)


def _finding(where: str, value: Json, number: float, found: Unit, now: float, *, documented: bool) -> Finding:
    shown = is_shown(number, found, now)
    year = f"the year {year_of(number)}" if shown else "a year far beyond any date"
    return RULE.finding(
        where,
        f"{number:.0f} is a time in {found}, not in seconds"
        if shown
        else f"a number of {_digits(number)} digits stands where a time in seconds belongs",
        effect=f"Customer.io answers 200 and stores {year}: no timestamp condition ever matches.",
        fix=f"Divide by {PER_SECOND[found]:,} and send whole seconds." if shown else "Send whole Unix seconds.",
        corrected=int(number // PER_SECOND[found]) if shown else None,
        evidence=value if shown else None,
        confidence="certain" if documented else "likely" if shown else "possible",
        refusable=documented and found == "milliseconds" and not isinstance(value, str),
    )


def is_shown(number: float, found: Unit, now: float) -> bool:
    """Whether a number is plainly a time: of 9 September 2001 or later, and at most five years ahead.

    No phone number with its country code reads as milliseconds of these years: it would have 13 digits, the first a 1.
    """
    return 1e9 <= number / PER_SECOND[found] < now + _AHEAD


def _digits(number: float) -> int:
    return len(f"{number:.0f}")
