"""What listens: modes of one mitmproxy, each named for its listener."""

from __future__ import annotations

from typing import Final, Literal

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs

from cio_proxy.model import LISTENERS, Address, Listener

NOWHERE: Final = "http://127.0.0.1:9"
"""A reverse proxy wants a destination; ours set the real one for each request."""
PASSES: Final = "cio_proxy_passes"
"""The mark of a flow, in its metadata, that is no exchange with Customer.io."""
_NAMED: Final[dict[str, Listener]] = {listener: listener for listener in LISTENERS}


class OutboundMode(mode_specs.ReverseMode):
    """In front of Customer.io: `outbound:URL@HOST:PORT`."""


class InboundMode(mode_specs.ReverseMode):
    """In front of the app: `inbound:URL@HOST:PORT`."""


class ExplicitMode(mode_specs.ProxyMode):
    """An HTTP proxy that its clients know of: `explicit@HOST:PORT`."""

    description = "HTTP proxy"
    transport_protocol: Literal["tcp"] = "tcp"

    def __post_init__(self) -> None:
        """There is nothing more to say of it."""


def mode(listener: Listener, address: Address) -> str:
    """The mode of a listener, as mitmproxy's option has it."""
    return f"{listener}@{address}" if listener == "explicit" else f"{listener}:{NOWHERE}@{address}"


def listener_of(client: Client) -> Listener:
    """Where a client came in. In a user's own mitmproxy everything goes out."""
    return _NAMED.get(client.proxy_mode.type_name, "outbound")


def audited(flow: http.HTTPFlow) -> bool:
    """True for an exchange with Customer.io."""
    return PASSES not in flow.metadata
