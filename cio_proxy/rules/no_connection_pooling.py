"""A client opens a new connection for every request, one after the other.

Every connection costs a TCP and a TLS handshake, two or three times the way to Customer.io and back, before the
request is even sent. Under load the app waits for handshakes, and runs out of local ports. The usual causes are a
client object or a session that is made anew for each call, and a `Connection: close` that somebody once set.

Judged is one client: what sends from one address, under one User-Agent (without its version), with one workspace's
credentials. `requests` of them have to come within `window` with fewer than 1.5 requests on a connection, and nearly
every connection has to be opened after the one before was answered, and less than `idle` later: then there was one to
use again. So what opens many at once (a pool that warms up), what comes now and then (idle connections are closed,
after 4 s in Node) and what alternates over a few connections is left alone. So are connections most of which are still
open: many processes behind one address, each of which begins with its own; an answer that closes the
connection itself, and what comes through another proxy or a load balancer, which opens the connections then. The Ruby
library opens one for every call and has no setting for it: that is `possible`. The proxy cannot see whether a process
ended in between; a function or a script that runs once for each call is a case for an exemption of its client.

Fix: make one client object when the process starts and use it for every call; the libraries keep its connections
open.

See https://docs.customer.io/integrations/api/track/
See https://github.com/customerio/customerio-python (use_connection_pooling)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from cio_proxy.model import (
    KINDS,
    Call,
    Exchange,
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
    Unavailable,
)
from cio_proxy.recognise import labelled_moment, moment_label

RULE = RuleInfo(
    id="no-connection-pooling",
    severity="warning",
    category="7",
    kinds=frozenset(KINDS) - {"webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={
        # Reference 9.17: 20 requests in 10 s, fewer than 1.5 on a connection, gaps under 4 s.
        "requests": Param(20, "so many connections have to be opened within the window"),
        "window": Param(10.0, "how long the latest connections count", "duration"),
        "idle": Param(4.0, "a connection that was used so lately is still open on every client", "duration"),
        "again": Param(3600.0, "how long nothing is told again of a client", "duration"),
    },
)

PER_CONNECTION = 1.5
SEQUENTIAL = 0.9
"""The part of the connections that has to be opened after the one before was answered."""
KEPT_OPEN = 0.5
"""The part of the connections that are still open from which on they are kept for more requests, by several clients."""
COUNTED_EVERY = 8
"""Of the requests that use a connection again the first is told, and then each eighth for all eight."""
BETWEEN = (b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip")
"""Headers of what stands between an app and this proxy: then the connections are its own."""
RUBY = "Customer.io Ruby Client"


class Use(NamedTuple):
    """A connection that was opened, or used again: when, until when, and how many requests that stands for."""

    at: float
    answered: float
    requests: int
    opened: bool


def needs(call: Call, people: People) -> Iterable[Key]:
    """The latest connections of the client, where this call adds to them."""
    return (_key(call.exchange, call.workspace),) if _counts(call) else ()


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding | Unavailable | Fact]:
    """What the latest connections of the client were used for, once there is an answer."""
    if not _counts(call) or outcome.status is None or outcome.closed:
        return ()
    if not call.exchange.named.keys().isdisjoint(BETWEEN):
        return (Unavailable("another proxy stands between the app and this one"),)
    return _judged(call, outcome, known)


def _judged(call: Call, outcome: Outcome, known: Known) -> Iterator[Finding | Fact]:
    params, exchange = known.params, call.exchange
    key = _key(exchange, call.workspace)
    again = COUNTED_EVERY if exchange.carried > COUNTED_EVERY else 1
    label = when(Use(call.at, outcome.at, again, exchange.carried == 1))
    limit = int(params["requests"] * PER_CONNECTION)
    yield Fact(key, Groups(limit, {label: Sample(1)}), params["window"])
    latest = known.groups(key)
    if exchange.carried > 1 or latest is None or len(latest.samples) + 1 < params["requests"]:
        return
    uses = [use for use in map(read, (label, *latest.samples)) if call.at - params["window"] <= use.at <= call.at]
    opened = sorted(use for use in uses if use.opened)
    requests = sum(use.requests for use in uses)
    if len(opened) < params["requests"] or requests >= PER_CONNECTION * len(opened):
        return
    pairs = list(pairwise(opened))
    in_turn = sum(0 <= later.at - earlier.answered < params["idle"] for earlier, later in pairs)
    if exchange.beside + 1 > KEPT_OPEN * len(opened):
        return
    told = key._replace(kind="connections-told")
    if in_turn < SEQUENTIAL * len(pairs) or known.span(told) is not None:
        return
    yield Fact(told, call.seen, params["again"])
    yield _finding(exchange, len(opened), requests, call.at - opened[0].at)


def _finding(exchange: Exchange, opened: int, requests: int, seconds: float) -> Finding:
    cannot = _agent(exchange) == RUBY
    asked = "close" in (exchange.header("connection") or "").lower()
    return RULE.finding(
        "header:Connection",
        f"this client opened {opened} connections for {requests} requests within {seconds:.1f} s, one after the other",
        effect="Each request waits for a TCP and a TLS handshake; under load the app runs out of local ports.",
        fix="The Ruby library opens a connection for every call: put several operations into one `batch`, and send it"
        " in the background."
        if cannot
        else "Leave `Connection: close` out, so that the connection stays open."
        if asked
        else "Make one client object when the process starts, and use it for every call.",
        confidence="possible" if cannot else "likely",
    )


def _counts(call: Call) -> bool:
    """A connection's first request, its second, and then each eighth."""
    carried = call.exchange.carried
    return (carried == 1 or carried % COUNTED_EVERY == 2) and not call.item


def _key(exchange: Exchange, workspace: str) -> Key:
    return Key("connections", workspace, f"connections:{exchange.client_address}\0{_agent(exchange)}")


def _agent(exchange: Exchange) -> str:
    return (exchange.header("user-agent") or "").partition("/")[0].strip()


def when(use: Use) -> str:
    """A use as a label of which the latest comes first, and stays."""
    return moment_label(use.at, use.answered) + ("o" if use.opened else "e" if use.requests > 1 else "u")


def read(label: str) -> Use:
    """The use that a label tells of."""
    return Use(*labelled_moment(label), COUNTED_EVERY if label[-1] == "e" else 1, label[-1] == "o")
