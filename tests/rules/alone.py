"""One rule alone, asked about one request."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Finding, RuleSettings, Settings
from cio_proxy.rules import RULES

NOW = 1_750_000_000.0
BASIC = "Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEzYzk1YTBiYzQ0ZDlmMDFlMjc="


def findings(
    rule: str,
    method: str,
    url: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    **exchange: Any,
) -> list[Finding]:
    """All that a rule says of a request, `possible` findings too. `body` is what JSON is made of, or the bytes."""
    host, slash, path = url.partition("/")
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"Authorization": BASIC, "Content-Type": "application/json"} | dict(headers or {})
    request = Exchange(
        **{
            "id": "1",
            "at": NOW,
            "method": method,
            "target": (slash + path).encode(),
            "host": host,
            "headers": tuple((name.encode(), value.encode("latin-1")) for name, value in sent.items()),
            "body": raw,
            **exchange,
        }
    )

    def fail(rule: str, error: BaseException) -> None:
        raise AssertionError(rule) from error

    rules = tuple(each for each in RULES if each.info.id == rule)
    settings = replace(settings or Settings(), rules={rule: RuleSettings(report="possible")})
    engine = Engine(settings, rules, sealed_with(b"k" * 32), rule_error=fail)
    return list(engine.judge(engine.open(request), Reading()).findings)


def told(rule: str, method: str, url: str, body: Any = None, **more: Any) -> list[tuple[str, str]]:
    """Where, and how sure."""
    return [(f.pointer, f.confidence) for f in findings(rule, method, url, body, **more)]
