"""The latency probe in simulated apps: who waits is told from who does not, and chance accuses nobody."""

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from cio_proxy.model import ProbeSettings, Waits
from cio_proxy.probe import CROWD, FIRST_LOOK, KINDS, OPEN, WAITING, Probe
from cio_proxy.rules.blocking_on_analytics import difference

type Route = Callable[[random.Random, float], float]
"""From the time that the answer to the call takes, to the time that the app takes for its own; both in seconds."""


def awaits(chance: random.Random, waited: float) -> float:
    return 0.01 + waited + chance.expovariate(1 / 0.02)


def forgets(chance: random.Random, waited: float) -> float:
    return 0.01 + chance.expovariate(1 / 0.02)


def forgets_and_is_slow(chance: random.Random, waited: float) -> float:
    return 0.05 + chance.uniform(0, 1.0)


def as_slow_as_the_delay(chance: random.Random, waited: float) -> float:
    return 0.5 + chance.uniform(-0.02, 0.02)


def simulated(
    seed: int, routes: dict[str, Route], *, requests: int, every: float, traced: bool, share: float = 0.05
) -> dict[str, Waits]:
    """The last look at each route after so many requests to an app, one route after the other."""
    chance = random.Random(seed)
    probe = Probe(ProbeSettings(share=share, delay=0.4))
    found: dict[str, Waits] = {}
    numbers = itertools.count()
    coming: list[tuple[float, int, Callable[[float], None]]] = []

    def at(time: float, what: Callable[[float], None]) -> None:
        heapq.heappush(coming, (time, next(numbers), what))

    def request(route: str, takes: Route, number: int) -> Callable[[float], None]:
        id, traces = f"{chance.getrandbits(64):016x}", frozenset({f"trace-{number}"} if traced else ())

        def left(now: float) -> None:
            found.update({waits.route: waits for waits in probe.left(id, now)})

        def arrived(now: float) -> None:
            probe.arrived(id, route, traces)
            probe.called(id, "event", traces)
            upstream = 0.02 + chance.expovariate(1 / 0.03)
            at(now + upstream, lambda now: answered(now, upstream))
            if takes is not awaits:
                at(now + takes(chance, 0), left)

        def answered(now: float, upstream: float) -> None:
            held = probe.answered(id, now)
            if takes is awaits:
                at(now + held + takes(chance, 0), left)

        return arrived

    for number in range(requests):
        route = list(routes)[number % len(routes)]
        at(number * every + chance.uniform(0, every), request(route, routes[route], number))
    while coming:
        now, _, what = heapq.heappop(coming)
        what(now)
    return found


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("every", [0.3, 0.02])
def test_a_route_that_awaits_is_told(every: float, traced: bool) -> None:
    for seed in range(2):
        found = simulated(seed, {"POST /orders": awaits}, requests=1_500, every=every, traced=traced)
        assert difference(found["POST /orders"]) >= 0.2


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("every", [0.3, 0.02])
@pytest.mark.parametrize("takes", [forgets, forgets_and_is_slow, as_slow_as_the_delay])
def test_a_route_that_does_not_wait_is_never_accused(takes: Route, every: float, traced: bool) -> None:
    for seed in range(20 if traced else 5):
        found = simulated(
            seed, {"POST /orders": takes}, requests=1_000 if traced else 2_000, every=every, traced=traced
        )
        assert all(difference(waits) < 0.2 for waits in found.values())


@pytest.mark.parametrize("traced", [True, False])
def test_two_routes_at_once_are_told_apart(traced: bool) -> None:
    for seed in range(2):
        routes: dict[str, Route] = {"POST /orders": awaits, "GET /offers": forgets}
        found = simulated(seed, routes, requests=4_000, every=0.05, traced=traced)
        assert difference(found["POST /orders"]) >= 0.2
        assert "GET /offers" not in found or difference(found["GET /offers"]) < 0.2


def test_without_a_share_nothing_is_held() -> None:
    probe = Probe(ProbeSettings())
    probe.arrived("1", "GET /", frozenset())
    probe.called("0000000000000000", "event", frozenset())
    assert probe.answered("0000000000000000", 1.0) == 0.0


def test_a_call_outside_of_any_request_is_never_held() -> None:
    probe = Probe(ProbeSettings(share=1.0))
    probe.called("0000000000000000", "event", frozenset())
    assert probe.answered("0000000000000000", 1.0) == 0.0


def test_nothing_is_told_by_time_in_a_crowd_but_by_a_trace_it_is() -> None:
    probe = Probe(ProbeSettings(share=1.0))
    for number in range(CROWD + 1):
        probe.arrived(str(number), "GET /", frozenset({str(number)}))
    probe.called("0000000000000000", "event", frozenset())
    assert probe.answered("0000000000000000", 1.0) == 0.0
    probe.called("0000000000000001", "event", frozenset({"7"}))
    assert probe.answered("0000000000000001", 1.0) == 0.4


def test_what_is_kept_is_bounded() -> None:
    probe = Probe(ProbeSettings(share=1.0))
    for number in range(3 * max(OPEN, WAITING)):
        probe.arrived(str(number), f"GET /{number}", frozenset({str(number)}))
        probe.called(f"{number:016x}", f"event {number}", frozenset({str(number)}))
        if number % 2:
            probe.answered(f"{number:016x}", float(number) / 1e6)
    sizes = {name: len(value) for name, value in vars(probe).items() if hasattr(value, "__len__")}
    assert max(sizes.values()) <= max(OPEN, WAITING)


def test_looks_are_rare() -> None:
    probe = Probe(ProbeSettings(share=1.0, delay=0.4))
    looks: list[Waits] = []
    for number in range(1_000):
        probe.arrived(str(number), "GET /", frozenset())
        probe.called(f"{number:016x}", "event", frozenset())
        probe.answered(f"{number:016x}", float(number))
        looks += probe.left(str(number), number + 0.5)
    assert [waits.held for waits in looks] == [FIRST_LOOK * 2**n for n in range(6)]


def test_many_routes_that_are_asked_once_do_not_hide_the_one_that_matters() -> None:
    probe = Probe(ProbeSettings(share=1.0, delay=0.4))
    looks: list[Waits] = []
    for number in range(10 * KINDS):
        for route in (f"GET /{number}", "POST /orders"):
            at, id = number + 0.4 * (route == "POST /orders"), f"{len(looks)}{number}{route}"
            probe.arrived(id, route, frozenset({id}))
            probe.called(f"{number:016x}", "event", frozenset({id}))
            probe.answered(f"{number:016x}", at)
            looks += probe.left(id, at + 0.41)
    assert {waits.route for waits in looks} == {"POST /orders"}


def test_a_request_that_is_gone_without_an_answer_has_not_followed() -> None:
    probe = Probe(ProbeSettings(share=1.0, delay=0.4))
    looks: list[Waits] = []
    for number in range(FIRST_LOOK + 1):
        probe.arrived(str(number), "GET /", frozenset({"a"}))
        probe.called(f"{number:016x}", "event", frozenset({"a"}))
        probe.answered(f"{number:016x}", float(number))
        probe.gone(str(number))
        looks += probe.left("another", number + 0.41)
    assert [(waits.held, waits.held_followed) for waits in looks] == [(FIRST_LOOK, 0)]
