"""What Customer.io refuses: the documented limits, with the documented messages [docs: Invalid API requests]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cio_proxy.model import Json
from cio_proxy.sandbox import wire

STRUCTURED = ("cio_subscription_preferences", "cio_relationships")
"""Reserved attributes with a structure of their own; that the value limit spares them is unverified."""


class Fault(NamedTuple):
    """One reason to refuse, in the three words of a Track v2 error (reference 3); the other APIs use the message."""

    reason: str
    field: str
    message: str


def attributes(values: Mapping[str, Json]) -> Iterator[Fault]:
    """Faults of an identify: counts and sizes (reference 6.2), and the `id` among the attributes."""
    if len(values) > 300:
        yield Fault("invalid", "attributes", "cannot identify more than 300 attributes in one request")
    if "id" in values:
        yield from identifier("id", values["id"])
    for name, value in values.items():
        if _bytes(name) > 150:
            yield Fault("invalid", "attributes", "attribute name cannot be longer than 150 bytes")
        elif name not in STRUCTURED and _bytes(value) > 1000:
            yield Fault("invalid", name, f"value for attribute '{name}' cannot be longer than 1000 bytes")


def identifier(field: str, value: Json) -> Iterator[Fault]:
    """Faults of a person's identifier. The messages are documented for `id`; for the others they are unverified."""
    if not isinstance(value, str):
        yield Fault("invalid", field, f"{field} attribute must be a string value")
    elif not value:
        yield Fault("invalid", field, f"{field} attribute cannot be an empty string")


def event(name: Json, content: Json, *, field: str = "data", page: bool = False) -> Iterator[Fault]:
    """Faults of an event.

    Two documented limits for the name contradict: 100 bytes, and under 500 characters (reference 6.2). Both
    are applied. Names of page and screen views are URLs and titles: the first spares them here (unverified).
    """
    if name is None:
        yield Fault("required", "name", "name cannot be blank")
    elif not isinstance(name, str) or not name.strip():
        yield Fault("invalid", "name", "event name must not be blank")
    elif len(name) >= 500:
        yield Fault("invalid", "name", "event name must be less than 500 characters")
    elif not page and _bytes(name) > 100:
        yield Fault("invalid", "name", "event name cannot be longer than 100 bytes")
    if content is not None and not isinstance(content, dict):
        yield Fault("invalid", field, "event data must be a hash")
    elif content is not None and wire.size(content) > 100_000:
        yield Fault("invalid", field, "event data cannot be longer than 100000 bytes")


def device(values: Mapping[str, Json]) -> Iterator[Fault]:
    """Faults of a device [spec: Track]; the wording is unverified. v2's examples say `token` where v1 says `id`."""
    token = values.get("id", values.get("token"))
    if not isinstance(token, str) or not token:
        yield Fault("required", "device.id", "device id cannot be blank")
    if values.get("platform") not in ("ios", "android"):
        yield Fault("invalid", "device.platform", "device platform must be ios or android")


def one_person(values: Json, kinds: tuple[str, ...], field: str) -> Iterator[Fault]:
    """Faults of an object that must name a person by exactly one identifier [spec: Track]; wording unverified."""
    named = [kind for kind in kinds if isinstance(values, dict) and kind in values]
    if not isinstance(values, dict) or len(named) != 1:
        yield Fault("required", field, f"{field} must have exactly one of {', '.join(kinds)}")
    else:
        yield from identifier(named[0], values[named[0]])


def _bytes(value: Json) -> int:
    """Bytes of UTF-8; of a value that is no text, those of its JSON (unverified)."""
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else wire.size(value)
