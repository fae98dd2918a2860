"""What no-connection-pooling takes for connections that nobody needed: both sides of each of its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor, Recorded, audit_recorded
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Exchange, Finding, Groups, Outcome, RuleSettings, Settings
from cio_proxy.rules import RULES
from cio_proxy.rules.no_connection_pooling import Use, read, when

from .alone import BASIC, NOW

ID = "no-connection-pooling"


@dataclass(frozen=True)
class Sent:
    at: float
    connection: str
    carried: int = 1
    took: float = 0.05
    agent: str = "app/1.0"
    address: str = "10.0.0.1"
    status: int | None = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    beside: int = 0


def engine(params: Mapping[str, Any] | None = None, unable: list[str] | None = None) -> Engine:
    errors: list[object] = []
    reasons = [] if unable is None else unable
    return Engine(
        Settings(rules={ID: RuleSettings(report="possible", params=params or {})}),
        tuple(rule for rule in RULES if rule.info.id == ID),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
        unable=lambda rule, reason: reasons.append(reason),
    )


def exchange(number: int, sent: Sent) -> Exchange:
    return Exchange(
        id=f"{number:08x}",
        at=NOW + sent.at,
        method="PUT",
        target=f"/api/v1/customers/{number}".encode(),
        host="track.customer.io",
        headers=((b"Authorization", BASIC.encode()), (b"User-Agent", sent.agent.encode()), *sent.headers),
        body=b"{}",
        client_address=sent.address,
        connection=sent.connection,
        carried=sent.carried,
        beside=sent.beside,
    )


async def told(
    sents: Sequence[Sent], unable: list[str] | None = None, store: MemoryStore | None = None, **params: Any
) -> list[Finding]:
    recorded = [(exchange(number, s), Recorded(NOW + s.at + s.took, s.status)) for number, s in enumerate(sents)]
    return await audit_recorded(recorded, engine(params, unable), store=store)


def apart(count: int, seconds: float, **more: Any) -> list[Sent]:
    return [Sent(number * seconds, f"c{number}", **more) for number in range(count)]


@pytest.mark.parametrize(("beside", "found"), [(9, True), (10, False)])
async def test_connections_most_of_which_stay_open_are_of_several_clients(beside: int, found: bool) -> None:
    assert bool(await told(apart(20, 0.4, beside=beside))) is found


@pytest.mark.parametrize(
    ("sents", "found"),
    [
        (apart(20, 0.5), True),
        (apart(19, 0.5), False),
        (apart(20, 10 / 19), True),
        (apart(40, 0.54), False),
        (apart(20, 0.5, took=0.5), True),
        (apart(40, 0.5, took=0.501), False),
    ],
    ids=["twenty", "nineteen", "in ten seconds", "in more", "at once after the answer", "before the answer"],
)
async def test_so_many_connections_in_turn_are_told(sents: list[Sent], found: bool) -> None:
    assert [f.confidence for f in await told(sents)] == ["likely"] * found


async def test_connections_that_come_when_an_idle_one_may_be_closed_are_not_told() -> None:
    assert await told(apart(8, 4.04, took=0.05), requests=4, window=60.0)
    assert not await told(apart(8, 4.05, took=0.05), requests=4, window=60.0)
    assert not await told(apart(8, 5.0, took=1.0), requests=4, window=60.0)


async def test_two_of_nineteen_may_have_overlapped_and_three_may_not() -> None:
    def overlapping(count: int, of: int) -> list[Sent]:
        return [Sent(n * 0.4, f"c{n}", took=0.5 if n < count else 0.05) for n in range(of)]

    assert not await told(overlapping(2, of=20))
    assert await told(overlapping(1, of=20))
    assert not await told(overlapping(3, of=21), requests=21)
    assert await told(overlapping(2, of=21), requests=21)


async def test_it_is_told_when_a_connection_is_opened() -> None:
    again = Sent(8.0, "c0", carried=2)
    assert not await told([*apart(20, 0.4, beside=10), again])
    assert await told([*apart(20, 0.4, beside=10), replace(again, connection="c20", carried=1)])


@pytest.mark.parametrize(("again", "found"), [(9, True), (10, False)])
async def test_half_as_many_requests_again_on_open_connections_are_enough(again: int, found: bool) -> None:
    used = [Sent(n * 0.4 + 0.2, f"c{n}", carried=2) for n in range(again)]
    sents = sorted([*apart(20, 0.4), *used], key=lambda sent: sent.at)
    assert bool(await told(sents)) is found


async def test_a_pool_that_is_used_all_the_time_speaks_for_its_client() -> None:
    pooled = [Sent(n * 0.1, f"pool{n % 2}", carried=1_000 + n // 2) for n in range(100)]
    assert not await told(sorted([*apart(30, 0.3), *pooled], key=lambda sent: sent.at))


async def test_it_is_told_once_an_hour_of_one_client_and_in_any_version_of_it() -> None:
    assert len(await told([*apart(100, 0.5), *[Sent(3_500 + s.at, f"d{s.at}") for s in apart(30, 0.5)]])) == 1
    assert len(await told([*apart(30, 0.5), *[Sent(3_700 + s.at, f"d{s.at}") for s in apart(30, 0.5)]])) == 2
    two = [Sent(s.at, s.connection, agent=f"app/{number}") for number, s in enumerate(apart(20, 0.5))]
    assert len(await told(two)) == 1


async def test_connections_of_one_millisecond_count_as_one() -> None:
    at_once = replace(apart(1, 0.5)[0], connection="another")
    assert not await told([at_once, *apart(19, 0.5)])
    assert len(await told([at_once, *apart(20, 0.5)])) == 1


def test_a_use_that_is_told_twice_is_kept_once() -> None:
    opened = engine().open(exchange(0, Sent(0, "c0")))
    settled = engine().settle(opened, Outcome("accepted", NOW + 0.05, 200))
    (kept,) = (fact.value for fact in settled.facts if fact.key.kind == "connections")
    assert isinstance(kept, Groups)
    assert kept.join(kept) == kept
    assert not kept.lacks(kept)


async def test_one_fact_is_kept_of_the_connections_of_a_client_and_one_that_they_were_told() -> None:
    store = MemoryStore()
    await told(apart(19, 0.5), store=store)
    assert {kind: count for kind, count in store.known().items() if kind.startswith("conn")} == {"connections": 1}
    await told(apart(20, 0.5), store=store)
    assert {kind: count for kind, count in store.known().items() if kind.startswith("conn")} == {
        "connections": 1,
        "connections-told": 1,
    }


@pytest.mark.parametrize("differs", ["agent", "address"])
async def test_clients_are_apart(differs: str) -> None:
    sents = [Sent(s.at, s.connection, **{differs: str(n % 2)}) for n, s in enumerate(apart(38, 0.25))]  # type: ignore[arg-type]
    assert not await told(sents)


@pytest.mark.parametrize("header", [b"X-Forwarded-For", b"Forwarded", b"Via", b"X-Real-IP"])
async def test_connections_of_another_proxy_are_not_judged(header: bytes) -> None:
    reasons: list[str] = []
    assert not await told(apart(40, 0.2, headers=((header, b"10.0.0.9"),)), reasons)
    assert set(reasons) == {"another proxy stands between the app and this one"}


async def test_requests_without_an_answer_are_not_counted() -> None:
    assert not await told(apart(40, 0.2, status=None))


async def test_the_fix_says_what_this_client_can_do() -> None:
    (ruby,) = await told(apart(20, 0.4, agent="Customer.io Ruby Client/6.2.0"))
    assert ruby.confidence == "possible"
    assert "`batch`" in ruby.fix
    (asked,) = await told(apart(20, 0.4, headers=((b"Connection", b"Close"),)))
    assert "Leave `Connection: close` out" in asked.fix
    (other,) = await told(apart(20, 0.4))
    assert other.fix.startswith("Make one client object")
    assert other.message == "this client opened 20 connections for 20 requests within 7.6 s, one after the other"


@pytest.mark.parametrize("closed", [True, False])
async def test_an_answer_that_closes_the_connection_is_nobodys_fault(closed: bool) -> None:
    now = NOW
    findings: list[Finding] = []

    class Sink:
        def found(self, finding: Finding) -> None:
            findings.append(finding)

        def ended(self, end: object) -> None:
            pass

    auditor = Auditor(engine(), MemoryStore(), [Sink()], lambda: now)
    for number, sent in enumerate(apart(30, 0.3)):
        now = NOW + sent.at
        audit = await auditor.begin(exchange(number, sent))
        await auditor.answered(audit, 200, b"{}", closed=closed)
    assert bool(findings) is not closed


async def test_an_open_connection_costs_the_store_nothing_but_at_each_eighth_request() -> None:
    engine_ = engine()
    counted = [carried for carried in range(1, 40) if engine_.open(exchange(0, Sent(0, "c", carried=carried))).subjects]
    # Others than the person's own record and the workspace's.
    counted = [n for n in counted if len(engine_.open(exchange(0, Sent(0, "c", carried=n))).subjects) > 2]
    assert counted == [1, 2, 10, 18, 26, 34]


@pytest.mark.parametrize("use", [Use(NOW, NOW + 1.5, 1, True), Use(0.001, 0.001, 8, False), Use(NOW, NOW, 1, False)])
def test_a_label_tells_of_a_use_to_the_millisecond(use: Use) -> None:
    assert read(when(use)) == pytest.approx(use)
    assert when(use).isalpha()


def test_of_two_labels_the_later_use_comes_first() -> None:
    assert when(Use(NOW + 0.001, NOW + 2, 1, True)) < when(Use(NOW, NOW, 1, True))
    assert read(when(Use(NOW, NOW + 1e9, 1, True))).answered == pytest.approx(NOW + 16_777.215)
    assert read(when(Use(NOW, NOW - 5, 1, True))).answered == pytest.approx(NOW)
