"""An app sends faster than Customer.io asks for, or hits again at once when it is told to wait.

Customer.io publishes its figures, and says of Track that they are "fair use": 100 requests a second in its overview
of the APIs, 3,000 in 3 seconds in the text of the Pipelines API, which says so of Track's two versions too. What is
sent faster for long may be throttled, or dropped. The App API answers 429 above 10 requests a second, above 100 for
messages, and takes one broadcast trigger in 10 seconds. A batch is one request, however many operations are in it.

Judged is a workspace, over all its clients and replicas. The rate over the latest 10 seconds has to be above its
figure for certain, and to fill most of them: a burst is told only above 3,000 requests in 3 seconds, which neither
text allows. One of a few requests is counted where there are many. What says that it is a retry (`X-Retry-Count`) or
repeats a message or event id is counted once. And the same call, sent again less than a second after each of three
429 answers, is a loop that does not wait; what an SDK retries by itself is not, nor is a wait that grows.

`action: pace` holds what comes too early and releases it in order, for `hold` at most, when it passes and is counted.
Every SDK waits for that: their time-outs are 10 s and more. `action: block` answers 429 with `Retry-After` instead,
and then the call is lost unless the app sends it again: the Python Track library does so over TLS only,
async-customerio, go and Ruby never, while customerio-node and the Pipelines libraries do. Deletes, suppressions,
unsubscribes and reads are never refused, and held only behind other calls of the same person. Broadcast triggers are
neither held nor refused.

Fix: send several operations in one `POST /api/v2/batch` (or the `batch` of Pipelines), limit how many requests run at
once, and after a 429 wait as long as `Retry-After` says, else twice as long each time.

See https://docs.customer.io/integrations/api/customerio-apis/ (rate limits)
See https://docs.customer.io/integrations/api/cdp/ (limits)
See https://docs.customer.io/integrations/api/app/ (429)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

from cio_proxy.model import (
    KINDS,
    Call,
    Fact,
    Finding,
    Groups,
    Key,
    Known,
    Limit,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
)
from cio_proxy.recognise import labelled_moment, moment_label, moment_of

RULE = RuleInfo(
    id="no-rate-limiting",
    severity="warning",
    category="7",
    kinds=frozenset(KINDS) - {"webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
    actions=("off", "log", "block", "pace", "default"),
    caution=(
        "a call that is answered 429 is lost where the client does not send it again: async-customerio, go and Ruby"
        " never do, and customerio for Python only over TLS; `action: pace` holds calls instead"
    ),
    params={
        # Reference 6.1, each with its source.
        "track": Param(100, "Track requests a second ('fair use'; another official text says 1,000)"),
        "pipelines": Param(1_000, "Pipelines requests a second (3,000 in 3 s)"),
        "app": Param(10, "App API requests a second, but for messages and broadcast triggers"),
        "send": Param(100, "messages a second through the App API"),
        "trigger": Param(10.0, "how far apart broadcast triggers have to be", "duration"),
        "burst_rate": Param(1_000, "Track or Pipelines requests a second that not even three seconds may be above"),
        "patience": Param(1.0, "how long a call has to wait after a 429", "duration"),
        "retries": Param(3, "so often the same call has to come again at once, and be answered 429"),
        "burst": Param(1.0, "`pace` and `block` let so many seconds' worth go at once", "duration"),
        # The SDKs wait for 10 s and more (reference 8.1), and Customer.io takes its time too.
        "hold": Param(8.0, "how long `pace` holds a call; more than 8s is not possible", "duration"),
        "again": Param(3600.0, "how long nothing is told again of a rate", "duration"),
    },
)

type Group = Literal["track", "pipelines", "app", "send", "trigger"]

WINDOW: Final = 10
"""Seconds over which a rate counts as sustained (reference 6.1)."""
FILLED: Final = 6
"""In so many of them there has to be traffic: a short burst is no sustained rate."""
BURST: Final = 3
"""Seconds of the other published figure."""
SAMPLED: Final = 256
"""So many requests of a window at its figure are counted: at three standard deviations a sixth above it is certain."""
KEPT: Final = 64
"""How many of one second are told apart."""
TELLING: Final = 10
"""So many of the requests of a second, of those that are counted, speak of the rate."""
SURELY: Final = 3.0
"""Standard deviations."""
BURST_SURELY: Final = 1.25
"""What the count of three seconds may be wrong by."""
NAMES: Final[Mapping[Group, str]] = {
    "track": "Track requests",
    "pipelines": "Pipelines requests",
    "app": "App API requests",
    "send": "messages through the App API",
}
LETTER: Final = {True: "b", False: "s"}
LONGEST: Final = 8.0
"""Seconds that a call is held for at most."""
RETRY: Final = b"x-retry-count"
NOTICED: Final = 0.1
"""Seconds that nobody waits who sends again at once, however slow the machine."""
GROWING: Final = 1.5
"""By what the usual libraries multiply a wait each time, at least; most of them double it."""


class Counted(NamedTuple):
    """One of `every` requests of a group that is counted, and the id that it is counted by."""

    group: Group
    rate: float
    every: int
    member: str
    tells: bool
    """Whether it is one of the few that speak: the others that are under way then do not know that one has spoken."""


def needs(call: Call, people: People) -> Iterable[Key]:
    """When a call without a person was told to wait; what is known of a person is at hand anyway."""
    return (_throttled(call),) if call.api == "app" and not call.identifiers else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That a request was sent in this second."""
    counted = _counted(call, params)
    if counted is None:
        return ()
    second = moment_label(float(int(call.at)), float(int(call.at)))
    batch = isinstance(call.document.value, dict) and "batch" in call.document.value
    sample = Sample(KEPT, plain=frozenset({counted.member}))
    return (Fact(_key(call, counted.group), Groups(2 * WINDOW, {second + LETTER[batch]: sample}), 2.0 * WINDOW),)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding | Fact]:
    """The rate that this request adds to, and what it does about a 429."""
    counted = _counted(call, known.params)
    if outcome.status == 429 and not call.item:
        return (*_waited(call, outcome, known), *(() if counted is None else _rated(call, counted, known)))
    return () if counted is None else _rated(call, counted, known)


