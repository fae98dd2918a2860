"""What the programs of this folder share: made-up keys, times, and one JSON line per step."""

import json
import secrets
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
