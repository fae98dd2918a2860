"""What goes over the wire: requests as received, JSON bodies, credentials, and each API's error shape."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from cio_proxy.model import Json

MAX_BODY = 32 * 1024 * 1024
"""Bytes, received or unpacked. The sandbox's own limit: no source names one for a whole Track v1 or App API body."""
MAX_DEPTH = 100
"""Levels of nesting. The sandbox's own limit: no source names one."""


class Unreadable(ValueError):
    """A body that is not JSON; the text says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as received: `path` is the raw path, nothing in it is decoded."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> str:
        """The first value of a header (lower-case name), or an empty string."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    def json(self) -> Json:
        """The body; an empty one reads as `{}`, because SDKs send both (reference 8.2). Raises `Unreadable`."""
        return parse(unpacked(self.body, self.header(b"content-encoding")))

    def mapping(self) -> dict[str, Json]:
        """The body as an object. Raises `Unreadable`."""
        value = self.json()
        if not isinstance(value, dict):
            raise Unreadable("the body must be a JSON object")
        return value


@dataclass(slots=True)
class Reply:
    """What the sandbox answers, and in `notes` what the answer does not say."""

    status: int = 200
    body: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    location: str = ""


def unpacked(body: bytes, encoding: str) -> bytes:
    """Undo gzip, which cdp-py can send (reference 8.1). Raises `Unreadable`."""
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        return body
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(body, MAX_BODY)
    except zlib.error:
        raise Unreadable("the body is not valid gzip") from None
    if unzip.unconsumed_tail or not unzip.eof:
        raise Unreadable("the gzip body is cut off or too large")
    return plain


def parse(body: bytes) -> Json:
    """Strict JSON in UTF-8, no NaN or Infinity. Raises `Unreadable`."""
    if not body.strip():
        return {}
    try:
        value: Json = json.loads(body.decode(), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Unreadable("the body is not valid JSON") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise Unreadable("the body is nested too deeply")
    return value


def size(value: Json) -> int:
    """Bytes of a value as compact JSON in UTF-8."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def segment(raw: bytes) -> str:
    """A path segment, percent-decoded once (reference 8.2)."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def basic(request: Request) -> tuple[str, str] | None:
    """User and password of a Basic header, in either base64 alphabet: go uses the URL-safe one (reference 1.3)."""
    scheme, _, token = request.header(b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return None
    bare = token.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def bearer(request: Request) -> str:
    """The token of a Bearer header, or an empty string."""
    scheme, _, token = request.header(b"authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def meta_error(status: int, message: str) -> Reply:
    """Track v1's general form, and the App API's on send routes (reference 2, 5.1)."""
    return Reply(status, {"meta": {"error": message}})


def meta_errors(status: int, messages: list[str]) -> Reply:
    """Track v1's form on the routes whose specification declares a list (reference 2)."""
    return Reply(status, {"meta": {"errors": [*messages]}})


def app_error(status: int, detail: str) -> Reply:
    """The App API's form on all but the send routes (reference 1.2, 5.5)."""
    return Reply(status, {"errors": [{"detail": detail, "status": str(status)}]})


def pipelines_error(status: int, code: str, message: str) -> Reply:
    """The two fields that cdp-py looks for; the specification declares no error body (reference 1.2)."""
    return Reply(status, {"code": code, "message": message})


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _deeper_than(value: Json, limit: int) -> bool:
    """Walk level by level, so a deep value cannot exhaust the stack."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True
