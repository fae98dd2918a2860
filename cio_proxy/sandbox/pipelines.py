"""Pipelines: six calls and a batch of them (reference 4).

Permissive by default: what is wrong is dropped and answered 200. `X-Strict-Mode: 1` turns it into a 400
[spec: Pipelines]; that one wrong call then refuses its whole batch is unverified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from cio_proxy.model import Json
from cio_proxy.sandbox import limits, moments, wire
from cio_proxy.sandbox.people import Ref, ref_of
from cio_proxy.sandbox.state import Notes, Workspace, object_key
from cio_proxy.sandbox.wire import Reply, Request

PATH = re.compile(rb"/v1/(identify|track|page|screen|group|alias|batch)/?\Z")

CALL_LIMITS = 32 * 1024, 64 * 1024
BATCH_LIMITS = 500 * 1024, 1024 * 1024
"""Bytes: the specification's limit, and a newer page's (reference 4). Between them a call is kept, with a note."""

DROPPED = "Answered 200 in permissive mode and dropped: {} [spec: Pipelines, X-Strict-Mode]."
NEAR_LIMIT = "Over the specification's size limit but within that of a newer page: kept (unverified) (reference 4)."
NOT_ISO = "The timestamp is not ISO 8601: the time of receipt is stored (unverified) [spec: Pipelines]."
NOBODY = "Only an anonymousId: traits are not on a person until an identify has a userId too (unverified)."
NO_ALIAS = "Customer.io itself does nothing with alias: other destinations need it [spec: Pipelines, alias]."
CONVERTED = "`createdAt` was converted from ISO 8601 to the Unix seconds of `created_at` (reference 4)."


def answer(workspace: Workspace, request: Request) -> Reply:
    """Answer a request to one of the seven paths; credentials are checked before."""
    match = PATH.match(request.path)
    if match is None or request.method != "POST":
        reply = wire.pipelines_error(404, "not_found", "not found")
        reply.notes.append("Pipelines has no such route (reference 4); that it is answered 404 is unverified.")
        return reply
    kind = match.group(1).decode()
    try:
        body = request.mapping()
    except wire.Unreadable as error:
        return _rejected(request, [str(error)])
    if kind != "batch":
        return _answer_calls(workspace, request, [{**body, "type": kind}], len(request.body))
    items = body.get("batch")
    if not isinstance(items, list):
        return _rejected(request, ["batch must be an array"])
    if len(request.body) > BATCH_LIMITS[1]:
        return _rejected(request, ["the batch is too large"])
    reply = _answer_calls(workspace, request, items, 0)
    if len(request.body) > BATCH_LIMITS[0]:
        reply.notes.append(NEAR_LIMIT)
    return reply


def _answer_calls(workspace: Workspace, request: Request, calls: list[Json], length: int) -> Reply:
    """Carry out the valid calls. `length` is that of a single call's body; the parts of a batch are measured."""
    near = length > CALL_LIMITS[0] or len(request.body) > CALL_LIMITS[0]
    sizes = [length or (wire.size(call) if near else 0) for call in calls]
    faults = [[*_faults(call, size)] for call, size in zip(calls, sizes, strict=True)]
    if _strict(request) and any(faults):
        return _rejected(request, [fault for found in faults for fault in found])
    notes: Notes = []
    for call, size, found in zip(calls, sizes, faults, strict=True):
        notes += [DROPPED.format(fault) for fault in found]
        if not found:
            notes += [NEAR_LIMIT] if size > CALL_LIMITS[0] else []
            notes += _apply(workspace, cast("dict[str, Json]", call))
    return Reply(notes=notes)


def _strict(request: Request) -> bool:
    return request.header(b"x-strict-mode").strip().lower() in ("1", "true")


def _rejected(request: Request, faults: list[str]) -> Reply:
    if _strict(request):
        return wire.pipelines_error(400, "invalid", "; ".join(faults[:10]))
    return Reply(notes=[DROPPED.format(fault) for fault in faults])


def _faults(call: Json, size: int) -> Iterator[str]:
    if not isinstance(call, dict):
        yield "a call must be an object"
        return
    if size > CALL_LIMITS[1]:
        yield "the call is too large"
    traits = call.get("traits")
    email = traits.get("email") if isinstance(traits, dict) else None
    named = {name: bool(_text(call, name)) for name in ("userId", "anonymousId", "groupId", "previousId")}
    match call.get("type"):
        case "identify":
            if not (named["userId"] or named["anonymousId"] or (isinstance(email, str) and email)):
                yield "identify needs userId, anonymousId or traits.email"
        case "track":
            if not (named["userId"] or named["anonymousId"] or named["groupId"]):
                yield "track needs userId, anonymousId or groupId"
            yield from (fault.message for fault in limits.event(call.get("event"), None))
        case "page" | "screen" | "group" as kind:
            if not (named["userId"] or named["anonymousId"]):
                yield f"{kind} needs userId or anonymousId"
            if kind == "group" and not named["groupId"]:
                yield "group needs groupId"
        case "alias":
            if not (named["userId"] and named["previousId"]):
                yield "alias needs userId and previousId"
        case _:
            yield "type must be one of identify, track, page, screen, group, alias"
    for name in ("traits", "properties", "context"):
        if not isinstance(call.get(name), dict | None):
            yield f"{name} must be an object"


