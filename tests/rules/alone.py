"""One rule alone, asked about one request, or about several in a row."""

import json
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from cio_proxy.apis import read
from cio_proxy.apis.credentials import Keyring
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.facts import Reading
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Call, Exchange, Finding, RuleSettings, Settings
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
    params: Mapping[str, Any] | None = None,
    unable: list[str] | None = None,
    **exchange: Any,
) -> list[Finding]:
    """All that a rule says of a request, `possible` findings too. `body` is what JSON is made of, or the bytes.

    `unable` is told why it could not judge.
    """
    reasons = [] if unable is None else unable

    def fail(rule: str, error: BaseException) -> None:
        raise AssertionError(rule) from error

    rules = tuple(each for each in RULES if each.info.id == rule)
    settings = replace(settings or Settings(), rules={rule: RuleSettings(report="possible", params=params or {})})
    engine = Engine(
        settings,
        rules,
        sealed_with(b"k" * 32),
        rule_error=fail,
        unable=lambda rule, reason: reasons.append(reason),
    )
    return list(engine.judge(engine.open(request(method, url, body, headers=headers, **exchange)), Reading()).findings)


def request(
    method: str, url: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **exchange: Any
) -> Exchange:
    """A request that is not answered yet. `body` is what JSON is made of, or the bytes."""
    host, slash, path = url.partition("/")
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"Authorization": BASIC, "Content-Type": "application/json"} | dict(headers or {})
    return Exchange(
        **{
            "id": "1",
            "at": NOW,
            "method": method,
            "target": (slash + path).encode(),
            "host": host,
            "headers": tuple((name.encode(), value.encode("latin-1")) for name, value in given.items()),
            "body": raw,
            **exchange,
        }
    )


def call(method: str, url: str, body: Any = None) -> Call:
    """A request with one call, as rules see it."""
    (only,) = read(request(method, url, body), Keyring({}, sealed_with(b"k" * 32)), 1 << 20)
    return only


def concerned(rule: str, method: str, url: str, body: Any = None) -> bool:
    """Whether a rule looks at a request at all."""
    (only,) = (each for each in RULES if each.info.id == rule)
    return only.concerns is None or only.concerns(call(method, url, body).form)


def told(rule: str, method: str, url: str, body: Any = None, **more: Any) -> list[tuple[str, str]]:
    """Where, and how sure."""
    return [(f.pointer, f.confidence) for f in findings(rule, method, url, body, **more)]


async def history(
    rule: str,
    *sent: tuple[float, str, str, Any],
    settings: Settings | None = None,
    params: Mapping[str, Any] | None = None,
    store: MemoryStore | None = None,
    refused: Container[int] = (),
    failed: Container[int] = (),
) -> list[Finding]:
    """All that a rule says of requests: of each the seconds after NOW, method, URL and body.

    They are accepted, but for those whose numbers are `refused`, or `failed` so that nobody knows.
    """
    recorded = []
    for number, (at, method, url, body) in enumerate(sent):
        host, slash, path = url.partition("/")
        exchange = Exchange(
            id=f"{number:08x}",
            at=NOW + at,
            method=method,
            target=(slash + path).encode(),
            host=host,
            headers=((b"Authorization", BASIC.encode()),),
            body=json.dumps(body).encode(),
        )
        recorded.append((exchange, Recorded(NOW + at, 400 if number in refused else 503 if number in failed else 200)))
    errors: list[object] = []
    said = RuleSettings(report="possible", params=params or {})
    engine = Engine(
        replace(settings or Settings(), rules={rule: said}),
        tuple(each for each in RULES if each.info.id == rule),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
    )
    found = await audit_recorded(recorded, engine, store=store)
    assert errors == []
    return found


async def lifetimes(
    rule: str, *sent: tuple[float, str, str, Any], params: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """How many seconds after the latest of such requests each kind of fact is forgotten."""
    store = MemoryStore()
    await history(rule, *sent, params=params, store=store)
    ends = {kind: [kept.expiry async for _, kept in store.scan(kind)] for kind in store.known()}
    return {kind: round(max(each) - NOW - sent[-1][0], 3) for kind, each in ends.items()}


async def remembered(rule: str, *sent: tuple[float, str, str, Any], params: Mapping[str, Any] | None = None) -> Any:
    """What is kept of such requests by the rule alone: subject, as a store sees it, and value, by kind."""
    store = MemoryStore()
    await history(rule, *sent, params=params, store=store)
    kinds = store.known().keys() - {"observed", "identified"}
    return {kind: [(key.subject, kept.value) async for key, kept in store.scan(kind)] for kind in kinds}
