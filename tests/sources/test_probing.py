"""The latency probe in the running proxy: what it holds, and what it never does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cio_proxy.model import Address, ProbeSettings, RuleSettings, Settings, Waits
from cio_proxy.probe import Probe
from cio_proxy.sources.mitm import probing
from cio_proxy.sources.mitm.probing import traces

from .conftest import OK, Answer, OpenDoor, Opened, read_message, request, upstream

DELAY = 0.6
EVENT = request("POST", "/api/v1/customers/42/events", b'{"name": "order_placed"}')
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01".encode()
AWAITED = Waits("POST /orders/{}", "event order_placed", True, DELAY, 20, 20, 100, 1)


class Picky(Probe):
    """Picks every call, and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(ProbeSettings(share=1.0, delay=DELAY))
        self.told: list[tuple[Any, ...]] = []
        self.waits: tuple[Waits, ...] = ()

    def arrived(self, request: str, route: str, traces: Any) -> None:
        self.told.append(("arrived", route, set(traces)))
        super().arrived(request, route, traces)

    def called(self, call: str, name: str, traces: Any) -> None:
        self.told.append(("called", name, set(traces)))
        super().called(call, name, traces)

    def left(self, request: str, at: float) -> tuple[Waits, ...]:
        self.told.append(("left",))
        super().left(request, at)
        return self.waits

    @property
    def open(self) -> int:
        """How many requests and calls it waits for."""
        return len(self._requests) + len(self._calls) + len(self._traced)


class Behind:
    """A door with an app that answers when it is let."""

    def __init__(self, door: Opened, probe: Picky, go: asyncio.Event) -> None:
        self.door, self.probe, self.go = door, probe, go

    async def ask(self, *headers: bytes) -> asyncio.Task[bytes]:
        """A user's request that the app is busy with."""
        head = b"POST /orders/4711?x=1 HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 0\r\n"
        asked = len(self.probe.told)
        sending = asyncio.create_task(
            self.door.send(head + b"".join(each + b"\r\n" for each in headers) + b"\r\n", "inbound")
        )
        async with asyncio.timeout(10):
            while len(self.probe.told) == asked and self.door.auditor.watches_app:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return sending

    async def took(self, sent: bytes = EVENT) -> float:
        """How long a call takes, in seconds."""
        begun = time.monotonic()
        await self.door.send(sent)
        return time.monotonic() - begun


@asynccontextmanager
async def behind(open_door: OpenDoor, answer: Answer = lambda _: OK, **settings: Any) -> AsyncIterator[Behind]:
    go, probe = asyncio.Event(), Picky()

    async def app(_: bytes) -> bytes:
        await go.wait()
        return OK

    async with upstream(app) as running, upstream(answer) as customerio:
        wanted = Settings(inbound=Address("127.0.0.1", 0), app=running.url, **settings)
        async with open_door(customerio.url, wanted, probe=probe) as door:
            yield Behind(door, probe, go)
            go.set()


