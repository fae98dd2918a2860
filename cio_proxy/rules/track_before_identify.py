"""An event was sent before the person it is about was identified.

Customer.io answers 200 to an event for an identifier it does not know. What it keeps of it is not
documented: at best a bare profile that holds nothing but the identifier, so a campaign triggered by
the event finds no e-mail address and no attributes and mails nobody.

The order is proven by what follows: a first identify whose `created_at` is not before the event says
that the person was new, if the proxy was there to see it; a first identify within five minutes after an
event named like a sign-up says nearly as much. Two requests on different connections that arrive within
the grace window may have overtaken each other and prove nothing. With `people: complete` an unknown
person is unknown; the identify may still be on its way, so an event that would be refused waits for it for a third of a
second, and one that is only reported is looked at again once it has its answer.

The order alone says little of one person, who may be known to Customer.io for years. It says more of many:
where hardly anybody is identified first, the integration sends the event first. People are counted whose first
event came when the proxy had watched for days, and whose first identify, with an e-mail address, came
within five minutes after it; anybody who was identified before an event counts for the right order.

Whom Pipelines identified is known on Track, and the other way round, as far as it is known that both are one workspace.

An event whose own time is over an hour past is a backfill or comes from a queue: when it was sent says nothing of
the order in which things happened.

Fix: send (and await) the identify first, then the event; for visitors who have no id yet send the event with an
anonymous id and put that id on the identify.

See https://docs.customer.io/integrations/api/track/ (identify, track)
See https://docs.customer.io/journeys/anonymous-events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.model import (
    DELETED,
    IDENTIFIED,
    MINUTE,
    Call,
    Confidence,
    Fact,
    Finding,
    Groups,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    Span,
    lapse,
    recalled,
)
from cio_proxy.recognise import created, moment

DAY = 86_400.0
CLOCK_SKEW = 300.0
SIGN_UP = 300.0
"""An identify that comes later than this after a sign-up event is another matter."""

BACKFILL = 3600.0
"""An event that is older than this when it is sent is history, and no step of a sign-up."""

RULE = RuleInfo(
    id="track-before-identify",
    severity="error",
    category="2",
    kinds=frozenset({"identify", "event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        # Two workers or queues come so far apart though an app called them in the right order: the libraries wait 10 s
        # for an answer before they send again, and one for Pipelines sends every 10 s (reference 8.1, 8.2).
        "grace": Param(
            10.0, "how long after an event an identify on another connection may have been overtaken", "duration"
        ),
        "remember": Param(30 * DAY, "how long the first event of a person is remembered", "duration"),
        "warm_up": Param(
            3 * DAY,
            "how long a workspace is watched before the order of its people counts: who comes often has come by then",
            "duration",
        ),
        "people": Param(
            20, "how many people have to show the wrong order: with fewer, one odd path through an app is enough"
        ),
        "right_share": Param(
            5, "percent of people in the right order from which on the wrong one is an exception and not the rule"
        ),
    },
)

WRONG, RIGHT = "event first", "identify first"
COUNTED = 100
"""People of each order that are told apart; beyond that their number is estimated."""

EFFECT = (
    "Customer.io answers 200 and has no attributes or e-mail address to use when the event arrives: "
    "campaigns triggered by it reach nobody."
)
EFFECT_IF_NEW = (
    "Customer.io answers 200; for a new person it has no attributes or e-mail address to use when the event arrives, "
    "and campaigns triggered by it reach nobody."
)
FIX = "Identify the person first and await the answer, then send the event."

_SIGN_UP = re.compile(
    r"(?:user|account|customer|member|person|profile)?sign(?:ed)?up(?:complete|completed|success|finished)?"
    r"|(?:user|account|customer|member)(?:registered|registration(?:complete|completed|success|finished)?)"
)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """An event for an unknown person (only when all people are known), or the identify that comes too late."""
    if known.people == "complete":
        return _unknown_person(call, known) if call.kind == "event" else ()  # and not again once they are identified
    if call.kind == "identify" and not call.updates_only and (found := _late(call, known)):
        return _late_identify(call, known, *found)
    return ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """When the first event of a person came, if it was accepted, and the first that is named like a sign-up."""
    if call.kind != "event" or outcome.kind != "accepted" or not call.name or _is_backfill(call):
        return ()
    return _came(call, call.name, params)


def _came(call: Call, name: str, params: Mapping[str, Any]) -> Iterator[Fact]:
    ttl = params["remember"]
    for identifier in call.identifiers:
        yield Fact(call.key("event-first", identifier), call.seen, ttl)
        if is_sign_up(name):
            yield Fact(call.key("sign-up-first", identifier), call.seen, ttl)


def needs(call: Call, people: People) -> Iterable[Key]:
    """In which order others came, of an identify; of an event whether another API knows the person."""
    if call.kind == "event":
        return (Key(IDENTIFIED, home, each) for home in call.homes[1:] for each in call.identifiers)
    return (_order(call),) if call.person.email is not None else ()


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """In which order the two calls of this person came, once the second one was accepted."""
    if not call.identifiers or outcome.kind != "accepted":
        return ()
    if call.kind == "event":
        for identifier in call.identifiers:
            if known.span(call.key("event-first", identifier)):
                return ()
        if not _is_known(call, known, IDENTIFIED):
            return ()
        order = RIGHT
    else:
        found = None if call.updates_only else _late(call, known)
        if found is None or not _counts(call, found[1], known) or _is_old(call, found[1]):
            return ()
        order = WRONG
    people = Groups(2, {order: Sample(COUNTED, plain=frozenset({call.identifiers[0]}))})
    return (Fact(_order(call), people, known.params["remember"]),)


def _is_backfill(call: Call) -> bool:
    happened = moment(call.body.get("timestamp"))
    return happened is not None and happened < call.at - BACKFILL


def _is_old(call: Call, event: Span) -> bool:
    created_at = created(call.attributes)
    return created_at is not None and created_at < event.first - CLOCK_SKEW


@recalled(1_000)
def is_sign_up(name: str) -> bool:
    """Whether an event name says that a person was just created."""
    return _SIGN_UP.fullmatch(re.sub(r"[^a-z]", "", name[:100].lower())) is not None


def _unknown_person(call: Call, known: Known) -> Iterator[Finding]:
    identifiers = call.identifiers
    if not identifiers or call.person.cio_id is not None:  # Customer.io gives a cio_id to people it has
        return
    for home in call.homes:
        for identifier in identifiers:
            if _is_identified(known, home, identifier) or known.in_flight(Key(IDENTIFIED, home, identifier)):
                return
    yield RULE.finding(
        call.person_at,
        "an event for a person who was never identified",
        effect=EFFECT,
        fix=FIX,
        confidence="certain",
        name=call.name,
        early=True,
    )


def _late_identify(call: Call, known: Known, identifier: str, event: Span) -> Iterator[Finding]:
    seconds = call.at - event.first
    gap = lapse(seconds)
    created_at = created(call.attributes)
    if created_at is not None:
        if created_at < max(event.first - CLOCK_SKEW, known.since):
            return  # there before the event, or before anybody looked
        message = f"the first identify came {gap} after an event for the same new person"
        yield _finding(call, event, message, "certain")
    elif seconds <= SIGN_UP and known.span(Key("sign-up-first", call.workspace, identifier)):
        message = f"the first identify came {gap} after a sign-up event for the same person"
        yield _finding(call, event, message, "likely")
    else:
        message = f"the first identify that was seen came {gap} after an event for the same person"
        if _counts(call, event, known) and (wrong := _usual(call, known)):
            yield _finding(call, event, f"{message}; so it was for {wrong:.0f} people", "likely")
        else:
            yield _finding(call, event, message, "possible")


def _late(call: Call, known: Known) -> tuple[str, Span] | None:
    """The identifier and the first event of a person that this identify is the first of; None where it is not late."""
    if _is_known(call, known, IDENTIFIED, DELETED):
        return None
    for identifier in call.identifiers:
        event = known.span(call.key("event-first", identifier))
        if event is not None:
            return (identifier, event) if _is_in_order(call, event, known.params["grace"]) else None
    return None


def _order(call: Call) -> Key:
    return Key("order", call.workspace, "order of event and identify")


def _counts(call: Call, event: Span, known: Known) -> bool:
    """Whether a late identify says something of the integration: not of people who were there before anybody looked."""
    if call.person.email is None or call.at - event.first > SIGN_UP:
        return False
    warm: float = known.since + known.params["warm_up"]
    return event.first >= warm


def _usual(call: Call, known: Known) -> float:
    """How many people came in the wrong order, with this one; 0 unless they are many and hardly anybody else came."""
    groups = known.groups(_order(call))
    if groups is None:
        return 0
    counts = groups.counts()
    wrong, right = counts.get(WRONG, 0) + 1, counts.get(RIGHT, 0)
    enough = wrong >= known.params["people"] and right < (wrong + right) * known.params["right_share"] / 100
    return wrong if enough else 0


def _finding(call: Call, event: Span, message: str, confidence: Confidence) -> Finding:
    return RULE.finding(
        call.person_at,
        message,
        effect=EFFECT if confidence == "certain" else EFFECT_IF_NEW,
        fix=FIX,
        confidence=confidence,
        related=(event.origin.exchange,),
    )


def _is_in_order(call: Call, event: Span, grace: float) -> bool:
    """One connection (or one batch) keeps its order; two may overtake each other."""
    same = event.origin.connection == call.exchange.connection
    return same or call.at - event.first > grace


def _is_known(call: Call, known: Known, *kinds: str) -> bool:
    """Whether one of these is known of the person, from whatever API."""
    return any(known.span(Key(kind, home, each)) for home in call.homes for each in call.identifiers for kind in kinds)


def _is_identified(known: Known, home: str, identifier: str) -> bool:
    identified = known.span(Key(IDENTIFIED, home, identifier))
    deleted = known.span(Key(DELETED, home, identifier))
    return identified is not None and (deleted is None or identified.last + MINUTE >= deleted.last)
