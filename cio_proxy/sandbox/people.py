"""What is kept: people, events, deliveries. Each shows what was sent beside what is stored, and notes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cio_proxy.model import Json

MAX_NOTES = 20

NO_EMAIL = "No email address is stored: this person cannot be sent mail (reference 9.10)."
BAD_EMAIL = "The email is not an address: no mail can reach it (reference 6.2)."
UNSUBSCRIBED = "Unsubscribed: campaigns send nothing to this person [spec: Track, unsubscribed]."


class Ref(NamedTuple):
    """One identifier of a person. `kind` is id, email, phone or cio_id."""

    kind: str
    value: str

    @property
    def key(self) -> Ref:
        """How people are matched: emails in any case, ids exactly (reference 6.2)."""
        return Ref(self.kind, self.value.casefold()) if self.kind == "email" else self


def ref_of(identifier: str) -> Ref:
    """What an identifier in a v1 path means: `cio_…`, an email, else an id; a phone number is an id (reference 2.1)."""
    if identifier.startswith("cio_"):
        return Ref("cio_id", identifier.removeprefix("cio_"))
    return Ref("email" if "@" in identifier else "id", identifier)


def ref_in(values: Json) -> Ref | None:
    """The identifier in an object that holds one, such as `{"id": "5"}`."""
    if isinstance(values, dict):
        for kind in ("id", "email", "phone", "cio_id"):
            if isinstance(value := values.get(kind), str) and value:
                return Ref(kind, value)
    return None


@dataclass(slots=True)
class Value:
    """One attribute or device: as sent, as stored, and when the change happened (Unix seconds)."""

    sent: Json
    stored: Json
    at: float
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Person:
    """A profile. `anonymous` holds when each linked anonymous id was last identified."""

    cio_id: str
    refs: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Value] = field(default_factory=dict)
    devices: dict[str, Value] = field(default_factory=dict)
    segments: set[str] = field(default_factory=set)
    relationships: dict[str, Json] = field(default_factory=dict)
    anonymous: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    weight: int = 0

    @property
    def unsubscribed(self) -> bool:
        """Whether the stored `unsubscribed` attribute is true."""
        value = self.attributes.get("unsubscribed")
        return value is not None and value.stored is True

    def note(self, notes: Iterable[str]) -> None:
        """Keep notes that are about the person as a whole, each once."""
        self.notes = [*dict.fromkeys([*self.notes, *notes])][:MAX_NOTES]

    def shown(self) -> dict[str, Json]:
        """What `/_sandbox/people` shows."""
        notes = [
            *self.notes,
            *(note for value in (*self.attributes.values(), *self.devices.values()) for note in value.notes),
        ]
        if "email" not in self.refs:
            notes.append(NO_EMAIL)
        elif "@" not in self.refs["email"]:
            notes.append(BAD_EMAIL)
        if self.unsubscribed:
            notes.append(UNSUBSCRIBED)
        refs: dict[str, Json] = {**self.refs}
        return {
            "cio_id": self.cio_id,
            "id": self.refs.get("id"),
            "email": self.refs.get("email"),
            "phone": self.refs.get("phone"),
            "sent": refs | {name: value.sent for name, value in self.attributes.items()},
            "stored": refs | {name: value.stored for name, value in self.attributes.items()},
            "devices": {token: value.stored for token, value in self.devices.items()},
            "segments": [*sorted(self.segments)],
            "relationships": [*self.relationships.values()],
            "anonymous_ids": [*self.anonymous],
            "notes": [*notes],
        }


@dataclass(slots=True)
class Event:
    """An event. `person` is a cio_id, or None for an anonymous one; `received` and `at` are Unix seconds."""

    kind: str
    name: str
    received: float
    at: float
    sent: Json
    content: dict[str, Json]
    person: str | None = None
    anonymous_id: str | None = None
    triggers: bool = True
    notes: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Json]:
        """What `/_sandbox/events` shows."""
        return {
            "person": self.person,
            "anonymous_id": self.anonymous_id,
            "sent": self.sent,
            "stored": {"type": self.kind, "name": self.name, "timestamp": self.at, "data": self.content},
            "received_at": self.received,
            "can_trigger": self.triggers,
            "notes": [*self.notes],
        }


@dataclass(slots=True)
class Delivery:
    """A message handed to the App API. `state` is sent, dropped or skipped; `person` is a cio_id."""

    delivery_id: str
    kind: str
    queued_at: int
    sent: dict[str, Json]
    person: str | None = None
    to: Json = None
    state: str = "sent"
    metrics: deque[str] = field(default_factory=lambda: deque(maxlen=100))
    notes: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Json]:
        """What `/_sandbox/deliveries` shows."""
        return {
            "delivery_id": self.delivery_id,
            "kind": self.kind,
            "person": self.person,
            "sent": self.sent,
            "stored": {"to": self.to, "state": self.state, "queued_at": self.queued_at},
            "metrics": [*self.metrics],
            "notes": [*self.notes],
        }


class Ring[T]:
    """The newest things, bounded in number and in bytes."""

    def __init__(self, count: int, weight: int) -> None:
        self._count, self._limit, self._weight = count, weight, 0
        self._items: deque[tuple[T, int]] = deque()

    def __iter__(self) -> Iterator[T]:
        return (item for item, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, weight: int) -> None:
        """Keep one more; the oldest go when there are too many or too heavy ones."""
        self._items.append((item, weight))
        self._weight += weight
        while len(self._items) > self._count or (self._weight > self._limit and len(self._items) > 1):
            self._weight -= self._items.popleft()[1]

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Forget all that are not wanted."""
        self._items = deque(pair for pair in self._items if wanted(pair[0]))
        self._weight = sum(weight for _, weight in self._items)
