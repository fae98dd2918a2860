"""A personal value stands in a name: of an event, an attribute, a page, a segment.

Names are not personal data to Customer.io. They appear in lists, campaign conditions, exports and
logs, and deleting the person leaves them where they are.

Words are fine, values are not: `email_opened` is a good name, `email_ada@example.com` is not.

Fix: use a fixed name, and send the value as an attribute or in the event's data.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from cio_proxy.model import CONFIDENCES, Call, Confidence, Finding, Form, Json, Kind, Known, RuleInfo, pointer
from cio_proxy.recognise import Part, is_impersonal, is_like_a_version, is_public_ip, personal

RULE = RuleInfo(
    id="pii-in-name",
    severity="error",
    category="4",
    kinds=frozenset(
        {"event", "page", "screen", "identify", "object_identify", "device_add", "content_write", "form_submit"}
    ),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
    refuses=True,
)

WORDS: Mapping[str, tuple[str, Confidence]] = {
    "email": ("an e-mail address", "certain"),
    "card": ("a card number", "certain"),
    "iban": ("a bank account number", "certain"),
    "phone": ("a phone number", "likely"),
    "ip": ("an IP address", "likely"),
}
PAGE = "name or address of a page"
NAMED: Mapping[Kind, str] = {"page": PAGE, "screen": "screen name", "form_submit": "form name"}
ADDRESSES = ("url", "path", "search", "referrer")
"""The properties of a page that hold its address (reference §4)."""

OBJECT_TYPES = frozenset({"identifiers", "objectTypeId"})
NAMES = 1_000
"""More names than Customer.io takes in one call (reference 6.2)."""

_VERSION = re.compile(r"(?:v|ver|version|release|build|(?:upgraded?|updated?)[ _-]to)[ _.:-]?\Z")


class Name(NamedTuple):
    """A name in a call: where it is, what it is the name of, and whether its fault may be refused."""

    text: str
    at: str
    of: str
    refusable: bool = False


is_plain_name = lru_cache(20_000)(is_impersonal)
"""A quick first look: an app has few names, and sends them over and over."""


def concerns(form: Form) -> bool:
    """Any name but those that hold nothing; of a page its address, and of an object its type."""
    if form.kind == "page" or not OBJECT_TYPES.isdisjoint(form.body):
        return True
    return not all(map(is_plain_name, (form.name or "", *form.attributes, *form.data)))


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for each name that holds a personal value; the several names of one page count as one."""
    found: dict[str, Finding] = {}
    for name in _names(call):
        if (finding := _judge(name)) is not None:
            found.setdefault(PAGE if name.of == PAGE else name.at, finding)
    return found.values()


def _names(call: Call) -> Iterator[Name]:
    yield from _own_name(call)
    for text in islice(call.attributes, NAMES):
        if not is_plain_name(text):
            yield Name(text, pointer(call.attributes_at, text), "attribute name")
    for text in islice(call.data, NAMES):
        if not is_plain_name(text):
            yield Name(text, pointer(call.data_at, text), "name in the event's data")
    if call.kind == "page":
        for key in ADDRESSES:
            if isinstance(address := call.data.get(key), str):
                yield Name(address, pointer(call.data_at, key), PAGE)
    yield from _object_types(call)


def _own_name(call: Call) -> Iterator[Name]:
    if call.name is None or is_plain_name(call.name):
        return
    if call.endpoint == "/v1/segments":
        yield Name(call.name, call.name_at, "segment name", refusable=True)
    elif call.kind == "event":
        yield Name(call.name, call.name_at, "event name", refusable=True)
    else:
        yield Name(call.name, call.name_at, NAMED.get(call.kind, "name"))


def _object_types(call: Call) -> Iterator[Name]:
    if OBJECT_TYPES.isdisjoint(call.body):
        return
    identifiers = call.body.get("identifiers")
    named: list[tuple[Json, str]] = [(call.body.get("objectTypeId"), "/objectTypeId")]
    if isinstance(identifiers, dict):
        named.append((identifiers.get("object_type_id"), "/identifiers/object_type_id"))
    for value, at in named:
        if isinstance(value, str):
            yield Name(value, call.body_at + at, "object type")


def _judge(name: Name) -> Finding | None:
    text = unquote(name.text)
    found = [part for part in personal(text) if part.kind in WORDS and not _is_no_person(text, part)]
    if not found:
        return None
    part = min(found, key=lambda part: CONFIDENCES.index(_confidence(text, part)))
    value, confidence = WORDS[part.kind][0], _confidence(text, part)
    return RULE.finding(
        name.at,
        f"the {name.of} holds {value}",
        effect="Names stay in lists, conditions and exports when the person is deleted.",
        fix="Use a fixed name, and send the value as an attribute or in the event's data.",
        name=text.partition("?")[0],
        confidence=confidence,
        refusable=name.refusable and confidence == "certain",
    )


def _confidence(text: str, part: Part) -> Confidence:
    """How sure it is that the part is what it looks like: a version number of four parts looks like an address."""
    if part.kind == "ip" and is_like_a_version(text[part.start : part.end]):
        return "possible"
    return WORDS[part.kind][1]


def _is_no_person(text: str, part: Part) -> bool:
    """An address of a network of one's own, a version number of four parts, or the host of a URL."""
    if part.kind != "ip":
        return False
    before = text[max(0, part.start - 20) : part.start].lower()
    return not is_public_ip(text[part.start : part.end]) or before.endswith("//") or _VERSION.search(before) is not None
