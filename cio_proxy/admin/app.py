"""Health, metrics, findings and the summary over HTTP, on a port of their own (design §5).

Bound to loopback every read is open. Bound elsewhere only `OPEN` is; the rest, and every change, needs the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cio_proxy.listening import refused
from cio_proxy.model import APIS, CONFIDENCES, KINDS, SEVERITIES, TAKEN, Address
from cio_proxy.sinks.journal import Journal
from cio_proxy.sinks.metrics import Metrics

READS: Final = ("GET", "HEAD")
CHANGES: Final = frozenset({"/api/enforcement", "/api/reset"})
OPEN: Final = frozenset({"/metrics", "/livez", "/readyz"})
CLOSED_SETS: Final[Mapping[str, Sequence[str]]] = {
    "severity": SEVERITIES,
    "confidence": CONFIDENCES,
    "action": TAKEN,
    "api": APIS,
    "call": KINDS,
}
FILTERS: Final = ("rule", *CLOSED_SETS, "client", "workspace", "fingerprint")
LARGEST_BODY: Final = 10_000
PAGE: Final = 100
LARGEST_PAGE: Final = 1000
GRACE_SECONDS: Final = 2


class BadQuery(ValueError):
    """A query parameter that cannot be right; the message says which and why."""


class Admin:
    """The admin server. Set `ready` once traffic is taken, and `draining` when it is about to end.

    `rules` are the ids that `/api/findings?rule=` may name; without them any text is taken. `enforce` takes one of
    `switches`, or None to change nothing, and gives what holds; `reset` is told whether facts go, too.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        journal: Journal,
        summary: Callable[[], dict[str, Any]],
        degraded: Callable[[], list[str]],
        token: str = "",
        rules: Collection[str] = (),
        switches: Sequence[str] = (),
        enforce: Callable[[Any], str] = lambda switch: "",
        reset: Callable[[bool], Awaitable[None]],
    ) -> None:
        self.ready = False
        self.draining = False
        self.token = token
        self._metrics = metrics
        self._journal = journal
        self._summary = summary
        self._degraded = degraded
        self._sets = {**CLOSED_SETS, "rule": tuple(rules)}
        self._switches = tuple(switches)
        self._enforce = enforce
        self._reset = reset
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, address: Address) -> Address:
        """Listen, and give the address with its real port. Raises OSError, in plain words, when it cannot be had."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            listening = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            raise OSError(refused(address, error, "--admin")) from error
        host, port = listening.getsockname()[:2]
        app = self.app(guarded=not ipaddress.ip_address(host).is_loopback)
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        return Address(address.host, port)

    async def stop(self) -> None:
        """Answer what is being asked, for two seconds at most, and stop listening."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    def app(self, *, guarded: bool) -> Starlette:
        """The routes; `guarded` asks for the token on all but the open ones."""
        routes = {
            "/": self._index,
            "/metrics": self._exposition,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/api/findings": self._findings,
            "/api/summary": self._api_summary,
            "/api/enforcement": self._enforcement,
        }
        changes = {"/api/enforcement": self._change_enforcement, "/api/reset": self._api_reset}
        return Starlette(
            routes=[
                *(Route(path, answer, methods=["GET"]) for path, answer in routes.items()),
                *(Route(path, answer, methods=["POST"]) for path, answer in changes.items()),
            ],
            middleware=[Middleware(_Gate, token=self.token, guarded=guarded)],
            exception_handlers={HTTPException: _refused, Exception: _refused},
        )

    async def _index(self, request: Request) -> Response:
        reads = ["/metrics", "/livez", "/readyz", "/api/findings", "/api/summary", "/api/enforcement"]
        return answer({"routes": reads, "changes": sorted(CHANGES)})

    def _exposition(self, request: Request) -> Response:
        # Not a coroutine: starlette runs it in a thread, since a scrape takes longer than an audit may wait.
        return Response(self._metrics.exposition(), headers={"content-type": self._metrics.content_type})

    async def _livez(self, request: Request) -> Response:
        return answer({"live": True})

    async def _readyz(self, request: Request) -> Response:
        ready = self.ready and not self.draining
        return answer({"ready": ready, "degraded": self._degraded()}, 200 if ready else 503)

    def _findings(self, request: Request) -> Response:
        try:
            after, limit, filters = self._query(request)
        except BadQuery as error:
            return answer({"error": str(error)}, 400)
        findings, following = self._journal.read(after, limit, filters)
        return answer({"findings": findings, "next": following})

    async def _api_summary(self, request: Request) -> Response:
        return answer(self._summary())

    async def _enforcement(self, request: Request) -> Response:
        return answer({"enforcement": self._enforce(None)})

    async def _change_enforcement(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return answer({"error": f"the body is over {LARGEST_BODY:,} bytes"}, 413)
        try:
            wanted = json.loads(body)["enforcement"]
        except (ValueError, TypeError, LookupError, RecursionError):
            wanted = None
        if wanted not in self._switches:
            choices = ", ".join(self._switches)
            return answer({"error": f'send {{"enforcement": "..."}} with one of {choices}'}, 400)
        return answer({"enforcement": self._enforce(wanted)})

    async def _api_reset(self, request: Request) -> Response:
        facts = request.query_params.get("facts", "0")
        if facts not in ("0", "1"):
            return answer({"error": f"facts: '{facts}' is neither 0 nor 1"}, 400)
        await self._reset(facts == "1")
        return answer({"reset": ["findings", "coverage", *(["facts"] if facts == "1" else [])]})

    def _query(self, request: Request) -> tuple[int, int, dict[str, str]]:
        """The cursor, the page size and the filters. Raises BadQuery."""
        filters: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in (*FILTERS, "after", "limit"):
                raise BadQuery(f"unknown parameter '{name}': use {', '.join(FILTERS)}, after or limit")
            if name in filters:
                raise BadQuery(f"'{name}' is given twice")
            if (known := self._sets.get(name)) and value not in known:
                raise BadQuery(f"{name}: '{value}' is none of {', '.join(known)}")
            filters[name] = value
        after = _number("after", filters.pop("after", "0"), 0, 2**63)
        limit = _number("limit", filters.pop("limit", str(PAGE)), 1, LARGEST_PAGE)
        return after, limit, filters


class _Server(uvicorn.Server):
    """uvicorn in a loop that is not its own: signals stay with the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Gate:
    """Asks for the token: for every change, and where `guarded` for all but the open routes."""

    def __init__(self, app: ASGIApp, token: str, guarded: bool) -> None:
        self._app = app
        self._guarded = guarded
        self._expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not (self._guarded or is_local(dict(scope["headers"]).get(b"host", b""))):
            # A page of another site can make its own name point here, and read what is open.
            await answer({"error": "ask for this host as localhost or 127.0.0.1"}, 403)(scope, receive, send)
        elif scope["type"] == "http" and self._asks(scope) and not self._shown(scope):
            refusal = answer({"error": "this needs the header `Authorization: Bearer <token>`"}, 401)
            refusal.headers["www-authenticate"] = "Bearer"
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _asks(self, scope: Scope) -> bool:
        changes = scope["method"] not in READS and scope["path"] in CHANGES
        return changes or (self._guarded and scope["path"] not in OPEN)

    def _shown(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return self._expected is not None and secrets.compare_digest(given, self._expected)


def is_local(host: bytes) -> bool:
    """Whether a `Host` names this machine."""
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def answer(content: object, status: int = 200) -> Response:
    """JSON in ASCII on one line, also for evidence that is not quite Unicode."""
    return Response(json.dumps(content) + "\n", status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return answer({"error": f"{request.method} {request.url.path}: {HTTPStatus(status).phrase.lower()}"}, status)


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadQuery(f"{name}: '{text}' is not a whole number from {least} to {most}")
    return int(text)
