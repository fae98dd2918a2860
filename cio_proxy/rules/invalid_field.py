"""A field that the API requires is missing, or holds a value of another type.

Track refuses such a call with 400, and one item of a v2 batch with an entry in a 207, which most SDKs
take for success. Pipelines in its default mode answers 200 and drops the call.

A field that is null counts as absent. What Customer.io may well read all the same (a number as an
identifier, a text of digits as a time, the empty list that PHP writes for an empty object) is at most
possible, and not reported by default.

Fix: send every required field, with the type that the API documents.

See https://docs.customer.io/integrations/api/track/
See https://docs.customer.io/integrations/api/cdp/
See https://docs.customer.io/journeys/invalid-api-requests/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Final

from cio_proxy.model import KINDS, Call, Confidence, Finding, Form, Json, Kind, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="invalid-field",
    severity="error",
    category="contract",
    kinds=frozenset(KINDS)
    - {"unsubscribe", "send_message", "broadcast_trigger", "content_write", "content_read", "webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

EFFECTS = {
    "track_v1": "Customer.io answers 400, or takes the call without the field.",
    "track_v2": "Customer.io refuses the operation: 400, or an entry in a 207, which most SDKs take for success.",
    "pipelines": "Pipelines answers 200 in its default mode and drops the call.",
}


@dataclass(frozen=True, slots=True)
class Type:
    """A documented type, and the other types that Customer.io may read all the same."""

    words: str
    sure: frozenset[type]
    doubtful: frozenset[type] = frozenset()


@dataclass(frozen=True, slots=True)
class Field:
    """A documented field of an object. `filled` says that a text there must not be empty."""

    name: str
    type: Type
    required: bool = False
    filled: bool = False


def needed(name: str, type: Type) -> Field:
    """A field without which the API does not take the call."""
    return Field(name, type, required=True, filled=True)


NAME = Type("a text", frozenset({str}))
TEXT = Type("a text", frozenset({str}), frozenset({int, float}))
SECONDS = Type("a number of seconds", frozenset({int, float}), frozenset({str}))
FLAG = Type("true or false", frozenset({bool}), frozenset({int, str}))
OBJECT = Type("an object", frozenset({dict}))
ARRAY = Type("a list", frozenset({list}))

PERSON_V1 = ("id", "email", "cio_id")
PERSON_V2 = ("id", "email", "phone", "cio_id")
TOKENS = ("id", "token")
"""v1 calls the token of a device `id`; the examples of v2 call it `token`, its schema `id` (reference §3)."""
PLATFORMS = frozenset({"ios", "android"})
METRICS = frozenset({"bounced", "clicked", "converted", "deferred", "delivered", "dropped", "opened", "spammed"})
DELIVERY_METRICS = frozenset({"opened", "converted", "delivered"})
ID_TYPES = ("id_type=id", "id_type=email", "id_type=cio_id")

EVENT_V1 = (needed("name", NAME), Field("data", OBJECT), Field("timestamp", SECONDS))
FIELDS_V1: Mapping[Kind, tuple[Field, ...]] = {
    "identify": (
        Field("id", TEXT, filled=True),
        Field("email", TEXT),
        Field("anonymous_id", TEXT),
        Field("_timestamp", SECONDS),
        Field("_update", FLAG),
        Field("cio_subscription_preferences", OBJECT),
        Field("cio_relationships", OBJECT),
    ),
    "event": EVENT_V1,
    "page": EVENT_V1,
    "screen": EVENT_V1,
    "device_add": (needed("device", OBJECT),),
    "merge": (needed("primary", OBJECT), needed("secondary", OBJECT)),
    "segment_add": (needed("ids", ARRAY),),
    "segment_remove": (needed("ids", ARRAY),),
    "form_submit": (needed("data", OBJECT),),
}
PLAIN: Final = frozenset({"identify", "event", "page", "screen"})
"""Calls of Track v1 of which only the outermost fields are judged."""
METRIC_V1 = (needed("delivery_id", NAME), needed("metric", NAME))

NAMED = (needed("name", NAME), Field("attributes", OBJECT), Field("timestamp", SECONDS))
DESCRIBED = (Field("attributes", OBJECT), Field("timestamp", SECONDS), Field("cio_relationships", ARRAY))
RELATED = (needed("cio_relationships", ARRAY),)
DEVICE_OF = (needed("device", OBJECT),)
FIELDS_V2: Mapping[str, Mapping[str, tuple[Field, ...]]] = {
    "person": {
        "identify": DESCRIBED,
        "event": NAMED,
        "page": NAMED,
        "screen": NAMED,
        "delete": (),
        "suppress": (),
        "unsuppress": (),
        "add_relationships": RELATED,
        "delete_relationships": RELATED,
        "add_device": DEVICE_OF,
        "delete_device": DEVICE_OF,
        "merge": (needed("primary", OBJECT), needed("secondary", OBJECT)),
    },
    "object": {
        "identify": DESCRIBED,
        "identify_anonymous": DESCRIBED,
        "delete": (),
        "add_relationships": RELATED,
        "delete_relationships": RELATED,
        "event": (),  # async-customerio sends it, the specification does not list it
    },
    "delivery": {"event": (needed("name", NAME), needed("attributes", OBJECT))},
}

DEVICE = (Field("last_used", SECONDS), Field("attributes", OBJECT))
PREFERENCES = (Field("topics", OBJECT),)
OBJECT_IDS = (needed("object_type_id", TEXT), needed("object_id", TEXT))

SENT_BY = (Field("userId", TEXT), Field("anonymousId", TEXT))
PAGE = (*SENT_BY, Field("properties", OBJECT))
CALLS: Mapping[str, tuple[Field, ...]] = {
    "identify": (*SENT_BY, Field("traits", OBJECT)),
    "track": (*PAGE, needed("event", NAME)),
    "page": PAGE,
    "screen": PAGE,
    "group": (*SENT_BY, needed("groupId", TEXT), Field("traits", OBJECT)),
    "alias": (needed("userId", TEXT), needed("previousId", TEXT)),
}


def concerns(form: Form) -> bool:
    """All but a plain identify or event of Track v1 whose fields are as documented."""
    fields = FIELDS_V1[form.kind] if form.api == "track_v1" and form.kind in PLAIN else None
    if fields is None or "cio_subscription_preferences" in form.body:
        return True
    types = dict(zip(form.body, form.types, strict=True))
    return not all(_fits(field, types.get(field.name, NoneType), form) for field in fields)


def _fits(field: Field, kind: type, form: Form) -> bool:
    if kind is NoneType:
        return not field.required
    filled = not field.filled or kind is not str or (field.name == "name" and bool((form.name or "").strip()))
    return kind in field.type.sure and filled


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The fields that the API documents for this call, each against its type."""
    found: list[Finding] = []
    if call.kind == "unreadable":
        _unreadable(call, found)
    elif call.api == "track_v1":
        _track_v1(call, found)
    elif call.api == "track_v2":
        _track_v2(call, found)
    else:
        _pipelines(call, found)
    return found


