"""Upstreams behind an HTTP proxy: CONNECT for https, plain forwarding for http; and authorities of one's own."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cio_proxy.model import Settings, TimeoutSettings, UpstreamProxy, UpstreamSettings

from .conftest import OK, OpenDoor, Upstream, request, upstream
from .test_gateway import gateway_error, serving, tls_for

IDENTIFY = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}')
PASS = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:p@ss")


@dataclass
class Proxy:
    """A forward proxy for one connection target; it keeps the heads it is sent, and may refuse or stay silent."""

    answer: bytes | None = b"HTTP/1.1 200 Connected\r\n\r\n"
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def settings(self) -> UpstreamProxy:
        return UpstreamProxy("127.0.0.1", self.port, "me", "p@ss")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if self.answer is None:
            await reader.read()
        elif method == b"CONNECT":
            writer.write(self.answer)
            if self.answer.startswith(b"HTTP/1.1 200"):
                host, _, port = target.decode().rpartition(":")
                there, back = await asyncio.open_connection(host, int(port))
                await asyncio.gather(pipe(reader, back), pipe(there, writer))
        else:
            host, _, port = target.split(b"/")[2].decode().rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            path = b"/" + target.split(b"/", 3)[3]
            back.write(head.replace(target, path, 1))
            await asyncio.gather(pipe(reader, back), pipe(there, writer))
        writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def proxying(answer: bytes | None = Proxy.answer) -> AsyncIterator[Proxy]:
    proxy = Proxy(answer)
    async with serving(proxy.serve) as proxy.port:
        yield proxy


async def test_an_https_upstream_is_reached_by_connect_and_verified_through_it(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    raw = Upstream()
    async with proxying() as proxy, serving(raw.serve, ssl=context) as port:
        settings = Settings(upstream_proxy=proxy.settings, extra_ca=str(ca))
        async with open_door(f"https://localhost:{port}", settings) as door:
            assert await door.send(IDENTIFY) == OK
        async with open_door(f"https://localhost:{port}", Settings(upstream_proxy=proxy.settings)) as door:
            assert "ertificate" in gateway_error(await door.send(IDENTIFY), 502)
    authority = f"localhost:{port}".encode()
    assert proxy.heads[0].splitlines()[:3] == [b"CONNECT %b HTTP/1.1" % authority, b"Host: " + authority, PASS]
    assert raw.received == [IDENTIFY.replace(b"track.customer.io", authority)]


async def test_an_http_upstream_is_asked_for_in_absolute_form(open_door: OpenDoor) -> None:
    async with upstream() as raw, proxying() as proxy:
        settings = Settings(upstream_proxy=proxy.settings)
        async with open_door(raw.url, settings) as door:
            assert await door.send(IDENTIFY) == OK
    authority = raw.url.removeprefix("http://").encode()
    head, _, body = IDENTIFY.replace(b"track.customer.io", authority).partition(b"\r\n\r\n")
    assert proxy.heads == [head.replace(b"PUT ", b"PUT " + raw.url.encode()) + b"\r\n" + PASS + b"\r\n\r\n"]
    assert raw.received[0].endswith(body)


async def test_a_redirect_is_followed_through_the_proxy_too(open_door: OpenDoor) -> None:
    location = b"https://track-eu.customer.io/api/v1/customers/42"
    moved = b"HTTP/1.1 308 Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
    async with upstream(lambda _: moved) as us, upstream() as eu, proxying() as proxy:
        urls = UpstreamSettings(track=us.url, track_eu=eu.url)
        settings = Settings(upstream_proxy=proxy.settings, upstreams=urls)
        async with open_door("http://127.0.0.1:9", settings) as door:
            assert await door.send(IDENTIFY) == OK
    assert [head.split(b" ")[1] for head in proxy.heads] == [
        f"{raw.url}/api/v1/customers/42".encode() for raw in (us, eu)
    ]
    assert [head.count(PASS) for head in proxy.heads] == [1, 1]


async def test_without_credentials_none_are_sent(open_door: OpenDoor) -> None:
    async with upstream() as raw, proxying() as proxy:
        plain = UpstreamProxy("127.0.0.1", proxy.port)
        async with open_door(raw.url, Settings(upstream_proxy=plain)) as door:
            assert await door.send(IDENTIFY) == OK
    assert b"Proxy-Authorization" not in proxy.heads[0]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [(b"HTTP/1.1 407 Who are you\r\n\r\n", "407"), (b"\x00garbage\r\n\r\n", "cannot be reached"), (None, "in time")],
)
async def test_a_proxy_that_does_not_connect_is_a_502_without_its_password(
    answer: bytes | None, wanted: str, open_door: OpenDoor
) -> None:
    async with proxying(answer) as proxy:
        timeouts = TimeoutSettings(connect=0.3, response=0.3, drain=1.0)
        settings = Settings(upstream_proxy=proxy.settings, timeouts=timeouts)
        async with open_door("https://localhost:9", settings) as door:
            message = gateway_error(await door.send(IDENTIFY), 502)
    assert wanted in message
    assert "p@ss" not in message
    assert door.sink.endings == ["failed"]


async def test_a_dead_proxy_is_a_502(open_door: OpenDoor) -> None:
    settings = Settings(upstream_proxy=UpstreamProxy("127.0.0.1", 9))
    async with open_door("https://localhost:9", settings) as door:
        gateway_error(await door.send(IDENTIFY), 502)
    async with upstream() as raw, open_door(raw.url, settings) as door:
        gateway_error(await door.send(IDENTIFY), 502)
    assert raw.received == []


async def test_the_sandbox_is_reached_without_the_proxy(open_door: OpenDoor) -> None:
    settings = Settings(upstream_proxy=UpstreamProxy("127.0.0.1", 9))
    async with upstream() as raw, open_door(raw.url, settings, sandbox=True) as door:
        assert await door.send(IDENTIFY) == OK


async def test_the_usual_authorities_stay_trusted(open_door: OpenDoor, tmp_path: Path) -> None:
    _, ca = tls_for("localhost", tmp_path / "ca")
    async with open_door("http://127.0.0.1:9", Settings(extra_ca=str(ca))) as door:
        folder = Path(door.auditor.settings.state or "") / "certificates"
        bundles = [bundle.read_bytes() for bundle in folder.glob("upstream-roots-*.pem")]
    ours = [bundle for bundle in bundles if bundle.endswith(ca.read_bytes())]
    assert len(ours) == 1
    assert ours[0].count(b"BEGIN CERTIFICATE") > 50


@pytest.mark.parametrize(("content", "why"), [(None, "no such file"), (b"no pem", "no certificate in PEM form")])
async def test_a_bad_file_of_authorities_stops_the_start(
    content: bytes | None, why: str, open_door: OpenDoor, tmp_path: Path
) -> None:
    file = tmp_path / "company.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OSError, match=f"extra_ca: .*company.pem: {why}") as caught:
        async with open_door("http://127.0.0.1:9", Settings(extra_ca=str(file))):
            pass
    assert "\n" not in str(caught.value)
