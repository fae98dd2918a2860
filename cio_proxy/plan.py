"""Tracking plans: read and written as YAML and as JSON Schema, and learned from what the proxy remembers.

    events:
      order_placed:
        attributes:
          total: number                          # a type, or a list of types; nothing for any
          coupon: {type: [string, number]}
          order_id: {type: string, required: true}
        others: true                             # more attributes than these may be sent
      signed_out:
    others: false                                # whether there may be more events
    person:
      attributes: {plan: string}

A part that is left out, `events` or `person`, is not planned, and anything goes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import yaml

from cio_proxy.facts import Store
from cio_proxy.masking import masked, named
from cio_proxy.model import (
    JSON_TYPES,
    TYPES,
    Fields,
    Groups,
    JsonType,
    Planned,
    Sample,
    TrackingPlan,
)
from cio_proxy.recognise import template

LONGEST: Final = 150
"""Characters of the longest name in a plan; Customer.io documents 100 bytes (reference 6.2)."""
ENOUGH: Final = 5
"""People of an event up from which an attribute that all of them sent is learned as required."""
ANNOTATIONS: Final = frozenset({"$schema", "$id", "$comment", "$defs", "title", "description", "examples", "default"})
"""Keywords of JSON Schema that demand nothing."""
REFERENCES: Final = 20
"""How many references in a row are followed."""
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
NO_NAME: Final = f"not a name: it has 1 to {LONGEST} characters of Unicode"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[ ./-][A-Za-z0-9_]+)*\Z")
"""What a name has become in the store in which something is personal."""
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


class PlanError(Exception):
    """One line for each mistake: where it is, what is wrong, what to do."""


# --- from YAML ---------------------------------------------------------------------------------


def read(path: Path) -> TrackingPlan:
    """The plan of a file. Raises PlanError with every mistake in it."""
    reading = _Reading(str(path))
    return reading.done(reading.composed(_text(path)))


def of(value: object) -> TrackingPlan:
    """A plan that is given as what YAML is made of. Raises PlanError."""
    reading = _Reading("")
    return reading.done(yaml.representer.SafeRepresenter().represent_data(value))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "cannot be read").lower()
        raise PlanError(f"{path}: {reason}; name a readable file") from None


class _Reading:
    """Reads one plan, and collects its mistakes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._mistakes: list[tuple[int, int, str]] = []
        """Each with its line and column, from 0."""

    def composed(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
            self._wrong(getattr(error, "problem_mark", None), f"not YAML: {named(str(reason))}")
        except RecursionError:
            self._wrong(None, "nested too deeply; no plan is deeper than five levels")
        return None

    def done(self, root: yaml.Node | None) -> TrackingPlan:
        """The plan below a node. Raises PlanError."""
        plan = TrackingPlan(source=self._file)
        if root is not None or not self._mistakes:
            parts = self._parts(root, "the plan", ("events", "others", "person"))
            if not {"events", "person"} & parts.keys() and not self._mistakes:
                self._wrong(root, "neither `events` nor `person` stands here: nothing is planned")
            events = self._events(parts["events"]) if "events" in parts else None
            person = self._fields(parts["person"], "person", people=True) if "person" in parts else None
            others = self._flag(parts.get("others"), "others")
            plan = TrackingPlan(events=events, others=others, person=person, source=self._file)
        if self._mistakes:
            raise PlanError("\n".join(message for _, _, message in sorted(self._mistakes)))
        return plan

    def _events(self, node: yaml.Node) -> dict[str, Fields]:
        return {name: self._fields(below, name) for name, below in self._entries(node, "events").items()}

    def _fields(self, node: yaml.Node, of: str, people: bool = False) -> Fields:
        parts = self._parts(node, named(of), ("attributes", "others"))
        attributes = self._entries(parts["attributes"], "attributes") if "attributes" in parts else {}
        planned = {name: self._attribute(below, people) for name, below in attributes.items()}
        return Fields(planned, self._flag(parts.get("others"), "others"))

    def _attribute(self, node: yaml.Node, people: bool) -> Planned:
        if not isinstance(node, yaml.MappingNode):
            return Planned(self._types(node))
        parts = self._parts(node, "the attribute", ("type", "required"))
        if people and "required" in parts:
            self._wrong(parts["required"], "an identify may bring only some attributes: `required` is for events")
        types = self._types(parts["type"]) if "type" in parts else ()
        return Planned(types, self._flag(parts.get("required"), "required"))

    def _types(self, node: yaml.Node) -> tuple[JsonType, ...]:
        if _is_null(node):
            return ()
        found: list[str] = []
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            word = each.value if isinstance(each, yaml.ScalarNode) else None
            if word in (*JSON_TYPES, "any"):
                found.append(str(word))
            else:
                near = difflib.get_close_matches(word, JSON_TYPES, 1) if isinstance(word, str) else []
                hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(JSON_TYPES)}, any"
                self._wrong(each, f"not a type; {hint}")
        return () if "any" in found else types_of(found)

    def _flag(self, node: yaml.Node | None, key: str) -> bool:
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("true", "false")):
            return node is not None and node.value == "true"
        self._wrong(node, f"{key}: write true or false")
        return False

    def _parts(self, node: yaml.Node | None, of: str, keys: Sequence[str]) -> dict[str, yaml.Node]:
        """What stands under each key of a section; nothing counts as an empty one."""
        parts: dict[str, yaml.Node] = {}
        for key, below, name in self._pairs(node, of):
            if name not in keys:
                near = difflib.get_close_matches(name, keys, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(keys)}"
                self._wrong(key, f"unknown key '{named(name)}' in {of}; {hint}")
            elif name in parts:
                self._wrong(key, f"the key '{name}' stands here twice; keep one")
            elif not (_is_null(below) and name in ("others", "type", "required", "attributes")):
                parts[name] = below
        return parts

    def _entries(self, node: yaml.Node, of: str) -> dict[str, yaml.Node]:
        """What stands under each name."""
        entries: dict[str, yaml.Node] = {}
        for key, below, name in self._pairs(node, of):
            if name in entries:
                self._wrong(key, f"the name '{named(name)}' stands here twice; keep one")
            elif not _is_name(name):
                self._wrong(key, NO_NAME)
            else:
                entries[name] = below
        return entries

    def _pairs(self, node: yaml.Node | None, of: str) -> Iterator[tuple[yaml.Node, yaml.Node, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, below in node.value:
                if isinstance(key, yaml.ScalarNode):
                    yield key, below, str(key.value)
                else:
                    self._wrong(key, "not a key; write `key: value` lines")
        elif node is not None and not _is_null(node):
            self._wrong(node, f"{of}: a section; write `key: value` lines below it")

    def _wrong(self, at: yaml.Node | yaml.Mark | None, message: str) -> None:
        mark = at.start_mark if isinstance(at, yaml.Node) else at
        line, column = (0, 0) if mark is None else (mark.line, mark.column)
        place = ":".join([self._file] if mark is None else [self._file, str(line + 1), str(column + 1)])
        self._mistakes.append((line, column, f"{place}: {message}" if self._file else message))


def _is_name(name: str) -> bool:
    """Whether a plan can have it, which is a text file."""
    return 0 < len(name) <= LONGEST and not name.isspace() and not any("\ud800" <= char <= "\udfff" for char in name)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def types_of(found: Iterable[str]) -> tuple[JsonType, ...]:
    """Types in their order, each once: a number may be whole, and all together are any."""
    types = tuple(each for each in JSON_TYPES if each in {*found})
    if "number" in types:
        types = tuple(each for each in types if each != "integer")
    return () if len(types) == len(JSON_TYPES) - 1 and "number" in types else types


# --- to YAML -----------------------------------------------------------------------------------


def written(plan: TrackingPlan, about: Sequence[str] = (), notes: Mapping[str, str] | None = None) -> str:
    """A plan as a file that gives the same, with comments on top and beside the names of events."""
    lines = [f"# {line}".rstrip() for line in about]
    if plan.events is not None:
        lines.append("events:" if plan.events else "events: {}")
        for name, fields in plan.events.items():
            note = f"  # {notes[name]}" if notes and name in notes else ""
            lines += [f"  {_scalar(name)}:{note}", *_fields(fields, "    ")]
    if plan.others:
        lines.append("others: true")
    if plan.person is not None:
        below = _fields(plan.person, "  ")
        lines += ["person:" if below else "person: {}", *below]
    return "\n".join(lines) + "\n"


def tree(plan: TrackingPlan) -> object:
    """A plan as what YAML is made of."""
    return yaml.safe_load(written(plan))


def _fields(fields: Fields, indent: str) -> Iterator[str]:
    if fields.attributes:
        yield f"{indent}attributes:"
    for name, planned in fields.attributes.items():
        types = f"[{', '.join(planned.types)}]" if len(planned.types) > 1 else "".join(planned.types)
        value = f"{{type: {types or 'any'}, required: true}}" if planned.required else types or "any"
        yield f"{indent}  {_scalar(name)}: {value}"
    if fields.others:
        yield f"{indent}others: true"


def _scalar(name: str) -> str:
    if _PLAIN.match(name) and name.lower() not in _WORDS:
        return name
    quoted: str = yaml.safe_dump(name, default_style='"', allow_unicode=True, width=10 * LONGEST)
    return quoted.rstrip("\n")


# --- JSON Schema -------------------------------------------------------------------------------


def schema(plan: TrackingPlan) -> dict[str, Any]:
    """A plan as a JSON Schema (draft 2020-12) of an object of events by their names, and of a person's attributes."""
    parts: dict[str, Any] = {}
    if plan.events is not None:
        events = {name: _schema_of(fields) for name, fields in plan.events.items()}
        parts["events"] = {"type": "object", "properties": events, "additionalProperties": plan.others}
    if plan.person is not None:
        parts["person"] = _schema_of(plan.person)
    return {"$schema": DRAFT, "title": "Tracking plan", "type": "object", "properties": parts}


def _schema_of(fields: Fields) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema_of_attribute(planned) for name, planned in fields.attributes.items()},
        "additionalProperties": fields.others,
    }
    required = [name for name, planned in fields.attributes.items() if planned.required]
    return {**made, "required": required} if required else made


