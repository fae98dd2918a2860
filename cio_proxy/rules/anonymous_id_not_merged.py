"""Visitors are tracked by anonymous ids, people are identified, and nothing ever joins the two.

Customer.io attaches what a visitor did to a person when an identify of that person carries the visitor's
anonymous id: events of the last 30 days, and of five minutes after it. Nobody's are attached here.
Events that stay anonymous start no campaign, and are deleted after 30 days.

Most visitors never sign up, so few joined ids are no fault: the sign is that there is none at all, in the whole
workspace, since any client may join what another one tracked. Judged is one client: what sends both over one
connection, under one User-Agent (without its version), has both ids at hand. A User-Agent alone is no client: a web
server that tracks visitors and a job that copies people from elsewhere may use one library. There have to be enough
visitors and enough people over the whole window, and the people new: identified within minutes after their
`created_at`, as who has just signed up is. An identify that only updates joins nobody.

Fix: keep the visitor's anonymous id until they sign up, and put it on that identify, as `anonymous_id` on Track and as
`anonymousId` beside `userId` on Pipelines.

See https://docs.customer.io/journeys/anonymous-events/
See https://docs.customer.io/integrations/api/cdp/ (identify)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.model import (
    Call,
    Deadline,
    Fact,
    Finding,
    Form,
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
VISITS: tuple[Kind, ...] = ("event", "page", "screen")

RULE = RuleInfo(
    id="anonymous-id-not-merged",
    severity="warning",
    category="2",
    kinds=frozenset({"identify", *VISITS}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={
        "window": Param(DAY, "how long both are watched: a day has its sign-ups", "duration"),
        "new_within": Param(
            300.0, "how soon after `created_at` a sign-up identifies somebody; jobs come later", "duration"
        ),
        "visitors": Param(20, "so many anonymous ids have to be seen: with fewer, nobody may have signed up"),
        "people": Param(20, "so many people have to be identified: some of them were visitors"),
        "remember": Param(30 * DAY, "how long one joined id speaks for its workspace", "duration"),
    },
)

COUNTED = 100
"""Visitors, people and connections that are told apart; beyond that their number is estimated."""


def concerns(form: Form) -> bool:
    """Visitors, and who is identified."""
    return form.anonymous or form.kind == "identify"


def needs(call: Call, people: People) -> Iterable[Key]:
    """Whether the client has visitors."""
    return (_key(call, "visitors"),) if call.kind == "identify" else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """Whom a client tracks, and that it joins an anonymous id to somebody."""
    anonymous = call.person.anonymous
    if not anonymous:
        return ()
    if call.identifiers:
        return (Fact(_joined(call), Span(call.at, call.at), params["remember"]),)
    if call.kind in VISITS and outcome.kind == "accepted":
        return _visit(call, anonymous, params["window"] + DAY)
    return ()


def _visit(call: Call, anonymous: str, ttl: float) -> Iterator[Fact]:
    yield Fact(_key(call, "visitors"), Sample(COUNTED, plain=frozenset({anonymous})), ttl)
    if connection := call.exchange.connection:
        yield Fact(_key(call, "visited-over"), Sample(COUNTED, plain=frozenset({connection})), ttl)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """The first visitor, and the first one after a window is over, begins a window; then people are counted too."""
    anonymous, is_identify = call.person.anonymous, call.kind == "identify"
    if bool(anonymous) is is_identify or (anonymous and call.identifiers) or outcome.kind != "accepted":
        return ()
    return _counted(call, known)


def _counted(call: Call, known: Known) -> Iterator[Fact]:
    anonymous = call.person.anonymous
    window = known.params["window"]
    begun = _key(call, "window-begun")
    if not anonymous:
        if call.identifiers and known.span(begun) and _is_sign_up(call, known):
            people = Sample(COUNTED, plain=frozenset({call.identifiers[0]}))
            yield Fact(_key(call, "identified-people"), people, window + DAY)
    elif not call.identifiers and known.span(begun) is None:
        watch = (_joined(call), _key(call, "visitors"), _key(call, "identified-people"))
        yield Fact(begun, Span(call.at, call.at), window)
        yield Fact(_key(call, RULE.id), Deadline(call.at + window, RULE.id, watch, _finding(call)), window + DAY)


def due(deadline: Deadline, known: Known) -> Iterable[Finding]:
    """The window is over: a finding if there were many of both, and nothing joined them."""
    joined, visitors, people = deadline.watch
    if known.span(joined) is not None:
        return ()
    seen, identified = known.sample(visitors), known.sample(people)
    if seen is None or seen.count() < known.params["visitors"]:
        return ()
    if identified is None or identified.count() < known.params["people"]:
        return ()
    return (deadline.seed,)


def _finding(call: Call) -> Finding:
    where = call.person_at if call.api == "track_v2" else call.body_at
    return RULE.finding(
        pointer(where, "anonymousId" if call.api == "pipelines" else "anonymous_id"),
        "visitors are tracked by anonymous ids, and no identify carries one",
        effect="Customer.io attaches these events to nobody: they start no campaign, and are deleted after 30 days.",
        fix="Put the visitor's anonymous id on the identify of their sign-up.",
        confidence="likely",
    )


def _key(call: Call, kind: str) -> Key:
    agent = (call.exchange.header("user-agent") or "").partition("/")[0].strip()
    return Key(kind, call.workspace, f"client:{agent}")


def _joined(call: Call) -> Key:
    return Key("joined", call.workspace, "anonymous ids")


def _is_sign_up(call: Call, known: Known) -> bool:
    """Whether a client that has visitors just made this person."""
    at = created(call.attributes)
    if call.updates_only or at is None or abs(call.at - at) > known.params["new_within"]:
        return False
    connections = known.sample(_key(call, "visited-over"))
    return connections is not None and known.member(call.exchange.connection) in connections.hashes
