"""Two replicas that share a Redis keep a burst of the real SDK to one rate: nothing lost, reordered or timed out."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..facts import servers  # noqa: TID252 (tests are no package)
from .conftest import ROOT, Proxy, need
from .table import NODE

pytestmark = pytest.mark.once

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SIZE = int(os.environ.get("CALLS", "100"))
"""How many calls; `CALLS=2000` is the whole show."""


class Arrival(NamedTuple):
    at: float
    method: str
    person: str


class Burst(NamedTuple):
    arrived: list[Arrival]
    said: list[dict[str, Any]]
    paced: Counter[str]


@asynccontextmanager
async def upstream(arrived: list[Arrival]) -> AsyncIterator[str]:
    """Answers 200 at once, and keeps what came when."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                method, target, _ = head.split(b" ", 2)
                person = [*target.decode().split("/"), ""][4]
                arrived.append(Arrival(time.monotonic(), method.decode(), person))
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4_096)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def paced(proxy: Proxy) -> Counter[str]:
    with urllib.request.urlopen(proxy.admin + "/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return Counter({each.labels["result"]: int(each.value) for each in samples if each.name == "cio_proxy_paced_total"})


def warmed(proxy: Proxy) -> None:
    urllib.request.urlopen(f"{proxy.url}/api/v1/accounts/region", b"{}", timeout=20).close()


async def burst(folder: Path, redis: int, calls: int, **params: Any) -> Burst:
    """So many calls at once, half of them through each of two proxies."""
    arrived: list[Arrival] = []
    (folder / "hash.key").write_bytes(bytes(32))
    (folder / "hash.key").chmod(0o600)
    config = {
        "hash_key_file": str(folder / "hash.key"),
        "facts": f"redis://127.0.0.1:{redis}",
        "rules": {"no-rate-limiting": {"action": "pace", **params}},
    }
    async with upstream(arrived) as url:
        proxies = []
        try:
            for name in "ab":
                (folder / name).mkdir()
                options = ("--upstream", url, "--enforcement", "enforce")
                proxies.append(await asyncio.to_thread(Proxy, folder / name, *options, config=config))
            for proxy in proxies:  # so that the first call of the burst is not the first of all
                await asyncio.to_thread(proxy.counted)
                await asyncio.to_thread(warmed, proxy)
            arrived.clear()
            programs = [
                await asyncio.create_subprocess_exec(
                    *("node", "tests/sdks/node/burst.mjs", proxy.url, SITE, KEY, name, str(calls // 4)),
                    cwd=ROOT,
                    stdout=asyncio.subprocess.PIPE,
                )
                for name, proxy in zip("ab", proxies, strict=True)
            ]
            told = await asyncio.gather(*(program.communicate() for program in programs))
            counts = [await asyncio.to_thread(paced, proxy) for proxy in proxies]
        finally:
            for proxy in proxies:
                await asyncio.to_thread(proxy.stop)
    return Burst(arrived, [json.loads(out) for out, _ in told], counts[0] + counts[1])


def shown(name: str, it: Burst) -> None:
    seconds = it.arrived[-1].at - it.arrived[0].at
    rate = len(it.arrived) / seconds
    slowest = [each["slowest"] for each in it.said]
    print(
        f"\n{name}: {len(it.arrived)} arrived in {seconds:.1f} s ({rate:.0f}/s), {dict(it.paced)}, slowest {slowest} ms"
    )


def is_whole_and_in_order(it: Burst, calls: int) -> None:
    assert [each["errors"] for each in it.said] == [[], []]
    assert sum(each["calls"] for each in it.said) == calls
    of_each: dict[str, list[str]] = {}
    for arrival in it.arrived:
        of_each.setdefault(arrival.person, []).append(arrival.method)
    assert len(of_each) == calls // 2
    assert set(map(tuple, of_each.values())) == {("PUT", "POST")}, "each person once, and in the order sent"


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("redis")
    need(NODE)
    with servers.redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


async def test_two_replicas_hold_a_burst_to_one_rate(tmp_path: Path, shared: int) -> None:
    rate = SIZE / 5
    it = await burst(tmp_path, shared, SIZE, track=int(rate), burst="250ms")
    shown("paced", it)
    is_whole_and_in_order(it, SIZE)
    assert it.paced["held"] > SIZE * 0.5
    assert it.paced["passed"] == 0
    seconds = it.arrived[-1].at - it.arrived[0].at
    assert seconds >= 0.8 * (SIZE - rate / 4) / rate


async def test_what_would_be_held_for_more_than_eight_seconds_passes_and_is_counted(
    tmp_path: Path, shared: int
) -> None:
    rate = SIZE // 20
    it = await burst(tmp_path, shared, SIZE, track=rate)
    shown("passed", it)
    is_whole_and_in_order(it, SIZE)
    assert it.paced["passed"] == pytest.approx(SIZE - 10 * rate, rel=0.25), (
        "one second's worth, and nine seconds of slots"
    )
    assert max(each["slowest"] for each in it.said) < 10_000
