"""A sandbox on a real socket, with a clock that the test moves."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cio_proxy.sandbox import Sandbox

START = 1_800_000_000.0
DAY = 24 * 3600.0
TRACK = "Basic " + base64.b64encode(b"f82ad78f695bd32f9d99:0a1b2c3d4e5f60718293").decode()
APP = "Bearer 20436c6351668b25a74a2c289a639d3f"
CDP = "Basic " + base64.b64encode(b"write_key:").decode()


class Service:
    """The running sandbox as its clients see it."""

    def __init__(self) -> None:
        self.now = START
        self.sandbox = Sandbox(clock=lambda: self.now)
        self.http = httpx.AsyncClient()

    async def send(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        auth = APP if path.startswith("/v1/") else TRACK
        if path.startswith(("/v1/identify", "/v1/track", "/v1/page", "/v1/group", "/v1/alias", "/v1/batch")):
            auth = CDP
        headers = {"Authorization": auth} | options.pop("headers", {})
        return await self.http.request(method, path, json=json, headers=headers, **options)

    async def ok(self, method: str, path: str, json: Any = None, **options: Any) -> Any:
        """Send, expect 200, and return the notes that the answer does not show."""
        answer = await self.send(method, path, json, **options)
        assert answer.status_code == 200, answer.text
        return " ".join((await self.shown("requests"))[-1]["notes"])

    async def shown(self, kind: str) -> list[dict[str, Any]]:
        answer = await self.http.get(f"/_sandbox/{kind}")
        entries: list[dict[str, Any]] = answer.json()[kind]
        return entries

    async def person(self, **identifier: str) -> dict[str, Any]:
        ((kind, value),) = identifier.items()
        return next(person for person in await self.shown("people") if person[kind] == value)

    async def event(self, name: str) -> dict[str, Any]:
        return next(event for event in await self.shown("events") if event["stored"]["name"] == name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service() -> AsyncIterator[Service]:
    """One server for all tests: each start and stop costs a fifth of a second."""
    service = Service()
    service.http.base_url = httpx.URL(await service.sandbox.start())
    yield service
    await service.http.aclose()
    await service.sandbox.stop()


@pytest.fixture
def cio(service: Service) -> Service:
    service.now = START
    service.sandbox.reset()
    return service
