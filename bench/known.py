"""What a request costs, and how much memory is used, when few and when very many people are known.

python bench/known.py [PEOPLE] [STORE...]

Each store (memory, sqlite, redis) is filled in a process of its own: with the people (1,000,000 unless told otherwise)
and with a tenth as many event names. `capped` is the memory store with the shipped limit. Redis is started from
redis-server, which has to be there.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import tempfile
import time
from itertools import batched
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine import AT, exchanges

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Store, stores
from cio_proxy.model import Fact, FactStore, Groups, Key, Outcome, Sample, Settings, Span
from cio_proxy.rules import RULES
from tests.facts import servers

STORES = ("memory", "capped", "sqlite", "redis")
FEW = 10
REQUESTS = 3_000
ROUNDS = 5
DAY = 86_400.0


async def cost(engine: Engine, store: Store, people: int, start: int) -> float:
    """Microseconds a request, as its sender waits for them: the median of some rounds."""
    spent = []
    for turn in range(ROUNDS):
        sent = exchanges(REQUESTS // ROUNDS, start + turn * REQUESTS, people)
        started = time.perf_counter()
        for exchange in sent:
            opened = engine.open(exchange)
            engine.judge(opened, await store.get_many(opened.subjects, opened.announced, exchange.at))
            settled = engine.settle(opened, Outcome(kind="accepted", at=exchange.at, status=200))
            if settled.facts or opened.marked:
                await store.join_many(settled.facts, opened.marked, exchange.at)
        spent.append((time.perf_counter() - started) / len(sent))
    return statistics.median(spent) * 1e6


async def fill(engine: Engine, store: Store, people: int) -> None:
    """Teach that so many people exist and had an event, and a tenth as many names of events."""
    workspace = engine.open(exchanges(1, 0)[0]).workspace
    sealer, span = engine.sealer, Span(AT - DAY, AT - DAY)
    for numbers in batched(range(people), 500):
        facts = []
        for number in numbers:
            subjects = [f"id:{number}", f"email:p{number}@example.com"]
            facts += [
                Fact(sealer.key(Key(kind, workspace, subject)), span, 30 * DAY)
                for subject in subjects
                for kind in ("identified", "event-first")
            ]
            if number % 10 == 0:
                once = Groups(8, {f"name_{number}": Sample(100, (number,))})
                key = Key("event-spellings", workspace, f"0\0name{number}", named=True)
                facts.append(Fact(sealer.key(key), once, 30 * DAY))
        await store.join_many(facts, (), AT)


async def measure(name: str, place: FactStore, people: int) -> None:
    """The figures of one store."""
    limit = Settings().facts_limit if name == "capped" else 10 * people
    unable = 0

    def count(rule: str, reason: str) -> None:
        nonlocal unable
        unable += 1

    engine = Engine(Settings(), RULES, sealed_with(b"k" * 32), unable=count)
    store = stores.opened(place, limit)
    few = await cost(engine, store, FEW, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    await fill(engine, store, people)
    filled = time.perf_counter() - started
    many = await cost(engine, store, people, 2 * people)
    await store.tend(AT)
    print(
        f"{name:8} {few:6.0f} us a request with {FEW} people known, {many:6.0f} us with {people:,}"
        f" ({sum(store.known().values()):,} facts, filled in {filled:.0f} s);"
        f" RSS {before:.0f} MiB, then {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB;"
        f" {unable:,} times a rule could not judge",
        flush=True,
    )
    await store.close()


def run(name: str, place: FactStore, people: int) -> None:
    """One store in this process."""
    asyncio.run(measure(name, place, people))


def main() -> None:
    """Every store that was named, each in a fresh process."""
    people = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for name in sys.argv[2:] or STORES:
        with tempfile.TemporaryDirectory() as folder:
            if name == "redis":
                with servers.redis(Path(folder)) as port:
                    alone(name, FactStore("redis", f"redis://127.0.0.1:{port}"), people)
                    for line in servers.said(port, "INFO memory").splitlines():
                        if line.startswith(("used_memory_human", "used_memory_peak_human")):
                            print(f"         {line}")
            elif name == "sqlite":
                file = Path(folder) / "facts.sqlite"
                alone(name, FactStore("sqlite", str(file)), people)
                print(f"         {file.stat().st_size / 2**20:.0f} MiB on disk")
            else:
                alone(name, FactStore("memory"), people)


def alone(name: str, place: FactStore, people: int) -> None:
    """One store in a process of its own, so that memory is its own."""
    process = get_context("spawn").Process(target=run, args=(name, place, people))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
