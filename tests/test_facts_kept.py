"""What the running proxy knows outlives it, and its store is told of by name."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import COMMAND, environment, running
from .facts import servers
from .test_operation import eventually, metric
from .test_run import fetched, send

pytestmark = pytest.mark.once

CONFIG = "people: complete\nenforcement: enforce\nrules:\n  track-before-identify:\n    action: block\n"
ORDER = {"name": "order_placed"}


def identify(ready: dict[str, Any], person: int) -> int:
    return send(ready["outbound"], "PUT", f"/api/v1/customers/{person}", {"email": f"{person}@example.com"})


def order(ready: dict[str, Any], person: int) -> int:
    return send(ready["outbound"], "POST", f"/api/v1/customers/{person}/events", ORDER)


def degraded(ready: dict[str, Any]) -> list[str]:
    parts: list[str] = json.loads(fetched(ready["admin"], "/readyz"))["degraded"]
    return parts


@pytest.fixture
def config(tmp_path: Path) -> tuple[str, str]:
    file = tmp_path / "cio-proxy.yaml"
    file.write_text(CONFIG)
    return ("--config", str(file))


def test_after_kill_9_the_next_process_knows_what_was_answered(tmp_path: Path, config: tuple[str, str]) -> None:
    facts = ("--facts", f"sqlite:{tmp_path}/facts.sqlite")
    with running(tmp_path, *config, *facts) as (process, ready):
        assert identify(ready, 42) == 200
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with running(tmp_path, *config, *facts) as (process, ready):
        assert metric(ready, 'cio_proxy_store_errors_total{store="sqlite"}') == 0
        assert (order(ready, 42), order(ready, 43)) == (200, 400)
        assert metric(ready, 'cio_proxy_known{kind="identified"}') == 2
        token = (tmp_path / "cio-proxy" / "admin.token").read_text()
        connection = http.client.HTTPConnection(ready["admin"].removeprefix("http://"), timeout=20)
        connection.request("POST", "/api/reset?facts=1", "", {"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 200
        connection.close()
        assert order(ready, 42) == 400
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    assert "failed" not in err


def test_a_redis_that_comes_late_is_used_and_its_absence_is_counted(tmp_path: Path, config: tuple[str, str]) -> None:
    pytest.importorskip("redis")
    servers.program()
    key = tmp_path / "hash.key"
    key.write_text("0f" * 32)
    key.chmod(0o600)
    with (tmp_path / "cio-proxy.yaml").open("a") as file:
        port = servers.free_port()
        file.write(f"hash_key_file: {key}\nfacts: redis://:pass-word-1@127.0.0.1:{port}\n")
    with running(tmp_path, *config) as (process, ready):
        assert (identify(ready, 42), order(ready, 43)) == (200, 200)
        assert metric(ready, 'cio_proxy_store_errors_total{store="redis"}') >= 2
        assert "store" in degraded(ready)
        with servers.redis(tmp_path, "--requirepass", "pass-word-1", port=port):
            eventually(lambda: identify(ready, 44) == 200 and "store" not in degraded(ready))
            assert order(ready, 44) == 200
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
    assert "store failed, traffic goes on" in err
    assert "pass-word-1" not in err


def test_for_a_live_upstream_facts_are_kept_in_the_state_folder(tmp_path: Path) -> None:
    with running(tmp_path, "--upstream", "live") as (_, ready):
        assert metric(ready, 'cio_proxy_store_errors_total{store="sqlite"}') == 0
    kept = tmp_path / "cio-proxy" / "facts.sqlite"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_file_of_another_program_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE theirs (x)")
    file.close()
    command = [COMMAND, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--facts", f"sqlite:{path}"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"facts: {path} belongs to another program: name another file\n")
