"""Whatever breaks, every request has exactly one answer and exactly one count, and the counters add up."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from functools import partial

from cio_proxy.model import Settings, TimeoutSettings, UpstreamSettings
from cio_proxy.sinks.metrics import Metrics

from ..conftest import counted  # noqa: TID252 (tests are no package)
from .conftest import OK, OpenDoor, read_message, request
from .test_gateway import serving

CLIENTS = 40
SECONDS = 4.0
SEEN = b'{"email": "a@example.com", "online": true}'
"""Presence: it may be said again and again."""
LATE = b'{"email": "a@example.com", "online": true, "created_at": 1700000000000}'
ITEM = b'{"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": %b}'
BATCH = (b'{"batch": [%b, %b]}' % (ITEM % LATE, ITEM % SEEN)).replace(b"a@", b"b@")
HTML = b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<h1>Oops</h1>"


def identify(kind: str, body: bytes = SEEN) -> bytes:
    return request("PUT", f"/api/v1/customers/{kind}", body)


def redirect(host: bytes, kind: str) -> bytes:
    location = b"https://%b/api/v1/customers/%b" % (host, kind.encode())
    return b"HTTP/1.1 307 Elsewhere\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location


REQUESTS: dict[str, tuple[bytes, int | None, str]] = {
    "ok": (identify("ok"), 200, "forwarded"),
    "html": (identify("html"), 500, "forwarded"),
    "moved": (identify("moved"), 200, "forwarded"),
    "loop": (identify("loop"), 307, "forwarded"),
    "slow": (identify("slow"), 504, "failed"),
    "reset": (identify("reset"), 502, "failed"),
    "cut off": (identify("half"), 502, "failed"),
    "garbage": (identify("garbage"), 502, "failed"),
    "dead": (request("GET", "/v1/campaigns", host=b"api.customer.io"), 502, "failed"),
    "malformed": (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "failed"),
    "left": (identify("slow"), None, "failed"),
    "refused": (identify("refused", LATE), 400, "blocked"),
    "cut": (request("POST", "/api/v2/batch", BATCH), 207, "partial"),
    "large": (identify("large", b"x" * 3_000), 200, "unaudited"),
}
"""What is sent, the status its client gets (None where it does not wait), and how it is counted."""


async def upstream(here: bytes, there: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream of one region that does what the path says; `here` is its own host, `there` the other region's."""
    try:
        while True:
            kind = (await read_message(reader)).split(b" ")[1].rpartition(b"/")[2].decode()
            match kind:
                case "slow":
                    await reader.read()  # until the proxy gives up
                    break
                case "reset":
                    writer.transport.abort()
                    break
                case "half":
                    writer.write(OK[:-1])
                    break
                case "garbage":
                    writer.write(b"\x16\x03 garbage\r\n\r\n")
                case "html":
                    writer.write(HTML)
                case "loop":
                    writer.write(redirect(there, kind))
                case "moved" if here == b"track.customer.io":
                    writer.write(redirect(there, kind))
                case _:
                    writer.write(OK)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


type Answers = Counter[tuple[str, int | None]]
"""How often a request of a kind was answered with a status."""


async def client(host: str, port: int, kinds: Iterable[str]) -> Answers:
    """Send requests one after the other, on one connection for as long as that is left open."""
    answers: Answers = Counter()
    reader, writer = await asyncio.open_connection(host, port)
    for kind in kinds:
        sent, status, _ = REQUESTS[kind]
        writer.write(sent)
        if status is None:
            await asyncio.sleep(0.1)
            answers[kind, None] += 1
        else:
            head = await asyncio.wait_for(read_message(reader), 60)
            answers[kind, int(head.split(b" ")[1])] += 1
            if b"\r\nConnection: close\r\n" not in head:
                continue
            assert await asyncio.wait_for(reader.read(), 60) == b"", f"a second answer to {kind}"
        writer.close()
        reader, writer = await asyncio.open_connection(host, port)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 60) == b"", "an answer that nobody asked for"
    writer.close()
    return answers


async def test_what_was_sent_is_what_was_counted_and_answered(open_door: OpenDoor) -> None:
    chance = random.Random(42)
    orders = [chance.sample(list(REQUESTS), len(REQUESTS)) for _ in range(CLIENTS)]
    us = partial(upstream, b"track.customer.io", b"track-eu.customer.io")
    eu = partial(upstream, b"track-eu.customer.io", b"track.customer.io")
    async with serving(us) as us_port, serving(eu) as eu_port:
        urls = UpstreamSettings(
            track=f"http://127.0.0.1:{us_port}", track_eu=f"http://127.0.0.1:{eu_port}", app="http://127.0.0.1:9"
        )
        settings = Settings(
            upstreams=urls,
            enforcement="enforce",
            max_audited_body=2_000,
            timeouts=TimeoutSettings(connect=SECONDS, response=SECONDS, drain=SECONDS),
        )
        metrics = Metrics([], settings, "1")
        async with open_door("http://127.0.0.1:9", settings) as door:
            door.auditor.sinks += (metrics,)
            async with asyncio.timeout(120):
                each = await asyncio.gather(*(client(door.address.host, door.address.port, order) for order in orders))
    assert sum(each, Counter()) == {(kind, status): CLIENTS for kind, (_, status, _) in REQUESTS.items()}
    wanted: Counter[str] = Counter()
    for _, _, ending in REQUESTS.values():
        wanted[ending] += CLIENTS
    assert counted(metrics.exposition().decode(), "cio_proxy_requests_total", "outcome") == wanted
    assert wanted.total() == CLIENTS * len(REQUESTS)
