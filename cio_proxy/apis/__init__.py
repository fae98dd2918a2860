"""From an exchange to its calls: which Customer.io surface it is for, and who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from cio_proxy.apis import app, pipelines, track_v1, track_v2, webhooks
from cio_proxy.apis.body import read_document
from cio_proxy.apis.credentials import Keyring
from cio_proxy.apis.parts import Envelope
from cio_proxy.model import EMPTY_DOCUMENT, NO_CREDENTIALS, Api, Call, Exchange, Region, made
from cio_proxy.recognise import path_template

HOSTS: dict[str, tuple[Api, Region]] = {
    "track.customer.io": ("track_v1", "us"),
    "track-eu.customer.io": ("track_v1", "eu"),
    "cdp.customer.io": ("pipelines", "us"),
    "cdp-eu.customer.io": ("pipelines", "eu"),
    "api.customer.io": ("app", "us"),
    "api-eu.customer.io": ("app", "eu"),
    "beta-api.customer.io": ("app", "us"),
}
"""Reference 1.1. `beta-api` is an alias in very old code (unverified)."""


TRACK: frozenset[Api] = frozenset({"track_v1", "track_v2"})
PREFIXES = (b"/api/v1/", b"/api/v2/")
"""Paths that only Customer.io has, whatever the host is called."""


def path_of(target: bytes) -> bytes:
    """The raw path of a request target, also of one in absolute form."""
    if not target.startswith(b"/"):
        try:
            target = urlsplit(target).path or b"/"
        except ValueError:
            return b"/"
    return target.partition(b"?")[0]


def route(host: str, path: bytes) -> tuple[Api, Region]:
    """The Customer.io host a request is for: by its `Host` where that is one of theirs, else by its path."""
    if known := HOSTS.get(host):
        return known
    path = path_of(path)
    if path.startswith((b"/api/v1", b"/api/v2", b"/unsubscribe", b"/push/events")):
        return "track_v1", "us"
    if path in pipelines.PATHS:
        return "pipelines", "us"
    return ("app", "us") if path.startswith(b"/v1/") else ("track_v1", "us")


REDIRECTS = frozenset({301, 302, 307, 308})
"""The statuses that customerio-node follows with the same method and body (reference 1.1)."""


def crosses(place: tuple[Api, Region], status: int, location: str | None) -> bool:
    """True for an answer from `place` that redirects to the other regional host of the same API."""
    if status not in REDIRECTS or location is None:
        return False
    try:
        host = urlsplit(location).netloc.lower().removesuffix(":443")
    except ValueError:
        return False
    api, region = HOSTS.get(host, (None, None))
    return api == place[0] and region != place[1]


def surface(exchange: Exchange, paths: Sequence[str] = ()) -> Api:
    """The API whose contract the exchange follows. `paths` are where the app takes webhooks.

    The path decides on the Track host: `/v1/send/*` there is the App API, as Customer.io's own
    command-line tool sends it (reference 1.1).
    """
    return _surface(exchange, path_of(exchange.target), paths)


def _surface(exchange: Exchange, path: bytes, paths: Sequence[str]) -> Api:
    if exchange.listener == "inbound":
        return "webhooks" if webhooks.looks_like(exchange.method, path, exchange.named, paths) else "unknown"
    api, _ = route(exchange.host, path)
    if api == "track_v1":
        if path.startswith(b"/api/v2/"):
            return "track_v2"
        if path.startswith(b"/v1/send/"):
            return "app"
    return api


def read(exchange: Exchange, keyring: Keyring, max_body: int, paths: Sequence[str] = ()) -> tuple[Call, ...]:
    """Every call of an exchange, in the order of its body; at least one. Never raises on what was sent.

    `paths` are where the app takes webhooks. What else it is asked is nobody's business, but for the form of its path.
    """
    path = path_of(exchange.target)
    api = _surface(exchange, path, paths)
    if api == "unknown":
        endpoint = path_template(path.decode("utf-8", "replace"))
        return (Envelope(exchange, api, "", None, NO_CREDENTIALS, EMPTY_DOCUMENT).call("other", endpoint),)
    if api == "webhooks":
        document = read_document(exchange, max_body)
        credentials, workspace = webhooks.signed(exchange, document, keyring.signing)
        return webhooks.read(Envelope(exchange, api, workspace, keyring.joined(workspace), credentials, document))
    credentials, workspace = keyring.identify(api, exchange.named.get(b"authorization"))
    document = read_document(exchange, max_body) if exchange.body != b"" else EMPTY_DOCUMENT
    joined = workspace if workspace and api in TRACK else keyring.joined(workspace)
    envelope = made(Envelope, (exchange, api, workspace, joined, credentials, document))
    match api:
        case "track_v2":
            return track_v2.read(envelope, path)
        case "pipelines":
            return pipelines.read(envelope, path)
        case "app":
            return app.read(envelope, path)
        case _:
            return track_v1.read(envelope, path)