def _unreadable(call: Call, found: list[Finding]) -> None:
    """An item that is no object, or a batch without its list; a body nobody can read is another rule's."""
    if call.item is not None:
        found.append(_finding(call, call.body_at, "an item of the batch is no object", "an object", "certain"))
    elif isinstance(call.document.value, dict):
        batch = call.document.value.get("batch")
        if batch is None:
            found.append(_missing(call, "/batch", "batch", ARRAY))
        elif not isinstance(batch, list):
            found.append(_wrong(call, "/batch", "batch", batch, ARRAY))


# --- Track v1 ----------------------------------------------------------------------------------


def _track_v1(call: Call, found: list[Finding]) -> None:
    body, kind = call.body, call.kind
    fields = METRIC_V1 if kind == "report_metric" and call.endpoint == "/api/v1/metrics" else FIELDS_V1.get(kind)
    if fields is None:
        return
    _fields(call, body, "", fields, found)
    if kind == "identify":
        preferences = body.get("cio_subscription_preferences")
        if isinstance(preferences, dict):
            _fields(call, preferences, "/cio_subscription_preferences", PREFERENCES, found)
    elif kind == "device_add":
        _device(call, "id", found, added=True)
    elif kind == "merge":
        _sides(call, PERSON_V1, found)
    elif kind in ("segment_add", "segment_remove"):
        _segment(call, found)
    elif fields is METRIC_V1:
        _one_of_words(call, "metric", METRICS, found)


