"""Track v2: one operation, or a batch of them (reference 3).

The specification gives an error three words, `reason`, `field` and `message`; which words exactly is unverified.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from cio_proxy.model import Json
from cio_proxy.sandbox import limits, wire
from cio_proxy.sandbox.limits import Fault
from cio_proxy.sandbox.people import Ref, ref_in
from cio_proxy.sandbox.state import Notes, Workspace, object_key
from cio_proxy.sandbox.wire import Reply, Request

ITEM_LIMIT, BATCH_LIMIT = 32 * 1024, 500 * 1024
"""Bytes of one operation, and of a batch [spec: Track]."""

PERSON = ("id", "email", "phone", "cio_id")
EVENTS = ("event", "page", "screen")
ACTIONS = {
    "person": (
        *("identify", "delete", "suppress", "unsuppress", "merge", *EVENTS),
        *("add_relationships", "delete_relationships", "add_device", "delete_device"),
    ),
    # `event` is sent by async-customerio 2.18.0; the specification does not list it.
    "object": ("identify", "identify_anonymous", "delete", "add_relationships", "delete_relationships", "event"),
    "delivery": ("event",),
}
OBJECT_EVENT = (
    "An event of an object: the specification lists no such action; kept (unverified) [async-customerio 2.18.0]."
)


def answer(workspace: Workspace, request: Request) -> Reply:
    """Answer a request to Track v2; credentials are checked before."""
    path = request.path.rstrip(b"/")
    if request.method != "POST" or path not in (b"/api/v2/entity", b"/api/v2/batch"):
        reply = wire.meta_error(404, "not found")
        reply.notes.append("No such route in Track v2 (reference 3); that it is answered 404 is unverified.")
        return reply
    try:
        body = request.mapping()
    except wire.Unreadable as error:
        return _refused([Fault("invalid", "", str(error))])
    return _entity(workspace, request, body) if path.endswith(b"entity") else _batch(workspace, request, body)


def _entity(workspace: Workspace, request: Request, body: dict[str, Json]) -> Reply:
    if len(request.body) > ITEM_LIMIT:
        return _refused([Fault("invalid", "", "request body cannot be larger than 32KB")])
    if faults := [*_faults(body)]:
        return _refused(faults)
    return Reply(notes=_apply(workspace, body))


def _batch(workspace: Workspace, request: Request, body: dict[str, Json]) -> Reply:
    """All valid items count, the others are listed with 207; that this holds when none is valid is unverified."""
    items = body.get("batch")
    if not isinstance(items, list) or not items:
        return _refused([Fault("required", "batch", "batch must be an array with at least one operation")])
    if len(request.body) > BATCH_LIMIT:
        return _refused([Fault("invalid", "batch", "batch cannot be larger than 500KB")])
    errors: list[Json] = []
    notes: Notes = []
    for index, item in enumerate(items):
        if faults := [*_item_faults(item, whole=len(request.body))]:
            errors += [{"batch_index": index} | _error(fault) for fault in faults]
        else:
            notes += [f"Item {index}: {note}" for note in _apply(workspace, cast("dict[str, Json]", item))]
    return Reply(207 if errors else 200, {"errors": errors} if errors else {}, notes)


def _item_faults(item: Json, *, whole: int) -> Iterator[Fault]:
    if whole > ITEM_LIMIT and wire.size(item) > ITEM_LIMIT:
        yield Fault("invalid", "", "operation cannot be larger than 32KB")
    elif isinstance(item, dict):
        yield from _faults(item)
    else:
        yield Fault("invalid", "", "operation must be an object")


def _faults(item: dict[str, Json]) -> Iterator[Fault]:
    kind, action = item.get("type"), item.get("action")
    actions = ACTIONS.get(kind, ()) if isinstance(kind, str) else ()
    if not actions:
        yield Fault("required" if kind is None else "invalid", "type", "type must be one of person, object, delivery")
        return
    if action not in actions:
        yield Fault("required" if action is None else "invalid", "action", f"action is not one of type {kind}")
        return
    if action == "merge":
        yield from limits.one_person(item.get("primary"), PERSON, "primary")
        yield from limits.one_person(item.get("secondary"), PERSON, "secondary")
    elif kind == "person":
        yield from limits.one_person(item.get("identifiers"), PERSON, "identifiers")
    elif kind == "object" and not object_key(item.get("identifiers")):
        yield Fault("required", "identifiers", "identifiers must have object_type_id and object_id, or cio_object_id")
    elif kind == "delivery":
        yield from _delivery_faults(item)
    attributes = item.get("attributes")
    if action in EVENTS and kind != "delivery":
        yield from limits.event(item.get("name"), attributes, field="attributes", page=action != "event")
    elif attributes is not None and not isinstance(attributes, dict):
        yield Fault("invalid", "attributes", "attributes must be an object")
    elif isinstance(attributes, dict) and action == "identify":
        yield from limits.attributes(attributes)
    if action in ("add_device", "delete_device"):
        yield from _device_faults(item.get("device"), add=action == "add_device")
    if action in ("add_relationships", "delete_relationships") and not isinstance(item.get("cio_relationships"), list):
        yield Fault("required", "cio_relationships", "cio_relationships must be an array")


def _device_faults(device: Json, *, add: bool) -> Iterator[Fault]:
    """The specification wants token and platform; that deleting needs no platform is unverified."""
    values = device if isinstance(device, dict) else {}
    yield from limits.device(values if add else {"platform": "ios", **values})


def _delivery_faults(item: dict[str, Json]) -> Iterator[Fault]:
    identifiers, attributes = item.get("identifiers"), item.get("attributes")
    if not isinstance(identifiers, dict) or not isinstance(identifiers.get("id"), str):
        yield Fault("required", "identifiers.id", "identifiers.id must be a delivery id")
    if item.get("name") not in ("opened", "converted", "delivered"):
        yield Fault("invalid", "name", "name must be one of opened, converted, delivered")
    if not isinstance(attributes, dict) or not attributes.get("device_token"):
        yield Fault("required", "attributes.device_token", "attributes.device_token is required")


def _apply(workspace: Workspace, item: dict[str, Json]) -> Notes:
    """Carry out a valid operation."""
    if item["type"] == "object":
        return _apply_to_object(workspace, item)
    if item["type"] == "delivery":
        identifiers = cast("dict[str, Json]", item["identifiers"])
        if (delivery := workspace.delivery(str(identifiers["id"]))) is None:
            return ["No such delivery: nothing happened (unverified)."]
        delivery.metrics.append(str(item["name"]))
        return []
    if item["action"] == "merge":
        return workspace.merge(ref_in(item["primary"]), ref_in(item["secondary"]))
    ref = cast("Ref", ref_in(item["identifiers"]))
    attributes = item.get("attributes")
    values = attributes if isinstance(attributes, dict) else {}
    match item["action"]:
        case "identify":
            links: dict[str, Json] = (
                {"cio_relationships": item["cio_relationships"]} if "cio_relationships" in item else {}
            )
            return workspace.identify(ref, {**values, **links}, at=item.get("timestamp"))
        case "event" | "page" | "screen" as kind:
            return workspace.event(
                ref,
                str(item["name"]),
                attributes,
                sent=item,
                kind=kind,
                timestamp=item.get("timestamp"),
                event_id=item.get("id"),
            )
        case "delete":
            return workspace.delete(ref)
        case "suppress":
            return workspace.suppress(ref)
        case "unsuppress":
            return workspace.unsuppress(ref)
        case "add_device" | "delete_device" as action:
            device = cast("dict[str, Json]", item["device"])
            token = str(device.get("id", device.get("token")))
            return (
                workspace.add_device(ref, token, device)
                if action == "add_device"
                else workspace.delete_device(ref, token)
            )
        case action:
            person, notes = workspace.touch(ref)
            if person is not None:
                workspace.relate(person, item["cio_relationships"], add=action == "add_relationships")
            return notes


def _apply_to_object(workspace: Workspace, item: dict[str, Json]) -> Notes:
    key = object_key(item["identifiers"])
    if item["action"] == "delete":
        workspace.objects.pop(key, None)
        return []
    if item["action"] == "event":
        notes = workspace.event(None, str(item["name"]), item.get("attributes"), sent=item, kind="object")
        return [OBJECT_EVENT, *notes]
    return workspace.keep_object(item["identifiers"], item)


def _refused(faults: list[Fault]) -> Reply:
    return Reply(400, {"errors": [_error(fault) for fault in faults]})


def _error(fault: Fault) -> dict[str, Json]:
    return {"reason": fault.reason, "field": fault.field, "message": fault.message}