def _schema_of_attribute(planned: Planned) -> dict[str, Any]:
    if planned.required:
        types = planned.types or tuple(each for each in JSON_TYPES if each != "integer")
        return {"type": types[0] if len(types) == 1 else list(types)}
    return {"type": [*planned.types, "null"]} if planned.types else {}


class Imported(NamedTuple):
    """A plan, and the keywords of its schema that no plan has."""

    plan: TrackingPlan
    left_out: tuple[str, ...]


def from_schema(document: object) -> Imported:
    """The plan of a JSON Schema: one that `schema` wrote, or an object of events by name, in `properties` or `$defs`.

    Raises PlanError.
    """
    return _Schema(document).plan()


class _Schema:
    """Reads one JSON Schema, and collects the keywords that a plan does not have."""

    def __init__(self, document: object) -> None:
        self._document = document
        self._left_out: set[str] = set()

    def plan(self) -> Imported:
        root = self._resolved(self._document)
        properties = root.get("properties")
        events: Mapping[str, Any] | None
        if isinstance(properties, dict) and properties and properties.keys() <= {"events", "person"}:
            events = self._resolved(properties["events"]) if "events" in properties else None
            person = self._fields(properties["person"], people=True) if "person" in properties else None
        else:
            events, person = root if properties else {"properties": root.get("$defs")}, None
        if events is None:
            return Imported(TrackingPlan(person=person), tuple(sorted(self._left_out)))
        schemas = events.get("properties")
        if not isinstance(schemas, dict):
            raise PlanError("no events are in it: neither `properties` nor `$defs` holds schemas by name")
        planned = {self._name(name): self._fields(each) for name, each in schemas.items()}
        plan = TrackingPlan(events=planned, others=events.get("additionalProperties") is True, person=person)
        return Imported(plan, tuple(sorted(self._left_out)))

    def _fields(self, value: object, people: bool = False) -> Fields:
        schema = self._resolved(value)
        self._pass_over(schema, "type", "properties", "required", "additionalProperties")
        required, attributes = schema.get("required"), schema.get("properties")
        planned: dict[str, Planned] = {}
        for name, each in attributes.items() if isinstance(attributes, dict) else ():
            types, nothing = self._types(each)
            is_required = isinstance(required, list) and name in required and not nothing
            if is_required and people:
                self._left_out.add("required (of people)")
            planned[self._name(name)] = Planned(types, is_required and not people)
        for name in required if isinstance(required, list) and not people else ():
            if isinstance(name, str) and name not in planned:
                planned[self._name(name)] = Planned()
        others = schema.get("additionalProperties", True)
        if isinstance(others, dict) and others:
            self._left_out.add("additionalProperties")
        return Fields(planned, others is not False)

    def _types(self, value: object) -> tuple[tuple[JsonType, ...], bool]:
        """The types of an attribute, and whether it may be null."""
        schema = self._resolved(value)
        self._pass_over(schema, "type")
        said = schema.get("type", [])
        words = {word for word in (said if isinstance(said, list) else [said]) if isinstance(word, str)}
        if not words <= {*JSON_TYPES, "null"}:
            self._left_out.add("type")
        return types_of(words), not words or "null" in words

    def _pass_over(self, schema: Mapping[str, Any], *known: str) -> None:
        self._left_out |= schema.keys() - {*known, *ANNOTATIONS}

    def _resolved(self, value: object) -> Mapping[str, Any]:
        """A schema, or the one of this document that it refers to; what is none says nothing."""
        for _ in range(REFERENCES):
            if not isinstance(value, dict) or "$ref" not in value:
                return value if isinstance(value, dict) else {}
            value = self._at(value["$ref"])
        self._left_out.add("$ref")
        return {}

    def _at(self, reference: object) -> object:
        at: object = self._document
        if not isinstance(reference, str) or not reference.startswith("#"):
            self._left_out.add("$ref")
            return {}
        for part in unquote(reference[1:]).split("/")[1:]:
            at = at.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(at, dict) else {}
        return at

    def _name(self, name: str) -> str:
        if not _is_name(name):
            raise PlanError(NO_NAME)
        return name


