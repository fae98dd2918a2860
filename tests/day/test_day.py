"""One staging day of a shop and its support desk: every pitfall of the list once, and the same day without them."""

import asyncio
import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from ..sdks import conftest as sdks  # noqa: TID252 (tests are no package)
from ..sdks import table  # noqa: TID252

pytestmark = pytest.mark.once

HERE = Path(__file__).parent
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
KEYS = {
    "CIO_SITE_ID": "f82ad78f695bd32f9d99",
    "CIO_TRACK_KEY": "a13c95a0bc44d9f01e27",
    "CIO_APP_KEY": "5b1f0c9ad27e4368b0c4f1e2793d8a56",
    "CIO_PIPELINES_KEY": "0f6d2b9c41e8a75d3c90",
    "CIO_SIGNING_KEY": "c0a8b5e2f1d94736",
}
"""Of the shapes that Customer.io gives out."""
WINDOW = 6.0
"""Seconds in which what is to follow has to follow: for most rules minutes or days."""


class Place(NamedTuple):
    """Where a pitfall is to be found: whose proxy, which call, what in it."""

    proxy: str
    call: str
    pointer: str
    client: str


NODE, PYTHON = "customerio-node", "customerio-python"
IDENTIFY, EVENT = "PUT /api/v1/customers/{identifier}", "POST /api/v1/customers/{identifier}/events"
VISIT = "POST /api/v1/events"
PLANTED = {
    "wrong-api-key": Place("desk", EVENT, "header:Authorization", PYTHON),
    "millisecond-timestamp": Place("shop", EVENT, "/timestamp", NODE),
    "hardcoded-credentials": Place("shop", EVENT, "header:Authorization", "browser"),
    "track-before-identify": Place("shop", IDENTIFY, "path:", NODE),
    "changing-user-id": Place("desk", "POST /v1/batch", "/batch/{}/userId", "customerio-cdp-analytics"),
    "anonymous-id-not-merged": Place("shop", VISIT, "/anonymous_id", NODE),
    "inconsistent-event-name": Place("desk", EVENT, "/name", PYTHON),
    "dynamic-event-name": Place("shop", VISIT, "/name", NODE),
    "missing-email": Place("shop", IDENTIFY, "/email", NODE),
    "inconsistent-attribute-type": Place("shop", IDENTIFY, "/mails_per_week", NODE),
    "pii-in-name": Place("desk", EVENT, "/name", PYTHON),
    "missing-unsubscribe-link": Place("shop", "PUT /v1/newsletters/{id}/contents/{id}", "/body", NODE),
    "trigger-on-every-update": Place("shop", EVENT, "/name", NODE),
    "ignored-bounce": Place("desk", "POST webhook", "/data/failure_message", "other"),
    "unmonitored-complaints": Place("shop", "POST webhook", "/metric", "other"),
    "no-connection-pooling": Place("desk", EVENT, "header:Connection", PYTHON),
    "no-rate-limiting": Place("shop", IDENTIFY, "path:", NODE),
}


def digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(KEYS[key].encode()).hexdigest()


def configured(folder: Path) -> dict[str, Any]:
    """What both sidecars share. Windows are shorter than shipped, and no threshold differs."""
    return {
        "facts": f"sqlite:{folder / 'facts.sqlite'}",
        "hash_key_file": str(folder / "hash.key"),
        "webhooks": {"signing_key": KEYS["CIO_SIGNING_KEY"]},
        "workspaces": {
            "shop": {
                "site_ids": [KEYS["CIO_SITE_ID"]],
                "track_keys": [digest("CIO_TRACK_KEY")],
                "app_keys": [digest("CIO_APP_KEY")],
                "pipelines_keys": [digest("CIO_PIPELINES_KEY")],
            }
        },
        "rules": {
            "missing-email": {"window": f"{WINDOW:.0f}s"},
            "changing-user-id": {"settle": f"{WINDOW:.0f}s"},
            "anonymous-id-not-merged": {"window": f"{2 * WINDOW:.0f}s"},
            "ignored-bounce": {"window": f"{WINDOW:.0f}s"},
            "unmonitored-complaints": {"window": f"{WINDOW:.0f}s"},
        },
    }


