"""The emulation as a server: which API a request is for, who may call it, and the read API for tests and the demo.

GET  /_sandbox/people | events | deliveries | objects | requests    {"people": [...]}, oldest first
POST /_sandbox/reset                                                forget everything
POST /_sandbox/webhooks                                             post a signed webhook: `sandbox.webhooks` says how
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn

from cio_proxy.listening import refused
from cio_proxy.model import Json, Region
from cio_proxy.sandbox import app_api, pipelines, track_v1, track_v2, webhooks, wire
from cio_proxy.sandbox.people import Ring
from cio_proxy.sandbox.state import Workspace
from cio_proxy.sandbox.wire import Reply, Request

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Api = Literal["track", "pipelines", "app"]

MAX_REQUESTS, MAX_REQUEST_BYTES = 10_000, 64 * 2**20
MAX_NOTES = 50
ELSEWHERE = "An account in the EU: redirected to the EU host, and nothing is stored here [docs: Track API overview]."


@dataclass(slots=True)
class Received:
    """One request, what it was answered, and what the answer did not say."""

    at: float
    api: Api
    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    status: int
    notes: list[str]

    def shown(self) -> dict[str, Json]:
        """What `/_sandbox/requests` shows: header names as the server gives them, in lower case; body in base64."""
        return {
            "at": self.at,
            "api": self.api,
            "method": self.method,
            "target": self.target.decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "body": base64.b64encode(self.body).decode(),
            "status": self.status,
            "notes": [*self.notes],
        }


class Sandbox:
    """An emulated Customer.io. `region` answers `GET /api/v1/accounts/region`; `clock` gives Unix seconds.

    With `other`, the URL of the other region's sandbox, it turns away what belongs there. The prefix of a Pipelines
    key says that (reference 1.3), and `eu_keys` are the site ids and keys of accounts in the EU; any other credential
    is taken by both.
    `app` is a plain ASGI application; `start` and `stop` run it on a socket in the current event loop.
    """

    def __init__(
        self,
        *,
        region: Region = "us",
        clock: Callable[[], float] = time.time,
        other: str | None = None,
        eu_keys: Collection[str] = (),
    ) -> None:
        self.region: Region = region
        self.clock = clock
        self.other = other
        self._eu_keys = frozenset(eu_keys)
        self.reset()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """Forget everything."""
        self.workspace = Workspace(self.clock)
        self.requests: Ring[Received] = Ring(MAX_REQUESTS, MAX_REQUEST_BYTES)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the URL. Raises `OSError`, with one clear line, if that address cannot be used."""
        listener = _listen(host, port)
        config = uvicorn.Config(
            self.app,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,  # a server that closes first looks like an app without pooling (reference 9.17)
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=256 * 1024,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if serving.done():
                await serving
                raise OSError(f"the sandbox on {host}:{port} ended before it started")
            await asyncio.sleep(0.005)
        self._server, self._serving = server, serving
        bound = listener.getsockname()[1]
        return f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Answer what is under way, within two seconds, and close the socket. Does nothing if not started."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    async def app(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if body is None:
            return
        path = _bare(scope["raw_path"])
        request = Request(
            scope["method"], path, scope["query_string"], tuple((name, value) for name, value in scope["headers"]), body
        )
        if path == b"/_sandbox/webhooks" and request.method == "POST":
            await _respond(send, await webhooks.answer(request, self.clock()))
            return
        reading = path.startswith(b"/_sandbox/")
        await _respond(send, self._read(request) if reading else self._answer(request, scope["raw_path"]))

    def _answer(self, request: Request, raw_path: bytes) -> Reply:
        """Answer as Customer.io, and keep the request."""
        api = _api(request.path)
        if len(request.body) > wire.MAX_BODY:
            reply = wire.meta_error(413, "the body is over the sandbox's own limit of 32 MiB")
        else:
            reply = _unauthorized(api, request) or self._misplaced(api, request) or self._dispatch(api, request)
        target = raw_path + (b"?" + request.query if request.query else b"")
        if reply.location:
            reply.location += target.decode("latin-1")
        received = Received(
            at=self.clock(),
            api=api,
            method=request.method,
            target=target,
            headers=request.headers,
            body=request.body,
            status=reply.status,
            notes=[*dict.fromkeys(reply.notes)][:MAX_NOTES],
        )
        weight = len(target) + len(request.body) + sum(len(name) + len(value) + 100 for name, value in request.headers)
        self.requests.add(received, weight + 500)
        return reply

    def _misplaced(self, api: Api, request: Request) -> Reply | None:
        """What an account of the other region gets [docs: Track API overview].

        The US host redirects an account of the EU, the EU host fails one of the US. With which statuses, and that the
        other APIs do the same, is unverified; customerio-node follows 301, 302, 307 and 308 (reference 1.1).
        """
        user, _ = wire.basic(request) or ("", "")
        token = wire.bearer(request)
        eu = bool(self._eu_keys.intersection((user, token))) or (user + token).startswith(("pk_eu_", "sk_eu_"))
        us = (user + token).startswith(("pk_us_", "sk_us_"))
        if self.other is not None and self.region == "us" and eu:
            return Reply(307, notes=[ELSEWHERE], location=self.other)
        if self.other is not None and self.region == "eu" and us:
            return _refused(api)
        return None

    def _dispatch(self, api: Api, request: Request) -> Reply:
        match api:
            case "pipelines":
                return pipelines.answer(self.workspace, request)
            case "app":
                return app_api.answer(self.workspace, request)
            case "track" if request.path.startswith(b"/api/v2/"):
                return track_v2.answer(self.workspace, request)
            case "track":
                return track_v1.answer(self.workspace, request, self.region)

    def _read(self, request: Request) -> Reply:
        self.workspace.forget_anonymous()
        match request.method, request.path.removeprefix(b"/_sandbox/"):
            case "GET", b"people":
                return Reply(200, {"people": [person.shown() for person in self.workspace.people.values()]})
            case "GET", b"events":
                return Reply(200, {"events": [event.shown() for event in self.workspace.events]})
            case "GET", b"deliveries":
                return Reply(200, {"deliveries": [delivery.shown() for delivery in self.workspace.deliveries]})
            case "GET", b"objects":
                return Reply(200, {"objects": [*self.workspace.objects.values()]})
            case "GET", b"requests":
                return Reply(200, {"requests": [received.shown() for received in self.requests]})
            case "POST", b"reset":
                self.reset()
                return Reply()
        return Reply(404, {"error": "GET people, events, deliveries, objects or requests; POST reset or webhooks"})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program around us."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket of our own: uvicorn ends the process where a port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError, UnicodeError) as error:
        raise OSError(refused(f"{host}:{port}", error, "--listen")) from error
    # Its connections inherit this. asyncio sets it only where the socket names TCP, and each answer would take 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _body(receive: Receive) -> bytes | None:
    """The whole body, cut one byte over the limit; None if the client left before its end."""
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")[: wire.MAX_BODY + 1 - length]
        parts.append(part)
        length += len(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _respond(send: Send, reply: Reply) -> None:
    body = b"" if reply.body is None else json.dumps(reply.body).encode()
    headers = [(b"content-length", str(len(body)).encode())] if reply.status != 204 else []
    if body:
        headers.append((b"content-type", b"application/json"))
    if reply.location:
        headers.append((b"location", reply.location.encode("latin-1")))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bare(raw_path: bytes) -> bytes:
    """The path of a target in absolute form, as clients send it to a proxy."""
    scheme, separator, rest = raw_path.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator and scheme.lower() in (b"http", b"https") else raw_path


def _api(path: bytes) -> Api:
    """Which API a path belongs to; the hosts are not needed to tell (reference 1.1)."""
    if pipelines.PATH.match(path):
        return "pipelines"
    return "app" if path.startswith(b"/v1/") else "track"


def _unauthorized(api: Api, request: Request) -> Reply | None:
    """A 401 where the scheme is wrong; any well-formed key is right (reference 1.1, 1.2)."""
    user, password = wire.basic(request) or ("", "")
    token = wire.bearer(request)
    match api:
        case "track":
            right = bool(user and password) or track_v1.UNAUTHENTICATED.match(request.path) is not None
        case "pipelines":
            right = bool(user and not password) or token.startswith(("pk_", "sk_"))
        case "app":
            right = bool(token)
    return None if right else _refused(api)


def _refused(api: Api) -> Reply:
    """A 401 in the API's shape.

    The texts are unverified, and so is that Pipelines answers 401 in permissive mode too (reference 4).
    """
    match api:
        case "track":
            return wire.meta_error(401, "Unauthorized request")
        case "pipelines":
            return wire.pipelines_error(401, "unauthorized", "Unauthorized request")
        case "app":
            return wire.app_error(401, "unauthorized")
