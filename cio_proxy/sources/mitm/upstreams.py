"""Where an exchange goes on to."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from mitmproxy import http

from cio_proxy.apis import HOSTS, REDIRECTS, crosses, route
from cio_proxy.model import Api, Region, UpstreamSettings

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
NAMES: Final[dict[Api, str]] = {"track_v1": "track", "pipelines": "pipelines", "app": "app"}
"""The services by their names in the configuration; in the EU with `_eu`."""
SPACE: Final = 0x20


class Target(NamedTuple):
    """An upstream server."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """The value of `Host` for it."""
        return authority_of(self)


@lru_cache(maxsize=64)  # as many as can be configured, and some: encoding a name takes longer than all else here
def authority_of(target: Target) -> bytes:
    """The value of `Host` for a server."""
    name = f"[{target.host}]" if ":" in target.host else target.host
    return (name if target.port == DEFAULT_PORTS[target.scheme] else f"{name}:{target.port}").encode("idna")


def target_of(url: str) -> Target:
    """The server that a URL names."""
    parts = urlsplit(url)
    return Target(parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])


class Place(NamedTuple):
    """A service of Customer.io in a region, and the host that a client asked for."""

    api: Api
    region: Region
    host: str

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return NAMES[self.api] + ("_eu" if self.region == "eu" else "")


class Hop(NamedTuple):
    """One step of a redirect: the place, and the path and query to ask for there."""

    place: Place
    path: bytes


class Upstreams:
    """Picks the upstream: a URL named for the service, else one URL for everything, else Customer.io's own host."""

    def __init__(self, upstream: str, named: UpstreamSettings | None = None, *, eu: str | None = None) -> None:
        """`eu` is the one URL for everything in the EU, where that is another."""
        fixed = None if upstream in ("live", "live-eu") else target_of(upstream)
        self._fixed = {"us": fixed, "eu": target_of(eu) if eu else fixed}
        self._eu = upstream == "live-eu"
        self._named = {
            name: target_of(url) for name, url in ({} if named is None else asdict(named)).items() if url is not None
        }

    def place(self, host: str, path: bytes) -> Place:
        """The service and region of a request. A Customer.io `Host` is taken at its word."""
        api, region = route(host, path)
        return Place(api, "eu" if self._eu and host not in HOSTS else region, host)

    def target(self, place: Place) -> Target:
        """The upstream of a place."""
        if (target := self._named.get(place.name) or self._fixed[place.region]) is not None:
            return target
        wanted = (place.api, place.region)
        own = next(host for host, served in HOSTS.items() if served == wanted)
        return Target("https", place.host if HOSTS.get(place.host) == wanted else own, 443)

    def hop(self, place: Place, status: int, location: str | None) -> Hop | None:
        """Where an answer from `place` sends a request, if that is the same service in the other region.

        None where both regions are one server: it would only say the same again.
        """
        other = place._replace(region="us" if place.region == "eu" else "eu")
        target = self.target(other)
        if location is None or status not in REDIRECTS or target == self.target(place):
            return None
        named = location.lower().startswith(f"{target.scheme}://{target.authority.decode()}/")
        if not named and not crosses((place.api, place.region), status, location):
            return None
        path = b"/" + location.partition("://")[2].partition("#")[0].partition("/")[2].encode(
            "utf-8", "surrogateescape"
        )
        return None if any(byte <= SPACE for byte in path) else Hop(other, path)


def host_of(request: http.Request) -> str:
    """The host a client asked for, without its port, in lower case: `Host`, else the authority (HTTP/2)."""
    host = request.headers.get("host") or request.data.authority.decode("latin-1") or request.data.host
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def declared_length(message: http.Message) -> int | None:
    """The `Content-Length`, if there is one that can be believed."""
    length = message.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else None
