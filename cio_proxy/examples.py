"""Reads the examples beside the rules: requests in the `.http` format of REST clients, with tags.

The tags are described in the architecture page; every error names file, line and remedy.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import yaml

from cio_proxy.apis import route
from cio_proxy.model import CONFIDENCES, LISTENERS, Confidence, Exchange, Listener

ExampleKind = Literal["bad", "good", "near miss", "hostile", "todo"]
KINDS: Final[tuple[ExampleKind, ...]] = get_args(ExampleKind)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([+-]?)(\d+(?:\.\d+)?)(ms|s|m|h|d)\Z")
_PLACEHOLDER = re.compile(rb"\{\{\s*(i|now(?:[+-]\d+(?:ms|s|m|h|d))?|pad \d+)\s*\}\}")
_SITE, _KEY, _APP = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27", "20436c6351668b25a74a2c289a639d3f"


class ExampleError(ValueError):
    """`file:line: what is wrong, and what to do`."""


class Expect(NamedTuple):
    """A finding that an exchange must give."""

    rule: str
    pointer: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange of an example as written: placeholders unexpanded, times relative."""

    line: int
    method: str
    url: str
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    at: float | None = None
    answered: float = 0.0
    status: int | None = None
    response: bytes | None = None
    unknown: bool = False
    connection: str | None = None
    listener: Listener = "outbound"
    client: str | None = None
    repeat: int = 1
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
    end: float | None = None
    end_expects: tuple[Expect, ...] = ()

    def play(self, start: float) -> Iterator[Sent]:
        """The exchanges as they are sent when the case starts at `start`, repeats and placeholders expanded."""
        at, first, number = start, True, 0
        for index, step in enumerate(self.exchanges):
            for turn in range(step.repeat):
                if step.at is not None and turn == 0:
                    at = start + step.at
                elif not first:
                    at += 1.0
                first = False
                yield _sent(step, at, start, turn, f"{number:08x}", step.connection or f"c{index}")
                number += 1


@dataclass(frozen=True, slots=True)
class Sent:
    """One exchange ready to be sent, and the answer it is to get. A status of None: none, the upstream closes."""

    step: Step
    exchange: Exchange
    answered_at: float
    status: int | None
    response: bytes


def read(path: Path) -> tuple[Example, ...]:
    """Every example of a file. Raises ExampleError."""
    blocks = re.split(rb"(?m)^(?=###)", path.read_bytes())
    line = 1 + blocks[0].count(b"\n")
    examples: list[Example] = []
    for block in blocks[1:]:
        try:
            _read_block(block, line, examples)
        except _At as error:
            raise ExampleError(f"{path.name}:{line + error.offset}: {error}") from None
        line += block.count(b"\n")
    return tuple(examples)


class _At(ValueError):
    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


def _read_block(block: bytes, line: int, examples: list[Example]) -> None:
    head, _, rest = block.partition(b"\n")
    title = head[3:].decode().strip()
    tags: dict[str, list[str]] = {}
    offset = 1
    while rest.startswith((b"#", b"\n", b"\r\n")):
        text, _, rest = rest.partition(b"\n")
        if text.startswith(b"#"):
            name, _, value = text[1:].decode().strip().partition(" ")
            if not name.startswith("@"):
                raise _At(offset, f"a tag starts with '@', not {name!r}")
            tags.setdefault(name[1:], []).append(value.strip())
        offset += 1
    known = {"expect", "at", "answered", "response", "outcome", "connection", "listener", "client", "repeat"}
    for name in tags.keys() - known - {"config", "no-auth", "body", "end", "sandbox"}:
        raise _At(1, f"there is no tag '@{name}'")
    expects = tuple(_expect(value) for value in tags.get("expect", ()))
    if title:
        kind, colon, name = title.partition(":")
        if not colon or kind.strip() not in KINDS:
            raise _At(0, f"a case starts with `### kind: name`, kind one of {', '.join(KINDS)}")
        config = tuple(_setting(value) for value in tags.get("config", ()))
        source = block.decode("utf-8", "replace").rstrip()
        examples.append(Example(next(k for k in KINDS if k == kind.strip()), name.strip(), line, source, (), config))
    elif not examples:
        raise _At(0, "a bare `###` continues a case, and none has started")
    else:
        source = examples[-1].source + "\n\n" + block.decode("utf-8", "replace").rstrip()
    case = examples[-1]
    exchanges, end, end_expects = case.exchanges, case.end, case.end_expects
    if "end" in tags:
        end, end_expects = _seconds(tags["end"][0]), expects
    else:
        exchanges = (*exchanges, _step(rest, line + offset, offset, tags, expects))
    examples[-1] = Example(case.kind, case.name, case.line, source, exchanges, case.config, end, end_expects)


