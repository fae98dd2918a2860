"""An event or an attribute is not in the tracking plan, or not as the plan says.

Customer.io takes every name and every type. A misspelled event is a new event that no campaign listens to; an
attribute that is missing, or a text where a number was agreed on, makes messages and segments go wrong that rely on it.

The rule runs only where the option `plan` gives a plan. Event names and the attributes of events and of people are
compared with it; null counts as no value. Attributes that Customer.io itself gives a meaning need not be planned, and
names that hold a value or a person are other rules' business, and so need not be the events that the mobile SDKs of
Pipelines send by themselves. An identify may bring only some of a person's attributes: there nothing is missing, and an
empty text clears an attribute of any type.

Fix: send what the plan says, or take the new event or attribute into the plan (`cio-proxy plan learn` shows what is
sent, `cio-proxy plan check` compares).

See https://docs.customer.io/journeys/events/
See https://docs.customer.io/journeys/reserved-attributes/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cio_proxy.model import (
    Call,
    Fields,
    Finding,
    Json,
    JsonType,
    Known,
    Planned,
    RuleInfo,
    Settings,
    TrackingPlan,
    folded,
    pointer,
    recalled,
)
from cio_proxy.recognise import template

RULE = RuleInfo(
    id="unplanned-event",
    severity="warning",
    category="contract",
    kinds=frozenset({"event", "identify"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

OF_EVENTS = frozenset({"recipient", "from_address", "reply_to"})
"""Keys of event data that Customer.io reads itself (reference 2.2)."""
OF_PEOPLE = frozenset(
    {
        "id",
        "email",
        "phone",
        "anonymous_id",
        "created_at",
        "createdAt",
        "unsubscribed",
        "timezone",
        "language",
    }
)
"""Identifiers, and attributes that Customer.io gives a meaning (reference 6.3), but for those below."""
OF_SDKS = frozenset(
    {
        *("Application Installed", "Application Opened", "Application Updated", "Application Backgrounded"),
        *("Application Foregrounded", "Application Crashed", "Application Uninstalled", "Deep Link Opened"),
        *("Push Notification Received", "Push Notification Tapped", "Push Notification Bounced"),
    }
)
"""Events that a mobile SDK of Pipelines sends without being told to."""
RESERVED = ("_", "cio_")
"""How names begin that Customer.io keeps for itself: `reserved-name` judges them."""


def applies(settings: Settings) -> bool:
    """Only where there is a plan."""
    return settings.plan is not None


def check(call: Call, known: Known) -> Iterable[Finding]:
    """What a call sends beside the plan."""
    plan = known.plan
    if plan is None:
        return ()
    if call.kind == "identify":
        return () if plan.person is None else _attributes(call, plan.person)
    if plan.events is None or not call.name:
        return ()
    fields = plan.events.get(call.name) or plan.events.get(call.name.strip())
    if fields is not None:
        return _event(call, fields)
    if plan.others or _varies(call.name) or (call.api == "pipelines" and call.name in OF_SDKS):
        return ()
    return (_unplanned(call, call.name, plan),)


def _unplanned(call: Call, name: str, plan: TrackingPlan) -> Finding:
    meant = plan.spellings.get(folded(name))
    return RULE.finding(
        call.name_at,
        "the event is not in the tracking plan" + (f", which has `{meant}`" if meant else ""),
        effect="Customer.io stores it as an event of its own, which no campaign or segment of the plan listens to.",
        fix="Send the event that the plan names, or take this one into the plan.",
        corrected=meant,
        name=name,
        confidence="certain",
    )


def _event(call: Call, fields: Fields) -> Iterator[Finding]:
    where, _, key = call.data_at.rpartition("/")
    if not call.data and where == call.body_at and not isinstance(call.body.get(key, {}), dict | None):
        return  # no object at all: `invalid-field` says so
    yield from _beside(call, call.data, call.data_at, fields, OF_EVENTS)
    for name, planned in fields.attributes.items():
        if planned.required and call.data.get(name) is None:
            yield _finding(
                call,
                pointer(call.data_at, name),
                f"the event lacks `{name}`, which the tracking plan requires",
                effect="Customer.io stores the event without it: messages and conditions that use it find nothing.",
                fix=f"Send `{name}` with every such event.",
            )


def _attributes(call: Call, fields: Fields) -> Iterator[Finding]:
    return _beside(call, call.attributes, call.attributes_at, fields, OF_PEOPLE)


def _beside(call: Call, sent: Mapping[str, Json], at: str, fields: Fields, meant: frozenset[str]) -> Iterator[Finding]:
    for name, value in sent.items():
        planned = fields.attributes.get(name)
        if value is None or (value == "" and planned is not None and call.kind == "identify"):
            continue
        if planned is not None:
            if not _fits(value, planned):
                yield _finding(
                    call,
                    pointer(at, name),
                    f"`{name}` is {_kind(value)}, and {_either(planned.types)} in the tracking plan",
                    effect="Customer.io stores it as it comes: what expects the other type fails or finds nobody.",
                    fix=f"Send `{name}` as {_either(planned.types)}.",
                )
        elif not (fields.others or name in meant or name.startswith(RESERVED) or _varies(name)):
            yield _finding(
                call,
                pointer(at, name),
                f"the attribute `{name}` is not in the tracking plan",
                effect="Customer.io stores it, and nothing that was built after the plan looks at it.",
                fix="Send the attribute that the plan names, or take this one into the plan.",
            )


def _finding(call: Call, where: str, message: str, effect: str, fix: str) -> Finding:
    return RULE.finding(where, message, effect=effect, fix=fix, name=call.name, confidence="certain")


def _fits(value: Json, planned: Planned) -> bool:
    if not planned.types:
        return True
    kind = _kind(value)
    if kind == "number":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return "number" in planned.types or ("integer" in planned.types and whole)
    return kind in planned.types


def _kind(value: Json) -> JsonType:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
    return "object"


def _either(types: tuple[JsonType, ...]) -> str:
    return " or ".join(types)


@recalled(10_000)
def _varies(name: str) -> bool:
    """Whether a value or a person stands in a name."""
    return template(name) != name
