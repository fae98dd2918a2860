"""The inbound listener beside bare mitmdump and no proxy at all: what each adds to the app's latency.

    python bench/inbound.py [ROUNDS [SECONDS]]

Each proxy runs alone on one core, the load and a small app share another. No request looks like a webhook, so each is
counted once and streamed; a bench whose requests did not come that way fails. What counts is latency over that without
a proxy, with one connection (nothing waits for anything else) and with eight; the rounds take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from proxy import BIN, HERE, LOAD_CORE, PROXY_CORE, Round, Subject, line, load, metric, pinned, started

CONNECTIONS = (1, 8)
ALLOWED = 1.2
"""How many times bare mitmdump's latency may be added: within 20 %."""


def main(rounds: int, seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        started(pinned(LOAD_CORE, sys.executable, HERE / "load.py", "upstream")) as served,
    ):
        app = f"127.0.0.1:{line(served, r'(\d+)')}"
        environment = os.environ | {"XDG_STATE_HOME": folder, "PYTHONUNBUFFERED": "1"}
        mitmdump = pinned(PROXY_CORE, BIN / "mitmdump", "--mode", f"reverse:http://{app}@127.0.0.1:0")
        cio = pinned(
            PROXY_CORE,
            *(BIN / "cio-proxy", "run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
            *("--inbound", "127.0.0.1:0", "--app", f"http://{app}"),
        )
        with (
            started([*mitmdump, "--set", f"confdir={folder}/mitmproxy"], env=environment) as bare,
            started(cio, env=environment) as ours,
        ):
            address = line(bare, r"listening at (\S+?)\.?$").removeprefix("http://")
            ready = json.loads(line(ours, r"(\{.*\})"))
            subprocess.Popen(["cat"], stdin=bare.stdout, stdout=subprocess.DEVNULL)
            subjects = (
                Subject("no proxy", served, app, None),
                Subject("mitmdump", bare, address, None),
                Subject("cio-proxy", ours, ready["inbound"].removeprefix("http://"), ready["admin"]),
            )
            measure(subjects, rounds, seconds)


def measure(subjects: tuple[Subject, ...], rounds: int, seconds: float) -> None:
    """Let all take turns, and compare."""
    sent = 0
    for subject in subjects[1:]:
        sent = load(subject, CONNECTIONS[-1], 1.0)[1]
    worst = 0.0
    for connections in CONNECTIONS:
        results: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
        for turn in range(rounds):
            for subject in subjects[:: 1 if turn % 2 else -1]:
                result, number = load(subject, connections, seconds)
                results[subject.name].append(result)
                sent += number if subject.name == "cio-proxy" else 0
        worst = max(worst, added(connections, results))
    counted = metric(str(subjects[-1].admin), "cio_proxy_requests_total")
    judged = metric(str(subjects[-1].admin), "cio_proxy_calls_total")
    if counted != sent or judged:
        sys.exit(f"sent {sent}, counted {counted:.0f}, read {judged:.0f} calls: this measures nothing")
    if worst > ALLOWED:
        sys.exit(f"{worst:.2f} times what mitmdump adds; {ALLOWED} is allowed")


def added(connections: int, results: dict[str, list[Round]]) -> float:
    """Print the medians; the latency that cio-proxy adds, as a multiple of what mitmdump adds."""
    for name, rounds in results.items():
        p50, p99 = (statistics.median(each) for each in ([r.p50_ms for r in rounds], [r.p99_ms for r in rounds]))
        used = statistics.median(r.cpu_us for r in rounds)
        print(f"{connections} connections  {name:<10} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  CPU {used:6.0f} us/request")
    trios = list(zip(results["no proxy"], results["mitmdump"], results["cio-proxy"], strict=True))
    p50 = statistics.median((ours.p50_ms - none.p50_ms) / (bare.p50_ms - none.p50_ms) for none, bare, ours in trios)
    p99 = statistics.median((ours.p99_ms - none.p99_ms) / (bare.p99_ms - none.p99_ms) for none, bare, ours in trios)
    used = statistics.median(ours.cpu_us / bare.cpu_us for _, bare, ours in trios)
    print(
        f"{connections} connections  cio-proxy adds {p50:.2f} times mitmdump's at the median, {p99:.2f} times at p99,"
        f" with {used:.2f} times its CPU"
    )
    return max(p50, p99)


if __name__ == "__main__":
    started_at = time.monotonic()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, float(sys.argv[2]) if len(sys.argv) > 2 else 4.0)
    print(f"took {time.monotonic() - started_at:.0f} s")
