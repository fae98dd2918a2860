"""What the programs of this folder share: made-up keys, times, and one JSON line per step."""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable

WEEK = 7 * 24 * 3600


def key(length: int) -> str:
    """A new key of the shape that Customer.io gives out."""
    return secrets.token_hex(length // 2)


def now() -> int:
    return int(time.time())


def week_ago() -> int:
    return now() - WEEK


def arguments() -> list[str]:
    """The proxy, and what to do there.

    Without the latter each line of input says it, as a JSON list, of one session in a process of its own: only the SDK
    is loaded once for all. A line with the exit code ends its steps.
    """
    proxy, *rest = sys.argv[1:]
    if rest:
        return [proxy, *rest]
    for line in sys.stdin:
        if os.fork() == 0:
            return [proxy, *json.loads(line)]
        print(json.dumps({"ended": os.waitstatus_to_exitcode(os.wait()[1])}), flush=True)
    sys.exit()


def step(name: str, call: Callable[[], object]) -> None:
    """Run one step and write how it went; a failure is reported, not raised."""
    try:
        call()
    except Exception as error:
        report(name, str(error))
    else:
        report(name)


def report(name: str, error: str | None = None) -> None:
    outcome = {"step": name, "ok": True} if error is None else {"step": name, "ok": False, "error": error}
    print(json.dumps(outcome), flush=True)


def public_methods(client: type) -> list[str]:
    """The methods that a user of a client calls, inherited ones included."""
    return [name for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))]
