"""An event name holds a value that changes from call to call.

Every spelling is an event of its own to Customer.io. Names made from ids grow the list of events
without end: campaigns cannot be built on them, and the pickers in the product become unusable.

Personal values in names belong to `pii-in-name`: one fault, one finding. What a fixed name may hold
as well is only possible: a number of five digits (a zip or error code), a date written as one number
(a campaign), a version number, a word with a year that happens to be hexadecimal, a bare web address.

Fix: use one fixed name, and send what varies in the event's data.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from cio_proxy.model import CONFIDENCES, Call, Confidence, Finding, Known, RuleInfo
from cio_proxy.recognise import Part, changes, is_day, is_milestone, parts, personal, template, without_parts

RULE = RuleInfo(
    id="dynamic-event-name",
    severity="error",
    category="3",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

WORDS: Mapping[str, tuple[str, Confidence]] = {
    "uuid": ("a UUID", "certain"),
    "ulid": ("a ULID", "certain"),
    "long-hex": ("a long hexadecimal id", "certain"),
    "url": ("a URL", "certain"),
    "hex": ("a hexadecimal id", "likely"),
    "date": ("a date", "likely"),
    "number": ("a long number", "likely"),
}


_HOST = re.compile(r"(?:https?://)?[^/?#]*/?\Z", re.IGNORECASE)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for the most telling variable part of the name."""
    return _variable(call, call.name) if call.name and not is_fixed_name(call.name) else ()


@lru_cache(10_000)
def is_fixed_name(name: str) -> bool:
    """A quick first look: no part of the name is one that varies."""
    return not parts(name)


def _variable(call: Call, name: str) -> Iterator[Finding]:
    found = [
        (CONFIDENCES.index(confidence), what)
        for part in parts(name)
        if part.kind in WORDS and not _is_fixed(name, part)
        for what, confidence in [(WORDS[part.kind][0], _confidence(name, part))]
    ]
    if not found:
        return
    rank, what = min(found, key=lambda part: part[0])
    yield RULE.finding(
        call.name_at,
        f"the event name holds {what}: {template(name)}",
        effect="Each value makes an event of its own, and no campaign can be triggered by all of them.",
        fix="Use one fixed name and send the value in the event's data.",
        corrected=without_parts(name) or None,
        name=name,
        confidence=CONFIDENCES[rank],
    )


def _is_fixed(name: str, part: Part) -> bool:
    """A round figure or a standard is no id, and a URL with a personal value in it is another rule's."""
    text = name[part.start : part.end]
    if part.kind == "number":
        before = name[: part.start].lower()
        return is_milestone(text) or before.rstrip(" _-").endswith("iso") or before.endswith("0x")
    return part.kind == "url" and any(found.kind in ("email", "card", "iban", "phone") for found in personal(text))


def _confidence(name: str, part: Part) -> Confidence:
    """How sure it is that this part is another one in the next call."""
    text = name[part.start : part.end]
    match part.kind:
        case "number":
            is_version = name[: part.start].endswith(".") or name[part.end : part.end + 1] == "."
            sure = len(text) > 5 and not is_day(text) and not is_version
        case "date":
            sure = "." not in text  # 2026.11.24 is a version as often
        case "hex":
            sure = changes(text) >= 3 and not text.startswith("0x")  # an error code
        case "url":
            sure = _HOST.match(text) is None
        case _:
            sure = True
    return WORDS[part.kind][1] if sure else "possible"
