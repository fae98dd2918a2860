"""Mail to an address came back for good, and the app goes on as if it had not.

With Customer.io's own delivery the provider itself stops mail to an address that bounced for good, and the person
stays in the workspace; over an SMTP server of one's own nobody does. Either way the person is not
reached, and providers judge a sender by the mail that comes back.

A webhook does not say whether a bounce is for good; the SMTP code in its text does (5.1.1 is, 4.2.2 is not).
Without a code nothing is said, nor where a mail was refused for its content or its sender (5.7.1). Every
reaction that this proxy can see counts, whoever sends it and over which API: an opt-out, an attribute or event that
marks the address, a new or cleared address, suppression at the provider or in Customer.io, deletion. So does a
`dropped` webhook, which shows that the address is suppressed, and mail that arrives later. What an app writes into its
own database alone cannot be seen: such an app switches this rule off.

A send to the address, or an identify that gives it again once the time to react is over, is `certain` where the code
says that there is no such mailbox; the silence alone is `likely`.

Fix: take the address out of the profile or set `unsubscribed: true`, so that nothing is sent to it and a new one can
be asked for; or add it to the provider's list with `POST /v1/esp/suppression/bounces/{email}`. Track's `suppress` is no
way to handle a bounce: it deletes the profile and blocks its id for good, on every channel.

See https://docs.customer.io/journeys/esp-suppression/
See https://docs.customer.io/journeys/webhooks/ (reporting webhooks: bounced)
See RFC 3463 (enhanced mail system status codes)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.bounces import permanence, reacts
from cio_proxy.model import (
    BOUNCED,
    MINUTE,
    REACTED,
    Call,
    Confidence,
    Deadline,
    Fact,
    Finding,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Unavailable,
)

DAY = 86_400.0
REMEMBERED = 30 * DAY
NO_MAILBOX = "no-mailbox"
"""The kind of the fact that a code said that there is no such mailbox."""
TOLD = "bounce-told"
ARRIVING = ("delivered", "opened", "clicked")

RULE = RuleInfo(
    id="ignored-bounce",
    severity="error",
    category="6",
    kinds=frozenset({"webhook_metric", "identify", "send_message"}),
    apis=frozenset({"webhooks", "track_v1", "track_v2", "pipelines", "app"}),
    actions=("off", "log", "default"),
    params={
        "window": Param(2 * DAY, "how long an app may take to react: a nightly job has had its turn", "duration"),
        "grace": Param(600.0, "how long after a bounce a send may have been under way already", "duration"),
    },
)

FIX = (
    "Clear or correct the address, set `unsubscribed: true`, or POST /v1/esp/suppression/bounces/{email}. Track's"
    " `suppress` deletes the profile and blocks its id for good: leave it for requests to be forgotten."
)
NOWHERE = "which workspace a webhook or a send is of is not known: name its keys in `workspaces`"
NO_CODE = "no SMTP code tells whether a bounce is for good"
_ADDRESS = re.compile(r"[^\s<>,;\"@]{1,64}+@[^\s<>,;\"@]{1,255}+")


def needs(call: Call, people: People) -> Iterator[Key]:
    """What came back, of the addresses and the person that a call is about."""
    workspace = call.joined
    if workspace is not None and (call.kind != "identify" or workspace != call.workspace):
        for subject in (*map(_at, _addresses(call)), *call.identifiers):
            yield Key(BOUNCED, workspace, subject)


def check(call: Call, known: Known) -> Iterable[Finding | Unavailable]:
    """A finding for mail to an address, or an identify with it, that is known to be none."""
    if call.kind == "webhook_metric":
        return _unable(call)
    if call.joined is None:
        return (Unavailable(NOWHERE),) if call.kind == "send_message" else ()
    return [_finding(call, *each) for each in _ignored(call, call.joined, known)]


def _unable(call: Call) -> Iterable[Unavailable]:
    if not _is_bounce(call):
        return ()
    if call.joined is None:
        return (Unavailable(NOWHERE),)
    return (Unavailable(NO_CODE),) if _code(call) is None else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That mail came back for good, and until when there is to be a reaction."""
    if call.joined is None or not _is_bounce(call) or (code := _code(call)) not in ("address", "permanent"):
        return ()
    return _taught(call, call.joined, code == "address", params["window"])


def _taught(call: Call, workspace: str, is_sure: bool, window: float) -> Iterator[Fact]:
    addresses = [_at(address) for address in _addresses(call)]
    subjects = tuple(dict.fromkeys((*addresses, *call.identifiers)))
    span = call.seen
    for subject in subjects:
        yield Fact(Key(BOUNCED, workspace, subject), span, REMEMBERED, announced=True)
        if is_sure:
            yield Fact(Key(NO_MAILBOX, workspace, subject), span, REMEMBERED)
    if not subjects or _is_gone(call):
        return
    reactions = (*subjects, f"delivery:{call.data.get('delivery_id')}")
    watch = (*(Key(REACTED, workspace, subject) for subject in reactions), Key(TOLD, workspace, subjects[0]))
    deadline = Deadline(call.at + window, RULE.id, watch, _unanswered())
    yield Fact(Key(RULE.id, workspace, subjects[0]), deadline, window + DAY)


