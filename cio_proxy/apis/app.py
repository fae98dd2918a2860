"""App API (reference §5): sends and broadcast triggers are read, content is recognised, the rest passes."""

from __future__ import annotations

import re

from cio_proxy.apis.parts import Envelope, decoded_segment, lower, mapping, text, timestamps
from cio_proxy.model import Call, Person

_SEND = re.compile(rb"/v1/send/(email|push|sms|whatsapp|inbox_message|in_app)\Z")
_TRIGGER = re.compile(rb"/v1/campaigns/[^/]+/triggers\Z")
_ESP = re.compile(rb"/v1/esp/suppression/[^/]+/([^/]+)\Z")
_REPORTING = re.compile(rb"/v1/reporting_webhooks(/[^/]+)?\Z")
_CONTENT = re.compile(
    rb"/v1/(?:(?:campaigns|broadcasts)/[^/]+/actions/.+|newsletters(?:/.+)?|transactional(?:/.+)?"
    rb"|design_studio/emails(?:/.+)?|snippets(?:/.+)?|segments)\Z",
    re.DOTALL,
)


def read(envelope: Envelope, path: bytes) -> tuple[Call, ...]:
    """The one call of an App API exchange. `/v1/api/` is an older spelling of `/v1/` (reference 1.1)."""
    if path.startswith(b"/v1/api/"):
        path = b"/v1/" + path[8:]
    method = envelope.exchange.method
    if method == "POST" and (match := _SEND.match(path)):
        return (_send(envelope, f"/v1/send/{match[1].decode()}"),)
    if method == "POST" and _TRIGGER.match(path):
        return (_trigger(envelope, "/v1/campaigns/{id}/triggers"),)
    if match := _ESP.match(path):
        person = Person(email=decoded_segment(match[1]).lower())
        return (envelope.call("other", "/v1/esp/suppression/{type}/{email}", person=person),)
    if match := _REPORTING.match(path):
        endpoint = "/v1/reporting_webhooks/{id}" if match[1] else "/v1/reporting_webhooks"
        return (envelope.call("other", endpoint, body=mapping(envelope.document.value)),)
    if match := _CONTENT.match(path):
        return (_content(envelope, f"/v1/{path[4:].decode('latin-1').partition('/')[0]}"),)
    return (envelope.call("other", "other"),)


def _send(envelope: Envelope, endpoint: str) -> Call:
    body = envelope.document.value
    if not isinstance(body, dict):
        return envelope.unreadable(endpoint)
    identifiers = mapping(body.get("identifiers"))
    person = Person(
        text(identifiers.get("id")), lower(text(identifiers.get("email"))), cio_id=text(identifiers.get("cio_id"))
    )
    return envelope.call(
        "send_message",
        endpoint,
        body=body,
        person=person,
        person_at="/identifiers",
        timestamps=timestamps(body, "", ("send_at",)),
    )


def _trigger(envelope: Envelope, endpoint: str) -> Call:
    body = envelope.document.value
    if not isinstance(body, dict):
        return (
            envelope.unreadable(endpoint) if envelope.document.faults else envelope.call("broadcast_trigger", endpoint)
        )
    return envelope.call("broadcast_trigger", endpoint, body=body)


def _content(envelope: Envelope, endpoint: str) -> Call:
    if envelope.exchange.method not in ("POST", "PUT"):
        return envelope.call("content_read", endpoint)
    body = envelope.document.value
    if not isinstance(body, dict):
        return envelope.unreadable(endpoint) if envelope.document.faults else envelope.call("content_write", endpoint)
    named = "segment" if endpoint == "/v1/segments" and "segment" in body else ""
    name = mapping(body.get(named)).get("name") if named else body.get("name")
    return envelope.call(
        "content_write",
        endpoint,
        body=body,
        name=name if isinstance(name, str) else None,
        name_at=f"/{named}/name" if named else "/name",
    )