# --- what the store knows ----------------------------------------------------------------------


class Learned(NamedTuple):
    """What was sent, as far as the store remembers it: for each attribute, who sent which type."""

    events: Mapping[str, Mapping[str, Groups]]
    """By the event and the attribute; "" is the event itself."""
    person: Mapping[str, Groups]
    workspaces: tuple[str, ...]


async def learned(store: Store, now: float, workspace: str | None = None) -> Learned:
    """What the store knows of the names and types of one workspace, or of all together."""
    events: dict[str, dict[str, Groups]] = {}
    person: dict[str, Groups] = {}
    workspaces: set[str] = set()
    async for key, kept in store.scan(TYPES):
        if workspace not in (None, key.workspace) or kept.expiry <= now or not isinstance(kept.value, Groups):
            continue
        workspaces.add(key.workspace)
        _, *names = key.subject.split("\0")  # the week
        event = names[1] if len(names) > 1 else None
        if not names or _is_left_out(event or ""):
            continue
        found = person if event is None else events.setdefault(event, {})
        for label, sample in kept.value.samples.items():
            attribute, nul, kind = label.rpartition("\0")
            if nul and not _is_left_out(attribute) and not _within(attribute, kept.value):
                types = Groups(len(JSON_TYPES) + 1, {kind: sample})
                found[attribute] = found[attribute].join(types) if attribute in found else types
    return Learned(events, person, tuple(sorted(workspaces)))


