"""A new person was created without an e-mail address, or without a required attribute, and none followed.

Customer.io creates the person and answers 200. Without the `email` attribute they can never receive
an e-mail: campaigns skip them silently. Later calls may add it, since an identify is a partial
update, so the rule waits for the end of its window before it says anything.

People with a phone number or a device are reached without e-mail, and are not judged. A product may do without
addresses altogether: where most of the people who were new in a workspace, this week and the last, have none, each of
them is `possible` only.

Only people whose creation the traffic proves are judged: an identify with a fresh `created_at`, or
the first identify of all when every existing person is known (`people: complete`). Attributes that the
configuration names as `required` are judged alike, at the end of the window.

Fix: send `email` with the identify that creates the person; for people who will never have one, switch the rule
off or make its window longer.

See https://docs.customer.io/journeys/attributes/ (reserved attributes)
See https://docs.customer.io/integrations/api/track/ (identify)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cio_proxy.model import (
    HAS_EMAIL,
    IDENTIFIED,
    Call,
    Confidence,
    Deadline,
    Fact,
    Finding,
    Groups,
    Key,
    Kind,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    Span,
    pointer,
)
from cio_proxy.recognise import created

DAY = 86_400.0
WEEK = 7 * DAY

SETTLING: tuple[Kind, ...] = ("form_submit", "merge", "delete", "suppress", "device_add")
"""After these a person has an address, or is gone, or is reached by push: nothing is missing any more."""

EMAIL = "email"
_PHONE = re.compile(r"\+[1-9][0-9]{7,14}\Z")
NEW, ADDRESSED = "new", "with an address"
COUNTED = 100
"""New people that are told apart; beyond that their number is estimated."""

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
        "people": Param(
            3, "so many new people have to be seen before most of them say that a product does without addresses"
        ),
        "share": Param(50, "percent of the new people with an address from which on a missing one is a fault"),
        "required": Param((), "attributes that every new person must have beside `email`", "names"),
    },
)


def needs(call: Call, people: People) -> Iterable[Key]:
    """Who was new last week, where a new person is told of at once."""
    return (_new_people(call)[1],) if people == "complete" and call.kind == "identify" and _lacks(call, EMAIL) else ()


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
    for key in (Key(IDENTIFIED, home, each) for home in call.homes for each in identifiers):
        if known.span(key) or known.in_flight(key):
            return
    if identifiers:
        yield replace(_finding(call, EMAIL), confidence=_confidence(_new_people(call), known, before=1))


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    """That nothing is missing of a person, or any more; or a deadline for one who was created without it."""
    identifiers = call.identifiers
    if call.kind == "merge":
        identifiers += tuple(call.merged.identifiers())
    if not identifiers:
        return
    if call.kind == "identify" and outcome.kind == "accepted" and _is_new(call, params["new_within"]):
        yield _counted(call, (NEW,) if _lacks(call, EMAIL) else (NEW, ADDRESSED))
    for attribute in _asked(call, params):
        keys = tuple(_given(home, identifier, attribute) for home in call.homes for identifier in identifiers)
        if call.kind in ("delete", "suppress", "merge", "device_add") or not _lacks(call, attribute):
            span = Span(call.at, call.at)
            yield from (Fact(key, span, params["remember"]) for key in keys)
        elif attribute == EMAIL and _has_phone(call):
            continue
        elif call.kind == "identify" and outcome.kind == "accepted" and _is_fresh(call, params["new_within"]):
            watch = (*keys, *_new_people(call)) if attribute == EMAIL else keys
            deadline = Deadline(call.at + params["window"], RULE.id, watch, _finding(call, attribute))
            yield Fact(keys[0]._replace(kind=RULE.id), deadline, params["window"] + DAY)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """That the address of a new person followed."""
    if call.kind != "identify" or call.person.email is None or outcome.kind != "accepted":
        return ()
    for identifier in call.identifiers:
        made = known.span(Key(IDENTIFIED, call.workspace, identifier))
        if made is not None and made.first >= call.at - known.params["window"]:
            return () if known.span(_given(call.workspace, identifier, EMAIL)) else (_counted(call, (ADDRESSED,)),)
    return ()


def _counted(call: Call, labels: Iterable[str]) -> Fact:
    person = Sample(COUNTED, plain=frozenset(call.identifiers[:1]))
    return Fact(_new_people(call)[0], Groups(2, dict.fromkeys(labels, person)), 2 * WEEK)


def _new_people(call: Call) -> tuple[Key, Key]:
    """The keys of who was new this week, and the week before."""
    week = call.at // WEEK
    return _of_week(call.workspace, week), _of_week(call.workspace, week - 1)


def _of_week(workspace: str, week: float) -> Key:
    return Key("new-people", workspace, f"{week:.0f}\0new people", named=True)


def _confidence(keys: Iterable[Key], known: Known, before: int = 0) -> Confidence:
    """How sure it is that a product wants addresses, as far as there are new people under these keys.

    `before` counts who is not among them yet.
    """
    seen = [groups.counts() for key in keys if (groups := known.groups(key)) is not None]
    new, addressed = (sum(counts.get(label, 0) for counts in seen) for label in (NEW, ADDRESSED))
    new += before
    none_wanted = new >= known.params["people"] and addressed < new * known.params["share"] / 100
    return "possible" if none_wanted else "likely"


def _asked(call: Call, params: Mapping[str, Any]) -> Iterable[str]:
    """What a call may settle or lack: a device makes up for an address, and for nothing else."""
    return (EMAIL,) if call.kind == "device_add" else dict.fromkeys((EMAIL, *params["required"]))


def due(deadline: Deadline, known: Known) -> Iterator[Finding]:
    """The window is over: a finding if what was missing did not follow; where all are known it was told at once."""
    if known.people == "complete" and deadline.seed.name is None:
        return
    if not any(known.span(key) for key in deadline.watch):
        yield replace(deadline.seed, confidence=_confidence(deadline.watch, known))


def _given(home: str, identifier: str, attribute: str) -> Key:
    """The fact that a person has an attribute."""
    if attribute == EMAIL:
        return Key(HAS_EMAIL, home, identifier)
    return Key("has-attribute", home, f"{identifier}\0{attribute}")


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
    """Whether somebody can be reached by text message: a product without e-mail is a product (reference 9.10).

    Track takes a phone number in the path for an id (reference 1.3), and it is one all the same.
    """
    id = call.person.id
    return bool(call.person.phone or call.attributes.get("phone")) or (id is not None and _PHONE.match(id) is not None)


def _is_new(call: Call, within: float) -> bool:
    return bool(call.identifiers) and not call.updates_only and _is_fresh(call, within)


def _is_fresh(call: Call, within: float) -> bool:
    at = created(call.attributes)
    return at is not None and abs(call.at - at) <= within