async def test_an_answer_is_held_once_its_exchange_is_settled(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        user = await shop.ask()
        call = asyncio.create_task(shop.took())
        await asyncio.sleep(DELAY / 2)
        assert shop.door.sink.endings == ["forwarded"]
        assert not call.done()
        assert DELAY <= await call < DELAY + 0.4
        shop.go.set()
        assert await user == OK
        assert [told[0] for told in shop.probe.told] == ["arrived", "called", "left"]
        assert shop.probe.told[0][1:] == ("POST /orders/{}", set())
        assert shop.probe.told[1][1:] == ("event order_placed", set())


async def test_nothing_is_held_while_no_request_is_open(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        assert await shop.took() < DELAY / 2


async def test_traces_of_both_sides_are_told(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        await shop.ask(TRACEPARENT, b"X-Request-Id: 7c2e9a51")
        await shop.took(request("DELETE", "/api/v1/customers/42", b"", TRACEPARENT))
        assert [told[2] for told in shop.probe.told] == [{TRACE, "7c2e9a51"}, {TRACE}]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (((b"Traceparent", TRACEPARENT[13:]),), {TRACE}),
        (((b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"),), set()),
        (((b"traceparent", b"garbage"),), set()),
        (((b"X-Correlation-ID", b"7c2e9a51-4"), (b"x-request-id", b"1")), {"7c2e9a51-4"}),
        (((b"x-request-id", b"7" * 201), (b"Cookie", b"session=1234567890")), set()),
    ],
)
def test_what_is_a_trace(headers: tuple[tuple[bytes, bytes], ...], found: set[str]) -> None:
    assert traces(headers) == found


async def test_nothing_is_watched_or_held_in_bypass_or_with_the_rule_off(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        shop.door.auditor.bypass = True
        await shop.ask()
        assert await shop.took() < DELAY / 2
        assert shop.probe.told == []
    async with behind(open_door, rules={"blocking-on-analytics": RuleSettings(action="off")}) as shop:
        await shop.ask()
        assert await shop.took() < DELAY / 2
        assert shop.probe.told == []


async def test_what_is_held_goes_at_once_when_the_proxy_stops(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        shop.probe._delay = 4.0
        await shop.ask()
        call = asyncio.create_task(shop.took())
        await asyncio.sleep(0.3)
        assert not call.done()
        shop.go.set()
        stopping = asyncio.create_task(shop.door.door.stop())
        assert await call < 2.0
        await stopping


async def test_a_client_that_leaves_while_its_answer_is_held_leaves_nothing_behind(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        await shop.ask()
        _, writer = await shop.door.connect()
        writer.write(EVENT)
        await asyncio.sleep(DELAY / 3)
        writer.close()
        await asyncio.sleep(DELAY)
        assert shop.door.sink.endings == ["forwarded"]
        assert await shop.took() >= DELAY


async def test_a_slow_or_streamed_answer_is_not_held_and_is_in_neither_arm(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(_: bytes) -> bytes:
        await asyncio.sleep(0.2)
        return OK

    monkeypatch.setattr(probing, "SLOW", 0.1)
    async with behind(open_door, late) as shop:
        await shop.ask()
        assert await shop.took() < DELAY
        assert not shop.probe._answered
    events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 2\r\n\r\n{}"
    async with behind(open_door, lambda _: events) as shop:
        await shop.ask()
        assert await shop.took() < DELAY
        assert not shop.probe._answered


async def test_what_never_ends_well_is_forgotten(open_door: OpenDoor) -> None:
    async with behind(open_door, lambda _: None) as shop:
        user = await shop.ask(TRACEPARENT)
        await shop.took()
        user.cancel()
        async with asyncio.timeout(10):
            while shop.probe.open:
                shop.go.set()
                await asyncio.sleep(0.01)


async def test_a_call_that_is_refused_is_not_sent_and_not_held(open_door: OpenDoor) -> None:
    async with behind(open_door, enforcement="enforce") as shop:
        await shop.ask()
        assert await shop.took(request("PUT", "/api/v1/customers/42", b'{"created_at": 1700000000000}')) < DELAY
        assert [told[0] for told in shop.probe.told] == ["arrived"]


async def test_what_is_known_by_an_answer_is_a_finding_and_no_further_request(open_door: OpenDoor) -> None:
    async with behind(open_door) as shop:
        shop.probe.waits = (AWAITED,)
        known = dict(shop.door.auditor.store.known())
        user = await shop.ask(TRACEPARENT, b"Authorization: Bearer secret", b"User-Agent: Mozilla/5.0")
        shop.go.set()
        await user
        (finding,) = shop.door.sink.findings
        assert (finding.rule, finding.confidence, finding.listener) == ("blocking-on-analytics", "certain", "inbound")
        assert (finding.method, finding.endpoint, finding.trace_id) == ("POST", "/orders/{}", TRACE)
        assert finding.evidence == {
            "held": 20,
            "held_followed": 20,
            "free": 100,
            "free_followed": 1,
            "difference_at_least": 0.62,
            "told_by": "trace",
        }
        assert shop.door.sink.ends == []
        assert shop.door.passed == ["inbound"]
        assert shop.door.auditor.store.known() == known


async def test_a_finding_is_about_the_route_that_waits_and_not_about_the_request_that_came_next(
    open_door: OpenDoor,
) -> None:
    """The moment of a call may have passed only when somebody else is answered."""
    async with behind(open_door) as shop:
        shop.probe.waits = (AWAITED._replace(route="GET /cart"), AWAITED)
        user = await shop.ask(TRACEPARENT)
        shop.go.set()
        await user
        told = [(found.method, found.endpoint, found.trace_id) for found in shop.door.sink.findings]
        assert told == [("GET", "/cart", None), ("POST", "/orders/{}", TRACE)]


async def test_an_answer_leaves_with_its_head_however_long_the_rest_takes(open_door: OpenDoor) -> None:
    more = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n")
        await more.wait()
        writer.write(b"data: 1\n\n")

    server = await asyncio.start_server(events, "127.0.0.1", 0)
    app = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    probe = Picky()
    settings = Settings(inbound=Address("127.0.0.1", 0), app=app)
    async with open_door("http://127.0.0.1:9", settings, probe=probe) as door:
        user = asyncio.create_task(door.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n", "inbound"))
        async with asyncio.timeout(10):
            while ("left",) not in probe.told:
                await asyncio.sleep(0.01)
        assert not user.done()
        more.set()
        await user
    server.close()