def review(call: Call, outcome: Outcome, known: Known) -> Iterator[Fact]:
    """That an address is in use after all or was replaced, and what was told of already."""
    workspace = call.joined
    if workspace is None or outcome.kind == "refused":
        return
    span = call.seen
    if call.kind == "webhook_metric":
        if call.name in ARRIVING and call.body.get("object_type") == "email":
            for subject in map(_at, _addresses(call)):
                bounced = known.span(Key(BOUNCED, workspace, subject))
                if bounced and _happened(call) >= bounced.last:
                    yield Fact(Key(REACTED, workspace, subject), span, REMEMBERED + 10 * DAY)
        return
    if call.kind == "identify":
        for subject in _replaced(call, workspace, known):
            yield Fact(Key(REACTED, workspace, subject), span, REMEMBERED + 10 * DAY)
    for address, _ in _ignored(call, workspace, known):
        yield Fact(Key(TOLD, workspace, _at(address)), span, REMEMBERED)


def due(deadline: Deadline, known: Known) -> Iterator[Finding]:
    """The window is over: a finding if nobody reacted since shortly before the webhook came, and none was made yet."""
    for key in deadline.watch:
        before = known.params["window"] if key.kind == REACTED else MINUTE
        if (span := known.span(key)) is not None and span.last >= deadline.seed.time - before:
            return
    yield deadline.seed


def _ignored(call: Call, workspace: str, known: Known) -> Iterator[tuple[str, Confidence]]:
    """The addresses that a call uses although mail to them came back, and nobody reacted."""
    window, is_send = known.params["window"], call.kind == "send_message"
    for address in _addresses(call):
        bounced = known.span(Key(BOUNCED, workspace, _at(address)))
        if bounced is None or known.lost >= bounced.last - window:
            continue
        if call.at - bounced.last <= (known.params["grace"] if is_send else window):
            continue
        told = known.span(Key(TOLD, workspace, _at(address)))
        if not is_send and (reacts(call.attributes) or (told is not None and told.last >= bounced.last)):
            continue
        subjects = {_at(address), *call.identifiers}
        reactions = [known.span(Key(REACTED, workspace, subject)) for subject in subjects]
        if not any(each is not None and each.last >= bounced.last - window for each in reactions):
            is_sure = known.span(Key(NO_MAILBOX, workspace, _at(address))) is not None
            yield address, "certain" if is_sure else "likely"


def _replaced(call: Call, workspace: str, known: Known) -> Iterator[str]:
    """The identifiers of a person whose mail came back, and who is given another address now."""
    new = call.attributes.get("email")
    if not isinstance(new, str) or not new:
        return
    of_new = _at(new.lower())
    if of_new in call.identifiers and known.span(Key(BOUNCED, workspace, of_new)) is not None:
        return
    for subject in call.identifiers:
        key = Key(BOUNCED, workspace, subject)
        if subject != of_new and (known.span(key) is not None or known.in_flight(key)):
            yield subject


def _is_bounce(call: Call) -> bool:
    return call.name == "bounced" and call.kind == "webhook_metric" and call.body.get("object_type") == "email"


def _code(call: Call) -> str | None:
    said = call.data.get("failure_message")
    return permanence(said) if isinstance(said, str) else None


def _is_gone(call: Call) -> bool:
    """Whether the person was deleted before the webhook came (reference 7.3: then `customer_id` is blank)."""
    return "customer_id" in call.data and call.person.id is None and call.person.cio_id is None


def _happened(call: Call) -> float:
    at = call.body.get("timestamp")
    return float(at) if isinstance(at, int | float) and abs(at) < 1e12 else call.at


def _addresses(call: Call) -> Iterable[str]:
    """The addresses that a mail went or goes to, or that an identify gives."""
    if call.kind == "identify":
        given = call.attributes.get("email")
        return (call.person.email,) if isinstance(given, str) and given.lower() == call.person.email else ()
    if call.kind == "send_message":
        to = call.body.get("to") if call.endpoint == "/v1/send/email" else ""
    else:
        to = call.data.get("recipient")
    to = call.person.email if to is None else to
    return dict.fromkeys(_ADDRESS.findall(to[:5_000].lower())) if isinstance(to, str) else ()


def _at(address: str) -> str:
    return f"email:{address}"


def _unanswered() -> Finding:
    return RULE.finding(
        "/data/failure_message",
        "mail to an address came back for good, and nothing was done about it",
        effect="Over your own SMTP server mail goes on to it; Customer.io's delivery stops it, and nobody is reached.",
        fix=FIX,
        confidence="likely",
    )


def _finding(call: Call, address: str, confidence: Confidence) -> Finding:
    if call.kind == "send_message":
        return RULE.finding(
            "/to" if "to" in call.body else "/identifiers/email",
            "a mail to an address from which mail came back for good",
            effect="It is dropped, or comes back once more, and providers trust the sender a little less.",
            fix=FIX,
            confidence=confidence,
        )
    return RULE.finding(
        f"{call.attributes_at}/email",
        "an address is given again from which mail came back for good",
        effect="Campaigns go on to count on it, and the person is not reached.",
        fix=FIX,
        confidence=confidence,
    )
