"""The addon: every HTTP flow becomes an exchange, is judged, and is forwarded, cut or refused."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.net.http import status_codes
from mitmproxy.net.http.http1 import connection_close

from cio_proxy.apis import crosses, path_of, route
from cio_proxy.apis.body import decoded
from cio_proxy.drivers import Answer, Audit, Auditor
from cio_proxy.model import Exchange, Refusal
from cio_proxy.sources.mitm.listeners import listener_of
from cio_proxy.sources.mitm.probing import Probing
from cio_proxy.sources.mitm.router import ROUTE
from cio_proxy.sources.mitm.trouble import placed
from cio_proxy.sources.mitm.upstreams import declared_length, host_of

log = logging.getLogger("cio_proxy")

HEADER: Final = "Cio-Proxy-Findings"
READ_UP_TO: Final = 1024 * 1024
"""Larger answers pass as they come; none that the audit reads is anywhere near it."""
MULTI_STATUS: Final = 207
"""Says which items of a batch were refused."""


@dataclass(slots=True)
class Passing:
    """A flow on its way: what its exchange will be but for the body, and its audit once that is here."""

    parts: dict[str, Any]
    """The fields of its `Exchange`, with the time of its head."""
    audit: Audit | None = None
    forwarded: float | None = None


class AuditAddon:
    """Hooks of mitmproxy, and nothing but the way between a flow and the auditor.

    `sandbox` says which host and path are the emulated Customer.io's, and `wanted` which flows are audited; `noted` is
    told of each of those and the id of its exchange, `connected` of each client connection, and `failed` of each error
    of our own: whatever goes wrong here, the flow goes on. `probing` may hold an answer back once it is settled.
    """

    def __init__(
        self,
        auditor: Auditor,
        *,
        sandbox: Callable[[str, bytes], bool] = lambda host, path: False,
        clock: Callable[[], float] = time.time,
        wanted: Callable[[http.HTTPFlow], bool] = lambda flow: True,
        noted: Callable[[http.HTTPFlow, str], None] = lambda flow, exchange: None,
        connected: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None] = lambda error: None,
        probing: Probing | None = None,
    ) -> None:
        self._auditor = auditor
        self._probing = probing
        self._sandbox = sandbox
        self._clock = clock
        self._wanted = wanted
        self._noted = noted
        self._connected = connected
        self._tell_failed = failed
        self._flows: WeakKeyDictionary[http.HTTPFlow, Passing] = WeakKeyDictionary()
        self._carried: dict[str, int] = {}
        self._open: Counter[str] = Counter()
        """Connections that are open, by their client's address."""
        self._logged: set[str] = set()

    def client_connected(self, client: Client) -> None:
        """Count a connection, but for those of the app's own clients."""
        with self._fail_open():
            if listener_of(client) != "inbound":
                self._connected()
                self._open[address_of(client)] += 1

    def client_disconnected(self, client: Client) -> None:
        """Forget a connection."""
        self._carried.pop(client.id, None)
        with self._fail_open():
            address = address_of(client)
            if listener_of(client) != "inbound" and self._open[address] > 0:
                self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Note the request as the client sent it, before its `Host` is replaced."""
        with self._fail_open():
            client = flow.client_conn
            self._carried[client.id] = self._carried.get(client.id, 0) + 1
            if self._wanted(flow):
                parts = self._parts(flow)
                self._flows[flow] = Passing(parts)
                self._noted(flow, parts["id"])

    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge an exchange whose body is here, or note one that was streamed past."""
        passing = self._flows.get(flow)
        if passing is None:  # not ours; or streamed, and answered before its body had ended
            return
        with self._fail_open():
            verdict = (await self._begin(flow, passing)).verdict
            if verdict.refusal is not None:
                flow.response = answer_with(verdict.refusal)
                return
            if verdict.cut is not None:
                replace_body(flow.request, verdict.cut.body)
            if self._probing is not None and passing.audit is not None and passing.parts["listener"] != "inbound":
                self._probing.called(passing.audit)
        passing.forwarded = time.perf_counter()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Add what was found; stream what nobody here will read."""
        passing, response = self._flows.get(flow), flow.response
        if passing is None or response is None:
            return
        with self._fail_open():
            if passing.audit is not None and passing.audit.header and passing.parts["listener"] != "inbound":
                response.headers[HEADER] = passing.audit.header
            if passing.forwarded is not None:
                cut = passing.audit is not None and passing.audit.verdict.cut is not None
                response.stream = not cut and (response.stream or streams(response))

    async def response(self, flow: http.HTTPFlow) -> None:
        """Settle an exchange just before its answer is released."""
        passing, response = self._flows.pop(flow, None), flow.response
        if passing is None or response is None:
            return
        with self._fail_open():
            audit = passing.audit or await self._begin(flow, passing)
            answered = time.perf_counter()
            upstream = passing.forwarded if audit.exchange.listener != "inbound" else None
            answer = await self._auditor.answered(
                audit,
                response.status_code,
                None if response.stream else readable(response, self._auditor.settings.max_audited_body),
                upstream_seconds=None if upstream is None else answered - upstream,
                location=redirected(flow, audit.exchange),
                closed=connection_close(response.http_version, response.headers)
                and not connection_close(flow.request.http_version, flow.request.headers),
            )
            if not response.stream:
                merge(response, answer)
            if self._probing is None:
                return
            if response.stream or upstream is None:
                self._probing.lost(audit)
            else:
                await self._probing.answered(audit, answered - upstream)

    async def error(self, flow: http.HTTPFlow) -> None:
        """Settle an exchange whose answer never came, or never arrived."""
        passing = self._flows.pop(flow, None)
        if passing is None:
            return
        with self._fail_open():
            if passing.audit is None:
                self._auditor.unread(Exchange.of(passing.parts))
            else:
                if self._probing is not None:
                    self._probing.lost(passing.audit)
                await self._auditor.lost(passing.audit, location=redirected(flow, passing.audit.exchange))

    def unread(self, client: Client) -> None:
        """Count a request whose head could not be parsed: mitmproxy has no hook for it."""
        with self._fail_open():
            self._carried[client.id] = self._carried.get(client.id, 0) + 1
            parts = self._parts_on(client, method="", target=b"/", host="", headers=())
            self._auditor.unread(Exchange.of(parts))

    async def _begin(self, flow: http.HTTPFlow, passing: Passing) -> Audit:
        body = None if flow.request.stream else flow.request.raw_content
        if body is not None and len(body) > self._auditor.settings.max_audited_body:
            body = None
        exchange = Exchange.of({**passing.parts, "at": self._clock(), "body": body})
        try:
            passing.audit = await self._auditor.begin(exchange)
        except Exception as error:
            self.failed(error)
            passing.audit = self._auditor.unaudited(exchange)
        return passing.audit

    def _parts(self, flow: http.HTTPFlow) -> dict[str, Any]:
        request = flow.request
        return self._parts_on(
            flow.client_conn,
            method=request.data.method.decode("latin-1"),
            target=request.data.path,
            host=host_of(request),
            headers=request.headers.fields,
            http_version=request.http_version,
        )

    def _parts_on(
        self,
        client: Client,
        *,
        method: str,
        target: bytes,
        host: str,
        headers: tuple[tuple[bytes, bytes], ...],
        http_version: str = "HTTP/1.1",
    ) -> dict[str, Any]:
        return {
            "id": secrets.token_hex(8),
            "at": self._clock(),
            "method": method,
            "target": target,
            "host": host,
            "headers": headers,
            "body": None,
            "listener": listener_of(client),
            "client_address": address_of(client),
            "connection": client.id,
            "carried": self._carried.get(client.id, 1),
            "beside": max(0, self._open[address_of(client)] - 1),
            "http_version": http_version,
            "tls": client.tls,
            "sandbox": self._sandbox(host, path_of(target)),
        }

    @contextmanager
    def _fail_open(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Tell of each error, and log each kind once: by its place, since its text may hold values as sent."""
        self._tell_failed(error)
        kind = placed(error)
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("the door failed, traffic goes on: %s", kind)


