"""What the readers of all surfaces share: building a call, and reading identifiers and time fields leniently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from cio_proxy.model import NOTHING, Api, Call, Credentials, Document, Exchange, Json, Kind, Person, Timestamp, made

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")


class Envelope(NamedTuple):
    """What every call of one exchange has in common."""

    exchange: Exchange
    api: Api
    workspace: str
    joined: str | None
    credentials: Credentials
    document: Document

    def call(self, kind: Kind, endpoint: str, **parts: Any) -> Call:
        """A call of this exchange."""
        common = {
            "exchange": self.exchange,
            "at": self.exchange.at,
            "api": self.api,
            "kind": kind,
            "endpoint": endpoint,
            "workspace": self.workspace,
            "joined": self.joined,
            "credentials": self.credentials,
            "document": self.document,
            "size": len(self.document.raw),
        }
        return Call.of(common | parts)

    def unreadable(self, endpoint: str, **parts: Any) -> Call:
        """The call that stands for a body nobody can read."""
        fault = self.document.faults[0] if self.document.faults else None
        return self.call("unreadable", endpoint, reason=fault.detail if fault else "the body is empty", **parts)


def text(value: Json) -> str | None:
    """An identifier as text: a non-empty string or a number; anything else is no identifier."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def mapping(value: Json) -> Mapping[str, Json]:
    """An object, or nothing."""
    return value if isinstance(value, dict) else NOTHING


def lower(value: str | None) -> str | None:
    """An e-mail identifier is not case-sensitive (reference 6.2)."""
    return None if value is None else value.lower()


def person_of(identifiers: Mapping[str, Json]) -> Person:
    """The person that an object of identifiers names, in a v2 item and in a merge."""
    return Person(
        text(identifiers.get("id")),
        lower(text(identifiers.get("email"))),
        text(identifiers.get("phone")),
        text(identifiers.get("cio_id")),
    )


def decoded_segment(raw: bytes) -> str:
    """A path segment, percent-decoded once; bytes that are not UTF-8 survive as surrogates."""
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "surrogateescape")


def person_in_path(raw: bytes) -> Person:
    """The person a Track v1 path names: by e-mail, by `cio_` and the canonical id, else by id (reference 2.1)."""
    identifier = decoded_segment(raw)
    if identifier.startswith("cio_"):
        return Person(cio_id=identifier[4:])
    if "@" in identifier and _EMAIL.match(identifier):
        return Person(email=identifier.lower())
    return made(Person, (identifier, None, None, None, None))


def timestamps(
    fields: Mapping[str, Json], at: str, names: Iterable[str], expects: Literal["seconds", "iso8601"] = "seconds"
) -> tuple[Timestamp, ...]:
    """The documented time fields that are present and not null."""
    found: list[Timestamp] = []
    for name in names:
        if fields.get(name) is not None:
            found.append(made(Timestamp, (f"{at}/{name}", fields[name], expects)))  # noqa: PERF401 (a third of the time)
    return tuple(found)
