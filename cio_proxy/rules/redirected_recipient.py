"""An event's data redirects the mail that it triggers to somebody else.

`recipient` is a reserved name in the data of a Track event: when the event triggers a campaign, the
mail goes to that value instead of the person's own address. A field that only tells who gets a gift
or an invitation sends the person's mail to that address, or, if it holds a name, to nobody.

A value that is the person's own address redirects nothing: the one that names the person, or one that an
identify with their id gave them. An address of a person of whom none was seen is only possible. Events without a
person are made for this: an anonymous "invite" event names in `recipient` whom to mail. Pipelines documents no
such name.

Fix: call the field something else, such as `recipient_email` or `gift_for`. If the mail is meant for somebody who is
not the person, send an anonymous event with `recipient`.

See https://docs.customer.io/integrations/api/track/ (track, reserved names of the data)
See https://docs.customer.io/journeys/anonymous-invite-emails/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cio_proxy.model import ADDRESSES, Call, Confidence, Finding, Form, Known, RuleInfo, pointer
from cio_proxy.recognise import personal

RULE = RuleInfo(
    id="redirected-recipient",
    severity="warning",
    category="contract",
    kinds=frozenset({"event", "page", "screen"}),
    apis=frozenset({"track_v1", "track_v2"}),
    surest="likely",
)


def concerns(form: Form) -> bool:
    """Events with a recipient."""
    return "recipient" in form.data


def check(call: Call, known: Known) -> Iterable[Finding]:
    """A text for a recipient is likely meant otherwise; what an object or a number does is not documented."""
    recipient = call.data.get("recipient")
    if recipient is None or recipient == "" or next(call.person.identifiers(), None) is None:
        return ()
    if not isinstance(recipient, str):
        return _finding(call, "possible")
    return _judge(call, recipient.lower(), known)


def _judge(call: Call, recipient: str, known: Known) -> Iterable[Finding]:
    """The addresses in a recipient, against those of the person; a name or the like is the address of nobody."""
    person = call.person
    if person.email is not None:
        return () if person.email in recipient else _finding(call, "likely")
    addresses = [recipient[part.start : part.end] for part in personal(recipient) if part.kind == "email"]
    own = next(filter(None, (known.sample(call.key(ADDRESSES, each)) for each in call.identifiers)), None)
    if not addresses:
        return _finding(call, "likely")
    if own is None:
        return _finding(call, "possible")
    return () if all(known.member(each) in own.hashes for each in addresses) else _finding(call, "likely")


def _finding(call: Call, confidence: Confidence) -> Iterator[Finding]:
    yield RULE.finding(
        pointer(call.data_at, "recipient"),
        "`recipient` in the event of a person redirects the mail that the event triggers",
        effect="The campaign's mail goes to this value instead of the person's own address.",
        fix="Call the field something else; to mail somebody who is not the person, send an anonymous event.",
        confidence=confidence,
        name=call.name,
    )
