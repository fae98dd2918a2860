"""A running proxy, and the SDK programs of this folder as subprocesses."""

import hashlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from . import table

ROOT = Path(__file__).parents[2]
APP_KEY = "5b1f0c9ad27e4368b0c4f1e2793d8a56"
"""An App API key that the configuration knows (by its digest), for an SDK to send to the wrong place."""


class Step(NamedTuple):
    step: str
    ok: bool
    error: str


CONFIG: dict[str, Any] = {
    "rules": {
        "missing-email": {"window": "1s"},
        "track-before-identify": {"grace": "2s"},
        "changing-user-id": {"settle": "1s"},
        "anonymous-id-not-merged": {"window": "1s", "visitors": 1, "people": 1},
        "trigger-on-every-update": {"events": 2, "event_people": 2},
        "no-rate-limiting": {"track": 5, "pipelines": 5},
    },
    "plan": {"events": {"order_shipped": {"attributes": {"order_id": "string"}}}, "others": True},
    "workspaces": {"shop": {"app_keys": ["sha256:" + hashlib.sha256(APP_KEY.encode()).hexdigest()]}},
}


class Proxy:
    """`cio-proxy run` on free ports in front of the sandbox, with a state folder of its own."""

    def __init__(self, folder: Path, *options: str, config: dict[str, Any] = CONFIG) -> None:
        file = folder / "cio-proxy.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        self.folder = folder
        self.log = folder / "stderr.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("cio-proxy"),
                    "run",
                    *("--config", file),
                    *("--listen", "127.0.0.1:0"),
                    *("--admin", "127.0.0.1:0"),
                    *("--upstream", "sandbox"),
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"XDG_STATE_HOME": str(folder / "state"), "CIO_PROXY_STATE": str(folder / "state")},
            )
        self.ready: dict[str, Any] = json.loads(self._first_line())
        self.url: str = self.ready["outbound"]
        self.admin: str = self.ready["admin"]
        self._players: dict[tuple[str, ...], subprocess.Popen[str]] = {}

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            self.process.kill()
            pytest.fail(f"cio-proxy run did not start:\n{self.log.read_text()}")
        return line

    def stop(self) -> None:
        for player in self._players.values():
            player.communicate(timeout=60)  # the end of its input ends it
        self.process.terminate()
        self.process.wait(60)

    def counted(self) -> Counter[str]:
        """The metrics so far: `requests`, each outcome of a request, and each `rule action` of a finding."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=10) as answer:
            text = answer.read().decode()
        counts: Counter[str] = Counter()
        for metric in text_string_to_metric_families(text):
            for sample in metric.samples:
                if sample.name == "cio_proxy_requests_total":
                    counts["requests"] += int(sample.value)
                    counts[sample.labels["outcome"]] += int(sample.value)
                elif sample.name == "cio_proxy_violations_total":
                    counts[f"{sample.labels['rule']} {sample.labels['action']}"] += int(sample.value)
        return counts

    def rises(self, before: Counter[str], to: dict[str, int], within: float = 15) -> dict[str, int]:
        """What was counted since `before`: at once when it is all of `to`, else when the time is over."""
        end = time.monotonic() + within
        while True:
            risen = self.counted() - before
            if all(risen[name] >= count for name, count in to.items()) or time.monotonic() > end:
                return dict(risen)
            time.sleep(0.1)

    def certificate(self) -> Path:
        return next(self.folder.rglob("*ca-cert.pem"))

    def run(self, program: tuple[str, ...], *arguments: str) -> list[Step]:
        """Run a program of an SDK against this proxy and read its steps."""
        done = subprocess.run(
            [*program, self.url, *arguments],
            cwd=ROOT,
            env=self._environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return list(map(step, map(json.loads, done.stdout.splitlines())))

    def play(self, program: tuple[str, ...], *arguments: str) -> list[Step]:
        """The steps of one session of a program that plays many, each in a workspace of its own."""
        if program not in self._players:
            self._players[program] = subprocess.Popen(
                [*program, self.url],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        player = self._players[program]
        assert player.stdin is not None
        assert player.stdout is not None
        limit = threading.Timer(120, player.kill)
        limit.start()
        try:
            print(json.dumps(arguments), file=player.stdin, flush=True)
            steps: list[Step] = []
            for line in map(json.loads, player.stdout):
                if "ended" in line:
                    assert line["ended"] == 0
                    return steps
                steps.append(step(line))
        finally:
            limit.cancel()
        del self._players[program]
        pytest.fail(f"{program} ended with {player.wait(60)} in the midst of {arguments}")

    def _environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return plain | {"REQUESTS_CA_BUNDLE": str(self.certificate())}


def step(line: dict[str, Any]) -> Step:
    return Step(line["step"], line["ok"], line.get("error", ""))


def need(sdk: str) -> None:
    """Skip the test unless `make setup` could install this SDK."""
    if not (ROOT / table.INSTALLED[sdk] / ".stamp").exists():
        pytest.skip(f"{sdk} is not installed: see what `make setup` says")


@pytest.fixture(scope="session")
def observing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("observing"))
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Shipped defaults, and told that it sees every person, so that history rules may judge at once."""
    proxy = Proxy(tmp_path_factory.mktemp("enforcing"), "--enforcement", "enforce", "--people", "complete")
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def blocking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy whose operator blocks whatever a rule can stop, on strong evidence already."""
    block = {rule: {"action": "block"} for rule in table.TABLE if rule not in table.UNSTOPPABLE}
    config = CONFIG | {"thresholds": {"block": "likely"}, "rules": CONFIG["rules"] | block}
    proxy = Proxy(tmp_path_factory.mktemp("blocking"), "--enforcement", "enforce", config=config)
    yield proxy
    proxy.stop()
