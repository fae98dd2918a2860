"""The same attribute is sent in two types: a number here, a text there.

Customer.io takes any JSON type and answers 200. Conditions of segments and campaigns compare by type, so `"42"` and
`42`, or `"true"` and `true`, need not match the same people; that they do is documented nowhere.

Types are counted by people, of the attributes of a person on the Track API and on Pipelines apart, and of the data of
each event by its name, over this week and the last. Against a type that nearly everybody has it is certain that the
other one is the odd one. Where two types are common, the rarer one is likely if they are attributes of different
people, as two senders would make them; in the data of an event, or where the same people have both, it is only
possible: such a field may well hold anything. Objects and lists are judged by what they hold, a few levels deep.

What a change or an answer is may be of any type: `old_value` and `new_value`, and `value`, `from` and `to` and the like
beside what names the thing (`setting`, `field`, `question_id`), are not judged.

Null, an empty text, object or list is of no type: it clears. Whole numbers and others are one type, and so are texts
whatever is in them: that a text holds a number, a date or a boolean is only told. Lists of several types, keys that
hold an id, reserved names, and those that begin with `_` or `cio_` are not judged.

Fix: send the attribute in one type everywhere, and send it again for the people who have the other one.

See https://docs.customer.io/journeys/attributes/
See https://docs.customer.io/integrations/api/track/ (identify: attributes)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import Any, Final, NamedTuple

from cio_proxy.model import (
    SENT,
    TYPES,
    Api,
    Call,
    Confidence,
    Fact,
    Finding,
    Groups,
    Json,
    JsonType,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    Shape,
    pointer,
    recalled,
)
from cio_proxy.recognise import is_plain

WEEK = 7 * 86_400.0

RULE = RuleInfo(
    id="inconsistent-attribute-type",
    severity="error",
    category="4",
    kinds=frozenset({"identify", "event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        # Reference 9.11: 20 samples and 95 % before the minority is reported.
        "people": Param(20, "how many people must have a type before another one is odd"),
        "majority": Param(95, "how many of 100 people must have a type to make it certain that another one is odd"),
    },
)

COUNTED = 40
"""Up to how many people of a type are counted exactly: twice those that are enough."""
MOST = 400
"""How many types of attributes are known of the people of a workspace, and of one event."""
ATTRIBUTES = 100
"""How many attributes of one call are looked at."""
LONGEST = 150
"""Characters of a name that is judged: for Customer.io it may have so many bytes (reference 6.2)."""

KINDS: Final[Mapping[type, JsonType]] = {
    int: "number",
    float: "number",
    bool: "boolean",
    str: "string",
    dict: "object",
    list: "array",
}
SHOWN = {"number": "a number", "boolean": "a boolean", "string": "a text", "object": "an object", "array": "a list"}
RESERVED = frozenset(
    {
        *("id", "email", "phone", "anonymous_id", "created_at", "createdAt", "unsubscribed"),
        *("recipient", "from_address", "reply_to"),
    }
)
"""What Customer.io gives a meaning to (reference 6.3), and reads in more than one form."""

_CHANGED = re.compile(r"(?:old|new|previous|current)value\Z")
_TOLD = re.compile(r"(?:value|answer|from|to|before|after|old|new|previous|current)\Z")
_NAMING = re.compile(
    r"(?:name|key|(?:attribute|feature|field|metric|option|parameter|preference|property|question|setting)"
    r"(?:id|key|name)?)\Z"
)
"""Of names in lower case without `_`: what a value was or is, what is told of a thing, and what names the thing."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9:.,Z+-]{4,30})?\Z")
_ID = re.compile(r"[0-9]{3}")


class Types(NamedTuple):
    """The types of all that is in a call."""

    kinds: Mapping[str, str]
    """By what each is called: `address.zip`, `items[].price`."""
    labels: tuple[str, ...]
    """The same as a store sees it."""
    rivals: frozenset[str]
    """What is of another type, as a store sees it, where that is a fault."""
    free: frozenset[str]
    """What may be of any type, by what it is called."""


def needs(call: Call, people: People) -> Iterable[Key]:
    """The types of the week before."""
    return _keys(call)[1:]


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That this person has attributes of these types, if they were accepted; of an event, also that they sent it."""
    keys, person = _keys(call), call.subject
    if not keys or person is None or outcome.kind != "accepted":
        return ()
    labels = types_of(call.shape).labels
    if call.kind == "event":
        labels = (SENT, *labels)
    if not labels:
        return ()
    groups = Groups(MOST, dict.fromkeys(labels, Sample(COUNTED, plain=frozenset((person,)))))
    return (Fact(keys[0], groups, 2 * WEEK),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for each attribute of a type that few have."""
    if not call.shape:
        return ()
    seen = [groups.samples for key in _keys(call) if (groups := known.groups(key)) is not None]
    types = types_of(call.shape)
    for samples in seen:
        if not types.rivals.isdisjoint(samples):
            return _odd(call, types, seen, known)
    return ()


