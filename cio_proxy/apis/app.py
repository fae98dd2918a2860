"""App API (reference §5): sends and broadcast triggers are read, content is recognised, the rest passes."""

from __future__ import annotations

import re

from cio_proxy.apis.parts import Envelope, decoded_segment, lower, mapping, text, timestamps
from cio_proxy.model import Call, Person

_SEND = re.compile(rb"/v1/send/(email|push|sms|whatsapp|inbox_message|in_app)\Z")
_TRIGGER = re.compile(rb"/v1/campaigns/[^/]+/triggers\Z")
_ESP = re.compile(rb"/v1/esp/suppression/[^/]+/([^/]+)\Z")
_REPORTING = re.compile(rb"/v1/reporting_webhooks(/[^/]+)?\Z")
CONTENT = tuple(
    tuple(f"/v1/{route}".split("/"))
    for route in (
        "campaigns/{id}/actions",
        "campaigns/{id}/actions/{id}",
        "campaigns/{id}/actions/{id}/language/{language}",
        "broadcasts/{id}/actions",
        "broadcasts/{id}/actions/{id}",
        "broadcasts/{id}/actions/{id}/language/{language}",
        "newsletters",
        "newsletters/{id}",
        "newsletters/{id}/contents",
        "newsletters/{id}/contents/{id}",
        "newsletters/{id}/language/{language}",
        "newsletters/{id}/test_group/{id}/language/{language}",
        "newsletters/{id}/test_groups",
        "newsletters/{id}/send",
        "newsletters/{id}/schedule",
        "transactional",
        "transactional/{id}",
        "transactional/{id}/content/{id}",
        "transactional/{id}/contents",
        "transactional/{id}/language/{language}",
        "design_studio/emails",
        "design_studio/emails/{id}",
        "design_studio/emails/{id}/languages",
        "design_studio/emails/{id}/languages/{language}",
        "snippets",
        "snippets/{name}",
        "segments",
    )
)
"""Routes that carry the content of messages, or a name that is made for people (reference 5.3, 9.12)."""


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
    if content := content_route(path):
        return (_content(envelope, content),)
    return (envelope.call("other", "other"),)


def content_route(path: bytes) -> str | None:
    """The template of a path that carries content, or None. A template holds nothing that was sent."""
    segments = path.decode("latin-1").rstrip("/").split("/", 10)
    for route in CONTENT:
        if len(route) == len(segments) and all(
            mine == theirs or (mine.startswith("{") and theirs) for mine, theirs in zip(route, segments, strict=True)
        ):
            return "/".join(route)
    return None


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
    if envelope.exchange.method in ("GET", "HEAD"):
        return envelope.call("content_read", endpoint)
    if envelope.exchange.method not in ("POST", "PUT", "PATCH"):
        return envelope.call("other", endpoint)
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