def _rated(call: Call, counted: Counted, known: Known) -> Iterator[Finding | Fact]:
    if not counted.tells:
        return
    key = _key(call, counted.group)
    latest = known.groups(key)
    if latest is None or (counted.group != "trigger" and _is_low(latest, counted, known)):
        return
    told = key._replace(kind="rate-told")
    finding = _judged(call, counted, latest, known)
    if finding is not None and known.span(told) is None:
        yield Fact(told, call.seen, known.params["again"])
        yield finding


def _is_low(latest: Groups, counted: Counted, known: Known) -> bool:
    """A first look: whether all that is kept, of whatever second, is below each figure, and nothing was left out."""
    figure = min(counted.rate * WINDOW, BURST_SURELY * BURST * known.params["burst_rate"])
    sizes = [len(sample.hashes) for sample in latest.samples.values()]
    return sum(sizes) * counted.every <= figure - counted.every and max(sizes) < KEPT


def _judged(call: Call, counted: Counted, latest: Groups, known: Known) -> Finding | None:
    group, rate, every, member, _ = counted
    now, hashed = int(call.at), known.member(member)
    seconds: dict[int, float] = {}
    batches = 0.0
    for label, sample in latest.samples.items():
        second = round(moment_of(label))
        if hashed in sample.hashes:
            return None  # it is sent again, and was counted
        if now - WINDOW < second <= now:
            seconds[second] = seconds.get(second, 0.0) + sample.count()
            batches += sample.count() if label.endswith(LETTER[True]) else 0.0
    if group == "trigger":
        return _trigger(known) if any(now - second < known.params["trigger"] for second in seconds) else None
    seconds[now] = seconds.get(now, 0.0) + 1
    total = sum(seconds.values())
    surely = total - SURELY * sqrt(total * (1 - 1 / every))
    if group in ("track", "pipelines"):
        burst = max(sum(seconds.get(first + n, 0.0) for n in range(BURST)) for first in seconds) * every
        if burst > BURST_SURELY * BURST * known.params["burst_rate"]:
            return _too_fast(group, burst, BURST, known.params["burst_rate"], batches * every)
    if len(seconds) >= FILLED and surely * every > rate * WINDOW:
        return _too_fast(group, total * every, WINDOW, rate, batches * every)
    return None


def _too_fast(group: Group, requests: float, seconds: int, rate: float, batches: float) -> Finding:
    one_by_one = group in ("track", "pipelines") and batches < requests / 2
    return RULE.finding(
        "path:",
        f"about {_round(requests)} {NAMES[group]} in {seconds} s, {_round(batches)} of them batches;"
        f" Customer.io asks for {rate:g} a second"
        if group in ("track", "pipelines")
        else f"about {_round(requests)} {NAMES[group]} in {seconds} s; Customer.io takes {rate:g} a second",
        effect="What is sent faster for long may be throttled or dropped; the App API answers 429.",
        fix="Send several operations in one batch, and limit how many requests run at once."
        if one_by_one
        else "Limit how many requests run at once.",
        confidence="certain" if seconds == BURST else "likely",
    )


