"""Exchanges that come too fast are held, released in their order, and never for longer than may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Audit, Auditor
from cio_proxy.facts import Rate, Slots
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Enforcement, Exchange, Exemption, Key, RuleSettings, Settings
from cio_proxy.pacing import Pacing
from cio_proxy.rules import RULES

from .conftest import Collected

KEY = Key("pace", "ws", "track")
NOBODY: frozenset[str] = frozenset()
BASIC = b"Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEzYzk1YTBiYzQ0ZDlmMDFlMjc="


class Told(list[tuple[str, float]]):
    def __call__(self, result: str, seconds: float) -> None:
        self.append((result, seconds))

    @property
    def results(self) -> list[str]:
        return [result for result, _ in self]


async def held(pacing: Pacing, order: list[Any], name: Any, rate: Rate, **more: Any) -> float:
    given = {"people": NOBODY, "urgent": False, "enforced": True, **more}
    began = time.monotonic()
    await pacing.hold(KEY, rate, **given)
    order.append(name)
    return time.monotonic() - began


async def test_what_comes_at_once_goes_in_turn_and_in_its_order() -> None:
    told, order = Told(), list[int]()
    pacing = Pacing(MemoryStore(), told)
    rate = Rate(each=100, burst=5, ahead=8)
    took = await asyncio.gather(*(held(pacing, order, number, rate) for number in range(50)))
    assert order == list(range(50))
    assert max(took[:5]) < 0.2
    assert took[-1] >= 0.44
    assert told.results == ["held"] * 45
    planned = sum(n / 100 for n in range(1, 46))
    assert 0.99 * planned <= sum(seconds for _, seconds in told) <= sum(took)


async def test_it_holds_in_a_loop_whose_tasks_start_at_once() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    order = list[int]()
    pacing = Pacing(MemoryStore())
    rate = Rate(each=100, burst=1, ahead=8)
    await asyncio.wait_for(asyncio.gather(*(held(pacing, order, n, rate) for n in range(10))), 5)
    assert order == list(range(10))


async def test_who_comes_later_stands_behind_those_who_wait() -> None:
    order = list[str]()
    pacing = Pacing(MemoryStore())
    rate = Rate(each=20, burst=1, ahead=8)
    first = [asyncio.create_task(held(pacing, order, f"first {n}", rate)) for n in range(5)]
    await asyncio.sleep(0.12)
    later = [asyncio.create_task(held(pacing, order, f"later {n}", rate)) for n in range(3)]
    await asyncio.gather(*first, *later)
    assert order == [*(f"first {n}" for n in range(5)), *(f"later {n}" for n in range(3))]


async def test_what_finds_no_slot_in_time_is_held_as_long_as_may_be_and_passes_in_its_order() -> None:
    told, order = Told(), list[int]()
    pacing = Pacing(MemoryStore(), told)
    rate = Rate(each=10, burst=1, ahead=0.5)
    took = await asyncio.gather(*(held(pacing, order, number, rate) for number in range(30)))
    assert order == list(range(30))
    assert max(took) < 1.0
    assert told.results == ["held"] * 5 + ["passed"] * 24


async def test_two_replicas_share_what_may_go() -> None:
    store, told = MemoryStore(), Told()
    rate = Rate(each=100, burst=1, ahead=8)
    replicas = [Pacing(store, told), Pacing(store, told)]
    orders: list[list[int]] = [[], []]
    began = time.monotonic()
    await asyncio.gather(*(held(replicas[n % 2], orders[n % 2], n, rate) for n in range(60)))
    assert time.monotonic() - began >= 0.58
    assert [sorted(each) == each for each in orders] == [True, True]


class Down(MemoryStore):
    down = True

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        if self.down:
            raise ConnectionError
        return await super().reserve(key, number, rate)


async def test_without_the_store_everything_passes_at_once_but_not_before_what_is_held() -> None:
    store, told, order = Down(), Told(), list[str]()
    pacing = Pacing(store, told)
    rate = Rate(each=10, burst=1, ahead=8)
    with pytest.raises(ConnectionError):
        await held(pacing, order, "alone", rate)
    store.down = False
    waiting = [asyncio.create_task(held(pacing, order, f"held {n}", rate)) for n in range(3)]
    await asyncio.sleep(0.05)
    store.down = True
    behind = await held(pacing, order, "behind", rate)
    assert behind < 0.3
    await asyncio.gather(*waiting)
    assert order == ["held 0", "held 1", "held 2", "behind"]
    with pytest.raises(ConnectionError):
        await held(pacing, order, "alone", rate)
    assert not pacing._lines


async def test_what_is_urgent_goes_at_once_unless_something_is_held_of_the_same_person() -> None:
    order = list[str]()
    pacing = Pacing(MemoryStore())
    rate = Rate(each=5, burst=1, ahead=8)
    slow = [asyncio.create_task(held(pacing, order, f"identify {who}", rate, people={who})) for who in ("id:1", "id:2")]
    await asyncio.sleep(0.02)
    await asyncio.gather(
        held(pacing, order, "suppress id:2", rate, people={"id:2"}, urgent=True),
        held(pacing, order, "suppress id:3", rate, people={"id:3"}, urgent=True),
        held(pacing, order, "unsubscribe", rate, urgent=True),
        *slow,
    )
    assert order == ["identify id:1", "suppress id:3", "unsubscribe", "identify id:2", "suppress id:2"]


async def test_who_gives_up_makes_room_for_nobody_and_stops_nobody() -> None:
    order = list[int]()
    pacing = Pacing(MemoryStore())
    rate = Rate(each=20, burst=1, ahead=8)
    tasks = [asyncio.create_task(held(pacing, order, number, rate)) for number in range(6)]
    await asyncio.sleep(0.02)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 4, 5]
    assert not pacing._lines
    assert pacing._held == 0


async def test_all_are_released_in_their_order_when_it_ends_and_were_held_no_longer() -> None:
    told, order = Told(), list[int]()
    pacing = Pacing(MemoryStore(), told)
    rate = Rate(each=1, burst=1, ahead=8)
    tasks = [asyncio.create_task(held(pacing, order, number, rate)) for number in range(20)]
    await asyncio.sleep(0.02)
    pacing.release()
    took = await asyncio.wait_for(asyncio.gather(*tasks), 1)
    await asyncio.wait_for(held(pacing, order, 20, rate), 1)
    assert order == list(range(21))
    assert sum(seconds for _, seconds in told) <= sum(took)


async def test_more_than_can_be_held_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cio_proxy.pacing.HELD", 3)
    told, order = Told(), list[int]()
    pacing = Pacing(MemoryStore(), told)
    await asyncio.gather(*(held(pacing, order, n, Rate(20, 1, 8)) for n in range(6)))
    assert told.results.count("passed") == 3


# --- through the driver ------------------------------------------------------------------------


def exchange(number: int, method: str = "PUT", path: str = "", body: bytes = b"{}") -> Exchange:
    return Exchange(
        id=f"{number:08x}",
        at=1.75e9,
        method=method,
        target=(path or f"/api/v1/customers/{number}").encode(),
        host="track.customer.io",
        headers=((b"Authorization", BASIC),),
        body=body,
    )


def auditor(
    action: str = "pace",
    enforcement: Enforcement = "enforce",
    store: MemoryStore | None = None,
    exemptions: tuple[Exemption, ...] = (),
    **params: Any,
) -> tuple[Auditor, Told, Collected]:
    told, sink, store = Told(), Collected(), store or MemoryStore()
    said = RuleSettings(action=action, params={"track": 10, "burst": 0.1, "hold": 0.5, **params})  # type: ignore[arg-type]
    settings = Settings(enforcement=enforcement, rules={"no-rate-limiting": said}, exemptions=exemptions)
    engine = Engine(settings, RULES, sealed_with(b"k" * 32))
    return Auditor(engine, store, [sink], lambda: 1.75e9, pacing=Pacing(store, told)), told, sink


async def all_begun(auditor: Auditor, exchanges: Collection[Exchange]) -> tuple[list[Audit], float]:
    began = time.monotonic()
    audits = await asyncio.gather(*map(auditor.begin, exchanges))
    return audits, time.monotonic() - began


async def test_pace_holds_and_counts_and_refuses_nothing() -> None:
    paced, told, sink = auditor()
    audits, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert took >= 0.38
    assert told.results == ["held"] * 4
    assert all(audit.verdict.refusal is None for audit in audits)
    assert max(audit.seconds for audit in audits) < 0.3, "being held is no work of the audit"
    assert not sink.findings


@pytest.mark.parametrize(("enforcement", "results"), [("observe", ["would"] * 4), ("enforce", ["held"] * 4)])
async def test_observe_counts_what_it_would_hold(enforcement: Enforcement, results: list[str]) -> None:
    paced, told, _ = auditor(enforcement=enforcement)
    _, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert told.results == results
    assert (took < 0.3) is (enforcement == "observe")


@pytest.mark.parametrize("action", ["log", "off", "default"])
async def test_other_actions_hold_nothing(action: str) -> None:
    paced, told, _ = auditor(action)
    _, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert (told, took < 0.3) == ([], True)


@pytest.mark.parametrize(("endpoint", "results"), [("*/{identifier}", []), ("*/events", ["held"] * 4)])
async def test_what_is_exempt_is_not_held(endpoint: str, results: list[str]) -> None:
    exemption = Exemption(rule="no-rate-limiting", reason="it is meant to be fast", endpoint=endpoint)
    paced, told, _ = auditor(exemptions=(exemption,))
    _, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert (told.results, took < 0.3) == (results, not results)


async def test_what_is_exempt_is_not_refused_either_and_told_as_that() -> None:
    exemption = Exemption(rule="no-rate-limiting", reason="it is meant to be fast", endpoint="*/{identifier}")
    paced, _, sink = auditor("block", exemptions=(exemption,))
    audits, _ = await all_begun(paced, [exchange(n) for n in range(5)])
    assert all(audit.verdict.refusal is None for audit in audits)
    assert {finding.action for finding in sink.findings} == {"exempt"}


async def test_bypass_holds_and_counts_nothing() -> None:
    paced, told, _ = auditor()
    paced.bypass = True
    _, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert (told, took < 0.3) == ([], True)


@pytest.mark.parametrize("off", ["log", "observe", "bypass"])
async def test_when_it_is_switched_off_what_is_held_goes_at_once_before_what_comes_then(off: str) -> None:
    paced, _, _ = auditor(track=1, hold=8)
    order = list[int]()

    async def begun(number: int) -> None:
        await paced.begin(exchange(number, path="/api/v1/customers/42"))
        order.append(number)

    waiting = [asyncio.create_task(begun(number)) for number in range(10)]
    async with asyncio.timeout(5):
        while len(paced._pacing._lines) == 0 or order != [0]:  # type: ignore[union-attr]
            await asyncio.sleep(0)
    if off == "bypass":
        paced.bypass = True
    else:
        action, enforcement = ("log", "enforce") if off == "log" else ("pace", "observe")
        paced.engine = auditor(action, enforcement)[0].engine  # type: ignore[arg-type]
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting, begun(10))
    assert order == list(range(11))


async def test_each_workspace_and_api_has_its_own_schedule_and_broadcast_triggers_none() -> None:
    paced, told, _ = auditor(app=10)
    others = [
        exchange(1, "GET", "/v1/campaigns"),
        exchange(2, "POST", "/v1/campaigns/1/triggers"),
        exchange(3, "POST", "/v1/campaigns/2/triggers"),
    ]
    apis = [replace(each, host="api.customer.io") for each in others]
    _, took = await all_begun(paced, [exchange(0), *apis])
    assert (told, took < 0.3) == ([], True)


async def test_a_refused_call_takes_no_slot() -> None:
    paced, told, _ = auditor()
    late = b'{"created_at": 1700000000000}'
    await all_begun(paced, [*(exchange(n, body=late) for n in range(5)), exchange(9)])
    assert told == []


async def test_without_the_store_calls_pass_and_the_store_is_told_to_fail() -> None:
    store = Down()
    paced, told, _ = auditor(store=store)
    shown: list[tuple[str, bool]] = []
    paced._degraded = lambda part, on: shown.append((part, on))
    audits, took = await all_begun(paced, [exchange(n) for n in range(5)])
    assert (told, took < 0.3, len(audits)) == ([], True, 5)
    assert ("store", True) in shown
    store.down = False
    await paced.begin(exchange(5))
    assert shown[-1] == ("store", False)


async def test_nobody_is_held_for_longer_than_eight_seconds_whatever_is_configured() -> None:
    paced, _, _ = auditor(hold=60.0)
    audit = await paced.begin(exchange(0))
    assert audit.opened is not None
    limited = paced.engine.limit(audit.opened)
    assert limited is not None
    assert limited.rate.ahead == 8.0


async def test_block_answers_429_with_the_seconds_to_wait() -> None:
    blocked, told, sink = auditor("block", track=2, burst=1.0)
    audits, took = await all_begun(blocked, [exchange(n) for n in range(5)])
    refusals = [audit.verdict.refusal for audit in audits]
    assert [None if each is None else each.status for each in refusals] == [None, None, 429, 429, 429]
    assert took < 0.3
    assert told == []
    assert refusals[2] is not None
    assert dict(refusals[2].headers)[b"Retry-After"] == b"1"
    assert b"no-rate-limiting" in refusals[2].body
    assert [(f.rule, f.action, f.confidence) for f in sink.findings] == [("no-rate-limiting", "blocked", "certain")] * 3
    assert audits[2].header == "no-rate-limiting;action=blocked"
    assert (await blocked.answered(audits[2], 429, None)).status == 429


async def test_a_long_wait_is_told_as_a_short_one() -> None:
    blocked, _, _ = auditor("block", track=1, burst=1.0)
    audits, _ = await all_begun(blocked, [exchange(n) for n in range(3)])
    assert audits[2].verdict.refusal is not None
    slow, _, _ = auditor("block", send=1, burst=1.0)
    limited = slow.engine.limit(audits[0].opened)  # type: ignore[arg-type]
    assert limited is not None
    late = slow.engine.over(audits[0].opened, audits[0].verdict, limited.limit, 99.0)  # type: ignore[arg-type]
    assert late.refusal is not None
    assert dict(late.refusal.headers)[b"Retry-After"] == b"10"


async def test_block_never_refuses_what_must_not_be_lost() -> None:
    blocked, _, sink = auditor("block", track=1, burst=1.0)
    await blocked.begin(exchange(0))
    never = [
        exchange(1, "DELETE"),
        exchange(2, "POST", "/api/v1/customers/2/suppress"),
        exchange(3, body=b'{"unsubscribed": true}'),
        exchange(4, "GET", "/api/v1/accounts/region"),
    ]
    audits, _ = await all_begun(blocked, never)
    assert all(audit.verdict.refusal is None for audit in audits)
    assert not sink.findings
    batch = b'{"batch": [{"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {}},'
    batch += b'{"type": "person", "action": "delete", "identifiers": {"id": "2"}}]}'
    audit = await blocked.begin(exchange(5, "POST", "/api/v2/batch", batch))
    assert audit.verdict.refusal is None
    assert [f.action for f in sink.findings] == ["would_block"]


async def test_observe_tells_what_block_would_refuse() -> None:
    blocked, _, sink = auditor("block", "observe", track=1, burst=1.0)
    audits, _ = await all_begun(blocked, [exchange(n) for n in range(3)])
    assert all(audit.verdict.refusal is None for audit in audits)
    assert [f.action for f in sink.findings] == ["would_block"] * 2
