"""Reporting webhooks as Customer.io posts them: in the shapes of reference 7.3, signed as in 7.2.

What a test or the demo asks for is an object: `url` where to, `signing_key`, and of `metric` (`bounced` and the like)
and `object_type` (else `email`) which report. Of the person `id`, `email` and `cio_id`; `failure` for the text of a
bounce, where `hard` and `soft` stand for usual ones; `body` for the HTML of a sent mail, and `headers` for its headers.
`event_id`, `delivery_id` and `timestamp` are made up, or given to send a report again; `data` is added as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import secrets
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from cio_proxy.model import Json
from cio_proxy.sandbox.wire import Reply, Request, Unreadable

TIMEOUT: Final = 4.0
"""Seconds that Customer.io waits for an answer (reference 7.1)."""
FAILURES: Final = {
    "hard": "550 5.1.1 The email account that you tried to reach does not exist",
    "soft": "452 4.2.2 The recipient's inbox is out of storage space",
}
FAILING: Final = ("attempted", "bounced", "dropped", "failed", "undeliverable")
"""Metrics that come with a `failure_message`."""
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def report(asked: Mapping[str, Json], now: float) -> dict[str, Json]:
    """The JSON of a report."""
    metric, kind = asked.get("metric", "delivered"), asked.get("object_type", "email")
    email = asked.get("email")
    identifiers: dict[str, Json] = {
        "id": asked.get("id"),
        "email": email,
        "cio_id": asked.get("cio_id", "d9c106000001"),
    }
    told: dict[str, Json] = {"customer_id": asked.get("id") or "", "identifiers": identifiers}
    if kind == "customer":
        told["email_address"] = email
    else:
        told |= {
            "delivery_id": asked.get("delivery_id") or secrets.token_urlsafe(18),
            "campaign_id": 9,
            "action_id": 96,
            "journey_id": "01GW20GXAAXBKZD8J96M8FNV3R",
            "recipient": asked.get("recipient", email),
            "subject": asked.get("subject", "Welcome"),
        }
    if metric in FAILING:
        failure = asked.get("failure", "hard" if metric == "bounced" else "suppressed")
        told["failure_message"] = FAILURES.get(failure, failure) if isinstance(failure, str) else failure
    if metric == "clicked":
        told |= {"href": "https://shop.example.com/", "link_id": 1, "machine": False}
    if metric == "opened":
        told |= {"prefetched": False, "proxied": False, "synthetic": False}
    if metric == "sent" and asked.get("body") is not None:
        told |= {"content": asked["body"], "headers": asked.get("headers", {})}
    added = asked.get("data")
    return {
        "event_id": asked.get("event_id") or "01" + "".join(secrets.choice(_ALPHABET) for _ in range(24)),
        "object_type": kind,
        "metric": metric,
        "timestamp": asked.get("timestamp", int(now)),
        "data": told | (added if isinstance(added, dict) else {}),
    }


def signature(key: str, timestamp: str, body: bytes) -> str:
    """The `X-CIO-Signature` of a body."""
    return hmac.new(key.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()


async def answer(request: Request, now: float) -> Reply:
    """Post what is asked for, and tell what the app answered: a status of 0 is no answer."""
    try:
        asked = request.json()
    except Unreadable as error:
        return Reply(400, {"error": str(error)})
    if not isinstance(asked, dict) or not isinstance(url := asked.get("url"), str) or not _is_http(url):
        return Reply(400, {"error": "an object with a url, such as http://127.0.0.1:8081/hooks/customerio"})
    told = report(asked, now)
    body = json.dumps(told, separators=(",", ":")).encode()
    timestamp = str(int(now))
    headers = {"Content-Type": "application/json", "User-Agent": "Customer.io Webhooks"}
    if isinstance(key := asked.get("signing_key"), str):
        headers |= {"X-CIO-Timestamp": timestamp, "X-CIO-Signature": signature(key, timestamp, body)}
    status = await asyncio.to_thread(_post, url, headers, body)
    return Reply(200, {"status": status, "webhook": told})


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme == "http" and bool(parts.hostname) and url.isascii() and url.isprintable() and parts.port != 0
        )
    except ValueError:
        return False


def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError, socket.gaierror):
        return 0
    finally:
        connection.close()
