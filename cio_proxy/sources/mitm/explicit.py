"""An HTTP proxy that its clients know of: Customer.io's hosts are looked into, and everything else passes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mitmproxy import http
from mitmproxy.tls import TlsData

from cio_proxy.apis import HOSTS
from cio_proxy.model import UpstreamSettings
from cio_proxy.sources.mitm.listeners import PASSES, audited, listener_of
from cio_proxy.sources.mitm.upstreams import target_of

log = logging.getLogger("cio_proxy")

BETWEEN: Final = (b"proxy-authorization", b"proxy-connection")
"""Headers of a client for its proxy alone."""
TOLD: Final = 1_000
"""How many clients and hosts are told of at most."""


class Customerio:
    """Which hosts and ports are Customer.io's: its own hosts, and what the configuration names in their place."""

    def __init__(self, upstreams: UpstreamSettings) -> None:
        named = [target_of(url) for url in asdict(upstreams).values() if url is not None]
        self._named = {(target.host, target.port) for target in named}

    def __call__(self, host: str, port: int) -> bool:
        """Whether this one is."""
        host = host.lower().rstrip(".")
        return host in HOSTS or (host, port) in self._named


class Explicit:
    """An addon for requests in the clear: those for other sites pass as they come. Add it before what audits."""

    def __init__(self, looks_into: Customerio) -> None:
        self._looks_into = looks_into

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Set a request for another site aside, and keep what is for the proxy from going on."""
        if listener_of(flow.client_conn) != "explicit":
            return
        request = flow.request
        request.headers.fields = tuple([field for field in request.headers.fields if field[0].lower() not in BETWEEN])
        if not self._looks_into(request.data.host, request.data.port):
            flow.metadata[PASSES] = True
            request.stream = True

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """What another site answers passes as it comes."""
        if listener_of(flow.client_conn) == "explicit" and not audited(flow) and flow.response is not None:
            flow.response.stream = True


class Distrust:
    """An addon that tells once of each client that does not take our certificate for a host. `authority` issued it."""

    def __init__(self, authority: Path) -> None:
        self._authority = authority
        self._told: set[tuple[str, str]] = set()

    def tls_failed_client(self, data: TlsData) -> None:
        """Tell of a handshake that failed for want of trust, as far as mitmproxy can tell."""
        if data.ssl_conn is None:  # it left, or sent what is no handshake, before it was shown anything
            return
        client, server, error = data.context.client, data.context.server, data.conn.error or ""
        host = data.conn.sni or (server.address[0] if server.address else "this proxy")
        name = client.peername[0] if client.peername else "a client"
        if "trust" not in error or (name, host) in self._told or len(self._told) >= TOLD:
            return
        self._told.add((name, host))
        shown = "".join(c if c.isprintable() else "?" for c in host[:253])
        why = "it left while it was shown" if "disconnected" in error else "it does not know who issued it"
        log.warning(
            "%s did not take our certificate for %s (%s): let it trust %s, as `cio-proxy env` shows; a client"
            " that pins certificates can only be pointed at the outbound listener",
            name,
            shown,
            why,
            self._authority,
        )
