"""Sends each request to its upstream, and follows a redirect to the other region (reference 1.1)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.server_spec import ServerSpec

from cio_proxy.apis import path_of
from cio_proxy.apis.credentials import Keyring
from cio_proxy.audit import sealed_with
from cio_proxy.model import Region, UpstreamProxy, WorkspaceSettings
from cio_proxy.sources.mitm.listeners import audited, listener_of
from cio_proxy.sources.mitm.upstreams import Hop, Place, Target, Upstreams, declared_length, host_of

ROUTE: Final = "cio_proxy_route"
"""Where a flow keeps its `Route`, in its metadata."""
REMEMBERED: Final = 10_000
"""How many of the latest workspaces have their region at hand."""
UNAUTHORIZED: Final = 401

type Fields = tuple[tuple[bytes, bytes], ...]
"""Headers as they were sent."""


@dataclass(slots=True)
class Route:
    """The way of a flow: what the client asked for, and where it was sent."""

    asked: Place
    place: Place
    absolute: bool
    """True for a client that sent an absolute target."""
    location: str | None = None
    """The redirect that was followed."""


class Router:
    """An addon that sends each exchange to its upstream, and a body of over `max_body` bytes as it comes.

    A workspace that was redirected to the other region, and accepted there, is sent there at once from then on; so is
    one whose redirect could not be followed, so that it can try again.
    Upstreams are reached through `proxy`, if there is one, but for the `direct` ones.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        max_body: int,
        *,
        workspaces: Mapping[str, WorkspaceSettings],
        proxy: UpstreamProxy | None = None,
        direct: frozenset[Target] = frozenset(),
    ) -> None:
        self._upstreams = upstreams
        self._max_body = max_body
        self._proxy = proxy
        self._direct = direct
        self._pass = None if proxy is None or not (proxy.user or proxy.password) else credentials(proxy)
        self._keyring = Keyring(workspaces, sealed_with(secrets.token_bytes(32)))
        self._regions: dict[str, Region] = {}

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Set the target, and `Host` in its place; with an absolute target, that too."""
        request, listener = flow.request, listener_of(flow.client_conn)
        if listener == "inbound":
            return
        if not audited(flow):
            target = Target(request.scheme, request.data.host, request.data.port)
            self._send(flow, target, absolute=False, fields=request.headers.fields)
            return
        if (length := declared_length(request)) is not None and length > self._max_body:
            request.stream = True
        asked = place = self._upstreams.place(host_of(request), path_of(request.data.path))
        if self._regions and listener == "outbound" and (region := self._regions.get(self._workspace(asked, request))):
            place = asked._replace(region=region)
        flow.metadata[ROUTE] = Route(asked, place, bool(request.data.authority))
        self._forward(flow)

    def http_connect_upstream(self, flow: http.HTTPFlow) -> None:
        """Show the proxy on the way who we are."""
        if self._pass is not None:
            flow.request.headers.fields += (self._pass,)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Learn the region of a workspace from its last answer, or forget it."""
        route: Route | None = flow.metadata.get(ROUTE)
        if route is None or flow.response is None or route.place.region == route.asked.region:
            return
        if flow.response.status_code == UNAUTHORIZED:  # what the other region says of a workspace it does not have
            self._regions.pop(self._workspace(route.asked, flow.request), None)
        elif route.location is not None and 200 <= flow.response.status_code < 300:
            self.remember(flow, route.place)

    def hop(self, flow: http.HTTPFlow, response: http.Response) -> Hop | None:
        """Where an answer sends the request that is to be followed: to the other region, once.

        A client that asked for a host by its name follows by itself.
        """
        route: Route | None = flow.metadata.get(ROUTE)
        if route is None or route.location is not None or listener_of(flow.client_conn) == "explicit":
            return None
        return self._upstreams.hop(route.place, response.status_code, response.headers.get("location"))

    def follow(self, flow: http.HTTPFlow, hop: Hop, location: str) -> None:
        """Aim the request at the other region; of its headers only `Host` changes."""
        route: Route = flow.metadata[ROUTE]
        route.place, route.location = hop.place, location
        flow.server_conn = Server(address=None)
        flow.request.data.path = hop.path
        self._forward(flow)

    def remember(self, flow: http.HTTPFlow, place: Place) -> None:
        """Send the workspace of a flow to this region from now on."""
        if workspace := self._workspace(place, flow.request):
            if len(self._regions) >= REMEMBERED:
                del self._regions[next(iter(self._regions))]
            self._regions[workspace] = place.region

    def upstream(self, flow: http.HTTPFlow) -> str:
        """The name of a flow's upstream, and of the proxy on the way to it, for people."""
        route: Route | None = flow.metadata.get(ROUTE)
        if route is None:
            return flow.request.host
        target = self._upstreams.target(route.place)
        name = target.authority.decode()
        return f"{name} (through {self._proxy})" if self._proxied(target) else name

    @property
    def via(self) -> ServerSpec | None:
        """The proxy on the way out, if there is one."""
        return None if self._proxy is None else ("http", (self._proxy.host, self._proxy.port))

    def _forward(self, flow: http.HTTPFlow) -> None:
        request, route = flow.request, flow.metadata[ROUTE]
        target = self._upstreams.target(route.place)
        authority = target.authority
        sent = request.headers.fields
        if self._pass in sent:
            sent = tuple([field for field in sent if field != self._pass])
        fields = tuple([(field[0], authority) if field[0].lower() == b"host" else field for field in sent])
        self._send(flow, target, absolute=route.absolute, fields=fields)

    def _send(self, flow: http.HTTPFlow, target: Target, *, absolute: bool, fields: Fields) -> None:
        request = flow.request
        host, port = target.host, target.port
        via: ServerSpec | None = None
        if self._proxy is not None and self._proxied(target):
            if target.scheme == "https":
                via = self.via
            else:
                host, port, absolute = self._proxy.host, self._proxy.port, True
                if self._pass is not None:
                    fields += (self._pass,)
        if flow.server_conn.via != via:
            flow.server_conn.via = via
        request.data.scheme = target.scheme.encode()
        request.data.host, request.data.port = host, port
        request.data.authority = target.authority if absolute else b""
        request.headers.fields = fields

    def _proxied(self, target: Target) -> bool:
        return self._proxy is not None and target not in self._direct

    def _workspace(self, asked: Place, request: http.Request) -> str:
        sent = next((value for name, value in request.headers.fields if name.lower() == b"authorization"), None)
        return self._keyring.identify(asked.api, sent)[1]


def credentials(proxy: UpstreamProxy) -> tuple[bytes, bytes]:
    """The header that a proxy wants to see."""
    return b"Proxy-Authorization", b"Basic " + base64.b64encode(f"{proxy.user}:{proxy.password}".encode())
