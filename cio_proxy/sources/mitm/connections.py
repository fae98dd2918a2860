"""mitmproxy's proxy server, with what it lacks: upstream time-outs, and a stop that lets requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Final, TypeGuard, cast

import mitmproxy.connection
import mitmproxy_rs
from mitmproxy import ctx, http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layers, mode_servers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer, NextLayer, NextLayerHook
from mitmproxy.proxy.layers.http._hooks import (
    HttpConnectUpstreamHook,
    HttpErrorHook,
    HttpRequestHeadersHook,
    HttpResponseHook,
)
from mitmproxy.proxy.layers.tls import TlsEstablishedServerHook
from mitmproxy.proxy.server import ConnectionIO

from cio_proxy.listening import refused
from cio_proxy.model import Address, Listener, TimeoutSettings
from cio_proxy.sources.mitm.hooks import Hooks
from cio_proxy.sources.mitm.listeners import ExplicitMode, InboundMode, OutboundMode, audited, listener_of
from cio_proxy.sources.mitm.streams import SWITCHING, Begin, Http, PipeOpenHook
from cio_proxy.sources.mitm.wire import Excuse, Http1Server

LAST_SECONDS = 1.0
"""How long a stop waits for what follows from it: hooks, and bytes on their way to clients."""
POLL_SECONDS = 0.02
QUIET_LOOKS = 15
"""A stop counts looks, not time: a loop that was busy has not listened."""
FLAGS: Final[dict[Listener, str]] = {"outbound": "--listen", "inbound": "--inbound", "explicit": "--explicit"}
BACKLOG = 4_096
"""Clients that connect at once: with asyncio's 100 a burst of them waits for a second, until they try again."""
OUTERMOST = 2
"""How many layers there are with the first of HTTP: the listener's own, and itself."""
JOINED_UP_TO = 64 * 1024
"""More bytes than that are not copied to be sent along with others."""


class Listening[Mode: mode_specs.ProxyMode](mode_servers.AsyncioServerInstance[Mode]):
    """Listens on TCP, and gives each client connection a `Connection`."""

    manager: Connections

    def make_top_layer(self, context: Context) -> Layer:
        """What mitmproxy has for a reverse proxy."""
        return layers.modes.ReverseProxy(context)

    async def listen(self, host: str, port: int) -> list[asyncio.Server]:  # type: ignore[override]
        """Listen on HOST:PORT; an IPv6 host may stand in brackets."""
        servers: list[asyncio.Server] = await super().listen(host.strip("[]"), port)  # type: ignore[assignment]
        for listening in (each for server in servers for each in server.sockets):
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                same.listen(BACKLOG)
        return servers

    async def handle_stream(self, reader, writer=None) -> None:  # type: ignore[no-untyped-def]
        """Serve one client connection."""
        connection = Connection(self.manager, reader, writer, self.mode)
        connection.layer = self.make_top_layer(connection.layer.context)
        with self.manager.register_connection(connection.client.id, connection):
            await connection.handle_client()


class OutboundListening(Listening[OutboundMode]):
    """In front of Customer.io."""


class InboundListening(Listening[InboundMode]):
    """In front of the app."""


class ExplicitListening(Listening[ExplicitMode]):
    """An HTTP proxy."""

    def make_top_layer(self, context: Context) -> Layer:
        """What mitmproxy has for one."""
        return layers.modes.HttpProxy(context)


