"""The operator's levers on a running proxy: reload, exemptions, the kill switch, reset; and what they are told."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import certifi
import pytest

from .conftest import COMMAND, environment, running
from .test_run import PAIR, fetched

pytestmark = pytest.mark.once

MILLISECONDS = {"email": "ada@example.com", "online": True, "created_at": 1700000000000}
EXEMPTION = """
exemptions:
  - rule: millisecond-timestamp
    endpoint: /api/v1/customers/{identifier}
    pointer: /created_at
    reason: known
    expires: %s
"""


def identify(ready: dict[str, Any], body: dict[str, Any] = MILLISECONDS) -> tuple[int, str | None]:
    """Status and findings of one identify."""
    connection = http.client.HTTPConnection(ready["outbound"].removeprefix("http://"), timeout=20)
    headers = {"Authorization": f"Basic {PAIR}", "Content-Type": "application/json"}
    connection.request("PUT", "/api/v1/customers/42", json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["Cio-Proxy-Findings"]


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def summary(ready: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fetched(ready["admin"], "/api/summary"))
    return found


def metric(ready: dict[str, Any], series: str) -> float:
    lines = fetched(ready["admin"], "/metrics").splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(series)))


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], env=environment(folder), capture_output=True, text=True, check=False, timeout=60
    )


def test_a_finding_is_exempted_by_the_line_it_printed_after_a_reload(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("enforcement: enforce\n")
    with running(tmp_path, "--config", str(config)) as (process, ready):
        assert identify(ready) == (400, "millisecond-timestamp;action=blocked")
        assert process.stderr is not None
        line = next(line for line in process.stderr if "Exempt: " in line)
        config.write_text("enforcement: enforce\nexemptions:\n  " + line.partition("Exempt: ")[2])
        process.send_signal(signal.SIGHUP)
        eventually(lambda: identify(ready) == (200, "millisecond-timestamp;action=exempt"))
        (exemption,) = summary(ready)["exemptions"]
        assert exemption["used"] >= 1
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert "configuration reloaded" in err
    assert "never used" not in err


def test_what_a_run_found_is_accepted_by_its_baseline_after_a_reload(tmp_path: Path) -> None:
    config, journal, accepted = (tmp_path / name for name in ("cio-proxy.yaml", "findings.jsonl", "accepted"))
    settings = f"enforcement: enforce\nrules: {{pii-in-name: {{action: block}}}}\njournal: {{path: {journal}}}\n"
    config.write_text(settings)
    with running(tmp_path, "--config", str(config)) as (process, ready):
        assert identify(ready) == (400, "millisecond-timestamp;action=blocked")
        eventually(lambda: journal.exists() and journal.stat().st_size > 0)
        config.write_text(f"{settings}baseline: {accepted}\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: metric(ready, "cio_proxy_config_last_reload_successful") == 0)
        done = command(tmp_path, "baseline", str(accepted), "--config", str(config))
        assert (done.returncode, done.stderr) == (0, "")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: identify(ready) == (200, "millisecond-timestamp;action=baselined"))
        assert summary(ready)["baselined"] == 1
        accepted.write_text("<<<<<<< HEAD\n" + accepted.read_text())
        process.send_signal(signal.SIGHUP)
        eventually(lambda: metric(ready, "cio_proxy_config_last_reload_successful") == 0)
        assert identify(ready) == (200, "millisecond-timestamp;action=baselined")
        assert identify(ready, {"ada@example.com": 1}) == (400, "pii-in-name;action=blocked")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert f"configuration in force stays: baseline {accepted}: no such file" in err
    assert f"configuration in force stays: {accepted}:1: a merge conflict" in err
    assert "findings that are accepted: 2 in the baseline" in err


def test_an_exemption_expires_while_the_proxy_runs_and_is_reported(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(EXEMPTION % "2099-01-31")
    with running(tmp_path, "--config", str(config)) as (process, ready):
        soon = time.time() + 4
        config.write_text(EXEMPTION % time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon)))
        process.send_signal(signal.SIGHUP)
        eventually(lambda: metric(ready, "cio_proxy_exemption_expiry_timestamp_seconds{") == int(soon))
        assert identify(ready) == (200, "millisecond-timestamp;action=exempt")
        eventually(lambda: identify(ready) == (200, "millisecond-timestamp;action=would_block"))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert err.count("expired on") == 1


def test_what_it_holds_is_told_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(
        "inbound: 127.0.0.1:0\napp: http://127.0.0.1:9\nprobe: {share: 5%}\n"
        "rules:\n  no-rate-limiting: {action: pace, track: 1}\n"
    )
    with running(tmp_path, "--config", str(config)) as (process, ready):
        for _ in range(5):
            identify(ready)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert "cio-proxy: the latency probe holds 5% of Customer.io's answers back, for 0.4 s\n" in err
    assert re.search(
        r"^cio-proxy: requests that came too fast: [1-4] would be held back in enforce$", err, re.MULTILINE
    )


def test_expired_and_unused_exemptions_are_reported(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(EXEMPTION % "2026-01-31")
    check = command(tmp_path, "config", "check", str(config))
    assert check.returncode == 0
    assert "expired on 2026-02-01 00:00 UTC" in check.stderr
    with running(tmp_path, "--config", str(config)) as (process, ready):
        identify(ready)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert "expired on 2026-02-01" in err
    assert "was never used" in err


def test_a_broken_file_keeps_the_configuration_in_force_and_says_so(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("enforcement: enforce\n")
    with running(tmp_path, "--config", str(config)) as (process, ready):
        config.write_text("enforcement: enforc\npeople: some\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: metric(ready, "cio_proxy_config_last_reload_successful") == 0)
        assert identify(ready)[0] == 400
        config.write_text("enforcement: observe\ntimeouts:\n  response: 9s\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: metric(ready, "cio_proxy_config_last_reload_successful") == 1)
        assert identify(ready)[0] == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert err.count("not reloaded, the configuration in force stays: ") == 2
    assert "a restart is needed for: timeouts.response" in err


def test_enforcement_is_switched_by_command_while_traffic_flows(tmp_path: Path) -> None:
    with running(tmp_path, "--enforcement", "enforce") as (process, ready):
        admin = ("--admin", ready["admin"].removeprefix("http://"))
        assert identify(ready)[0] == 400
        for switch, expected in (
            ("bypass", (200, None)),
            ("observe", (200, "millisecond-timestamp;action=would_block")),
            ("enforce", (400, "millisecond-timestamp;action=blocked")),
        ):
            done = command(tmp_path, "enforcement", switch, *admin)
            assert (done.returncode, done.stdout) == (0, f"{switch}\n"), done.stderr
            assert identify(ready) == expected
            assert command(tmp_path, "enforcement", *admin).stdout == f"{switch}\n"
            assert summary(ready)["enforcement"] == switch
        wrong = command(tmp_path, "enforcement", "off", *admin)
        assert wrong.returncode == 2
        assert "'off' is not one of 'observe', 'enforce', 'bypass'" in wrong.stderr
        assert metric(ready, 'cio_proxy_requests_total{api="track_v1",listener="outbound",outcome="unaudited"}') == 1
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    gone = command(tmp_path, "enforcement", *admin)
    assert gone.returncode == 2
    assert gone.stderr == f"no proxy at {admin[1]}: connection refused; --admin names another\n"


def test_a_change_needs_the_token_on_loopback_too(tmp_path: Path) -> None:
    with running(tmp_path) as (_, ready):
        identify(ready)
        host = ready["admin"].removeprefix("http://")
        token = (tmp_path / "cio-proxy" / "admin.token").read_text()
        for path, body in (("/api/enforcement", '{"enforcement": "bypass"}'), ("/api/reset", "")):
            connection = http.client.HTTPConnection(host, timeout=20)
            connection.request("POST", path, body)
            assert connection.getresponse().status == 401
        assert summary(ready)["by_rule"] == {"millisecond-timestamp": 1}
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("POST", "/api/reset?facts=1", "", {"Authorization": f"Bearer {token}"})
        assert json.loads(connection.getresponse().read()) == {"reset": ["findings", "coverage", "facts"]}
        after = summary(ready)
        assert (after["requests"], after["by_rule"], after["score"]) == (0, {}, 100)
        assert json.loads(fetched(ready["admin"], "/api/findings"))["findings"] == []
        assert metric(ready, 'cio_proxy_requests_total{api="track_v1",listener="outbound",outcome="forwarded"}') == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_a_script_for_the_shell(tmp_path: Path, shell: str) -> None:
    done = command(tmp_path, "completions", shell)
    assert done.returncode == 0
    assert "_CIO_PROXY_COMPLETE" in done.stdout


def test_env_gives_the_shell_the_address_of_the_configured_listener(tmp_path: Path) -> None:
    done = command(tmp_path, "env", "--listen", "127.0.0.1:8099")
    script = f'{done.stdout}\nprintf %s "$CIO_PROXY_URL"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == "http://127.0.0.1:8099"


def test_env_leads_a_shell_through_the_explicit_proxy_when_asked(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("explicit: 127.0.0.1:8877\n")
    names = "HTTPS_PROXY NODE_EXTRA_CA_CERTS SSL_CERT_FILE REQUESTS_CA_BUNDLE NODE_USE_ENV_PROXY NO_PROXY no_proxy"
    printed = f'printf "%s\\n" {" ".join(f"${name}" for name in names.split())}'

    def exported(*options: str) -> list[str]:
        script = f"unset {names}\n{command(tmp_path, 'env', *options).stdout}\n{printed}"
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()

    certificates = tmp_path / "cio-proxy" / "certificates"
    bundle = str(certificates / "ca-bundle.pem")
    local = "localhost,127.0.0.1,::1"
    trust = [str(certificates / "mitmproxy-ca-cert.pem"), bundle, bundle, "1", local, local]
    assert exported("--config", str(config), "--explicit") == ["http://127.0.0.1:8877", *trust]
    assert exported("--explicit", "127.0.0.1:8866") == ["http://127.0.0.1:8866", *trust]
    assert exported("--config", str(config)) == []
    refused = command(tmp_path, "env", "--explicit")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("--explicit: no HTTP proxy is configured")


def test_a_state_folder_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(f"state: {tmp_path}/file/state\n")
    done = command(tmp_path, "run", "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == (
        f"state folder: {tmp_path}/file/state: not a directory: give one of your own by the option `state`, or"
        " XDG_STATE_HOME\n"
    )


def test_python_runs_it_as_a_module(tmp_path: Path) -> None:
    python = [sys.executable, "-m", "cio_proxy", "--version"]
    assert subprocess.run(python, capture_output=True, text=True, check=True).stdout.startswith("cio-proxy, version ")


def test_short_times_are_shown_in_milliseconds(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("probe:\n  delay: 300ms\ntimeouts:\n  connect: 1.5s\n")
    shown = command(tmp_path, "config", "show", "--config", str(config)).stdout
    assert "delay: 300ms" in shown
    assert "connect: 1.5s" in shown


def test_what_config_show_prints_is_the_same_configuration(tmp_path: Path) -> None:
    config, again = tmp_path / "cio-proxy.yaml", tmp_path / "again.yaml"
    config.write_text(
        "people: complete\nrules:\n  missing-email:\n    window: 90s\n  pii-in-name:\n    action: off\n"
        + EXEMPTION % "2027-01-31"
    )
    first = command(tmp_path, "config", "show", "--config", str(config), "--enforcement", "enforce").stdout
    again.write_text(first)
    assert command(tmp_path, "config", "show", "--config", str(again)).stdout == first
    assert "window: 90s" in first
    assert "enforcement: enforce" in first
    assert "reason: known" in first


def test_check_looks_into_the_files_that_are_named_as_a_start_would(tmp_path: Path) -> None:
    config, key, roots = (tmp_path / name for name in ("cio-proxy.yaml", "hash.key", "roots.pem"))
    config.write_text(f"hash_key_file: {key}\nextra_ca: {roots}\n")
    missing = [f"hash_key_file: {key}: no such file or directory", f"extra_ca: {roots}: no such file or directory"]
    done = command(tmp_path, "config", "check", str(config))
    assert (done.returncode, done.stderr.splitlines()) == (2, missing)
    key.write_text("short")
    key.chmod(0o600)
    roots.write_text("none")
    done = command(tmp_path, "config", "check", str(config))
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            f"hash_key_file: {key} holds neither 32 bytes nor 64 hexadecimal digits",
            f"extra_ca: {roots}: no certificate in PEM form in it",
        ],
    )
    key.write_text("0f" * 32)
    roots.write_bytes(Path(certifi.where()).read_bytes())
    done = command(tmp_path, "config", "check", str(config))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config} can be used\n", "")


def test_where_everybody_is_said_to_be_known_the_start_and_a_reset_say_for_whom_that_counts(tmp_path: Path) -> None:
    facts = ("--people", "complete", "--facts", f"sqlite:{tmp_path}/facts")
    for upstream, lines in (
        ("live", ["counts as partial until everybody is imported (cio-proxy people import)"] * 2),
        (
            "sandbox",
            [
                "counts: the sandbox begins with nobody",
                "counts: nobody is known any more, also of those who are in the sandbox",
            ],
        ),
    ):
        with running(tmp_path, *facts, "--upstream", upstream) as (process, ready):
            token = (tmp_path / "cio-proxy" / "admin.token").read_text()
            connection = http.client.HTTPConnection(ready["admin"].removeprefix("http://"), timeout=20)
            connection.request("POST", "/api/reset?facts=1", "", {"Authorization": f"Bearer {token}"})
            assert connection.getresponse().status == 200
            connection.close()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        said = [line.partition("people: complete ")[2] for line in err.splitlines() if "people: complete" in line]
        assert said == lines


def test_check_tells_every_mistake_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "cio-proxy.yaml"
    config.write_text("exemptions:\n  - rule: missing-emial\n    pointr: /a\n  - reason: x\n    expires: soon\n")
    done = command(tmp_path, "config", "check", str(config))
    assert done.returncode == 2
    rule, *lines = done.stderr.splitlines()
    assert rule.startswith(f"{config}:2:11: exemptions.0.rule: not one of wrong-api-key, ")
    assert rule.endswith(", did you mean 'missing-email'?")
    date = "write 2027-01-31 (to the end of that day, UTC) or 2027-01-31T18:00:00Z"
    assert lines == [
        f"{config}:3:5: unknown key 'pointr', did you mean 'pointer'?",
        f"{config}:5:14: exemptions.1.expires: not a date: {date}",
        f"{config}:2:5: an exemption needs rule and reason and one of endpoint, pointer, name, client",
        f"{config}:4:5: an exemption needs rule and one of endpoint, pointer, name, client",
    ]


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, {}); from cio_proxy.cli import main; main()"


@contextmanager
def connected(ready: dict[str, Any], count: int) -> Iterator[list[socket.socket]]:
    host, _, port = ready["outbound"].removeprefix("http://").rpartition(":")
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(count)]


def test_connections_beyond_the_soft_limit_of_open_files_are_served(tmp_path: Path) -> None:
    request = f"GET /api/v1/accounts/region HTTP/1.1\r\nHost: track.customer.io\r\nAuthorization: Basic {PAIR}\r\n\r\n"
    with running(tmp_path, program=LIMITED.format((64, 1024))) as (_, ready), connected(ready, 100) as clients:
        for client in clients:
            client.sendall(request.encode())
        assert {client.recv(15) for client in clients} == {b"HTTP/1.1 200 OK"}


def test_a_shortage_of_open_files_is_one_line_and_over_when_clients_leave(tmp_path: Path) -> None:
    with running(tmp_path, program=LIMITED.format((64, 64))) as (process, ready):
        assert process.stderr is not None
        with connected(ready, 100):
            said = next(line for line in process.stderr if "open files" in line)
        assert said == (
            "cio-proxy: no more connections can be taken: too many open files; new ones wait (ulimit -n is 64, and may"
            " be raised)\n"
        )
        assert identify(ready)[0] == 200
        process.terminate()
        rest = process.stderr.read()
    assert "no more connections" not in rest
    assert "Traceback" not in rest


def test_a_client_that_offers_http_2_in_the_clear_is_served_without_a_word(tmp_path: Path) -> None:
    offer = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    with running(tmp_path) as (process, ready):
        connection = http.client.HTTPConnection(ready["outbound"].removeprefix("http://"), timeout=20)
        connection.request("GET", "/api/v1/accounts/region", headers={"Authorization": f"Basic {PAIR}", **offer})
        assert connection.getresponse().status == 200
        process.terminate()
        assert process.stderr is not None
        assert "HTTP/2" not in process.stderr.read()


def test_a_body_that_breaks_off_after_its_answer_leaves_no_traceback(tmp_path: Path) -> None:
    """uvicorn wants to answer such a request twice, and fails."""
    with running(tmp_path) as (process, ready):
        host, _, port = ready["admin"].removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"POST /api/reset HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 401"
            client.sendall(b"no size\r\n")
            while client.recv(4096):
                pass
        process.terminate()
        assert process.stderr is not None
        rest = process.stderr.read()
    assert "Traceback" not in rest
