"""Reads the examples beside the rules: requests in the `.http` format of REST clients, with tags.

`### kind: name` starts a case and a bare `###` its next exchange. Between that line and the request line stand tags:

    # @expect rule pointer confidence      a finding of this exchange; a pointer of "" is the whole body
    # @at +2s                              when it is sent, from the start of the case; else 1 s after the one before
    # @answered +3s 207                    when and how it is answered; else at once, with that API's success
    # @response {"errors": []}             the body of the answer
    # @location https://host/path          the `Location` of the answer
    # @outcome unknown                     the upstream closes without an answer
    # @waits held=20/20 free=1/400 call=event order_placed
                                         what the latency probe came to know by this answer of the app's: of the held
                                         calls and of the others, how many the answer followed; nested=390 may stand
                                         before `call`, and by=trace
    # @connection a                        exchanges that name the same connection share it; `@repeat` stays on one
    # @listener inbound                    outbound, inbound or explicit
    # @client web                          sent by the client of this name
    # @repeat 1000 +250ms                  sent so many times, so far apart, else 1 s; {{i}} counts from 0
    # @sandbox                             the upstream is the emulated Customer.io
    # @no-auth                             no credentials; else valid ones for the API, unless the case gives some
    # @body base64                         the body is written in base64, and is sent as it is
    # @config key=value                    a setting of the case, on its first exchange; the value is YAML
    # @end +1h                             on a last, empty exchange: deadlines are looked at then

`{{now}}`, `{{now-72h}}` and `{{now+5m}}` are Unix seconds from the start of the case, `{{pad 100}}` is 100 bytes. A
body ends before the line break that precedes the next `###` or the end of the file; up to there it is exact.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import yaml

from cio_proxy.apis import path_of, route, surface
from cio_proxy.model import CONFIDENCES, LISTENERS, Confidence, Exchange, Listener, ProbeSettings, Waits
from cio_proxy.recognise import path_template

ExampleKind = Literal["bad", "good", "near miss", "hostile", "todo"]
KINDS: Final[tuple[ExampleKind, ...]] = get_args(ExampleKind)

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"([+-]?)([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)\Z")
_PLACEHOLDER: Final = re.compile(rb"\{\{\s*(i|now(?:[+-][0-9]{1,12}(?:ms|s|m|h|d))?|pad [0-9]{1,8})\s*\}\}")
_MISWRITTEN: Final = re.compile(rb"\{\{\s*(?:now|pad)\b[^}'\"|]*\}\}")
_REQUEST: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (https?://.+?)(?: (HTTP/1\.[01]))?\Z")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)

_WAITS: Final = re.compile(
    r"held=(?P<held_followed>[0-9]{1,6})/(?P<held>[0-9]{1,6}) free=(?P<free_followed>[0-9]{1,6})/(?P<free>[0-9]{1,6})"
    r"(?: nested=(?P<nested>[0-9]{1,6}))?(?P<by> by=trace)? call=(?P<call>.+)\Z"
)

_ANSWER: Final = ("answered", "response", "location", "outcome", "waits")
_ONCE: Final = ("at", *_ANSWER, "connection", "listener", "client", "repeat", "body", "end")
_FLAGS: Final = ("no-auth", "sandbox")
_TAGS: Final = ("expect", "config", *_ONCE, *_FLAGS)

_SITE, _KEY, _APP = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27", "20436c6351668b25a74a2c289a639d3f"
"""Credentials of the documented shapes (reference 1.2), made up for the examples."""


class ExampleError(ValueError):
    """`file:line: what is wrong, what to do`."""


class Expect(NamedTuple):
    """A finding that an exchange, or the end of its case, must give."""

    rule: str
    pointer: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange of an example as written: placeholders unexpanded, times in seconds and relative."""

    line: int
    method: str
    url: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    """As they are sent, but for `Host`, `User-Agent` and `Content-Length`, which `play` adds where they lack."""
    body: bytes
    exact: bool = False
    """True for a body written in base64: nothing in it is a placeholder."""
    at: float | None = None
    answered: float = 0.0
    status: int | None = None
    response: bytes | None = None
    location: str | None = None
    unknown: bool = False
    waits: Waits | None = None
    """Without its route, which is that of the request."""
    connection: str | None = None
    listener: Listener = "outbound"
    client: str | None = None
    repeat: int = 1
    apart: float = 1.0
    sandbox: bool = False
    expects: tuple[Expect, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One case: its exchanges in order, and what they must give."""

    kind: ExampleKind
    name: str
    line: int
    source: str
    exchanges: tuple[Step, ...]
    config: tuple[tuple[str, Any], ...] = ()
    """Dotted keys for `config.overlay`; every scalar is text, as in an environment variable."""
    end: float | None = None
    end_expects: tuple[Expect, ...] = ()
    """The findings of deadlines that have passed by the end."""

    def play(self, start: float) -> Iterator[Sent]:
        """The exchanges by their times when the case starts at `start`, repeats and placeholders expanded."""
        after = -1.0
        times: list[tuple[float, int, int]] = []
        for index, step in enumerate(self.exchanges):
            for turn in range(step.repeat):
                after = step.at if step.at is not None and turn == 0 else after + (step.apart if turn else 1.0)
                times.append((after, index, turn))
        carried: Counter[str] = Counter()
        for number, (after, index, turn) in enumerate(sorted(times)):
            step = self.exchanges[index]
            connection = _expanded((step.connection or f"c{index}").encode(), start, turn).decode()
            carried[connection] += 1
            exchange = _exchange(step, start + after, start, turn)
            exchange = replace(exchange, id=f"{number:08x}", connection=connection, carried=carried[connection])
            yield _answered(step, exchange, start, turn)


@dataclass(frozen=True, slots=True)
class Sent:
    """One exchange ready to be sent, and the answer it is to get. A status of None: none, the upstream closes."""

    step: Step
    exchange: Exchange
    answered_at: float
    status: int | None
    response: bytes
    location: str | None = None
    waits: tuple[Waits, ...] = ()


def read(path: Path) -> tuple[Example, ...]:
    """Every example of a file. Raises ExampleError."""
    try:
        before, *blocks = re.split(rb"(?m)^(?=###)", path.read_bytes())
    except OSError as error:
        raise ExampleError(f"{path}: {(error.strerror or 'cannot be read').lower()}; give a readable file") from None
    examples: list[Example] = []
    try:
        for number, text in enumerate(before.splitlines(), 1):
            if text.strip() and not text.startswith(b"#"):
                raise _Wrong(
                    number, "nothing but comments stands before the first case; start it with `### kind: name`"
                )
        line = 1 + before.count(b"\n")
        for block in blocks:
            _add(_Block.of(block, line), examples)
            line += block.count(b"\n")
    except _Wrong as wrong:
        raise ExampleError(f"{path.name}:{wrong.line}: {wrong}") from None
    return tuple(examples)


class _Wrong(ValueError):
    """Something is wrong in a line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


# --- a case ------------------------------------------------------------------------------------


class _Tag(NamedTuple):
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class _Block:
    """What stands from one `###` to the next: the title, the tags, and the request with the line it starts in."""

    title: str
    line: int
    source: str
    tags: dict[str, list[_Tag]]
    request: bytes
    request_line: int
    end_of_line: bytes

    @classmethod
    def of(cls, block: bytes, line: int) -> _Block:
        head, _, rest = block.partition(b"\n")
        end_of_line = b"\r\n" if head.endswith(b"\r") else b"\n"
        rest, at = rest.removesuffix(end_of_line), line + 1
        tags: dict[str, list[_Tag]] = {}
        while rest.startswith((b"#", end_of_line)):
            text, _, rest = rest.partition(b"\n")
            if text.startswith(b"#"):
                name, value = _tag(text, at)
                if name not in ("expect", "config") and name in tags:
                    raise _Wrong(at, f"'@{name}' stands here twice; keep one")
                tags.setdefault(name, []).append(_Tag(value, at))
            at += 1
        return cls(_text(head[3:], line), line, block.decode(errors="replace").rstrip(), tags, rest, at, end_of_line)

    def first(self, name: str, otherwise: str = "") -> _Tag:
        """A tag that stands at most once."""
        return self.tags.get(name, [_Tag(otherwise, self.line)])[0]


def _tag(text: bytes, line: int) -> tuple[str, str]:
    name, _, value = _text(text[1:], line).partition(" ")
    name, value = name.removeprefix("@") if name.startswith("@") else "", value.strip()
    if not name:
        raise _Wrong(line, "between `###` and the request stand only tags; write `# @name value`")
    if name not in _TAGS:
        raise _Wrong(line, f"there is no tag '@{name}'; {_meant(name, _TAGS)}")
    if name in _FLAGS and value:
        raise _Wrong(line, f"'@{name}' takes no value; leave it out")
    if name not in _FLAGS and not value and name != "response":
        raise _Wrong(line, f"'@{name}' needs a value; write `# @{name} value`")
    return name, value


def _add(block: _Block, examples: list[Example]) -> None:
    if block.title:
        kind, colon, name = (part.strip() for part in block.title.partition(":"))
        known = next((each for each in KINDS if each == kind), None)
        if known is None or not colon or not name:
            raise _Wrong(block.line, f"a case starts with `### kind: name`; kind is one of {', '.join(KINDS)}")
        settings = tuple(_setting(tag) for tag in block.tags.get("config", ()))
        examples.append(Example(known, name, block.line, block.source, (), settings))
    elif not examples:
        raise _Wrong(block.line, "no case has started yet; write `### kind: name`")
    else:
        examples[-1] = replace(examples[-1], source=f"{examples[-1].source}\n\n{block.source}")
        if "config" in block.tags:
            raise _Wrong(block.first("config").line, "settings hold for the whole case; move it to its first exchange")
    case = examples[-1]
    if case.end is not None:
        raise _Wrong(block.line, "the case has ended; move `@end` to its last exchange")
    expects = tuple(_expect(tag) for tag in block.tags.get("expect", ()))
    if "end" in block.tags:
        examples[-1] = replace(case, end=_end(block), end_expects=expects)
    else:
        step = _step(block, expects)
        examples[-1] = replace(case, exchanges=(*case.exchanges, step), config=_with_client(case.config, step.client))


def _with_client(config: tuple[tuple[str, Any], ...], client: str | None) -> tuple[tuple[str, Any], ...]:
    """The settings under which a User-Agent that is the client's name is told by it; longer names are tried first."""
    if client is None:
        return config
    others = dict(config)
    names = sorted({client, *others.pop("clients", {})}, key=len, reverse=True)
    return (*others.items(), ("clients", {**{name: name for name in names}, **dict(config).get("clients", {})}))


def _end(block: _Block) -> float:
    for name in block.tags.keys() - {"end", "expect"}:
        raise _Wrong(block.first(name).line, f"the end of a case is no exchange; leave '@{name}' out")
    if block.request.strip() or block.title:
        raise _Wrong(block.line, "`@end` stands on a last, empty exchange; put it under a bare `###` without a request")
    return _seconds(block.first("end"))


# --- an exchange -------------------------------------------------------------------------------


def _step(block: _Block, expects: tuple[Expect, ...]) -> Step:
    method, url, version, headers, body = _request(block)
    given = {name.lower() for name, _ in headers}
    listener = _listener(block.first("listener", "outbound"))
    client = block.first("client").value or None
    if client and b"user-agent" in given:
        raise _Wrong(block.first("client").line, "the request gives a User-Agent; keep that or `@client`")
    if listener != "inbound" and "no-auth" not in block.tags and b"authorization" not in given:
        headers = [(b"Authorization", _credentials(url)), *headers]
    if body and b"content-type" not in given:
        headers.append((b"Content-Type", b"application/json"))
    delay, _, status = block.first("answered", "+0s").value.partition(" ")
    answered = block.first("answered")
    repeat = block.first("repeat", "1")
    times, _, apart = repeat.value.partition(" ")
    outcome = block.first("outcome", "unknown")
    if outcome.value != "unknown":
        raise _Wrong(outcome.line, "the only outcome to give is unknown; write the others as `@answered +0s STATUS`")
    if "outcome" in block.tags and (status or {"response", "location", "waits"} & block.tags.keys()):
        raise _Wrong(outcome.line, "an unknown outcome has no answer; leave status, `@response` and `@location` out")
    return Step(
        line=block.request_line,
        method=method,
        url=url,
        version=version,
        headers=tuple(headers),
        body=body,
        exact="body" in block.tags,
        at=_seconds(block.first("at")) if "at" in block.tags else None,
        answered=_seconds(_Tag(delay, answered.line)),
        status=_whole(_Tag(status.strip(), answered.line), 200, 599, "a status") if status else None,
        response=block.first("response").value.encode() if "response" in block.tags else None,
        location=block.first("location").value or None,
        unknown="outcome" in block.tags,
        waits=_waits(block.first("waits"), listener) if "waits" in block.tags else None,
        connection=block.first("connection").value or None,
        listener=listener,
        client=client,
        repeat=_whole(_Tag(times, repeat.line), 1, 100_000, "a number of times"),
        apart=_seconds(_Tag(apart.strip() or "1s", repeat.line)),
        sandbox="sandbox" in block.tags,
        expects=expects,
    )


def _request(block: _Block) -> tuple[str, bytes, str, list[tuple[bytes, bytes]], bytes]:
    line, end_of_line = block.request_line, block.end_of_line
    head, _, body = block.request.partition(end_of_line * 2)
    first, *lines = head.removesuffix(end_of_line).split(end_of_line)
    match = _REQUEST.match(first)
    if match is None or re.search(rb"\s", _PLACEHOLDER.sub(b"", match[2])):
        raise _Wrong(line, "not a request line; write `METHOD https://host/path`, without spaces in the path")
    if not _host(match[2]):
        raise _Wrong(line, "the URL names no host that can be sent to; write `https://host/path`")
    headers: list[tuple[bytes, bytes]] = []
    for number, text in enumerate(lines, line + 1):
        header = _HEADER.match(text)
        if header is None:
            raise _Wrong(number, "not a header; write `Name: value`, and a blank line before the body")
        headers.append((header[1], header[2]))
    if "body" in block.tags:
        form = block.first("body")
        if form.value != "base64":
            raise _Wrong(form.line, "the only other form of a body is base64; write `# @body base64`")
        try:
            body = base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error:
            raise _Wrong(line + len(lines) + 2, "the body is not base64; encode it, or leave `@body` out") from None
    for text in (first, *lines, *(() if "body" in block.tags else (body,))):
        if any(_PLACEHOLDER.fullmatch(found[0]) is None for found in _MISWRITTEN.finditer(text)):
            raise _Wrong(line, "not a placeholder; write {{now}}, {{now-72h}}, {{now+5m}} or {{pad 100}}")
    return match[1].decode(), match[2], (match[3] or b"HTTP/1.1").decode(), headers, body


def _credentials(url: bytes) -> bytes:
    """The `Authorization` that the API of this URL asks for (reference 1.1)."""
    path = path_of(_split(url)[1])
    api, _ = route(_host(url), path)
    if api == "app" or path.startswith(b"/v1/send/"):
        return f"Bearer {_APP}".encode()
    pair = f"{_KEY}:" if api == "pipelines" else f"{_SITE}:{_KEY}"
    return b"Basic " + base64.b64encode(pair.encode())


def _split(url: bytes) -> tuple[bytes, bytes]:
    """The authority and the request target of a URL."""
    match = re.match(rb"https?://([^/?#]*)", url)
    authority, target = (match[1], url[match.end() :]) if match else (b"", url)
    return authority, target if target.startswith(b"/") else b"/" + target


def _host(url: bytes) -> str:
    """The host of a URL in lower case; empty when there is none, or a user name stands before it."""
    try:
        parts = urlsplit(b"//" + _split(url)[0])
        return "" if parts.username is not None or parts.port == 0 else (parts.hostname or b"").decode()
    except ValueError:
        return ""


# --- values of tags ----------------------------------------------------------------------------


def _expect(tag: _Tag) -> Expect:
    rule, _, rest = tag.value.partition(" ")
    pointer, _, word = rest.strip().rpartition(" ")
    confidence = next((each for each in CONFIDENCES if each == word), None)
    if not pointer.strip():
        raise _Wrong(tag.line, 'not an expectation; write `# @expect rule pointer confidence`, "" for the whole body')
    if confidence is None:
        raise _Wrong(tag.line, f"'{word}' is no confidence; {_meant(word, CONFIDENCES)}")
    if pointer.startswith('"'):
        try:
            pointer = json.loads(pointer)
        except ValueError:
            raise _Wrong(tag.line, "a quoted pointer is a JSON string; close it, or leave the quotes out") from None
    return Expect(rule, pointer, confidence)


def _setting(tag: _Tag) -> tuple[str, Any]:
    key, equals, text = tag.value.partition("=")
    if not equals or not key.strip():
        raise _Wrong(tag.line, "not a setting; write `# @config key=value`")
    try:
        return key.strip(), yaml.load(text, yaml.BaseLoader)  # noqa: S506 (it makes nothing but text, lists and mappings)
    except yaml.YAMLError:
        raise _Wrong(tag.line, "the value is not YAML; put it in quotes") from None


def _listener(tag: _Tag) -> Listener:
    listener = next((each for each in LISTENERS if each == tag.value), None)
    if listener is None:
        raise _Wrong(tag.line, f"there is no listener '{tag.value}'; {_meant(tag.value, LISTENERS)}")
    return listener


def _waits(tag: _Tag, listener: Listener) -> Waits:
    match = _WAITS.match(tag.value)
    if match is None:
        raise _Wrong(tag.line, "not what a probe tells; write `# @waits held=20/20 free=1/400 call=event order_placed`")
    if listener != "inbound":
        raise _Wrong(tag.line, "a probe tells of the app's own answers; add `# @listener inbound`")
    counts = {name: int(match[name] or 0) for name in ("held", "held_followed", "free", "free_followed", "nested")}
    return Waits("", match["call"], match["by"] is not None, ProbeSettings().delay, **counts)


def _seconds(tag: _Tag) -> float:
    match = _DURATION.match(tag.value)
    if match is None or match[1] == "-":
        raise _Wrong(tag.line, f"'{tag.value}' is no time to wait; write +500ms, +2s, +10m, +1h or +3d")
    return float(match[2]) * _UNITS[match[3]]


def _whole(tag: _Tag, least: int, most: int, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", tag.value) is None or not least <= int(tag.value) <= most:
        raise _Wrong(tag.line, f"'{tag.value}' is not {what}; write a whole number from {least} to {most}")
    return int(tag.value)


def _text(text: bytes, line: int) -> str:
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        raise _Wrong(line, "not UTF-8; save the file as UTF-8, and write such a body in base64") from None


def _meant(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, 1)
    return f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(choices)}"


# --- as sent -----------------------------------------------------------------------------------


def _expanded(text: bytes, start: float, turn: int) -> bytes:
    def value(match: re.Match[bytes]) -> bytes:
        word = match[1].decode()
        if word == "i":
            return str(turn).encode()
        if word.startswith("pad "):
            return b"x" * int(word[4:])
        offset = 0.0
        if found := _DURATION.match(word[3:]):
            offset = float(f"{found[1]}{found[2]}") * _UNITS[found[3]]
        return str(int(start + offset)).encode()

    return _PLACEHOLDER.sub(value, text)


def _exchange(step: Step, at: float, start: float, turn: int) -> Exchange:
    url = _expanded(step.url, start, turn)
    authority, target = _split(url)
    body = step.body if step.exact else _expanded(step.body, start, turn)
    headers = [(name, _expanded(value, start, turn)) for name, value in step.headers]
    given = {name.lower() for name, _ in headers}
    if b"host" not in given:
        headers.insert(0, (b"Host", authority))
    if step.client:
        headers.append((b"User-Agent", step.client.encode()))
    if b"content-length" not in given and (body or step.method in ("POST", "PUT", "PATCH")):
        headers.append((b"Content-Length", str(len(body)).encode()))
    return Exchange(
        id="",
        at=at,
        method=step.method,
        target=target,
        host=_host(url),
        headers=tuple(headers),
        body=body,
        listener=step.listener,
        client_address="127.0.0.1",
        http_version=step.version,
        sandbox=step.sandbox,
    )


def _answered(step: Step, exchange: Exchange, start: float, turn: int) -> Sent:
    success, body = _success(exchange)
    status = success if step.status is None else step.status
    if step.response is not None:
        body = _expanded(step.response, start, turn)
    elif status != success:
        body = b"" if status in (204, 304) else b"{}"
    at = exchange.at + step.answered
    if step.unknown:
        return Sent(step, exchange, at, None, b"")
    route_taken = f"{exchange.method} {path_template(path_of(exchange.target).decode(errors='replace'))}"
    waits = () if step.waits is None else (step.waits._replace(route=route_taken),)
    return Sent(step, exchange, at, status, body, step.location, waits)


def _success(exchange: Exchange) -> tuple[int, bytes]:
    """What Customer.io answers when it takes an exchange (reference 2 to 4), and an app when it takes a webhook."""
    if exchange.listener == "inbound":
        return 200, b"{}"
    api, path = surface(exchange), path_of(exchange.target)
    if api == "pipelines":
        return 200, b'{"success": true}'
    if api == "app" and path.startswith(b"/v1/send/"):
        return 200, b'{"delivery_id": "ZAIAAVTJVG0QcCok0-0ZKj6yiQ==", "queued_at": %d}' % exchange.at
    return (204, b"") if path.startswith(b"/api/v1/forms/") else (200, b"{}")
