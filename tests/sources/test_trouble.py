"""An upstream that cannot be reached is told once, and once when it is over; the door says so meanwhile."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.model import Settings, TimeoutSettings, UpstreamProxy, UpstreamSettings
from cio_proxy.sources.mitm.trouble import in_words

from .conftest import OpenDoor, Upstream, request, upstream
from .test_gateway import serving, tls_for

IDENTIFY = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}')
SEND = request("POST", "/v1/send/email", b"{}", host=b"api.customer.io")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "cio_proxy"]


async def test_trouble_and_its_end_are_one_line_each(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    port, said = free_port(), list[bool]()
    name = f"127.0.0.1:{port}"
    async with open_door(f"http://{name}", upstream_trouble=said.append) as door:
        for _ in range(3):
            await door.send(IDENTIFY)
        assert said == [True]
        server = await asyncio.start_server(Upstream().serve, "127.0.0.1", port)
        for _ in range(3):
            await door.send(IDENTIFY)
        server.close()
    assert said == [True, False]
    assert told(caplog) == [
        f"upstream {name} cannot be reached: connection refused; requests are answered with 502",
        f"upstream {name} can be reached again",
    ]


async def test_with_two_upstreams_in_trouble_it_is_over_with_the_last(open_door: OpenDoor) -> None:
    first, second, said = free_port(), free_port(), list[bool]()
    urls = UpstreamSettings(track=f"http://127.0.0.1:{first}", app=f"http://127.0.0.1:{second}")
    async with open_door("http://127.0.0.1:9", Settings(upstreams=urls), upstream_trouble=said.append) as door:
        await door.send(IDENTIFY)
        await door.send(SEND)
        for port, sent, last in ((first, IDENTIFY, True), (second, SEND, False)):
            server = await asyncio.start_server(Upstream().serve, "127.0.0.1", port)
            await door.send(sent)
            server.close()
            assert said[-1] is last


async def test_a_bad_certificate_and_a_time_out_are_trouble_too(
    open_door: OpenDoor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    context, _ = tls_for("localhost", tmp_path / "ca")
    async with serving(silence, ssl=context) as port, open_door(f"https://localhost:{port}") as door:
        await door.send(IDENTIFY)
    assert "ertificate verify failed" in told(caplog)[-1]
    short = Settings(timeouts=TimeoutSettings(connect=0.2, response=0.2, drain=1.0))
    async with serving(silence) as port, open_door(f"https://localhost:{port}", short) as door:
        await door.send(IDENTIFY)
    assert "did not accept a connection in time (0.2 s)" in told(caplog)[-1]


async def test_a_dead_proxy_is_named_without_its_password(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(upstream_proxy=UpstreamProxy("127.0.0.1", 9, "me", "s3cret"))
    async with open_door("https://track.customer.io", settings) as door:
        await door.send(IDENTIFY)
    name = "track.customer.io (through http://***@127.0.0.1:9)"
    assert told(caplog) == [
        f"upstream {name} cannot be reached: connection refused; requests are answered with 502",
    ]


async def test_no_answer_makes_trouble(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [None, b"garbage\r\n\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]
    async with upstream(lambda _: answers.pop()) as raw, open_door(raw.url) as door:
        for _ in range(3):
            await door.send(IDENTIFY)
    assert told(caplog) == []


async def test_an_upstream_that_accepts_nobody_is_told_of_though_the_client_has_left(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        settings = Settings(timeouts=TimeoutSettings(connect=0.5))
        async with open_door(f"http://127.0.0.1:{full.getsockname()[1]}", settings) as door:
            _, writer = await door.connect()
            writer.write(IDENTIFY)
            await asyncio.sleep(0.1)
            writer.close()
            async with asyncio.timeout(20):
                while not door.sink.ends:
                    await asyncio.sleep(0.01)
        for one in waiting:
            one.close()
    assert door.sink.endings == ["failed"]
    assert ["did not accept a connection in time" in line for line in told(caplog)] == [True]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("[Errno 111] Connect call failed ('127.0.0.1', 9)", "connection refused"),
        ("Multiple exceptions: [Errno 111] Connect call failed ('::1', 9), [Errno 111] x", "connection refused"),
        ("[Errno -2] Name or service not known", "Name or service not known"),
        ("the upstream did not accept a connection in time (5 s)", "did not accept a connection in time (5 s)"),
        (
            "Connection killed: Request destination unknown. Unable to",
            "that is this proxy itself, which is better named in NO_PROXY",
        ),
        ("refused:\x1b[2J\n 407", "refused:?[2J 407"),
        ("x" * 500, "x" * 200),
    ],
)
def test_reasons_are_told_in_plain_words(why: str, words: str) -> None:
    assert in_words(why) == words