def _trigger(known: Known) -> Finding:
    return RULE.finding(
        "path:",
        f"one broadcast is triggered twice within {known.params['trigger']:g} s",
        effect="Customer.io takes one in 10 seconds, and answers 429 to the others: nobody gets that broadcast.",
        fix="Trigger a broadcast once for all recipients (`ids`, `emails`, `per_user_data` or a segment).",
        confidence="likely",
    )


def _waited(call: Call, outcome: Outcome, known: Known) -> Iterator[Finding | Fact]:
    """Whether the same call came again at once after each of the latest 429 answers."""
    if RETRY in call.exchange.named or call.api == "pipelines":
        return
    params, key = known.params, _throttled(call)
    said = f"{call.exchange.method} {call.exchange.target.decode('latin-1')} {call.digest}"
    label, mine = moment_label(call.at, outcome.at), (known.member(said),)
    yield Fact(key, Groups(params["retries"] + 1, {label: Sample(1, plain=frozenset({said}))}), 60.0)
    latest = known.groups(key)
    if latest is None:
        return
    same = sorted([labelled_moment(each) for each, sample in latest.samples.items() if sample.hashes == mine])
    row: list[float] = []
    for (_, answered), (sent, _) in pairwise([*same, (call.at, outcome.at)]):
        row = [*row, sent - answered] if 0 <= sent - answered < params["patience"] else []
    if len(row) == params["retries"] and not waits_longer(row):
        yield RULE.finding(
            "path:",
            f"the same call was sent again at once after each of {len(row)} answers that say to wait (429)",
            effect="Customer.io goes on to answer 429, and the workspace stays throttled for everybody.",
            fix="After a 429 wait as long as `Retry-After` says, else a second, and twice as long each time.",
            confidence="certain",
        )


def waits_longer(waits: Sequence[float]) -> bool:
    """Whether a client that tries again takes more time over it: such a one has only begun with a short wait."""
    return max(waits) >= max(NOTICED, GROWING * waits[0])


def limit(call: Call, params: Mapping[str, Any]) -> Limit | None:
    """The figure that the group of a call keeps to. A trigger would be held for longer than anybody waits."""
    group = group_of(call)
    if group == "trigger" or not call.workspace:
        return None
    rate = float(params[group])
    return Limit(_key(call, group)._replace(kind="pace"), rate, rate * params["burst"], min(LONGEST, params["hold"]))


def excess(call: Call, limit: Limit) -> Finding:
    """The finding of a call that comes before its time."""
    return RULE.finding(
        "path:",
        f"more than {limit.rate:g} {NAMES[group_of(call)]} a second",
        effect="What is sent faster for long may be throttled or dropped; the App API answers 429.",
        fix="Send it again after the seconds that `Retry-After` says, and limit how many requests run at once.",
        confidence="certain",
        whole=True,
    )


def _counted(call: Call, params: Mapping[str, Any]) -> Counted | None:
    """The leading call of one in a few requests, fewer the more there may be of them."""
    if call.item or not call.workspace or RETRY in call.exchange.named:
        return None
    group = group_of(call)
    rate = params[group]
    every = 1 if group == "trigger" else int(rate * WINDOW) // SAMPLED or 1
    member = _member(call, group)
    if every == 1:
        return Counted(group, rate, every, member, True)
    times, rest = divmod(crc32(member.encode("utf-8", "surrogatepass")), every)
    return None if rest else Counted(group, rate, every, member, not times % (rate // TELLING))


def group_of(call: Call) -> Group:
    """What has a figure of its own."""
    match call.api:
        case "pipelines":
            return "pipelines"
        case "app":
            if call.endpoint.startswith("/v1/send/"):
                return "send"
            return "trigger" if call.endpoint.endswith("/triggers") else "app"
        case _:
            return "track"


def _member(call: Call, group: Group) -> str:
    """What a request and its retry have in common, else its own id."""
    if group == "trigger":
        return f"{call.endpoint} {call.exchange.target.decode('latin-1')} {call.digest}"
    id = call.body.get("messageId") if group == "pipelines" else call.body.get("id") if call.kind == "event" else None
    return f"id:{id}" if id and isinstance(id, str) else call.exchange.id


def _key(call: Call, group: Group) -> Key:
    # Two broadcasts at once are two campaigns of somebody's; one twice is a loop.
    of = call.exchange.target.decode("latin-1") if group == "trigger" else ""
    return Key("rate", call.workspace, f"rate:{group}{of}")


def _throttled(call: Call) -> Key:
    target = call.exchange.target.decode("latin-1")
    return Key("throttled", call.workspace, call.subject or f"call:{call.exchange.method} {target}")


def _round(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"
