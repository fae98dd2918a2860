"""What mitmproxy cannot be told by options: the few places where its HTTP/1 layer is replaced.

- Its error pages are HTML and name mitmproxy; ours are JSON in the shape that every SDK reads.
- A request head that does not parse reaches no hook; it has to be counted.
- Trailers make its HTTP/1 layer crash and the client wait; they are dropped.
- It has no time-out for upstream connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from mitmproxy import ctx
from mitmproxy.connection import ConnectionState
from mitmproxy.http import Headers, Response
from mitmproxy.net.http import http1, status_codes
from mitmproxy.proxy import commands, events, mode_servers
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._events import ResponseProtocolError

from cio_proxy.apis.refusals import union_error
from cio_proxy.sources.mitm.addon import AuditAddon

CODES = {400: "bad_request", 413: "too_large", 502: "bad_gateway", 504: "gateway_timeout"}


def error_response(status_code: int, message: str = "") -> bytes:
    """An HTTP/1 answer for a failed exchange."""
    body = union_error(status_code, CODES.get(status_code, "proxy_error"), f"cio-proxy: {message}")
    headers = Headers(
        (
            (b"Content-Type", b"application/json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Connection", b"close"),
        )
    )
    reason = status_codes.RESPONSES.get(status_code, "Unknown").encode()
    raw: bytes = http1.assemble_response(Response(b"HTTP/1.1", status_code, reason, headers, body, None, 0.0, 0.0))
    return raw


class Http1Server(_http1.Http1Server):
    """mitmproxy's server side of HTTP/1, with errors that the addon may explain and unread heads counted."""

    def send(self, event: Any) -> CommandGenerator[None]:
        """Answer as mitmproxy does, but for gateway errors."""
        addon = _addon()
        if isinstance(event, ResponseProtocolError) and addon is not None and self.response is None:
            status = event.code.http_status_code()
            if status is not None and self.conn.state & ConnectionState.CAN_WRITE:
                status, message = addon.gateway_error(self.context.client, status, event.message)
                yield commands.SendData(self.conn, error_response(status, message))
                yield commands.CloseConnection(self.conn)
                return
        yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read a head, and count one that cannot be read."""
        yield from super().read_headers(event)
        addon = _addon()
        if self.state == self.done and self.request is None and addon is not None:
            addon.unread(self.context.client)


class _WithoutTrailers:
    """A body reader that ends a body without its trailers."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __call__(self, buffer: Any) -> Any:
        return self._bare(self._reader(buffer))

    def read_eof(self) -> Any:
        return self._bare(self._reader.read_eof())

    def _bare(self, event: Any) -> Any:
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) and event.headers else event


class ConnectionHandler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's connection handler, giving up on an upstream that does not accept."""

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Open a connection within the time configured for it."""
        task, addon = asyncio.current_task(), _addon()
        if task is None or addon is None:
            return await super().open_connection(command)
        seconds = addon.auditor.settings.timeouts.connect

        def give_up() -> None:
            if command.connection.state is ConnectionState.CLOSED:
                task.cancel(f"no connection within {seconds:g} s")

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await super().open_connection(command)
        finally:
            timer.cancel()


def _addon() -> AuditAddon | None:
    found = ctx.master.addons.get("auditaddon")
    return found if isinstance(found, AuditAddon) else None


_make_body_reader = _http1.make_body_reader


def install() -> None:
    """Replace the parts, once a process."""
    _http1.make_error_response = error_response
    setattr(_http1, "make_body_reader", lambda size: _WithoutTrailers(_make_body_reader(size)))  # noqa: B010
    setattr(http_layers, "Http1Server", Http1Server)  # noqa: B010
    setattr(mode_servers, "ProxyConnectionHandler", ConnectionHandler)  # noqa: B010
