"""Every update of a person is turned into a trigger: by an event after each identify, or by identifies without news.

Customer.io has no identify trigger. An identify updates attributes; campaigns start on events, on people who come into
a segment, on dates, forms and webhooks. There are two ways to have one all the same, and both send people messages
that they should not get. One is an event such as `user_updated` after every identify: a campaign on it starts whenever
anything changes. The other is to identify a person many times a minute, with hardly more than a counter or the
time of the last visit changed: segments are worked out anew each time, and people go in and out of them.

An event is told of when it follows nearly each identify of the day, at once, over enough events and people; one that is
sent when people edit their profile is far rarer than identifies. Identifies are told of for people who are identified
`times` times within `within`, where texts, flags and lists stay the same and only numbers and times change, and where
several people are. Where nothing changes at all it is `redundant-identify`. A heartbeat says that somebody is there,
and sends little else: it is none of this, nor is a job that sends everybody, or history.

Fix: send an event for what happened (`plan_upgraded`, `address_changed`) and start campaigns on that; identify people
when they sign up, sign in, or change.

See https://docs.customer.io/journeys/campaign-triggers/
See https://docs.customer.io/journeys/identifying-people/
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from cio_proxy.heartbeats import IDENTIFYING, NAMES, is_heartbeat
from cio_proxy.model import (
    Call,
    Fact,
    Finding,
    Form,
    Groups,
    Json,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    folded,
)
from cio_proxy.recognise import moment, moment_of, place_label

DAY = 86_400.0

RULE = RuleInfo(
    id="trigger-on-every-update",
    severity="warning",
    category="5",
    kinds=frozenset({"identify", "event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={
        # Fewer may be an afternoon on which everybody who signed in changed something.
        "events": Param(50, "how often the event must have followed an identify"),
        "event_people": Param(10, "of how many people"),
        "follows": Param(5.0, "how soon the event follows the identify", "duration"),
        # Presence is told every 15 to 60 seconds: less often than this.
        "times": Param(10, "how many identifies of one person are too many"),
        "within": Param(60.0, "within how much time", "duration"),
        "people": Param(5, "of how many people: of one it may be a test, or a row that is changed by hand"),
        "heartbeats": Param(
            NAMES,
            "attributes that are sent to say that a person is there",
            "names",
        ),
    },
)

_WORDS = """
    identify identified useridentify useridentified identifyuser identifycall update updated userupdate userupdated
    updateuser updateduser profileupdate profileupdated updateprofile userprofileupdated customerupdate customerupdated
    updatecustomer personupdate personupdated updateperson contactupdate contactupdated attributeupdated
    attributesupdate attributesupdated updateattributes attributechanged attributeschanged userattributesupdated
    userattributeschanged customerattributesupdated traitsupdated traitschanged userchanged profilechanged usersync
    usersynced syncuser profilesynced
