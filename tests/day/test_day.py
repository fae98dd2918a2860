"""One staging day of a shop and its support desk: every pitfall of the list once, and the same day without them."""

import asyncio
import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from cio_proxy.rules import RULES

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
USERS = 30


DUE = ("missing-email", "anonymous-id-not-merged", "ignored-bounce", "unmonitored-complaints")
EITHER = "either"
"""What is found when a window is over is told by the proxy that looks first."""


class Place(NamedTuple):
    """Where a pitfall is to be found: by whose proxy, at which call, what in it, and from which client."""

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
    "anonymous-id-not-merged": Place(EITHER, VISIT, "/anonymous_id", NODE),
    "inconsistent-event-name": Place("desk", EVENT, "/name", PYTHON),
    "blocking-on-analytics": Place("shop", "POST /checkout", "path:", "other"),
    "dynamic-event-name": Place("shop", VISIT, "/name", NODE),
    "missing-email": Place(EITHER, IDENTIFY, "/email", NODE),
    "inconsistent-attribute-type": Place("shop", IDENTIFY, "/mails_per_week", NODE),
    "pii-in-name": Place("desk", EVENT, "/name", PYTHON),
    "missing-unsubscribe-link": Place("shop", "PUT /v1/newsletters/{id}/contents/{id}", "/body", NODE),
    "trigger-on-every-update": Place("shop", EVENT, "/name", NODE),
    "ignored-bounce": Place(EITHER, "POST webhook", "/data/failure_message", "other"),
    "unmonitored-complaints": Place(EITHER, "POST webhook", "/metric", "other"),
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
            "track-before-identify": {"grace": "1s"},
            "missing-email": {"window": f"{WINDOW:.0f}s"},
            "no-rate-limiting": {"track": 55},  # the job sends thrice as fast, and all else of the day together less
            "changing-user-id": {"settle": f"{WINDOW:.0f}s"},
            "anonymous-id-not-merged": {"window": f"{2 * WINDOW:.0f}s"},
            "ignored-bounce": {"window": f"{WINDOW:.0f}s"},
            "unmonitored-complaints": {"window": f"{WINDOW:.0f}s"},
        },
    }


PROBE = {"probe": {"share": "20%", "delay": "200ms"}}
"""In front of the shop, whose proxy goes to the sandbox."""


class Result(NamedTuple):
    """What both proxies say at the end of a day."""

    by_rule: Counter[str]
    exercised: Counter[str]
    """How many calls a rule could judge."""
    places: dict[str, set[Place]]
    logs: dict[str, str]


class Day:
    """Two apps, each behind a proxy of its own, and those who use them."""

    def __init__(self, folder: Path, story: str, running: ExitStack) -> None:
        folder.mkdir()
        (folder / "hash.key").write_bytes(secrets.token_bytes(32))
        (folder / "hash.key").chmod(0o600)
        self.folder, self.story = folder, story
        ports = {"shop": free_port(), "desk": free_port()}
        self.proxies: dict[str, sdks.Proxy] = {}
        upstream = "sandbox"
        for app, port in ports.items():
            (folder / app).mkdir()
            options = ("--inbound", "127.0.0.1:0", "--app", f"http://127.0.0.1:{port}", "--upstream", upstream)
            config = configured(folder) | (PROBE if app == "shop" else {})
            proxy = self.proxies[app] = sdks.Proxy(folder / app, *options, config=config)
            running.callback(proxy.stop)
            upstream = upstream if upstream != "sandbox" else proxy.ready["sandbox"]
        self._start(running, "shop", ports["shop"], "node", str(HERE / "shop.mjs"))
        self._start(running, "desk", ports["desk"], str(sdk_python(table.TRACK)), str(HERE / "desk.py"))
        self.shop_url, self.desk_url = (proxy.ready["inbound"] for proxy in self.proxies.values())
        self.sandbox = upstream

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
        async with browser() as client, asyncio.timeout(30):
            for url in (self.shop_url + "/film?user=u-0", self.desk_url + "/ready"):
                while (await client.get(url)).status_code != 200:
                    await asyncio.sleep(0.05)

    async def copy_leads(self) -> None:
        leads = [{"id": f"l-{n}", "email": f"l{n}@leads.example.com", "company": "Acme"} for n in range(5)]
        process = await asyncio.create_subprocess_exec(
            sdk_python(table.CDP), HERE / "leads.py", stdin=subprocess.PIPE, env=self._environment("desk")
        )
        await process.communicate("".join(json.dumps(lead) + "\n" for lead in leads).encode())
        assert process.returncode == 0

    async def post_report(self, url: str, **told: str) -> None:
        """Customer.io posts a report to an app."""
        body = {"url": url + "/hooks/customerio", "signing_key": KEYS["CIO_SIGNING_KEY"], **told}
        async with httpx.AsyncClient() as client:
            assert (await client.post(self.sandbox + "/_sandbox/webhooks", json=body)).json()["status"] == 200

    async def result(self) -> Result:
        summaries = [await asked(proxy.admin + "/api/summary") for proxy in self.proxies.values()]
        places: dict[str, set[Place]] = {}
        for app, proxy in self.proxies.items():
            for found in (await asked(proxy.admin + "/api/findings?limit=1000"))["findings"]:
                call, pointer = f"{found['method']} {found['endpoint']}", without_numbers(found["pointer"])
                told_by = EITHER if found["rule"] in DUE else app
                places.setdefault(found["rule"], set()).add(Place(told_by, call, pointer, found["client"]))
        coverage = [Counter({rule: told["exercised"] for rule, told in each["coverage"].items()}) for each in summaries]
        return Result(
            by_rule=sum((Counter(each["by_rule"]) for each in summaries), Counter()),
            exercised=sum(coverage, Counter()),
            places=places,
            logs=self.logs(),
        )

    def logs(self) -> dict[str, str]:
        """What the apps and the proxies wrote, by app and by `app proxy`."""
        apps = {app: (self.folder / f"{app}.log").read_text() for app in self.proxies}
        return apps | {f"{app} proxy": proxy.log.read_text() for app, proxy in self.proxies.items()}


