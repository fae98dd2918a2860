"""What Customer.io answers reaches the app unchanged."""

import gzip

import pytest

from .conftest import OpenDoor, read_message, request, upstream

READ = request("GET", "/api/v1/accounts/region")
ODD = (
    b"HTTP/1.1 200 Fine by me\r\nX-b: 1\r\nx-A: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: nginx\r\n"
    b"X-Latin: Ren\xe9\r\nContent-Length: 2\r\n\r\n{}"
)


@pytest.mark.parametrize(
    "told",
    [
        ODD,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nslow",
        b"HTTP/1.1 301 Moved\r\nLocation: https://track-eu.customer.io/api/v1/x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Try later\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(gzip.compress(b"{}", mtime=0)), gzip.compress(b"{}", mtime=0)),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: new\r\nContent-Length: 3\r\n\r\nnew",
        b"HTTP/1.1 207 Multi-Status\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 207 Multi-Status\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\nnot JSON!",
    ],
    ids=lambda told: told.split(b"\r\n")[0].decode(),
)
async def test_an_answer_arrives_as_it_was_given(told: bytes, open_door: OpenDoor) -> None:
    async with upstream(lambda _: told) as raw, open_door(raw.url) as door:
        assert await door.send(READ) == told
    assert door.sink.endings == ["forwarded"]


async def test_an_answer_to_head_has_no_body(open_door: OpenDoor) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n\r\n"
    async with upstream(lambda _: head) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(request("HEAD", "/api/v1/accounts/region"))
            assert await reader.readuntil(b"\r\n\r\n") == head
        writer.close()
    assert raw.connections == 1


async def test_requests_sent_in_one_go_are_answered_in_their_order(open_door: OpenDoor) -> None:
    def echo(sent: bytes) -> bytes:
        target = sent.split(b" ")[1]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target)

    async with upstream(echo) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(b"".join(request("GET", f"/api/v1/{number}") for number in range(5)))
        answers = [await read_message(reader) for _ in range(5)]
        writer.close()
    assert [answer.rpartition(b"/")[2] for answer in answers] == [b"0", b"1", b"2", b"3", b"4"]
    assert [end.exchange.carried for end in door.sink.ends] == [1, 2, 3, 4, 5]


async def test_an_http_1_0_client_gets_its_answer_and_the_end(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(READ.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await reader.read()).endswith(b"\r\n\r\n{}")
        writer.close()
    assert raw.received[0].startswith(b"GET /api/v1/accounts/region HTTP/1.0\r\n")
    assert door.sink.ends[0].exchange.http_version == "HTTP/1.0"


async def test_any_bytes_of_a_target_arrive_and_are_audited_as_sent(open_door: OpenDoor) -> None:
    target = b'/api/v1/customers/a%2Fb%zz;x=\xff\xc3\xa9~|^{}"<>\\/events?q=%&&=#frag'
    sent = request("GET", "/").replace(b"GET / ", b"GET " + target + b" ")
    async with upstream() as raw, open_door(raw.url) as door:
        await door.send(sent)
    assert raw.received[0].split(b" ")[1] == target
    assert door.sink.ends[0].exchange.target == target
