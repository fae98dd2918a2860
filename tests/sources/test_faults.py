"""When something breaks the client gets a clear JSON answer, the counters say so, and nothing false is learned."""

import asyncio
import json
import socket
import ssl

import pytest

from cio_proxy.audit import Engine
from cio_proxy.drivers import Audit
from cio_proxy.model import Exchange, Settings, TimeoutSettings

from .conftest import OK, OpenDoor, Opened, read_message, request, upstream

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


@pytest.mark.parametrize("lengths", [("2", "2"), ("2", "2", "2"), ("2, 2",), ("2,2", "2")])
async def test_an_answer_that_repeats_its_length_passes_with_one(lengths: tuple[str, ...], open_door: OpenDoor) -> None:
    said = "".join(f"Content-Length: {length}\r\n" for length in lengths).encode()
    answer = b"HTTP/1.1 200 OK\r\nServer: a\r\n" + said + b"Content-Type: application/json\r\n\r\n{}"
    async with upstream(lambda _: answer) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(EVENT)
            assert await asyncio.wait_for(read_message(reader), 10) == (
                b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
            )
        writer.close()
    assert raw.connections == 1


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ],
    ids=["a length beside chunks", "a 204 in chunks", "a 204 with its end"],
)
async def test_an_answer_that_says_twice_how_long_it_is_passes_with_what_counts(
    answer: bytes, passed: bytes, open_door: OpenDoor
) -> None:
    async with upstream(lambda _: answer) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(EVENT)
            assert await asyncio.wait_for(reader.readexactly(len(passed)), 10) == passed
        writer.close()
    assert door.sink.endings == ["forwarded", "forwarded"]


@pytest.mark.parametrize("lengths", [("2", "3"), ("2", "+2"), ("02", "02"), ("2", ""), ("2,", "2"), ("-2", "-2")])
async def test_an_answer_with_lengths_that_differ_or_are_none_is_a_502(
    lengths: tuple[str, ...], open_door: OpenDoor
) -> None:
    said = "".join(f"Content-Length: {length}\r\n" for length in lengths).encode()
    async with upstream(lambda _: b"HTTP/1.1 200 OK\r\n" + said + b"\r\n{}") as raw, open_door(raw.url) as door:
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


async def ended(door: Opened) -> None:
    async with asyncio.timeout(10):
        while not door.sink.ends:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("answer", "ending"), [(OK, "forwarded"), (None, "failed")])
async def test_a_complete_request_whose_client_left_ends_as_upstream_says(
    answer: bytes | None, ending: str, open_door: OpenDoor
) -> None:
    release = asyncio.Event()

    async def later(_: bytes) -> bytes | None:
        await release.wait()
        return answer

    async with upstream(later) as raw, open_door(raw.url) as door:
        _, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        writer.close()
        await asyncio.sleep(0.1)
        assert door.sink.ends == []
        release.set()
        await ended(door)
    assert door.sink.endings == [ending]


