"""When something breaks the client gets a clear JSON answer, the counters say so, and nothing false is learned."""

import asyncio
import json

from cio_proxy.audit import Engine
from cio_proxy.model import Settings, TimeoutSettings

from .conftest import OK, OpenDoor, read_message, request, upstream

IDENTIFY = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}')
EVENT = request("POST", "/api/v1/customers/42/events", b'{"name": "order_placed"}')


def gateway_error(message: bytes, status: int) -> str:
    head, _, body = message.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"application/json" in head
    assert b"mitmproxy" not in message.lower()
    error: str = json.loads(body)["meta"]["error"]
    return error


async def test_a_dead_upstream_is_a_502(open_door: OpenDoor) -> None:
    async with open_door("http://127.0.0.1:9") as door:
        assert "cio-proxy" in gateway_error(await door.send(IDENTIFY), 502)
    assert door.sink.endings == ["failed"]


async def test_a_silent_upstream_is_a_504(open_door: OpenDoor) -> None:
    async def silence(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return OK

    settings = Settings(timeouts=TimeoutSettings(connect=0.2, response=0.3, drain=1.0))
    async with upstream(silence) as raw, open_door(raw.url, settings) as door:
        assert "in time" in gateway_error(await door.send(IDENTIFY), 504)
    assert door.sink.endings == ["failed"]


async def test_garbage_from_upstream_is_a_502(open_door: OpenDoor) -> None:
    async with upstream(lambda _: b"\x16\x03 garbage\r\n\r\n") as raw, open_door(raw.url) as door:
        gateway_error(await door.send(IDENTIFY), 502)
    assert door.sink.endings == ["failed"]


async def test_an_upstream_that_hangs_up_is_a_502_and_its_identify_counts_for_the_app(open_door: OpenDoor) -> None:
    answers = iter([None, OK])
    settings = Settings(people="complete", enforcement="enforce")
    async with upstream(lambda _: next(answers)) as raw, open_door(raw.url, settings) as door:
        gateway_error(await door.send(IDENTIFY), 502)
        assert (await door.send(EVENT)).startswith(b"HTTP/1.1 200")
    assert door.sink.findings == []


async def test_a_refused_identify_teaches_nothing(open_door: OpenDoor) -> None:
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"
    answers = iter([refused, OK])
    async with upstream(lambda _: next(answers)) as raw, open_door(raw.url, Settings(people="complete")) as door:
        await door.send(IDENTIFY)
        await door.send(EVENT)
    assert [finding.rule for finding in door.sink.findings] == ["track-before-identify"]


async def test_a_client_that_leaves_early_is_counted_as_failed(open_door: OpenDoor) -> None:
    release = asyncio.Event()

    async def later(_: bytes) -> bytes:
        await release.wait()
        return OK

    async with upstream(later) as raw, open_door(raw.url) as door:
        _, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        writer.close()
        async with asyncio.timeout(10):
            while not door.sink.ends:
                await asyncio.sleep(0.01)
        release.set()
    assert door.sink.endings == ["failed"]


async def test_a_malformed_head_is_a_400_and_counted(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        gateway_error(await door.send(b"NOT A REQUEST\r\n\r\n"), 400)
        gateway_error(await door.send(request("PUT", "/", b"x", b"Content-Length: 2")), 400)
    assert door.sink.endings == ["failed", "failed"]
    assert raw.connections == 0


async def test_trailers_are_dropped_and_the_request_goes_on(open_door: OpenDoor) -> None:
    head = request("PUT", "/api/v1/customers/42", b"", b"Transfer-Encoding: chunked")
    async with upstream() as raw, open_door(raw.url) as door:
        answer = await door.send(head + b'1a\r\n{"email": "a@example.com"}\r\n0\r\nX-Sum: 1\r\n\r\n')
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"X-Sum" not in raw.received[0]


async def test_stopping_lets_a_request_in_flight_finish(open_door: OpenDoor) -> None:
    release = asyncio.Event()

    async def later(_: bytes) -> bytes:
        await release.wait()
        return OK

    async with upstream(later) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        stopping = asyncio.create_task(door.door.stop())
        await asyncio.sleep(0.1)
        release.set()
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        await stopping
    assert door.sink.endings == ["forwarded"]


class Broken(Engine):
    def open(self, exchange: object) -> object:  # type: ignore[override]
        raise RuntimeError("broken")


async def test_an_engine_that_fails_lets_traffic_pass(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        door.auditor.engine.__class__ = Broken
        assert (await door.send(IDENTIFY)).startswith(b"HTTP/1.1 200")
    assert len(raw.received) == 1
    assert door.sink.endings == ["unaudited"]


async def test_an_engine_that_fails_refuses_and_says_so_if_that_is_wanted(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, Settings(on_error="block")) as door:
        door.auditor.engine.__class__ = Broken
        answer = await door.send(IDENTIFY)
    assert answer.startswith(b"HTTP/1.1 400 Blocked by cio-proxy: audit failed\r\n")
    assert gateway_error(answer, 400) == "blocked by cio-proxy: the audit failed and on_error is block"
    assert raw.connections == 0
    assert door.sink.endings == ["blocked"]


async def test_server_sent_events_pass_as_they_come(open_door: OpenDoor) -> None:
    finish = asyncio.Event()
    first = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:1\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        await finish.wait()
        writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with open_door(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as door:
        reader, writer = await door.connect()
        writer.write(request("GET", "/v1/stream"))
        async with asyncio.timeout(10):
            await reader.readuntil(b"data:1")
            finish.set()
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    server.close()
