"""Pipelines API (reference §4): six calls and a batch of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cio_proxy.apis.batches import items
from cio_proxy.apis.parts import Envelope, lower, mapping, text, timestamps
from cio_proxy.model import NOBODY, Call, Json, Kind, Person, pointer

KINDS: Mapping[str, Kind] = {
    "identify": "identify",
    "track": "event",
    "page": "page",
    "screen": "screen",
    "group": "object_identify",
    "alias": "merge",
}
PATHS = frozenset(f"/v1/{name}".encode() for name in (*KINDS, "batch"))
RESERVED: Mapping[str, Kind] = {
    "User Deleted": "delete",
    "User Suppressed": "suppress",
    "User Unsuppressed": "unsuppress",
    "Device Created or Updated": "device_add",
    "Device Deleted": "device_delete",
    "Relationship Deleted": "relationship_delete",
    "Object Deleted": "object_delete",
    "Report Delivery Event": "report_metric",
    "Report Content Event": "report_metric",
}
"""Track calls whose name makes them something else (reference §4)."""


def read(envelope: Envelope, path: bytes) -> tuple[Call, ...]:
    """The calls of a Pipelines exchange, in order."""
    path = path.rstrip(b"/")
    if envelope.exchange.method != "POST" or path not in PATHS:
        return (envelope.call("other", "other"),)
    endpoint = path.decode("latin-1")
    body = envelope.document.value
    if not isinstance(body, dict):
        return (envelope.unreadable(endpoint),)
    if endpoint != "/v1/batch":
        return (_call(envelope, endpoint, body, "", None, len(envelope.document.raw), endpoint[4:]),)
    batch = body.get("batch")
    if not isinstance(batch, list) or not batch:
        return (envelope.call("unreadable", endpoint, reason="`batch` is not a list of calls", body=body),)
    return tuple(
        _call(envelope, endpoint, item, f"/batch/{index}", index, size, None)
        for index, item, size in items(envelope, batch)
    )


def _call(
    envelope: Envelope, endpoint: str, value: Json, at: str, item: int | None, size: int, type: str | None
) -> Call:
    place: dict[str, Any] = {"item": item, "body_at": at, "size": size}
    if not isinstance(value, dict):
        return envelope.call("unreadable", endpoint, reason="the call is not an object", **place)
    body = value
    kind = KINDS.get(type or str(body.get("type")), "other")
    traits, properties = mapping(body.get("traits")), mapping(body.get("properties"))
    person = Person(
        id=text(body.get("userId")),
        email=lower(text(traits.get("email"))) if kind == "identify" else None,
        anonymous=text(body.get("anonymousId")),
    )
    merged = Person(id=text(body.get("previousId"))) if kind == "merge" else NOBODY
    name = body.get("event" if kind == "event" else "name")
    if kind == "event" and isinstance(name, str):
        kind = RESERVED.get(name, kind)
    times = timestamps(body, at, ("timestamp", "sentAt", "originalTimestamp"), "iso8601")
    if kind == "identify":
        times += timestamps(traits, f"{at}/traits", ("created_at",))
        times += timestamps(traits, f"{at}/traits", ("createdAt",), "iso8601")
    return envelope.call(
        kind,
        endpoint,
        body=body,
        person=person,
        person_at=pointer(at, "userId"),
        merged=merged,
        name=name if isinstance(name, str) else None,
        name_at=pointer(at, "event" if "event" in body else "name"),
        attributes=traits,
        attributes_at=f"{at}/traits",
        data=properties,
        data_at=f"{at}/properties",
        timestamps=times,
        **place,
    )
