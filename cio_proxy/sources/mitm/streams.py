"""mitmproxy's HTTP exchange, with what it lacks: a redirect followed within it, word of trouble, a plain pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, NextLayer
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._upstream_proxy import HttpUpstreamProxy

from cio_proxy.apis.refusals import union_error
from cio_proxy.sources.mitm.listeners import audited
from cio_proxy.sources.mitm.router import Router
from cio_proxy.sources.mitm.trouble import Trouble, in_words
from cio_proxy.sources.mitm.upstreams import Hop
from cio_proxy.sources.mitm.wire import Excuse

SWITCHING = 101
BAD_GATEWAY = 502
STREAMED = (
    "Customer.io redirects this request to {}, and a body that is too large to be kept cannot be sent again:"
    " send it once more, or use that region in the SDK"
)


type Begin = Callable[[Context, int], HttpStream]
"""Makes a stream, of its context and its number."""


class Http(HttpLayer):
    """mitmproxy's HTTP layer, with our streams."""

    def __init__(self, context: Context, mode: HTTPMode, begin: Begin) -> None:
        super().__init__(context, mode)
        self._begin = begin

    def make_stream(self, stream_id: int) -> CommandGenerator[None]:
        """Begin an exchange."""
        self.streams[stream_id] = self._begin(fork(self.context), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())


def fork(context: Context) -> Context:
    """What `Context.fork` gives; that makes a server connection first, only to drop it."""
    forked = Context.__new__(Context)
    forked.client, forked.server, forked.options = context.client, context.server, context.options
    forked.layers = context.layers.copy()
    return forked


@dataclass
class PipeOpenHook(commands.StartHook):
    """From now on bytes pass between a client and a server, whatever they mean."""

    data: Server
    blocking = False


class PipedStream(HttpStream):
    """One exchange. Once both sides agree on another protocol, a WebSocket's too, bytes pass and nothing is kept."""

    def flow_done(self) -> CommandGenerator[None]:
        """End the exchange, or begin the pipe: mitmproxy would read it, and keep every message."""
        if self.flow.response is None or self.flow.response.status_code != SWITCHING:
            yield from super().flow_done()
            return
        self.flow.live = False
        self.child_layer = TCPLayer(self.context, ignore=True)
        self._handle_event = self.passthrough
        yield from self.child_layer.handle_event(events.Start())
        yield PipeOpenHook(self.context.server)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)


class AppStream(PipedStream):
    """One exchange with the app behind the inbound listener; `app` is its URL, for people."""

    def __init__(
        self, context: Context, stream_id: int, app: str, trouble: Trouble, excuses: dict[str, Excuse]
    ) -> None:
        super().__init__(context, stream_id)
        self._app = app
        self._trouble = trouble
        self._excuses = excuses

    def make_server_connection(self) -> CommandGenerator[bool]:
        """Connect, and say so where there was trouble."""
        connected = yield from super().make_server_connection()
        if connected and self._trouble.on:
            self._trouble.over(self._app)
        return connected

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> CommandGenerator[None]:
        """End the exchange, and say what is wrong with the app, and which option names it."""
        client = self.context.client
        if isinstance(event, ResponseProtocolError) and client.state is not ConnectionState.CLOSED:
            status, why = self._excuses.get(client.id, (event.code.http_status_code(), event.message))
            if status == BAD_GATEWAY:
                failed = "cannot be reached" if event.code is ErrorCode.CONNECT_FAILED else "gave no proper answer"
                self._excuses[client.id] = status, f"the app ({self._app}, option `app`) {failed}: {in_words(why)}"
            if event.code is ErrorCode.CONNECT_FAILED:
                self._trouble.began(self._app, why)
        yield from super().handle_protocol_error(event)


