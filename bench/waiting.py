"""Whether the latency probe tells an app that awaits Customer.io from the same app that does not.

    python bench/waiting.py [RUNS [ORDERS]]

A shop in Node (tests/sdks/node/shop.mjs, with customerio-node) stands behind a real proxy, in two versions of one
route. Each is asked by several users at once, who send a `traceparent` or do not: four combinations. The version that
awaits has to be found, in its first run; the other one never, in any, although as many of its calls are held back.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from proxy import BIN, line, started

SHOP = Path(__file__).parents[1] / "tests" / "sdks" / "node" / "shop.mjs"
USERS = 8
DELAY = 0.2
LEAST = 40
"""So many calls have to be held back for a run to mean anything: two looks."""


class Shop(NamedTuple):
    """A running shop behind its proxy."""

    inbound: str
    admin: str
    calls: str
    """Where the shop says how long its calls took."""


@contextmanager
def opened(version: str, folder: str) -> Iterator[Shop]:
    """A shop, and the proxy before it and behind it, on a port that the shop was told."""
    port = free()
    node = ["node", str(SHOP), version, f"http://127.0.0.1:{port}"]
    environment = os.environ | {
        "XDG_STATE_HOME": folder,
        "CIO_PROXY_PROBE_SHARE": "20%",
        "CIO_PROXY_PROBE_DELAY": f"{DELAY * 1000:.0f}ms",
    }
    with started(node) as shop:
        app = f"http://127.0.0.1:{line(shop, r'([0-9]+)')}"
        command = [str(BIN / "cio-proxy"), "run", "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"]
        with started([*command, "--inbound", "127.0.0.1:0", "--app", app], env=environment) as proxy:
            ready = json.loads(line(proxy, r"(\{.*\})"))
            yield Shop(ready["inbound"], ready["admin"], f"{app}/calls")


def free() -> int:
    """A port that nobody has just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


async def load(shop: Shop, orders: int, *, traced: bool) -> None:
    """Let users place orders, one after the other each, until there are so many."""
    place = urlsplit(shop.inbound)
    left = iter(range(orders))

    async def user() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for number in left:
            head = f"POST /shops/berlin/orders/{4711 + number} HTTP/1.1\r\nHost: shop.example.com\r\n"
            if traced:
                head += f"traceparent: 00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01\r\n"
            writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in answer.lower():
                await reader.readuntil(b"0\r\n\r\n")
            else:
                await reader.readexactly(2)
            await asyncio.sleep(random.uniform(0, 0.04))  # noqa: S311
        writer.close()

    await asyncio.gather(*(user() for _ in range(USERS)))


def found(shop: Shop) -> list[dict[str, Any]]:
    """Everything that the proxy says of the app, in the order of time."""
    findings = fetched(f"{shop.admin}/api/findings?rule=blocking-on-analytics")["findings"]
    return sorted(findings, key=lambda each: each["time"])


def wrong(version: str, orders: int, *, traced: bool) -> str:
    """What is wrong with what is found under load, or nothing."""
    with tempfile.TemporaryDirectory() as folder, opened(version, folder) as shop:
        asyncio.run(load(shop, orders, traced=traced))
        held = sum(took >= DELAY * 1000 for took in fetched(shop.calls))
        told = found(shop)
    by = "trace" if traced else "time"
    evidence = told[0]["evidence"] if told else "nothing found"
    print(f"{version:6} {by:5} {orders} orders, {held:3} calls held: {evidence}", flush=True)
    if held < LEAST:
        return f"only {held} calls were held: this shows nothing"
    if version == "sends":
        return f"accused: {told[0]['message']}" if told else ""
    return "" if told and told[0]["evidence"]["told_by"] == by else "not found"


def main(runs: int, orders: int) -> None:
    """All four combinations, and the version that does not wait once more in each further run."""
    mistakes = [
        f"{version}, {'with' if traced else 'without'} traces: {mistake}"
        for run in range(runs)
        for version in ("awaits", "sends")[min(run, 1) :]
        for traced in (True, False)
        if (mistake := wrong(version, orders, traced=traced))
    ]
    if mistakes:
        sys.exit("\n".join(mistakes))


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*given, *(1, 400)[len(given) :])
