"""Every way in which an upstream or a client breaks HTTP ends in one clear answer and in one count."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName
from mitmproxy.certs import CertStore

from cio_proxy.model import Settings, TimeoutSettings

from .conftest import OK, OpenDoor, read_message, request, upstream

IDENTIFY = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}')
READ = request("GET", "/api/v1/accounts/region")
SHORT = Settings(timeouts=TimeoutSettings(connect=0.3, response=0.3, drain=1.0))


def gateway_error(message: bytes, status: int) -> str:
    """The message of an error answer, whose body has the shape that every SDK reads."""
    head, _, body = message.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), message
    assert b"\r\nContent-Type: application/json" in head
    assert b"\r\nServer:" not in head
    assert b"mitmproxy" not in message.lower()
    error = json.loads(body)
    text: str = error["message"]
    assert error["meta"] == {"error": text}
    assert error["code"]
    assert set(error["errors"][0]) == {"reason", "field", "message", "detail", "status"}
    return text


type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def serving(serve: Serve, **options: Any) -> AsyncIterator[int]:
    """A server of raw connections on a free port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def tls_for(name: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server context with a certificate for `name`, and the file of the authority that issued it."""
    folder.mkdir(exist_ok=True)
    store = CertStore.from_store(folder, "test", 2048)
    entry = store.get_cert(name, [DNSName(name)])
    assert entry.privatekey is not None
    pem = folder / f"{name}.pem"
    key = entry.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(key + entry.cert.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, folder / "test-ca-cert.pem"


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_message(reader)
    writer.write(OK)
    writer.close()


async def test_an_upstream_with_a_trusted_certificate_is_spoken_to(open_door: OpenDoor, tmp_path: Path) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    trusting = Settings(extra_ca=str(ca))
    async with serving(answer_once, ssl=context) as port, open_door(f"https://localhost:{port}", trusting) as door:
        assert (await door.send(IDENTIFY)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"], ids=["unknown issuer", "other name"])
async def test_an_upstream_with_a_bad_certificate_is_a_502(name: str, open_door: OpenDoor, tmp_path: Path) -> None:
    context, ca = tls_for(name, tmp_path / "ca")
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    settings = Settings(extra_ca=None if name == "localhost" else str(ca))
    async with (
        serving(serve, ssl=context) as port,
        open_door(f"https://localhost:{port}", settings) as door,
    ):
        assert "ertificate" in gateway_error(await door.send(IDENTIFY), 502)
    assert not any(received)
    assert door.sink.endings == ["failed"]


async def test_an_upstream_that_never_finishes_its_tls_handshake_is_a_502(open_door: OpenDoor) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(silence) as port, open_door(f"https://127.0.0.1:{port}", SHORT) as door:
        assert "in time" in gateway_error(await door.send(IDENTIFY), 502)
    assert door.sink.endings == ["failed"]


async def test_an_upstream_that_does_not_accept_is_a_502(open_door: OpenDoor) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with open_door(f"http://127.0.0.1:{full.getsockname()[1]}", SHORT) as door:
            assert "in time" in gateway_error(await door.send(IDENTIFY), 502)
        for one in waiting:
            one.close()
    assert door.sink.endings == ["failed"]


async def test_an_answer_that_stalls_in_its_body_is_a_504(open_door: OpenDoor) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        await reader.read()
        writer.close()

    async with serving(stall) as port, open_door(f"http://127.0.0.1:{port}", SHORT) as door:
        assert "in time" in gateway_error(await door.send(IDENTIFY), 504)
    assert door.sink.endings == ["failed"]


async def test_a_slow_first_answer_does_not_shorten_the_time_of_the_next(open_door: OpenDoor) -> None:
    async def slow(_: bytes) -> bytes:
        await asyncio.sleep(0.2)
        return OK

    async with upstream(slow) as raw, open_door(raw.url, SHORT) as door:
        reader, writer = await door.connect()
        for _ in range(3):
            writer.write(READ)
            assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert door.sink.endings == ["forwarded"] * 3


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "told",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 2\r\n\r\n{}",
        JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"\x16\x03\x01 garbage\r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
    ],
    ids=["two lengths", "a length, said to be chunked", "bad name", "bad chunk", "garbage", "bad status"],
)
async def test_an_answer_that_is_no_proper_http_is_a_502(told: bytes, open_door: OpenDoor) -> None:
    async with upstream(lambda _: told) as raw, open_door(raw.url) as door:
        assert "upstream gave no proper answer" in gateway_error(await door.send(IDENTIFY), 502)
    assert door.sink.endings == ["failed"]


@pytest.mark.parametrize(
    "sent",
    [
        b"NOT A REQUEST\r\n\r\n",
        b"\x00\x01\x02\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        request("PUT", "/", b"", b"Content-Length: nine"),
        request("PUT", "/", b"x", b"Content-Length: 2"),
        request("PUT", "/", b"x", b"Transfer-Encoding: chunked"),
        request("PUT", "/", b"", b"Transfer-Encoding: gzip"),
        request("GET", "/", b"", b"Host : elsewhere"),
        request("PUT", "/", b"", b"Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        b"CONNECT track.customer.io:443 HTTP/1.1\r\nHost: track.customer.io:443\r\n\r\n",
    ],
    ids=lambda sent: sent.decode("latin-1").encode("unicode_escape").decode()[:60],
)
async def test_a_request_that_is_no_proper_http_is_a_400_and_goes_nowhere(sent: bytes, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        assert gateway_error(await door.send(sent), 400)
    assert raw.received == []
    assert door.sink.endings == ["failed"]


async def test_a_malformed_head_after_a_good_request_counts_once(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(READ + b"NOT A REQUEST\r\n\r\n")
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        gateway_error(await read_message(reader), 400)
        writer.close()
    assert door.sink.endings == ["forwarded", "failed"]
    assert [end.exchange.carried for end in door.sink.ends] == [1, 2]


async def test_an_upstream_may_close_an_idle_connection(open_door: OpenDoor) -> None:
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_once(reader, writer)
        await writer.wait_closed()
        closed.set()

    async with serving(once) as port, open_door(f"http://127.0.0.1:{port}") as door:
        reader, writer = await door.connect()
        for _ in range(2):
            closed.clear()
            writer.write(READ)
            assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
            await closed.wait()
            await asyncio.sleep(0.05)  # until the door has seen it
        writer.close()
    assert door.sink.endings == ["forwarded"] * 2


@pytest.mark.parametrize("at_once", [True, False], ids=["in one packet", "byte by byte"])
async def test_trailers_of_both_sides_go_on_and_the_connections_are_used_again(
    at_once: bool, open_door: OpenDoor
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"2\r\n{}\r\n0\r\nX-Sum: 1\r\nx-odd:  a b\r\n\r\n"
    chunked = request("POST", "/api/v1/customers/42/events", b"", b"Transfer-Encoding: chunked")
    body = b'{"name": "order_placed"}'
    sent = chunked + b"%x\r\n%b\r\n0\r\nX-Sum: 2\r\n\r\n" % (len(body), body)
    async with upstream(lambda _: answer) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(2):
            for piece in [sent] if at_once else [bytes([byte]) for byte in sent]:
                writer.write(piece)
                await asyncio.sleep(0)
            assert await read_message(reader) == answer.replace(b":  a", b": a")
        writer.write(READ)
        assert await read_message(reader) == answer.replace(b":  a", b": a")
        writer.close()
    assert raw.connections == 1
    assert [received.partition(b"\r\n\r\n")[2] for received in raw.received[:2]] == [sent[len(chunked) :]] * 2
    assert door.sink.endings == ["forwarded"] * 3


JSON_IN_CHUNKS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
)


@pytest.mark.parametrize("trailer", [b"no colon", b"Transfer-Encoding: gzip", b"Content-Length: x"])
async def test_trailers_that_cannot_be_read_are_an_error(trailer: bytes, open_door: OpenDoor) -> None:
    whole = JSON_IN_CHUNKS + trailer + b"\r\n\r\n"
    async with upstream(lambda _: whole) as raw, open_door(raw.url) as door:
        assert (await door.send(READ)).startswith(b"HTTP/1.1 502 ")


async def test_a_trailer_that_would_frame_or_route_a_message_is_left_out(open_door: OpenDoor) -> None:
    framing = b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\nHost: other.example.com\r\n"
    whole = JSON_IN_CHUNKS + framing + b"X-Sum: 1\r\n\r\n"
    async with upstream(lambda _: whole) as raw, open_door(raw.url) as door:
        assert await door.send(READ) == JSON_IN_CHUNKS + b"X-Sum: 1\r\n\r\n"
    async with upstream(lambda _: JSON_IN_CHUNKS + framing + b"\r\n") as raw, open_door(raw.url) as door:
        assert await door.send(READ) == JSON_IN_CHUNKS + b"\r\n"