class Day:
    """Two apps, each behind a proxy of its own, and those who use them."""

    def __init__(self, folder: Path, story: str, running: ExitStack, clients: list[httpx.AsyncClient]) -> None:
        (folder / "hash.key").write_bytes(secrets.token_bytes(32))
        (folder / "hash.key").chmod(0o600)
        self.folder, self.story = folder, story
        ports = {"shop": free_port(), "desk": free_port()}
        self.proxies: dict[str, sdks.Proxy] = {}
        upstream = "sandbox"
        for app, port in ports.items():
            (folder / app).mkdir()
            options = ("--inbound", "127.0.0.1:0", "--app", f"http://127.0.0.1:{port}", "--upstream", upstream)
            proxy = self.proxies[app] = sdks.Proxy(folder / app, *options, config=configured(folder))
            running.callback(proxy.stop)
            upstream = upstream if upstream != "sandbox" else proxy.ready["sandbox"]
        self._start(running, "shop", ports["shop"], "node", str(HERE / "shop.mjs"))
        self._start(running, "desk", ports["desk"], str(sdk_python(table.TRACK)), str(HERE / "desk.py"))
        self.shop, self.desk, self.sandbox = (
            httpx.AsyncClient(base_url=url, headers={"user-agent": BROWSER}, timeout=30)
            for url in (*(proxy.ready["inbound"] for proxy in self.proxies.values()), upstream)
        )
        clients += [self.shop, self.desk, self.sandbox]

    def _environment(self, app: str) -> dict[str, str]:
        proxy = self.proxies[app]
        plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return (
            plain
            | KEYS
            | {
                "STORY": self.story,
                "CIO_PROXY_URL": proxy.url,
                "REQUESTS_CA_BUNDLE": str(proxy.certificate()),
            }
        )

    def _start(self, running: ExitStack, app: str, port: int, *command: str) -> None:
        log = running.enter_context((self.folder / f"{app}.log").open("w"))
        process = subprocess.Popen(command, env=self._environment(app) | {"PORT": str(port)}, stdout=log, stderr=log)
        running.callback(process.wait, 20)
        running.callback(process.terminate)

    async def opened(self) -> None:
        """Wait until both apps answer; until then their proxies say 502."""
        async with asyncio.timeout(30):
            for app, path in ((self.shop, "/film?user=u-0"), (self.desk, "/ready")):
                while (await app.get(path)).status_code != 200:
                    await asyncio.sleep(0.05)

    async def copy_leads(self) -> None:
        leads = [
            {"id": f"l-{n}", "email": f"l{n}@leads.example.com", "company": "Acme", "source": "fair"} for n in range(5)
        ]
        process = await asyncio.create_subprocess_exec(
            sdk_python(table.CDP),
            HERE / "leads.py",
            stdin=subprocess.PIPE,
            env=self._environment("desk"),
        )
        await process.communicate("".join(json.dumps(lead) + "\n" for lead in leads).encode())
        assert process.returncode == 0

    async def report(self, app: str, **asked: str) -> None:
        """Customer.io posts a report to an app."""
        url = self.proxies[app].ready["inbound"] + "/hooks/customerio"
        asked |= {"url": url, "signing_key": KEYS["CIO_SIGNING_KEY"]}
        assert (await self.sandbox.post("/_sandbox/webhooks", json=asked)).json()["status"] == 200

    async def summaries(self) -> dict[str, dict[str, Any]]:
        return {app: await asked(proxy.admin + "/api/summary") for app, proxy in self.proxies.items()}

    async def findings(self) -> list[tuple[str, Place]]:
        return [
            (
                found["rule"],
                Place(
                    app, f"{found['method']} {found['endpoint']}", without_numbers(found["pointer"]), found["client"]
                ),
            )
            for app, proxy in self.proxies.items()
            for found in (await asked(proxy.admin + "/api/findings?limit=1000"))["findings"]
        ]


