"""Track API v2 (reference §3): one operation, or a batch of them; and how a batch is cut and its answer mended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cio_proxy.apis.batches import items
from cio_proxy.apis.body import content_encoding, encoded, item_extents, without_items
from cio_proxy.apis.parts import Envelope, lower, mapping, person_of, text, timestamps
from cio_proxy.model import Call, Cut, Exchange, Finding, Json, Kind, Person, pointer

ENTITY = "/api/v2/entity"
BATCH = "/api/v2/batch"

PERSON_KINDS: Mapping[str, Kind] = {
    "identify": "identify",
    "event": "event",
    "page": "page",
    "screen": "screen",
    "delete": "delete",
    "suppress": "suppress",
    "unsuppress": "unsuppress",
    "add_relationships": "relationship_add",
    "delete_relationships": "relationship_delete",
    "add_device": "device_add",
    "delete_device": "device_delete",
    "merge": "merge",
}
OBJECT_KINDS: Mapping[str, Kind] = {
    "identify": "object_identify",
    "identify_anonymous": "object_identify",
    "delete": "object_delete",
    "add_relationships": "relationship_add",
    "delete_relationships": "relationship_delete",
    "event": "event",
}


def read(envelope: Envelope, path: bytes) -> tuple[Call, ...]:
    """The calls of a v2 exchange, in order."""
    path = path.rstrip(b"/")
    endpoint = path.decode("latin-1")
    if envelope.exchange.method != "POST" or endpoint not in (ENTITY, BATCH):
        return (envelope.call("other", "other"),)
    body = envelope.document.value
    if not isinstance(body, dict):
        return (envelope.unreadable(endpoint),)
    if endpoint == ENTITY:
        return (_operation(envelope, endpoint, body, "", None, len(envelope.document.raw)),)
    batch = body.get("batch")
    if not isinstance(batch, list) or not batch:
        return (envelope.call("unreadable", endpoint, reason="`batch` is not a list of operations", body=body),)
    return tuple(
        _operation(envelope, endpoint, item, f"/batch/{index}", index, size)
        for index, item, size in items(envelope, batch)
    )


def _operation(envelope: Envelope, endpoint: str, value: Json, at: str, item: int | None, size: int) -> Call:
    place: dict[str, Any] = {"item": item, "body_at": at, "size": size}
    if not isinstance(value, dict):
        return envelope.call("unreadable", endpoint, reason="the operation is not an object", **place)
    body = value
    kinds = OBJECT_KINDS if body.get("type") == "object" else PERSON_KINDS
    action = body.get("action")
    kind: Kind = "other"
    if body.get("type") == "delivery":
        kind = "report_metric"
    elif isinstance(action, str):
        kind = kinds.get(action.strip().lower(), "other")
    attributes = mapping(body.get("attributes"))
    identifiers, identifiers_at = mapping(body.get("identifiers")), f"{at}/identifiers"
    parts: dict[str, Any] = {}
    if kind == "merge":
        identifiers, identifiers_at = mapping(body.get("primary")), f"{at}/primary"
        place["merged"] = person_of(mapping(body.get("secondary")))
    person = Person()
    if kinds is PERSON_KINDS and kind != "report_metric":
        person = person_of(identifiers)
    name = body.get("name")
    times = timestamps(body, at, ("timestamp",))
    if kind in ("event", "page", "screen"):
        if person.main() is None:
            person = Person(anonymous=text(identifiers.get("anonymous_id")))
        parts = {"data": attributes, "data_at": f"{at}/attributes"}
    elif kind in ("device_add", "device_delete"):
        device = mapping(body.get("device"))
        times += timestamps(device, f"{at}/device", ("last_used",))
        parts = {"attributes": mapping(device.get("attributes")), "attributes_at": f"{at}/device/attributes"}
    else:
        if kind == "identify":
            times += timestamps(attributes, f"{at}/attributes", ("created_at", "_timestamp"))
            person = Person(
                person.id or text(attributes.get("id")),
                person.email or lower(text(attributes.get("email"))),
                person.phone,
                person.cio_id,
                text(attributes.get("anonymous_id")) or text(identifiers.get("anonymous_id")),
            )
        parts = {"attributes": attributes, "attributes_at": f"{at}/attributes"}
    return envelope.call(
        kind,
        endpoint,
        body=body,
        person=person,
        person_at=identifiers_at,
        name=name if isinstance(name, str) else None,
        name_at=pointer(at, "name"),
        timestamps=times,
        **place,
        **parts,
    )


def cut(exchange: Exchange, raw: bytes, findings: Sequence[Finding]) -> Cut | None:
    """The batch without the items that `findings` refuse, or None when nothing would be left of it."""
    refused = frozenset(f.item for f in findings if f.item is not None)
    count = len(item_extents(raw))
    kept = tuple(index for index in range(count) if index not in refused)
    if not kept or not refused:
        return None
    return Cut(
        body=encoded(without_items(raw, refused), content_encoding(exchange)),
        kept=kept,
        errors=tuple(_error(finding) for finding in findings),
    )


def _error(finding: Finding) -> dict[str, Json]:
    return {
        "batch_index": finding.item,
        "reason": "invalid",
        "field": finding.pointer.removeprefix(f"/batch/{finding.item}/").replace("/", "."),
        "message": f"blocked by cio-proxy: {finding.rule}: {finding.message}",
    }


def merged(cut: Cut, status: int, body: bytes) -> tuple[int, bytes]:
    """The answer to the batch as it was sent.

    200 and 207 become a 207 that names the upstream's refusals and ours by their original indexes; a
    400 keeps its shape with its indexes restored; everything else passes unchanged (design §3).
    """
    if status not in (200, 207, 400):
        return status, body
    answer: Json = None
    try:
        answer = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        if status == 400:
            return status, body
    upstream = mapping(answer).get("errors")
    theirs = [_restored(entry, cut.kept) for entry in upstream] if isinstance(upstream, list) else []
    if status == 400:
        return status, json.dumps({**mapping(answer), "errors": theirs}).encode() if theirs else body
    errors = sorted([*theirs, *cut.errors], key=_index)
    return 207, json.dumps({**mapping(answer), "errors": errors}).encode()


def refused_by(status: int, body: bytes | None, kept: tuple[int, ...] | None = None) -> frozenset[int]:
    """The items that a 207 lists, as indexes of the batch as sent."""
    if status != 207 or not body:
        return frozenset()
    try:
        errors = mapping(json.loads(body)).get("errors")
    except (ValueError, RecursionError):
        return frozenset()
    listed = errors if isinstance(errors, list) else []
    return frozenset(index for entry in listed if (index := _index(_restored(entry, kept))) >= 0)


def _restored(entry: Json, kept: tuple[int, ...] | None) -> Json:
    index = mapping(entry).get("batch_index")
    if kept is None or not isinstance(index, int) or not 0 <= index < len(kept):
        return entry
    return {**mapping(entry), "batch_index": kept[index]}


def _index(entry: Json | Mapping[str, Json]) -> int:
    index = entry.get("batch_index") if isinstance(entry, Mapping) else None
    return index if isinstance(index, int) else -1
