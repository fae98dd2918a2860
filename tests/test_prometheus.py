"""A real Prometheus scrapes two running proxies, one that observes and one that enforces, under the demo's traffic.

Every query of every panel, variable and README example gives data there, and the alerts tell what happened.
"""

import json
import math
import re
import runpy
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import running
from .shipped import ALERTS, CLOSED, README, ROOT, RULES_FOLDER, Query, panels, placed, program, variables

pytestmark = pytest.mark.once

GRAFANA = {
    "$__rate_interval": "1m",
    "$__range": "5m",
    "$__interval": "15s",
    "$job": ".+",
    "$instance": ".+",
    "$rule": ".+",
}


def eventually[Found](ask: Callable[[], Found], enough: Callable[[Found], bool], seconds: float = 60) -> Found:
    """Ask until it is enough; at last give what there is."""
    end = time.monotonic() + seconds
    while not enough(found := ask()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


class Prometheus:
    """Prometheus on a loopback port, with the shipped configuration made quicker and aimed at other targets."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        config = yaml.safe_load((RULES_FOLDER / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES_FOLDER / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
        (folder / "prometheus.yaml").write_text(json.dumps(config))  # JSON is YAML
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str | float) -> Any:
        """The answer's `data`."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def now(self, expr: str) -> list[Any]:
        """The result of a query at this moment."""
        result: list[Any] = self.get("query", query=expr)["result"]
        return result

    def lately(self, expr: str) -> list[Any]:
        """The result of a query over the last two minutes."""
        end = time.time()
        result: list[Any] = self.get("query_range", query=expr, start=end - 120, end=end, step=5)["result"]
        return result


REPORTED = ("sent", "delivered", "bounced")


@contextmanager
def answering() -> Iterator[str]:
    """The URL of an app that takes every webhook."""

    class App(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), App) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def report(inbound: str, metric: str) -> None:
    """Customer.io's webhook of what became of a mail."""
    told = {"event_id": f"E-{metric}", "object_type": "email", "metric": metric, "data": {"delivery_id": "D1"}}
    request = urllib.request.Request(
        f"{inbound}/hooks", json.dumps(told).encode(), {"X-CIO-Timestamp": "1", "X-CIO-Signature": "00"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """What `scripts/demo.py` defines."""
    return runpy.run_path(str(ROOT / "scripts" / "demo.py"))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, demo: dict[str, Any]) -> Iterator[Prometheus]:
    program("prometheus")
    try:
        clean, bad, _ = demo["programs"]()
    except SystemExit as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        started = []
        app = stack.enter_context(answering())
        inbound = ("--inbound", "127.0.0.1:0", "--app", app)
        for enforcement, more in (("observe", inbound), ("enforce", ())):
            folder = tmp_path_factory.mktemp(enforcement)
            config = folder / "cio-proxy.yaml"
            config.write_text("rules: {missing-email: {window: 1s}}")
            options = ("--config", str(config), "--enforcement", enforcement, *more)
            started.append(stack.enter_context(running(folder, *options))[1])
        targets = [ready["admin"].removeprefix("http://") for ready in started]
        server = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
        stack.callback(server.stop)
        assert eventually(server.ready, bool), server.log.read_text()
        # The dashboard counts findings by a look each 15 s: the first one must come before the first finding.
        looks = "count_over_time(sum by (instance) (cio_proxy_violations_total)[1m:15s])"
        both = eventually(lambda: server.now(looks), lambda result: len(result) == len(targets))
        assert len(both) == len(targets), server.log.read_text()
        for ready in started:
            demo["play"](clean, ready["outbound"])
            for pitfall in demo["BAD"]:
                demo["play"](bad, ready["outbound"], pitfall)
        for metric in REPORTED:
            report(started[0]["inbound"], metric)
        yield server


def filled(expr: str) -> str:
    """A query with Grafana's variables replaced by values."""
    for name, value in GRAFANA.items():
        expr = expr.replace(name, value)
    assert "$" not in expr.replace('"$1"', ""), expr
    return expr


def figures(result: list[Any]) -> list[float]:
    """The numbers in a result; what is not a number is no data."""
    points = [point for series in result for point in series.get("values", [series.get("value")])]
    return [value for value in (float(text) for _, text in points) if not math.isnan(value)]


def asked(prometheus: Prometheus, query: Query) -> list[Any]:
    ask = prometheus.now if query.instant else prometheus.lately
    expr = filled(query.expr)
    return eventually(lambda: ask(expr), lambda result: bool(figures(result)))


def at(place: str) -> str:
    """The query of this panel, filled."""
    (expr,) = (query.expr for query in panels() if query.place == place)
    return filled(expr)


def by_label(prometheus: Prometheus, place: str, label: str) -> dict[str, float]:
    return {series["metric"][label]: float(series["value"][1]) for series in prometheus.now(at(place))}


@placed(panels())
def test_a_query_of_a_panel_gives_data_with_the_labels_of_its_legend(prometheus: Prometheus, query: Query) -> None:
    result = asked(prometheus, query)
    assert figures(result), query.expr
    for series in result:
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= series["metric"].keys()


@placed(variables())
def test_a_variable_has_values(prometheus: Prometheus, query: Query) -> None:
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", query.expr)
    assert match is not None
    values = prometheus.get(f"label/{match[2]}/values", **{"match[]": filled(match[1])})
    assert values
    if match[2] == "rule":
        assert set(values) == set(CLOSED["rule"])


@placed([Query("README", expr) for expr in README])
def test_an_example_of_the_readme_gives_data(prometheus: Prometheus, query: Query) -> None:
    assert figures(asked(prometheus, query))


def test_the_table_counts_each_pitfall_of_the_demo(prometheus: Prometheus, demo: dict[str, Any]) -> None:
    found = eventually(
        lambda: by_label(prometheus, "Rules that fired A", "rule"), lambda found: set(demo["BAD"]) <= found.keys()
    )
    assert set(demo["BAD"]) <= found.keys()
    assert min(found.values()) >= 1


def test_what_the_enforcing_proxy_refused_is_counted_and_its_client_is_named(prometheus: Prometheus) -> None:
    refused = eventually(lambda: prometheus.now(at("Refused A")), lambda r: max(figures(r)) > 0)
    assert max(figures(refused)) > 0
    clients = eventually(
        lambda: by_label(prometheus, "Top clients A", "client"), lambda found: max(found.values(), default=0) > 0
    )
    assert [client for client, count in clients.items() if client != "other" and count > 0]


def test_the_first_delivery_of_a_kind_is_counted(prometheus: Prometheus) -> None:
    def seen() -> set[str]:
        series = prometheus.lately(at("Deliveries A"))
        return {f"{each['metric']['channel']} {each['metric']['metric']}" for each in series if figures([each])}

    wanted = {f"email {metric}" for metric in REPORTED}
    assert eventually(seen, lambda found: found >= wanted) == wanted


def test_nothing_was_paced_and_that_is_told(prometheus: Prometheus) -> None:
    results = {each["metric"]["result"]: max(figures([each])) for each in prometheus.lately(at("Paced requests A"))}
    assert results == dict.fromkeys(CLOSED["result"], 0)


def test_in_a_real_prometheus_the_demo_fires_what_it_should_and_nothing_else(prometheus: Prometheus) -> None:
    def fired() -> set[str]:
        return {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}

    assert "CioProxyRefusing" in eventually(fired, lambda names: "CioProxyRefusing" in names)
    assert fired() <= {"CioProxyRefusing", "CioProxyErrorFindings"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_a_real_prometheus_evaluates_an_alert(alert: dict[str, Any], prometheus: Prometheus) -> None:
    assert isinstance(prometheus.now(alert["expr"]), list)