def _step(rest: bytes, line: int, offset: int, tags: dict[str, list[str]], expects: tuple[Expect, ...]) -> Step:
    head, _, body = rest.partition(b"\n\n")
    first, *lines = head.rstrip(b"\n").split(b"\n")
    words = first.decode().split(" ")
    if len(words) not in (2, 3) or "://" not in words[1]:
        raise _At(offset, "the request line is `METHOD https://host/path`")
    headers = []
    for number, text in enumerate(lines, 1):
        name, colon, value = text.partition(b":")
        if not colon:
            raise _At(offset + number, "a header is `Name: value`, and a blank line ends the headers")
        headers.append((name, value.strip()))
    body = body.rstrip(b"\n")
    if "body" in tags:
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise _At(offset, "the body is not base64, though tagged `# @body base64`") from None
    answered, _, status = tags.get("answered", [""])[0].partition(" ")
    listener = tags.get("listener", ["outbound"])[0]
    if listener not in LISTENERS:
        raise _At(1, f"the listener is one of {', '.join(LISTENERS)}")
    if "no-auth" not in tags:
        headers = _with_credentials(headers, words[1])
    if body:
        names = {name.lower() for name, _ in headers}
        if b"content-type" not in names:
            headers.append((b"Content-Type", b"application/json"))
    response = tags["response"][0].encode() if "response" in tags else None
    return Step(
        line=line,
        method=words[0],
        url=words[1],
        version=words[2] if len(words) == 3 else "HTTP/1.1",
        headers=tuple(headers),
        body=body,
        at=_seconds(tags["at"][0]) if "at" in tags else None,
        answered=_seconds(answered) if answered else 0.0,
        status=int(status) if status else None,
        response=response,
        unknown="outcome" in tags,
        connection=tags["connection"][0] if "connection" in tags else None,
        listener=next(known for known in LISTENERS if known == listener),
        client=tags["client"][0] if "client" in tags else None,
        repeat=int(tags.get("repeat", ["1"])[0]),
        sandbox="sandbox" in tags,
        expects=expects,
    )


def _with_credentials(headers: list[tuple[bytes, bytes]], url: str) -> list[tuple[bytes, bytes]]:
    if any(name.lower() == b"authorization" for name, _ in headers):
        return headers
    parts = urlsplit(url)
    api, _ = route(parts.hostname or "", parts.path.encode())
    if api == "app" or parts.path.startswith("/v1/send/"):
        value = f"Bearer {_APP}"
    else:
        pair = f"{_KEY}:" if api == "pipelines" else f"{_SITE}:{_KEY}"
        value = "Basic " + base64.b64encode(pair.encode()).decode()
    return [(b"Authorization", value.encode()), *headers]


def _expect(value: str) -> Expect:
    words = value.split(" ")
    if len(words) != 3 or words[2] not in CONFIDENCES:
        raise _At(1, "an expectation is `# @expect rule pointer confidence` (the whole body is ``)")
    return Expect(words[0], words[1].strip('"'), next(known for known in CONFIDENCES if known == words[2]))


def _setting(value: str) -> tuple[str, Any]:
    key, equals, text = value.partition("=")
    if not equals:
        raise _At(1, "a setting is `# @config key=value`")
    return key.strip(), yaml.safe_load(text)


def _seconds(text: str) -> float:
    match = _DURATION.match(text)
    if match is None:
        raise _At(1, f"{text!r} is not a duration such as +2s, +10m or +1h")
    sign, number, unit = match.groups()
    return float(number) * _UNITS[unit] * (-1 if sign == "-" else 1)


def _sent(step: Step, at: float, start: float, turn: int, id: str, connection: str) -> Sent:
    def expand(match: re.Match[bytes]) -> bytes:
        word = match[1].decode()
        if word == "i":
            return str(turn).encode()
        if word.startswith("pad "):
            return b"x" * int(word[4:])
        return str(int(start + (_seconds(word[3:]) if len(word) > 3 else 0.0))).encode()

    url = _PLACEHOLDER.sub(expand, step.url.encode())
    body = _PLACEHOLDER.sub(expand, step.body)
    _, _, rest = url.partition(b"://")
    host, slash, path = rest.partition(b"/")
    headers = [(b"Host", host), *((name, _PLACEHOLDER.sub(expand, value)) for name, value in step.headers)]
    if step.client and not any(name.lower() == b"user-agent" for name, _ in headers):
        headers.append((b"User-Agent", step.client.encode()))
    if body or step.method in ("POST", "PUT"):
        headers.append((b"Content-Length", str(len(body)).encode()))
    exchange = Exchange(
        id=id,
        at=at,
        method=step.method,
        target=slash + path or b"/",
        host=host.rpartition(b"@")[2].partition(b":")[0].decode().lower(),
        headers=tuple(headers),
        body=body,
        listener=step.listener,
        client_address="127.0.0.1",
        connection=connection,
        http_version=step.version,
        sandbox=step.sandbox,
    )
    status, response = (200, b"{}") if step.status is None else (step.status, b"{}")
    if step.response is not None:
        response = step.response
    return Sent(step, exchange, at + step.answered, None if step.unknown else status, response)
