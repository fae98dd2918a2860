"""One anonymous id was on the identify of two people.

An anonymous id links what a visitor did to the person they become. Customer.io documents it as unique
and not reusable: with a second person on the same id, what both did as visitors is one heap, and it is
not documented who gets it. The answer is 200 either way. The usual causes are a constant in place of an
id, and an app that keeps the id of its visitor when somebody logs out and another one logs in.

People are compared by the same kind of identifier only: an id and an e-mail address may well be one
person, and so may two e-mail addresses of which one came with an id. Who was merged, or renamed by
`cio_id`, is not judged. Two people may be one whose id was changed unseen, so they are likely; with a third
one the anonymous id is shared for certain.

Fix: make a new anonymous id for every visitor, and another one when somebody logs out (`reset()` in the browser
libraries).

See https://docs.customer.io/journeys/anonymous-events/
See https://docs.customer.io/integrations/api/track/ (identify: anonymous_id)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.model import (
    Call,
    Fact,
    Finding,
    Groups,
    Key,
    Known,
    Origin,
    Outcome,
    Param,
    RuleInfo,
    Sample,
    Span,
    pointer,
)

DAY = 86_400.0

RULE = RuleInfo(
    id="shared-anonymous-id",
    severity="error",
    category="contract",
    kinds=frozenset({"identify", "merge"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),  # to refuse the identify would lose a person for the sake of a visit
    params={
        "remember": Param(
            30 * DAY,
            "how long the people of an anonymous id are remembered: after that its events are gone",
            "duration",
        )
    },
)

KINDS = ("id", "cio_id", "email", "phone")
"""Kinds of identifiers, those first that change least."""
MOST = 8
"""People of one anonymous id that are told apart: more say nothing more."""


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    """Who had an anonymous id; and who may be one person under two identifiers of a kind."""
    person = call.person
    if call.kind == "merge" or (person.cio_id and (person.id or person.email)):
        for identifier in (*call.identifiers, *call.merged.identifiers()):
            yield Fact(Key("renamed", call.workspace, identifier), Span(call.at, call.at), params["remember"])
    if call.kind == "identify" and person.anonymous and call.identifiers and outcome.kind == "accepted":
        samples = {kind: Sample(MOST, plain=frozenset({name})) for kind in KINDS if (name := getattr(person, kind))}
        who, first = _keys(call)
        yield Fact(who, Groups(len(KINDS), samples), params["remember"])
        origin = Origin(call.exchange.id, call.exchange.connection)
        yield Fact(first, Span(call.at, call.at, origin), params["remember"])


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for the identify of another person with an anonymous id that somebody had before."""
    return _judge(call, known) if call.kind == "identify" and call.person.anonymous else ()


def _judge(call: Call, known: Known) -> Iterator[Finding]:
    who, first = _keys(call)
    groups, span = known.groups(who), known.span(first)
    if groups is None or span is None:
        return
    others = _others(call, groups, known)
    if not others or any(known.span(Key("renamed", call.workspace, each)) for each in call.identifiers):
        return
    yield RULE.finding(
        _place(call),
        "the anonymous id was on an identify of another person before",
        effect="Customer.io answers 200. An anonymous id is not reusable: the visits of two people are one heap, and "
        "who gets it is not documented.",
        fix="Make a new anonymous id for every visitor, and another one when somebody logs out.",
        confidence="certain" if others > 1 else "likely",
        related=(span.origin.exchange,),
    )


def _others(call: Call, groups: Groups, known: Known) -> float:
    """How many other people had the anonymous id; 0 where this may be one of them."""
    both = [(groups.samples.get(known.label(kind)), getattr(call.person, kind)) for kind in KINDS]
    if any(sample and name and known.member(name) in sample.hashes for sample, name in both):
        return 0
    sample, name = next((sample, name) for sample, name in both if sample or name)
    return sample.count() if sample and name else 0


def _keys(call: Call) -> tuple[Key, Key]:
    subject = f"anonymous:{call.person.anonymous}"
    return Key("identified-with", call.workspace, subject), Key("identified-first", call.workspace, subject)


def _place(call: Call) -> str:
    if call.api == "pipelines":
        return pointer(call.body_at, "anonymousId")
    if call.attributes.get("anonymous_id"):
        return pointer(call.attributes_at, "anonymous_id")
    return pointer(call.person_at, "anonymous_id")
