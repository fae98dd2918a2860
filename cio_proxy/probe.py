"""The latency probe: a small experiment that tells whether an app's own users wait for Customer.io.

A call to Customer.io that is sent while the app is busy with a request of its own may be picked by chance, and then its
answer is held back by a known delay. Where the app waits for the answer, its own answer follows the late one; where it
does not, nothing moves. The calls that are not picked are the control: for them the same moment is looked at, without
a delay. Chance alone decides who is held, so whatever else is slow cannot pass for waiting.

Without I/O, and without a clock: times are Unix seconds of the exchanges. What is kept is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Final

from cio_proxy.model import ProbeSettings, Waits

FIRST_LOOK: Final = 20
"""So many held calls are the least to judge by. Then they are looked at each time they have doubled: looking after
every one would find a difference in pure chance sooner or later."""
OPEN: Final = 1_000
"""How many requests of the app's may be open; of more, the oldest is given up."""
WAITING: Final = 1_000
"""How many calls may wait for the moment to be judged; of more, the oldest is given up."""
KINDS: Final = 200
"""How many routes and kinds of calls are told apart; of more, the one that was seen longest ago is begun anew."""
CROWD: Final = 50
"""With more requests open at once nothing is told by time alone."""

type Tallied = tuple[str, str, bool]


@dataclass(slots=True, eq=False)
class _Request:
    route: str
    traces: Set[str]
    calls: list[_Call] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Call:
    name: str
    held: bool
    traced: bool
    requests: tuple[_Request, ...]
    answered: float = 0.0
    ends: list[tuple[str, float]] = field(default_factory=list)
    """The routes of the app's answers since this call was sent, and when they came."""


class Probe:
    """Picks the calls to hold, watches the app's answers, and counts what followed what."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._share = settings.share
        self._delay = settings.delay
        self._window = settings.delay / 2
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._traced: defaultdict[str, set[_Request]] = defaultdict(set)
        """The open requests by each of their traces."""
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._answered: OrderedDict[str, _Call] = OrderedDict()
        self._tallies: OrderedDict[Tallied, Waits] = OrderedDict()
        self._looked: dict[Tallied, int] = {}

    def arrived(self, request: str, route: str, traces: Set[str]) -> None:
        """The app got a request. `traces` are the values by which calls may say that they belong to it."""
        if len(self._requests) >= OPEN:
            self.gone(next(iter(self._requests)))
        come = self._requests[request] = _Request(route, traces)
        for trace in traces:
            self._traced[trace].add(come)

    def called(self, call: str, name: str, traces: Set[str]) -> None:
        """A call was sent to Customer.io. `call` is the id of its exchange: chance, by which it is picked or not."""
        requests: Iterable[_Request] = {request for trace in traces for request in self._traced.get(trace, ())}
        traced = bool(requests)
        if not traced:
            requests = self._requests.values() if len(self._requests) <= CROWD else ()
        told = _Call(name, self._picks(call), traced, tuple(requests))
        if not told.requests:
            return
        if len(self._calls) >= WAITING:
            self._calls.popitem(last=False)
        self._calls[call] = told
        for request in told.requests:
            request.calls.append(told)

    def answered(self, call: str, at: float) -> float:
        """Customer.io has answered. Returns for how many seconds the answer is to be held back."""
        told = self._calls.pop(call, None)
        if told is None:
            return 0.0
        told.answered = at
        if len(self._answered) >= WAITING:
            self._answered.popitem(last=False)
        self._answered[call] = told
        return self._delay if told.held else 0.0

    def lost(self, call: str) -> None:
        """A call will never be answered."""
        self._calls.pop(call, None)

    def left(self, request: str, at: float) -> tuple[Waits, ...]:
        """The app has answered a request. Returns what there is to be looked at by now."""
        gone = self.gone(request)
        if gone is not None:
            for call in gone.calls:
                call.ends.append((gone.route, at))
        return tuple(self._judged(at))

    def gone(self, request: str) -> _Request | None:
        """A request is not open any more, whether or not the app has answered it."""
        gone = self._requests.pop(request, None)
        if gone is None:
            return None
        for trace in gone.traces:
            self._traced[trace].discard(gone)
            if not self._traced[trace]:
                del self._traced[trace]
        return gone

    def _picks(self, call: str) -> bool:
        return int(call, 16) % 10_000 < self._share * 10_000

    def _judged(self, now: float) -> Iterator[Waits]:
        """Count the calls whose moment has passed."""
        while self._answered:
            call = next(iter(self._answered.values()))
            if now <= call.answered + self._delay + self._window:
                return
            self._answered.popitem(last=False)
            yield from self._count(call, call.answered)

    def _count(self, call: _Call, answered: float) -> Iterator[Waits]:
        late = answered + self._delay
        for route in {request.route for request in call.requests}:
            ends = [at for ended, at in call.ends if ended == route]
            followed = any(0 <= at - late <= self._window for at in ends)
            nested = not call.held and any(0 <= at - answered <= self._window for at in ends)
            key = (route, call.name, call.traced)
            old = self._tallies.get(key)
            if old is None:
                if len(self._tallies) >= KINDS:
                    forgotten, _ = self._tallies.popitem(last=False)
                    self._looked.pop(forgotten, None)
                old = Waits(*key, self._delay)
            new = self._tallies[key] = old._replace(
                held=old.held + call.held,
                held_followed=old.held_followed + (call.held and followed),
                free=old.free + (not call.held),
                free_followed=old.free_followed + (followed and not call.held),
                nested=old.nested + nested,
            )
            self._tallies.move_to_end(key)
            seen = new.held if self._share else new.free
            if seen >= self._looked.get(key, FIRST_LOOK):
                self._looked[key] = 2 * seen
                yield new