def _is_left_out(name: str) -> bool:
    """Whether a name holds a value or something personal. An older version may have kept such names."""
    return bool(name) and (not _is_name(name) or masked(name) != name or template(name) != name)


def _within(attribute: str, types: Groups) -> bool:
    """Whether an attribute stands in an object or a list, such as `address.zip` or `items[].price`."""
    outer = [attribute[: match.start()] for match in re.finditer(r"\.|\[\]", attribute)]
    return any(f"{name}\0{kind}" in types.samples for name in outer for kind in ("object", "array"))


def plan_of(learned: Learned, enough: int = ENOUGH) -> TrackingPlan:
    """The plan that fits all that was sent. What all of at least `enough` people sent with an event is required."""
    events = {
        event: Fields(
            {
                name: Planned(_types_of(types), everybody(types, attributes.get(""), enough))
                for name, types in sorted(attributes.items())
                if name
            }
        )
        for event, attributes in sorted(learned.events.items())
    }
    person = {name: Planned(_types_of(types)) for name, types in sorted(learned.person.items())}
    return TrackingPlan(events=events, person=Fields(person))


def about(learned: Learned, enough: int = ENOUGH) -> Iterator[str]:
    """The comment of a learned plan: what it comes from, and what it does not hold."""
    attributes = sum(len(each.keys() - {""}) for each in learned.events.values())
    yield "Tracking plan: what was sent, which need not be what should be. Nothing is judged by it before you have read"
    yield "it, mended it, and named this file under `plan:` in the configuration."
    yield ""
    yield (
        f"Learned from {_many(len(learned.events), 'event')} with {_many(attributes, 'attribute')}, and "
        f"{_many(len(learned.person), 'attribute')} of people, in {_many(len(learned.workspaces), 'workspace')}."
    )
    yield "Names that hold a value or something personal are never learned."
    yield f"`required` is what each of at least {enough} people sent once or more; it may still be missing at times."


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def notes(learned: Learned) -> Mapping[str, str]:
    """How many people sent each event, for a reader."""
    return {event: f"{_people(attributes):,.0f} people" for event, attributes in learned.events.items()}


