"""An event name holds a value that changes from call to call.

Every spelling is an event of its own to Customer.io. Names made from ids grow the list of events
without end: campaigns cannot be built on them, and the pickers in the product become unusable.

Personal values in names belong to `pii-in-name`: one fault, one finding. What a fixed name may hold
as well is only possible: a number of five digits (a zip or error code), a date written as one number
(a campaign), a version number, a word with a year that happens to be hexadecimal, a bare web address.

Such a part is certain once there are more names of one shape than people make by hand: `viewed_product_812` is a
name like any other, ten more with other numbers are not. What makes few names is left alone: numbers of one or two
digits (`step_5`), and of three behind a word that counts on (`day_365`); years, months and weeks (`digest_202611`);
versions (`signup_v2`, `build_1234`); codes (`http_404`, `error_1045`), and round figures.

Fix: use one fixed name, and send what varies in the event's data.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from cio_proxy.model import (
    CONFIDENCES,
    Call,
    Confidence,
    Fact,
    Finding,
    Form,
    Key,
    Known,
    Outcome,
    Param,
    RuleInfo,
    Sample,
    recalled,
)
from cio_proxy.recognise import (
    PERSONAL,
    Part,
    changes,
    is_day,
    is_milestone,
    parts,
    personal,
    replaced,
    template,
    without_parts,
)

RULE = RuleInfo(
    id="dynamic-event-name",
    severity="error",
    category="3",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        # Reference 9.8 asks for 5 to 10 at least: the larger, since steps and error codes are written by hand.
        "names": Param(10, "how many names may differ in nothing but a number, a date or the like"),
        "remember": Param(30 * 86_400.0, "how long names of one shape are counted after the last of them", "duration"),
    },
)

WORDS: Mapping[str, tuple[str, Confidence]] = {
    "uuid": ("a UUID", "certain"),
    "ulid": ("a ULID", "certain"),
    "long-hex": ("a long hexadecimal id", "certain"),
    "url": ("a URL", "certain"),
    "hex": ("a hexadecimal id", "likely"),
    "date": ("a date", "likely"),
    "number": ("a long number", "likely"),
}


_HOST = re.compile(r"(?:https?://)?[^/?#]*/?\Z", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])\d{3,}(?![\d.])")
"""Three digits or more that are no part of a version."""
_PERIOD = re.compile(
    r"(?:19|20)\d\d(?:0[1-9]|[1-4]\d|5[0-3])?\Z"  # a year, and a month or a week of it
    r"|(?:0[1-9]|1[0-2])(?:19|20)\d\d\Z"
)
_DAY = re.compile(r"(?:(?:[0-2]\d|3[01])(?:0\d|1[0-2])|(?:0\d|1[0-2])(?:[0-2]\d|3[01]))(?:19|20)\d\d\Z")
"""A day that ends with its year, in either order."""
_STATUSES = frozenset(str(status.value) for status in HTTPStatus)
_BEFORE = re.compile(r"([A-Z]?[a-z]+|[A-Z]+)[^A-Za-z]*\Z")
_CODES = frozenset({"code", "err", "error", "exception", "exit", "http", "https", "response", "rfc", "smtp", "status"})
_VERSIONS = frozenset(
    {
        *("v", "ver", "version", "release", "build", "sdk"),
        *("os", "ios", "android", "chrome", "edge", "firefox", "opera", "safari"),
    }
)
_COUNTED = frozenset(
    {
        *("day", "days", "week", "month", "season", "episode", "sprint", "streak"),
        *("chapter", "lesson", "level", "module", "page", "part", "phase", "question", "round", "stage", "step"),
    }
)
"""Words before a number that goes up by one, and ends somewhere in the hundreds."""
_LONGEST = 500
_REACH = 40
"""How far before a number the word is looked for that says what it counts."""


def concerns(form: Form) -> bool:
    """Names that something varies in."""
    return form.name is not None and not is_fixed_name(form.name)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for the most telling variable part of the name, or for what is one too many of a shape."""
    if not call.name:
        return ()
    if (shape := shape_of(call.name)) and _is_over(call, call.name, shape, known):
        return _too_many(call, call.name, shape, known.params["names"])
    return _variable(call, call.name)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That there is an accepted name of this shape. One more than the limit has to be known, and no further ones."""
    if not call.name or outcome.kind != "accepted":
        return ()
    shape = shape_of(call.name)
    name = Sample(params["names"] + 1, plain=frozenset((call.name.strip(),)))
    return (Fact(_alike(call, shape), name, params["remember"]),) if shape else ()


@recalled(10_000)
def is_fixed_name(name: str) -> bool:
    """A quick first look: no part of the name is one that varies."""
    return not (parts(name) or shape_of(name))


@recalled(10_000)
def shape_of(name: str) -> str:
    """What a name has in common with others that differ in ids and numbers; nothing where one name tells enough."""
    name = name.strip()
    found = parts(name)
    if len(name) > _LONGEST or not name.isprintable() or any(part.kind in PERSONAL for part in found):
        return ""
    varying = [part for part in found if part.kind in WORDS and not _is_fixed(name, part)]
    varying = [part for part in varying if part.kind != "number" or not _is_of_few(name, part)]
    if any(_confidence(name, part) == "certain" for part in varying):
        return ""
    numbers = [
        Part("number", *match.span())
        for match in _NUMBER.finditer(name)
        if not any(part.start < match.end() and match.start() < part.end for part in found)
    ]
    varying += [part for part in numbers if not _is_of_few(name, part)]
    varying.sort(key=lambda part: part.start)
    return replaced(name, varying) if varying else ""


def _alike(call: Call, shape: str) -> Key:
    return Key("event-names", call.workspace, shape, named=True)


def _is_over(call: Call, name: str, shape: str, known: Known) -> bool:
    seen = known.sample(_alike(call, shape))
    return seen is not None and len({*seen.hashes, known.member(name.strip())}) > known.params["names"]


def _too_many(call: Call, name: str, shape: str, limit: int) -> Iterator[Finding]:
    yield RULE.finding(
        call.name_at,
        f"more than {limit} events are named {shape}",
        effect="Each value makes an event of its own, and no campaign can be triggered by all of them.",
        fix="Use one fixed name and send the value in the event's data.",
        evidence=name,
        name=shape,
        confidence="certain",
    )


def _variable(call: Call, name: str) -> Iterator[Finding]:
    found = [
        (CONFIDENCES.index(confidence), what)
        for part in parts(name)
        if part.kind in WORDS and not _is_fixed(name, part)
        for what, confidence in [(WORDS[part.kind][0], _confidence(name, part))]
    ]
    if not found:
        return
    rank, what = min(found, key=lambda part: part[0])
    yield RULE.finding(
        call.name_at,
        f"the event name holds {what}: {template(name)}",
        effect="Each value makes an event of its own, and no campaign can be triggered by all of them.",
        fix="Use one fixed name and send the value in the event's data.",
        corrected=without_parts(name) or None,
        name=name,
        confidence=CONFIDENCES[rank],
    )


def _is_fixed(name: str, part: Part) -> bool:
    """A round figure or a standard is no id, and a URL with a personal value in it is another rule's."""
    text = name[part.start : part.end]
    if part.kind == "number":
        before = name[: part.start].lower()
        return is_milestone(text) or before.rstrip(" _-").endswith("iso") or before.endswith("0x")
    return part.kind == "url" and any(found.kind in ("email", "card", "iban", "phone") for found in personal(text))


def _is_of_few(name: str, number: Part) -> bool:
    """Whether there are not many such numbers: months, codes, versions and the like."""
    text = name[number.start : number.end]
    if _PERIOD.match(text) or text in _STATUSES or (text.endswith("0") and is_milestone(text)):
        return True
    before = _BEFORE.search(name[max(0, number.start - _REACH) : number.start])
    word = before[1].lower() if before else ""
    return word in _VERSIONS or (word in _CODES and len(text) <= 6) or (word in _COUNTED and len(text) == 3)


def _confidence(name: str, part: Part) -> Confidence:
    """How sure it is that this part is another one in the next call."""
    text = name[part.start : part.end]
    match part.kind:
        case "number":
            is_version = name[: part.start].endswith(".") or name[part.end : part.end + 1] == "."
            is_fixed = is_version or is_day(text) or _DAY.match(text) is not None or _is_of_few(name, part)
            sure = len(text) > 5 and not is_fixed
        case "date":
            sure = "." not in text  # 2026.11.24 is a version as often
        case "hex":
            sure = changes(text) >= 3 and not text.startswith("0x")  # an error code
        case "url":
            sure = _HOST.match(text) is None
        case _:
            sure = True
    return WORDS[part.kind][1] if sure else "possible"