class Stream(PipedStream):
    """One exchange. A redirect to the other region is not shown to anybody but followed: same method, same body."""

    def __init__(
        self, context: Context, stream_id: int, router: Router, trouble: Trouble, excuses: dict[str, Excuse]
    ) -> None:
        super().__init__(context, stream_id)
        self._router = router
        self._trouble = trouble
        self._excuses = excuses
        self._hop: Hop | None = None
        self._location = ""

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> CommandGenerator[None]:
        """Take an answer, or leave it because it is a redirect to follow."""
        self._hop = self._router.hop(self.flow, event.response)
        if self._hop is None:
            yield from super().state_wait_for_response_headers(event)
            return
        self._location = event.response.headers["location"]
        if self.flow.request.stream:
            self._router.remember(self.flow, self._hop.place)
            yield from self._refuse()
        else:
            self.server_state = self.state_pass_over_redirect

    def state_pass_over_redirect(self, event: HttpEvent) -> CommandGenerator[None]:
        """Wait for the end of the redirect, then send the request to where it points."""
        if not isinstance(event, ResponseEndOfMessage) or self._hop is None:
            return
        yield from self._leave()
        self._router.follow(self.flow, self._hop, self._location)
        self.server_state = self.state_wait_for_response_headers
        if (yield from self.make_server_connection()):
            content, trailers = self.flow.request.raw_content, self.flow.request.trailers
            is_bare = not (content or trailers)
            yield SendHttp(RequestHeaders(self.stream_id, self.flow.request, is_bare), self.context.server)
            if content:
                yield SendHttp(RequestData(self.stream_id, content), self.context.server)
            if trailers:
                yield SendHttp(RequestTrailers(self.stream_id, trailers), self.context.server)
            yield SendHttp(RequestEndOfMessage(self.stream_id), self.context.server)

    def make_server_connection(self) -> CommandGenerator[bool]:
        """Connect, and say so where there was trouble."""
        connected = yield from super().make_server_connection()
        if connected and self._trouble.on and audited(self.flow):
            self._trouble.over(self._router.upstream(self.flow))
        return connected

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> CommandGenerator[None]:
        """End the exchange, and tell of an upstream of Customer.io's that cannot be reached."""
        failed = event.code is ErrorCode.CONNECT_FAILED and audited(self.flow)
        if failed and self.context.client.state is not ConnectionState.CLOSED:
            status, why = self._excuses.get(self.context.client.id, (502, event.message))
            if status == BAD_GATEWAY:
                self._trouble.began(self._router.upstream(self.flow), why)
        yield from super().handle_protocol_error(event)

    def _refuse(self) -> CommandGenerator[None]:
        host = self._location.partition("://")[2].partition("/")[0]
        self._excuses[self.context.client.id] = (BAD_GATEWAY, STREAMED.format(host))
        yield from self._leave()
        yield from self.handle_protocol_error(
            ResponseProtocolError(self.stream_id, "redirected", ErrorCode.GENERIC_SERVER_ERROR)
        )

    def _leave(self) -> CommandGenerator[None]:
        """Close the connection: through a proxy it may lead to both regions, and it is busy with the redirect."""
        left = RequestProtocolError(self.stream_id, "redirected", ErrorCode.GENERIC_CLIENT_ERROR)
        yield SendHttp(left, self.context.server)


class Tunnel(HttpUpstreamProxy):
    """A way to a server through the HTTP proxy that `via` of its connection names."""

    def __init__(self, context: Context, proxy: Server, send_connect: bool) -> None:
        super().__init__(context, proxy, send_connect)
        self.child_layer = TCPLayer(context, ignore=True)

    def receive_handshake_data(self, data: bytes) -> CommandGenerator[tuple[bool, str | None]]:
        """Read what the proxy answers."""
        connected, error = yield from super().receive_handshake_data(data)
        if connected:
            yield PipeOpenHook(self.tunnel_connection)
        return connected, error


class ExplicitStream(Stream):
    """One exchange of a client that knows of the proxy. `looks_into` says which hosts and ports are Customer.io's."""

    def __init__(
        self,
        context: Context,
        stream_id: int,
        router: Router,
        trouble: Trouble,
        excuses: dict[str, Excuse],
        looks_into: Callable[[str, int], bool],
    ) -> None:
        super().__init__(context, stream_id, router, trouble, excuses)
        self._looks_into = looks_into

    def handle_connect_regular(self) -> CommandGenerator[None]:
        """Answer a `CONNECT`: Customer.io is spoken to by us, and any other site by the client itself."""
        server = self.context.server
        if self._looks_into(self.flow.request.host, self.flow.request.port):
            self.child_layer = NextLayer(self.context)
        elif (via := self._router.via) is not None:
            server.via = via
            self.child_layer = Tunnel.make(self.context, True)[0]
        elif error := (yield commands.OpenConnection(server)):
            _, why = self._excuses.pop(self.context.client.id, (BAD_GATEWAY, error))
            self.flow.response = refusal(f"{self.flow.request.host} cannot be reached: {in_words(why)}")
        else:
            self.child_layer = TCPLayer(self.context, ignore=True)
            yield PipeOpenHook(server)
        yield from self.handle_connect_finish()


def refusal(message: str) -> http.Response:
    """A 502 for a `CONNECT`."""
    body = union_error(BAD_GATEWAY, "bad_gateway", f"cio-proxy: {message}")
    return http.Response.make(BAD_GATEWAY, body, {"Content-Type": "application/json"})
