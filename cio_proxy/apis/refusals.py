"""The answer given in place of Customer.io: one body that every SDK can read (reference 8.4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from cio_proxy.model import FORGED, Finding, Json, Refusal

LATEST: Final = 10
"""Seconds that a client is asked to wait at most: customerio-node waits for 30 s in all."""


def union_error(status: int, code: str, message: str, entries: Sequence[dict[str, Json]] = ()) -> bytes:
    """An error body in the shapes of all APIs at once.

    `meta.error` is what customerio-node and ruby show, `errors` is Track v2's and the App API's, and
    `code` beside `message` is what the Python Pipelines client must find, or it retries.
    """
    errors = entries or [{"reason": code, "field": "", "message": message, "detail": message, "status": str(status)}]
    return json.dumps({"meta": {"error": message}, "errors": list(errors), "code": code, "message": message}).encode()


def refusal(findings: Sequence[Finding]) -> Refusal:
    """Refuse a whole exchange with 400, the one status that no SDK answers with a retry.

    Whoever posts a webhook that is not Customer.io's gets a 401.
    """
    status = 401 if findings[0].rule == FORGED else 400
    first = findings[0]
    others = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    message = f"blocked by cio-proxy: {first.rule}: {first.message}{others}. {first.fix}"
    entries: list[dict[str, Json]] = [
        {
            "reason": "invalid",
            "field": finding.pointer,
            "message": f"{finding.rule}: {finding.message}",
            "detail": finding.fix,
            "status": str(status),
        }
        | ({} if finding.item is None else {"batch_index": finding.item})
        for finding in findings
    ]
    return refused(first.rule, "blocked", message, entries, status=status)


def too_many(finding: Finding, seconds: float) -> Refusal:
    """Refuse with 429 what may come in so many seconds.

    Without `Retry-After` customerio for Python would not send it again, and a long one makes customerio-node give up
    (reference 8.1, 9.18).
    """
    after = str(max(1, min(LATEST, ceil(seconds)))).encode()
    message = f"blocked by cio-proxy: {finding.rule}: {finding.message}. {finding.fix}"
    answer = refused(finding.rule, "rate_limited", message, status=429)
    return replace(answer, headers=(*answer.headers, (b"Retry-After", after)))


def refused(
    why: str, code: str, message: str, entries: Sequence[dict[str, Json]] = (), *, status: int = 400
) -> Refusal:
    """The answer of a refusal, with `why` in its reason phrase: some SDKs show nothing else (reference 8.4)."""
    body = union_error(status, code, message, entries)
    return Refusal(
        status=status,
        reason=f"Blocked by cio-proxy: {why}",
        headers=((b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())),
        body=body,
    )
