"""What a store suffers from stops and slows no traffic, is counted under the store's name, and heals by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import LOOKS, Auditor
from cio_proxy.facts import patient, stores, workspace
from cio_proxy.model import Enforcement, Exchange, FactStore, RuleSettings, Settings
from cio_proxy.rules import RULES

from ..conftest import Collected  # noqa: TID252 (tests are no package)
from . import servers

IDENTIFY = Exchange(
    id="e", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=b"{}"
)
EVENT = replace(IDENTIFY, method="POST", target=b"/api/v1/customers/42/events", body=b'{"name": "order_placed"}')
SETTINGS = Settings(
    people="complete", enforcement="enforce", rules={"track-before-identify": RuleSettings(action="block")}
)


class Replica:
    """An auditor with a store, and what it says of itself. Its clock moves a second with each exchange."""

    def __init__(self, where: FactStore, now: float = 1.75e9, settings: Settings = SETTINGS) -> None:
        self.now = now
        self.errors = 0
        self.degraded: set[str] = set()
        self.sink = Collected()
        self.store = stores.opened(where, 10_000, self._lost)
        self.auditor = Auditor(
            Engine(settings, RULES, sealed_with(b"k" * 32)),
            self.store,
            [self.sink],
            lambda: self.now,
            looks=LOOKS,
            error=self._failed,
            degraded=lambda part, on: self.degraded.add(part) if on else self.degraded.discard(part),
        )

    def _failed(self, part: str, error: BaseException) -> None:
        assert part == "store", repr(error)
        self.errors += 1

    def _lost(self, at: float, workspace: str, error: BaseException) -> None:
        self.auditor.lost_behind(at, workspace, error)

    async def passes(self, exchange: Exchange, person: int = 42) -> bool:
        """Whether an exchange is let through."""
        self.now += 1
        target = exchange.target.replace(b"42", b"%d" % person)
        audit = await self.auditor.begin(replace(exchange, at=self.now, target=target))
        refusal = audit.verdict.refusal
        await self.auditor.answered(audit, refusal.status if refusal else 200, b"{}")
        return refusal is None

    async def beat(self) -> None:
        self.now += 11
        await self.auditor.beat(self.now)


@pytest.fixture
async def detour(redis: str) -> AsyncIterator[servers.Detour]:
    servers.said(int(redis.rpartition(":")[2]), "FLUSHALL")
    way = servers.Detour(int(redis.rpartition(":")[2]))
    await way.open()
    yield way
    await way.close()


READ_SECONDS, HELD_SECONDS = patient.READ_SECONDS, patient.HELD_SECONDS


@pytest.fixture(autouse=True)
def _rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again sooner than in earnest; and while nothing is slow, a busy machine is not taken for a slow store."""
    monkeypatch.setattr(patient, "REST_SECONDS", 0.2)
    monkeypatch.setattr(patient, "SLOW_SECONDS", 0.5)
    for each in ("READ_SECONDS", "HELD_SECONDS"):
        monkeypatch.setattr(patient, each, 5.0)


def through(way: servers.Detour) -> FactStore:
    pytest.importorskip("redis")
    return FactStore("redis", f"redis://127.0.0.1:{way.port}")


async def healed(replica: Replica) -> None:
    """The store is used again, without anything done about it."""
    async with asyncio.timeout(20):
        while True:
            await replica.beat()
            assert await replica.passes(IDENTIFY, 7)
            if "store" not in replica.degraded:
                return
            await asyncio.sleep(0.05)


