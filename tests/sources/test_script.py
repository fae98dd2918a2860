"""The addon in a stock mitmdump: it audits what passes, and a mistake in its options stops the start."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

from .conftest import read_message, request, upstream

ROOT = Path(__file__).parents[2]
MITMDUMP = str(Path(sys.executable).with_name("mitmdump"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_stock_mitmdump_audits_with_the_script(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(f"state: {tmp_path}\njournal:\n  path: {tmp_path}/findings.jsonl\n")
    async with upstream() as raw:
        process = await asyncio.create_subprocess_exec(
            MITMDUMP,
            *("--mode", f"reverse:{raw.url}@127.0.0.1:{port}"),
            *("-s", str(ROOT / "addons" / "cio_audit.py")),
            *("--set", f"cio_config={config}"),
            *("--set", f"confdir={tmp_path}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        break
                    except OSError:
                        await asyncio.sleep(0.1)
                writer.write(
                    request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com", "created_at": 1700000000000}')
                )
                answer = await read_message(reader)
                writer.close()
        finally:
            process.terminate()
            await process.wait()
    assert b"Cio-Proxy-Findings: millisecond-timestamp" in answer
    assert "millisecond-timestamp" in (tmp_path / "findings.jsonl").read_text()


def test_a_mistake_in_the_configuration_stops_mitmdump(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("enforcment: observe\n")
    command = [MITMDUMP, "-p", str(free_port()), "-s", str(ROOT / "addons" / "cio_audit.py")]
    done = subprocess.run(
        [*command, "--set", f"cio_config={config}", "--set", f"confdir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "did you mean 'enforcement'?" in done.stdout + done.stderr