def _segment(call: Call, found: list[Finding]) -> None:
    ids = call.body.get("ids")
    if isinstance(ids, list):
        for index, value in enumerate(ids):
            if type(value) is not str:
                found.append(_wrong(call, f"/ids/{index}", "member of `ids`", value, TEXT))
                break
    query = call.exchange.target.partition(b"?")[2].decode("latin-1")
    given = [part for part in query.split("&") if part.startswith("id_type=")]
    if given and given[0] not in ID_TYPES:
        message = "`id_type` is none of id, email, cio_id"
        found.append(_finding(call, "query:id_type", message, "one of id, email, cio_id", "certain"))


# --- Track v2 ----------------------------------------------------------------------------------


def _track_v2(call: Call, found: list[Finding]) -> None:
    body, at = call.body, call.body_at
    if call.endpoint == "other":
        return
    try:
        fields = FIELDS_V2[body["type"]][body["action"]]  # type: ignore[index]
    except (KeyError, TypeError):
        actions = _known_word(call, "type", FIELDS_V2, found)
        if actions is not None:
            _known_word(call, "action", actions, found)
        return
    _fields(call, body, at, fields, found)
    if call.kind == "merge":
        _sides(call, PERSON_V2, found)
        return
    match body["type"]:
        case "person":
            _person(call, "identifiers", PERSON_V2, found)
            if fields is DEVICE_OF:
                _device(call, "token", found, added=call.kind == "device_add")
        case "object":
            _object(call, found)
        case _:
            _delivery(call, found)


def _known_word[T](call: Call, name: str, words: Mapping[str, T], found: list[Finding]) -> T | None:
    """What a `type` or an `action` stands for. In another spelling Customer.io may know it or not: None, silently."""
    value = call.body.get(name)
    at = f"{call.body_at}/{name}"
    if value is None:
        found.append(_missing(call, at, name, NAME))
    elif not isinstance(value, str):
        found.append(_wrong(call, at, name, value, NAME))
    elif value in words:
        return words[value]
    elif value.strip().lower().replace("-", "_") not in words:
        found.append(_unknown(call, at, name, words, "certain"))
    return None


def _sides(call: Call, kinds: tuple[str, ...], found: list[Finding]) -> None:
    for side in ("primary", "secondary"):
        if isinstance(call.body.get(side), dict):
            _person(call, side, kinds, found)


def _person(call: Call, name: str, kinds: tuple[str, ...], found: list[Finding]) -> None:
    """Exactly one identifier of a person. An anonymous id beside none is not judged: no source tells of it."""
    values = call.body.get(name)
    at = f"{call.body_at}/{name}"
    if values is None:
        found.append(_missing(call, at, name, OBJECT))
        return
    if not isinstance(values, dict):
        found.append(_wrong(call, at, name, values, OBJECT))
        return
    given = [kind for kind in values if kind in kinds and values[kind] not in (None, "")]
    if len(given) == 1:
        if type(values[given[0]]) is not str:
            found.append(_wrong(call, f"{at}/{given[0]}", given[0], values[given[0]], TEXT))
    elif given:
        message = f"`{name}` names a person by {' and '.join(given)}, where exactly one is documented"
        found.append(_finding(call, at, message, f"exactly one of {', '.join(kinds)}", "certain"))
    elif values.get("anonymous_id") is None:
        message = f"`{name}` has none of {', '.join(kinds)}"
        found.append(_finding(call, at, message, f"exactly one of {', '.join(kinds)}", "certain"))


def _object(call: Call, found: list[Finding]) -> None:
    values, at = call.body.get("identifiers"), f"{call.body_at}/identifiers"
    if values is None:
        found.append(_missing(call, at, "identifiers", OBJECT))
    elif not isinstance(values, dict):
        found.append(_wrong(call, at, "identifiers", values, OBJECT))
    elif values.get("cio_object_id") is None:
        _fields(call, values, at, OBJECT_IDS, found)


def _delivery(call: Call, found: list[Finding]) -> None:
    values, attributes = call.body.get("identifiers"), call.body.get("attributes")
    if not isinstance(values, dict) or not values.get("id"):
        found.append(_missing(call, f"{call.body_at}/identifiers/id", "id", TEXT))
    if isinstance(attributes, dict) and not attributes.get("device_token"):
        found.append(_missing(call, f"{call.body_at}/attributes/device_token", "device_token", TEXT))
    _one_of_words(call, "name", DELIVERY_METRICS, found)