def _keys(call: Call) -> tuple[Key, ...]:
    if call.kind == "identify" and not call.attributes:
        return ()
    event = None if call.kind == "identify" else (call.name or "").strip()
    if event is not None and len(event) > LONGEST:  # the last ones are kept, and bounded in number alone
        return ()
    return keys_of(call.workspace, call.api, event, call.at // WEEK)


@lru_cache(10_000)
def keys_of(workspace: str, api: Api, event: str | None, week: float) -> tuple[Key, ...]:
    """The keys of this week's types and of those of the week before: of the people of one API, or of an event.

    There are none for an event without a name, or whose name may be another one in each call.
    """
    scope = "pipelines" if api == "pipelines" else "track"
    if event is not None:
        if not event or not is_fixed(event):
            return ()
        scope = f"{scope}\0{event}"
    return tuple(Key(TYPES, workspace, f"{each:.0f}\0{scope}", named=True) for each in (week, week - 1))


@recalled(10_000)
def is_fixed(name: str) -> bool:
    """Whether a name is a short text that can be shown, and holds no id and nothing personal."""
    return len(name) <= LONGEST and name.isprintable() and is_plain(name) and not _ID.search(name)


@recalled(10_000)
def is_judged(name: str) -> bool:
    """Whether an attribute of this name is one of the app's own, the same in every call."""
    return name not in RESERVED and not name.startswith(("_", "cio_")) and is_fixed(name)


@lru_cache(1_000)
def types_of(shape: Shape) -> Types:
    """The types that a shape shows. What is of several types within one call has none."""
    found: dict[str, set[str]] = {}
    free: set[str] = set()
    _gather(shape, "", found, free)
    kinds = {name: kind for name, (kind, *others) in found.items() if not others}
    return Types(
        kinds=kinds,
        labels=tuple(_label(name, kind) for name, kind in kinds.items()),
        rivals=frozenset(
            _label(name, other) for name, kind in kinds.items() if name not in free for other in SHOWN if other != kind
        ),
        free=frozenset(free),
    )


def _gather(shape: Shape, within: str, found: dict[str, set[str]], free: set[str]) -> None:
    folded = [name.lower().replace("_", "") for name, *_ in shape]
    names = any(map(_NAMING.match, folded))
    free |= {
        _called(name, within)
        for (name, *_), each in zip(shape, folded, strict=True)
        if _CHANGED.match(each) or (names and _TOLD.match(each))
    }
    for name, kind, members in shape:
        if kind in KINDS and (name or within) and is_judged(name) and len(found) < ATTRIBUTES:
            called = _called(name, within)
            found.setdefault(called, set()).add(KINDS[kind])
            _gather(members, called, found, free)


def _called(name: str, within: str) -> str:
    return name if not within else f"{within}.{name}" if name else f"{within}[]"


def _label(name: str, kind: str) -> str:
    return f"{name}\0{kind}"


def _odd(call: Call, types: Types, seen: list[Mapping[str, Sample]], known: Known) -> Iterator[Finding]:
    fields, at = (call.attributes, call.attributes_at) if call.kind == "identify" else (call.data, call.data_at)
    for name, kind in types.kinds.items():
        if name in types.free:
            continue
        people = {other: _people(name, other, seen) for other in SHOWN}
        own = people.pop(kind)
        others = own.count()
        if others < COUNTED and (call.subject is None or known.member(call.subject) not in own.hashes):
            others += 1
        usual = max(people, key=lambda each: people[each].count())
        most = people[usual].count()
        confidence = _confidence(most, others, known.params) if others < most else None
        if confidence == "likely" and (call.kind == "event" or _is_shared(own, people[usual])):
            confidence = "possible"
        if confidence is not None:
            keys, value = next(_places(fields, "", name))
            yield _finding(pointer(at, *keys), name, _shown(value), others, usual, most, confidence)


def _people(name: str, kind: str, seen: list[Mapping[str, Sample]]) -> Sample:
    label = _label(name, kind)
    return reduce(Sample.join, [samples[label] for samples in seen if label in samples], Sample(COUNTED))


def _confidence(most: float, others: float, params: Mapping[str, Any]) -> Confidence | None:
    if most < params["people"]:
        return None
    if most * 100 >= params["majority"] * (most + others):
        return "certain"
    return "likely" if others >= params["people"] else None


def _is_shared(rarer: Sample, usual: Sample) -> bool:
    """Whether a quarter of the people of the rarer type have the usual one too, of those that both samples reach."""
    seen = {each for each in rarer.hashes if each <= usual.reach()}
    return 4 * len(seen.intersection(usual.hashes)) >= len(seen)


def _places(value: Json | Mapping[str, Json], called: str, wanted: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Where something of this name is, and what is there."""
    if called == wanted and value is not None and value != "":
        yield (), value
    elif isinstance(value, dict):
        for key, member in value.items():
            for keys, found in _places(member, _called(key, called), wanted):
                yield (key, *keys), found
    elif isinstance(value, list):
        for index, member in enumerate(value):
            for keys, found in _places(member, _called("", called), wanted):
                yield (index, *keys), found


def _shown(value: Json) -> str:
    if isinstance(value, str):
        if _NUMBER.match(value):
            return "a number in quotes"
        if value.lower() in ("true", "false"):
            return "a boolean in quotes"
        if _DATE.match(value):
            return "a date in quotes"
    return SHOWN[KINDS[type(value)]]


def _finding(
    where: str, name: str, shown: str, others: float, usual: str, most: float, confidence: Confidence
) -> Finding:
    return RULE.finding(
        where,
        f"`{name}` is {shown} here and for {_count(others)} in all, and {SHOWN[usual]} for {_count(most)}",
        effect="Customer.io stores both and answers 200: a condition on the one type need not match the other.",
        fix=f"Send `{name}` as {SHOWN[usual]} everywhere.",
        name=name,
        confidence=confidence,
    )


def _count(people: float) -> str:
    return f"about {people:.0f} people" if people >= COUNTED else f"{people:.0f} people" if people > 1 else "one person"
