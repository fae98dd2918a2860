"""The proxy keeps its clients' connections open, so that it never makes the fault that it looks for."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cio_proxy.model import RuleSettings, Settings
from cio_proxy.sources.mitm.server import IDLE_SECONDS

from .conftest import OK, OpenDoor, read_message, request, upstream

POOLING = Settings(rules={"no-connection-pooling": RuleSettings(params={"requests": 5})})
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_a_connection_carries_all_requests_and_no_answer_asks_for_its_end(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, POOLING) as door:
        reader, writer = await door.connect()
        for number in range(30):
            writer.write(request("PUT", f"/api/v1/customers/{number}", b"{}"))
            answer = await asyncio.wait_for(read_message(reader), 20)
            assert b"connection: close" not in answer.lower()
        writer.close()
        assert len(raw.received) == 30
        assert not door.sink.findings


async def test_many_clients_of_one_address_that_keep_their_connections_are_not_told(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, POOLING) as door:
        clients = [await door.connect() for _ in range(12)]
        for number, (reader, writer) in enumerate(clients):
            writer.write(request("PUT", f"/api/v1/customers/{number}", b"{}"))
            await asyncio.wait_for(read_message(reader), 20)
        assert [end.exchange.beside for end in door.sink.ends] == [11] * 12
        for _, writer in clients:
            writer.close()
        assert not door.sink.findings


def test_an_idle_connection_stays_open_for_longer_than_any_client_keeps_it() -> None:
    assert IDLE_SECONDS >= 100  # go's 90 s (reference 8.1, 9.17) are the longest


@pytest.mark.parametrize(("answer", "found"), [(OK, 1), (CLOSING, 0)], ids=["open", "closed"])
async def test_a_client_is_told_of_connections_only_if_they_could_have_stayed_open(
    open_door: OpenDoor, answer: bytes, found: int
) -> None:
    async with upstream(lambda request: answer) as raw, open_door(raw.url, POOLING) as door:
        for number in range(8):
            await door.send(request("PUT", f"/api/v1/customers/{number}", b"{}"))
            async with asyncio.timeout(20):
                while raw.open:  # the proxy keeps it for as long as its client is there
                    await asyncio.sleep(0.001)
        assert [finding.rule for finding in door.sink.findings] == ["no-connection-pooling"] * found


async def test_a_burst_of_clients_is_let_in_at_once_though_nobody_has_time_for_them_yet(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        address = door.door.addresses["outbound"]
        # One that finds no room tries again after a second. Meanwhile the proxy, on this very loop, accepts nobody.
        burst = [socket.create_connection(address, timeout=0.9) for _ in range(500)]
        for client in burst:
            client.close()
