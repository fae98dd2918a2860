"""What Customer.io stores of what it is sent, and what it loses after a 200.

Each operation changes the workspace and returns notes: plain sentences that say what happened and name
their source. No note quotes a value. One sandbox is one workspace, whatever keys it is sent.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from cio_proxy.model import PREFERENCES, Json
from cio_proxy.sandbox import moments, wire
from cio_proxy.sandbox.moments import DAY, TRIGGER_WINDOW
from cio_proxy.sandbox.people import BAD_EMAIL, Delivery, Event, Person, Ref, Ring, Value

type Notes = list[str]

# The sandbox's own limits: it runs for days in a demo and must not grow.
MAX_PEOPLE, MAX_PEOPLE_BYTES = 10_000, 128 * 2**20
MAX_EVENTS, MAX_EVENT_BYTES = 10_000, 64 * 2**20
MAX_DELIVERIES, MAX_DELIVERY_BYTES = 10_000, 64 * 2**20
MAX_REMEMBERED = 50_000
MAX_OBJECTS = 1_000

MERGE_BACK, MERGE_AHEAD = 30 * DAY, 300.0
"""Anonymous events attach 30 days back [spec: Track, trackAnonymous] and 5 minutes ahead [docs: Anonymous events]."""

SUPPRESSED = "The person is suppressed: answered 200 and ignored [spec: Track, suppress]."
UNKNOWN_CIO_ID = "No person has this cio_id: answered 200 and dropped (reference 2.1)."
UPDATE_ONLY = "`_update` is true and the person is unknown: answered 200 and dropped [spec: Track, identify]."
TWO_PEOPLE = (
    "Path and body name two people: answered 200, but the update failed "
    '("Attribute Update Failure" in the activity log) [spec: Track, identify].'
)
ID_REPLACED = (
    "The email belonged to a person with another id: that person was updated and got the id of the path [spec: Track]."
)
FIXED = (
    "{} was set before and is not changed: that takes `cio_…` as identifier, or a workspace setting (reference 2.1)."
)
BARE = "The event named an unknown person: answered 200, and kept on a bare profile without attributes (unverified)."
BARE_CREATED = "An update named an unknown person and created a bare profile [spec: Track, delete]."
OLD = "The timestamp is not within the past 72 hours: stored, but triggers no campaign [spec: Track]."
WRONG_UNIT = (
    "The timestamp is in {}: read as seconds it is the year {}, so the event triggers no campaign in time (unverified)."
)
NO_MOMENT = "The timestamp is not a number of Unix seconds: the time of receipt is stored (unverified)."
REPEATED = "An event with this id was received before: answered 200 and ignored [spec: Track] [spec: Pipelines]."
NO_ULID = "The event id is not a ULID, so it does not keep a repetition out (unverified)."
TRIMMED = "Spaces around the event name were trimmed [spec: Track]."
REDIRECTED = "`recipient` in the data: mail that this event triggers goes there and not to the person [spec: Track]."
WAITING = "Anonymous: triggers nothing until it is merged with a person within 72 hours [docs: Anonymous events]."
INVITE = "No anonymous_id: an invite event, mailed to `recipient` and never merged [customerio-node 5.2.0]."
LATE = "Sent over 5 minutes after the identify with this anonymous_id: not merged [docs: Anonymous events]."
MERGED = "Merged with the person identified by this anonymous_id [spec: Track, trackAnonymous]."
MERGED_LATE = "Merged more than 72 hours after its timestamp: triggers no campaign [docs: Anonymous events]."
REUSED = "The anonymous_id belongs to another person and is not reusable [spec: Track]: not linked (unverified)."
NOTHING_TO_MERGE = "The primary person does not exist: answered 200, and nothing happened [spec: Track, merge]."
NO_SECONDARY = "The secondary person does not exist: answered 200, and nothing happened (unverified)."
CARRIED = "Merged from another person: copied, and can trigger no campaign [spec: Track, merge]."
STALE = "{} has a newer value by its `_timestamp`: the older one is not stored [spec: Track, identify]."
UNORDERED = "The time of the change was sent in {}: taken as the time of receipt (unverified)."
READ_ONLY = "`cio_id` is read-only: ignored [docs: Reserved attributes]."
NO_STRING_EMAIL = "The email is not a string: not stored (unverified)."
LONG_ID = (
    "The id is over 150 characters, the documented limit; it is stored here (unverified) [docs: Reserved attributes]."
)

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z", re.IGNORECASE)
_IDENTITY = ("id", "email", "cio_id", "anonymous_id", "_update", "_timestamp", "cio_relationships")
_TOPIC = PREFERENCES + ".topics."


class Workspace:
    """One workspace: people and what happened to them. Time comes from `clock`, in Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.people: dict[str, Person] = {}
        self.events: Ring[Event] = Ring(MAX_EVENTS, MAX_EVENT_BYTES)
        self.deliveries: Ring[Delivery] = Ring(MAX_DELIVERIES, MAX_DELIVERY_BYTES)
        self.objects: dict[str, Json] = {}
        self.triggers = 0
        self.blocked_mail: OrderedDict[str, None] = OrderedDict()
        self._known: dict[Ref, Person] = {}
        self._suppressed: OrderedDict[Ref, None] = OrderedDict()
        self._event_ids: OrderedDict[str, None] = OrderedDict()
        self._people_made = 0
        self._weight = 0

    # People

    def find(self, ref: Ref | None) -> Person | None:
        """The person with this identifier."""
        return None if ref is None else self._known.get(ref.key)

    def suppressed(self, *refs: Ref) -> bool:
        """Whether any of these identifiers is suppressed."""
        return any(ref.key in self._suppressed for ref in refs)

    def identify(
        self, ref: Ref, body: Mapping[str, Json], *, at: Json = None, sent: Mapping[str, Json] | None = None
    ) -> Notes:
        """Update a person or create one [spec: Track, identify].

        `at` is when the change happened, for Track v2; v1 says `_timestamp`. `sent` gives the original of
        attributes that were converted on the way.
        """
        named = [Ref(kind, value) for kind in ("id", "email") if isinstance(value := body.get(kind), str) and value]
        if self.suppressed(ref, *named):
            return [SUPPRESSED]
        person, notes = self._person_for(ref, named)
        if person is None and not notes:
            if body.get("_update") is True:
                return [UPDATE_ONLY]
            person = self._create(ref)
        if person is None:
            return notes
        for kind in ("id", "email"):
            if kind in body:
                notes += self._name(person, kind, body[kind], free=ref.kind == "cio_id")
        if "cio_id" in body:
            notes.append(READ_ONLY)
        changed = moments.number(body.get("_timestamp", at))
        if unit := moments.wrong_unit(changed):
            notes.append(UNORDERED.format(unit))
            changed = None
        notes += self._set_attributes(person, body, sent or {}, changed)
        if isinstance(anonymous := body.get("anonymous_id"), str) and anonymous:
            notes += self._link(person, anonymous)
        person.note(note for note in notes if note in (ID_REPLACED, REUSED))
        self.relate(person, body.get("cio_relationships"))
        return notes

    def _person_for(self, ref: Ref, named: Iterable[Ref]) -> tuple[Person | None, Notes]:
        """Whom an identify means; nobody without a note means a new person, nobody with one that it is lost."""
        person = self.find(ref)
        if ref.kind == "cio_id" and person is None:
            return None, [UNKNOWN_CIO_ID]
        others = {other.cio_id: other for name in named if (other := self.find(name)) and other is not person}
        if person is not None and not others:
            return person, []
        if person is None and not others:
            return None, []
        other = next(iter(others.values()))
        if person is not None or len(others) > 1:
            for one in (person, *others.values()):
                if one is not None:
                    one.note([TWO_PEOPLE])
            return None, [TWO_PEOPLE]
        before = other.refs.get(ref.kind)
        if before is None:
            self._set_ref(other, ref)
            return other, []
        # A body that names them by another id than the path: the update is kept here (unverified).
        if ref.kind == "id" and not any(name.kind == "id" and self.find(name) is other for name in named):
            self._set_ref(other, ref)
            return other, [ID_REPLACED]
        return other, [FIXED.format(ref.kind)]

    def _name(self, person: Person, kind: str, value: Json, *, free: bool) -> Notes:
        """Set the id or email of a body: once, or freely where the path says `cio_…`."""
        if not isinstance(value, str):
            return [NO_STRING_EMAIL] if kind == "email" and value is not None else []
        if not value:
            return []
        ref, before = Ref(kind, value), person.refs.get(kind)
        notes = [BAD_EMAIL] if kind == "email" and "@" not in value else []
        if before is not None and Ref(kind, before).key != ref.key and not free:
            person.attributes[kind] = Value(value, before, self.clock(), [FIXED.format(kind)])
            return [*notes, FIXED.format(kind)]
        self._set_ref(person, ref)
        person.attributes.pop(kind, None)
        return notes

    def _set_attributes(
        self, person: Person, body: Mapping[str, Json], sent: Mapping[str, Json], changed: float | None
    ) -> Notes:
        """Store attributes; only a change that names its time can be older than what is stored."""
        notes: Notes = []
        at = self.clock() if changed is None else changed
        for name, value in body.items():
            if name in _IDENTITY:
                continue
            key = PREFERENCES if name.startswith(_TOPIC) else name
            known = person.attributes.get(key)
            if known is not None and changed is not None and known.at > at:
                notes.append(STALE.format(key))
            elif value is None or value == "":  # clears an attribute (unverified for v1, reference 2.1)
                person.attributes.pop(key, None)
            else:
                note = moments.attribute_note(name, value)
                notes += [note] if note else []
                person.attributes[key] = Value(
                    sent.get(name, value), _stored(name, value, known), at, [note] if note else []
                )
        return notes

    def touch(self, ref: Ref) -> tuple[Person | None, Notes]:
        """The person that an update names, created bare if unknown; None if suppressed or an unknown cio_id."""
        if self.suppressed(ref):
            return None, [SUPPRESSED]
        if (person := self.find(ref)) is not None:
            return person, []
        if ref.kind == "cio_id":
            return None, [UNKNOWN_CIO_ID]
        return self._create(ref), [BARE_CREATED]

    def delete(self, ref: Ref) -> Notes:
        """Remove a person; later calls can create them again [spec: Track, delete]."""
        if person := self.find(ref):
            self._remove(person)
        return []

    def suppress(self, ref: Ref) -> Notes:
        """Delete a person with their history, and block id and email for good [spec: Track, suppress]."""
        refs = [ref]
        if person := self.find(ref):
            refs += [Ref(kind, value) for kind, value in person.refs.items()]
            self._remove(person)
            self.events.keep(lambda event: event.person != person.cio_id)
        for one in refs:
            _remember(self._suppressed, one.key)
        return ["The profile is deleted for good, and its identifiers are blocked [spec: Track, suppress]."]

    def unsuppress(self, ref: Ref) -> Notes:
        """Free an identifier; the history stays lost [spec: Track, unsuppress]. Only the named one (unverified)."""
        self._suppressed.pop(ref.key, None)
        return []

    def merge(self, primary: Ref | None, secondary: Ref | None) -> Notes:
        """Move what the secondary person has to the primary, who must exist [spec: Track, merge]."""
        kept, gone = self.find(primary), self.find(secondary)
        if kept is None:
            return [NOTHING_TO_MERGE]
        if gone is None or gone is kept:
            return [NO_SECONDARY]
        self._remove(gone)
        for kind, value in gone.refs.items():
            if kind not in kept.refs:
                self._set_ref(kept, Ref(kind, value))
        kept.attributes = gone.attributes | kept.attributes
        kept.devices = gone.devices | kept.devices
        kept.relationships = gone.relationships | kept.relationships
        kept.segments |= gone.segments
        for anonymous_id, at in gone.anonymous.items():
            self._own(kept, anonymous_id, at)
        for event in self.events:
            if event.person == gone.cio_id and event.received >= self.clock() - MERGE_BACK:
                event.person, event.triggers = kept.cio_id, False
                event.notes.append(CARRIED)
        for delivery in self.deliveries:
            if delivery.person == gone.cio_id:
                delivery.person = kept.cio_id
        self._weigh(kept)
        return []

    def add_device(self, ref: Ref, token: str, device: Mapping[str, Json]) -> Notes:
        """Add or update a device [spec: Track]; an update by id "can also create a customer" [spec: Track, delete]."""
        person, notes = self.touch(ref)
        if person is not None:
            note = moments.attribute_note("last_used", device.get("last_used"))
            person.devices[token] = Value({**device}, {**device}, self.clock(), [note] if note else [])
            notes += person.devices[token].notes
            self._weigh(person)
        return notes

    def delete_device(self, ref: Ref, token: str) -> Notes:
        """Remove a device from a person."""
        if person := self.find(ref):
            person.devices.pop(token, None)
        return []

    def segment(self, number: str, refs: Iterable[Ref], *, add: bool) -> Notes:
        """Change a manual segment; what names nobody is ignored silently [spec: Track]."""
        unknown = total = 0
        for ref in refs:
            total += 1
            if (person := self.find(ref)) is None:
                unknown += 1
            elif add:
                person.segments.add(number)
            else:
                person.segments.discard(number)
        return [f"{unknown} of {total} ids name nobody: ignored silently [spec: Track]."] if unknown else []

    def relate(self, person: Person, links: Json, *, add: bool = True) -> None:
        """Link a person to objects, or undo it; v1 sends an object with an action, v2 an array (reference 2.1)."""
        if isinstance(links, dict):
            add = links.get("action") != "delete_relationships"
            links = links.get("relationships")
        for link in links if isinstance(links, list) else []:
            key = object_key(link.get("identifiers")) if isinstance(link, dict) else ""
            if key and add:
                person.relationships[key] = link
            elif key:
                person.relationships.pop(key, None)
        self._weigh(person)

    def keep_object(self, identifiers: Json, body: Json) -> Notes:
        """Store an object, the newest 1,000 of them."""
        self.objects[object_key(identifiers)] = body
        while len(self.objects) > MAX_OBJECTS:
            del self.objects[next(iter(self.objects))]
        return []

    # Events

    def event(
        self,
        ref: Ref | None,
        name: str,
        content: Json,
        *,
        sent: Json,
        kind: str = "event",
        anonymous_id: str | None = None,
        timestamp: Json = None,
        event_id: Json = None,
        message_id: Json = None,
    ) -> Notes:
        """Store an event of a person, or where `ref` is None an anonymous one (reference 2.2, 2.3).

        A repeated `event_id` of Track, if it is a ULID, is ignored; so is a repeated `message_id` of Pipelines.
        """
        if ref is not None and self.suppressed(ref):
            return [SUPPRESSED]
        person = self.find(ref)
        if ref is not None and person is None and ref.kind == "cio_id":
            return [UNKNOWN_CIO_ID]
        notes: Notes = []
        if event_id is not None and not (isinstance(event_id, str) and _ULID.match(event_id)):
            notes.append(NO_ULID)
            event_id = None
        if isinstance(unique := event_id or message_id, str) and unique:
            if unique in self._event_ids:
                return [REPEATED]
            _remember(self._event_ids, unique)
        now = self.clock()
        content = content if isinstance(content, dict) else {}
        moment = moments.number(timestamp)
        event = Event(
            kind, name.strip(), now, now if moment is None else moment, sent, content, anonymous_id=anonymous_id
        )
        if event.name != name:
            notes.append(TRIMMED)
        if timestamp is not None and moment is None:
            notes.append(NO_MOMENT)
        elif not _in_time(event, now):
            unit = moments.wrong_unit(event.at)
            notes.append(WRONG_UNIT.format(unit, moments.year_of(event.at)) if unit else OLD)
            event.triggers = False
        if content.get("recipient"):
            notes.append(REDIRECTED)
        if ref is None:
            notes += self._place(event, anonymous_id) if kind != "object" else []
        else:
            if person is None:
                person = self._create(ref)
                person.note([BARE])
                notes.append(BARE)
            event.person = person.cio_id
        event.notes = [*notes]
        self.events.add(event, wire.size(sent) + 200)
        return notes

    def _place(self, event: Event, anonymous_id: str | None) -> Notes:
        """Attach an anonymous event to the person identified by its anonymous id in the last five minutes."""
        if anonymous_id is None:
            return [INVITE]
        owner = self._owner(anonymous_id)
        if owner is not None and event.received - owner.anonymous[anonymous_id] <= MERGE_AHEAD:
            event.person = owner.cio_id
            return [MERGED]
        event.triggers = False
        return [WAITING if owner is None else LATE]

    def _link(self, person: Person, anonymous_id: str) -> Notes:
        """Join a person and an anonymous id: events of the last 30 days become theirs."""
        owner = self._owner(anonymous_id)
        if owner is not None and owner is not person:
            return [REUSED]
        now = self.clock()
        self._own(person, anonymous_id, now)
        self.forget_anonymous()
        for event in self.events:
            if event.person is None and event.anonymous_id == anonymous_id:
                in_time = _in_time(event, now)
                event.person, event.triggers = person.cio_id, in_time
                event.notes = [note for note in event.notes if note not in (WAITING, LATE)]
                event.notes.append(MERGED if in_time else MERGED_LATE)
        return []

    def forget_anonymous(self) -> None:
        """Delete anonymous events that were not merged for 30 days [docs: Anonymous activity]."""
        oldest = self.clock() - MERGE_BACK
        if any(event.person is None and event.received < oldest for event in self.events):
            self.events.keep(lambda event: event.person is not None or event.received >= oldest)

    # Deliveries

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery with this id."""
        return next((delivery for delivery in self.deliveries if delivery.delivery_id == delivery_id), None)

    def block_mail(self, address: str, *, block: bool) -> None:
        """Suppress an address at the mail provider, or free it [docs: ESP Suppression]."""
        self.blocked_mail.pop(address.casefold(), None)
        if block:
            _remember(self.blocked_mail, address.casefold())

    # Keeping

    def _create(self, ref: Ref) -> Person:
        self._people_made += 1
        person = Person(f"d9c106{self._people_made:06x}")
        self.people[person.cio_id] = person
        self._known[Ref("cio_id", person.cio_id)] = person
        self._set_ref(person, ref)
        if ref.kind == "id" and len(ref.value) > 150:
            person.note([LONG_ID])
        self._weigh(person)
        return person

    def _set_ref(self, person: Person, ref: Ref) -> None:
        if (before := person.refs.get(ref.kind)) is not None:
            self._known.pop(Ref(ref.kind, before).key, None)
        person.refs[ref.kind] = ref.value
        self._known[ref.key] = person

    def _owner(self, anonymous_id: str) -> Person | None:
        return self._known.get(Ref("anonymous", anonymous_id))

    def _own(self, person: Person, anonymous_id: str, at: float) -> None:
        person.anonymous[anonymous_id] = at
        self._known[Ref("anonymous", anonymous_id)] = person

    def _remove(self, person: Person) -> None:
        del self.people[person.cio_id]
        self._weight -= person.weight
        for ref in (Ref("cio_id", person.cio_id), *(Ref(kind, value) for kind, value in person.refs.items())):
            self._known.pop(ref.key, None)
        for anonymous_id in person.anonymous:
            self._known.pop(Ref("anonymous", anonymous_id), None)

    def _weigh(self, person: Person) -> None:
        """Note how large a person has become; the oldest people go when all are too many or too large."""
        weight = wire.size(person.shown()) + 500
        self._weight += weight - person.weight
        person.weight = weight
        while len(self.people) > MAX_PEOPLE or (self._weight > MAX_PEOPLE_BYTES and len(self.people) > 1):
            self._remove(next(iter(self.people.values())))


def object_key(identifiers: Json) -> str:
    """One text for the identifiers of an object: type and id, or Customer.io's own id; empty if they are neither."""
    if not isinstance(identifiers, dict):
        return ""
    if "cio_object_id" in identifiers:
        return f"cio:{identifiers['cio_object_id']}"
    if "object_id" not in identifiers:
        return ""
    return f"{identifiers.get('object_type_id', '1')}:{identifiers['object_id']}"


def _in_time(event: Event, now: float) -> bool:
    """Whether an event can trigger campaigns. A day ahead allows for clocks and time zones (unverified)."""
    return -TRIGGER_WINDOW <= event.at - now <= DAY


def _stored(name: str, value: Json, known: Value | None) -> Json:
    """The value that is kept of an attribute: `unsubscribed` becomes a boolean, topics are added to those known."""
    if name == "unsubscribed":  # any case of `true`, `1` and `"1"` count, anything else is false (reference 2.1)
        return value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "1"))
    topics: Json = {name.removeprefix(_TOPIC): value} if name.startswith(_TOPIC) else None
    if name == PREFERENCES and isinstance(value, dict):
        topics = value.get("topics")
    if not isinstance(topics, dict):
        return value
    before = known.stored.get("topics") if known and isinstance(known.stored, dict) else None
    return {"topics": {**(before if isinstance(before, dict) else {}), **topics}}


def _remember[K](keys: OrderedDict[K, None], key: K) -> None:
    keys[key] = None
    if len(keys) > MAX_REMEMBERED:
        keys.popitem(last=False)
