"""A door starts clearly or not at all, keeps its keys to itself, and stops without cutting anyone off."""

import asyncio
import json
import socket
import ssl
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cio_proxy.drivers import Audit, Auditor, build
from cio_proxy.model import Address, Exchange, Settings, TimeoutSettings
from cio_proxy.sources.mitm import Door

from ..conftest import Collected  # noqa: TID252 (tests are no package)
from .conftest import OK, SEAL, OpenDoor, read_message, request, upstream

READ = request("GET", "/api/v1/accounts/region")
IDENTIFY = request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}')


def door_of(settings: Settings, url: str = "http://127.0.0.1:9") -> Door:
    return Door(build(settings, seal=SEAL), upstream=url)


def settings_in(folder: Path, **changes: object) -> Settings:
    return replace(Settings(listen=Address("127.0.0.1", 0), state=str(folder)), **changes)  # type: ignore[arg-type]


async def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(
            OSError, match=f"^cannot listen on {address}: address already in use; give --listen another"
        ):
            await door_of(settings_in(tmp_path, listen=address)).start()


async def test_a_door_can_be_opened_again_on_the_same_port(tmp_path: Path) -> None:
    door = door_of(settings_in(tmp_path))
    address = await door.start()
    await door.stop()
    await door.stop()
    again = door_of(settings_in(tmp_path, listen=address))
    assert await again.start() == address
    await again.stop()


async def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    door = door_of(settings_in(tmp_path, listen=Address("::1", 0)))
    try:
        address = await door.start()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    _, writer = await asyncio.open_connection(*address)
    writer.close()
    await door.stop()


async def test_it_listens_on_tcp_only(open_door: OpenDoor) -> None:
    async with open_door("https://127.0.0.1:9") as door:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(door.address)  # would fail if the door had this port


async def test_nobody_else_can_read_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    door = door_of(Settings(listen=Address("127.0.0.1", 0)))
    await door.start()
    await door.stop()
    folder = tmp_path / "cio-proxy" / "certificates"
    assert (folder / "mitmproxy-ca.pem").exists()
    assert [path for path in [folder, *folder.iterdir()] if path.stat().st_mode & 0o077] == []
    assert not (tmp_path / "home").exists()


async def test_a_broken_certificate_authority_is_one_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "mitmproxy-ca.pem").write_text("not a key")
    with pytest.raises(OSError, match=f"^{folder} holds a broken certificate authority: delete it"):
        await door_of(settings_in(tmp_path)).start()


async def test_a_state_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch()
    with pytest.raises(OSError, match="state"):
        await door_of(settings_in(file)).start()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "track.customer.io"])
