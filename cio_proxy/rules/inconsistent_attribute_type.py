"""The same attribute is sent in two types: a number here, a text there.

Customer.io takes any JSON type and answers 200. Conditions of segments and campaigns compare by type, so `"42"` and
`42`, or `"true"` and `true`, need not match the same people; that they do is documented nowhere.

Types are counted by people, of the attributes of a person on the Track API and on Pipelines apart, and of the data of
each event by its name, over this week and the last. Against a type that nearly everybody has it is certain that the
other one is the odd one; where both are common, the rarer one is likely. Objects and lists are judged by what they
hold, a few levels deep.

Null, an empty text, object or list is of no type: it clears. Whole numbers and others are one type, and so are texts
whatever is in them: that a text is a number, a date or a boolean is only told. Lists of several types, keys that hold
an id, reserved names, and those that begin with `_` or `cio_` are not judged.

Fix: send the attribute in one type everywhere, and send it again for the people who have the other one.

See https://docs.customer.io/journeys/attributes/
See https://docs.customer.io/integrations/api/track/ (identify: attributes)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from cio_proxy.model import (
    Call,
    Confidence,
    Fact,
    Finding,
    Groups,
    Json,
    Key,
    Known,
    Outcome,
    Param,
    Path,
    People,
    RuleInfo,
    Sample,
    keys_of,
    pointer,
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
TYPES = 400
"""How many types of attributes are known of the people of a workspace, and of one event."""
ATTRIBUTES = 50
"""How many attributes of one call are looked at."""
LONGEST = 150
"""Characters of a name that is judged (reference 6.2 has bytes)."""
DEPTH = 3
"""How deep in objects and lists."""

NUMBER, BOOLEAN, TEXT, OBJECT, LIST = "number", "boolean", "text", "object", "list"
DIGITS, DATE, WORD = "text: number", "text: date", "text: boolean"
MIXED = ""
"""Of a list whose members are of several types."""
SHOWN = {
    NUMBER: "a number",
    BOOLEAN: "a boolean",
    TEXT: "a text",
    DIGITS: "a number in quotes",
    DATE: "a date as text",
    WORD: "a boolean in quotes",
    OBJECT: "an object",
    LIST: "a list",
}
FAMILY = {kind: TEXT if kind.startswith(TEXT) else kind for kind in SHOWN}
RESERVED = frozenset(
    {
        *("id", "email", "phone", "cio_id", "anonymous_id", "created_at", "createdAt", "unsubscribed"),
        *("recipient", "from_address", "reply_to"),
    }
)
"""What Customer.io gives a meaning to (reference 6.3), and reads in more than one form."""

_DIGITS = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9:.,Z+-]{4,30})?\Z")
_ID = re.compile(r"[0-9]{3}")

type Types = dict[str, tuple[str, Path]]
"""The type of each attribute, and where it is."""


def needs(call: Call, people: People) -> Iterable[Key]:
    """The types of the week before."""
    scope = _scope(call)
    return (key_of(call.workspace, scope, call.at // WEEK - 1),) if scope else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That this person has attributes of these types, if they were accepted."""
    scope, person = _scope(call), call.subject
    if not scope or person is None or outcome.kind != "accepted":
        return ()
    one = Sample(COUNTED, plain=frozenset((person,)))
    labels = {f"{name}\0{kind}": one for name, (kind, _) in _types(call).items() if kind}
    if not labels:
        return ()
    return (Fact(key_of(call.workspace, scope, call.at // WEEK), Groups(TYPES, labels), 2 * WEEK),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for each attribute of a type that few have."""
    scope = _scope(call)
    if not scope:
        return ()
    keys = [key_of(call.workspace, scope, call.at // WEEK - weeks) for weeks in (0, 1)]
    seen = [groups for key in keys if (groups := known.groups(key)) is not None]
    if not seen:
        return ()
    odd = [
        (name, kind, path)
        for name, (kind, path) in _types(call).items()
        if kind and any(label in groups.samples for groups in seen for label in rivals(name, FAMILY[kind]))
    ]
    return _odd(call, odd, seen, known) if odd else ()


@lru_cache(10_000)
def rivals(name: str, family: str) -> tuple[str, ...]:
    """What the other types of an attribute are called in a store, where nothing in its name is personal."""
    return tuple(f"{name}\0{kind}" for kind in SHOWN if FAMILY[kind] != family)


@lru_cache(10_000)
def key_of(workspace: str, scope: str, week: float) -> Key:
    """The key of the types of what is in one scope in one week."""
    return Key("attribute-types", workspace, f"{week:.0f}\0{scope}", named=True)


def _scope(call: Call) -> str:
    """What an attribute belongs to: the people of one API, or an event of one name."""
    if call.kind == "identify":
        return ("pipelines" if call.api == "pipelines" else "track") if call.attributes else ""
    return scope_of(call.name, call.api == "pipelines") if call.data and call.name else ""


@lru_cache(10_000)
def scope_of(name: str, pipelines: bool) -> str:
    """The scope of an event; none for a name that may be another one in each call."""
    name = name.strip()
    return f"{'pipelines' if pipelines else 'track'}\0{name}" if is_fixed(name) else ""


@lru_cache(10_000)
def is_fixed(name: str) -> bool:
    """Whether a name is a short text that can be shown, and holds no id and nothing personal."""
    return len(name) <= LONGEST and name.isprintable() and is_plain(name) and not _ID.search(name)


@lru_cache(10_000)
def is_judged(name: str) -> bool:
    """Whether an attribute of this name is one of the app's own, the same in every call."""
    return name not in RESERVED and not name.startswith(("_", "cio_")) and is_fixed(name)


def _types(call: Call) -> Types:
    found: Types = {}
    fields = call.attributes if call.kind == "identify" else call.data
    for name, value in fields.items():
        if len(found) >= ATTRIBUTES:
            break
        if value is not None and is_judged(name):
            _gather(value, name, (None, name), DEPTH, found)
    return found


def _gather(value: Json, name: str, path: Path, depth: int, found: Types) -> None:
    kind = _kind(value)
    if kind is None:
        return
    old = found.get(name)
    if old is None:
        found[name] = kind, path
    elif FAMILY.get(old[0]) != FAMILY[kind]:
        found[name] = MIXED, path
    if depth and len(found) < ATTRIBUTES:
        if type(value) is dict:
            for key, member in value.items():
                if is_judged(key):
                    _gather(member, f"{name}.{key}", (path, key), depth - 1, found)
        elif type(value) is list:
            for index, member in enumerate(value[:ATTRIBUTES]):
                _gather(member, f"{name}[]", (path, index), depth - 1, found)


def _kind(value: Json) -> str | None:
    """The type of a value; None for what clears."""
    kind = type(value)
    if kind is str:
        return _kind_of_text(value) if value else None  # type: ignore[arg-type]  # it is one
    if kind is int or kind is float:
        return NUMBER
    if kind is bool:
        return BOOLEAN
    if kind is dict:
        return OBJECT if value else None
    return LIST if value else None


def _kind_of_text(text: str) -> str:
    if "0" <= text[-1] <= "9" or text[-1] == "Z":
        return DIGITS if _DIGITS.match(text) else DATE if _DATE.match(text) else TEXT
    return WORD if len(text) <= 5 and text.lower() in ("true", "false") else TEXT


class _Usual(NamedTuple):
    """The people who have an attribute in one type; of the kinds of text the commonest, and how many have that."""

    kind: str
    most: float
    people: Sample


_NOBODY = _Usual("", 0, Sample(COUNTED))


def _odd(call: Call, odd: list[tuple[str, str, Path]], seen: list[Groups], known: Known) -> Iterator[Finding]:
    where = call.attributes_at if call.kind == "identify" else call.data_at
    for name, kind, path in odd:
        families = _families(name, seen)
        own = families.pop(FAMILY[kind], _NOBODY)
        usual = max(families.values(), key=lambda each: (each.people.count(), each.kind))
        others = own.people.count()
        if others < COUNTED and (call.subject is None or known.member(call.subject) not in own.people.hashes):
            others += 1
        if others < usual.people.count() and (confidence := _confidence(usual.people.count(), others, known.params)):
            yield _finding(pointer(where, *keys_of(path)), name, kind, others, usual, confidence)


def _families(name: str, seen: list[Groups]) -> dict[str, _Usual]:
    """Who has an attribute in which type, texts of all kinds together under the commonest of them."""
    found: dict[str, _Usual] = {}
    for kind, family in FAMILY.items():
        samples = [sample for groups in seen if (sample := groups.samples.get(f"{name}\0{kind}")) is not None]
        if samples:
            people = reduce(Sample.join, samples)
            old = found.get(family, _NOBODY)
            commonest = kind if people.count() > old.most else old.kind
            found[family] = _Usual(commonest, max(people.count(), old.most), people.join(old.people))
    return found


def _confidence(usual: float, others: float, params: Mapping[str, Any]) -> Confidence | None:
    if usual < params["people"]:
        return None
    if usual * 100 >= params["majority"] * (usual + others):
        return "certain"
    return "likely" if others >= params["people"] else None


def _finding(where: str, name: str, kind: str, others: float, usual: _Usual, confidence: Confidence) -> Finding:
    return RULE.finding(
        where,
        f"`{name}` is {SHOWN[kind]} here (in this type of {_people(others)}),"
        f" and {SHOWN[usual.kind]} of {_people(usual.people.count())}",
        effect="Customer.io stores both and answers 200: a condition on the one type need not match the other.",
        fix=f"Send `{name}` as {SHOWN[FAMILY[usual.kind]]} everywhere.",
        name=name,
        confidence=confidence,
    )


def _people(count: float) -> str:
    return f"about {count:.0f} people" if count >= COUNTED else f"{count:.0f} people" if count > 1 else "one person"
