"""The addon in a stock mitmdump: it audits what passes, and a mistake in its options stops the start."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mitmproxy.io import FlowReader

from .conftest import read_message, request, upstream

ROOT = Path(__file__).parents[2]
MITMDUMP = str(Path(sys.executable).with_name("mitmdump"))
LATE = b'{"email": "a@example.com", "created_at": 1700000000000}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def mitmdump(folder: Path, *arguments: str) -> list[str]:
    return [MITMDUMP, "-s", str(ROOT / "addons" / "cio_audit.py"), "--set", f"confdir={folder}", *arguments]


@asynccontextmanager
async def running(folder: Path, *arguments: str, **config: Any) -> AsyncIterator[int]:
    """A mitmdump with the script; its port."""
    port = free_port()
    file = folder / "cio-proxy.yaml"
    file.write_text(json.dumps({"state": str(folder), "journal": {"path": f"{folder}/findings.jsonl"}, **config}))
    process = await asyncio.create_subprocess_exec(
        *mitmdump(folder, "--listen-host", "127.0.0.1", "-p", str(port), "--set", f"cio_config={file}", *arguments),
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
        await process.communicate()


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


async def test_in_an_explicit_proxy_it_takes_no_one_elses_api_for_customer_io(tmp_path: Path) -> None:
    async with upstream() as raw, running(tmp_path) as port:
        authority = raw.url.removeprefix("http://").encode()
        answer = await send(port, request("PUT", f"{raw.url}/api/v1/customers/42", LATE, host=authority))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Cio-Proxy-Findings" not in answer
    assert len(raw.received) == 1


def test_a_mistake_in_the_configuration_stops_mitmdump(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("enforcment: observe\n")
    done = subprocess.run(
        mitmdump(tmp_path, "-p", str(free_port()), "--set", f"cio_config={config}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "did you mean 'enforcement'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
