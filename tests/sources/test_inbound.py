"""In front of the app everything passes as it was sent and as it comes; only webhooks are read."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.model import Address, Settings, TimeoutSettings, WebhookSettings
from cio_proxy.sources.mitm import server

from .conftest import OK, OpenDoor, read_message, upstream
from .test_gateway import gateway_error, serving, tls_for

HOOK = b'{"event_id":"01E4C4CT6YDC7Y5M7FE1GWWPQJ","object_type":"email","metric":"bounced","timestamp":1613063089}'
CHUNK = b"x" * 65_536


def inbound(app: str, **options: Any) -> Settings:
    return Settings(inbound=Address("127.0.0.1", 0), app=app, **options)


def get(path: str = "/", *headers: bytes, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: shop.example.com:8443", *headers]
    lines += [b"Content-Length: %d" % len(body)] if body else []
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def until(holds: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "sent",
    [
        get("/a%2Fb/\xff?x=%20&&y", b"x-Odd: one", b"Cookie: a=1", b"Cookie: b=2", b"TE: trailers"),
        get("/form", b"Content-Type: application/json", method="POST", body=b'{"n": 1.50,  "a":[]}'),
        get("/big", method="PUT", body=bytes(range(256)) * 20_000),
        b"GET http://shop.example.com/absolute HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
        get("/api/v1/customers/42", b"Authorization: Basic YTpi", method="PUT", body=b'{"created_at":1700000000000}'),
        get("/", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"),
    ],
    ids=["odd path and headers", "post", "5 MB", "absolute target", "what would be Customer.io's", "h2c"],
)
async def test_a_request_arrives_at_the_app_as_it_was_sent(sent: bytes, open_door: OpenDoor) -> None:
    async with upstream() as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        answer = await door.send(sent, "inbound")
        await until(lambda: door.passed)
    assert app.received == [sent]
    assert answer == OK
    assert door.sink.ends == []
    assert door.passed == ["inbound"]


async def test_an_answer_comes_back_as_the_app_gave_it(open_door: OpenDoor) -> None:
    told = (
        b'HTTP/1.1 418 I am a teapot\r\nX-odd: a\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nAlt-Svc: h3=":443"; ma=60\r\n'
        b"Location: https://track-eu.customer.io/\r\nContent-Length: 3\r\n\r\n\x00\xff\n"
    )
    async with upstream(lambda _: told) as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        assert await door.send(get(), "inbound") == told


async def test_the_head_of_an_answer_comes_without_its_body(open_door: OpenDoor) -> None:
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\nETag: a\r\n\r\n"
    async with upstream(lambda _: told) as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        reader, writer = await door.connect("inbound")
        for _ in range(2):
            writer.write(get(method="HEAD"))
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == told
        writer.close()
    assert app.connections == 1


async def test_a_signed_webhook_and_a_configured_path_are_read_and_answered_by_the_app(open_door: OpenDoor) -> None:
    told = b"HTTP/1.1 204 No Content\r\nX-App: 1\r\n\r\n"
    sent = [
        get("/anywhere", b"X-CIO-Signature: ab", method="POST", body=HOOK),
        get("/hooks/cio/1", method="POST", body=HOOK),
        get("/hooks/cio/1", method="GET"),
        get("/hooks/other", method="POST", body=HOOK),
    ]
    settings = inbound("", webhooks=WebhookSettings(paths=("/hooks/cio/*",)))
    async with upstream(lambda _: told) as app:
        settings = inbound(app.url, webhooks=settings.webhooks)
        async with open_door("http://127.0.0.1:9", settings) as door:
            for each in sent:
                assert await door.send(each, "inbound") == told
            await until(lambda: len(door.passed) == 2)
    assert app.received == sent
    assert [(end.exchange.listener, end.exchange.body) for end in door.sink.ends] == [("inbound", HOOK)] * 2
    assert [end.upstream_seconds for end in door.sink.ends] == [None, None]


async def test_a_webhook_that_is_too_large_to_be_read_passes(open_door: OpenDoor) -> None:
    sent = get("/x", b"X-CIO-Signature: ab", method="POST", body=HOOK * 100)
    async with upstream() as app, open_door("http://127.0.0.1:9", inbound(app.url, max_audited_body=1_000)) as door:
        assert await door.send(sent, "inbound") == OK
    assert app.received == [sent]
    assert door.sink.endings == ["unaudited"]


async def test_events_come_as_the_app_sends_them(open_door: OpenDoor) -> None:
    more = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(head + b"9\r\ndata: 1\n\n\r\n")
        await more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with serving(events) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        writer.write(get("/events"))
        first = head + b"9\r\ndata: 1\n\n\r\n"
        assert await asyncio.wait_for(reader.readexactly(len(first)), 10) == first
        more.set()
        rest = b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        assert await asyncio.wait_for(reader.readexactly(len(rest)), 10) == rest
        writer.close()


async def test_a_websocket_passes_byte_for_byte_in_both_directions(open_door: OpenDoor) -> None:
    """Frames that are none, and more of them than anybody should keep."""
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    asked = get(
        "/ws",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    )
    heads: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_message(reader))
        writer.write(agreed + b"\xff\x00hello")
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async with serving(echo) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        writer.write(asked)
        assert await asyncio.wait_for(reader.readexactly(len(agreed) + 7), 10) == agreed + b"\xff\x00hello"
        for _ in range(20):
            writer.write(CHUNK)
            assert await asyncio.wait_for(reader.readexactly(len(CHUNK)), 10) == CHUNK
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert heads == [asked]
    assert door.passed == ["inbound"]


def resident() -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.once
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "a quarter of it, chunked"])
async def test_a_gigabyte_passes_in_both_directions_in_little_memory(chunked: bool, open_door: OpenDoor) -> None:
    size, count = 1 << 20, 1 << (8 if chunked else 10)
    piece = b"y" * size
    framed = b"%x\r\n%b\r\n" % (size, piece) if chunked else piece
    head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (size * count)
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        end = b""
        while received < size * count or (chunked and not end.endswith(b"0\r\n\r\n")):
            data = await reader.read(1 << 20)
            assert data
            received, end = received + len(data), (end + data)[-5:]
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        for _ in range(count):
            writer.write(framed)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await writer.drain()

    async with serving(serve) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        before = most = resident()
        writer.write(b"POST /upload HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")
        for _ in range(count):
            writer.write(framed)
            await writer.drain()
            most = max(most, resident())
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await reader.readuntil(b"\r\n\r\n")
        left = size * count
        while left > 0:
            data = await reader.read(1 << 20)
            assert data
            left -= len(data)
            most = max(most, resident())
        writer.close()
        await until(lambda: door.passed)
    assert received >= size * count
    assert most - before < 64, f"{most - before:.0f} MiB more"


async def test_expect_is_answered_and_the_body_follows(open_door: OpenDoor) -> None:
    async with upstream() as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        reader, writer = await door.connect("inbound")
        writer.write(get("/u", b"Expect: 100-continue", b"Content-Length: 3", method="PUT"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert await asyncio.wait_for(read_message(reader), 10) == OK
        writer.close()
    assert app.received == [get("/u", b"Content-Length: 3", method="PUT") + b"abc"]


@pytest.mark.parametrize("at_once", [True, False], ids=["in one packet", "byte by byte"])
async def test_interim_answers_go_on_before_the_last_one(at_once: bool, open_door: OpenDoor) -> None:
    ready = b"HTTP/1.1 100 Continue\r\n\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            told = ready + hints + hints + OK
            for piece in [told] if at_once else [bytes([byte]) for byte in told]:
                writer.write(piece)
                await asyncio.sleep(0)

    async with serving(serve) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        for _ in range(2):
            writer.write(get())
            whole = hints + hints + OK
            assert await asyncio.wait_for(reader.readexactly(len(whole)), 10) == whole
        writer.close()


async def test_trailers_of_a_request_and_of_its_answer_go_on(open_door: OpenDoor) -> None:
    told = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n"
    sent = get("/t", b"Transfer-Encoding: chunked", b"Trailer: X-Sum", method="POST") + b"2\r\nhi\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_message(reader))
        writer.write(told + b"0\r\nX-Sum: 1\r\n\r\n")

    received: list[bytes] = []
    async with serving(serve) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        answer = await door.send(sent + b"0\r\nX-Sum: 2\r\n\r\n", "inbound")
    assert received == [sent + b"0\r\nX-Sum: 2\r\n\r\n"]
    assert answer == told + b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("leave", ["abort", "close"])
async def test_an_app_hears_that_its_client_left(leave: str, open_door: OpenDoor) -> None:
    left = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while await reader.read(1):
            pass
        left.set()
        writer.close()

    async with serving(slow) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        writer.write(get("/events"))
        await reader.readuntil(b"\r\n\r\n")
        getattr(writer.transport, leave)()
        await asyncio.wait_for(left.wait(), 10)
        await until(lambda: door.passed)
    assert door.passed == ["inbound"]


async def test_a_client_that_only_sends_no_more_gets_its_answer(open_door: OpenDoor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(OK)
        writer.close()

    async with serving(serve) as port, open_door("http://127.0.0.1:9", inbound(f"http://127.0.0.1:{port}")) as door:
        reader, writer = await door.connect("inbound")
        writer.write(get())
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == OK
        writer.close()


async def test_an_app_that_is_down_is_a_502_that_names_the_option(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_door("http://127.0.0.1:9", inbound("http://127.0.0.1:9")) as door:
        for sent in (get(), get(method="POST", body=b"abc")):
            message = gateway_error(await door.send(sent, "inbound"), 502)
            assert "the app (http://127.0.0.1:9, option `app`) cannot be reached: connection refused" in message
        await until(lambda: len(door.passed) == 2)
    told = [record.getMessage() for record in caplog.records if record.name == "cio_proxy"]
    assert told == ["app http://127.0.0.1:9 cannot be reached: connection refused; requests are answered with 502"]


async def test_an_app_that_gives_no_answer_is_a_502(open_door: OpenDoor) -> None:
    async with upstream(lambda _: None) as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        message = gateway_error(await door.send(get(), "inbound"), 502)
    assert "option `app`) gave no proper answer: server closed connection" in message


async def test_an_app_may_take_longer_than_customerio_and_than_an_idle_connection(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(_: bytes) -> bytes:
        await asyncio.sleep(2.5)
        return OK

    monkeypatch.setattr(server, "IDLE_SECONDS", 1)
    timeouts = TimeoutSettings(connect=0.1, response=0.1, drain=5.0)
    async with (
        upstream(slowly) as app,
        open_door("http://127.0.0.1:9", inbound(app.url, timeouts=timeouts)) as door,
    ):
        reader, writer = await door.connect("inbound")
        writer.write(get())
        assert await asyncio.wait_for(read_message(reader), 10) == OK
        assert await asyncio.wait_for(reader.read(), 10) == b""  # and now it is idle
        writer.close()


async def test_an_app_behind_tls_is_spoken_to_and_its_certificate_looked_at(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(OK)

    async with serving(answer, ssl=context) as port:
        async with open_door("http://127.0.0.1:9", inbound(f"https://localhost:{port}", extra_ca=str(ca))) as door:
            assert await door.send(get(), "inbound") == OK
        async with open_door("http://127.0.0.1:9", inbound(f"https://localhost:{port}")) as door:
            assert "ertificate" in gateway_error(await door.send(get(), "inbound"), 502)


async def test_stopping_lets_an_answer_end_and_cuts_an_endless_one_when_the_time_is_over(open_door: OpenDoor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await asyncio.sleep(0.5 if b"/short" in head else 60)
        writer.write(b"data: 2\n\n")
        writer.close()

    timeouts = TimeoutSettings(drain=1.0)
    async with serving(serve) as port:
        settings = inbound(f"http://127.0.0.1:{port}", timeouts=timeouts)
        async with open_door("http://127.0.0.1:9", settings) as door:
            streams = []
            for path in ("/short", "/endless"):
                reader, writer = await door.connect("inbound")
                writer.write(get(path))
                await reader.readuntil(b"data: 1\n\n")
                streams.append((reader, writer))
            started = time.monotonic()
            stopping = asyncio.create_task(door.door.stop())
            rests = [await asyncio.wait_for(reader.read(), 10) for reader, _ in streams]
            await stopping
            took = time.monotonic() - started
            for _, writer in streams:
                writer.close()
    assert rests == [b"data: 2\n\n", b""]
    assert 0.9 < took < 4
    assert door.passed == ["inbound", "inbound"]


async def test_outbound_goes_on_beside_it(open_door: OpenDoor) -> None:
    async with upstream() as app, upstream() as raw, open_door(raw.url, inbound(app.url)) as door:
        sent = get("/api/v1/customers/42", b"Authorization: Basic YTpi", method="PUT", body=b"{}")
        await asyncio.gather(door.send(sent), door.send(sent, "inbound"))
    assert app.received == [sent]
    assert raw.received == [sent.replace(b"shop.example.com:8443", raw.url.removeprefix("http://").encode())]
    assert [end.exchange.listener for end in door.sink.ends] == ["outbound"]


async def test_a_listener_that_cannot_listen_is_named_by_its_option(open_door: OpenDoor) -> None:
    async with upstream() as busy:
        port = int(busy.url.rpartition(":")[2])
        settings = Settings(inbound=Address("127.0.0.1", port), app="http://127.0.0.1:9")
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port}: .* in use; give --inbound "):
            async with open_door(busy.url, settings):
                pass


async def test_garbage_is_refused_and_counted_as_passed(open_door: OpenDoor) -> None:
    async with upstream() as app, open_door("http://127.0.0.1:9", inbound(app.url)) as door:
        gateway_error(await door.send(b"NOT A REQUEST\r\n\r\n", "inbound"), 400)
    assert door.passed == ["inbound"]
    assert door.sink.ends == []