def address_of(client: Client) -> str:
    """The address of a client, empty where nobody knows."""
    return client.peername[0] if client.peername else ""


def redirected(flow: http.HTTPFlow, exchange: Exchange) -> str | None:
    """The `Location` of a redirect to the other region: one that was followed, else the answer's own."""
    way = flow.metadata.get(ROUTE)
    if way is not None and way.location is not None:
        followed: str = way.location
        return followed
    if flow.response is None or (location := flow.response.headers.get("location")) is None:
        return None
    asked = route(exchange.host, path_of(exchange.target))
    return location if crosses(asked, flow.response.status_code, location) else None


def answer_with(refusal: Refusal) -> http.Response:
    """The answer of a refusal, with its own reason phrase."""
    now = time.time()
    reason = refusal.reason.encode("latin-1", "replace")
    headers = http.Headers(refusal.headers)
    return http.Response(b"HTTP/1.1", refusal.status, reason, headers, refusal.body, None, now, now)


def replace_body(request: http.Request, body: bytes) -> None:
    """Send other bytes; of the headers only the length changes, and there are no trailers: they may be a checksum."""
    length = str(len(body)).encode()
    request.raw_content = body
    request.trailers = None
    request.headers.fields = tuple(
        (name, length if name.lower() == b"content-length" else value) for name, value in request.headers.fields
    )


def streams(response: http.Response) -> bool:
    """True for an answer that the audit does not read: events, large files, and what is open-ended and not JSON."""
    content_type = response.headers.get("content-type", "").lower()
    if content_type.startswith("text/event-stream"):
        return True
    if response.status_code == MULTI_STATUS:
        return False
    length = declared_length(response)
    return "json" not in content_type if length is None else length > READ_UP_TO


def readable(response: http.Response, limit: int) -> bytes:
    """The body of an answer without its content coding; as it came if that cannot be undone."""
    raw = response.raw_content or b""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("br", "zstd"):
        return response.get_content(strict=False) or b""
    try:
        return decoded(raw, "" if encoding == "identity" else encoding, limit)
    except (ValueError, OverflowError):
        return raw


def merge(response: http.Response, answer: Answer) -> None:
    """Turn an upstream's answer into the one that names our refusals too."""
    if answer.body is None:
        return
    response.status_code = answer.status
    response.reason = status_codes.RESPONSES.get(answer.status, "")
    response.headers.pop("content-encoding", None)
    response.headers["content-type"] = "application/json"
    response.content = answer.body
    response.trailers = None
