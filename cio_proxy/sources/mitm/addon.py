"""The addon: every HTTP flow becomes an exchange, is judged, and is forwarded, cut or refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

from mitmproxy import ctx, http
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.net.http import status_codes
from mitmproxy.proxy.server import ConnectionHandler

from cio_proxy.apis import path_of
from cio_proxy.drivers import Audit, Auditor
from cio_proxy.model import Exchange
from cio_proxy.sources.mitm.upstreams import Upstreams

log = logging.getLogger("cio_proxy")

HEADER: Final = "Cio-Proxy-Findings"
STREAM_OVER: Final = 1024 * 1024
"""Larger answers pass as they come; none that the audit reads is anywhere near it."""


class AuditAddon:
    """Hooks of mitmproxy, and nothing but the way between a flow and the auditor.

    Without `upstreams` flows go where they were going. A bug here never stops a flow: mitmproxy logs
    what a hook raises and goes on.
    """

    def __init__(
        self,
        auditor: Auditor,
        *,
        upstreams: Upstreams | None = None,
        sandbox: bool = False,
        clock: Callable[[], float] = time.time,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        self.auditor = auditor
        self.in_flight: set[str] = set()
        self.ready = asyncio.Event()
        self._upstreams = upstreams
        self._sandbox = sandbox
        self._clock = clock
        self._connected = connected
        self._audits: dict[str, Audit] = {}
        self._hosts: dict[str, str] = {}
        self._carried: dict[str, int] = {}
        self._forwarded: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._timed_out: dict[str, str] = {}

    def running(self) -> None:
        """Every listener is up, or has failed."""
        self.ready.set()

    def client_connected(self, client: Client) -> None:
        """Count a connection."""
        self._carried[client.id] = 0
        self._connected()

    def client_disconnected(self, client: Client) -> None:
        """Forget a connection."""
        self._carried.pop(client.id, None)
        self._timed_out.pop(client.id, None)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Choose the upstream before anything is sent, since a large body is streamed from here on."""
        self.in_flight.add(flow.id)
        self._carried[flow.client_conn.id] = self._carried.get(flow.client_conn.id, 0) + 1
        host = _host_of(flow)
        self._hosts[flow.id] = host
        if self._upstreams is None:
            return
        request = flow.request
        target = self._upstreams.target(host, path_of(request.data.path))
        request.data.scheme = target.scheme.encode()
        request.data.host, request.data.port = target.host, target.port
        if request.data.authority:
            request.data.authority = target.authority
        fields = request.headers.fields
        request.headers.fields = tuple(
            (name, target.authority if name.lower() == b"host" else value) for name, value in fields
        )

    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge an exchange whose body is here, or note one that was streamed past."""
        audit = await self.auditor.begin(self._exchange(flow))
        self._audits[flow.id] = audit
        verdict = audit.verdict
        if verdict.refusal is not None and not flow.request.stream:
            refusal = verdict.refusal
            flow.response = http.Response(
                b"HTTP/1.1",
                refusal.status,
                refusal.reason.encode("latin-1", "replace"),
                http.Headers(refusal.headers),
                refusal.body,
                None,
                time.time(),
                time.time(),
            )
            return
        if verdict.cut is not None:
            flow.request.raw_content = verdict.cut.body
            length = str(len(verdict.cut.body)).encode()
            flow.request.headers.fields = tuple(
                (name, length if name.lower() == b"content-length" else value)
                for name, value in flow.request.headers.fields
            )
        self._forwarded[flow.id] = time.perf_counter()
        wait = self.auditor.settings.timeouts
        loop = asyncio.get_running_loop()
        self._timers[flow.id] = loop.call_later(wait.connect + wait.response, self._time_out, flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Add what was found; stream what nobody here will read."""
        if flow.response is None:
            return
        audit = self._audits.get(flow.id)
        if audit is not None and audit.header:
            flow.response.headers[HEADER] = audit.header
        if flow.id not in self._forwarded or (audit is not None and audit.verdict.cut is not None):
            return
        length = flow.response.headers.get("content-length", "")
        content_type = flow.response.headers.get("content-type", "")
        if "event-stream" in content_type or (length.isdigit() and int(length) > STREAM_OVER):
            flow.response.stream = True
            self._forget_timer(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Settle an exchange just before its answer is released."""
        self._forget_timer(flow)
        audit = self._audits.pop(flow.id, None)
        started = self._forwarded.pop(flow.id, None)
        try:
            if audit is None or flow.response is None:
                return
            seconds = None if started is None else time.perf_counter() - started
            response = flow.response
            body = None if response.stream else _plain(response)
            answer = await self.auditor.answered(audit, response.status_code, body, upstream_seconds=seconds)
            if answer.body is not None and not response.stream:
                response.status_code = answer.status
                response.reason = status_codes.RESPONSES.get(answer.status, "")
                response.headers.pop("content-encoding", None)
                response.headers["content-type"] = "application/json"
                response.content = answer.body
        finally:
            self._ended(flow)

    async def error(self, flow: http.HTTPFlow) -> None:
        """Settle an exchange whose answer never came, or never arrived."""
        self._forget_timer(flow)
        audit = self._audits.pop(flow.id, None)
        self._forwarded.pop(flow.id, None)
        try:
            if audit is not None:
                await self.auditor.lost(audit)
            else:
                self.auditor.unread(self._exchange(flow))
        finally:
            self._ended(flow)

    def unread(self, client: Client) -> None:
        """Count a request whose head could not be parsed: mitmproxy has no hook for it."""
        self.auditor.unread(
            Exchange(
                id=secrets.token_hex(8),
                at=self._clock(),
                method="",
                target=b"/",
                host="",
                headers=(),
                body=None,
                client_address=client.peername[0] if client.peername else "",
                connection=client.id,
            )
        )

    def gateway_error(self, client: Client, status: int, message: str) -> tuple[int, str]:
        """Status and message for a client whose exchange failed; a time-out of ours is told as such."""
        why = self._timed_out.pop(client.id, None)
        return (status, message) if why is None else (504, why)

    def _exchange(self, flow: http.HTTPFlow) -> Exchange:
        request, client = flow.request, flow.client_conn
        fields = request.headers.fields
        return Exchange(
            id=secrets.token_hex(8),
            at=self._clock(),
            method=request.data.method.decode("latin-1"),
            target=request.data.path,
            host=self._hosts.get(flow.id) or _host_of(flow),
            headers=fields,
            body=None if request.stream else request.raw_content,
            client_address=client.peername[0] if client.peername else "",
            connection=client.id,
            carried=self._carried.get(client.id, 1),
            http_version=request.http_version,
            tls=client.tls,
            sandbox=self._sandbox,
        )

    def _time_out(self, flow: http.HTTPFlow) -> None:
        """Give up on an upstream: closing its connection makes mitmproxy answer the client."""
        if flow.response is not None or flow.error is not None:
            return
        handler: ConnectionHandler | None = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
        if handler is None:
            return
        self._timed_out[flow.client_conn.id] = "Customer.io did not answer in time"
        for connection, io in list(handler.transports.items()):
            if connection is not flow.client_conn and connection.state is not ConnectionState.CLOSED and io.handler:
                io.handler.cancel("timed out")

    def _forget_timer(self, flow: http.HTTPFlow) -> None:
        with contextlib.suppress(KeyError):
            self._timers.pop(flow.id).cancel()

    def _ended(self, flow: http.HTTPFlow) -> None:
        self.in_flight.discard(flow.id)
        self._hosts.pop(flow.id, None)


def _host_of(flow: http.HTTPFlow) -> str:
    host = flow.request.headers.get("host") or flow.request.data.authority.decode("latin-1") or flow.request.data.host
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]").lower()


def _plain(response: http.Response) -> bytes:
    try:
        return response.content or b""
    except ValueError:
        return response.raw_content or b""
