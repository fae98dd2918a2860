"""cio-proxy beside bare mitmdump, as shipped: requests a second, latency, CPU and memory, in interleaved rounds.

    python bench/proxy.py [ROUNDS [SECONDS]]

Each proxy runs alone on one core, the load and a small upstream share another. cio-proxy observes with all rules,
journal and metrics; what it found is compared with what was planted, so a bench whose rules did not fire fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
CONNECTIONS = (8, 32)
TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = (min(1, (os.cpu_count() or 1) - 1)), 0


class Round(NamedTuple):
    """One run of the load against one proxy."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """User and system time of the proxy, a request."""


class Subject(NamedTuple):
    """A running proxy."""

    name: str
    process: subprocess.Popen[str]
    address: str
    admin: str | None


def pinned(core: int, *command: str | Path) -> list[str]:
    return ["taskset", "-c", str(core), *map(str, command)]


@contextlib.contextmanager
def started(command: list[str], **kept: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **kept) as process:
        try:
            yield process
        finally:
            process.terminate()


def line(process: subprocess.Popen[str], pattern: str) -> str:
    """What the first line that fits says in its group."""
    assert process.stdout is not None
    for text in process.stdout:
        if found := re.search(pattern, text):
            return found[1]
    sys.exit(f"{process.args}: ended without a line like {pattern}")


@contextlib.contextmanager
def subjects(folder: str, upstream: str) -> Iterator[tuple[Subject, Subject]]:
    environment = os.environ | {"XDG_STATE_HOME": folder, "PYTHONUNBUFFERED": "1"}
    # As shipped, but for its port; it prints each flow to a pipe that is read and thrown away.
    mitmdump = pinned(PROXY_CORE, BIN / "mitmdump", "--mode", f"reverse:{upstream}@127.0.0.1:0")
    cio = pinned(
        PROXY_CORE,
        *(BIN / "cio-proxy", "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--upstream", upstream, "--journal", f"{folder}/findings.jsonl"),
    )
    with (
        started([*mitmdump, "--set", f"confdir={folder}/mitmproxy"], env=environment) as bare,
        started(cio, env=environment) as ours,
    ):
        address = line(bare, r"listening at (\S+?)\.?$")
        ready = json.loads(line(ours, r"(\{.*\})"))
        subprocess.Popen(["cat"], stdin=bare.stdout, stdout=subprocess.DEVNULL)
        yield (
            Subject("mitmdump", bare, address.removeprefix("http://"), None),
            Subject("cio-proxy", ours, ready["outbound"].removeprefix("http://"), ready["admin"]),
        )


def cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(process: subprocess.Popen[str]) -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


runs = count()


def load(subject: Subject, connections: int, seconds: float) -> tuple[Round, int]:
    before = cpu(subject.process)
    arguments = (subject.address, str(connections), str(seconds), str(next(runs)))
    command = pinned(LOAD_CORE, sys.executable, HERE / "load.py", *arguments)
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if result["failed"]:
        sys.exit(f"{subject.name}: {result['failed']} requests failed")
    used = (cpu(subject.process) - before) / result["requests"] * 1e6
    return Round(result["per_second"], result["p50_ms"], result["p99_ms"], used), result["requests"]


def metric(admin: str, series: str) -> float:
    """The sum over all series of a name."""
    with urllib.request.urlopen(f"{admin}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in lines if re.match(rf"{series}[{{ ]", each))


def main(rounds: int, seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        started(pinned(LOAD_CORE, sys.executable, HERE / "load.py", "upstream")) as served,
    ):
        upstream = f"http://127.0.0.1:{line(served, r'(\d+)')}"
        with subjects(folder, upstream) as running:
            for subject in running:
                load(subject, 8, 1.0)
            ours = running[1]
            sent = metric(str(ours.admin), "cio_proxy_requests_total")
            for connections in CONNECTIONS:
                results: dict[str, list[Round]] = {subject.name: [] for subject in running}
                for turn in range(rounds):
                    for subject in running[:: 1 if turn % 2 else -1]:
                        result, number = load(subject, connections, seconds)
                        results[subject.name].append(result)
                        sent += number if subject is ours else 0
                show(connections, results)
            reconcile(ours, sent)
            print("resident: " + ", ".join(f"{each.name} {resident(each.process):.0f} MiB" for each in running))


def show(connections: int, results: dict[str, list[Round]]) -> None:
    """Medians, and the medians of the ratios of neighbours in time."""
    for name, rounds in results.items():
        middle = Round(*(statistics.median(values) for values in zip(*rounds, strict=True)))
        print(
            f"{connections:>2} connections  {name:<10} {middle.per_second:7.0f} requests/s  p50 {middle.p50_ms:6.1f} ms"
            f"  p99 {middle.p99_ms:6.1f} ms  CPU {middle.cpu_us:6.0f} us/request"
        )
    bare, ours = results["mitmdump"], results["cio-proxy"]
    pairs = list(zip(ours, bare, strict=True))
    speed = statistics.median(a.per_second / b.per_second for a, b in pairs)
    p99 = statistics.median(a.p99_ms / b.p99_ms for a, b in pairs)
    used = statistics.median(a.cpu_us / b.cpu_us for a, b in pairs)
    print(
        f"{connections:>2} connections  cio-proxy is {speed:.2f} times as fast, with {p99:.2f} times the p99"
        f" and {used:.2f} times the CPU a request"
    )


def reconcile(ours: Subject, sent: float) -> None:
    """Every request was forwarded, and every planted fault found; and what the audit took of a request's CPU."""
    admin = str(ours.admin)
    forwarded = metric(admin, "cio_proxy_requests_total")
    found = metric(admin, "cio_proxy_violations_total")
    if forwarded != sent or abs(found - sent / 20) > sent / 200 + 40:
        sys.exit(f"sent {sent:.0f}, counted {forwarded:.0f}, found {found:.0f}: this measures nothing")
    spent = metric(admin, "cio_proxy_audit_duration_seconds_sum") / forwarded * 1e6
    whole = cpu(ours.process) / forwarded * 1e6
    print(f"audit before forwarding: {spent:.0f} us a request, of {whole:.0f} us of CPU ({spent / whole:.0%})")


if __name__ == "__main__":
    started_at = time.monotonic()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, float(sys.argv[2]) if len(sys.argv) > 2 else 4.0)
    print(f"took {time.monotonic() - started_at:.0f} s")