def browser(**options: Any) -> httpx.AsyncClient:
    """Somebody who uses an app."""
    return httpx.AsyncClient(headers={"user-agent": BROWSER}, timeout=30, **options)


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


async def at_once(count: int, one: Callable[[int], Awaitable[object]], *, width: int) -> None:
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
    began = time.monotonic()
    async with browser(base_url=day.shop_url) as shop, browser(base_url=day.desk_url) as desk:
        await visit(day)
        await post(shop, "/gifts", id="g-1", email="g1@example.com")
        await post(shop, "/guests", id="guest-1", name="Grace", email="grace@example.com")
        assert (await shop.post("/settings", data={"user": "u-3", "mails_per_week": "1"})).status_code == 303
        await post(shop, "/trials", user="u-4")
        await post(shop, "/newsletters", subject="Spring", text="Everything is in bloom.")
        await watch_film(shop, "u-5")
        await day.post_report(day.desk_url, metric="bounced", id="u-6", email="u6@example.com")
        await day.post_report(day.shop_url, metric="spammed", id="u-7", email="u7@example.com")

        await at_once(60, lambda n: post(shop, "/profile", user=user(n), city=f"Town {n}"), width=2)
        await at_once(30, lambda n: shop.get(f"/blog/{n % 3}?user={user(n)}"), width=3)
        await at_once(240, lambda n: post(shop, "/checkout", user=user(n), order=f"A-{n}"), width=2)
        await post(shop, "/gifts/opened", id="g-1", email="g1@example.com")
        await post(shop, "/refunds", user="u-8", order="A-8")

        await post(desk, "/mails", customer="u-10", email="u10@example.com")
        await post(desk, "/parcels", customer="u-11", order="A-11")
        for n in range(25):
            await post(desk, "/tickets", customer=user(n), ticket=n)
        await post(desk, "/refunds", customer="u-9", order="A-9")
        await day.copy_leads()
        await post(shop, "/night")
        async with asyncio.timeout(60):
            while not (await shop.get("/night")).json():
                await asyncio.sleep(0.5)
    await asyncio.sleep(began + 2 * WINDOW + 4 - time.monotonic())  # until the last window is over


def user(n: int) -> str:
    return f"u-{n % USERS}"


async def post(app: httpx.AsyncClient, path: str, **sent: Any) -> None:
    answer = await app.post(path, json=sent)
    assert answer.status_code < 300, (path, answer.status_code, answer.text)


async def visit(day: Day) -> None:
    """Visitors look at two of twelve products each, and sign up."""

    async def one(n: int) -> None:
        async with browser(base_url=day.shop_url, cookies={"visitor": f"v-{n}"}) as visitor:
            for product in (n % 12, (n + 5) % 12):
                assert (await visitor.get(f"/products/{812 + product}")).status_code == 200
            await post(visitor, "/signup", id=user(n), email=f"u{n}@example.com")

    await at_once(USERS, one, width=3)


async def watch_film(shop: httpx.AsyncClient, who: str) -> None:
    """What a browser does with the page: it posts to where the script on it says."""
    found = re.search(r"const tell = (\{.*?\});", (await shop.get(f"/film?user={who}")).text)
    assert found is not None
    tell = json.loads(found[1])
    headers = {"origin": "https://shop.example.com", "referer": "https://shop.example.com/film"}
    if "authorization" in tell:
        headers["authorization"] = tell["authorization"]
    answer = await shop.post(tell["url"], json={"name": "film_watched", "data": {"seconds": 30}}, headers=headers)
    assert answer.status_code < 300


async def played(folder: Path, story: str) -> Result:
    with ExitStack() as running:
        day = await asyncio.to_thread(Day, folder, story, running)
        await day.opened()
        try:
            await play(day)
            return await day.result()
        finally:
            for name, log in day.logs().items():
                print(f"--- {story}: {name}\n{log}")


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Both days, side by side."""
    for sdk in (table.NODE, table.TRACK, table.CDP):
        sdks.need(sdk)
    folder = tmp_path_factory.mktemp("day")

    async def side_by_side() -> dict[str, Result]:
        stories = ("planted", "corrected")
        return dict(zip(stories, await asyncio.gather(*(played(folder / each, each) for each in stories)), strict=True))

    return asyncio.run(side_by_side())


def test_of_the_planted_day_each_pitfall_is_found_where_it_is_and_nothing_else(days: dict[str, Result]) -> None:
    planted = days["planted"]
    assert planted.places == {rule: {place} for rule, place in PLANTED.items()}
    assert set(planted.by_rule) == set(PLANTED)
    assert {rule.info.id for rule in RULES if rule.info.category != "contract"} == set(PLANTED)


def test_of_the_corrected_day_nothing_is_found_though_every_rule_had_something_to_judge(
    days: dict[str, Result],
) -> None:
    corrected = days["corrected"]
    assert corrected.by_rule == {}
    looks_at_calls = PLANTED.keys() - {"blocking-on-analytics"}  # what the probe looks at is no call
    assert [rule for rule in looks_at_calls if not corrected.exercised[rule]] == []


@pytest.mark.parametrize("story", ["planted", "corrected"])
def test_the_apps_send_all_they_meant_to(story: str, days: dict[str, Result]) -> None:
    logs = days[story].logs
    assert "customer.io" not in logs["shop"]
    assert "customer.io" not in logs["desk"]
