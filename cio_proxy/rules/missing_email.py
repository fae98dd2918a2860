"""A new person was created without an e-mail address, or without a required attribute, and none followed.

Customer.io creates the person and answers 200. Without the `email` attribute they can never receive
an e-mail: campaigns skip them silently. Later calls may add it, since an identify is a partial
update, so the rule waits for the end of its window before it says anything.

People with a phone number or a device are reached without e-mail, and are not judged.

Only people whose creation the traffic proves are judged: an identify with a fresh `created_at`, or
the first identify of all when every existing person is known (`people: complete`). Attributes that the
configuration names as `required` are judged alike, at the end of the window.

Fix: send `email` with the identify that creates the person; for people who will never have one, switch the rule
off or make its window longer.

See https://docs.customer.io/journeys/attributes/ (reserved attributes)
See https://docs.customer.io/integrations/api/track/ (identify)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.model import (
    HAS_EMAIL,
    IDENTIFIED,
    Call,
    Deadline,
    Fact,
    Finding,
    Key,
    Kind,
    Known,
    Outcome,
    Param,
    RuleInfo,
    Span,
    pointer,
)
from cio_proxy.recognise import created

DAY = 86_400.0

SETTLING: tuple[Kind, ...] = ("form_submit", "merge", "delete", "suppress", "device_add")
"""After these a person has an address, or is gone, or is reached by push: nothing is missing any more."""

EMAIL = "email"

RULE = RuleInfo(
    id="missing-email",
    severity="warning",
    category="4",
    kinds=frozenset({"identify", *SETTLING}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    params={
        "window": Param(600.0, "how long an e-mail address, or what else is required, may follow", "duration"),
        "new_within": Param(3600.0, "how fresh `created_at` must be to prove that a person is new", "duration"),
        "remember": Param(
            30 * DAY, "how long a person's e-mail address is remembered (as a fact, not its value)", "duration"
        ),
        "required": Param((), "attributes that every new person must have beside `email`", "names"),
    },
)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """At once only where every person is known: an unknown one who was created just now has no e-mail address."""
    if call.kind != "identify":
        return ()
    if known.people != "complete" or not _lacks(call, EMAIL) or _has_phone(call):
        return ()
    return _unknown_person(call, known)


def _unknown_person(call: Call, known: Known) -> Iterator[Finding]:
    if not _is_fresh(call, known.params["new_within"]):
        return
    identifiers = call.identifiers
    for identifier in identifiers:
        for key in (_given(call, identifier, EMAIL), Key(IDENTIFIED, call.workspace, identifier)):
            if known.span(key) or known.in_flight(key):
                return
    if identifiers:
        yield _finding(call, EMAIL)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    """That nothing is missing of a person, or any more; or a deadline for one who was created without it."""
    identifiers = call.identifiers
    if call.kind == "merge":
        identifiers += tuple(call.merged.identifiers())
    if not identifiers:
        return
    for attribute in _asked(call, params):
        keys = tuple(_given(call, identifier, attribute) for identifier in identifiers)
        if call.kind in ("delete", "suppress", "merge", "device_add") or not _lacks(call, attribute):
            span = Span(call.at, call.at)
            yield from (Fact(key, span, params["remember"]) for key in keys)
        elif attribute == EMAIL and _has_phone(call):
            continue
        elif call.kind == "identify" and outcome.kind == "accepted" and _is_fresh(call, params["new_within"]):
            deadline = Deadline(call.at + params["window"], RULE.id, keys, _finding(call, attribute))
            yield Fact(keys[0]._replace(kind=RULE.id), deadline, params["window"] + DAY)


def _asked(call: Call, params: Mapping[str, Any]) -> Iterable[str]:
    """What a call may settle or lack: a device makes up for an address, and for nothing else."""
    return (EMAIL,) if call.kind == "device_add" else dict.fromkeys((EMAIL, *params["required"]))


def due(deadline: Deadline, known: Known) -> Iterator[Finding]:
    """The window is over: a finding if what was missing did not follow; where all are known it was told at once."""
    if known.people == "complete" and deadline.seed.name is None:
        return
    if not any(known.span(key) for key in deadline.watch):
        yield deadline.seed


def _given(call: Call, identifier: str, attribute: str) -> Key:
    """The fact that a person has an attribute."""
    if attribute == EMAIL:
        return call.key(HAS_EMAIL, identifier)
    return call.key("has-attribute", f"{identifier}\0{attribute}")


def _finding(call: Call, attribute: str) -> Finding:
    where = pointer(call.attributes_at, attribute)
    if attribute != EMAIL:
        return RULE.finding(
            where,
            f"a new person without {attribute}, which is required",
            effect="Customer.io creates the person and answers 200; segments and messages that use it pass them over.",
            fix="Send it with the identify that creates the person, or take it out of `required`.",
            confidence="likely",
            name=attribute,
        )
    return RULE.finding(
        where,
        "a new person without an e-mail address",
        effect="Customer.io creates the person and answers 200; e-mail campaigns skip them without a word.",
        fix="Send `email` with the identify that creates the person.",
        confidence="likely",
    )


def _lacks(call: Call, attribute: str) -> bool:
    if call.updates_only or any(each.startswith(f"{attribute}:") for each in call.identifiers):
        return False
    if attribute == EMAIL:
        return call.person.id is None or "@" not in call.person.id
    return call.kind == "identify" and call.attributes.get(attribute) in (None, "")


def _has_phone(call: Call) -> bool:
    """Whether somebody can be reached by text message: a product without e-mail is a product (reference 9.10)."""
    return bool(call.person.phone or call.attributes.get("phone"))


def _is_fresh(call: Call, within: float) -> bool:
    at = created(call.attributes)
    return at is not None and abs(call.at - at) <= within