class Connection(mode_servers.ProxyConnectionHandler):
    """A client connection and its upstream connections."""

    def __init__(
        self,
        connections: Connections,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mode: mode_specs.ProxyMode,
    ) -> None:
        super().__init__(ctx.master, reader, writer, connections.options, mode)
        self._connections = connections
        self._tunnels: set[Server] = set()
        """Connections to a proxy that has yet to connect us to the upstream."""
        self._events: deque[events.Event] = deque()
        self._busy = False
        """True while an event is passed on."""
        self.piped = False
        """True once bytes pass that nobody here reads."""
        self.asked = False
        """True while the client was the last to send something."""
        self._writer: asyncio.StreamWriter | mitmproxy_rs.Stream | None = None
        self._unsent: list[bytes] = []
        """What goes to `_writer`."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._patience = ExitStack()
        """What keeps a client of the app from being closed for its silence while it waits for an answer."""

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Open an upstream connection, TLS included, within the time configured for it."""
        task, seconds = asyncio.current_task(), self._connections.timeouts.connect

        def give_up() -> None:
            upstream = command.connection
            waiting = upstream in self._tunnels or not is_open(upstream)
            if task is not None and upstream.error is None and waiting:
                self._connections.excuses[self.client.id] = (
                    502,
                    f"the upstream did not accept a connection in time ({seconds:g} s)",
                )
                task.cancel()

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await super().open_connection(command)
        finally:
            timer.cancel()
            self._tunnels.discard(command.connection)

    async def handle_connection(self, connection: mitmproxy.connection.Connection) -> None:
        """Read until the peer stops sending. When the client's connection is closed after that, say so."""
        try:
            await super().handle_connection(connection)
        finally:
            if connection is self.client and connection.state is not ConnectionState.CLOSED:
                connection.state = ConnectionState.CLOSED
                await self.server_event(events.ConnectionClosed(connection))

    async def on_timeout(self) -> None:
        """Close a client that was quiet for too long, unless something is done for it just now."""
        if self.timeout_watchdog.blocker:
            await self.timeout_watchdog.watch()
        else:
            await super().on_timeout()

    async def drain_writers(self) -> None:
        """Wait for what was written to go out. A client that takes nothing any more does not stop its request."""
        for connection, io in list(self.transports.items()):
            try:
                if io.writer is not None:
                    await io.writer.drain()
            except OSError as error:
                if io.handler is not None and not (connection is self.client and self._waits()):
                    io.handler.cancel(f"cannot send: {error}")

    def _waits(self) -> bool:
        """True while a request has no answer yet; one that streams is one."""
        return any(
            flow.client_conn is self.client and not (flow.response and flow.response.stream)
            for flow in self._connections.in_flight.values()
        )

    async def server_event(self, event: events.Event) -> None:
        """Give an event to the layers and carry out what they want, then what came of that meanwhile.

        In mitmproxy every hook is a task that waits for a lock; here one that need not wait is done at once.
        """
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._pass_on(self._events.popleft())
        finally:
            self._busy = False

    def _pass_on(self, event: events.Event) -> None:
        self.timeout_watchdog.register_activity()
        if isinstance(event, events.DataReceived):
            self.asked = event.connection is self.client
        try:
            for command in self.layer.handle_event(event):
                if isinstance(command, commands.SendData):
                    self._send(command)
                elif isinstance(command, commands.StartHook):
                    self._start(command)
                else:
                    self._flush()
                    self._carry_out(command)
        except Exception:
            self.log("mitmproxy has crashed!", logging.ERROR, exc_info=True)
        self._flush()
        if isinstance(event, events.HookCompleted):
            self._completed(event.command)
        if self.client.state is ConnectionState.CAN_WRITE and listener_of(self.client) == "inbound":
            self._pass_end_on()

    def _pass_end_on(self) -> None:
        """Let the app see that its client sends no more, as it would without us: only the app knows what that means."""
        for upstream in list(self.transports):
            if isinstance(upstream, Server) and is_open(upstream):
                self.close_connection(upstream, half_close=True)

    def _completed(self, hook: commands.StartHook) -> None:
        if isinstance(hook, HttpResponseHook | HttpErrorHook):
            # A request is in flight from its head until its answer is in the hands of the transport.
            self._connections.in_flight.pop(hook.flow.id, None)
            if hook.flow.response is None or hook.flow.response.status_code != SWITCHING:
                self._patience.close()
        elif isinstance(hook, NextLayerHook) and is_outermost(layer := hook.data.layer):
            # The layer above it has made its choice and only passes everything on.
            self.layer = layer

    def _send(self, command: commands.SendData) -> None:
        """Keep what is for the same peer together: a head and its body are one packet."""
        io = self.transports.get(command.connection)
        if io is None:  # closed already
            return
        alone = len(command.data) > JOINED_UP_TO
        if alone or io.writer is not self._writer:
            self._flush()
            self._writer = io.writer
        self._unsent.append(command.data)
        if alone:
            self._flush()

    def _flush(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.is_closing():
            writer.write(self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent))
        self._unsent.clear()

    def _start(self, hook: commands.StartHook) -> None:
        if isinstance(hook, HttpRequestHeadersHook):
            self._connections.in_flight[hook.flow.id] = hook.flow
            if listener_of(self.client) == "inbound":
                self._patience.enter_context(self.timeout_watchdog.disarm())
        elif isinstance(hook, HttpConnectUpstreamHook):
            self._tunnels.add(hook.flow.server_conn)
        elif isinstance(hook, TlsEstablishedServerHook):
            self._tunnels.clear()
        elif isinstance(hook, PipeOpenHook):
            self._tunnels.clear()
            self.piped = True
        if self._connections.hooks.waits(hook):
            task = asyncio.create_task(self.hook_task(hook))
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        self._connections.hooks.call(hook)
        if hook.blocking:
            self._events.append(events.HookCompleted(hook))

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.OpenConnection():
                self._open(command)
            case commands.RequestWakeup():
                self.wakeup_timer.add(asyncio.create_task(self.wakeup(command)))
            case commands.ConnectionCommand() if command.connection not in self.transports:
                pass  # closed already
            case commands.CloseTcpConnection():
                self.close_connection(command.connection, command.half_close)
            case commands.CloseConnection():
                self.close_connection(command.connection)
            case commands.Log():
                self.log(command.message, command.level)
            case _:
                raise RuntimeError(f"unexpected command: {command}")

    def _open(self, command: commands.OpenConnection) -> None:
        task = asyncio.create_task(self.open_connection(command))
        self.transports[command.connection] = ConnectionIO(handler=task)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Run a hook."""
        with self.timeout_watchdog.disarm():
            await self._connections.hooks.wait(hook)

    def drop_upstreams(self) -> None:
        """Close every upstream connection: mitmproxy then answers a client that waits."""
        for upstream, io in list(self.transports.items()):
            if upstream is not self.client and io.handler is not None:
                io.handler.cancel()

    def drop_client(self) -> asyncio.StreamWriter | None:
        """Close the client connection; what was written to it still goes out through the writer returned."""
        io = self.transports.get(self.client)
        if io is None:
            return None
        if io.handler is not None:
            io.handler.cancel()
        return io.writer if isinstance(io.writer, asyncio.StreamWriter) else None


class Connections(Proxyserver):
    """All listeners and connections. Add it after every addon that sets a response or streams one."""

    name = "proxyserver"
    connections: dict[tuple[object, ...] | str, Connection]  # type: ignore[assignment]

    def __init__(
        self,
        timeouts: TimeoutSettings,
        excuses: dict[str, Excuse],
        begin: Mapping[Listener, Begin],
        *,
        unread: Callable[[Client], None],
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self.timeouts = timeouts
        self.in_flight: dict[str, http.HTTPFlow] = {}
        self.excuses = excuses
        self.ready = asyncio.Event()
        self.options: Options
        """As they were when the listeners started; mitmproxy copies an option each time that it is read."""
        self.hooks: Hooks
        self._unread = unread
        self._failed = failed
        self._begin = begin
        self._draining = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def running(self) -> None:
        """Every listener is up, or has failed."""
        super().running()
        self.ready.set()

    def configure(self, updated: set[str]) -> None:
        """Take the options; our modes need no check, and two of them may both want port 0."""
        super().configure(updated - {"mode", "server"})

    def addresses(self) -> dict[Listener, Address]:
        """Where each listener listens. Raises OSError when one cannot."""
        found: dict[Listener, Address] = {}
        for server in self.servers:
            listener = cast(Listener, server.mode.type_name)
            host, port = (server.mode.custom_listen_host or "").strip("[]"), server.mode.custom_listen_port
            if not server.listen_addrs:
                raise OSError(refused(Address(host, port or 0), server.last_exception, FLAGS[listener]))
            found[listener] = Address(host, server.listen_addrs[0][1])
        return found

    async def setup_servers(self) -> bool:
        """Listen."""
        options = {name: option.current() for name, option in ctx.options.items()}
        self.options = cast(Options, SimpleNamespace(**options))
        self.hooks = Hooks(ctx.master.addons.chain, self._failed)
        return await super().setup_servers()

    def next_layer(self, choice: NextLayer) -> None:
        """Speak HTTP through our own classes, in the clear and within TLS."""
        tls = choice.layer if isinstance(choice.layer, layers.ClientTLSLayer) else None
        theirs = choice.layer if tls is None else tls.child_layer
        if not isinstance(theirs, layers.HttpLayer):
            return
        context = theirs.context
        context.layers.remove(theirs)
        ours = Http(context, theirs.mode, self._begin[listener_of(context.client)])
        ours.connections[context.client] = Http1Server(context.fork(), self.excuses, self._unread)
        if tls is None:
            choice.layer = ours
        else:
            tls.child_layer = ours

    def client_disconnected(self, client: Client) -> None:
        """Forget a connection."""
        self.excuses.pop(client.id, None)

    def request(self, flow: http.HTTPFlow) -> None:
        """Start waiting for the upstream."""
        wanted = audited(flow) and listener_of(flow.client_conn) != "inbound"
        if flow.response is None and flow.error is None and wanted:
            self._wait(flow, self.timeouts.response)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """An answer that streams may take its time; one that is given while stopping is the connection's last."""
        if flow.response is not None and flow.response.stream:
            self._forget(flow)
        if flow.response is not None and self._draining and flow.response.status_code != SWITCHING:
            flow.response.headers["connection"] = "close"

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is here."""
        self._forget(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """There will be no answer."""
        self._forget(flow)

    async def drain(self, seconds: float) -> None:
        """Stop listening and let requests finish for so long; answer the rest with 503, and close everything.

        A connection is closed once it has been quiet for a while: a request may be on its way that nobody has read
        yet. Each answer is its connection's last, so clients that go on sending leave by themselves.
        """
        self._draining = True
        end = time.monotonic() + seconds
        await self.servers.update([])
        writers = await self._quiet(end)
        for flow in list(self.in_flight.values()):
            self._give_up(flow.client_conn, (503, "the proxy is stopping"))
        await self._until(lambda: not self.in_flight, LAST_SECONDS)
        writers += [connection.drop_client() for connection in list(self.connections.values())]
        await self._flushed(writers, max(LAST_SECONDS, end - time.monotonic()))
        await self._until(lambda: not self.connections and not self.in_flight, LAST_SECONDS)

    async def _quiet(self, end: float) -> list[asyncio.StreamWriter | None]:
        """Close what has fallen quiet until nothing is left, or the time is over."""
        closed: list[asyncio.StreamWriter | None] = []
        looks: dict[Connection, tuple[float, int]] = {}
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(POLL_SECONDS)
            busy = {flow.client_conn.id for flow in self.in_flight.values()}
            for connection in list(self.connections.values()):
                heard = connection.timeout_watchdog.last_activity
                last, quiet = looks.get(connection, (heard, 0))
                waits = connection.client.id in busy or (connection.piped and connection.asked)
                quiet = 0 if heard != last or waits else quiet + 1
                looks[connection] = (heard, quiet)
                if quiet == QUIET_LOOKS:
                    closed.append(connection.drop_client())
        return closed

    def _wait(self, flow: http.HTTPFlow, seconds: float) -> None:
        self._timers[flow.id] = asyncio.get_running_loop().call_later(seconds, self._waited, flow)

    def _waited(self, flow: http.HTTPFlow) -> None:
        self._forget(flow)
        limit = self.timeouts.response
        sent = open_since(flow.server_conn)
        if sent is None:  # still connecting, which has its own limit
            self._wait(flow, limit)
            return
        left = limit - (time.time() - max(sent, flow.request.timestamp_end or 0.0))
        if left > POLL_SECONDS:
            self._wait(flow, min(left, limit))
            return
        self._give_up(flow.client_conn, (504, f"the upstream did not answer in time ({limit:g} s)"))

    def _give_up(self, client: Client, excuse: Excuse) -> None:
        connection = self.connections.get(client.id)
        if connection is not None:
            self.excuses[client.id] = excuse
            connection.drop_upstreams()

    def _forget(self, flow: http.HTTPFlow) -> None:
        timer = self._timers.pop(flow.id, None)
        if timer is not None:
            timer.cancel()

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            await asyncio.sleep(POLL_SECONDS)

    async def _flushed(self, writers: Iterable[asyncio.StreamWriter | None], seconds: float) -> None:
        closing = [asyncio.ensure_future(writer.wait_closed()) for writer in writers if writer is not None]
        if closing:
            _, late = await asyncio.wait(closing, timeout=seconds)
            for waiting in late:
                waiting.cancel()
            await asyncio.gather(*closing, return_exceptions=True)


def is_outermost(layer: Layer | None) -> TypeGuard[Layer]:
    """True for HTTP in the clear on the connection itself, not in a tunnel within it."""
    return isinstance(layer, Http) and len(layer.context.layers) == OUTERMOST


def open_since(upstream: Server) -> float | None:
    """When a connection could be used, TLS included; None if it cannot yet."""
    return upstream.timestamp_tls_setup if upstream.tls else upstream.timestamp_tcp_setup


def is_open(upstream: Server) -> bool:
    """True for a connection that can be used, TLS included."""
    return upstream.state is not ConnectionState.CLOSED and open_since(upstream) is not None
