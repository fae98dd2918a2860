"""A personal value stands in a name: of an event, an attribute, a page, a segment.

Names are not personal data to Customer.io. They appear in lists, campaign conditions, exports and
logs, and deleting the person leaves them where they are.

Words are fine, values are not: `email_opened` is a good name, `email_ada@example.com` is not.

Fix: use a fixed name, and send the value as an attribute or in the event's data.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from cio_proxy.model import Call, Confidence, Finding, Known, RuleInfo, pointer
from cio_proxy.recognise import masked, personal

RULE = RuleInfo(
    id="pii-in-name",
    severity="error",
    category="4",
    kinds=frozenset({"event", "page", "screen", "identify", "object_identify", "content_write", "form_submit"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

WORDS: Mapping[str, tuple[str, Confidence]] = {
    "email": ("an e-mail address", "certain"),
    "card": ("a card number", "certain"),
    "iban": ("a bank account number", "certain"),
    "phone": ("a phone number", "likely"),
    "ip": ("an IP address", "likely"),
}


def check(call: Call, known: Known) -> Iterator[Finding]:
    """The name of the call, then the names of its attributes and data."""
    if call.name:
        what = {"page": "page", "screen": "screen", "content_write": "", "form_submit": "form"}.get(call.kind, "event")
        if call.endpoint == "/v1/segments":
            what = "segment"
        yield from _judge(call.name, call.name_at, f"{what} name".strip(), what in ("event", "segment"))
    for fields, at, what in (
        (call.attributes, call.attributes_at, "attribute name"),
        (call.data, call.data_at, "name in the event's data"),
    ):
        for name in fields:
            if len(name) > 4:
                yield from _judge(name, pointer(at, name), what, False)


def _judge(name: str, where: str, what: str, refusable: bool) -> Iterator[Finding]:
    text = unquote(name) if "%" in name else name
    found = [part for part in personal(text) if part.kind in WORDS]
    if not found:
        return
    part = min(found, key=lambda part: WORDS[part.kind][1] != "certain")
    value, confidence = WORDS[part.kind]
    yield RULE.finding(
        where,
        f"the {what} holds {value}: {masked(text)[:120]}",
        effect="Names stay in lists, conditions and exports when the person is deleted.",
        fix="Use a fixed name, and send the value as an attribute or in the event's data.",
        name=text,
        confidence=confidence,
        refusable=refusable and confidence == "certain",
    )
