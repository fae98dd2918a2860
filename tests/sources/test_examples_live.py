"""Every example, sent over sockets through mitmproxy with the case's own clock, gives what the engine gives."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from cio_proxy.config import overlay
from cio_proxy.examples import Example, Sent, read
from cio_proxy.masking import masked
from cio_proxy.model import Address, Listener, Settings
from cio_proxy.rules import RULES, Rule

from .conftest import OpenDoor, read_message, upstream

START = 1_750_000_000.0
CASES = [
    (rule, example)
    for rule in RULES
    for example in read(rule.examples)
    if example.kind != "todo"
]


@dataclass
class Stage:
    """The upstream's side: which exchange is being sent, and when its answer may go out."""

    now: float = START
    sending: Sent | None = None
    released: dict[str, asyncio.Event] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: bytes) -> bytes | None:
        sent = self.sending
        assert sent is not None
        self.arrived.set()
        await self.released[sent.exchange.id].wait()
        if sent.status is None:
            return None
        head = (
            f"HTTP/1.1 {sent.status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(sent.response)}"
        )
        if sent.location is not None:
            head += f"\r\nLocation: {sent.location}"
        return head.encode() + b"\r\n\r\n" + sent.response


def raw(sent: Sent) -> bytes:
    exchange = sent.exchange
    lines = [f"{exchange.method} ".encode() + exchange.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in exchange.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (exchange.body or b"")


def listening(settings: Settings, sents: list[Sent], app: str) -> Settings:
    """The settings with the listeners that a case wants."""
    free, wanted = Address("127.0.0.1", 0), {sent.exchange.listener for sent in sents}
    if "inbound" in wanted:
        settings = replace(settings, inbound=free, app=app)
    return replace(settings, explicit=free) if "explicit" in wanted else settings


@pytest.mark.once
@pytest.mark.parametrize(("rule", "example"), CASES, ids=[f"{r.info.id}: {e.kind}: {e.name}" for r, e in CASES])
async def test_an_example_gives_its_findings_live(rule: Rule, example: Example, open_door: OpenDoor) -> None:
    settings = overlay(Settings(), dict(example.config), rules=[r.info for r in RULES])
    stage = Stage()
    sents = list(example.play(START))
    events = sorted(
        [(s.exchange.at, number, 0) for number, s in enumerate(sents)]
        + [(s.answered_at, number, 1) for number, s in enumerate(sents)]
    )
    sandbox = any(s.exchange.sandbox for s in sents)
    connections: dict[tuple[str, Listener], tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    answers: dict[int, asyncio.Task[bytes]] = {}
    async with (
        upstream(stage.answer) as raw_upstream,
        open_door(
            raw_upstream.url,
            listening(settings, sents, raw_upstream.url),
            clock=lambda: stage.now,
            sandbox=sandbox,
        ) as door,
    ):
        for at, number, phase in events:
            stage.now = at
            sent = sents[number]
            if phase == 0:
                await door.auditor.expire(at)  # as the proxy does every second
                name = (sent.exchange.connection, sent.exchange.listener)
                if name not in connections:
                    connections[name] = await door.connect(sent.exchange.listener)
                reader, writer = connections[name]
                stage.sending, stage.arrived = sent, asyncio.Event()
                stage.released[sent.exchange.id] = asyncio.Event()
                writer.write(raw(sent))
                answers[number] = asyncio.create_task(read_message(reader))
                arrival = asyncio.create_task(stage.arrived.wait())
                await asyncio.wait({arrival, answers[number]}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
            else:
                stage.released[sent.exchange.id].set()
                await asyncio.wait_for(answers[number], 20)
        if example.end is not None:
            stage.now = START + example.end
            await door.auditor.expire(stage.now)
        for _, writer in connections.values():
            writer.close()
    given = Counter((f.rule, f.pointer, f.confidence) for f in door.sink.findings)
    wanted = Counter((e.rule, masked(e.pointer), e.confidence) for s in sents for e in s.step.expects)
    wanted.update((e.rule, masked(e.pointer), e.confidence) for e in example.end_expects)
    assert given == wanted