async def test_a_client_that_trusts_its_authority_can_verify_it(name: str, tmp_path: Path) -> None:
    async with upstream() as raw:
        door = door_of(settings_in(tmp_path), raw.url)
        address = await door.start()
        context = ssl.create_default_context(cafile=str(tmp_path / "certificates" / "mitmproxy-ca-cert.pem"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.write(READ)
        assert (await read_message(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        await door.stop()


async def test_stopping_closes_idle_connections_and_takes_no_new_ones(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        writer.write(READ)
        await read_message(reader)
        async with asyncio.timeout(3):  # the drain limit is 5 s, and nothing is in flight
            await door.door.stop()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await door.connect()


async def test_while_stopping_idle_connections_end_and_the_last_answer_says_that_it_is(open_door: OpenDoor) -> None:
    release = asyncio.Event()

    async def later(_: bytes) -> bytes:
        await release.wait()
        return OK

    async with upstream(later) as raw, open_door(raw.url) as door:
        idle, idle_writer = await door.connect()
        reader, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        stopping = asyncio.create_task(door.door.stop())
        assert await idle.read() == b""
        idle_writer.close()
        release.set()
        answer = await read_message(reader)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in answer
        assert await reader.read() == b""
        writer.close()
        await stopping
    assert door.sink.endings == ["forwarded"]


async def test_a_request_that_outlasts_the_drain_is_a_503(open_door: OpenDoor) -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return OK

    settings = Settings(timeouts=TimeoutSettings(drain=0.2))
    async with upstream(never) as raw, open_door(raw.url, settings) as door:
        reader, writer = await door.connect()
        writer.write(IDENTIFY)
        await raw.arrived.wait()
        await door.door.stop()
        answer = await read_message(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "stopping" in json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
    assert door.sink.endings == ["failed"]


def test_an_answer_on_its_way_is_out_before_the_loop_may_end(tmp_path: Path) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (9_000_000, b"x" * 9_000_000)  # more than sockets hold
    told = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    started: Future[Address] = Future()
    sink = Collected()

    async def serve() -> None:
        async with upstream(lambda _: told) as raw:
            door = Door(build(settings_in(tmp_path), sinks=[sink], seal=SEAL), upstream=raw.url)
            started.set_result(await door.start())
            while not sink.ends:
                await asyncio.sleep(0.01)
            await door.stop()

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, serve())
        with socket.socket() as slow:
            slow.settimeout(20)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # so that most of the answer has to wait
            slow.connect(started.result(20))
            slow.sendall(READ)
            while not sink.ends:
                time.sleep(0.01)
            time.sleep(0.5)
            received = b""
            while piece := slow.recv(65_536):
                received += piece
        served.result(20)
    assert received.endswith(body)


class Broken(Auditor):
    """An auditor whose every method fails."""

    async def begin(self, exchange: Exchange) -> Audit:
        raise RuntimeError("begin")

    async def answered(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        raise RuntimeError("answered")

    async def lost(self, *arguments: object, **named: object) -> None:
        raise RuntimeError("lost")

    def unread(self, exchange: Exchange) -> None:
        raise RuntimeError("unread")


async def test_an_auditor_that_raises_stops_nothing_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[str] = []
    auditor = build(settings_in(tmp_path), seal=SEAL)
    auditor.__class__ = Broken
    async with upstream() as raw:
        door = Door(auditor, upstream=raw.url, failed=lambda error: failures.append(str(error)))
        address = await door.start()
        for sent, status in ((IDENTIFY, b"200"), (IDENTIFY, b"200"), (b"NOT A REQUEST\r\n\r\n", b"400")):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            assert (await read_message(reader)).startswith(b"HTTP/1.1 " + status)
            writer.close()
        await door.stop()
    assert len(raw.received) == 2
    assert failures == ["begin", "answered", "begin", "answered", "unread"]
    assert len([record for record in caplog.records if record.name == "cio_proxy"]) == 3


async def test_an_audit_that_cannot_begin_is_counted_as_unaudited(tmp_path: Path) -> None:
    sink = Collected()
    auditor = build(settings_in(tmp_path), sinks=[sink], seal=SEAL)

    async def begin(exchange: Exchange) -> Audit:
        raise RuntimeError("begin")

    auditor.begin = begin  # type: ignore[method-assign]
    async with upstream() as raw:
        door = Door(auditor, upstream=raw.url)
        reader, writer = await asyncio.open_connection(*(await door.start()))
        writer.write(IDENTIFY)
        await read_message(reader)
        writer.close()
        await door.stop()
    assert sink.endings == ["unaudited"]


async def test_a_client_that_leaves_while_its_request_is_judged_is_counted_once(tmp_path: Path) -> None:
    sink, began, go_on = Collected(), asyncio.Event(), asyncio.Event()
    auditor = build(settings_in(tmp_path), sinks=[sink], seal=SEAL)
    begin = auditor.begin

    async def slow(exchange: Exchange) -> Audit:
        began.set()
        await go_on.wait()
        return await begin(exchange)

    auditor.begin = slow  # type: ignore[method-assign]
    async with upstream() as raw:
        door = Door(auditor, upstream=raw.url)
        _, writer = await asyncio.open_connection(*(await door.start()))
        writer.write(IDENTIFY)
        await began.wait()
        writer.close()
        await asyncio.sleep(0.1)
        go_on.set()
        async with asyncio.timeout(10):
            while not sink.ends:
                await asyncio.sleep(0.01)
        await door.stop()
    assert sink.endings == ["forwarded"]
    assert len(raw.received) == 1


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_counted_once(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        _, writer = await door.connect()
        writer.write(request("PUT", "/api/v1/customers/42", b"", b"Content-Length: 100") + b'{"email"')
        await asyncio.sleep(0.1)
        writer.close()
        async with asyncio.timeout(10):
            while not door.sink.ends:
                await asyncio.sleep(0.01)
    assert door.sink.endings == ["failed"]
    assert raw.connections == 0


async def test_deadlines_are_looked_at_by_the_injected_clock(tmp_path: Path) -> None:
    asked: list[float] = []
    auditor = build(settings_in(tmp_path), seal=SEAL)

    async def expire(now: float) -> None:
        asked.append(now)

    auditor.expire = expire  # type: ignore[method-assign]
    door = Door(auditor, upstream="http://127.0.0.1:9", clock=lambda: 42.0)
    await door.start()
    async with asyncio.timeout(10):
        while not asked:
            await asyncio.sleep(0.05)
    await door.stop()
    assert set(asked) == {42.0}


async def test_nothing_is_left_running_after_a_stop(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with upstream() as raw:
        door = door_of(settings_in(tmp_path), raw.url)
        reader, writer = await asyncio.open_connection(*(await door.start()))
        writer.write(READ)
        await read_message(reader)
        await door.stop()
        writer.close()
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() <= before
