"""The same person is identified again and again, and nothing about them has changed.

Customer.io takes every such call and has nothing to store. It costs the app a request, counts against the rate that
Customer.io asks to keep to, and keeps the activity log of the person full. The usual causes are an identify in the code
of every page or request, and a job that sends all people, changed or not.

Judged are the latest identifies of a person: as many as `times` in a row that say the same, within `window`. One that
says something else in between is a change. What is changed by every call, such as `last_seen_at`, is no repetition
either. A heartbeat, which says again and again that somebody is there, says what it is meant to say (reference 9.14):
it holds an attribute named in `heartbeats`, or, beside the person's identifiers, nothing but states: true or false,
`away`, `last_seen`.

Fix: identify a person when they sign up, when they sign in, and when one of their attributes changes.

See https://docs.customer.io/journeys/identifying-people/
See https://docs.customer.io/integrations/api/track/ (identify)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.heartbeats import NAMES, is_heartbeat
from cio_proxy.model import Call, Fact, Finding, Groups, Key, Known, Outcome, Param, RuleInfo, Sample
from cio_proxy.recognise import moment_of, place_label

RULE = RuleInfo(
    id="redundant-identify",
    severity="info",
    category="contract",
    kinds=frozenset({"identify"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={
        # Somebody who signs in on a few devices, or a form that is sent twice, stays below.
        "times": Param(10, "how many identifies in a row must say the same"),
        # An hourly job that sends everybody is many a sync, and legitimate (reference 9.14).
        "window": Param(3600.0, "within how much time", "duration"),
        "heartbeats": Param(
            NAMES,
            "attributes that are sent to say that a person is there",
            "names",
        ),
    },
)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """What this identify said, among the latest of the person."""
    key = _key(call)
    if key is None or outcome.kind != "accepted":
        return ()
    said = Sample(2, plain=frozenset((call.state,)))  # two that came at once may say two things
    return (Fact(key, Groups(max(1, params["times"] - 1), {place_label(call.at, call.item): said}), params["window"]),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding when the latest identifies all said what this one says."""
    key = _key(call)
    latest = None if key is None else known.groups(key)
    if latest is None or len(latest.samples) < known.params["times"] - 1:
        return ()
    return _again(call, latest.samples, known)


def _again(call: Call, latest: Mapping[str, Sample], known: Known) -> Iterator[Finding]:
    params = known.params
    same = (known.member(call.state),)
    first = min(map(moment_of, latest))
    if call.at - first > params["window"] or any(said.hashes != same for said in latest.values()):
        return
    if is_heartbeat(call.attributes, params["heartbeats"]):
        return
    if call.is_gone_since(first, known):
        return
    yield RULE.finding(
        call.attributes_at,
        f"the latest {len(latest) + 1} identifies of this person, within {_span(call.at - first)}, all say the same",
        effect="Customer.io has nothing to store; each call counts against the rate it asks to keep to.",
        fix="Identify a person when they sign up or in, and when an attribute changes.",
        confidence="likely",
    )


def _key(call: Call) -> Key | None:
    person = call.subject
    return None if person is None else call.key("identify-latest", person)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
