"""What the app sends reaches the upstream byte for byte, but for the short list of promise 2."""

import gzip
import ssl

import pytest

from cio_proxy.model import Settings

from .conftest import OK, OpenDoor, read_message, request, upstream


def as_forwarded(sent: bytes, url: str) -> bytes:
    """The one thing that changes: `Host` becomes the upstream's name."""
    return sent.replace(b"track.customer.io", url.removeprefix("http://").encode(), 1)


ODD_HEADERS = (
    b"x-Odd-CASE: one",
    b"X-Twice: a",
    b"X-Twice: b",
    b"Cookie: a=1; b=2",
    "X-Latin: Ren\u00e9".encode("latin-1"),
    b"TE: trailers",
    b"Connection: keep-alive",
)


@pytest.mark.parametrize(
    "sent",
    [
        request(
            "PUT", "/api/v1/customers/u%2F1%40x.com?a=%20b&&c", b'{"email": "a@example.com",  "n":1.50}', *ODD_HEADERS
        ),
        request("GET", "/api/v1/accounts/region"),
        request("DELETE", "/api/v1/customers/42", b"", b"Content-Type: application/json"),
        request("POST", "/api/v1/customers/42/suppress", b"", b"Content-Length: 0"),
        request("PUT", "/api/v1/customers/42", gzip.compress(b'{"email": "a@example.com"}'), b"Content-Encoding: gzip"),
        request("PUT", "/api/v1/customers/42", b'{"email": "' + b"x" * (8 << 20) + b'@example.com"}'),
        request("POST", "/whatever/\xff", b"\x00\xff not json"),
    ],
    ids=["odd path, query and headers", "get", "delete", "empty body", "gzip", "8 MB", "unknown route, odd bytes"],
)
async def test_a_request_arrives_as_it_was_sent(sent: bytes, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        answer = await door.send(sent)
    assert raw.received == [as_forwarded(sent, raw.url)]
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n")
    assert answer.endswith(b"\r\n\r\n{}")
    assert door.sink.endings == ["forwarded"]


async def test_a_chunked_body_arrives_with_the_same_bytes_and_headers(open_door: OpenDoor) -> None:
    head = request("PUT", "/api/v1/customers/42", b"", b"Transfer-Encoding: chunked")
    async with upstream() as raw, open_door(raw.url) as door:
        await door.send(head + b'8\r\n{"email"\r\n11\r\n: "a@example.com"\r\n1\r\n}\r\n0\r\n\r\n')
    (arrived,) = raw.received
    arrived_head, _, chunk = arrived.partition(b"\r\n\r\n")
    assert arrived_head + b"\r\n\r\n" == as_forwarded(head, raw.url)
    assert chunk.split(b"\r\n")[1] == b'{"email": "a@example.com"}'


async def test_white_space_around_values_and_expect_are_the_proxys_business(open_door: OpenDoor) -> None:
    sent = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}', b"X-A:   b  ", b"Expect: 100-continue")
    async with upstream() as raw, open_door(raw.url) as door:
        await door.send(sent)
        # The interim answer came first; the upstream's own needs another read in a real client.
    assert raw.received == [
        as_forwarded(sent, raw.url).replace(b"X-A:   b  ", b"X-A: b").replace(b"Expect: 100-continue\r\n", b"")
    ]


async def test_a_body_over_the_limit_streams_past_unread(open_door: OpenDoor) -> None:
    body = b'{"created_at": 1700000000000, "pad": "' + b"x" * 200_000 + b'"}'
    sent = request("PUT", "/api/v1/customers/42", body)
    async with upstream() as raw, open_door(raw.url, Settings(max_audited_body=100_000)) as door:
        await door.send(sent)
    assert raw.received == [as_forwarded(sent, raw.url)]
    assert door.sink.findings == []
    assert door.sink.endings == ["unaudited"]


async def test_one_port_speaks_tls_too(open_door: OpenDoor) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with upstream() as raw, open_door(raw.url) as door:
        import asyncio

        reader, writer = await asyncio.open_connection(*door.address, ssl=context, server_hostname="track.customer.io")
        writer.write(request("GET", "/api/v1/accounts/region"))
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert door.sink.ends[0].exchange.tls


async def test_a_connection_is_kept_and_its_upstream_connection_with_it(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(3):
            writer.write(request("GET", "/api/v1/accounts/region"))
            await read_message(reader)
        writer.close()
    assert raw.connections == 1
    assert [end.exchange.carried for end in door.sink.ends] == [1, 2, 3]


async def test_the_answer_tells_what_was_found_and_nothing_else_changes(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        answer = await door.send(
            request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com", "created_at": 1700000000000}')
        )
    header = b"Cio-Proxy-Findings: millisecond-timestamp;action=would_block\r\n"
    assert header in answer
    assert answer.replace(header, b"") == OK


async def test_the_findings_header_can_be_switched_off(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, Settings(findings_header=False)) as door:
        answer = await door.send(
            request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com", "created_at": 1700000000000}')
        )
    assert answer == OK


async def test_an_answer_does_not_lead_a_client_to_another_port(open_door: OpenDoor) -> None:
    elsewhere = OK.replace(b"\r\n\r\n", b'\r\nAlt-Svc: h3=":443"; ma=2592000\r\nVia: 1.1 google\r\n\r\n', 1)
    async with upstream(lambda request: elsewhere) as raw, open_door(raw.url) as door:
        answer = await door.send(request("GET", "/api/v1/accounts/region"))
    assert answer == elsewhere.replace(b'Alt-Svc: h3=":443"; ma=2592000\r\n', b"")
