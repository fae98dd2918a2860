"""The demo: a clean and a bad session through the proxy, what it found, what it counted, and what was stored.

Plays the programs of `tests/sdks` with the Node SDK, or the Python one where there is no Node.
Everything runs on free loopback ports against the emulated Customer.io; nothing leaves the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console

from cio_proxy.rules import RULES

ROOT = Path(__file__).parents[1]
NODE = ("node", "tests/sdks/node")
PYTHON = (".venvs/sdk-track/bin/python", "tests/sdks/python")
BAD = (
    "wrong-api-key",
    "millisecond-timestamp",
    "placeholder-identifier",
    "inconsistent-event-name",
    "dynamic-event-name",
    "pii-in-name",
    "sensitive-value",
    "duplicate-event",
    "oversized-payload",
    "track-before-identify",
    "missing-email",
)
QUIET_AFTER = 3.0


def main() -> None:
    """Run the demo and exit 0, or say in one line what is missing."""
    say = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    clean, bad, name = programs()
    with tempfile.TemporaryDirectory() as folder:
        proxy, ready = start(Path(folder))
        try:
            say.print(f"[bold]cio-proxy[/] {ready['outbound']}, metrics and findings at {ready['admin']}")
            say.print(f"\n[bold]1. A clean session[/] with {name}: every method of every client\n")
            play(clean, ready["outbound"])
            summary = get(ready["admin"], "/api/summary")
            say.print(
                f"   {summary['requests']} requests, {summary['calls']} calls, {len(summary['by_rule'])} findings"
            )
            say.print(f"\n[bold]2. A bad session[/]: {len(BAD)} pitfalls, one after the other\n")
            known = notes(ready["sandbox"])
            kept: dict[str, str] = {}
            for pitfall in BAD:
                play(bad, ready["outbound"], pitfall)
                kept |= dict.fromkeys(notes(ready["sandbox"]) - known - kept.keys(), pitfall)
            wait_for(ready["admin"], {"missing-email"})
            findings(say, ready["admin"])
            counters(say, ready["admin"])
            stored(say, kept)
            say.print(f"[dim]{len(BAD)} of {len(RULES)} rules; `cio-proxy explain` lists them all.[/]")
        finally:
            proxy.terminate()
            proxy.wait(30)


def programs() -> tuple[tuple[str, str], tuple[str, str], str]:
    """The programs of the Node SDK, else of the Python one. Exits when neither is installed."""
    if (ROOT / NODE[1] / "node_modules" / ".stamp").exists():
        return (NODE[0], f"{NODE[1]}/clean.mjs"), (NODE[0], f"{NODE[1]}/bad.mjs"), "customerio-node"
    if (ROOT / PYTHON[0]).exists():
        return (
            (PYTHON[0], f"{PYTHON[1]}/track_clean.py"),
            (PYTHON[0], f"{PYTHON[1]}/track_bad.py"),
            "customerio (Python)",
        )
    sys.exit("demo: neither the Node nor the Python SDK is installed; `make setup` says why")


def start(folder: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start the proxy on free ports with a short window for the rule that waits."""
    config = folder / "cio-proxy.yaml"
    config.write_text("rules:\n  missing-email:\n    window: 1s\n")
    command = [
        str(Path(sys.executable).with_name("cio-proxy")),
        "run",
        *("--config", str(config)),
        *("--listen", "127.0.0.1:0"),
        *("--admin", "127.0.0.1:0"),
    ]
    environment = os.environ | {"XDG_STATE_HOME": str(folder)}
    proxy = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT
    )
    line = proxy.stdout.readline() if proxy.stdout else ""
    if not line:
        sys.exit("demo: the proxy did not start; try `make run` to see why")
    return proxy, json.loads(line)


def play(program: tuple[str, str], *arguments: str) -> None:
    """Run one SDK program to its end."""
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*program, *arguments], cwd=ROOT, env=plain, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        sys.exit(f"demo: {' '.join(program)} failed: {done.stderr.strip()[:500]}")


def get(base: str, path: str) -> Any:
    """A JSON document of the admin or sandbox API."""
    with urllib.request.urlopen(base + path, timeout=10) as answer:
        return json.load(answer)


def wait_for(admin: str, rules: set[str], seconds: float = 10.0) -> None:
    """Wait until these rules have fired."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not rules <= get(admin, "/api/summary")["by_rule"].keys():
        time.sleep(0.2)


def findings(say: Console, admin: str) -> None:
    """Each rule's first finding, as a reader meets it."""
    seen: set[str] = set()
    for finding in get(admin, "/api/findings?limit=1000")["findings"]:
        if finding["rule"] in seen:
            continue
        seen.add(finding["rule"])
        colour = {"error": "red", "warning": "yellow"}.get(finding["severity"], "cyan")
        say.print(f"   [{colour}]{finding['severity']:<7}[/] [bold]{finding['rule']}[/]  {finding['confidence']}")
        say.print(f"           {finding['method']} {finding['endpoint']} {finding['pointer']}", markup=False)
        say.print(f"           {finding['message']}", markup=False)
        say.print(f"           [dim]then[/]  {finding['effect']}")
        corrected = "" if finding["corrected"] is None else f" → {json.dumps(finding['corrected'])}"
        say.print(f"           [dim]fix[/]   [green]{finding['fix']}{corrected}[/]\n")


def counters(say: Console, admin: str) -> None:
    """The counters that are not zero, from /metrics."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    say.print("[bold]3. What Prometheus sees[/]\n")
    wanted = ("cio_proxy_requests_total", "cio_proxy_violations_total", "cio_proxy_score")
    for line in lines:
        if line.startswith(wanted) and not line.endswith(" 0.0"):
            say.print(f"   {line}", markup=False, soft_wrap=True)


def notes(sandbox: str) -> set[str]:
    """What the emulated Customer.io says about the people and events it keeps."""
    entries = [entry for kind in ("people", "events", "requests") for entry in get(sandbox, f"/_sandbox/{kind}")[kind]]
    return {note for entry in entries for note in entry["notes"]}


def stored(say: Console, kept: dict[str, str]) -> None:
    """What Customer.io made of each pitfall, although it answered 200 to most of them."""
    say.print("\n[bold]4. What the emulated Customer.io says of what it was sent[/]\n")
    for note, pitfall in kept.items():
        say.print(f"   {pitfall}", style="bold")
        say.print(f"           {note}\n", markup=False)


if __name__ == "__main__":
    main()
