"""Bodies: content decoding, lenient JSON, and the extent of each item of a batch in the original bytes."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any, NoReturn

from cio_proxy.model import Document, Exchange, Fault, Json, made, pointer

MAX_DEPTH = 500
MAX_DIGITS = 4_000
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")


def content_encoding(exchange: Exchange) -> str:
    """The content coding in lower case; empty for none."""
    if b"content-encoding" not in exchange.named:
        return ""
    encoding = (exchange.header("content-encoding") or "").strip().lower()
    return "" if encoding == "identity" else encoding


def decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content coding. Raises ValueError if it cannot be had, OverflowError over `limit`."""
    if not encoding:
        body = raw
    elif encoding in ("gzip", "x-gzip", "deflate"):
        inflater = zlib.decompressobj(wbits=47)
        try:
            body = inflater.decompress(raw, limit + 1)
        except zlib.error as error:
            raise ValueError(f"not valid {encoding}") from error
        if not inflater.eof and len(body) <= limit:
            raise ValueError(f"{encoding} data ends early")
    else:
        raise ValueError(f"content coding {encoding[:20]!r} is not read")
    if len(body) > limit:
        raise OverflowError
    return body


def encoded(body: bytes, encoding: str) -> bytes:
    """The inverse of `decoded`."""
    if encoding in ("gzip", "x-gzip"):
        return gzip.compress(body, mtime=0)
    return zlib.compress(body) if encoding == "deflate" else body


def read_document(exchange: Exchange, limit: int) -> Document:
    """Decode and parse the body of an exchange; what cannot be read is a fault, never an exception."""
    if exchange.body is None:
        return Document(faults=(Fault("unread", "", "the body was streamed past unread"),))
    try:
        raw = decoded(exchange.body, content_encoding(exchange), limit)
    except ValueError as error:
        return Document(faults=(Fault("bad-encoding", "", str(error)),))
    except OverflowError:
        return Document(faults=(Fault("too-large", "", f"over {limit:,} bytes once decompressed"),))
    return parse(raw)


def parse(raw: bytes) -> Document:
    """Parse JSON as a strict reader first, and as a lenient one that names each fault when that fails."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _parse_leniently(raw)
    if _too_deep(raw):
        return Document(raw, None, (Fault("too-deep", "", f"nested over {MAX_DEPTH} levels"),))
    try:
        strict = _STRICT if len(text) > MAX_DIGITS else _SHORT
        value, end = strict.scan_once(text, 0)  # type: ignore[attr-defined]  # typeshed does not list it
        if end != len(text):
            value = strict.decode(text)
    except (ValueError, RecursionError, StopIteration):
        return _parse_leniently(raw)
    return made(Document, (raw, value, () if isinstance(value, dict) else (_not_object(value),)))


def _parse_leniently(raw: bytes) -> Document:
    if not raw.strip():
        return Document(raw)
    if _too_deep(raw):
        return Document(raw, None, (Fault("too-deep", "", f"nested over {MAX_DEPTH} levels"),))
    faults: list[Fault] = []
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        faults.append(Fault("bad-utf8", "", f"byte {error.start} is not UTF-8"))
        text = raw.decode("utf-8", "surrogateescape")
    try:
        value = _unpaired(_LENIENT.decode(text.removeprefix("\ufeff")), "", faults)
    except json.JSONDecodeError as error:
        return Document(raw, None, (*faults, Fault("not-json", "", f"{error.msg} at character {error.pos}")))
    except RecursionError:
        return Document(raw, None, (Fault("too-deep", "", f"nested over {MAX_DEPTH} levels"),))
    if not isinstance(value, dict):
        faults.append(_not_object(value))
    return Document(raw, value, tuple(faults))


def _not_object(value: Json) -> Fault:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return Fault("not-object", "", f"the body is {names.get(type(value), 'null')}, not an object")


def _too_deep(raw: bytes) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in b"}]":
            depth -= 1
    return False


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, duplicates included."""


class _Nan(float):
    """NaN or an infinity, which JSON does not have."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer)
_SHORT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
"""The same for what is too short to hold a number of too many digits."""
_LENIENT = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_Nan, parse_int=_integer)


def _unpaired(value: Any, at: str, faults: list[Fault]) -> Any:
    if isinstance(value, _Pairs):
        members: dict[str, Any] = {}
        for key, member in value:
            where = pointer(at, key)
            if key in members:
                faults.append(Fault("duplicate-key", where, "the same key twice in one object"))
            members[key] = _unpaired(member, where, faults)
        return members
    if isinstance(value, list):
        return [_unpaired(member, f"{at}/{index}", faults) for index, member in enumerate(value)]
    if isinstance(value, _Nan):
        faults.append(Fault("nan", at, "NaN and Infinity are not JSON"))
    return value


def item_extents(raw: bytes, key: str = "batch") -> list[tuple[int, int]]:
    """Start and end byte of each item of the array `key` of the top-level object; empty when there is none."""
    text = raw.decode("utf-8", "surrogateescape")
    extents: list[tuple[int, int]] = []
    try:
        at = _skip(text, text.index("{") + 1)
        while text[at] != "}":
            name, at = _LENIENT.raw_decode(text, at)
            at = _skip(text, text.index(":", at) + 1)
            if name == key:
                extents = []
            if name == key and text[at] == "[":
                at = _skip(text, at + 1)
                while text[at] != "]":
                    _, end = _LENIENT.raw_decode(text, at)
                    extents.append((at, end))
                    at = _skip(text, end)
                    if text[at] == ",":
                        at = _skip(text, at + 1)
                at += 1
            else:
                _, at = _LENIENT.raw_decode(text, at)
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        return []
    return extents if len(text) == len(raw) else _in_bytes(text, extents)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _in_bytes(text: str, extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    chars = size = 0
    for start, end in extents:
        size += len(text[chars:start].encode("utf-8", "surrogateescape"))
        length = len(text[start:end].encode("utf-8", "surrogateescape"))
        found.append((size, size + length))
        chars, size = end, size + length
    return found


def without_items(raw: bytes, refused: frozenset[int], key: str = "batch") -> bytes:
    """The body without some items of its batch; every byte of the others is as it was sent."""
    extents = item_extents(raw, key)
    kept = [raw[start:end] for index, (start, end) in enumerate(extents) if index not in refused]
    return raw[: extents[0][0]] + b",".join(kept) + raw[extents[-1][1] :]
