"""The words of the product as types: what an exchange, a call, a fact, a finding and a verdict are.

Everything here is frozen and free of I/O. Times are Unix seconds as floats and are always the
exchange's own time; sizes are bytes. This module imports nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice, repeat
from operator import itemgetter
from string import ascii_uppercase, digits
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, dataclass_transform, get_args
from urllib.parse import urlsplit

type Json = str | int | float | bool | list[Json] | dict[str, Json] | None

Api = Literal["track_v1", "track_v2", "pipelines", "app", "webhooks", "unknown"]
Region = Literal["us", "eu"]
Listener = Literal["outbound", "inbound", "explicit"]
Kind = Literal[
    "identify",
    "event",
    "page",
    "screen",
    "delete",
    "suppress",
    "unsuppress",
    "merge",
    "device_add",
    "device_delete",
    "segment_add",
    "segment_remove",
    "relationship_add",
    "relationship_delete",
    "object_identify",
    "object_delete",
    "form_submit",
    "unsubscribe",
    "report_metric",
    "send_message",
    "broadcast_trigger",
    "content_write",
    "content_read",
    "webhook_metric",
    "other",
    "unreadable",
]
Severity = Literal["error", "warning", "info"]
Confidence = Literal["certain", "likely", "possible"]
Action = Literal["off", "log", "block", "pace", "default"]
Paced = Literal["held", "passed", "would"]
Taken = Literal["logged", "would_block", "blocked", "exempt", "baselined"]
People = Literal["partial", "complete"]
Enforcement = Literal["observe", "enforce"]
Ending = Literal["forwarded", "partial", "blocked", "failed", "unaudited"]

APIS: Final[tuple[Api, ...]] = get_args(Api)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LISTENERS: Final[tuple[Listener, ...]] = get_args(Listener)
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
CONFIDENCES: Final[tuple[Confidence, ...]] = get_args(Confidence)
TAKEN: Final[tuple[Taken, ...]] = get_args(Taken)
ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
PACED: Final[tuple[Paced, ...]] = get_args(Paced)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What is shown of a method; any other one may hold anything."""
PREFERENCES: Final = "cio_subscription_preferences"
"""The attribute of topics; also written with dots, `cio_subscription_preferences.topics.topic_1` (reference 2.1)."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

type Seal = Callable[[str], str]
"""A keyed hash: text in, 16 hexadecimal digits out. The same text gives the same digits only under the same key."""


made: Final = tuple.__new__
"""A named tuple of all its fields, in their order: what its constructor does, in half the time."""


# --- what travelled ----------------------------------------------------------------------------


@dataclass_transform(frozen_default=True)
def made_often[T](cls: type[T]) -> type[T]:
    """A dataclass that the type checker alone keeps from being changed: it is made in a quarter of the time."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


RECALLED: Final = 256
"""Characters of a text that a cache may keep: the names of a clean integration are shorter."""


class Latest[K, V](dict[K, V]):
    """What a function gives for each of its latest arguments, as `lru_cache` has it; it costs far less to be new in."""

    def __init__(self, function: Callable[[K], V], limit: int) -> None:
        self._function = function
        self._limit = limit

    def __missing__(self, argument: K) -> V:
        if len(self) >= self._limit:
            self.clear()
        value = self[argument] = self._function(argument)
        return value


class _Recalled[V](Latest[str, V]):
    def __missing__(self, argument: str) -> V:
        return super().__missing__(argument) if len(argument) <= RECALLED else self._function(argument)


def recalled[V](limit: int) -> Callable[[Callable[[str], V]], Callable[[str], V]]:
    """A cache of the latest results of a pure function of a text; of a long text, nothing is kept."""
    return lambda compute: _Recalled(compute, limit).__getitem__


