"""A finding as it is published: one form for the journal, the admin API and JSON reports (design §5)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cio_proxy.model import Finding, Json
from cio_proxy.recognise import template

SCHEMA: Final = 1
CORRECTED: Final = 300
"""Characters of a corrected value that are shown."""
_PART: Final = re.compile(r"<[a-z-]+>|…\Z")


def record(finding: Finding, count: int = 1) -> dict[str, Any]:
    """The published form of a finding that stands for `count` occurrences. Its texts are already masked."""
    return {
        "schema": SCHEMA,
        "id": finding.id,
        "time": rfc3339(finding.time),
        "rule": finding.rule,
        "category": finding.category,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "action": finding.action,
        "message": finding.message,
        "effect": finding.effect,
        "fix": finding.fix,
        "corrected": finding.corrected,
        "api": finding.api,
        "call": finding.call,
        "method": finding.method,
        "endpoint": finding.endpoint,
        "pointer": finding.pointer,
        "item": finding.item,
        "evidence": finding.evidence,
        "person": finding.person,
        "name": finding.name,
        "client": finding.client,
        "listener": finding.listener,
        "workspace": finding.workspace,
        "exchange": finding.exchange,
        "trace_id": finding.trace_id,
        "fingerprint": finding.fingerprint,
        "count": count,
        "related": list(finding.related),
    }


def exemption(finding: Finding) -> str:
    """The line of configuration that exempts what is like this finding: an item of `exemptions`.

    Positions in lists, and personal and variable parts, become `*`.
    """
    matchers = {"rule": finding.rule, "endpoint": finding.endpoint, "pointer": _glob(finding.pointer)}
    if finding.name is not None:
        matchers["name"] = _glob(finding.name)
    given = ", ".join(f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in matchers.items() if text)
    return f'- {{{given}, reason: "..."}}'


def _glob(text: str) -> str:
    """A text as a glob for what is like it; what a glob would read as a choice stands for any character."""
    free = _PART.sub("*", template(text)).replace("[", "?")
    return "/".join("*" if part.isdigit() else part for part in free.split("/"))


def encode(published: Mapping[str, Any]) -> bytes:
    """One line of JSON, in ASCII: safe for any reader and for a terminal.

    Evidence that JSON cannot hold (NaN, endless nesting) is left out.
    """
    try:
        return _line(published)
    except (ValueError, RecursionError):
        return _line({**published, "evidence": None, "corrected": None})


def _line(published: Mapping[str, Any]) -> bytes:
    return json.dumps(published, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def rfc3339(time: float) -> str:
    """Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """Text without line breaks and without anything that a terminal could take for a command."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def named(finding: Finding) -> str:
    """The name that a finding is about, in quotes, or nothing."""
    return "" if finding.name is None else json.dumps(finding.name, ensure_ascii=False)


def compact(value: Json) -> str:
    """A JSON value on one line, cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= CORRECTED else text[: CORRECTED - 1] + "…"
