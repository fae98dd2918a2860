"""A new person was created without an e-mail address, and none followed.

Customer.io creates the person and answers 200. Without the `email` attribute they can never receive
an e-mail: campaigns skip them silently. Later calls may add it, since an identify is a partial
update, so the rule waits for the end of its window before it says anything.

Only people whose creation the traffic proves are judged: an identify with a fresh `created_at`, or
the first identify of all when every existing person is known (`people: complete`).

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
from cio_proxy.recognise import moment

DAY = 86_400.0

SETTLING: tuple[Kind, ...] = ("form_submit", "merge", "delete", "suppress")
"""After these a person has an address, or is gone, or needs none: nothing is missing any more."""

RULE = RuleInfo(
    id="missing-email",
    severity="warning",
    category="4",
    kinds=frozenset({"identify", *SETTLING}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    params={
        "window": Param(600.0, "how long an e-mail address may follow", "duration"),
        "new_within": Param(3600.0, "how fresh `created_at` must be to prove that a person is new", "duration"),
        "remember": Param(
            30 * DAY, "how long a person's e-mail address is remembered (as a fact, not its value)", "duration"
        ),
    },
)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """At once only where every person is known: an unknown one who was created just now has no e-mail address."""
    if call.kind != "identify":
        return ()
    return _unknown_person(call, known) if known.people == "complete" and _lacks_email(call) else ()


def _unknown_person(call: Call, known: Known) -> Iterator[Finding]:
    if not _is_fresh(call, known.params["new_within"]):
        return
    identifiers = call.identifiers
    for identifier in identifiers:
        for kind in (HAS_EMAIL, IDENTIFIED):
            key = Key(kind, call.workspace, identifier)
            if known.span(key) or known.in_flight(key):
                return
    if identifiers:
        yield _finding(call)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    """That nothing is missing of a person, or any more; or a deadline for one who was created without an address."""
    identifiers = call.identifiers
    if call.kind == "merge":
        identifiers += tuple(call.merged.identifiers())
    keys = tuple(Key(HAS_EMAIL, call.workspace, identifier) for identifier in identifiers)
    if call.kind in ("delete", "suppress", "merge") or not _lacks_email(call):
        span = Span(call.at, call.at)
        yield from (Fact(key, span, params["remember"]) for key in keys)
    elif call.kind == "identify" and keys and outcome.kind == "accepted" and _is_fresh(call, params["new_within"]):
        deadline = Deadline(call.at + params["window"], RULE.id, keys, _finding(call))
        yield Fact(Key("missing-email", call.workspace, identifiers[0]), deadline, params["window"] + DAY)


def due(deadline: Deadline, known: Known) -> Iterator[Finding]:
    """The window is over: a finding if no e-mail address followed."""
    if not any(known.span(key) for key in deadline.watch):
        yield deadline.seed


def _finding(call: Call) -> Finding:
    return RULE.finding(
        pointer(call.attributes_at, "email"),
        "a new person without an e-mail address",
        effect="Customer.io creates the person and answers 200; e-mail campaigns skip them without a word.",
        fix="Send `email` with the identify that creates the person.",
        confidence="likely",
    )


def _lacks_email(call: Call) -> bool:
    if call.person.email is not None or call.attributes.get("_update") is True:
        return False
    return call.person.id is None or "@" not in call.person.id


def _is_fresh(call: Call, within: float) -> bool:
    created = moment(call.attributes.get("created_at", call.attributes.get("createdAt")))
    return created is not None and abs(call.at - created) <= within