class once[V]:  # noqa: N801 a decorator
    """A property that is computed once: as `functools.cached_property`, in half the time."""

    def __init__(self, compute: Callable[[Any], V]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> V:
        value: V = self.compute(instance)
        instance.__dict__[self.name] = value
        return value


class Made:
    """What is made on the hot path."""

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Self:
        """One with these fields: what the constructor does field by field, in one step."""
        made = cls.__new__(cls)
        made.__dict__.update(parts)
        return made


@dataclass(frozen=True, kw_only=True)
class Exchange(Made):
    """One HTTP request as it was received, with the facts of its connection."""

    id: str
    at: float
    method: str
    target: bytes
    """Path and query exactly as on the request line."""
    host: str
    """The `Host` header without its port, in lower case."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    """The raw body before any content decoding, or None when it was streamed past unread."""
    listener: Listener = "outbound"
    client_address: str = ""
    connection: str = ""
    carried: int = 1
    """Which request of its connection this is, counted from 1."""
    beside: int = 0
    """How many other connections of its client's address were open when it came, as far as anybody knows."""
    http_version: str = "HTTP/1.1"
    tls: bool = False
    sandbox: bool = False
    """True when the upstream is the emulated Customer.io, which takes placeholder keys."""

    @once
    def named(self) -> Mapping[bytes, bytes]:
        """The first value of each header, by its name in lower case."""
        return {name.lower(): value for name, value in reversed(self.headers)}

    def header(self, name: str) -> str | None:
        """The first value of a header, named in lower case, decoded as Latin-1; or None."""
        value = self.named.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")


class Waits(NamedTuple):
    """How the app's own answers on one route followed those that a kind of call got, as the latency probe saw it.

    The probe picks a few calls by chance and gives them their answer `delay` seconds late; the others are the control.
    A call counts as followed when the app answered a request of this route that was open at the time within `delay`/2
    of the moment at which the call's answer was late, or would have been.
    """

    route: str
    """Method and path template of the app's own request, such as `POST /orders/{}`."""
    call: str
    """The kind of the calls, and their name if they have one."""
    traced: bool
    """Whether request and call are told to belong together by a trace, rather than by time alone."""
    delay: float
    held: int = 0
    held_followed: int = 0
    free: int = 0
    free_followed: int = 0
    nested: int = 0
    """How many of the free calls got their answer shortly before the app gave its own."""


OutcomeKind = Literal["accepted", "refused", "unknown"]


class Outcome(NamedTuple):
    """How an exchange ended: what Customer.io, or this proxy in its place, answered.

    `refused_items` are the indexes (of the batch as sent) that a 207 lists or that were cut out.
    """

    kind: OutcomeKind
    at: float
    status: int | None = None
    refused_items: frozenset[int] = frozenset()
    body: bytes | None = None
    location: str | None = None
    """The `Location` of a redirect to the other region's host, whether it was followed here or passed on."""
    closed: bool = False
    """Whether the answer ended the client's connection, although the request did not ask for that."""
    waits: tuple[Waits, ...] = ()
    """What the latency probe has come to know by this answer of the app's."""

    def of(self, call: Call) -> Outcome:
        """The outcome of one call of the exchange."""
        return self._replace(kind="refused") if call.item in self.refused_items else self


# --- what it said ------------------------------------------------------------------------------

FaultKind = Literal[
    "not-json", "not-object", "bad-utf8", "nan", "duplicate-key", "too-deep", "too-large", "bad-encoding", "unread"
]


class Fault(NamedTuple):
    """Something in a body that a strict reader would refuse."""

    kind: FaultKind
    pointer: str
    detail: str


class Document(NamedTuple):
    """A body after content decoding and lenient parsing. `value` is None when nothing could be parsed."""

    raw: bytes = b""
    value: Json = None
    faults: tuple[Fault, ...] = ()


EMPTY_DOCUMENT: Final = Document()


class Person(NamedTuple):
    """The identifiers that one call gives for one person, by kind; e-mail addresses in lower case."""

    id: str | None = None
    email: str | None = None
    phone: str | None = None
    cio_id: str | None = None
    anonymous: str | None = None

    def identifiers(self) -> Iterator[str]:
        """Every identifier that names a person (an anonymous id does not), as `kind:value`."""
        if self.id is not None:
            yield f"id:{self.id}"
        if self.email is not None:
            yield f"email:{self.email}"
        if self.phone is not None:
            yield f"phone:{self.phone}"
        if self.cio_id is not None:
            yield f"cio_id:{self.cio_id}"

    def main(self) -> str | None:
        """The identifier that stands for the person in a finding: the first of the above, else the anonymous id."""
        if (first := next(self.identifiers(), None)) is not None:
            return first
        return None if self.anonymous is None else f"anonymous:{self.anonymous}"


NOBODY: Final = Person()


class Timestamp(NamedTuple):
    """A time field that Customer.io documents, as sent."""

    pointer: str
    value: Json
    expects: Literal["seconds", "iso8601"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The `Authorization` of an exchange, or the signature of a webhook.

    `fault` says why a Basic value could not be read, or what is wrong with the signature.
    """

    scheme: Literal["none", "basic", "bearer", "other", "signature"] = "none"
    user: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    fault: str = ""
    belongs_to: Api | None = None
    """The API whose configured key this is, where the configuration lists key hashes."""


NO_CREDENTIALS: Final = Credentials()


_SKETCHED: Final = bytes.maketrans(digits.encode() + ascii_uppercase.encode(), b"0" * 10 + b"A" * 26)


@dataclass(frozen=True, kw_only=True)
class Call(Made):
    """One logical operation of an exchange: an identify, an event, one item of a batch.

    Every `*_at` is a pointer: RFC 6901 into the body as sent, or `header:Name`, `path:`, `query:name`.
    """

    exchange: Exchange
    api: Api
    kind: Kind
    endpoint: str
    """The path template, such as `/api/v1/customers/{identifier}`; `webhook` for what comes from Customer.io."""
    workspace: str
    joined: str | None = None
    """The workspace of facts that join APIs: the one known Track site's where the credentials are of no configured one.

    None where it cannot be told.
    """
    credentials: Credentials = NO_CREDENTIALS
    document: Document = EMPTY_DOCUMENT
    item: int | None = None
    reason: str = ""
    """Why a call of kind `unreadable` could not be read."""
    body: Mapping[str, Json] = NOTHING
    """The JSON object of this call: the body, or the batch item."""
    body_at: str = ""
    size: int = 0
    """Bytes of this call's JSON as sent."""
    person: Person = NOBODY
    person_at: str = "path:"
    merged: Person = NOBODY
    """The person that a merge makes an end of."""
    name: str | None = None
    name_at: str = ""
    attributes: Mapping[str, Json] = NOTHING
    attributes_at: str = ""
    data: Mapping[str, Json] = NOTHING
    data_at: str = ""
    timestamps: tuple[Timestamp, ...] = ()

    @once
    def at(self) -> float:
        """Receive time of the exchange."""
        return self.exchange.at

    @property
    def raw(self) -> bytes | None:
        """The bytes of this call alone, for a quick first look; None for an item of a batch."""
        return self.document.raw if self.item is None else None

    @once
    def sketch(self) -> bytes | None:
        """`raw` for a first look: digits are 0, capitals are A, and what sets groups of digits apart is left out."""
        return None if self.raw is None else self.raw.translate(_SKETCHED, b" _-")

    @property
    def updates_only(self) -> bool:
        """True for an identify that makes nobody (reference 2.1: `_update`)."""
        return self.attributes.get("_update") is True

    @property
    def leads(self) -> bool:
        """True for the one call of an exchange that findings about the whole exchange belong to."""
        return not self.item

    @once
    def identifiers(self) -> tuple[str, ...]:
        """Every identifier that names the person, as `kind:value`."""
        return tuple(self.person.identifiers())

    @once
    def subject(self) -> str | None:
        """The identifier that stands for the person, as `kind:value`."""
        return self.identifiers[0] if self.identifiers else self.person.main()

    def key(self, kind: str, subject: str) -> Key:
        """The key of a fact in the workspace of this call."""
        return made(Key, (kind, self.workspace, subject, False))

    def joined_key(self, kind: str, subject: str) -> Key:
        """The key of a fact that all keys of a workspace share, or this one alone where they cannot be told."""
        return Key(kind, self.workspace if self.joined is None else self.joined, subject)

    @once
    def homes(self) -> tuple[str, ...]:
        """The workspaces whose person this call's may be: its own, then the one it is joined to, if that is another."""
        return (self.workspace,) if self.joined in (None, self.workspace) else (self.workspace, self.joined)

    def is_gone_since(self, since: float, known: Known) -> bool:
        """Whether the person of this call is known to have been deleted then or later."""
        deleted = [known.span(self.key(DELETED, each)) for each in self.identifiers]
        return any(span is not None and span.last >= since for span in deleted)

    @once
    def seen(self) -> Span:
        """That something was seen now, in this exchange."""
        return Span(self.at, self.at, Origin(self.exchange.id, self.exchange.connection))

    @once
    def form(self) -> Form:
        """How this call is built."""
        body, attributes, data = tuple(self.body), tuple(self.attributes), tuple(self.data)
        types = tuple(map(type, self.body.values()))
        said = self.name, body, types, attributes, data, bool(self.person.anonymous), bool(self.document.faults)
        return made(Form, (self.api, self.kind, self.endpoint, self.item is None, *said))

    def holds(self, where: str) -> bool:
        """Whether a pointer leads into the attributes or the event data, where an app names things itself."""
        held = ((self.attributes, self.attributes_at), (self.data, self.data_at))
        return where.startswith(tuple(f"{at}/" for fields, at in held if fields))

    @once
    def leaves(self) -> Sequence[Leaf]:
        """Every value of `body` that is neither an object nor an array: one walk for all rules."""
        return leaves(self.body) if isinstance(self.body, dict) else ()

    @once
    def shape(self) -> Shape:
        """What the event data, or else the attributes, are called, and of which types they are."""
        return shape(self.data or self.attributes)

    @once
    def digest(self) -> str:
        """A hash of this call's JSON: of its bytes as sent, or of what was read of one item of a batch."""
        sent = self.document.raw if self.item is None else repr(self.body).encode("utf-8", "surrogatepass")
        return blake2b(sent, digest_size=16).hexdigest()

    @once
    def state(self) -> str:
        """A hash of all that an identify says but for its time."""
        attributes = {name: value for name, value in self.attributes.items() if name != "_timestamp"}
        said = repr((tuple(self.person), attributes, self.body.get("cio_relationships")))
        return blake2b(said.encode(), digest_size=16).hexdigest()


class Form(NamedTuple):
    """How a call is built, without any value that is in it: an app sends many calls of few forms."""

    api: Api
    kind: Kind
    endpoint: str
    alone: bool
    """False for an item of a batch."""
    name: str | None
    body: tuple[str, ...]
    """The names in it, as in `attributes` and `data`."""
    types: tuple[type, ...]
    """What Python makes of each member of the body."""
    attributes: tuple[str, ...]
    data: tuple[str, ...]
    anonymous: bool
    """Whether there is an anonymous id."""
    faulty: bool
    """Whether a strict reader would refuse the body."""


def lapse(seconds: float) -> str:
    """A short time, as messages say it."""
    return f"{seconds:.1f} s" if seconds >= 0.1 else "less than 0.1 s"


def pointer(*parts: str | int) -> str:
    """An RFC 6901 pointer from unescaped parts; `pointer("/batch/0", "a/b")` appends to a pointer given first."""
    head, *rest = parts
    return str(head) + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in rest)


type Path = tuple[Path, str | int] | None
"""Where a value is: the path of what holds it and its key there, or None for the outermost."""


type Leaf = tuple[str | int | float | bool | None, Path]
"""A value that is neither an object nor an array, and where it is."""


def leaves(value: Json) -> list[Leaf]:
    """Every leaf of a JSON value, in the order of the text. Recursive: bodies are at most 500 levels deep."""
    found: list[Leaf] = []
    _gather(value, None, found)
    return found


LEAVES: Final = 100_000
"""How many leaves are looked at: no call that Customer.io takes has nearly so many."""


def _gather(value: Json, path: Path, found: list[Leaf]) -> None:
    if len(found) >= LEAVES:
        return
    if isinstance(value, dict):
        for key, member in value.items():
            if type(member) is dict or type(member) is list:
                _gather(member, (path, key), found)
            else:
                found.append((member, (path, key)))  # type: ignore[arg-type]
    elif isinstance(value, list):
        for index, member in enumerate(value[: LEAVES - len(found)]):
            _gather(member, (path, index), found)
    else:
        found.append((value, path))


type Shape = tuple[tuple[str, type, Shape], ...]
"""Each name in an object, its type, and what is in it: the same for all objects that are built alike."""
DEEPEST: Final = 4
"""How many objects and lists within each other a shape shows."""
LONGEST: Final = 50
"""How many members of an object or a list it shows."""
SIMPLE: Final = frozenset({str, int, float, bool})


def shape(fields: Mapping[str, Json], depth: int = DEEPEST) -> Shape:
    """What is in an object, but for null, what is empty, and long names. The name of a member of a list is empty."""
    if len(fields) > LONGEST or max(map(len, fields), default=0) > RECALLED:  # shapes are bounded in number alone
        fields = {name: value for name, value in islice(fields.items(), LONGEST) if len(name) <= RECALLED}
    kinds = tuple(map(type, fields.values()))
    if SIMPLE.issuperset(kinds) and "" not in fields.values():
        return tuple(zip(fields, kinds, repeat(())))
    return tuple(_parts(fields.items(), depth - 1))


def _parts(members: Iterable[tuple[str, Json]], depth: int) -> list[tuple[str, type, Shape]]:
    found: list[tuple[str, type, Shape]] = []
    for name, value in members:
        kind = type(value)
        if kind in SIMPLE:
            if value != "":
                found.append((name, kind, ()))
        elif value:
            within: Shape = ()
            if kind is dict and depth:
                within = shape(value, depth)  # type: ignore[arg-type]  # it is one
            elif kind is list and depth:
                listed = zip(repeat(""), value[:LONGEST])  # type: ignore[arg-type, index]
                within = tuple(dict.fromkeys(_parts(listed, depth - 1)))
            found.append((name, kind, within))
    return found


def keys_of(path: Path) -> list[str | int]:
    """The keys and positions that lead to a value, outermost first."""
    keys: list[str | int] = []
    while path is not None:
        path, key = path
        keys.append(key)
    return keys[::-1]


# --- what is remembered ------------------------------------------------------------------------

MINUTE: Final = 60.0
"""How exactly it is kept when something was last seen."""
IDENTIFIED: Final = "identified"
"""The kind of the fact that a person was identified, or made in another way; the engine itself teaches it."""
DELETED: Final = "deleted"
"""The kind of the fact that a person was deleted, suppressed, or merged into another."""
TYPES: Final = "attribute-types"
"""The kind of the fact of which JSON types attributes are: groups of people by the attribute and the type.

A label is an attribute, a NUL and a `JsonType`, or `SENT`. The subject is named: the week, the API (`track`,
`pipelines`) and, where it is about the data of an event, the name of the event, with NULs between them.
"""
SENT: Final = "\0sent"
"""The label that holds everybody who sent an event, whatever was in it."""
WEBHOOK: Final = "webhook"
"""The kind of the fact which webhooks came in a minute: a set of their event ids."""
REACTED: Final = "reacted"
"""The kind of the fact that an app did something about mail that a person, or an address, cannot or will not take."""
SITES: Final = "track-sites"
"""The kind of the fact which Track sites there are: groups of nobody by the workspace; two are as good as many."""
MOST_SITES: Final = 3
"""How many Track sites are remembered: a mapping may make two of them one, and a third is one too many."""
FORGED: Final = "invalid-webhook-signature"
"""The one rule that a webhook may be refused for."""
BOUNCED: Final = "bounced"
"""The kind of the fact that mail to an address came back for good; `ignored-bounce` teaches it."""
ADDRESSES: Final = "addresses"
"""The kind of the fact which e-mail addresses an id was identified with; the engine itself teaches it."""
HAS_EMAIL: Final = "has-email"
"""The kind of the fact that no e-mail address is missing of a person; `missing-email` teaches it, and an import."""


class Subject(NamedTuple):
    """What facts are about, as a store sees it: all facts of one subject are read together."""

    workspace: str
    sealed: str


class Key(NamedTuple):
    """The name of a fact. Rules write `subject` in clear; it is sealed before any store sees it.

    A `named` subject is made of names of events and attributes, which stay readable where nothing in them is personal.
    """

    kind: str
    workspace: str
    subject: str
    named: bool = False

    @property
    def of(self) -> Subject:
        """The subject of a sealed key."""
        return made(Subject, self[1:3])


class Origin(NamedTuple):
    """The exchange and connection a fact was first learned from."""

    exchange: str = ""
    connection: str = ""


class Sealing(Protocol):
    """Turns what identifies somebody into keyed hashes."""

    def member(self, text: str) -> int:
        """A member of a set as 52 bits, which every store keeps exactly."""

    def label(self, name: str) -> str:
        """A name as it is where nothing in it is personal, else a keyed hash."""

    def labels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The same for several names at once."""

    def key(self, key: Key) -> Key:
        """A key with its subject sealed; for every kind the same."""


class Span(NamedTuple):
    """First and last time something was seen. `origin` belongs to the first."""

    first: float
    last: float
    origin: Origin = Origin()

    def join(self, other: Span) -> Span:
        """The span that covers both."""
        first, origin = min((self.first, self.origin), (other.first, other.origin))
        return Span(first, max(self.last, other.last), origin)

    def lacks(self, other: Span) -> bool:
        """Whether joining another one says anything new: the last time counts by the minute."""
        return other.first < self.first or other.last - self.last >= MINUTE

    def sealed(self, sealing: Sealing) -> Span:
        """Nothing in a span identifies a person."""
        return self


MEMBERS: Final = 1 << 52


@made_often
class Sample:
    """A bounded set: the `limit` smallest keyed hashes of its members, in order.

    Keeping the smallest makes the bound commute with joining. `plain` members are what a rule
    teaches; they exist only until `sealed` turns them into hashes.
    """

    limit: int
    hashes: tuple[int, ...] = ()
    plain: frozenset[str] = frozenset()

    def join(self, other: Sample) -> Sample:
        """The smallest `limit` members of both."""
        limit = min(self.limit, other.limit)
        hashes = tuple(dict.fromkeys(sorted(self.hashes + other.hashes)))[:limit]
        return Sample(limit, hashes, self.plain | other.plain)

    def lacks(self, other: Sample) -> bool:
        """Whether joining another one says anything new."""
        mine, last = self.hashes, self.reach()
        for each in other.hashes:  # noqa: SIM110 (a third of the time)
            if each < last and each not in mine:
                return True
        return False

    def reach(self) -> int:
        """From which hash on none is taken in."""
        return self.hashes[-1] if len(self.hashes) >= self.limit else MEMBERS

    def sealed(self, sealing: Sealing) -> Sample:
        """The same set with every plain member hashed."""
        limit, hashes, plain = self.limit, self.hashes, self.plain
        if len(plain) == 1 and not hashes:
            return Sample(limit, (sealing.member(*plain),))
        return Sample(limit, tuple(sorted({*hashes, *map(sealing.member, plain)})[:limit]))

    def count(self) -> float:
        """How many members were ever added: exact below `limit`, estimated from the largest kept hash above it."""
        if len(self.hashes) < self.limit:
            return len(self.hashes)
        return (self.limit - 1) / (max(1, self.hashes[-1]) / MEMBERS)


@made_often
class Groups:
    """Bounded sets under a few labels: the spellings of a name, the types of an attribute.

    The `limit` labels that come first stay, so that the bound commutes with joining.
    """

    limit: int
    samples: Mapping[str, Sample]
    least: int = field(default=-1, compare=False, repr=False)
    """The smallest hash under all labels, where they share one set."""
    reach: int = field(default=-1, compare=False, repr=False)
    """From which hash on nothing is new under any of the labels, once somebody asked."""

    def join(self, other: Groups) -> Groups:
        """Label by label, the members of both."""
        samples = dict(self.samples)
        for label, theirs in other.samples.items():
            mine = samples.get(label)
            samples[label] = theirs if mine is None else mine.join(theirs)
        return Groups(limit := min(self.limit, other.limit), _first(limit, samples))

    def lacks(self, other: Groups) -> bool:
        """Whether joining another one says anything new."""
        limit, samples = self.limit, self.samples
        if len(other.samples) > 1 and other.least >= 0:  # of one label alone it is seen as soon below
            if self.reach < 0:
                self.reach = max((mine.reach() for mine in samples.values()), default=0)  # type: ignore[misc]
            if other.least >= self.reach and other.samples.keys() <= samples.keys():
                return False
        for label, theirs in other.samples.items():
            mine = samples.get(label)
            if mine is None:
                if len(samples) < limit or label < max(samples):
                    return True
            elif mine.lacks(theirs):
                return True
        return False

    def sealed(self, sealing: Sealing) -> Groups:
        """The same with every member hashed, and every label that holds something personal."""
        if len(self.samples) == 1:
            ((label, sample),) = self.samples.items()
            return Groups(self.limit, {sealing.label(label): sample.sealed(sealing)})
        labels, members = sealing.labels(tuple(self.samples)), tuple(self.samples.values())
        if members and members[1:] == members[:-1]:  # labels may share one set
            shared = members[0].sealed(sealing)
            least = shared.hashes[0] if shared.hashes else MEMBERS
            return Groups(self.limit, _first(self.limit, dict.fromkeys(labels, shared)), least)
        samples = dict(zip(labels, [sample.sealed(sealing) for sample in members], strict=True))
        return Groups(self.limit, _first(self.limit, samples))

    def counts(self) -> dict[str, float]:
        """How many members each label ever had."""
        return {label: sample.count() for label, sample in self.samples.items()}


def _first(limit: int, samples: dict[str, Sample]) -> dict[str, Sample]:
    return samples if len(samples) <= limit else dict(sorted(samples.items(), key=itemgetter(0))[:limit])


@dataclass(frozen=True, slots=True)
class Tally:
    """A count that several learners add to: one slot per learner and start, largest wins, summed on reading."""

    slots: Mapping[str, int] = field(default_factory=dict)

    def join(self, other: Tally) -> Tally:
        """Slot by slot, the larger count."""
        return Tally({s: max(self.slots.get(s, 0), other.slots.get(s, 0)) for s in self.slots.keys() | other.slots})

    def lacks(self, other: Tally) -> bool:
        """Whether joining another one says anything new."""
        return any(count > self.slots.get(slot, 0) for slot, count in other.slots.items())

    def sealed(self, sealing: Sealing) -> Tally:
        """Nothing in a tally identifies a person."""
        return self

    def total(self) -> int:
        """The count over all learners."""
        return sum(self.slots.values())


@dataclass(frozen=True, slots=True)
class Deadline:
    """Something a rule will look at once `at` has passed.

    `watch` are the keys it will want to read then. `seed` is the finding to give if the rule decides
    so, already free of personal values. Of two deadlines of one key the earlier stands.
    """

    at: float
    rule: str
    watch: tuple[Key, ...]
    seed: Finding

    def join(self, other: Deadline) -> Deadline:
        """The earlier of both; on a tie the one of the smaller exchange id."""
        return min(self, other, key=lambda d: (d.at, d.seed.exchange, d.seed.item or 0))

    def lacks(self, other: Deadline) -> bool:
        """Whether another one comes earlier."""
        return other.at < self.at

    def sealed(self, sealing: Sealing) -> Deadline:
        """The same deadline watching sealed keys."""
        return replace(self, watch=tuple(map(sealing.key, self.watch)))


type Value = Span | Sample | Groups | Tally | Deadline


class Fact(NamedTuple):
    """One thing learned. It is forgotten `ttl` seconds after it was last taught.

    One that is `announced` is marked in flight while the exchange that would teach it is unanswered, so that what
    overtakes it on another connection is not accused.
    """

    key: Key
    value: Value
    ttl: float
    announced: bool = False


class Kept(NamedTuple):
    """A value in a store, and when it is forgotten."""

    value: Value
    expiry: float


type Record = Mapping[str, Kept]
"""What is known of one subject, by the kind of fact."""


JsonType = Literal["string", "number", "integer", "boolean", "object", "array"]
JSON_TYPES: Final[tuple[JsonType, ...]] = get_args(JsonType)


class Planned(NamedTuple):
    """What a plan says of one attribute. Null is no value: it fits every type, and nothing that is required."""

    types: tuple[JsonType, ...] = ()
    """The types it may have, in the order of `JSON_TYPES`; none for any."""
    required: bool = False
    """Whether every event of the name brings it."""


class Fields(NamedTuple):
    """What a plan says of the attributes of an event, or of people."""

    attributes: Mapping[str, Planned] = NOTHING
    others: bool = False
    """Whether there may be attributes that it does not name."""


@dataclass(frozen=True, kw_only=True)
class TrackingPlan:
    """Which events an app sends, and with which attributes. What is None is not planned, and anything goes."""

    events: Mapping[str, Fields] | None = None
    others: bool = False
    """Whether there may be events that it does not name."""
    person: Fields | None = None
    source: str = ""
    """The file it comes from."""

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """The names of its events, by their letters and digits alone."""
        return {folded(name): name for name in self.events or ()}


def folded(name: str) -> str:
    """What stays of a name however its words are joined."""
    return "".join(filter(str.isalnum, name[:500].lower()))


class Known(Protocol):
    """What a rule may ask while it judges one exchange.

    What is known of a call's own person is always at hand; other facts only where the rule `needs` them. All keys and
    texts are given in clear.
    """

    @property
    def since(self) -> float:
        """From when on nothing was missed in this workspace: the start of observation, or the last loss of a fact."""

    @property
    def lost(self) -> float:
        """When a fact of this workspace was lost last, or of the one that it is joined to."""

    @property
    def people(self) -> People:
        """`complete` when every person of the call's workspace is known to this proxy."""

    @property
    def plan(self) -> TrackingPlan | None:
        """What the operator says is sent, where there is such a plan."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The rule's own parameters; times in seconds, sizes in bytes."""

    def span(self, key: Key) -> Span | None:
        """The span kept under this key."""

    def sample(self, key: Key) -> Sample | None:
        """The set kept under this key."""

    def groups(self, key: Key) -> Groups | None:
        """The sets kept under this key."""

    def in_flight(self, key: Key) -> bool:
        """True while an exchange that would teach this key is still unanswered."""

    def member(self, text: str) -> int:
        """What a text is in a `Sample`."""

    def label(self, name: str) -> str:
        """What a name is as a label of `Groups`."""


# --- what is said about it ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a rule: its default, its meaning, and how configuration writes it."""

    default: Any
    about: str
    unit: Literal["duration", "size", "count", "text", "names"] = "count"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault, where it is, what Customer.io does with it, and the fix.

    A rule fills in the first block; the engine completes the second and masks every text. The
    published form is documented in design §5 and written by `record`.
    """

    rule: str
    severity: Severity
    confidence: Confidence
    pointer: str
    message: str
    effect: str
    fix: str
    corrected: Json = None
    evidence: Json = None
    related: tuple[str, ...] = ()
    refusable: bool = False
    """True where default enforcement may refuse the call (reference 9.19)."""
    whole: bool = False
    """True for a fault of the whole exchange rather than of one batch item."""
    early: bool = False
    """True where it says that something is not known, which may be on its way on another connection."""

    id: str = ""
    time: float = 0.0
    category: str = ""
    action: Taken = "logged"
    api: Api = "unknown"
    call: Kind = "other"
    method: str = ""
    endpoint: str = ""
    item: int | None = None
    person: str | None = None
    name: str | None = None
    client: str = "other"
    listener: Listener = "outbound"
    workspace: str = ""
    exchange: str = ""
    trace_id: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A rule's word that it could not judge, and why. Never a finding."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """What a rule is, apart from its prose (the module docstring) and its functions."""

    id: str
    severity: Severity
    category: str
    """`1` to `7`, the category of the pitfall list, or `contract`."""
    kinds: frozenset[Kind]
    apis: frozenset[Api] = frozenset(APIS)
    actions: tuple[Action, ...] = ("off", "log", "block", "default")
    refuses: bool = False
    """True where default enforcement refuses some of its findings: those marked `refusable`."""
    surest: Confidence = "certain"
    """The most confidence a finding of this rule can have."""
    params: Mapping[str, Param] = NOTHING
    version: int = 1
    stage: Literal["preview", "stable"] = "stable"
    caution: str = ""
    """What an operator who sets `action: block` has to know."""

    def finding(
        self,
        pointer: str,
        message: str,
        *,
        effect: str,
        fix: str,
        confidence: Confidence,
        corrected: Json = None,
        evidence: Json = None,
        name: str | None = None,
        related: Sequence[str] = (),
        refusable: bool = False,
        whole: bool = False,
        early: bool = False,
    ) -> Finding:
        """A finding of this rule. Texts and `evidence` may hold values as sent: they are masked before they leave."""
        return Finding(
            rule=self.id,
            severity=self.severity,
            category=self.category,
            confidence=confidence,
            pointer=pointer,
            message=message,
            effect=effect,
            fix=fix,
            corrected=corrected,
            evidence=evidence,
            name=name,
            related=tuple(related),
            refusable=refusable,
            whole=whole,
            early=early,
        )


class Limit(NamedTuple):
    """How fast an app may send: by a schedule, so many a second, so many at once, and held for so long at most."""

    key: Key
    rate: float
    burst: float
    hold: float


# --- what is done about it ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer given in place of Customer.io."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A v2 batch without its refused items: the bytes to forward, and how to restore indexes in the answer.

    `kept[i]` is the original index of the item that upstream sees as `i`; `errors` are the entries
    of the refused ones, in the shape of a 207 (`[spec: Track]`).
    """

    body: bytes
    kept: tuple[int, ...]
    errors: tuple[Mapping[str, Json], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be done with an exchange. At most one of `refusal` and `cut` is set."""

    findings: tuple[Finding, ...] = ()
    refusal: Refusal | None = None
    cut: Cut | None = None

    @property
    def refused_items(self) -> frozenset[int]:
        """Indexes that a cut takes out of a batch."""
        return frozenset(f.item for f in self.findings if f.action == "blocked" and f.item is not None)


class Sink(Protocol):
    """Where verdicts and endings go. Implementations never raise and never wait."""

    def found(self, finding: Finding) -> None:
        """One finding at or above the report threshold."""

    def ended(self, end: End) -> None:
        """One exchange is over."""


class End(NamedTuple):
    """The last word on an exchange, for sinks that count."""

    exchange: Exchange
    api: Api
    ending: Ending
    calls: tuple[Call, ...] = ()
    client: str = "other"
    status: int | None = None
    audit_seconds: float = 0.0
    upstream_seconds: float | None = None
    repeated: bool = False
    """True for a webhook that came before, or whose signature is wrong: it is no other delivery."""


# --- what the operator wants -------------------------------------------------------------------


class Address(NamedTuple):
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True where only this machine reaches it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """What the operator says about one rule."""

    action: Action = "default"
    report: Confidence | None = None
    block: Confidence | None = None
    params: Mapping[str, Any] = NOTHING


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys that webhooks are signed with, and the file they stand in: each webhook of Customer.io has its own."""

    file: str
    keys: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSettings:
    """One Customer.io workspace: its Track site ids, and the SHA-256 digests of its keys."""

    site_ids: tuple[str, ...] = ()
    track_keys: tuple[str, ...] = ()
    app_keys: tuple[str, ...] = ()
    pipelines_keys: tuple[str, ...] = ()
    signing_key_file: SigningKeys | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How Customer.io's reporting webhooks are told from other requests to the app, and what proves them genuine.

    `paths` are globs; a webhook with a signature is recognised on every path. With a key, a wrong signature is found.
    """

    paths: tuple[str, ...] = ()
    signing_key_file: SigningKeys | None = None
    signing_key: str | None = field(default=None, repr=False)
    """One more, such as comes from the environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Findings of one rule that the operator accepts: those that every matcher given fits.

    Matchers are globs, but for the client. `expires` is the first moment at which it holds no more.
    """

    rule: str
    reason: str
    endpoint: str | None = None
    pointer: str | None = None
    name: str | None = None
    client: str | None = None
    owner: str | None = None
    expires: float | None = None

    @property
    def label(self) -> str:
        """The rule and the matchers, as one short text."""
        matchers = (self.endpoint, self.pointer, self.name, self.client)
        return " ".join([self.rule, *(matcher for matcher in matchers if matcher is not None)])

    def holds(self, at: float) -> bool:
        """Whether it has not expired by then."""
        return self.expires is None or at < self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """Where findings are kept, and how much of them."""

    path: str | None = None
    max_bytes: int = 64 * 1024 * 1024
    keep: int = 5
    queue: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSettings:
    """Seconds to wait: for an upstream connection, for its answer, and for requests in flight when stopping."""

    connect: float = 5.0
    response: float = 30.0
    drain: float = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The files, in PEM form, of what the outbound listener shows for itself. Without `key` one file holds both."""

    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """URLs that take the place of single Customer.io hosts."""

    track: str | None = None
    track_eu: str | None = None
    pipelines: str | None = None
    pipelines_eu: str | None = None
    app: str | None = None
    app_eu: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """An HTTP proxy on the way to upstreams. Its text is without the credentials, fit to be shown."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"http://{'***@' if self.user or self.password else ''}{Address(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class FactStore:
    """Where facts are kept. `place` is a path for a file, and a URL for Redis. Its text is fit to be shown."""

    kind: Literal["memory", "sqlite", "redis"]
    place: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.kind != "redis":
            return f"{self.kind}:{self.place}"
        parts = urlsplit(self.place)
        _, at, host = parts.netloc.rpartition("@")
        return f"{parts.scheme}://{at and '***@'}{host}{parts.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """The latency probe: which share of answers to hold back, for how many seconds, and before which upstreams."""

    share: float = 0.0
    """0 is off."""
    delay: float = 0.4
    upstreams: tuple[str, ...] = ("sandbox",)
    """What `upstream`, and each of `upstreams`, may be while the probe is on: elsewhere it would slow people down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured, with the shipped defaults."""

    listen: Address = Address("127.0.0.1", 8080)
    inbound: Address | None = None
    """Where the app's own clients come in; it needs `app`."""
    app: str | None = None
    """The URL of the app behind the inbound listener."""
    tls: TlsSettings = TlsSettings()
    explicit: Address | None = None
    """Where the app finds an HTTP proxy, as in `HTTPS_PROXY`."""
    admin: Address = Address("127.0.0.1", 9180)
    upstream: str = "sandbox"
    """`sandbox`, `live`, `live-eu`, or a URL that takes the traffic of every Customer.io host."""
    upstreams: UpstreamSettings = UpstreamSettings()
    """What goes before `upstream`."""
    upstream_proxy: UpstreamProxy | None = None
    extra_ca: str | None = None
    """A file of certificate authorities that upstreams may use beside the usual ones."""
    enforcement: Enforcement = "observe"
    people: People = "partial"
    on_error: Literal["pass", "block"] = "pass"
    report: Confidence = "likely"
    block: Confidence = "certain"
    findings_header: bool = True
    show_values: bool = False
    max_audited_body: int = 10 * 1024 * 1024
    state: str | None = None
    """The folder for the hash key and the certificates; None is the user's state folder."""
    hash_key_file: str | None = None
    """The file of the hash key; None is one that is made in the state folder."""
    facts: FactStore | None = None
    """Where facts are kept; None is in memory, or in the state folder for an upstream that is live."""
    facts_limit: int = 200_000
    plan: TrackingPlan | None = None
    webhooks: WebhookSettings = WebhookSettings()
    journal: JournalSettings = JournalSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    probe: ProbeSettings = ProbeSettings()
    rules: Mapping[str, RuleSettings] = NOTHING
    workspaces: Mapping[str, WorkspaceSettings] = NOTHING
    exemptions: tuple[Exemption, ...] = ()
    baseline: str | None = None
    """The file of findings that are accepted as they are."""
    baselined: frozenset[str] = field(default=frozenset(), repr=False)
    """The fingerprints in it."""
    clients: Mapping[str, str] = NOTHING
    """Client names by a substring of the User-Agent, in addition to the known SDKs."""

    @property
    def begins_empty(self) -> bool:
        """Whether nobody is there when the proxy starts: all traffic goes to the sandbox."""
        return self.upstream == "sandbox" and self.upstreams == UpstreamSettings()

    @property
    def not_probed(self) -> tuple[str, ...]:
        """The upstreams before which the latency probe may not hold anything back."""
        used = [self.upstream, *(getattr(self.upstreams, name) for name in UpstreamSettings.__dataclass_fields__)]
        return tuple(each for each in used if each is not None and each not in self.probe.upstreams)

    def rule(self, id: str) -> RuleSettings:
        """What is said about one rule, or the defaults."""
        return self.rules.get(id, DEFAULT_RULE)


DEFAULT_RULE: Final = RuleSettings()
