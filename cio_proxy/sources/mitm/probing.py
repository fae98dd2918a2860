"""Between the listeners and the latency probe: what it is told, and how an answer is held back."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

from mitmproxy import http

from cio_proxy.apis import path_of
from cio_proxy.drivers import Audit, Auditor
from cio_proxy.model import METHODS, Exchange
from cio_proxy.probe import Probe
from cio_proxy.recognise import path_template, template

REQUEST: Final = "cio_proxy_request"
"""In the metadata of a flow: the exchange that stands for a request of the app's own users."""
TRACEPARENT: Final = b"traceparent"
"""Of W3C Trace Context."""
OTHERS: Final = frozenset({b"x-request-id", b"x-correlation-id", b"x-amzn-trace-id"})
"""Other headers by which a request may be known; a call belongs to it only where both carry the same value."""
TRACE: Final = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?![0-9a-f])")
SHORTEST, LONGEST = 8, 200
"""Characters of another id: shorter ones are no ids."""
NAMED: Final = 100
"""Characters that are kept of a call's name."""
SLOW: Final = 2.0
"""Seconds after which an answer is late enough: nothing is held then, since clients wait for ten."""

type Headers = tuple[tuple[bytes, bytes], ...]


class Probing:
    """The latency probe, told of flows. Nothing is begun while nobody looks at it, and nothing is held while stopping.

    An answer that is not to be held for a reason of ours is left out of the experiment, whether or not it was picked:
    else the calls that are held would not be like those that are not.
    """

    def __init__(self, probe: Probe, auditor: Auditor, clock: Callable[[], float]) -> None:
        self._probe = probe
        self._auditor = auditor
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Hold nothing any more, and let go what is held."""
        self._stopping.set()

    def arrived(self, flow: http.HTTPFlow) -> None:
        """The app is asked something by one of its users."""
        if not self._auditor.watches_app:
            return
        request = flow.request
        method = request.data.method.decode("latin-1")
        path = path_template(path_of(request.data.path).decode("utf-8", "replace"))
        exchange = Exchange(
            id=secrets.token_hex(8),
            at=self._clock(),
            method=method if method in METHODS else "other",
            target=path.encode(),
            host="",
            headers=tuple(field for field in request.headers.fields if field[0].lower() == TRACEPARENT),
            body=b"",
            listener="inbound",
        )
        flow.metadata[REQUEST] = exchange
        self._probe.arrived(exchange.id, f"{exchange.method} {path}", traces(request.headers.fields))

    def left(self, flow: http.HTTPFlow) -> None:
        """The head of the app's answer is here."""
        exchange: Exchange | None = flow.metadata.pop(REQUEST, None)
        if exchange is None or flow.response is None:
            return
        for waits in self._probe.left(exchange.id, self._clock()):
            if self._auditor.watches_app:
                self._auditor.noticed(_on(waits.route, exchange), flow.response.status_code, (waits,))

    def gone(self, flow: http.HTTPFlow) -> None:
        """The app will not answer, or nobody is there to hear it."""
        if (exchange := flow.metadata.pop(REQUEST, None)) is not None:
            self._probe.gone(exchange.id)

    def called(self, audit: Audit) -> None:
        """An exchange goes on to Customer.io."""
        if audit.opened is None or not self._auditor.watches_app:
            return
        call = audit.opened.calls[0]
        name = template(f"{call.kind} {call.name or ''}".strip())[:NAMED]
        self._probe.called(audit.exchange.id, name, traces(audit.exchange.headers))

    async def answered(self, audit: Audit, upstream_seconds: float) -> None:
        """Hold back the whole answer of Customer.io, if it was picked for that."""
        if upstream_seconds > SLOW or self._stopping.is_set() or not self._auditor.watches_app:
            self._probe.lost(audit.exchange.id)
        elif seconds := self._probe.answered(audit.exchange.id, self._clock()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    def lost(self, audit: Audit) -> None:
        """An exchange is over, and there is nothing to hold."""
        self._probe.lost(audit.exchange.id)


def _on(route: str, exchange: Exchange) -> Exchange:
    """A request of a route: this one, or one that stands for those before it, of which there is to be told by now."""
    method, _, path = route.partition(" ")
    target = path.encode()
    if (method, target) == (exchange.method, exchange.target):
        return exchange
    return replace(exchange, id=secrets.token_hex(8), method=method, target=target, headers=())


def traces(headers: Headers) -> Set[str]:
    """The values that may tell which request something belongs to."""
    found = set()
    for name, value in headers:
        lower = name.lower()
        if lower == TRACEPARENT:
            if match := TRACE.match(value):
                found.add(match[1].decode())
        elif lower in OTHERS and SHORTEST <= len(value) <= LONGEST:
            found.add(value.decode("latin-1"))
    return found
