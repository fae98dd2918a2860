"""Customer.io's reporting webhooks to the app (reference §7): one event an exchange.

They come in at the inbound listener, among everything else that the app is asked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from cio_proxy.apis.parts import Envelope, lower, mapping, text, timestamps
from cio_proxy.model import NO_CREDENTIALS, Call, Credentials, Document, Exchange, Json, Person

ENDPOINT = "webhook"
"""The path is the app's own, and may hold a token."""
SIGNATURE, TIMESTAMP = b"x-cio-signature", b"x-cio-timestamp"


def looks_like(method: str, path: bytes, headers: Mapping[bytes, bytes], paths: Sequence[str]) -> bool:
    """Whether a request may be a reporting webhook: a POST that is signed, or to a path that one of the globs fits.

    `path` is without the query; `headers` have their names in lower case.
    """
    if method != "POST":
        return False
    if SIGNATURE in headers:
        return True
    return any(fnmatchcase(path.decode("latin-1"), glob) for glob in paths)


def read(envelope: Envelope) -> tuple[Call, ...]:
    """The one call of a webhook. What is JSON and no report, such as another service's webhook, is of kind `other`."""
    body = envelope.document.value
    if not isinstance(body, dict):
        return (envelope.unreadable(ENDPOINT),)
    metric = body.get("metric")
    if not isinstance(metric, str) or not isinstance(body.get("object_type"), str):
        return (envelope.call("other", ENDPOINT, body=body),)
    told = mapping(body.get("data"))
    return (
        envelope.call(
            "webhook_metric",
            ENDPOINT,
            body=body,
            person=_person(told),
            person_at="/data/identifiers" if "identifiers" in told else "/data",
            name=metric,
            name_at="/metric",
            data=told,
            data_at="/data",
            timestamps=timestamps(body, "", ("timestamp",)),
        ),
    )


def _person(told: Mapping[str, Json]) -> Person:
    """The person of a delivery; `customer_id` is older than the identifiers, and blank once the person is deleted."""
    identifiers = mapping(told.get("identifiers"))
    return Person(
        id=text(identifiers.get("id")) or text(told.get("customer_id")),
        email=lower(text(identifiers.get("email")) or text(told.get("email_address"))),
        cio_id=text(identifiers.get("cio_id")),
    )


def signed(exchange: Exchange, document: Document, keys: Mapping[str, str]) -> tuple[Credentials, str]:
    """What the signature of a webhook is worth, and the workspace of its key; `keys` are workspaces by signing key.

    The text that is signed is `v0:`, the timestamp, `:` and the body as sent (reference 7.2). How old the timestamp is
    says nothing: nobody documents that a webhook is signed anew when it is sent again after days.
    """
    headers = exchange.named
    sent = headers.get(SIGNATURE)
    if sent is None:
        return (Credentials("none", fault="no signature") if keys else NO_CREDENTIALS), ""
    signature = sent.strip().lower().removeprefix(b"v0=")
    shown = signature.decode("latin-1")
    if not keys:
        return Credentials("signature", secret=shown), ""
    timestamp = headers.get(TIMESTAMP, b"").strip()
    if not timestamp:
        return Credentials("signature", secret=shown, fault="a signature without a timestamp"), ""
    for raw in dict.fromkeys((exchange.body or b"", document.raw)):
        for key, workspace in keys.items():
            expected = hmac.new(key.encode(), b"v0:" + timestamp + b":" + raw, hashlib.sha256).hexdigest()
            if hmac.compare_digest(expected.encode(), signature):
                return Credentials("signature", secret=shown, belongs_to="webhooks"), workspace
    return Credentials("signature", secret=shown, fault="a signature that none of the configured keys makes"), ""
