"""What SDKs put on the wire gives no finding and arrives as it was sent: recorded sessions, sent byte for byte.

The SDKs of `tests/sdks` run there. These are those for which no interpreter is at hand, or no way to reach a proxy.
"""

import asyncio
import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from ..conftest import counted, running  # noqa: TID252 (tests are no package)
from ..test_operation import eventually  # noqa: TID252
from ..test_run import fetched  # noqa: TID252
from .conftest import OK, read_message, request, upstream

SESSIONS = Path(__file__).parents[1] / "wire"
CONNECTS_FOR_EACH = {"ruby"}
CONFIG = "rules:\n  missing-email:\n    window: 1s\n"
PLACEHOLDER = re.compile(rb"\{\{now([+-][0-9]+)?(:iso)?\}\}")


class Recorded(NamedTuple):
    """A request: what is worth seeing in it, and its two parts as they are sent."""

    name: str
    head: bytes
    body: bytes


def session(path: Path, now: int) -> list[Recorded]:
    """The requests of a file. Its line ends are those of the file: in a head they become those of HTTP."""

    def moment(match: re.Match[bytes]) -> bytes:
        at = now + int(match[1] or 0)
        return (datetime.fromtimestamp(at, UTC).isoformat() if match[2] else str(at)).encode()

    requests = []
    for block in re.split(rb"(?m)^### ", PLACEHOLDER.sub(moment, path.read_bytes()))[1:]:
        name, _, rest = block.partition(b"\n")
        head, _, body = rest.partition(b"\n\n")
        body = body.rstrip(b"\n")
        head = head.rstrip(b"\n").replace(b"{{length}}", str(len(body)).encode()).replace(b"\n", b"\r\n")
        requests.append(Recorded(name.decode(), head + b"\r\n\r\n", body))
    return requests


async def answers(host: str, requests: list[Recorded], *, connect_for_each: bool) -> list[bytes]:
    """Send a session as its SDK does: on one connection, or on one for each request whose body follows its head."""
    found: list[bytes] = []
    reader, writer = await asyncio.open_connection(*host.split(":"))
    for number, sent in enumerate(requests):
        if connect_for_each and number:
            writer.close()
            reader, writer = await asyncio.open_connection(*host.split(":"))
        for part in (sent.head, sent.body) if connect_for_each else (sent.head + sent.body,):
            writer.write(part)
        found.append(await asyncio.wait_for(read_message(reader), 20))
    writer.close()
    return found


@pytest.mark.parametrize("enforcement", ["observe", "enforce"])
async def test_a_recorded_session_gives_no_finding_and_arrives_as_it_was_sent(enforcement: str, tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(CONFIG)
    files = sorted(SESSIONS.glob("*.http"))
    sent = 0
    async with upstream() as raw:
        options = ("--upstream", raw.url, "--enforcement", enforcement, "--config", str(config))
        with running(tmp_path, *options) as (_, ready):
            proxy = ready["outbound"].removeprefix("http://")
            for file in files:
                requests = session(file, int(time.time()))
                raw.received.clear()
                given = await answers(
                    proxy,
                    [each._replace(head=each.head.replace(b"{{proxy}}", proxy.encode())) for each in requests],
                    connect_for_each=file.stem in CONNECTS_FOR_EACH,
                )
                there = raw.url.removeprefix("http://").encode()
                arrived = [each.head.replace(b"{{proxy}}", there) + each.body for each in requests]
                assert raw.received == arrived, file.name
                assert {each.name: answer for each, answer in zip(requests, given, strict=True) if answer != OK} == {}
                sent += len(requests)
            # One more, and its finding at the end of its window: by then those of the sessions would be there, too.
            new = request("PUT", "/api/v1/customers/new", b'{"created_at": %d}' % time.time())
            await answers(proxy, [Recorded("a new person without an address", new, b"")], connect_for_each=True)
            await asyncio.to_thread(eventually, lambda: found(ready["admin"]).total() > 0)
            assert found(ready["admin"]) == {"missing-email": 1}
            outcomes = counted(fetched(ready["admin"], "/metrics"), "cio_proxy_requests_total", "outcome")
    assert outcomes == {"forwarded": sent + 1}


def found(admin: str) -> Counter[str]:
    """The findings so far, by rule."""
    return counted(fetched(admin, "/metrics"), "cio_proxy_violations_total", "rule")
