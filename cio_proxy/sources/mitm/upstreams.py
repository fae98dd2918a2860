"""Where an exchange goes on to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from mitmproxy import http

from cio_proxy.apis import HOSTS, path_of, route

DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """An upstream server."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """The value of `Host` for it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return (name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}").encode("idna")


class Upstreams:
    """Picks the upstream: one URL for everything, or Customer.io's own hosts by API and region."""

    def __init__(self, upstream: str) -> None:
        self._fixed: Target | None = None
        self._eu = upstream == "live-eu"
        if upstream not in ("live", "live-eu"):
            parts = urlsplit(upstream)
            self._fixed = Target(parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])

    def target(self, host: str, path: bytes) -> Target:
        """The upstream of a request. A Customer.io `Host` is taken at its word."""
        if self._fixed is not None:
            return self._fixed
        if host in HOSTS:
            return Target("https", host, 443)
        wanted = (route(host, path)[0], "eu" if self._eu else "us")
        return Target("https", next(name for name, served in HOSTS.items() if served == wanted), 443)


class Router:
    """An addon that sends each request to its upstream, and a body of over `max_body` bytes as it comes."""

    def __init__(self, upstreams: Upstreams, max_body: int) -> None:
        self._upstreams = upstreams
        self._max_body = max_body

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Set the target, and `Host` in its place; with an absolute target, that too."""
        request = flow.request
        if (length := declared_length(request)) is not None and length > self._max_body:
            request.stream = True
        target = self._upstreams.target(host_of(request), path_of(request.data.path))
        request.data.scheme = target.scheme.encode()
        request.data.host, request.data.port = target.host, target.port
        if request.data.authority:
            request.data.authority = target.authority
        request.headers.fields = tuple(
            (name, target.authority if name.lower() == b"host" else value) for name, value in request.headers.fields
        )


def host_of(request: http.Request) -> str:
    """The host a client asked for, without its port, in lower case: `Host`, else the authority (HTTP/2)."""
    host = request.headers.get("host") or request.data.authority.decode("latin-1") or request.data.host
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def declared_length(message: http.Message) -> int | None:
    """The `Content-Length`, if there is one that can be believed."""
    length = message.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else None
