"""`cio-proxy run` with every listener, as its user meets it."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .conftest import COMMAND, counted, environment, running
from .test_run import PAIR, fetched, send

pytestmark = pytest.mark.once

LATE = {"email": "a@example.com", "created_at": 1700000000000}


class App(BaseHTTPRequestHandler):
    """Answers with the `Host` that it was asked for."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_all_listeners_of_one_process_are_in_its_ready_line_and_work(tmp_path: Path) -> None:
    app = ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    options = ("--inbound", "127.0.0.1:0", "--app", f"http://127.0.0.1:{app.server_port}", "--explicit", "127.0.0.1:0")
    with running(tmp_path, *options) as (process, ready):
        metrics = fetched(ready["admin"], "/metrics")
        assert 'requests_total{api="unknown",listener="inbound",outcome="unaudited"} 0.0' in metrics
        assert 'requests_total{api="track_v1",listener="explicit",outcome="forwarded"} 0.0' in metrics
        assert 'cio_proxy_degraded{part="app"} 0.0' in metrics
        assert fetched(ready["inbound"], "/") == ready["inbound"].removeprefix("http://")
        assert send(ready["outbound"], "PUT", "/api/v1/customers/42", LATE) == 200
        authority = tmp_path / "cio-proxy" / "certificates" / "mitmproxy-ca-cert.pem"
        trusting = ssl.create_default_context(cafile=str(authority))
        through = http.client.HTTPSConnection(ready["explicit"].removeprefix("http://"), timeout=20, context=trusting)
        through.set_tunnel("track.customer.io", 443)
        through.request("PUT", "/api/v1/customers/43", json.dumps(LATE), {"Authorization": f"Basic {PAIR}"})
        assert through.getresponse().status == 200
        through.close()
        requests = fetched(ready["admin"], "/metrics")
        found = json.loads(fetched(ready["admin"], "/api/findings"))["findings"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
    app.shutdown()
    assert counted(requests, "cio_proxy_requests_total", "listener") == {"inbound": 1, "outbound": 1, "explicit": 1}
    assert {each["listener"] for each in found} == {"outbound", "explicit"}
    assert f"requests to {ready['inbound']} go to the app" in err
    assert f"an HTTP proxy is at {ready['explicit']}" in err
    assert "cannot be reached" not in err


def test_an_app_that_is_down_is_one_line_and_a_degraded_part(tmp_path: Path) -> None:
    with running(tmp_path, "--inbound", "127.0.0.1:0", "--app", "http://127.0.0.1:9") as (process, ready):
        for _ in range(2):
            assert "option `app`" in json.loads(fetched(ready["inbound"], "/"))["message"]
        assert 'cio_proxy_degraded{part="app"} 1.0' in fetched(ready["admin"], "/metrics")
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert err.count("cio-proxy: app http://127.0.0.1:9 cannot be reached: connection refused;") == 1


@pytest.mark.parametrize("option", ["--inbound", "--explicit"])
def test_a_busy_port_is_one_clear_line_that_names_its_option(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        command = [COMMAND, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", option, address]
        command += ["--app", "http://127.0.0.1:9"] if option == "--inbound" else []
        done = subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert (
        line == f"cannot listen on {address}: address already in use; give {option} another port, or 0 for a free one"
    )


@pytest.mark.parametrize("option", ["--listen", "--inbound", "--explicit", "--admin"])
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_the_machines_own_is_one_clear_line(option: str, host: str, tmp_path: Path) -> None:
    command = [COMMAND, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", option, f"{host}:8000"]
    command += ["--app", "http://127.0.0.1:9"] if option == "--inbound" else []
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"cannot listen on {host}:8000: this machine has no such address; give {option} another, ")


def test_a_proxy_that_others_can_reach_is_told_of_when_it_starts(tmp_path: Path) -> None:
    with running(tmp_path, "--explicit", "0.0.0.0:0") as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert err.count("explicit: whoever reaches 0.0.0.0:0 can connect to anything through it") == 1