async def asked(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer: dict[str, Any] = (await client.get(url)).raise_for_status().json()
        return answer


def without_numbers(pointer: str) -> str:
    return re.sub(r"(?<=/)\d+(?=/|\Z)", "{}", pointer)


def sdk_python(sdk: str) -> Path:
    return sdks.ROOT / table.INSTALLED[sdk] / "bin" / "python"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def at_once(count: int, one: Callable[[int], Any], *, width: int) -> None:
    """Do something for each of `count`, for so many at a time."""
    gate = asyncio.Semaphore(width)

    async def gated(n: int) -> None:
        async with gate:
            await one(n)

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(gated(n))


async def play(day: Day) -> None:
    """The day: in both stories users, agents and jobs do the same."""
    shop, desk = day.shop, day.desk
    users, products = 30, 12

    async def ask(app: httpx.AsyncClient, path: str, *, form: bool = False, **sent: Any) -> None:
        body = {"data": sent} if form else {"json": sent}
        answer = await app.post(path, **body)
        assert answer.status_code < 400, (path, answer.text)

    async def visits(n: int) -> None:
        async with httpx.AsyncClient(base_url=str(shop.base_url), cookies={"visitor": f"v-{n}"}) as visitor:
            for product in (n % products, (n + 5) % products):
                assert (await visitor.get(f"/products/{812 + product}")).status_code == 200
            await ask(visitor, "/signup", id=f"u-{n}", email=f"u{n}@example.com")

    await at_once(users, visits, width=3)
    for n in range(2):
        await ask(shop, "/gifts", id=f"g-{n}", email=f"g{n}@example.com")
        await asyncio.sleep(0.2)
    await ask(shop, "/guests", id="guest-1", name="Grace", email="grace@example.com")
    await ask(shop, "/settings", form=True, user="u-3", mails_per_week="1")
    await ask(shop, "/trials", user="u-4")
    await ask(shop, "/newsletters", subject="Spring", text="Everything is in bloom.")
    await watch_film(day, "u-5")
    await day.report("desk", metric="bounced", id="u-6", email="u6@example.com")
    await day.report("shop", metric="spammed", id="u-7", email="u7@example.com")

    async def edits(n: int) -> None:
        await ask(shop, "/profile", user=f"u-{n % users}", city=f"Town {n}")

    await at_once(60, edits, width=2)

    async def reads(n: int) -> None:
        assert (await shop.get(f"/blog/{n % 3}?user=u-{n}")).status_code == 200

    await at_once(users, reads, width=3)

    async def orders(n: int) -> None:
        await ask(shop, "/checkout", user=f"u-{n % users}", order=f"A-{n}")

    await at_once(200, orders, width=2)
    await ask(shop, "/refunds", user="u-8", order="A-8")
    await asyncio.sleep(0.2)
    await ask(desk, "/refunds", customer="u-9", order="A-9")
    await ask(desk, "/mails", customer="u-10", email="u10@example.com")
    await ask(desk, "/parcels", customer="u-11", order="A-11")
    for n in range(25):
        await ask(desk, "/tickets", customer=f"u-{n}", ticket=n)
    await day.copy_leads()
    await ask(shop, "/night")
    await asyncio.sleep(2 * WINDOW)


async def watch_film(day: Day, user: str) -> None:
    """What a browser does with the page: it posts to where the script on it says."""
    page = (await day.shop.get(f"/film?user={user}")).text
    found = re.search(r"const tell = (\{.*?\});", page)
    assert found is not None
    tell = json.loads(found[1])
    headers = {"origin": "https://shop.example.com", "referer": "https://shop.example.com/film"}
    if "authorization" in tell:
        headers["authorization"] = tell["authorization"]
    answer = await day.shop.post(tell["url"], json={"name": "film_watched", "data": {"seconds": 30}}, headers=headers)
    assert answer.status_code < 400


@pytest.fixture
def installed() -> None:
    for sdk in (table.NODE, table.TRACK, table.CDP):
        sdks.need(sdk)


async def played(folder: Path, story: str) -> Day:
    clients: list[httpx.AsyncClient] = []
    with ExitStack() as running:
        day = Day(folder, story, running, clients)
        await day.opened()
        await play(day)
        for app in ("shop", "desk"):
            print((folder / f"{app}.log").read_text())
            print(day.proxies[app].log.read_text())
        print(json.dumps(await day.summaries(), indent=1))
        print("\n".join(map(str, sorted(set(await day.findings())))))
        for client in clients:
            await client.aclose()
    return day


@pytest.mark.parametrize("story", ["planted", "corrected"])
async def test_day(story: str, tmp_path: Path, installed: None) -> None:
    await played(tmp_path, story)
