"""`cio-proxy run` as its user meets it: ready line, mistakes, privacy, and an end that loses nothing."""

import base64
import http.client
import json
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from .conftest import COMMAND, environment, running

pytestmark = pytest.mark.once

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
PAIR = base64.b64encode(f"{SITE}:{KEY}".encode()).decode()
SECRETS = ("ada.lovelace@example.com", "4111111111111111", SITE, KEY, PAIR, "4915112345678")


def send(url: str, method: str, path: str, body: dict[str, Any], authorization: str = f"Basic {PAIR}") -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request(
        method, path, json.dumps(body), {"Authorization": authorization, "Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def fetched(url: str, path: str) -> str:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def test_no_secret_and_no_personal_value_leaves_in_journal_console_metrics_or_api(tmp_path: Path) -> None:
    journal = tmp_path / "findings.jsonl"
    with running(tmp_path, "--journal", str(journal), "--enforcement", "enforce") as (process, ready):
        url = ready["outbound"]
        mail, card, phone = "ada.lovelace@example.com", "4111111111111111", "+4915112345678"
        send(url, "PUT", f"/api/v1/customers/{mail}", {"email": mail, "created_at": 1700000000000, "phone": phone})
        send(url, "POST", f"/api/v1/customers/{mail}/events", {"name": f"mailed_{mail}"})
        send(url, "POST", "/api/v1/customers/42/events", {"name": f"paid_{card}", "data": {mail: 1}})
        send(url, "POST", "/api/v1/customers/42/events", {"name": f"called_{phone}"})
        send(url, "PUT", "/api/v1/customers/42", {"email": mail, f"by_{mail}": KEY}, f"Bearer {KEY}")
        send(url, "PUT", f"/api/v1/customers/42?api_key={KEY}", {"email": mail, "seen_at": "1700000000000"})
        seen = {
            "metrics": fetched(ready["admin"], "/metrics"),
            "findings": fetched(ready["admin"], "/api/findings?limit=1000"),
            "summary": fetched(ready["admin"], "/api/summary"),
        }
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
    seen |= {"stdout": out, "stderr": err, "journal": journal.read_text()}
    assert len(json.loads(seen["findings"])["findings"]) >= 6
    for where, text in seen.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {where}"
    assert journal.stat().st_mode & 0o077 == 0


def test_sigterm_answers_what_is_in_flight_and_loses_no_journal_line(tmp_path: Path) -> None:
    release, arrived = threading.Event(), threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def upstream() -> None:
        connection, _ = server.accept()
        connection.recv(65536)
        arrived.set()
        release.wait(20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        connection.close()

    threading.Thread(target=upstream, daemon=True).start()
    journal = tmp_path / "findings.jsonl"
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    statuses: list[int] = []
    with running(tmp_path, "--journal", str(journal), "--upstream", url) as (process, ready):
        late = {"email": "a@example.com", "created_at": 1700000000000}
        client = threading.Thread(
            target=lambda: statuses.append(send(ready["outbound"], "PUT", "/api/v1/customers/42", late))
        )
        client.start()
        assert arrived.wait(20)
        process.send_signal(signal.SIGTERM)
        release.set()
        client.join(20)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    server.close()
    assert statuses == [200]
    assert [json.loads(line)["rule"] for line in journal.read_text().splitlines()] == ["millisecond-timestamp"]


@pytest.mark.parametrize(
    ("options", "config", "lines"),
    [
        (["--listen", "nowhere"], "", ["--listen: not an address"]),
        (["--upstream", "ftp://x"], "", ["--upstream: not an upstream"]),
        (["--facts", "redis://:secret@127.0.0.1"], "", ["facts: replicas that share a Redis need one hash key"]),
        ([], "hash_key_file: /nowhere/key\n", ["hash_key_file: /nowhere/key: no such file or directory"]),
        (["--upstream-proxy", "socks://x:1"], "", ["--upstream-proxy: not an HTTP proxy"]),
        ([], "extra_ca: /nowhere/company.pem\n", ["extra_ca: /nowhere/company.pem: no such file or directory"]),
        ([], "enforcment: observe\nrules:\n  milisecond-timestamp:\n    action: off\n", [":1:1:", ":3:3:"]),
        ([], "enforcement: [\n", ["not YAML"]),
        ([], "- a\n", ["not a mapping"]),
        ([], "rules:\n  missing-email:\n    action: block\n", ["does not offer 'block'"]),
    ],
)
def test_a_mistake_is_told_in_one_line_each_and_nothing_starts(
    options: list[str], config: str, lines: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "cio-proxy.yaml"
    file.write_text(config)
    command = [COMMAND, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", str(file), *options]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    told = done.stderr.splitlines()
    assert len(told) == len(lines), done.stderr
    for line, part in zip(told, lines, strict=True):
        assert part in line
    assert "secret" not in done.stderr


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_busy_port_is_one_clear_line(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        command = [COMMAND, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", option, address]
        done = subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2, done.stderr
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_an_upstream_that_cannot_be_reached_is_one_line_and_a_degraded_part(tmp_path: Path) -> None:
    with running(tmp_path, "--upstream", "http://127.0.0.1:9") as (process, ready):
        assert [send(ready["outbound"], "PUT", "/api/v1/customers/42", {}) for _ in range(2)] == [502, 502]
        assert 'cio_proxy_degraded{part="upstream"} 1.0' in fetched(ready["admin"], "/metrics")
        assert json.loads(fetched(ready["admin"], "/readyz"))["degraded"] == ["upstream"]
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert err.count("cio-proxy: upstream 127.0.0.1:9 cannot be reached: connection refused;") == 1


def test_eu_hosts_and_eu_keys_reach_the_sandbox_of_the_eu(tmp_path: Path) -> None:
    with running(tmp_path) as (_, ready):
        proxy = http.client.HTTPConnection(ready["outbound"].removeprefix("http://"), timeout=20)
        regions = []
        for host in ("track.customer.io", "track-eu.customer.io"):
            proxy.request("GET", "/api/v1/accounts/region", headers={"Host": host, "Authorization": f"Basic {PAIR}"})
            regions.append(json.loads(proxy.getresponse().read())["region"])
        proxy.close()
        assert regions == ["us", "eu"]
        assert send(ready["outbound"], "POST", "/v1/batch", {"batch": []}, "Bearer pk_eu_0a1b2c3d4e5f") == 200
        seen = json.loads(fetched(ready["sandbox"], "/_sandbox/requests"))["requests"]
    assert [(each["target"], each["status"]) for each in seen] == [("/api/v1/accounts/region", 200), ("/v1/batch", 307)]
