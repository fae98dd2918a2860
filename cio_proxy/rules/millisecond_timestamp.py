"""A time is in milliseconds where Customer.io reads seconds.

Customer.io accepts it with 200 and stores the number. Read as seconds it is tens of thousands of
years ahead: conditions such as "within the past 7 days" never match, and nothing reports an error.

Fix: send whole Unix seconds, `Math.floor(Date.now() / 1000)` in JavaScript; where the Pipelines API documents
ISO 8601, send an ISO 8601 string.

See https://docs.customer.io/journeys/timestamp-conditions/
See https://docs.customer.io/integrations/api/track/ (identify, track)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from cio_proxy.model import KINDS, Call, Finding, Json, Known, RuleInfo, Timestamp, pointer
from cio_proxy.recognise import PER_SECOND, number_of, unit, year_of

RULE = RuleInfo(
    id="millisecond-timestamp",
    severity="error",
    category="1",
    kinds=frozenset(KINDS) - {"content_write", "content_read", "webhook_metric", "unreadable", "other"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

_TIME_NAME = re.compile(r"(?:_(?:at|on|date|time|ts)|[a-z0-9](?:At|Date|Time)|^date|^timestamp)\Z")
_FROM, _UNTIL = 946_684_800, 4_102_444_800


def check(call: Call, known: Known) -> Iterator[Finding]:
    """The documented time fields, then every field whose name and value both say that it is a time."""
    documented = set()
    for field in call.timestamps:
        documented.add(field.pointer)
        yield from _documented(field)
    if call.api != "app":
        for fields, at in ((call.attributes, call.attributes_at), (call.data, call.data_at)):
            for where, value in _named_like_times(fields, at):
                if where not in documented:
                    yield from _named(where, value)


def _documented(field: Timestamp) -> Iterator[Finding]:
    number = number_of(field.value)
    found = None if number is None else unit(number)
    if number is None or found is None or (found == "seconds" and field.expects == "seconds"):
        return
    seconds = int(number // PER_SECOND[found])
    if field.expects == "iso8601":
        yield RULE.finding(
            field.pointer,
            f"{number:.0f} is a time in {found} where ISO 8601 is documented",
            effect="The Pipelines API documents an ISO 8601 string here; what becomes of a number is not documented.",
            fix="Send an ISO 8601 string.",
            corrected=datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z"),
            evidence=field.value,
            confidence="possible" if found == "seconds" else "certain",
        )
        return
    plain = isinstance(field.value, int | float)
    yield _seconds(field.pointer, field.value, number, found, seconds, refusable=plain and 1e11 <= number < 1e14)


def _named(where: str, value: Json) -> Iterator[Finding]:
    number = number_of(value)
    found = None if number is None else unit(number)
    if number is None or found in (None, "seconds"):
        return
    seconds = int(number // PER_SECOND[str(found)])
    if _FROM <= seconds < _UNTIL:
        yield _seconds(where, value, number, str(found), seconds, confident=False)


def _seconds(
    where: str,
    value: Json,
    number: float,
    found: str,
    seconds: int,
    *,
    confident: bool = True,
    refusable: bool = False,
) -> Finding:
    return RULE.finding(
        where,
        f"{number:.0f} is a time in {found}, not in seconds",
        effect=f"Customer.io answers 200 and stores the year {year_of(number)}: no timestamp condition ever matches.",
        fix=f"Divide by {PER_SECOND[found]:,} and send whole seconds.",
        corrected=seconds,
        evidence=value,
        confidence="certain" if confident else "likely",
        refusable=refusable,
    )


def _named_like_times(fields: Mapping[str, Json], at: str) -> Iterator[tuple[str, Json]]:
    for name, value in fields.items():
        where = pointer(at, name)
        if isinstance(value, dict):
            yield from _named_like_times(value, where)
        elif isinstance(value, list):
            for index, member in enumerate(value):
                if isinstance(member, dict):
                    yield from _named_like_times(member, f"{where}/{index}")
        elif _TIME_NAME.search(name):
            yield where, value
