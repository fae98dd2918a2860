"""The App API: sending and broadcasts as far as a sender can see them; the rest is answered without content.

Texts of errors are unverified; their envelopes are the reference's (5.1, 5.5).
"""

from __future__ import annotations

import base64
import re
import secrets

from cio_proxy.model import Json
from cio_proxy.sandbox import moments, wire
from cio_proxy.sandbox.people import Delivery, Person, Ref, ref_in
from cio_proxy.sandbox.state import MAX_EVENTS, SUPPRESSED, Workspace
from cio_proxy.sandbox.wire import Reply, Request

SEND = re.compile(rb"/v1/send/(email|push|sms|whatsapp|inbox_message|in_app)/?\Z")
TRIGGER = re.compile(rb"/v1/campaigns/([^/]+)/triggers/?\Z")
BLOCK_MAIL = re.compile(rb"/v1/esp/suppression/(?:blocks|bounces|spam_reports|invalid_emails)/([^/]+)/?\Z")

# What stands after `/v1/` in the routes of [customerio-node 5.2.0 lib/api].
RESOURCES = frozenset(
    b"activities assets broadcasts campaigns collections customers data_index design_studio esp exports imports info "
    b"messages newsletters object_types objects reporting_webhooks segments sender_identities snippets "
    b"subscription_center subscription_channels subscription_topics transactional workspaces".split()
)

EMULATED = "The sandbox answers this route without content."
UNKNOWN_PERSON = "The identifiers name nobody in the sandbox; what Customer.io does is unverified."
SKIPPED = "The person is unsubscribed and `send_to_unsubscribed` is false: not sent (reference 5.1)."
BLOCKED = "The address is suppressed at the mail provider: dropped, not sent (reference 5.4, 7.3)."
NO_DEVICE = "The person has no device: a push reaches nobody (reference 9.10)."
MILLISECONDS = "`send_at` is in {}: it is Unix seconds, so this is the year {} (reference 6.4)."


def answer(workspace: Workspace, request: Request) -> Reply:
    """Answer a request to the App API; credentials are checked before. `/v1/api/…` is an older alias."""
    path = re.sub(rb"\A/v1/api/", b"/v1/", request.path)
    if request.method == "POST" and (match := SEND.match(path)):
        return _send(workspace, request, match.group(1).decode())
    if request.method == "POST" and (match := TRIGGER.match(path)):
        return _trigger(workspace, request, wire.segment(match.group(1)))
    if request.method in ("POST", "DELETE") and (match := BLOCK_MAIL.match(path)):
        workspace.block_mail(wire.segment(match.group(1)), block=request.method == "POST")
        return Reply() if request.method == "POST" else Reply(204, None)
    parts = path.split(b"/")
    if len(parts) > 2 and parts[2] in RESOURCES:
        return Reply(notes=[EMULATED])
    return wire.app_error(404, "not found")


def _send(workspace: Workspace, request: Request, kind: str) -> Reply:
    try:
        body = request.mapping()
    except wire.Unreadable as error:
        return wire.meta_error(400, str(error))
    if fault := _fault(body, kind):
        return wire.meta_error(400, fault)
    delivery = Delivery(
        delivery_id=base64.urlsafe_b64encode(secrets.token_bytes(18)).decode(),
        kind=kind,
        queued_at=int(workspace.clock()),
        sent=body,
        to=body.get("to"),
    )
    ref = ref_in(body.get("identifiers"))
    person = workspace.find(ref)
    delivery.person = person.cio_id if person else None
    _judge(workspace, delivery, ref, person)
    workspace.deliveries.add(delivery, len(request.body) + 500)
    answered: dict[str, Json] = {"delivery_id": delivery.delivery_id, "queued_at": delivery.queued_at}
    return Reply(200, answered, [*delivery.notes])


def _fault(body: dict[str, Json], kind: str) -> str:
    """Why a message is refused; empty if it is not (reference 5.1)."""
    identifiers = body.get("identifiers")
    if not isinstance(identifiers, dict) or len(identifiers.keys() & {"id", "email", "cio_id"}) != 1:
        return "identifiers must have exactly one of id, email, cio_id"
    template = body.get("transactional_message_id")
    if kind == "email":
        if not isinstance(body.get("to"), str) or not body["to"]:
            return "to is required"
        if template is None and not all(body.get(name) for name in ("body", "subject", "from")):
            return "transactional_message_id, or body, subject and from, are required"
    return ""


def _judge(workspace: Workspace, delivery: Delivery, ref: Ref | None, person: Person | None) -> None:
    """Say what becomes of an accepted message."""
    if ref is not None and workspace.suppressed(ref):
        delivery.state = "skipped"
        delivery.notes.append(SUPPRESSED)
    elif person is None:
        delivery.notes.append(UNKNOWN_PERSON)
    elif person.unsubscribed and delivery.sent.get("send_to_unsubscribed", True) is False:
        delivery.state = "skipped"
        delivery.notes.append(SKIPPED)
    elif delivery.kind == "push" and not person.devices:
        delivery.state = "skipped"
        delivery.notes.append(NO_DEVICE)
    if delivery.kind == "email" and str(delivery.to).casefold() in workspace.blocked_mail:
        delivery.state = "dropped"
        delivery.notes.append(BLOCKED)
    later = moments.number(delivery.sent.get("send_at"))
    if later is not None and (unit := moments.wrong_unit(later)):
        delivery.notes.append(MILLISECONDS.format(unit, moments.year_of(later)))


def _trigger(workspace: Workspace, request: Request, broadcast: str) -> Reply:
    """Trigger a broadcast. The answer `{"id": …}` is unverified; the limit of one in 10 s is not emulated."""
    try:
        body = request.mapping()
    except wire.Unreadable as error:
        return wire.meta_error(400, str(error))
    workspace.triggers += 1
    trigger = workspace.triggers
    delivery = Delivery(
        delivery_id=f"broadcast-{broadcast[:50]}-{trigger}",
        kind="broadcast",
        queued_at=int(workspace.clock()),
        sent=body,
        state="queued",
        notes=_audience_notes(workspace, body),
    )
    workspace.deliveries.add(delivery, len(request.body) + 500)
    return Reply(200, {"id": trigger}, [*delivery.notes])


def _audience_notes(workspace: Workspace, body: dict[str, Json]) -> list[str]:
    """Whom a broadcast to named people does not reach."""
    refs = [Ref(kind, value) for kind in ("id", "email") for value in _texts(body.get(f"{kind}s"))]
    per_user = body.get("per_user_data")
    refs += [ref for one in (per_user if isinstance(per_user, list) else []) if (ref := ref_in(one))]
    people = [workspace.find(ref) for ref in refs[:MAX_EVENTS]]
    unknown = sum(person is None for person in people)
    mute = sum(person is not None and "email" not in person.refs for person in people)
    notes = []
    if unknown:
        notes.append(f"{unknown} of {len(people)} recipients are unknown; what Customer.io does is unverified.")
    if mute:
        notes.append(
            f"{mute} of {len(people)} recipients have no email address: no mail reaches them (reference 9.10)."
        )
    return notes


def _texts(values: Json) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
