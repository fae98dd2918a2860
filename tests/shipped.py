"""The queries of the shipped dashboard, alerts and README, the metrics there are, and the programs to try them with."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from cio_proxy.model import APIS, CONFIDENCES, ENDINGS, LISTENERS, PACED, SEVERITIES, TAKEN, Address, Settings
from cio_proxy.rules import RULES
from cio_proxy.sinks.metrics import Metrics

ROOT = Path(__file__).parents[1]
RULES_FOLDER = ROOT / "config" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config" / "grafana" / "cio-proxy.json").read_text())
ALERTS: list[dict[str, Any]] = [
    alert for group in yaml.safe_load((RULES_FOLDER / "alerts.yaml").read_text())["groups"] for alert in group["rules"]
]
TESTS = [RULES_FOLDER / "alerts_test.yaml", RULES_FOLDER / "traffic_test.yaml"]
README = re.findall(r"^```promql\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)

CLOSED = {
    "api": APIS,
    "listener": LISTENERS,
    "severity": SEVERITIES,
    "confidence": CONFIDENCES,
    "action": TAKEN,
    "outcome": ENDINGS,
    "result": PACED,
    "rule": tuple(rule.info.id for rule in RULES),
}
"""The labels of which all values are known."""
TARGET_LABELS = {"job", "instance"}
"""What Prometheus itself adds to a series."""


class Query(NamedTuple):
    """A query, with where it stands."""

    place: str
    expr: str
    legend: str = ""
    instant: bool = True


def panels() -> list[Query]:
    return [
        Query(f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"], target["instant"])
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def variables() -> list[Query]:
    """The variables that ask Prometheus for their values."""
    return [
        Query(each["name"], each["query"]["query"])
        for each in DASHBOARD["templating"]["list"]
        if each["type"] == "query"
    ]


def queries() -> list[Query]:
    """All of them."""
    alerts = [Query(alert["alert"], alert["expr"]) for alert in ALERTS]
    return [*panels(), *variables(), *alerts, *(Query("README", expr) for expr in README)]


def played() -> list[Query]:
    """The series that the tests of the alerts play."""
    return [
        Query(f"{file.name}: {test['name']}", series["series"])
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for series in test["input_series"]
        if series["series"].startswith("cio_proxy_")
    ]


def registered() -> dict[str, set[str]]:
    """Every series that the proxy can expose, with its labels."""
    metrics = Metrics(
        [rule.info for rule in RULES], Settings(enforcement="enforce", inbound=Address("127.0.0.1", 0)), "1"
    )
    metrics.known = lambda: {"person": 1}
    return {sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples}


def selectors(expr: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics of ours that an expression selects, each with the values that it asks of its labels."""
    for name, braces in re.findall(r"\b(cio_proxy_\w+)(?:\{([^}]*)\})?", expr):
        yield name, dict(re.findall(r"(\w+)\s*[=!]~?\s*\"([^\"]*)\"", braces))


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. Skips the test unless it is installed."""
    path = shutil.which(name) or shutil.which(name, path=str(ROOT / ".venvs" / "prometheus" / "usr" / "bin"))
    if path is None:
        pytest.skip(f"{name} is not installed: see what `make setup` says")
    return path


def placed(queries: list[Query]) -> pytest.MarkDecorator:
    """One case for each of these queries, named by its place."""
    return pytest.mark.parametrize("query", queries, ids=lambda query: query.place)
