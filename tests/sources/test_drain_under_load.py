"""SIGTERM under load, as a whole process: every request that was sent is answered, and its finding is kept."""

import asyncio
import json
import signal
from dataclasses import dataclass
from pathlib import Path

from ..conftest import running  # noqa: TID252 (tests are no package)
from .conftest import read_message, request, upstream

CLIENTS = 60
LATE = request(
    "PUT", "/api/v1/customers/42", b'{"email": "a@example.com", "created_at": 1700000000000, "online": true}'
)


@dataclass
class Counted:
    sent: int = 0
    answered: int = 0
    cut: int = 0


async def client(host: str, port: int, counted: Counted) -> None:
    """Sends one request after the other, on a new connection when told so, until nobody listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return
        try:
            while True:
                writer.write(LATE)
                counted.sent += 1
                answer = await read_message(reader)
                counted.answered += answer.startswith(b"HTTP/1.1 200")
                if b"connection: close" in answer.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            counted.cut += 1
        finally:
            writer.close()


async def test_every_request_sent_around_a_sigterm_is_answered(tmp_path: Path) -> None:
    counted = Counted()
    journal = tmp_path / "findings.jsonl"
    async with upstream() as raw:
        with running(tmp_path, "--upstream", raw.url, "--journal", str(journal)) as (process, ready):
            host, _, port = ready["outbound"].removeprefix("http://").partition(":")
            clients = [asyncio.create_task(client(host, int(port), counted)) for _ in range(CLIENTS)]
            await asyncio.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*clients), 30)
            assert await asyncio.to_thread(process.wait, 30) == 0
    assert counted.sent > CLIENTS
    assert (counted.answered, counted.cut) == (counted.sent, 0), json.dumps(vars(counted))
    assert len(raw.received) == counted.sent
    assert sum(json.loads(line)["count"] for line in journal.read_bytes().splitlines()) == counted.sent
