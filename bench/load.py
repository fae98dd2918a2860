"""A load generator: keep-alive connections that send the bench's traffic for some seconds, and a small upstream.

    python load.py upstream
    python load.py HOST:PORT CONNECTIONS SECONDS START

The first prints its port and answers everything with 200; the second prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import chain, islice

from traffic import calls, head

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
READY = 20_000
"""As many requests as a proxy answers in a run are made before it begins."""
COUNT = 1_007_000
"""More requests than a run sends; a run begins at START in an endless row of them, so that nothing is sent twice."""
PEOPLE = 5_000
"""So many that nobody is identified ten times a minute, which is a finding; and each run begins with others."""


class Upstream(asyncio.Protocol):
    """Answers a request once its body is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = self.received[:end].lower().rpartition(b"content-length: ")[2].partition(b"\r\n")[0]
            if len(self.received) < end + 4 + int(length):
                return
            self.received = self.received[end + 4 + int(length) :]
            self.transport.write(ANSWER)


class Client(asyncio.Protocol):
    """Sends one request after the other."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""
        self.send()

    def send(self) -> None:
        request = next(self.load.requests)
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b"{}"):
            return
        if not self.received.startswith(b"HTTP/1.1 200"):
            self.load.failed += 1
        self.received = b""
        self.load.seconds.append(time.perf_counter() - self.sent)
        if time.perf_counter() < self.load.end:
            self.send()
        else:
            self.transport.close()
            self.load.left -= 1

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.load.failed += 1


class Load:
    """What was sent, and how long each answer took."""

    def __init__(self, connections: int, seconds: float, start: int) -> None:
        requests = (head(method, path, len(body)) + body for method, path, body in calls(COUNT, start * COUNT, PEOPLE))
        self.requests = chain(list(islice(requests, READY)), requests)
        self.seconds: list[float] = []
        self.failed = 0
        self.left = connections
        self.end = time.perf_counter() + seconds


async def upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def send(host: str, port: int, connections: int, seconds: float, start: int) -> None:
    load = Load(connections, seconds, start)
    started = time.perf_counter()
    for _ in range(connections):
        await asyncio.get_running_loop().create_connection(lambda: Client(load), host, port)
    while load.left:
        await asyncio.sleep(0.01)
    took = sorted(load.seconds)
    result = {
        "requests": len(took),
        "failed": load.failed,
        "per_second": len(took) / (time.perf_counter() - started),
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        asyncio.run(upstream())
    else:
        where, connections, seconds, start = sys.argv[1:]
        host, _, port = where.partition(":")
        asyncio.run(send(host, int(port), int(connections), float(seconds), int(start)))
