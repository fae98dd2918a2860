"""The addon in a stock mitmdump and mitmweb: it audits and marks flows; a wrong option stops the start."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy.io import FlowReader

from cio_proxy.facts import workspace
from cio_proxy.facts.sqlite import SqliteStore

from .conftest import read_message, request, upstream

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
TOOLS = {"mitmdump": (), "mitmweb": ("--no-web-open-browser",)}
TOKEN = "flows-for-the-test"
LATE = b'{"email": "a@example.com", "created_at": 1700000000000}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def command(tool: str, folder: Path, *arguments: str) -> list[str]:
    """A stock mitmproxy tool with the script."""
    script = ("-s", str(ROOT / "addons" / "cio_audit.py"), "--set", f"confdir={folder}")
    return [str(Path(sys.executable).with_name(tool)), *script, "--listen-host", "127.0.0.1", *TOOLS[tool], *arguments]


@asynccontextmanager
async def running(folder: Path, *arguments: str, tool: str = "mitmdump", **config: Any) -> AsyncIterator[int]:
    """A running tool with the script; its port."""
    port = free_port()
    file = folder / "cio-proxy.yaml"
    file.write_text(json.dumps({"state": str(folder), "journal": {"path": f"{folder}/findings.jsonl"}, **config}))
    process = await asyncio.create_subprocess_exec(
        *command(tool, folder, "-p", str(port), "--set", f"cio_config={file}", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.1)
        yield port
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)


async def send(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await asyncio.wait_for(read_message(reader), 20)
    writer.close()
    return answer


async def test_stock_mitmdump_audits_with_the_script(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    async with upstream() as raw, running(tmp_path, "--mode", f"reverse:{raw.url}", "-w", str(flows)) as port:
        answer = await send(port, request("PUT", "/api/v1/customers/42", LATE))
    assert b"Cio-Proxy-Findings: millisecond-timestamp" in answer
    assert "millisecond-timestamp" in (tmp_path / "findings.jsonl").read_text()
    with flows.open("rb") as file:
        assert len(list(FlowReader(file).stream())) == 1  # it does not get in the way of -w


async def test_it_refuses_where_the_configuration_says_so(tmp_path: Path) -> None:
    async with upstream() as raw, running(tmp_path, "--mode", f"reverse:{raw.url}", enforcement="enforce") as port:
        answer = await send(port, request("PUT", "/api/v1/customers/42", LATE))
    assert answer.startswith(b"HTTP/1.1 400 Blocked by cio-proxy: millisecond-timestamp\r\n")
    assert raw.received == []


async def test_it_keeps_facts_where_the_configuration_says_so(tmp_path: Path) -> None:
    where = tmp_path / "facts.sqlite"
    block = {"enforcement": "enforce", "rules": {"track-before-identify": {"action": "block"}}}
    options: dict[str, Any] = {"facts": f"sqlite:{where}", "people": "complete", **block}
    event = request("POST", "/api/v1/customers/42/events", b'{"name": "order_placed"}')
    async with upstream() as raw:
        async with running(tmp_path, "--mode", f"reverse:{raw.url}", **options) as port:
            assert b"track-before-identify" not in await send(port, event), "nobody was imported"
        await everybody_was_imported(where)
        async with running(tmp_path, "--mode", f"reverse:{raw.url}", **options) as port:
            assert b"track-before-identify" in await send(port, event)
            await send(port, request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}'))
        assert not where.with_name("facts.sqlite-wal").exists(), "it was closed"
        async with running(tmp_path, "--mode", f"reverse:{raw.url}", **options) as port:
            assert b"track-before-identify" not in await send(port, event)


async def everybody_was_imported(where: Path) -> None:
    store = SqliteStore(where)
    names = {key.workspace async for key, _ in store.scan(workspace.OBSERVED)}
    await store.join_many([workspace.imported(name, time.time()) for name in names], (), time.time())
    await store.close()


async def test_in_an_explicit_proxy_it_takes_no_one_elses_api_for_customer_io(tmp_path: Path) -> None:
    async with upstream() as raw, running(tmp_path) as port:
        authority = raw.url.removeprefix("http://").encode()
        answer = await send(port, request("PUT", f"{raw.url}/api/v1/customers/42", LATE, host=authority))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Cio-Proxy-Findings" not in answer
    assert len(raw.received) == 1


async def test_what_mitmdump_writes_is_marked_with_the_worst_and_commented_with_each(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    late_event = b'{"name": "Order placed", "timestamp": 1700000000000, "data": {"mail": "ada@example.com"}}'
    async with upstream() as raw, running(tmp_path, "--mode", f"reverse:{raw.url}", "-w", str(flows)) as port:
        await send(port, request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}'))
        await send(port, request("POST", "/api/v1/customers/42/events", b'{"name": "Order placed"}'))
        await send(port, request("POST", "/api/v1/customers/42/events", late_event))
    with flows.open("rb") as file:
        clean, warned, faulty = FlowReader(file).stream()
    assert (clean.marked, clean.comment) == ("", "")
    assert warned.marked == ":yellow_circle:"
    assert faulty.marked == ":red_circle:"
    assert sorted(line.partition(":")[0] for line in faulty.comment.splitlines()) == [
        "inconsistent-event-name",
        "millisecond-timestamp",
    ]


async def web_flows(port: int, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The flows that mitmweb shows, once they are as wanted."""
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            answer = await client.get(f"http://127.0.0.1:{port}/flows", headers={"Authorization": f"Bearer {TOKEN}"})
            flows: list[dict[str, Any]] = answer.raise_for_status().json()
            if wanted(flows):
                return flows
            await asyncio.sleep(0.1)


