"""Facts as bytes, for the stores that outlive the process: MessagePack lists whose first member names the form.

What a later version wrote, or nobody, is read as nothing and stops nobody. Numbers are what a double holds exactly,
since Redis joins facts itself. The seed of a deadline is JSON inside: only it may hold whatever a body held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

import msgpack

from cio_proxy.model import Deadline, Finding, Groups, Key, Origin, Sample, Span, Tally, Value

SPAN: Final = "s"
SAMPLE: Final = "b"
GROUPS: Final = "g"
TALLY: Final = "t"
DEADLINE: Final = "d"

_DEFAULTS: Final = {field.name: field.default for field in fields(Finding)}
_UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


def encode(value: Value) -> bytes:
    """A sealed value as bytes."""
    return packed(_parts(value))


def decode(encoded: bytes) -> Value | None:
    """The value that was encoded, or None if this version cannot read it."""
    try:
        return _value(unpacked(encoded))
    except _UNREADABLE:
        return None


def packed(parts: object) -> bytes:
    """MessagePack of numbers, lists and texts, also of bytes as text, since Redis knows no other."""
    return msgpack.packb(parts, use_bin_type=False, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def unpacked(encoded: bytes) -> Any:
    """What was packed. Raises ValueError."""
    return msgpack.unpackb(encoded, unicode_errors="surrogatepass")


def _parts(value: Value) -> list[Any]:
    match value:
        case Span(first, last, origin):
            return [SPAN, float(first), float(last), *origin]
        case Sample(limit, hashes):
            return [SAMPLE, limit, hashes]
        case Groups(limit, samples):
            return [GROUPS, limit, [part for label in sorted(samples) for part in (label, *_sample(samples[label]))]]
        case Tally(slots):
            return [TALLY, [part for slot in sorted(slots.items()) for part in slot]]
        case Deadline(at, rule, watch, seed):
            watched = [part for key in watch for part in key[:3]]
            return [DEADLINE, float(at), seed.exchange, seed.item or 0, rule, watched, _seed(seed)]


def _value(parts: Sequence[Any]) -> Value | None:
    match parts:
        case [str(form), first, last, exchange, connection] if form == SPAN:
            return Span(float(first), float(last), Origin(exchange, connection))
        case [str(form), limit, hashes] if form == SAMPLE:
            return Sample(limit, tuple(hashes))
        case [str(form), limit, flat] if form == GROUPS:
            return Groups(limit, {label: Sample(most, tuple(hashes)) for label, most, hashes in _by(3, flat)})
        case [str(form), flat] if form == TALLY:
            return Tally(dict(_by(2, flat)))
        case [str(form), at, _, _, rule, flat, seed] if form == DEADLINE:
            return Deadline(float(at), rule, tuple(Key(*key) for key in _by(3, flat)), _finding(seed))
    return None


def _sample(sample: Sample) -> tuple[int, tuple[int, ...]]:
    return sample.limit, sample.hashes


def _by(size: int, flat: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    return zip(*(flat[start::size] for start in range(size)), strict=True)


def _seed(finding: Finding) -> str:
    said = {name: value for name in _DEFAULTS if (value := getattr(finding, name)) != _DEFAULTS[name]}
    return json.dumps(said, separators=(",", ":"))


def _finding(seed: str) -> Finding:
    said = {name: value for name, value in json.loads(seed).items() if name in _DEFAULTS}
    return Finding(**{**said, "related": tuple(said.get("related", ()))})