"""
UPDATES: Final = frozenset(_WORDS.split())
"""Names of events that say that something changed and not what, however their words are joined."""
NEAR: Final = (0.8, 1.25)
"""How many identifies there may be for each event that follows one: that is nearly one, beside what is estimated."""
ALONE: Final = 0.1
"""Of the events so many may follow no identify."""
COUNTED: Final = 300
"""Occurrences and people that are told apart; beyond that their number is estimated."""
LATEST, CHURNING, FOLLOWING = "identify-churn", "identify-churning", "update-events"
IDENTIFIES: Final = "\0identify"


def concerns(form: Form) -> bool:
    """Identifies, and events that are called after an update."""
    return form.kind == "identify" or is_update(form)


def needs(call: Call, people: People) -> Iterable[Key]:
    """What this day showed of the workspace."""
    return (_key(FOLLOWING, call),)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """What an identify said, among the latest of the person."""
    if call.kind != "identify" or outcome.kind != "accepted" or call.subject is None or (at := sent_at(call)) is None:
        return ()
    said = Sample(4, plain=frozenset((call.state, lasting(call))))  # two that came at once may say two things
    latest = Groups(max(1, params["times"] - 1), {place_label(at, call.item): said})
    return (Fact(Key(LATEST, call.workspace, call.subject), latest, max(params["within"], params["follows"])),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """An identify without news of one of several such people, or an event that follows nearly every identify."""
    if call.kind == "identify":
        span = churn(call, known)
        return () if span is None else _identify(call, span, known)
    return _event(call, known)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """Who is identified without news; and, once there are events about updates, what they follow."""
    if outcome.kind == "refused":
        return ()
    return _of_identify(call, known) if call.kind == "identify" else _of_event(call, known) if is_update(call) else ()


# --- identifies without news -----------------------------------------------------------------------


def churn(call: Call, known: Known) -> float | None:
    """Over how many seconds the latest identifies of a person said nothing new but numbers and times; else None."""
    if call.subject is None or (at := sent_at(call)) is None:
        return None
    latest = known.groups(Key(LATEST, call.workspace, call.subject))
    if latest is None or len(latest.samples) < known.params["times"] - 1:
        return None
    span = at - min(map(moment_of, latest.samples))
    same, all_same = known.member(lasting(call)), known.member(call.state)
    if not 0 <= span <= known.params["within"] or any(same not in said.hashes for said in latest.samples.values()):
        return None
    if all_same in latest.samples[min(latest.samples)].hashes:
        return None  # nothing changed at all
    return span if has_more(call.attributes, known.params["heartbeats"]) else None


def _identify(call: Call, span: float, known: Known) -> Iterator[Finding]:
    churning = known.sample(_key(CHURNING, call))
    people = 0 if churning is None else churning.count()
    if people >= known.params["people"]:
        yield RULE.finding(
            call.attributes_at,
            f"{known.params['times']} identifies of this person within {span:.0f} s changed numbers and times only, and"
            f" so did those of about {people:.0f} people today",
            effect="Each is an update: segments are worked out anew, and campaigns on them start again and again."
            " No identify trigger exists that would need it.",
            fix="Identify a person when something about them changes, and send an event for what happened.",
            confidence="likely",
        )


def _of_identify(call: Call, known: Known) -> Iterator[Fact]:
    if churn(call, known) is not None and call.subject is not None:
        yield Fact(_key(CHURNING, call), Sample(COUNTED, plain=frozenset((call.subject,))), 2 * DAY)
    if known.groups(_key(FOLLOWING, call)) is not None:
        yield _counted(call, {IDENTIFIES: occurrence(call)})


def has_more(attributes: Mapping[str, Json], heartbeats: Collection[str]) -> bool:
    """Whether something is sent that stays as it is, and is no heartbeat."""
    said = {name: value for name, value in attributes.items() if name in heartbeats or is_lasting(name, value)}
    return bool(said) and not is_heartbeat(said, heartbeats)


def is_lasting(name: str, value: Json) -> bool:
    """Whether an attribute is no identifier, and not likely to change: no number, no time, no last of something."""
    if name in IDENTIFYING or name.lower().startswith("last"):
        return False
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is not None and not is_number and moment(value) is None


def lasting(call: Call) -> str:
    """What an identify says that lasts."""
    attributes = {name: value for name, value in call.attributes.items() if is_lasting(name, value)}
    said = repr(("lasting", tuple(call.person), attributes, call.body.get("cio_relationships")))
    return blake2b(said.encode(), digest_size=16).hexdigest()


# --- an event after every identify -----------------------------------------------------------------


def is_update(said: Call | Form) -> bool:
    """Whether an event is called after an update."""
    return said.kind == "event" and said.name is not None and len(said.name) <= 60 and folded(said.name) in UPDATES


def _event(call: Call, known: Known) -> Iterator[Finding]:
    seen, params = known.groups(_key(FOLLOWING, call)), known.params
    if seen is None:
        return
    counts = {name: sample.count() for name, sample in seen.samples.items()}
    after, alone, people = (counts.get(known.label(each), 0.0) for each in _labels(call))
    identifies = counts.get(known.label(IDENTIFIES), 0.0)
    if after < params["events"] or people < params["event_people"] or alone > ALONE * after:
        return
    if not NEAR[0] * after <= identifies <= NEAR[1] * after:
        return
    yield RULE.finding(
        call.name_at,
        f"this event follows nearly every identify: about {after:.0f} events of {people:.0f} people today, and"
        f" {identifies:.0f} identifies",
        effect="Customer.io has no identify trigger, and this event makes one: a campaign on it starts whenever"
        " anything about a person changes.",
        fix="Send an event for what happened, such as `plan_upgraded`, where it happens.",
        confidence="likely",
        name=call.name,
    )


def _of_event(call: Call, known: Known) -> Iterator[Fact]:
    after, alone, people = _labels(call)
    if call.subject is None or (at := sent_at(call)) is None:
        return
    if any(_follows(at, known.groups(Key(LATEST, call.workspace, each)), known) for each in call.identifiers):
        yield _counted(call, {after: occurrence(call), people: call.subject})
    else:
        yield _counted(call, {alone: occurrence(call)})


def _follows(at: float, latest: Groups | None, known: Known) -> bool:
    return latest is not None and any(0 <= at - moment_of(each) <= known.params["follows"] for each in latest.samples)


def _labels(call: Call) -> tuple[str, str, str]:
    return f"{call.name}\0after", f"{call.name}\0alone", f"{call.name}\0people"


def _counted(call: Call, members: Mapping[str, str]) -> Fact:
    samples = {name: Sample(COUNTED, plain=frozenset((member,))) for name, member in members.items()}
    return Fact(_key(FOLLOWING, call), Groups(COUNTED, samples), 2 * DAY)


# --- what is counted, and when -----------------------------------------------------------------------


def _key(kind: str, call: Call) -> Key:
    return Key(kind, call.workspace, f"updates\0{call.at // DAY:.0f}", named=True)


def occurrence(call: Call) -> str:
    """One call, among all."""
    return f"{call.exchange.id}/{call.item}"


def sent_at(call: Call) -> float | None:
    """When an app made a call; None where it tells of the past: an item of a Track batch, or an older time."""
    if call.item is not None and call.api != "pipelines":
        return None
    told = moment(call.body.get("timestamp") if call.api == "pipelines" else call.attributes.get("_timestamp"))
    if told is None:
        return call.at
    return told if abs(call.at - told) <= 60 else None
