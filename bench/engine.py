"""The engine alone: calls a second on one core, all rules on, with what the memory store knows.

python bench/engine.py [CALLS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from traffic import AUTHORIZATION, FAULTY_EVERY, PEOPLE, calls

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Exchange, Outcome, Settings
from cio_proxy.rules import RULES

ROUNDS = 9
AT = 1_790_100_000.0
HEADERS = (
    (b"Host", b"track.customer.io"),
    (b"Authorization", AUTHORIZATION),
    (b"Content-Type", b"application/json"),
    (b"User-Agent", b"Customer.io Node Client/5.2.0"),
    (b"Accept", b"*/*"),
)


def exchanges(count: int, start: int, people: int = PEOPLE) -> list[Exchange]:
    """What the bench sends, half a second apart."""
    return [
        Exchange(
            id=f"{number:016x}",
            at=AT + (start + number) / 2,
            method=method,
            target=path.encode(),
            host="track.customer.io",
            headers=HEADERS,
            body=body,
            connection="c",
            carried=start + number + 1,
        )
        for number, (method, path, body) in enumerate(calls(count, start, people))
    ]


async def measure(count: int) -> None:
    """Open, judge and settle each exchange, and read and write its facts."""
    engine, store = Engine(Settings(), RULES, sealed_with(b"k" * 32)), MemoryStore()
    rates = []
    for turn in range(ROUNDS):
        sent = exchanges(count, turn * count)
        found = 0
        started = time.process_time()
        for exchange in sent:
            opened = engine.open(exchange)
            verdict = engine.judge(opened, await store.get_many(opened.subjects, opened.announced, exchange.at))
            settled = engine.settle(opened, Outcome(kind="accepted", at=exchange.at, status=200))
            await store.join_many(
                settled.facts,
                opened.marked,
                exchange.at,
            )
            found += len(verdict.findings) + len(settled.findings)
        rates.append(count / (time.process_time() - started))
        if found != count // FAULTY_EVERY:
            sys.exit(f"{found} findings where {count // FAULTY_EVERY} were planted: this measures nothing")
    print(
        f"engine: {statistics.median(rates):,.0f} calls/s a core"
        f" (median of {ROUNDS}; {min(rates):,.0f} to {max(rates):,.0f}), {len(RULES)} rules"
    )


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000))
