"""What a company sends in an hour: nothing is found where nothing is wrong, and everything that was planted.

And the same is found whatever the store, by two processes that share it, one of which is killed half-way.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cio_proxy import people
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor, Recorded, audit_recorded
from cio_proxy.exports import Row
from cio_proxy.facts import Store, stores
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Exchange, FactStore, People, Settings
from cio_proxy.rules import RULES

from . import histories
from .conftest import Collected
from .facts import servers

SEAL = sealed_with(b"k" * 32)
PEOPLE = 620
LATER = 9 * histories.DAY
"""After the last exchange: every deadline has passed."""


def engine(known: People = "partial") -> Engine:
    return Engine(Settings(people=known), RULES, SEAL)


async def found(sent: Sequence[tuple[Exchange, Recorded]], known: People, store: Store) -> Counter[str]:
    findings = await audit_recorded(sent, engine(known), store=store, end=sent[-1][0].at + LATER)
    return Counter(finding.rule for finding in findings)


async def exported() -> MemoryStore:
    """A store that was told of everybody who was there before."""
    store = MemoryStore()
    first, _ = next(histories.clean(1))
    rows = [Row(line, (f"id:{id}",), False) for line, id in enumerate(histories.there_before(PEOPLE))]
    told = engine().open(first).workspace
    await people.told(store, rows, told, SEAL, made=histories.START - 60, now=lambda: histories.START - 1)
    return store


async def test_clean_traffic_from_a_cold_start_gives_no_finding() -> None:
    assert await found(list(histories.clean(PEOPLE)), "partial", MemoryStore()) == {}


async def test_each_pitfall_that_was_planted_is_found_once_and_nothing_else() -> None:
    assert await found(list(histories.planted(PEOPLE)), "partial", MemoryStore()) == dict.fromkeys(histories.PLANTED, 1)


async def test_where_everybody_is_known_exactly_what_was_planted_is_found() -> None:
    assert await found(list(histories.clean(PEOPLE)), "complete", await exported()) == {}
    planted = await found(list(histories.planted(PEOPLE)), "complete", await exported())
    assert planted == dict.fromkeys(histories.PLANTED, 1)


# --- whatever the store ------------------------------------------------------------------------


class Told(NamedTuple):
    """What is compared of a finding."""

    rule: str
    exchange: str
    item: int | None
    pointer: str
    confidence: str
    message: str
    related: tuple[str, ...]


class Replica:
    """An auditor with a store of its own kind, told what happens and when."""

    def __init__(self, place: FactStore) -> None:
        self.now = 0.0
        self.sink = Collected()
        self.auditor = Auditor(engine(), stores.opened(place, 1_000_000), [self.sink], lambda: self.now)
        self.waiting: dict[str, Any] = {}

    async def do(self, what: str, at: float, exchange: Exchange | None, recorded: Recorded | None) -> None:
        """Begin an exchange, answer it, or look at deadlines."""
        self.now = at
        match what, exchange, recorded:
            case "begin", Exchange(), _:
                self.waiting[exchange.id] = await self.auditor.begin(exchange)
            case "answer", Exchange(), Recorded():
                await self.auditor.answered(self.waiting.pop(exchange.id), recorded.status or 0, recorded.body)
            case _:
                await self.auditor.expire(at)

    def told(self) -> list[Told]:
        """What was found so far."""
        return [Told(*(getattr(finding, name) for name in Told._fields)) for finding in self.sink.findings]


def serve(place: FactStore, pipe: Connection) -> None:
    """A replica in a process of its own, which does what it reads and answers when that is done."""

    async def work() -> None:
        replica = Replica(place)
        while (step := pipe.recv()) is not None:
            if step == "told":
                pipe.send(replica.told())
            else:
                await replica.do(*step)
                pipe.send(None)
        await replica.auditor.store.close()

    asyncio.run(work())


class Process:
    """The other end of such a process."""

    def __init__(self, place: FactStore) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(place, theirs), daemon=True)
        self.process.start()

    def do(self, *step: Any) -> None:
        self.pipe.send(step)
        self.pipe.recv()

    def told(self) -> list[Told]:
        self.pipe.send("told")
        told: list[Told] = self.pipe.recv()
        return told

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join(20)

    def kill(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join(20)


type Step = tuple[str, float, Exchange | None, Recorded | None]


def steps(sent: Iterable[tuple[Exchange, Recorded]]) -> list[Step]:
    """Everything that happens, in the order of time: requests, answers, a look at deadlines every second."""
    happened: list[tuple[float, int, Step]] = []
    for number, (exchange, recorded) in enumerate(sent):
        happened.append((exchange.at, 3 * number + 1, ("begin", exchange.at, exchange, recorded)))
        happened.append((recorded.at, 3 * number + 2, ("answer", recorded.at, exchange, recorded)))
    first, last = happened[0][0], happened[-1][0]
    happened += [(at, 0, ("expire", at, None, None)) for second in range(int(last - first)) if (at := first + second)]
    heapq.heapify(happened)
    ordered = [heapq.heappop(happened)[2] for _ in range(len(happened))]
    return [*ordered, ("expire", last + LATER, None, None)]


@pytest.fixture(scope="module")
def session() -> list[Step]:
    return steps(histories.planted(PEOPLE))


@pytest.fixture(scope="module")
def alone(session: list[Step]) -> list[Told]:
    """What one process finds that keeps its facts in memory."""

    async def work() -> list[Told]:
        replica = Replica(FactStore("memory"))
        for step in session:
            await replica.do(*step)
        return replica.told()

    return sorted(asyncio.run(work()))


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store that processes share, empty."""
    if request.param == "sqlite":
        yield FactStore("sqlite", str(tmp_path / "facts.sqlite"))
        return
    with servers.redis(tmp_path) as port:
        yield FactStore("redis", f"redis://127.0.0.1:{port}")


def test_the_session_is_large_and_shows_every_pitfall(session: list[Step], alone: list[Told]) -> None:
    exchanges = [step[2] for step in session if step[0] == "begin" and step[2] is not None]
    assert len(exchanges) >= 2_000
    assert len({exchange.header("user-agent") for exchange in exchanges}) == len(histories.SERVICES)
    assert Counter(told.rule for told in alone) == dict.fromkeys(histories.PLANTED, 1)


@pytest.mark.once
def test_two_processes_that_share_a_store_find_what_one_finds_although_one_is_killed_half_way(
    session: list[Step], alone: list[Told], place: FactStore
) -> None:
    replicas = [Process(place), Process(place)]
    told: list[Told] = []
    waiting: dict[str, int] = {}
    killed = False
    for number, step in enumerate(session):
        match step:
            case ("begin", _, Exchange() as exchange, _):
                if number > len(session) / 2 and not killed and 0 not in waiting.values():
                    told, killed = replicas[0].told(), True
                    replicas[0].kill()
                    replicas[0] = Process(place)
                waiting[exchange.id] = number % 2
                replicas[number % 2].do(*step)
            case ("answer", _, Exchange() as exchange, _):
                replicas[waiting.pop(exchange.id)].do(*step)
            case _:
                replicas[int(step[1]) % 2].do(*step)
    assert killed
    assert sorted(told + replicas[0].told() + replicas[1].told()) == alone
    for replica in replicas:
        replica.end()
