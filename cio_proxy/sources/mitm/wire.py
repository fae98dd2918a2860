"""mitmproxy's HTTP/1 toward clients, with gateway errors that every SDK can read.

Functions of its are replaced, because it calls them by name and offers no other way in:

- `make_error_response`: its error pages are HTML and name mitmproxy and its version.
- `Http1Client`: it takes the first interim answer, such as 103, for the last one, and breaks at the next.
- `read_response_head`: it refuses an answer that says twice how long it is. Equal lengths may be one (RFC 9110 8.6),
  chunks go before a length (RFC 9112 6.3), and a 204 has no body in whatever way it is said to come.
- `Headers.get_all`, `get` and `in`: six calls for one look at the headers, of which a request takes forty.
- `MessageData.__post_init__`: it checks the types of what its own parser has just made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import h11
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.http import Headers, MessageData, Response
from mitmproxy.net.http import http1, status_codes
from mitmproxy.proxy import commands, events, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestTrailers,
    ResponseProtocolError,
    ResponseTrailers,
)

from cio_proxy.apis.refusals import union_error
from cio_proxy.sources.mitm.trouble import in_words

type Excuse = tuple[int, str]
"""Status and message for a client, where we know better than mitmproxy why its exchange failed."""

CODES: Final = {
    400: "bad_request",
    413: "too_large",
    431: "headers_too_large",
    502: "bad_gateway",
    503: "unavailable",
    504: "gateway_timeout",
}
WORDS: Final = {
    ErrorCode.CONNECT_FAILED: "the upstream cannot be reached: ",
    ErrorCode.GENERIC_SERVER_ERROR: "the upstream gave no proper answer: ",
    ErrorCode.RESPONSE_VALIDATION_FAILED: "the upstream gave no proper answer: ",
}
MESSAGE_LIMIT: Final = 300
HEAD_LIMIT: Final = 2**20
"""Bytes of a head, or of trailers, that have not ended yet. Servers take less, and mitmproxy keeps whatever comes."""
NO_CONTENT: Final = 204
LAST_CHUNK: Final = b"0\r\n\r\n"
"""How mitmproxy ends a body in chunks."""
FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
"""What decides where a message ends or goes."""
INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")
CONTINUE: Final = re.compile(rb"HTTP/1\.[01] 100")


def error_response(status_code: int, message: str = "") -> bytes:
    """An HTTP/1 answer for a failed exchange, in the body shape of reference 8.4."""
    message = message.partition(", refusing to prevent")[0].replace("mitmproxy", "cio-proxy")[:MESSAGE_LIMIT]
    body = union_error(status_code, CODES.get(status_code, "proxy_error"), f"cio-proxy: {message}")
    headers = Headers(
        (
            (b"Content-Type", b"application/json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Connection", b"close"),
        )
    )
    reason = status_codes.RESPONSES.get(status_code, "Unknown").encode()
    raw: bytes = http1.assemble_response(Response(b"HTTP/1.1", status_code, reason, headers, body, None, 0.0, 0.0))
    return raw


class Trailing(_http1.Http1Connection):
    """Passes on the trailers of a chunked body, which mitmproxy's HTTP/1 neither reads nor sends: it gives up there.

    Its HTTP/2 does, and so does what stands between both sides, which finds them in the message.
    """

    _trailers: Headers | None = None
    """What is to be sent at the end of a body."""

    @property
    def body_reader(self) -> Any:
        """Reads the body whose head has just been read."""
        return self._body_reader

    @body_reader.setter
    def body_reader(self, reader: Any) -> None:
        self._body_reader = BodyReader(reader, self.response if isinstance(self, Http1Client) else self.request)

    def send(self, event: Any) -> CommandGenerator[None]:
        """Send as mitmproxy does, and trailers with the end of a body in chunks; of any other they are left out."""
        if isinstance(event, RequestTrailers | ResponseTrailers):
            self._trailers = event.trailers
            return
        if self._trailers is None:
            yield from super().send(event)
            return
        end = b"0\r\n%b\r\n" % bytes(self._trailers)
        self._trailers = None
        for command in super().send(event):
            if isinstance(command, commands.SendData) and command.data == LAST_CHUNK:
                command.data = end
            yield command


class BodyReader:
    """A body reader of h11 that puts trailers into the message, but for what no trailer may be (RFC 9110 6.5.1)."""

    def __init__(self, reader: Any, message: Any) -> None:
        self._reader = reader
        self._message = message

    def __call__(self, buffer: Any) -> Any:
        """The next piece of the body. Raises h11.RemoteProtocolError where something between pieces does not end."""
        piece = self._bare(self._reader(buffer))
        if piece is None and len(buffer) > HEAD_LIMIT:
            raise h11.RemoteProtocolError(f"the size of a chunk, or trailers, over {HEAD_LIMIT:,} bytes")
        return piece

    def read_eof(self) -> Any:
        """The end of a body that ends with its connection."""
        return self._bare(self._reader.read_eof())

    def _bare(self, event: Any) -> Any:
        if not isinstance(event, h11.EndOfMessage) or not event.headers:
            return event
        fields = [field for field in event.headers.raw_items() if field[0].lower() not in FRAMING]
        self._message.trailers = Headers(fields) if fields else None
        return h11.EndOfMessage()


class Http1Server(Trailing, _http1.Http1Server):
    """The side toward a client. `unread` is told of a head that cannot be parsed: no hook is."""

    def __init__(self, context: Context, excuses: dict[str, Excuse], unread: Callable[[Client], None]) -> None:
        super().__init__(context)
        self._excuses = excuses
        self._unread = unread
        self._ended = False
        """True for a client that will send no more."""

    def send(self, event: Any) -> CommandGenerator[None]:
        """Answer as mitmproxy does, but for gateway errors."""
        status = event.code.http_status_code() if isinstance(event, ResponseProtocolError) else None
        if status is None or self.response is not None or not self.conn.state & ConnectionState.CAN_WRITE:
            yield from super().send(event)
            return
        message = WORDS[event.code] + in_words(event.message) if event.code in WORDS else event.message
        status, message = self._excuses.pop(self.context.client.id, (status, message))
        yield commands.SendData(self.conn, error_response(status, message))
        yield commands.CloseConnection(self.conn)

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read a head after any empty lines (RFC 9112 2.2), and tell of one that cannot be read, or never ends."""
        size = None
        while size != len(self.buf) and self.state == self.read_headers:  # an empty line is taken away, and no more
            size = len(self.buf)
            yield from super().read_headers(event)
        if self.state == self.read_headers and len(self.buf) > HEAD_LIMIT:
            yield commands.SendData(self.conn, error_response(431, f"the head is over {HEAD_LIMIT:,} bytes"))
            yield commands.CloseConnection(self.conn)
            self.state = self.done
        if self.state == self.done and self.request is None:
            self._unread(self.context.client)

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        """Read a body, and say so before closing when its framing is broken: mitmproxy just closes."""
        for command in super().read_body(event):
            broken = isinstance(command, commands.CloseConnection) and self.response is None
            if broken and isinstance(event, events.DataReceived):
                yield commands.SendData(self.conn, error_response(400, "the framing of the body is broken"))
            yield command

    def wait(self, event: events.Event) -> CommandGenerator[None]:
        """Wait for the answer to a complete request. A client that only sends no more may still read it."""
        if isinstance(event, events.ConnectionClosed) and event.connection.state is not ConnectionState.CLOSED:
            self._ended = True
        else:
            yield from super().wait(event)

    def mark_done(self, *, request: bool = False, response: bool = False) -> CommandGenerator[None]:
        """Go on to the next request, if the client has sent a whole one before it stopped sending."""
        yield from super().mark_done(request=request, response=response)
        if self._ended and self.state not in (self.wait, self.done):
            yield from self.state(events.ConnectionClosed(self.conn))
            self.state = self.done


