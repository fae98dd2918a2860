"""A door in front of a raw upstream, and raw clients: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from mitmproxy import certs

from cio_proxy.audit import sealed_with
from cio_proxy.drivers import Auditor, build
from cio_proxy.model import Address, JournalSettings, Listener, Settings, TimeoutSettings
from cio_proxy.probe import Probe
from cio_proxy.sources.mitm import Door

from ..conftest import Collected  # noqa: TID252 (tests are no package)

SEAL = sealed_with(b"k" * 32)
BASIC = b"Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEzYzk1YTBiYzQ0ZDlmMDFlMjc="
SITE = "f82ad78f695bd32f9d99"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP/1 message with its body, as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body, size = b"", -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            body += line + (await reader.readexactly(size + 2) if size else b"")
        while not body.endswith(b"\r\n\r\n"):  # trailers
            body += await reader.readuntil(b"\r\n")
        return head + body
    length = 0
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head + await reader.readexactly(length)


type Answer = Callable[[bytes], Any]


@dataclass
class Upstream:
    """A raw server: it keeps what it receives and answers what it is told, None to close without a word."""

    answer: Answer = lambda request: OK
    received: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                request = await read_message(reader)
                self.received.append(request)
                self.arrived.set()
                answer = self.answer(request)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def upstream(answer: Answer = lambda request: OK) -> AsyncIterator[Upstream]:
    """A running raw upstream."""
    raw = Upstream(answer)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, limit=64 << 20)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()


@dataclass
class Opened:
    door: Door
    address: Address
    auditor: Auditor
    sink: Collected
    passed: list[Listener]

    async def connect(self, listener: Listener = "outbound") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.door.addresses[listener], limit=64 << 20)

    async def send(self, request: bytes, listener: Listener = "outbound") -> bytes:
        """Send raw bytes on a new connection and read one answer."""
        reader, writer = await self.connect(listener)
        try:
            writer.write(request)
            return await asyncio.wait_for(read_message(reader), 20)
        finally:
            writer.close()


type OpenDoor = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def keys_are_checked_once() -> Iterator[None]:
    """Each door reads its authority three times, and checking an RSA key takes longer than most tests."""
    read = certs.load_pem_private_key
    certs.load_pem_private_key = functools.cache(read)
    yield
    certs.load_pem_private_key = read


@pytest.fixture
def open_door(tmp_path_factory: pytest.TempPathFactory) -> OpenDoor:
    """Opens a door in front of a URL; one certificate authority serves the whole session."""
    state = tmp_path_factory.getbasetemp() / "door-state"
    state.mkdir(exist_ok=True)

    @asynccontextmanager
    async def opened(
        url: str,
        settings: Settings = Settings(),  # noqa: B008 frozen
        *,
        clock: Callable[[], float] = time.time,
        sandbox: bool = False,
        sandbox_eu: str | None = None,
        upstream_trouble: Callable[[bool], None] = lambda on: None,
        probe: Probe | None = None,
    ) -> AsyncIterator[Opened]:
        settings = replace(
            settings,
            listen=Address("127.0.0.1", 0),
            state=str(state),
            journal=JournalSettings(),
            timeouts=replace(settings.timeouts, drain=5.0)
            if settings.timeouts == TimeoutSettings()
            else settings.timeouts,
        )
        sink = Collected()
        passed: list[Listener] = []
        auditor = build(settings, clock=clock, sinks=[sink], seal=SEAL)
        door = Door(
            auditor,
            upstream=url,
            sandbox=sandbox,
            sandbox_eu=sandbox_eu,
            clock=clock,
            passed=passed.append,
            upstream_trouble=upstream_trouble,
            probe=probe,
        )
        address = await door.start()
        try:
            yield Opened(door, address, auditor, sink, passed)
        finally:
            await door.stop()

    return opened


def request(method: str, target: str, body: bytes = b"", *headers: bytes, host: bytes = b"track.customer.io") -> bytes:
    """A plain request with valid Track credentials."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: " + host, b"Authorization: " + BASIC, *headers]
    if body:
        lines += [b"Content-Type: application/json", b"Content-Length: " + str(len(body)).encode()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