def _device(call: Call, called: str, found: list[Finding], *, added: bool) -> None:
    """`called` is the API's own word for the token; to delete a device its platform is not needed (unverified)."""
    device, at = call.body.get("device"), f"{call.body_at}/device"
    if not isinstance(device, dict):
        return
    token = next((name for name in TOKENS if device.get(name) not in (None, "")), None)
    if token is None:
        found.append(_missing(call, f"{at}/{called}", called, TEXT))
    elif type(device[token]) is not str:
        found.append(_wrong(call, f"{at}/{token}", token, device[token], TEXT))
    _fields(call, device, at, DEVICE, found)
    if not added:
        return
    platform = device.get("platform")
    if platform is None or platform == "":
        found.append(_missing(call, f"{at}/platform", "platform", NAME))
    elif not isinstance(platform, str):
        found.append(_wrong(call, f"{at}/platform", "platform", platform, NAME))
    elif platform.lower() not in PLATFORMS:
        found.append(_unknown(call, f"{at}/platform", "platform", ("ios", "android"), "likely"))


# --- Pipelines ---------------------------------------------------------------------------------


def _pipelines(call: Call, found: list[Finding]) -> None:
    body, at = call.body, call.body_at
    kind = call.endpoint[4:] if call.item is None else body.get("type")
    try:
        fields = CALLS[kind]  # type: ignore[index]
    except (KeyError, TypeError):
        if call.item is not None:
            _known_word(call, "type", CALLS, found)
        return
    _fields(call, body, at, fields, found)
    if kind == "alias" or body.get("userId") not in (None, "") or body.get("anonymousId") not in (None, ""):
        return
    traits = body.get("traits")
    if kind == "track" and body.get("groupId") not in (None, ""):
        return
    if kind == "identify" and isinstance(traits, dict) and traits.get("email"):
        return
    message = f"`{kind}` has neither userId nor anonymousId"
    found.append(_finding(call, f"{at}/userId", message, "a userId or an anonymousId", "certain"))


# --- findings ----------------------------------------------------------------------------------


def _fields(call: Call, held: Mapping[str, Json], at: str, fields: tuple[Field, ...], found: list[Finding]) -> None:
    for field in fields:
        value = held.get(field.name)
        if value is None:
            if field.required:
                found.append(_missing(call, pointer(at, field.name), field.name, field.type))
        elif type(value) not in field.type.sure:
            optional = not field.required
            found.append(_wrong(call, pointer(at, field.name), field.name, value, field.type, optional=optional))
        elif field.filled and isinstance(value, str) and not value.strip():
            message = f"`{field.name}` is empty"
            found.append(_finding(call, pointer(at, field.name), message, field.type.words, "certain"))


def _one_of_words(call: Call, name: str, words: frozenset[str], found: list[Finding]) -> None:
    value = call.body.get(name)
    if isinstance(value, str) and value.strip() and value.lower() not in words:
        found.append(_unknown(call, f"{call.body_at}/{name}", name, sorted(words), "likely"))


def _missing(call: Call, at: str, name: str, expected: Type) -> Finding:
    return _finding(call, at, f"`{name}` is missing", expected.words, "certain")


def _wrong(call: Call, at: str, name: str, value: Json, expected: Type, *, optional: bool = False) -> Finding:
    kind = float if isinstance(value, float) else type(value)  # NaN has a type of its own
    doubtful = kind in expected.sure or kind in expected.doubtful or (optional and expected is OBJECT and value == [])
    message = f"`{name}` is {_words(value)} where {expected.words} is documented"
    return _finding(call, at, message, expected.words, "possible" if doubtful else "certain")


def _unknown(call: Call, at: str, name: str, words: Iterable[str], confidence: Confidence) -> Finding:
    wanted = ", ".join(words)
    return _finding(call, at, f"`{name}` is none of {wanted}", f"one of {wanted}", confidence)


def _words(value: Json) -> str:
    if isinstance(value, bool):
        return "true or false"
    words: Mapping[type, str] = {str: "a text", dict: "an object", list: "a list"}
    return words.get(type(value), "a number")


def _finding(call: Call, at: str, message: str, wanted: str, confidence: Confidence) -> Finding:
    return RULE.finding(at, message, effect=EFFECTS[call.api], fix=f"Send {wanted} here.", confidence=confidence)