async def test_a_stop_does_not_wait_for_ever_for_a_client_that_left(open_door: OpenDoor) -> None:
    async def silence(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return OK

    settings = Settings(timeouts=TimeoutSettings(drain=0.3))
    async with upstream(silence) as raw, open_door(raw.url, settings) as door:
        _, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        writer.close()
        await asyncio.sleep(0.05)
        assert door.sink.ends == []
        await asyncio.wait_for(door.door.stop(), 10)
    assert door.sink.endings == ["failed"]


async def test_a_judgement_that_outlasts_the_stop_sends_nothing_for_a_client_that_left(open_door: OpenDoor) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    settings = Settings(timeouts=TimeoutSettings(drain=0.2))
    async with upstream() as raw, open_door(raw.url, settings) as door:
        begin = door.auditor.begin

        async def slow(exchange: Exchange) -> Audit:
            began.set()
            await go_on.wait()
            audit: Audit = await begin(exchange)
            return audit

        door.auditor.begin = slow
        _, writer = await door.connect()
        writer.write(IDENTIFY)
        await began.wait()
        writer.close()
        await asyncio.wait_for(door.door.stop(), 10)
        go_on.set()
        await ended(door)
    assert raw.received == []
    assert door.sink.endings == ["failed"]


async def test_requests_of_clients_that_close_at_once_all_arrive(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        for _ in range(40):
            with socket.create_connection(door.address) as client:
                client.sendall(IDENTIFY)
        async with asyncio.timeout(20):
            while len(door.sink.ends) < 40:
                await asyncio.sleep(0.01)
    assert len(raw.received) == 40
    assert door.sink.endings == ["forwarded"] * 40


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_tls_client_reads_the_same_errors(open_door: OpenDoor) -> None:
    async with open_door("http://127.0.0.1:9") as door:
        for sent, status in ((IDENTIFY, 502), (b"NOT A REQUEST\r\n\r\n", 400)):
            reader, writer = await asyncio.open_connection(*door.address, ssl=trusting())
            writer.write(sent)
            gateway_error(await asyncio.wait_for(read_message(reader), 10), status)
            writer.close()
    assert door.sink.endings == ["failed", "failed"]


async def test_a_tls_client_that_closes_at_once_loses_nothing(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        for _ in range(5):
            _, writer = await asyncio.open_connection(*door.address, ssl=trusting())
            writer.write(IDENTIFY)
            writer.close()
        async with asyncio.timeout(20):
            while len(door.sink.ends) < 5:
                await asyncio.sleep(0.01)
    assert len(raw.received) == 5
    assert door.sink.endings == ["forwarded"] * 5


async def test_pipelined_requests_of_a_client_that_closes_at_once_all_arrive(open_door: OpenDoor) -> None:
    expecting = request("PUT", "/api/v1/customers/7", b'{"email": "b@example.com"}', b"Expect: 100-continue")
    async with upstream() as raw, open_door(raw.url) as door:
        for _ in range(5):
            with socket.create_connection(door.address) as client:
                client.sendall(expecting + EVENT + IDENTIFY)
        async with asyncio.timeout(20):
            while len(door.sink.ends) < 15:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(10):  # and their connections are closed
            while raw.open:
                await asyncio.sleep(0.01)
    assert len(raw.received) == 15
    assert door.sink.endings == ["forwarded"] * 15


async def test_a_client_that_only_stops_sending_gets_its_answers_and_then_the_end(open_door: OpenDoor) -> None:
    async def later(_: bytes) -> bytes:
        await asyncio.sleep(0.1)
        return OK

    async with upstream(later) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(IDENTIFY + EVENT + b"PUT /half HTTP/1.1\r\n")
        writer.write_eof()
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answers.count(b"HTTP/1.1 200") == 2
    assert door.sink.endings == ["forwarded", "forwarded"]
    assert len(raw.received) == 2


async def test_a_streamed_answer_ends_with_its_client(open_door: OpenDoor) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"data: 1\n\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        gone.set()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with open_door(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as door:
        reader, writer = await door.connect()
        writer.write(request("GET", "/v1/stream"))
        await asyncio.wait_for(reader.readuntil(b"data: 1"), 10)
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)
        await ended(door)
    server.close()
    assert door.sink.endings == ["failed"]


@pytest.mark.parametrize("lines", [b"\r\n", b"\n", b"\r\n\n\r\n"])
async def test_empty_lines_before_a_request_are_ignored(lines: bytes, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for sent in (lines + IDENTIFY, lines + EVENT + lines):
            writer.write(sent)
            assert (await asyncio.wait_for(read_message(reader), 10)).startswith(b"HTTP/1.1 200")
        writer.write(lines[:1])
        await asyncio.sleep(0.05)
        writer.write(lines[1:] + IDENTIFY)
        assert (await asyncio.wait_for(read_message(reader), 10)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert [received[:3] for received in raw.received] == [b"PUT", b"POS", b"PUT"]
    assert door.sink.endings == ["forwarded"] * 3


async def test_a_malformed_head_is_a_400_and_counted(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        gateway_error(await door.send(b"NOT A REQUEST\r\n\r\n"), 400)
        gateway_error(await door.send(request("PUT", "/", b"x", b"Content-Length: 2")), 400)
        gateway_error(await door.send(request("PUT", "/", b"x", b"Content-Length: 1")), 400)
    assert door.sink.endings == ["failed", "failed", "failed"]
    assert raw.connections == 0


@pytest.mark.parametrize("more", [b"a" * 65_536, b"X-More: 1\r\n" * 8_192], ids=["one line", "many lines"])
async def test_a_head_that_does_not_end_is_refused_and_counted(more: bytes, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nX-More: " + more * 17)
        assert "head is over" in gateway_error(await asyncio.wait_for(read_message(reader), 10), 431)
        writer.close()
        assert (await door.send(request("PUT", "/x", b"{}", b"X-Large: " + b"a" * 2**19))).startswith(b"HTTP/1.1 200")
    assert door.sink.endings == ["failed", "forwarded"]


@pytest.mark.parametrize(
    "more", [b"0" * 2**21, b"2;" + b"x" * 2**21, b"0\r\n" + b"X: 1\r\n" * 2**19], ids=["size", "extension", "trailers"]
)
async def test_chunks_whose_framing_does_not_end_are_refused(more: bytes, open_door: OpenDoor) -> None:
    head = request("PUT", "/api/v1/customers/42", b"", b"Transfer-Encoding: chunked")
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(head + more)
        assert "framing" in gateway_error(await asyncio.wait_for(read_message(reader), 10), 400)
        writer.close()
    assert door.sink.endings == ["failed"]


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