class Http1Client(Trailing, _http1.Http1Client):
    """The side toward a server. Interim answers go on to the client, but for `100 Continue`: we gave that ourselves."""

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read a head after any interim ones (RFC 9110 15.2)."""
        while self.request and (interim := interim_head(bytes(self.buf))):
            self.buf.maybe_extract_at_most(len(interim))
            if self.request.http_version == "HTTP/1.1" and not CONTINUE.match(interim):
                yield commands.SendData(self.context.client, interim)
        yield from super().read_headers(event)


def interim_head(received: bytes) -> bytes:
    """The whole head of an interim answer that comes first; 101 is a last one."""
    head, end, _ = received.partition(b"\r\n\r\n") if INTERIM.match(received) else (b"", b"", b"")
    return head + end if end else b""


def with_one_framing(response: Response) -> Response:
    """An answer that says once how long it is, if all that it says of that can be read as one thing."""
    fields = response.headers.fields
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in fields)
    if chunked:
        left = b"transfer-encoding" if response.status_code == NO_CONTENT else b"content-length"
        response.headers.fields = tuple([field for field in fields if field[0].lower() != left])
        return response
    said = [value for name, value in fields if name.lower() == b"content-length"]
    if not said or (len(said) == 1 and b"," not in said[0]):
        return response
    lengths = {length.strip() for value in said for length in value.split(b",")}
    if len(lengths) == 1:
        first = next(field for field in fields if field[0].lower() == b"content-length")
        once = (first[0], lengths.pop())
        response.headers.fields = tuple(
            once if field is first else field
            for field in fields
            if field is first or field[0].lower() != b"content-length"
        )
    return response


def get_all(headers: Headers, name: str | bytes) -> list[str]:
    """The values of a header, one by one."""
    wanted = (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()
    return [value.decode("utf-8", "surrogateescape") for key, value in headers.fields if key.lower() == wanted]


def get(headers: Headers, name: str | bytes, default: Any = None) -> Any:
    """The value of a header; several are one, with commas."""
    values = get_all(headers, name)
    return ", ".join(values) if values else default


def contains(headers: Headers, name: object) -> bool:
    """True if there is such a header."""
    return isinstance(name, str | bytes) and bool(get_all(headers, name))


_read_response_head = http1.read_response_head


def install() -> None:
    """Replace the functions; as often as you like."""
    for name, function in (("get_all", get_all), ("get", get), ("__contains__", contains)):
        setattr(Headers, name, function)
    MessageData.__post_init__ = lambda self: None  # type: ignore[method-assign]
    http1.read_response_head = lambda lines: with_one_framing(_read_response_head(lines))
    layers.http.Http1Client = Http1Client  # type: ignore[attr-defined]
    _http1.make_error_response = error_response
