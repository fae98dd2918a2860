"""An event is older than 72 hours when it arrives.

Customer.io stores it with 200 and shows it on the person, but only an event of the past 72 hours can
trigger a campaign. An anonymous event has to be merged with its person within the same time.

In a batch it is most likely a backfill, which is meant to trigger nothing: the rule then only says
`possible`. So it does where the text of the time names no zone, and where a `sentAt` just as old says
that the sender's clock is wrong. Times in milliseconds belong to `millisecond-timestamp`, and a number
below 1e9 is no date to judge by.

Fix: send events when they happen; take them from a queue within 72 hours. Nothing needs to change for a backfill.

See https://docs.customer.io/integrations/api/track/ (track)
See https://docs.customer.io/journeys/anonymous-events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cio_proxy.model import Call, Finding, Form, Known, RuleInfo, pointer
from cio_proxy.recognise import moment

HOUR = 3600.0
LIMIT = 72 * HOUR

RULE = RuleInfo(
    id="stale-timestamp",
    severity="info",
    category="contract",
    kinds=frozenset({"event", "page", "screen"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
)

_ZONED = re.compile(r"(?:Z|[+-]\d\d:?\d\d)\Z")


def concerns(form: Form) -> bool:
    """What says when it happened."""
    return "timestamp" in form.body


def check(call: Call, known: Known) -> Iterable[Finding]:
    """Seconds are read on Track and ISO 8601 on Pipelines; any other form is not this rule's business."""
    value = call.body.get("timestamp")
    if value is None:
        return ()
    if call.api != "pipelines":
        stale = type(value) in (int, float) and 1e9 <= value < call.at - LIMIT  # type: ignore[operator]
        return _finding(call, float(value), call.item is None) if stale else ()  # type: ignore[arg-type]
    if type(value) is not str or "-" not in value:
        return ()
    happened = moment(value)
    if happened is None or not 1e9 <= happened < call.at - LIMIT:
        return ()
    return _finding(call, happened, call.item is None and _ZONED.search(value) is not None and _is_on_time(call))


def _is_on_time(call: Call) -> bool:
    """Whether the sender's clock, where the call tells it, agrees with the time of receipt."""
    sent = moment(call.body.get("sentAt"))
    return sent is None or sent >= call.at - HOUR


def _finding(call: Call, happened: float, sure: bool) -> Iterator[Finding]:
    yield RULE.finding(
        pointer(call.body_at, "timestamp"),
        f"the event is {(call.at - happened) / HOUR:,.0f} hours old, over the 72 within which it can trigger anything",
        effect="Customer.io answers 200 and stores the event; no campaign is triggered by it.",
        fix="Send events within 72 hours of their time; for a backfill nothing needs to change.",
        confidence="certain" if sure else "possible",
        evidence=call.body.get("timestamp"),
        name=call.name,
    )
