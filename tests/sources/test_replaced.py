"""What we replace in mitmproxy is still there, is still called as we think, and does the same in our place."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import ctx, http
from mitmproxy.addonmanager import AddonManager, traverse
from mitmproxy.connection import Client, Server
from mitmproxy.coretypes.multidict import _MultiDict
from mitmproxy.hooks import all_hooks
from mitmproxy.http import Headers, MessageData, Request
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, server
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer, HttpStream, _http1
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from cio_proxy.model import Exchange
from cio_proxy.sources.mitm import wire
from cio_proxy.sources.mitm.connections import Connection
from cio_proxy.sources.mitm.hooks import Hooks
from cio_proxy.sources.mitm.streams import fork

from .conftest import OK, OpenDoor, read_message, request, upstream

EVENT = request("POST", "/api/v1/customers/42/events", b'{"name": "order_placed"}')


def source(of: Any) -> str:
    return inspect.getsource(of)


def test_mitmproxy_still_looks_up_by_name_what_we_replace() -> None:
    assert "make_error_response(" in source(_http1.Http1Server.read_headers)
    assert "http1.read_response_head(" in source(_http1.Http1Client.read_headers)
    assert "self.child_layer = Http1Client(" in source(HttpClient._handle_event)
    assert "check_option_type" in source(MessageData)
    assert vars(MessageData)["__post_init__"] is not None


def test_mitmproxy_still_reads_and_sends_no_trailers_over_http_1() -> None:
    for side in (_http1.Http1Server, _http1.Http1Client):
        assert "self.body_reader = make_body_reader(" in source(side.read_headers)
        assert 'SendData(self.conn, b"0\\r\\n\\r\\n")' in source(side.send)
        assert "Trailers" not in source(side.send)
    assert "NotImplementedError" in source(_http1.Http1Connection.read_body)
    assert "self.flow.request.trailers" in source(HttpStream.state_stream_request_body)
    assert "self.flow.response.trailers" in source(HttpStream.send_response)


def test_mitmproxy_still_treats_an_empty_line_as_a_head_and_an_end_as_an_abort() -> None:
    buffer = ReceiveBuffer()
    buffer += b"\r\nGET / HTTP/1.1\r\n\r\n"
    assert buffer.maybe_extract_lines() == []
    assert bytes(buffer).startswith(b"GET")
    assert "CLIENT_DISCONNECTED" in source(_http1.Http1Connection.wait)
    assert "self.state = self.wait" in source(_http1.Http1Server.mark_done)


def test_no_command_is_new_to_our_connections() -> None:
    """Its own loop knows as many kinds as ours."""
    known = {
        "OpenConnection",
        "RequestWakeup",
        "ConnectionCommand",
        "SendData",
        "CloseTcpConnection",
        "CloseConnection",
    }
    theirs = source(server.ConnectionHandler.server_event)
    ours = source(Connection._pass_on) + source(Connection._carry_out)
    for name in known | {"StartHook", "Log"}:
        assert f"commands.{name}" in theirs
        assert f"commands.{name}" in ours
    assert theirs.count("isinstance(") == len(known) + 2
    every = {name for name, of in vars(commands).items() if inspect.isclass(of) and issubclass(of, commands.Command)}
    assert every == known | {"StartHook", "Log", "Command"}


def test_the_parts_of_a_connection_that_ours_replaces_are_there() -> None:
    for name in ("server_event", "hook_task", "drain_writers", "handle_connection", "open_connection"):
        assert inspect.iscoroutinefunction(getattr(server.ConnectionHandler, name)), name
    assert "handle_lifecycle" in source(ProxyConnectionHandler.handle_hook)
    assert "UpdateHook" in source(AddonManager.handle_lifecycle)
    assert "self.context.fork()" in source(HttpLayer.make_stream)


def test_every_hook_has_one_field() -> None:
    ours = {name for name, hook in all_hooks.items() if issubclass(hook, commands.StartHook)}
    assert {"requestheaders", "request", "responseheaders", "response", "error", "next_layer"} <= ours
    for name in ours:
        assert len(fields(all_hooks[name])) == 1, name  # type: ignore[arg-type]


async def test_no_addon_of_a_door_wants_updates_or_waits_unseen(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        addons = list(traverse(ctx.master.addons.chain))  # type: ignore[no-untyped-call]
        await door.send(EVENT)
    assert not [addon for addon in addons if hasattr(addon, "update")]
    waiting = {
        name for name in all_hooks for addon in addons if inspect.iscoroutinefunction(getattr(addon, name, None))
    }
    assert waiting == {"request", "response", "error"}


async def test_an_addon_that_fails_stops_neither_the_others_nor_the_traffic(open_door: OpenDoor) -> None:
    seen: list[str] = []

    class Broken:
        def requestheaders(self, flow: http.HTTPFlow) -> None:
            raise RuntimeError("broken")

        async def response(self, flow: http.HTTPFlow) -> None:
            raise RuntimeError("broken")

    class Last:
        def requestheaders(self, flow: http.HTTPFlow) -> None:
            seen.append("requestheaders")

        def response(self, flow: http.HTTPFlow) -> None:
            seen.append("response")

    async with upstream() as raw, open_door(raw.url) as door:
        ctx.master.addons.chain[:0] = [Broken(), Last()]
        assert (await door.send(EVENT)).startswith(b"HTTP/1.1 200")
    assert seen == ["requestheaders", "response"]
    assert door.sink.endings == ["forwarded"]


def flow_of() -> http.HTTPFlow:
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    return http.HTTPFlow(client, Server(address=None))


async def test_hooks_are_called_in_the_order_of_the_addons_and_their_children() -> None:
    called: list[str] = []

    async def last(flow: http.HTTPFlow) -> None:
        await asyncio.sleep(0)
        called.append("third")

    child = SimpleNamespace(request=lambda flow: called.append("second"))
    parent = SimpleNamespace(request=lambda flow: called.append("first"), addons=[child])
    hooks = Hooks([parent, SimpleNamespace(other=None), SimpleNamespace(request=last)], called.append)  # type: ignore[arg-type]
    hook = HttpRequestHook(flow_of())
    assert hooks.waits(hook)
    await hooks.wait(hook)
    assert called == ["first", "second", "third"]
    plain = Hooks([parent], called.append)  # type: ignore[arg-type]
    assert not plain.waits(hook)
    plain.call(hook)
    assert called[3:] == ["first", "second"]


FIELDS = (
    (b"Host", b"a"),
    (b"ACCEPT", b"x"),
    (b"accept", b"\xff\xc3\xa9"),
    (b"Empty", b""),
    (b"\xff", b"odd"),
)


@pytest.mark.parametrize("name", ["host", "Accept", "empty", "none", b"HOST", "\udcff", ""])
def test_headers_are_looked_up_as_mitmproxy_does(name: str | bytes) -> None:
    wire.install()
    headers = Headers(FIELDS)
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    theirs = [value.decode("utf-8", "surrogateescape") for value in _MultiDict.get_all(headers, raw)]
    folded = Headers._reduce_values(theirs) if theirs else "default"
    assert headers.get_all(name) == theirs
    assert headers.get(name, "default") == folded
    assert (name in headers) == bool(theirs)
    if theirs:
        assert headers[name] == folded
    else:
        with pytest.raises(KeyError):
            headers[name]
    assert 7 not in headers


def test_a_message_is_built_without_a_check_of_its_types() -> None:
    wire.install()
    head = http1.read_request_head([b"GET / HTTP/1.1", b"Host: a"])
    assert isinstance(head, Request)
    assert head.data.headers.fields == ((b"Host", b"a"),)
    with pytest.raises(ValueError, match="Bad HTTP request line"):
        http1.read_request_head([b"GET /"])


def test_a_fork_is_what_mitmproxy_forks() -> None:
    context = Context(Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2)), SimpleNamespace())  # type: ignore[arg-type]
    context.layers = [object()]  # type: ignore[list-item]
    ours, theirs = fork(context), context.fork()
    assert vars(ours) == vars(theirs)
    assert ours.layers is not context.layers


def test_an_exchange_made_in_one_step_is_the_same() -> None:
    parts: dict[str, Any] = {
        "id": "a",
        "at": 1.0,
        "method": "GET",
        "target": b"/",
        "host": "a",
        "headers": ((b"Host", b"a"),),
        "body": b"",
    }
    assert Exchange.of(parts) == Exchange(**parts)
    assert hash(Exchange.of(parts)) == hash(Exchange(**parts))
    assert repr(Exchange.of(parts)) == repr(Exchange(**parts))


async def test_head_and_body_leave_in_one_packet(open_door: OpenDoor) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.read(65536))
        writer.write(OK)
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with open_door(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as door:
        reader, writer = await door.connect()
        writer.write(EVENT)
        assert await reader.read(65536) == OK
        writer.close()
    listening.close()
    assert heads[0].endswith(b'{"name": "order_placed"}')


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 3_000_000])
async def test_large_bodies_arrive_whole_in_both_directions(size: int, open_door: OpenDoor) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    sent = request("POST", "/api/v1/customers/42/events", body)
    async with upstream(lambda _: answer) as raw, open_door(raw.url) as door:
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(sent)
            assert (await asyncio.wait_for(read_message(reader), 20)).partition(b"\r\n\r\n")[2] == body
        writer.close()
    assert [received.endswith(body) for received in raw.received] == [True, True]
