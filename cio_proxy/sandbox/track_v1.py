"""Track v1: every route of the specification, matched on the raw path (reference 2).

Which of two error envelopes a route uses is the specification's: `meta.errors` where it declares a list,
`meta.error` on merge and as the general form. What a body that is not JSON gets is unverified: 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import parse_qs

from cio_proxy.model import Json
from cio_proxy.sandbox import limits, wire
from cio_proxy.sandbox.limits import Fault
from cio_proxy.sandbox.people import Ref, ref_in, ref_of
from cio_proxy.sandbox.state import Workspace
from cio_proxy.sandbox.wire import Reply, Request

type Region = Literal["us", "eu"]
type Answer = Callable[[Workspace, Request, tuple[str, ...]], Reply]

UNAUTHENTICATED = re.compile(rb"/unsubscribe/|(?:/api/v1)?/push/events/?\Z|/api/v1/metrics/?\Z")
"""Routes without credentials [spec: Track]; ruby posts push events to the host root (reference 8.2)."""

NO_ROUTE = "No such route in Track v1 (reference 2); that it is answered 404 is unverified."
UNENCODED = (
    "The path has an unencoded `+`, which is documented to match nobody [docs: APIs overview]; "
    "here it is taken as it stands (unverified)."
)
UNKNOWN_DELIVERY = "No such delivery: answered 200, and nothing happened (unverified)."
METRICS = ("bounced", "clicked", "converted", "deferred", "delivered", "dropped", "opened", "spammed")


class Route(NamedTuple):
    """One line of the route table of reference 2; `listed` says that its 400 holds `meta.errors`."""

    method: str
    pattern: re.Pattern[bytes]
    answer: Answer
    listed: bool


def answer(workspace: Workspace, request: Request, region: Region) -> Reply:
    """Answer a request to Track v1; credentials are checked before."""
    if request.method == "GET" and request.path.rstrip(b"/") == b"/api/v1/accounts/region":
        host = "track.customer.io" if region == "us" else "track-eu.customer.io"
        return Reply(200, {"url": f"https://{host}", "region": region, "environment_id": 123})
    for route in ROUTES:
        if route.method == request.method and (match := route.pattern.match(request.path)):
            try:
                reply = route.answer(workspace, request, tuple(wire.segment(part) for part in match.groups()))
            except (wire.Unreadable, Refused) as refused:
                texts = [fault.message for fault in refused.faults] if isinstance(refused, Refused) else [str(refused)]
                return wire.meta_errors(400, texts) if route.listed else wire.meta_error(400, texts[0])
            if b"+" in request.path:
                reply.notes.append(UNENCODED)
            return reply
    reply = wire.meta_error(404, "not found")
    reply.notes.append(NO_ROUTE)
    return reply


class Refused(Exception):
    """Faults that make a request be answered 400."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


def _check(faults: list[Fault]) -> None:
    if faults:
        raise Refused(faults)