async def test_mitmweb_shows_findings_on_their_flows_masked_and_late_ones_too(tmp_path: Path) -> None:
    web = free_port()
    options = ("--web-port", str(web), "--set", f"web_password={TOKEN}")
    rules = {"missing-email": {"window": "1s"}}
    new = b'{"created_at": %d}' % time.time()
    named = b'{"name": "mailed_ada.lovelace@example.com"}'
    async with (
        upstream() as raw,
        running(tmp_path, "--mode", f"reverse:{raw.url}", *options, tool="mitmweb", rules=rules) as port,
    ):
        await send(port, request("PUT", "/api/v1/customers/42", new))
        await send(port, request("POST", "/api/v1/customers/42/events", named))
        at_once = await web_flows(web, lambda flows: len(flows) == 2)
        assert at_once[1]["marked"] == "\U0001f534"  # a red circle
        assert at_once[1]["comment"].startswith("pii-in-name: ")
        assert "ada" not in at_once[1]["comment"]
        late = await web_flows(web, lambda flows: bool(flows[0]["marked"]))
        assert late[0]["marked"] == "\U0001f7e1"  # a yellow one
        assert late[0]["comment"].startswith("missing-email: ")


@pytest.mark.parametrize(
    ("tool", "options", "config", "told"),
    [
        ("mitmdump", ["cio_config={}"], "enforcment: observe\n", "did you mean 'enforcement'?"),
        ("mitmweb", ["cio_config={}"], "max_audited_body: lots\n", "not a size"),
        ("mitmdump", ["cio_config={}/nowhere"], "", "give --config a readable file"),
        ("mitmweb", ["cio_config"], "", "give it one file"),
        ("mitmdump", ["cio_config={}", "cio_config={}"], "", "give it one file"),
        ("mitmweb", ["cio_config={}", "cio_enforcement=enforce"], "", "unknown option cio_enforcement"),
        ("mitmdump", ["cio-config={}"], "", "unknown option cio-config"),
    ],
)
def test_a_mistake_in_the_options_stops_the_start(
    tool: str, options: list[str], config: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "cio-proxy.yaml"
    file.write_text(config)
    given = [part for option in options for part in ("--set", option.format(file))]
    done = subprocess.run(
        command(tool, tmp_path, "-p", str(free_port()), *given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
