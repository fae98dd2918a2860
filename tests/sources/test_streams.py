"""What is too large to be read passes as it comes, in both directions, and is counted once."""

import asyncio
import gzip
import json

import pytest

from cio_proxy.model import Settings

from .conftest import OK, OpenDoor, read_message, request, upstream
from .test_gateway import answer_once, gateway_error, serving

SMALL = Settings(max_audited_body=1_000)
READ = request("GET", "/v1/exports/1/download")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


async def test_a_body_over_ten_mebibytes_streams_past_unread_by_default(open_door: OpenDoor) -> None:
    sent = request("PUT", "/api/v1/customers/42", b'{"created_at": 1700000000000, "pad": "' + b"x" * (11 << 20) + b'"}')
    async with upstream() as raw, open_door(raw.url) as door:
        assert (await door.send(sent)).startswith(b"HTTP/1.1 200")
    assert raw.received[0].partition(b"\r\n\r\n")[2] == sent.partition(b"\r\n\r\n")[2]
    assert door.sink.endings == ["unaudited"]
    assert door.sink.ends[0].exchange.body is None


async def test_a_chunked_body_that_grows_over_the_limit_streams_too(open_door: OpenDoor) -> None:
    pieces = [b"x" * 600_000] * 3
    head = request("PUT", "/api/v1/customers/42", b"", b"Transfer-Encoding: chunked")
    async with upstream() as raw, open_door(raw.url, SMALL) as door:
        reader, writer = await door.connect()
        writer.write(head)
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.01)
        writer.write(b"0\r\nX-Sum: 1\r\n\r\n")
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    received, trailers = raw.received[0].partition(b"\r\n\r\n")[2], b"X-Sum: 1\r\n"
    assert received.endswith(b"\r\n0\r\n" + trailers + b"\r\n")
    assert dechunked(received.replace(trailers, b"")) == b"".join(pieces)
    assert door.sink.endings == ["unaudited"]


async def test_a_chunked_body_just_over_the_limit_is_not_audited(open_door: OpenDoor) -> None:
    sent = request("PUT", "/api/v1/customers/42", b"", b"Transfer-Encoding: chunked") + chunked(b"x" * 2_000)
    async with upstream() as raw, open_door(raw.url, SMALL) as door:
        assert (await door.send(sent)).startswith(b"HTTP/1.1 200")
    assert raw.received[0].partition(b"\r\n\r\n")[2] == chunked(b"x" * 2_000)
    assert door.sink.endings == ["unaudited"]
    assert door.sink.ends[0].exchange.body is None


async def test_an_answer_before_the_end_of_a_streamed_body_is_counted_once(open_door: OpenDoor) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readexactly(5_000)
        await answer_once(reader, writer)

    async with serving(early) as port, open_door(f"http://127.0.0.1:{port}", SMALL) as door:
        reader, writer = await door.connect()
        sent = request("PUT", "/api/v1/customers/42", b"x" * 5_000)
        writer.write(sent[:-1_000])
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.write(sent[-1_000:])
        writer.write(request("GET", "/api/v1/accounts/region"))
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert door.sink.endings == ["unaudited", "forwarded"]


async def test_a_dead_upstream_under_a_streamed_body_is_a_502(open_door: OpenDoor) -> None:
    async with open_door("http://127.0.0.1:9", SMALL) as door:
        gateway_error(await door.send(request("PUT", "/api/v1/customers/42", b"x" * (12 << 20))), 502)
    assert door.sink.endings == ["failed"]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 2000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n",
    ],
    ids=["over 1 MiB", "until the end of the connection"],
)
async def test_a_large_or_open_ended_answer_passes_as_it_comes(head: bytes, open_door: OpenDoor) -> None:
    more = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(head + b"a" * 1_000_000)
        await more.wait()
        writer.write(b"b" * 1_000_000)
        writer.close()

    async with serving(serve) as port, open_door(f"http://127.0.0.1:{port}") as door:
        reader, writer = await door.connect()
        writer.write(READ)
        async with asyncio.timeout(20):
            first = await reader.readexactly(len(head) + 1_000_000)
            more.set()
            last = await reader.readexactly(1_000_000)
        writer.close()
        async with asyncio.timeout(10):
            while not door.sink.ends:
                await asyncio.sleep(0.01)
    assert first == head + b"a" * 1_000_000
    assert last == b"b" * 1_000_000
    assert door.sink.endings == ["forwarded"]


async def test_an_upstream_that_dies_in_a_streamed_answer_is_a_failure(open_door: OpenDoor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nabc")
        writer.close()

    async with serving(serve) as port, open_door(f"http://127.0.0.1:{port}") as door:
        reader, writer = await door.connect()
        writer.write(READ)
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"\r\n\r\nabc")
        writer.close()
    assert door.sink.endings == ["failed"]


async def test_a_compressed_207_teaches_which_items_were_refused(open_door: OpenDoor) -> None:
    batch = json.dumps(
        {
            "batch": [
                {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {"email": "a@b.io"}},
            ]
        }
    ).encode()
    event = b'{"type":"person","action":"event","identifiers":{"id":"1"},"name":"order_placed"}'
    body = gzip.compress(b'{"errors":[{"batch_index":0,"reason":"invalid","field":"id","message":"no"}]}')
    head = b"HTTP/1.1 207 Multi-Status\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    told = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answers = iter([told, OK])
    async with upstream(lambda _: next(answers)) as raw, open_door(raw.url, Settings(people="complete")) as door:
        assert await door.send(request("POST", "/api/v2/batch", batch)) == told
        await door.send(request("POST", "/api/v2/entity", event))
    assert [finding.rule for finding in door.sink.findings] == ["track-before-identify"]


async def test_the_answer_to_a_cut_batch_is_read_however_long_it_is(open_door: OpenDoor) -> None:
    item = b'{"type":"person","action":"identify","identifiers":{"id":"%d"},"attributes":{"email":"a@b.io"%b}}'
    sent = b'{"batch":[%b,%b]}' % (item % (1, b""), item % (2, b',"created_at":1700000000000'))
    told = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1500000\r\n\r\n" + b"{}".ljust(
        1_500_000
    )
    async with upstream(lambda _: told) as raw, open_door(raw.url, Settings(enforcement="enforce")) as door:
        answer = await door.send(request("POST", "/api/v2/batch", sent))
    assert answer.startswith(b"HTTP/1.1 207 ")
    assert [error["batch_index"] for error in json.loads(answer.partition(b"\r\n\r\n")[2])["errors"]] == [1]
    assert door.sink.endings == ["partial"]