def everybody(types: Groups, event: Groups | None, enough: int) -> bool:
    """Whether everybody who sent an event sent an attribute, and these are enough people to tell."""
    senders, having = _all(event), _all(types)
    if senders is None or having is None or senders.count() < enough:
        return False
    return not having.lacks(senders)


def differences(plan: TrackingPlan, learned: Learned) -> Iterator[tuple[bool, str]]:
    """What was sent beside the plan (True), and what of the plan was never sent (False), line by line."""
    for event, attributes in sorted(learned.events.items()):
        if plan.events is None:
            break
        fields = plan.events.get(event)
        people = f"{_people(attributes):,.0f} people sent it"
        if fields is None:
            if not plan.others:
                yield True, f"{named(event)}: not in the plan; {people}"
            continue
        sent = {name: types for name, types in attributes.items() if name}
        yield from _beside(f"{named(event)}.", fields, sent)
        for name, planned in fields.attributes.items():
            if planned.required and not (name in sent and everybody(sent[name], attributes.get(""), 0)):
                yield True, f"{named(event)}.{named(name)}: required, and not everybody sent it"
    if plan.person is not None:
        yield from _beside("person.", plan.person, learned.person)
    for event in plan.events or ():
        if event not in learned.events:
            yield False, f"{named(event)}: in the plan, and never sent so far"


def _beside(of: str, fields: Fields, sent: Mapping[str, Groups]) -> Iterator[tuple[bool, str]]:
    for name, types in sorted(sent.items()):
        planned = fields.attributes.get(name)
        if planned is None:
            if not fields.others:
                yield True, f"{of}{named(name)}: not in the plan"
        elif planned.types and (odd := [each for each in _types_of(types) if each not in _taken(planned)]):
            yield True, f"{of}{named(name)}: {' or '.join(planned.types)} in the plan, and {' and '.join(odd)} was sent"


def _taken(planned: Planned) -> set[str]:
    return {*planned.types, *(("number", "integer") if {"number", "integer"} & {*planned.types} else ())}


def _types_of(groups: Groups) -> tuple[JsonType, ...]:
    return types_of(groups.samples)


def _people(attributes: Mapping[str, Groups]) -> float:
    """How many people sent an event, as far as is known."""
    return max((all.count() for each in attributes.values() if (all := _all(each)) is not None), default=0)


def _all(groups: Groups | None) -> Sample | None:
    """The members under all labels."""
    samples = () if groups is None else tuple(groups.samples.values())
    return reduce(Sample.join, samples) if samples else None
