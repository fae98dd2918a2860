"""One person was made twice, by id and by e-mail address, and cannot be joined by an identify any more.

Where id and e-mail address both identify people, an identify that carries both joins them, as long as only
one of the two is known. Here each was identified by itself before, often from two services. Then path and
body belong to two different people: Customer.io answers 200 and the update fails in its activity log. One of
the two has the events, the other one the address, and campaigns see half of each.

Neither profile can be seen on the wire, so the rule waits for the identify that says that both are one
person, and wants proof that they were apart until then: one of them was made without the other, by an identify
with a fresh `created_at`, while the proxy was there to see it; and nothing has joined them since, no identify
or form with both, no merge. Who sent what is not asked: two services often use one SDK, and a person is as
split if one service did it. Two that never meet in one call may well be two people.

Fix: identify everybody by the same kind of identifier everywhere, or give both on the first identify; join who is split
by a merge.

See https://docs.customer.io/journeys/identifying-people/
See https://docs.customer.io/integrations/api/track/ (identify, merge)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cio_proxy.model import (
    DELETED,
    IDENTIFIED,
    MINUTE,
    Call,
    Fact,
    Finding,
    Known,
    Outcome,
    Param,
    RuleInfo,
    Span,
)
from cio_proxy.recognise import created

DAY = 86_400.0

RULE = RuleInfo(
    id="split-identity",
    severity="warning",
    category="contract",
    kinds=frozenset({"identify", "form_submit", "merge"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),  # the two are there already
    surest="likely",
    params={
        "new_within": Param(3600.0, "how fresh `created_at` must be to prove that a person is made", "duration"),
        "remember": Param(30 * DAY, "how long it is remembered by what a person was identified", "duration"),
    },
)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for the identify that would join two who are apart."""
    person = call.person
    if call.kind != "identify" or person.id is None or person.email is None or person.cio_id is not None:
        return ()
    return _judge(call, known)


def _judge(call: Call, known: Known) -> Iterator[Finding]:
    two = [f"id:{call.person.id}", f"email:{call.person.email}"]
    apart = [known.span(call.key("alone", each)) for each in two]
    if None in apart or any(known.span(call.key(kind, each)) for kind in ("joined-identity", DELETED) for each in two):
        return
    made = [known.span(call.key("made-alone", each)) for each in two]
    if not any(span is not None and span.first >= known.since - MINUTE for span in made):
        return
    yield RULE.finding(
        call.person_at,
        "the id and the e-mail address were identified apart before, and are two people by now",
        effect="Customer.io answers 200 and joins nothing: where both identify people the update fails without a word, "
        "and events and messages stay with one half each.",
        fix="Merge the two, and identify everybody by the same kind of identifier, or by both from the first time on.",
        confidence="likely",
        related=tuple(span.origin.exchange for span in apart if span is not None),
    )


def review(call: Call, outcome: Outcome, known: Known) -> Iterator[Fact]:
    """Who was identified first by one identifier alone, who was made so, and who was joined after that."""
    identifiers = (*call.identifiers, *call.merged.identifiers())
    if not identifiers or outcome.kind == "refused":
        return
    ttl = known.params["remember"]
    new = [each for each in identifiers if known.span(call.key(IDENTIFIED, each)) is None]
    if call.kind == "merge" or len(identifiers) > 1:
        if new or any(known.span(call.key("alone", each)) for each in identifiers):
            seen = Span(call.at, call.at)
            yield from (Fact(call.key("joined-identity", each), seen, ttl) for each in identifiers)
    elif new and call.kind == "identify" and outcome.kind == "accepted" and not call.updates_only:
        yield Fact(call.key("alone", new[0]), call.seen, ttl)
        created_at = created(call.attributes)
        if created_at is not None and abs(call.at - created_at) <= known.params["new_within"]:
            yield Fact(call.key("made-alone", new[0]), Span(created_at, call.at), ttl)
