"""Where an exchange goes on to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from cio_proxy.apis import HOSTS, route


class Target(NamedTuple):
    """An upstream server."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """The value of `Host` for it."""
        default = 443 if self.scheme == "https" else 80
        name = f"[{self.host}]" if ":" in self.host else self.host
        return (name if self.port == default else f"{name}:{self.port}").encode()


class Upstreams:
    """Picks the upstream: one URL for everything, or Customer.io's own hosts by API and region."""

    def __init__(self, upstream: str) -> None:
        self._fixed: Target | None = None
        self._eu = upstream == "live-eu"
        if upstream not in ("live", "live-eu"):
            parts = urlsplit(upstream)
            scheme = parts.scheme or "http"
            self._fixed = Target(scheme, parts.hostname or "", parts.port or (443 if scheme == "https" else 80))

    def target(self, host: str, path: bytes) -> Target:
        """The upstream of a request. A Customer.io `Host` is taken at its word."""
        if self._fixed is not None:
            return self._fixed
        if host in HOSTS:
            return Target("https", host, 443)
        wanted = (route(host, path)[0], "eu" if self._eu else "us")
        name = next(name for name, served in HOSTS.items() if served == wanted)
        return Target("https", name, 443)
