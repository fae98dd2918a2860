"""An event name holds a value that changes from call to call.

Every spelling is an event of its own to Customer.io. Names made from ids grow the list of events
without end: campaigns cannot be built on them, and the pickers in the product become unusable.

Personal values in names belong to `pii-in-name`: one fault, one finding.

Fix: use one fixed name, and send what varies in the event's data.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cio_proxy.model import Call, Confidence, Finding, Known, RuleInfo
from cio_proxy.recognise import Part, is_milestone, parts, personal, template, without_parts

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


def check(call: Call, known: Known) -> Iterator[Finding]:
    """One finding for the most telling variable part of the name."""
    name = call.name or ""
    found = [part for part in parts(name) if part.kind in WORDS and not _is_fixed(name, part)]
    if not found:
        return
    part = min(found, key=lambda part: WORDS[part.kind][1] != "certain")
    what, confidence = WORDS[part.kind]
    yield RULE.finding(
        call.name_at,
        f"the event name holds {what}: {template(name)[:120]}",
        effect="Each value makes an event of its own, and no campaign can be triggered by all of them.",
        fix="Use one fixed name and send the value in the event's data.",
        corrected=without_parts(name) or None,
        name=name,
        confidence=confidence,
    )


def _is_fixed(name: str, part: Part) -> bool:
    """A round figure or a standard is no id, and a URL with a personal value in it is another rule's."""
    text = name[part.start : part.end]
    if part.kind == "number":
        return is_milestone(text) or name[: part.start].rstrip(" _-").lower().endswith("iso")
    return part.kind == "url" and any(found.kind in ("email", "card", "iban", "phone") for found in personal(text))