def _apply(workspace: Workspace, call: dict[str, Json]) -> Notes:
    """Carry out a valid call."""
    user = _text(call, "userId")
    ref = ref_of(user) if user else None
    match call["type"]:
        case "identify":
            return _identify(workspace, call, ref)
        case "alias":
            return [NO_ALIAS]
        case "group":
            return _group(workspace, call, ref)
        case "track" if ref is not None and (notes := _semantic(workspace, call, ref)) is not None:
            return notes
        case kind:
            return _event(workspace, call, ref, str(kind))


def _identify(workspace: Workspace, call: dict[str, Json], ref: Ref | None) -> Notes:
    traits = _mapping(call, "traits")
    if ref is None:
        email = _text(traits, "email")
        if not email:
            return [NOBODY]
        ref = Ref("email", email)
    body, sent, notes = dict(traits), {}, []
    if (created := moments.from_iso(body.get("createdAt"))) is not None:
        sent["created_at"] = body.pop("createdAt")
        body["created_at"] = int(created)
        notes.append(CONVERTED)
    elif "createdAt" in body:
        body["created_at"] = body.pop("createdAt")
    body.pop("id", None)
    body.pop("anonymous_id", None)
    if anonymous_id := _text(call, "anonymousId"):
        body["anonymous_id"] = anonymous_id
    return notes + workspace.identify(ref, body, at=moments.from_iso(call.get("timestamp")), sent=sent)


def _group(workspace: Workspace, call: dict[str, Json], ref: Ref | None) -> Notes:
    """Store the object, and link the person to it."""
    identifiers: dict[str, Json] = {"object_type_id": _text(call, "objectTypeId") or "1", "object_id": call["groupId"]}
    notes = workspace.keep_object(identifiers, call)
    if ref is None:
        return notes
    person, touched = workspace.touch(ref)
    if person is not None:
        workspace.relate(person, [{"identifiers": identifiers}])
    return notes + touched


def _semantic(workspace: Workspace, call: dict[str, Json], ref: Ref) -> Notes | None:
    """Events whose reserved names are commands (reference 4); where they carry the details is unverified."""
    properties = _mapping(call, "properties")
    device = _mapping(_mapping(call, "context"), "device") | _mapping(properties, "device")
    token = _text(device, "token") or _text(device, "id")
    identifiers: dict[str, Json] = {
        "object_type_id": properties.get("objectTypeId", "1"),
        "object_id": properties.get("objectId", call.get("groupId")),
    }
    match call["event"]:
        case "User Deleted":
            return workspace.delete(ref)
        case "User Suppressed":
            return workspace.suppress(ref)
        case "User Unsuppressed":
            return workspace.unsuppress(ref)
        case "Device Created or Updated":
            return workspace.add_device(ref, token, device)
        case "Device Deleted":
            return workspace.delete_device(ref, token)
        case "Object Deleted":
            workspace.objects.pop(object_key(identifiers), None)
            return []
        case "Relationship Deleted":
            if person := workspace.find(ref):
                workspace.relate(person, [{"identifiers": identifiers}], add=False)
            return []
        case "Report Delivery Event" | "Report Content Event":
            if delivery := workspace.delivery(str(properties.get("deliveryId"))):
                delivery.metrics.append(str(properties.get("metric"))[:50])
            return []
    return None


def _event(workspace: Workspace, call: dict[str, Json], ref: Ref | None, kind: str) -> Notes:
    timestamp = call.get("timestamp")
    moment = moments.from_iso(timestamp)
    properties = _mapping(call, "properties")
    name = call.get("event") if kind == "track" else call.get("name") or properties.get("url")
    anonymous_id = None if ref else _text(call, "anonymousId") or None
    notes = workspace.event(
        ref,
        name if isinstance(name, str) else "",
        properties,
        sent=call,
        kind="event" if kind == "track" and (ref or anonymous_id) else "object" if kind == "track" else kind,
        anonymous_id=anonymous_id,
        timestamp=moment,
        message_id=call.get("messageId"),
    )
    return [NOT_ISO, *notes] if timestamp is not None and moment is None else notes


def _mapping(values: dict[str, Json], name: str) -> dict[str, Json]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _text(values: dict[str, Json], name: str) -> str:
    """A text; null and numbers are none: cdp-py sends `null` for absence (reference 8.2)."""
    value = values.get(name)
    return value if isinstance(value, str) else ""
