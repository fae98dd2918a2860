"""A proxy that its clients know of: Customer.io's hosts are audited, every other site is reached as without it."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.model import Address, Settings, TimeoutSettings, UpstreamProxy, UpstreamSettings

from .conftest import OK, OpenDoor, Opened, Upstream, read_message, request, upstream
from .test_gateway import gateway_error, serving, tls_for
from .test_upstream_proxy import PASS, proxying

EXPLICIT = Settings(explicit=Address("127.0.0.1", 0))
LATE = b'{"email": "a@example.com", "created_at": 1700000000000}'
IDENTIFY = request("PUT", "/api/v1/customers/42", LATE)
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def ours(door: Opened) -> Path:
    return Path(door.auditor.settings.state or "") / "certificates" / "mitmproxy-ca-cert.pem"


async def connected(door: Opened, target: str) -> tuple[bytes, Streams]:
    """What a `CONNECT` is answered."""
    reader, writer = await door.connect("explicit")
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: keep-alive\r\n\r\n".encode())
    return await asyncio.wait_for(read_message(reader), 10), (reader, writer)


@contextlib.asynccontextmanager
async def tunnel(door: Opened, target: str, ca: Path | None = None, name: str = "") -> AsyncIterator[Streams]:
    """A connection through the proxy, with TLS where there is an authority to trust."""
    answer, (reader, writer) = await connected(door, target)
    assert answer == CONNECTED
    try:
        if ca is not None:
            context = ssl.create_default_context(cafile=str(ca))
            await writer.start_tls(context, server_hostname=name or target.partition(":")[0])
        yield reader, writer
    finally:
        writer.close()


async def exchanged(streams: Streams, sent: bytes) -> bytes:
    reader, writer = streams
    writer.write(sent)
    return await asyncio.wait_for(read_message(reader), 10)


async def test_another_site_shows_its_own_certificate(open_door: OpenDoor, tmp_path: Path) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    site = Upstream()
    async with serving(site.serve, ssl=context) as port, open_door("http://127.0.0.1:9", EXPLICIT) as door:
        async with tunnel(door, f"localhost:{port}", ca) as streams:
            for _ in range(3):
                assert await exchanged(streams, IDENTIFY) == OK
        with pytest.raises(ssl.SSLCertVerificationError):
            async with tunnel(door, f"localhost:{port}", ours(door)):
                pass
    assert site.received == [IDENTIFY] * 3
    assert door.sink.ends == []


@pytest.mark.parametrize("host", ["track.customer.io", "Track-EU.customer.io", "cdp.customer.io"])
async def test_a_host_of_customerio_is_audited_with_our_certificate(host: str, open_door: OpenDoor) -> None:
    async with (
        upstream() as raw,
        open_door(raw.url, EXPLICIT) as door,
        tunnel(door, f"{host}:443", ours(door)) as streams,
    ):
        for _ in range(2):
            assert (await exchanged(streams, IDENTIFY)).startswith(b"HTTP/1.1 200")
    assert len(raw.received) == 2
    assert raw.received[0] == IDENTIFY.replace(b"track.customer.io", raw.url.removeprefix("http://").encode())
    assert [(end.exchange.listener, end.exchange.tls, end.exchange.carried) for end in door.sink.ends] == [
        ("explicit", True, 1),
        ("explicit", True, 2),
    ]
    assert {finding.listener for finding in door.sink.findings} == {"explicit"}


async def test_a_host_that_the_configuration_names_is_audited_too(open_door: OpenDoor) -> None:
    async with upstream() as raw:
        port = int(raw.url.rpartition(":")[2])
        settings = replace(EXPLICIT, upstreams=UpstreamSettings(track=f"http://localhost:{port}"))
        async with (
            open_door("http://127.0.0.1:9", settings) as door,
            tunnel(door, f"localhost:{port}", ours(door)) as streams,
        ):
            assert (await exchanged(streams, IDENTIFY)).startswith(b"HTTP/1.1 200")
    assert len(raw.received) == 1
    assert door.sink.endings == ["forwarded"]


async def test_plain_http_to_customerio_is_audited_and_to_others_passes(open_door: OpenDoor) -> None:
    async with upstream() as raw, upstream() as site, open_door(raw.url, EXPLICIT) as door:
        here = site.url.removeprefix("http://").encode()
        theirs = request("POST", "/form?a", b"body", b"X-odd:  1", host=here)
        between = b"Proxy-Authorization: Basic YTpi\r\nProxy-Connection: keep-alive\r\n"
        for sent, to in ((IDENTIFY, b"http://track.customer.io/"), (theirs, b"http://" + here + b"/")):
            method, _, rest = sent.partition(b" /")
            line, _, headers = rest.partition(b"\r\n")
            absolute = method + b" " + to + line + b"\r\n" + between + headers
            assert (await door.send(absolute, "explicit")).startswith(b"HTTP/1.1 200")
    assert raw.received == [IDENTIFY.replace(b"track.customer.io", raw.url.removeprefix("http://").encode())]
    assert site.received == [theirs.replace(b"X-odd:  1", b"X-odd: 1")]
    assert [(end.exchange.listener, end.exchange.tls) for end in door.sink.ends] == [("explicit", False)]


async def test_another_site_that_cannot_be_reached_is_no_trouble_of_the_upstream(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    said = list[bool]()
    async with upstream() as raw, open_door(raw.url, EXPLICIT, upstream_trouble=said.append) as door:
        answer = await door.send(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", "explicit")
    assert answer.startswith(b"HTTP/1.1 502")
    assert (said, [record.getMessage() for record in caplog.records]) == ([], [])


async def test_a_redirect_to_the_other_region_is_the_clients_to_follow(open_door: OpenDoor) -> None:
    location = b"https://track-eu.customer.io/api/v1/customers/42"
    moved = b"HTTP/1.1 307 Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
    async with upstream(lambda _: moved) as us, upstream() as eu:
        settings = replace(EXPLICIT, upstreams=UpstreamSettings(track=us.url, track_eu=eu.url))
        async with open_door("http://127.0.0.1:9", settings) as door:
            async with tunnel(door, "track.customer.io:443", ours(door)) as streams:
                answers = [await exchanged(streams, IDENTIFY) for _ in range(2)]
                assert [b"Location: " + location in answer for answer in answers] == [True, True]
            assert (await door.send(IDENTIFY)).startswith(b"HTTP/1.1 200")  # the outbound listener follows it
            async with tunnel(door, "track.customer.io:443", ours(door)) as streams:
                assert (await exchanged(streams, IDENTIFY)).startswith(
                    b"HTTP/1.1 307"
                )  # and nobody else learns from it
    assert (len(us.received), len(eu.received)) == (4, 1)


async def test_any_bytes_pass_through_a_tunnel_and_the_server_may_speak_first(open_door: OpenDoor) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while data := await reader.read(65_536):
            writer.write(data[::-1])
        writer.close()

    async with (
        serving(greet) as port,
        open_door("http://127.0.0.1:9", EXPLICIT) as door,
        tunnel(door, f"127.0.0.1:{port}") as (reader, writer),
    ):
        assert await asyncio.wait_for(reader.readline(), 10) == b"220 hello\r\n"
        writer.write(b"\x00\xff\x01")
        assert await asyncio.wait_for(reader.readexactly(3), 10) == b"\x01\xff\x00"


async def test_a_site_that_cannot_be_reached_is_a_502_before_anything_else(open_door: OpenDoor) -> None:
    async with open_door("http://127.0.0.1:9", EXPLICIT) as door:
        answer, (_, writer) = await connected(door, "127.0.0.1:9")
        writer.close()
        assert b"127.0.0.1 cannot be reached: connection refused" in answer
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"mitmproxy" not in answer.lower()
        itself = str(door.door.addresses["explicit"])
        answer, (_, writer) = await connected(door, itself)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 502 ")
        sent = f"PUT http://{door.door.addresses['outbound']}/api/v1/customers/42 HTTP/1.1\r\nHost: a\r\n\r\n"
        assert "that is this proxy itself" in gateway_error(await door.send(sent.encode(), "explicit"), 502)
        gateway_error(await door.send(b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: a\r\n\r\n", "explicit"), 502)


async def test_a_tunnel_leads_through_the_proxy_on_the_way_out_and_outlasts_its_connect_time(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    site, plain = Upstream(), Upstream()
    async with (
        proxying() as proxy,
        serving(site.serve, ssl=context) as port,
        serving(plain.serve) as plain_port,
    ):
        timeouts = TimeoutSettings(connect=0.5, drain=1.0)
        settings = replace(EXPLICIT, upstream_proxy=proxy.settings, timeouts=timeouts)
        async with open_door("http://127.0.0.1:9", settings) as door:
            async with tunnel(door, f"localhost:{port}", ca) as streams:
                assert await exchanged(streams, IDENTIFY) == OK
                await asyncio.sleep(0.8)
                assert await exchanged(streams, IDENTIFY) == OK
            here = f"http://localhost:{plain_port}/a".encode()
            assert await door.send(b"GET " + here + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", "explicit") == OK
    first, second = proxy.heads
    assert first.splitlines()[0] == f"CONNECT localhost:{port} HTTP/1.1".encode()
    assert PASS in first.splitlines()
    assert second.splitlines() == [b"GET " + here + b" HTTP/1.1", b"Host: localhost", PASS, b""]


async def test_a_proxy_on_the_way_out_that_refuses_ends_the_tunnel(open_door: OpenDoor) -> None:
    settings = replace(EXPLICIT, upstream_proxy=UpstreamProxy("127.0.0.1", 9))
    async with open_door("http://127.0.0.1:9", settings) as door:
        _, (reader, writer) = await connected(door, "localhost:1")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_client_that_trusts_somebody_else_is_told_of_once(
    open_door: OpenDoor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, ca = tls_for("localhost", tmp_path / "ca")
    caplog.set_level(logging.WARNING)
    async with open_door("http://127.0.0.1:9", EXPLICIT) as door:
        for host in ("track.customer.io", "track.customer.io", "cdp.customer.io"):
            with contextlib.suppress(ssl.SSLError):
                async with tunnel(door, f"{host}:443", ca):
                    pass
        authority = ours(door)
        async with asyncio.timeout(10):
            while len(caplog.records) < 2:
                await asyncio.sleep(0.01)
    track, cdp = [record.getMessage() for record in caplog.records]
    assert track.startswith("127.0.0.1 did not take our certificate for track.customer.io (it ")
    assert f"let it trust {authority}, as `cio-proxy env` shows" in track
    assert "cdp.customer.io" in cdp
    assert door.sink.ends == []


@pytest.mark.parametrize("sent", [b"\x16\x03\x01", b"\x16\x03\x01\x00\x05hello"], ids=["too little", "none"])
async def test_a_client_that_was_shown_no_certificate_is_not_told_of(
    sent: bytes, open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_door("http://127.0.0.1:9") as door:
        reader, writer = await door.connect()
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert [record.getMessage() for record in caplog.records] == []


async def test_stopping_waits_for_an_answer_in_a_tunnel_and_not_for_an_idle_one(open_door: OpenDoor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            await asyncio.sleep(1.0 if data == b"slowly" else 0)
            writer.write(b"done")
        writer.close()

    async with serving(serve) as port, open_door("http://127.0.0.1:9", EXPLICIT) as door:
        ends: list[Any] = []
        for sent in (b"slowly", b"at once"):
            _, streams = await connected(door, f"127.0.0.1:{port}")
            streams[1].write(sent)
            ends.append(streams)
        assert await asyncio.wait_for(ends[1][0].readexactly(4), 10) == b"done"
        started = time.monotonic()
        stopping = asyncio.create_task(door.door.stop())
        assert await asyncio.wait_for(ends[1][0].read(), 10) == b""
        idle = time.monotonic() - started
        assert await asyncio.wait_for(ends[0][0].read(), 10) == b"done"
        await stopping
        for _, writer in ends:
            writer.close()
    assert idle < 0.9


async def test_all_listeners_at_once(open_door: OpenDoor, tmp_path: Path) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    site = Upstream()
    async with serving(site.serve, ssl=context) as port, upstream() as raw, upstream() as app:
        settings = replace(EXPLICIT, inbound=Address("127.0.0.1", 0), app=app.url)
        async with open_door(raw.url, settings) as door:
            hook = request("POST", "/hook", b"{}", b"X-CIO-Signature: ab", host=b"shop.example.com")
            page = request("GET", "/page", host=b"shop.example.com")
            async with (
                tunnel(door, f"localhost:{port}", ca) as other,
                tunnel(door, "track.customer.io:443", ours(door)) as customerio,
            ):
                answers = await asyncio.gather(
                    exchanged(other, IDENTIFY),
                    exchanged(customerio, IDENTIFY),
                    door.send(IDENTIFY),
                    door.send(hook, "inbound"),
                    door.send(page, "inbound"),
                )
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 5
    assert site.received == [IDENTIFY]
    assert len(raw.received) == 2
    assert sorted(app.received) == sorted([hook, page])
    assert sorted(end.exchange.listener for end in door.sink.ends) == ["explicit", "inbound", "outbound"]
    assert sorted({finding.listener for finding in door.sink.findings if finding.rule == "millisecond-timestamp"}) == [
        "explicit",
        "outbound",
    ]
    assert door.passed == ["inbound"]