def _identify(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    body = request.mapping()
    _check([*limits.attributes(body)])
    return Reply(notes=workspace.identify(ref_of(parts[0]), body))


def _nobody(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    raise Refused([Fault("required", "id", "id attribute must be present")])


def _delete(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    return Reply(notes=workspace.delete(ref_of(parts[0])))


def _suppress(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    return Reply(notes=workspace.suppress(ref_of(parts[0])))


def _unsuppress(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    return Reply(notes=workspace.unsuppress(ref_of(parts[0])))


def _event(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    body = request.mapping()
    kind = body.get("type")
    _check([*limits.event(body.get("name"), body.get("data"), page=kind in ("page", "screen"))])
    anonymous_id = body.get("anonymous_id")
    notes = workspace.event(
        ref_of(parts[0]) if parts else None,
        str(body["name"]),
        body.get("data"),
        sent=body,
        kind=kind if kind in ("page", "screen") else "event",
        anonymous_id=anonymous_id if isinstance(anonymous_id, str) and anonymous_id and not parts else None,
        timestamp=body.get("timestamp"),
        event_id=body.get("id"),
    )
    return Reply(notes=notes)


def _add_device(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    device = request.mapping().get("device")
    values = device if isinstance(device, dict) else {}
    _check([*limits.device(values)])
    return Reply(notes=workspace.add_device(ref_of(parts[0]), str(values.get("id", values.get("token"))), values))


def _delete_device(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    return Reply(notes=workspace.delete_device(ref_of(parts[0]), parts[1]))


def _merge(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    body = request.mapping()
    sides = [body.get("primary"), body.get("secondary")]
    for name, side in zip(("primary", "secondary"), sides, strict=True):
        _check([*limits.one_person(side, ("id", "email", "cio_id"), name)])
    return Reply(notes=workspace.merge(ref_in(sides[0]), ref_in(sides[1])))


def _segment(*, add: bool) -> Answer:
    def change(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
        query = parse_qs(request.query.decode("latin-1"))
        kind = query.get("id_type", ["id"])[0]
        ids = request.mapping().get("ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= 1000:
            raise Refused([Fault("invalid", "ids", "ids must be an array of 1 to 1000 strings")])
        if not all(isinstance(value, str) for value in ids):
            raise Refused([Fault("invalid", "ids", "ids must be strings")])
        if kind not in ("id", "email", "cio_id"):
            raise Refused([Fault("invalid", "id_type", "id_type must be one of id, email, cio_id")])
        return Reply(notes=workspace.segment(parts[0], (Ref(kind, str(value)) for value in ids), add=add))

    return change


def _form(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    """A form submission creates or updates a person; a field mapped to id or email is a setting we cannot see."""
    fields = request.mapping().get("data")
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise Refused([Fault("invalid", "data", "data must be an object whose values are strings")])
    named = [kind for kind in ("id", "email") if fields.get(kind)]
    if len(named) != 1:
        raise Refused([Fault("required", "data", "data must have exactly one of id, email")])
    ref = Ref(named[0], str(fields[named[0]]))
    _check([*limits.attributes(fields)])
    notes = workspace.identify(ref, fields)
    notes += workspace.event(ref, parts[0] or "form", fields, sent={"data": fields}, kind="form")
    return Reply(204, None, notes)


def _metric(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    """A delivery metric. The specification declares no error, so a wrong report is answered 200 (unverified)."""
    body = request.mapping()
    metric = body.get("metric", body.get("event"))
    delivery = workspace.delivery(str(body.get("delivery_id")))
    if not isinstance(metric, str) or metric not in METRICS:
        return Reply(notes=["The metric is not one that can be reported: ignored (unverified)."])
    if delivery is None:
        return Reply(notes=[UNKNOWN_DELIVERY])
    delivery.metrics.append(metric)
    return Reply()


def _unsubscribe(workspace: Workspace, request: Request, parts: tuple[str, ...]) -> Reply:
    if request.mapping().get("unsubscribe") is not True:
        raise Refused([Fault("invalid", "unsubscribe", "unsubscribe must be true")])
    delivery = workspace.delivery(parts[0])
    if delivery is None or delivery.person is None:
        return Reply(notes=[UNKNOWN_DELIVERY])
    sent: dict[str, Json] = {"unsubscribed": True}
    return Reply(notes=workspace.identify(Ref("cio_id", delivery.person), sent))


def _route(method: str, pattern: bytes, answer: Answer, *, listed: bool = False) -> Route:
    return Route(method, re.compile(pattern + rb"/?\Z", re.DOTALL), answer, listed)


# An identifier is one segment: one with a raw slash, as async-customerio sends it, finds no route (reference 8.2).
_CUSTOMER = rb"/api/v1/customers/([^/]+)"
ROUTES = (
    _route("PUT", _CUSTOMER, _identify),
    _route("PUT", rb"/api/v1/customers", _nobody),
    _route("DELETE", _CUSTOMER, _delete),
    _route("PUT", _CUSTOMER + rb"/devices", _add_device, listed=True),
    _route("DELETE", _CUSTOMER + rb"/devices/([^/]+)", _delete_device, listed=True),
    _route("POST", _CUSTOMER + rb"/suppress", _suppress),
    _route("POST", _CUSTOMER + rb"/unsuppress", _unsuppress),
    _route("POST", _CUSTOMER + rb"/events", _event, listed=True),
    _route("POST", rb"/api/v1/events", _event, listed=True),
    _route("POST", rb"/api/v1/merge_customers", _merge),
    _route("POST", rb"/api/v1/segments/([^/]+)/add_customers", _segment(add=True), listed=True),
    _route("POST", rb"/api/v1/segments/([^/]+)/remove_customers", _segment(add=False), listed=True),
    _route("POST", rb"/api/v1/forms/([^/]+)/submit", _form, listed=True),
    _route("POST", rb"/api/v1/metrics", _metric),
    _route("POST", rb"(?:/api/v1)?/push/events", _metric),
    _route("POST", rb"/unsubscribe/([^/]+)", _unsubscribe),
)
