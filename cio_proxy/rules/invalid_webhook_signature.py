"""What is posted as a reporting webhook is not signed with the workspace's key.

Customer.io signs its webhooks with a key that only it and the app know, so that nobody else can tell the app
of bounces and opt-outs that never were. An app that does not check takes whatever is posted to a path that anybody can
guess. This proxy checks every webhook against the signing keys that it was given, and tells of one that is by none of
them. The request is passed on all the same, and teaches the proxy nothing; with `action: block` it is refused.

The signature is compared with the bytes as they came. How old the timestamp is says nothing, since a webhook is sent
again for seven days. A webhook without a signature is only told of where Customer.io documents one: about e-mail.

Fix: compare the signing key that the proxy was given with that of the webhook in Customer.io, since each webhook has
its own; if it is right, somebody else posts to the app, and the app should check `X-CIO-Signature` itself.

See https://docs.customer.io/journeys/webhooks/ (reporting webhooks, securely verify requests)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cio_proxy.model import FORGED, Call, Finding, Known, RuleInfo

RULE = RuleInfo(
    id=FORGED,
    severity="error",
    category="contract",
    kinds=frozenset({"webhook_metric", "other", "unreadable"}),
    apis=frozenset({"webhooks"}),
)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding where the signature is none of Customer.io's, or is missing from what is a report."""
    fault, is_signed = call.credentials.fault, call.credentials.scheme == "signature"
    if not fault or not (is_signed or call.kind == "webhook_metric"):
        return ()
    return _finding(call, fault, is_signed)


def _finding(call: Call, fault: str, is_signed: bool) -> Iterator[Finding]:
    yield RULE.finding(
        "header:X-CIO-Signature",
        f"a webhook with {fault}",
        effect="Whoever posted it may not be Customer.io: an app that does not check takes it for a report.",
        fix="Give the proxy the key of this webhook; if it has it, let the app check `X-CIO-Signature`, too."
        if is_signed
        else "Let the app check `X-CIO-Signature`: Customer.io signs what it reports of e-mail.",
        confidence="certain" if is_signed or call.body.get("object_type") == "email" else "possible",
        whole=True,
    )
