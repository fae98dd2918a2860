"""The admin server: `/metrics`, `/livez`, `/readyz`, `/api/findings`, `/api/summary` (design §5)."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cio_proxy.model import Address

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
FILTERS = frozenset(
    {"rule", "severity", "confidence", "action", "api", "call", "client", "workspace", "fingerprint", "exchange"}
)


type Page = Callable[[Request], Awaitable[Response]]


class Findings(Protocol):
    """What the journal offers to readers."""

    def read(self, after: int = 0, limit: int = 100, **wanted: str) -> tuple[list[dict[str, Any]], int | None]:
        """Records after a cursor, and the next cursor."""


class Exposition(Protocol):
    """What the metrics offer to readers."""

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""


class Admin:
    """Reads the journal and the metrics, never the engine. Starts in the running loop."""

    def __init__(
        self,
        *,
        metrics: Exposition,
        journal: Findings,
        summary: Callable[[], dict[str, Any]],
        degraded: Callable[[], list[str]],
        token: str,
    ) -> None:
        self.ready = False
        self.draining = False
        self._metrics, self._journal = metrics, journal
        self._summary, self._degraded = summary, degraded
        self._token = token
        self._open = True
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/metrics", self._metrics_page),
                Route("/livez", self._livez),
                Route("/readyz", self._readyz),
                Route("/api/findings", self._guarded(self._findings)),
                Route("/api/summary", self._guarded(self._summary_page)),
            ]
        )

    async def start(self, address: Address) -> Address:
        """Listen; the address with the real port. Raises OSError."""
        self._open = _is_loopback(address.host)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(tuple(address))
        except OSError as error:
            listening.close()
            raise OSError(f"cannot listen on {address}: {error.strerror}") from error
        config = uvicorn.Config(self.app, log_config=None, access_log=False, lifespan="off", server_header=False)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        return Address(address.host, listening.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    def _guarded(self, page: Page) -> Page:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if self._open or hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                return await page(request)
            return _error(401, "this address is open to others: send `Authorization: Bearer` with the admin token")

        return guarded

    async def _index(self, request: Request) -> Response:
        return JSONResponse({"routes": ["/metrics", "/livez", "/readyz", "/api/findings", "/api/summary"]})

    async def _metrics_page(self, request: Request) -> Response:
        return Response(self._metrics.exposition(), headers={"content-type": EXPOSITION})

    async def _livez(self, request: Request) -> Response:
        return JSONResponse({"alive": True})

    async def _readyz(self, request: Request) -> Response:
        ready = self.ready and not self.draining
        return JSONResponse({"ready": ready, "degraded": self._degraded()}, 200 if ready else 503)

    async def _summary_page(self, request: Request) -> Response:
        return JSONResponse(self._summary())

    async def _findings(self, request: Request) -> Response:
        wanted = dict(request.query_params)
        try:
            after, limit = int(wanted.pop("after", "0")), int(wanted.pop("limit", "100"))
        except ValueError:
            return _error(400, "`after` and `limit` are whole numbers")
        if not 1 <= limit <= 1000:
            return _error(400, "`limit` is 1 to 1000")
        if unknown := sorted(wanted.keys() - FILTERS):
            return _error(400, f"unknown parameter '{unknown[0][:60]}': filters are {', '.join(sorted(FILTERS))}")
        findings, following = self._journal.read(after, limit, **wanted)
        return JSONResponse({"findings": findings, "next": following})


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