async def test_a_redis_that_takes_two_seconds_slows_nobody_and_nobody_is_refused_for_it(
    detour: servers.Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(through(detour))
    await replica.beat()
    assert await replica.passes(IDENTIFY)
    assert not await replica.passes(EVENT, 5)
    assert replica.errors == 0
    detour.seconds = 2.0
    monkeypatch.setattr(patient, "READ_SECONDS", READ_SECONDS)
    monkeypatch.setattr(patient, "HELD_SECONDS", HELD_SECONDS)
    started = time.perf_counter()
    for person in range(100, 200):
        assert await replica.passes(EVENT, person)
    assert time.perf_counter() - started < 10.0, "of what would be 200"
    assert "store" in replica.degraded
    assert replica.errors >= 100
    detour.seconds = 0.0
    await healed(replica)
    assert await replica.passes(EVENT)
    assert await replica.passes(EVENT, 5), "people count as partial until the next import"
    assert "people" in replica.degraded
    await replica.store.close()


async def test_a_healthy_redis_is_not_degraded_by_a_process_that_is_late_itself(
    detour: servers.Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(through(detour))
    await replica.beat()
    assert await replica.passes(IDENTIFY)
    detour.seconds = 0.01
    monkeypatch.setattr(patient, "READ_SECONDS", 0.5)
    for _ in range(2):
        asyncio.get_running_loop().call_later(0.005, time.sleep, 1.0)
        assert not await replica.passes(EVENT, 5), "who is unknown was asked of the store"
    assert (replica.errors, replica.degraded) == (0, set())
    await replica.store.close()


async def test_a_redis_that_is_gone_stops_nothing_not_even_the_start(detour: servers.Detour) -> None:
    await detour.close()
    replica = Replica(through(detour))
    await replica.beat()
    for person in range(20):
        assert await replica.passes(IDENTIFY, person)
        assert await replica.passes(EVENT, person + 100)
    assert "store" in replica.degraded
    await detour.open()
    await healed(replica)
    assert await replica.passes(IDENTIFY, 300)
    assert await replica.passes(EVENT, 300)
    await detour.close()
    assert await replica.passes(EVENT, 301)
    await replica.store.close()


async def test_two_replicas_that_see_alternate_requests_know_what_one_knows(redis: str) -> None:
    pytest.importorskip("redis")
    servers.said(int(redis.rpartition(":")[2]), "FLUSHALL")
    replicas = [Replica(FactStore("redis", redis)) for _ in range(2)]
    for replica in replicas:
        await replica.beat()
    for person in range(20):
        assert await replicas[person % 2].passes(IDENTIFY, person)
        assert await replicas[1 - person % 2].passes(EVENT, person)
    assert not await replicas[0].passes(EVENT, 99)
    assert not await replicas[1].passes(EVENT, 99)
    await replicas[0].auditor.forget()
    assert not await replicas[1].passes(EVENT, 3), "it was forgotten by both"
    for replica in replicas:
        assert "store" not in replica.degraded
        await replica.store.close()


@pytest.mark.once
async def test_an_event_that_races_its_identify_on_another_replica_is_never_refused(redis: str) -> None:
    pytest.importorskip("redis")
    servers.said(int(redis.rpartition(":")[2]), "FLUSHALL")
    one, other = (Replica(FactStore("redis", redis)) for _ in range(2))
    await asyncio.gather(one.beat(), other.beat())
    for person in range(500):
        one.now = other.now
        audit = await one.auditor.begin(replace(IDENTIFY, at=one.now, target=b"/api/v1/customers/%d" % person))
        passed, _ = await asyncio.gather(other.passes(EVENT, person), one.auditor.answered(audit, 200, b"{}"))
        assert passed, person
    assert not await other.passes(EVENT, 999)
    await asyncio.gather(one.store.close(), other.store.close())


@pytest.mark.once
@pytest.mark.parametrize("enforcement", ["enforce", "observe"])
async def test_an_event_that_overtakes_its_identify_is_neither_refused_nor_reported(
    enforcement: Enforcement, redis: str
) -> None:
    pytest.importorskip("redis")
    servers.said(int(redis.rpartition(":")[2]), "FLUSHALL")
    settings = replace(SETTINGS, enforcement=enforcement)
    one, other = (Replica(FactStore("redis", redis), settings=settings) for _ in range(2))
    await asyncio.gather(one.beat(), other.beat())

    async def meanwhile(person: int) -> None:
        """Begins while the event is looked at, and is answered after it."""
        audit = await one.auditor.begin(replace(IDENTIFY, at=one.now, target=b"/api/v1/customers/%d" % person))
        await one.auditor.answered(audit, 200, b"{}")

    for person in range(50):
        one.now = other.now = one.now + 1
        target = b"/api/v1/customers/%d/events" % person
        event = asyncio.create_task(other.auditor.begin(replace(EVENT, at=one.now, target=target)))
        await asyncio.sleep(0)  # it is on its way to the store
        identify = asyncio.create_task(meanwhile(person))
        audit = await event
        await asyncio.sleep(0.005)  # what an upstream takes at least
        await other.auditor.answered(audit, 200, b"{}")
        await identify
        assert audit.verdict.refusal is None
        assert other.sink.findings == []
    audit = await other.auditor.begin(replace(EVENT, at=one.now, target=b"/api/v1/customers/999/events"))
    await other.auditor.answered(audit, 200, b"{}")
    assert [finding.rule for finding in other.sink.findings] == ["track-before-identify"]
    await asyncio.gather(one.store.close(), other.store.close())


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage\0" * 1_000)


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [garbage, unreadable])
async def test_a_file_that_cannot_be_used_stops_nothing(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "facts.sqlite"
    replica = Replica(FactStore("sqlite", str(path)))
    await replica.beat()
    assert await replica.passes(IDENTIFY)
    assert not await replica.passes(EVENT, 5)
    await replica.store.close()
    harm(path)
    replica = Replica(FactStore("sqlite", str(path)), replica.now)
    await replica.beat()
    assert len([record for record in caplog.records if str(path) in record.getMessage()]) == 1
    assert await replica.passes(EVENT)
    assert await replica.passes(EVENT, 5), "people are partial now"
    if harm is unreadable:
        assert "store" in replica.degraded
        path.rmdir()
    await healed(replica)
    assert await replica.passes(EVENT, 6)
    assert "people" in replica.degraded
    await replica.store.close()


async def test_what_was_learned_is_known_after_a_restart_and_by_every_process(tmp_path: Path) -> None:
    where = FactStore("sqlite", str(tmp_path / "facts.sqlite"))
    first = Replica(where)
    await first.beat()
    second = Replica(where)
    await second.beat()
    assert await first.passes(IDENTIFY)
    assert await second.passes(EVENT)
    assert not await second.passes(EVENT, 5)
    await first.store.close()
    await second.store.close()
    third = Replica(where, second.now)
    await third.beat()
    assert await third.passes(EVENT)
    assert not await third.passes(EVENT, 6)
    assert not third.degraded
    await third.store.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_no_identifier_and_no_value_is_in_what_is_kept(tmp_path: Path, kind: str) -> None:
    if kind == "sqlite":
        path = tmp_path / "facts.sqlite"
        await teach_personal_values(Replica(FactStore("sqlite", str(path))))
    else:
        pytest.importorskip("redis")
        path = tmp_path / "dump.rdb"
        with servers.redis(tmp_path, "--rdbcompression", "no") as port:
            await teach_personal_values(Replica(FactStore("redis", f"redis://127.0.0.1:{port}")))
            servers.said(port, "SAVE")
    content = path.read_bytes()
    assert b"identified" in content
    for secret in (b"ada.lovelace", b"person-0815", b"enterprise-secret"):
        assert secret not in content


async def teach_personal_values(replica: Replica) -> None:
    body = b'{"email": "ada.lovelace@example.com", "created_at": %d, "plan": "enterprise-secret"}'
    fresh = replace(IDENTIFY, body=body % 1_750_000_001, target=b"/api/v1/customers/person-0815")
    assert await replica.passes(fresh)
    assert await replica.passes(replace(fresh, body=b'{"created_at": 1750000002, "plan": "enterprise-secret"}'))
    named = b'{"name": "mailed_ada.lovelace@example.com", "data": {"plan": "enterprise-secret"}}'
    await replica.passes(replace(EVENT, target=b"/api/v1/customers/person-0815/events", body=named))
    await replica.store.tend(replica.now)
    assert replica.store.known()["identified"] >= 2
    assert replica.errors == 0
    await replica.store.close()


async def test_a_store_that_is_back_is_not_degraded_although_nothing_is_sent() -> None:
    replica = Replica(FactStore("memory"))

    async def fails(*asked: Any) -> Any:
        raise OSError

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(replica.store, "get_many", fails)
        broken.setattr(replica.store, "join_many", fails)
        assert await replica.passes(IDENTIFY)
        assert "store" in replica.degraded
    await replica.beat()
    assert "store" not in replica.degraded


async def test_people_count_as_imported_until_something_is_missed() -> None:
    replica = Replica(FactStore("memory"))
    await replica.store.join_many([workspace.imported(name, replica.now) for name in ("a", "b")], (), replica.now)
    assert await replica.auditor.imported() == ("a", "b")
    replica.auditor.missed(replica.now + 1, "b")
    assert await replica.auditor.imported() == ("a",)
    replica.auditor.missed(replica.now + 1)
    assert await replica.auditor.imported() == ()
