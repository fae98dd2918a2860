"""What holds for every test: with `CI=true` nothing may be skipped. And the proxy as its user starts it."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from prometheus_client.parser import text_string_to_metric_families

from cio_proxy.model import End, Finding

# How fast input is drawn says something about the machine, and nothing about the product.
settings.register_profile("quiet", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("quiet")

COMMAND = str(Path(sys.executable).with_name("cio-proxy"))


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.ends: list[End] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def ended(self, end: End) -> None:
        self.ends.append(end)

    @property
    def endings(self) -> list[str]:
        return [end.ending for end in self.ends]


def environment(folder: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CIO_PROXY_")}
    return clean | {"XDG_STATE_HOME": str(folder)}


@contextmanager
def running(
    folder: Path, *options: str, program: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The proxy as a process, and its ready line. `program` is Python to run in place of the command."""
    started = [COMMAND] if program is None else [sys.executable, "-c", program]
    command = [*started, "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(folder), **pipes) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def counted(exposition: str, series: str, label: str) -> Counter[str]:
    """What a counter of a metrics page says, by one of its labels, summed over the others."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == series and sample.value:
                counts[sample.labels[label]] += int(sample.value)
    return counts


def forbid_skip[Report: (pytest.TestReport, pytest.CollectReport)](report: Report) -> Report:
    """Turn a skip into a failure that gives its reason; an expected failure stays what it is."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (with CI=true a skip is a failure)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return forbid_skip((yield))
