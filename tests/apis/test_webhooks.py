"""Reporting webhooks: what is taken for one, what is read of them, what a signature is worth, and repeats."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.apis import read, surface
from cio_proxy.apis.credentials import Keyring
from cio_proxy.apis.webhooks import looks_like
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import (
    Call,
    Exchange,
    Finding,
    Json,
    Person,
    RuleSettings,
    Settings,
    SigningKeys,
    WebhookSettings,
    WorkspaceSettings,
)
from cio_proxy.rules import RULES
from cio_proxy.sinks.metrics import Metrics

SEAL = sealed_with(b"k" * 32)
NOW = 1_613_063_100.0
SIGNED = (
    b'{"event_id":"01E4C4CT6YDC7Y5M7FE1GWWPQJ","object_type":"email","metric":"bounced","timestamp":1613063089,'
    b'"data":{"customer_id":"42","recipient":"test@example.com"}}'
)
"""The worked example of reference 7.2."""
KEY = "test_signing_key_123"
SIGNATURE = b"a5009ca6c2464da4df020ab7aab6ccbebaaded4461c5742fa15d7dd113ed0f02"
HEADERS = ((b"X-CIO-Timestamp", b"1613063089"), (b"X-CIO-Signature", SIGNATURE))
WITH_KEY = Settings(webhooks=WebhookSettings(signing_key=KEY))


def webhook(body: Any = SIGNED, headers: tuple[tuple[bytes, bytes], ...] = HEADERS, **parts: Any) -> Exchange:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields: dict[str, Any] = {
        "id": "1",
        "at": NOW,
        "method": "POST",
        "target": b"/hooks/cio?token=s3cret",
        "host": "shop.example.com",
    }
    return Exchange(**{**fields, "headers": headers, "body": raw, "listener": "inbound"} | parts)


def call(exchange: Exchange, settings: Settings = WITH_KEY) -> Call:
    keyring = Keyring(settings.workspaces, SEAL, settings.webhooks)
    (only,) = read(exchange, keyring, 1 << 20, settings.webhooks.paths)
    return only


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("POST", b"/anything", {b"x-cio-signature": b""}, True),
        ("POST", b"/hooks/cio", {}, True),
        ("POST", b"/hooks", {}, False),
        ("POST", b"/v1/\xff/events", {}, True),
        ("GET", b"/hooks/cio", {b"x-cio-signature": b"00"}, False),
        ("POST", b"/checkout", {b"x-cio-timestamp": b"1"}, False),
    ],
)
def test_a_webhook_is_a_post_that_is_signed_or_goes_to_a_configured_path(
    method: str, path: bytes, headers: Mapping[bytes, bytes], expected: bool
) -> None:
    assert looks_like(method, path, headers, ["/hooks/*", "/v1/*/events"]) is expected


def test_what_else_an_app_is_asked_is_not_read() -> None:
    other = webhook(b'{"password": "s3cret"}', ((b"Authorization", b"Basic YTpi"),))
    read_as = call(other)
    assert (surface(other), read_as.api, read_as.kind, read_as.workspace) == ("unknown", "unknown", "other", "")
    assert (read_as.body, read_as.document.raw, read_as.credentials.scheme) == ({}, b"", "none")
    assert surface(webhook()) == "webhooks"
    assert surface(webhook(headers=()), ["/hooks/*"]) == "webhooks"
    assert surface(webhook(listener="outbound")) == "track_v1"


def test_a_report_gives_its_metric_its_person_and_its_time() -> None:
    told = {
        "event_id": "e",
        "object_type": "email",
        "metric": "opened",
        "timestamp": 1613063089,
        "data": {"customer_id": "old", "identifiers": {"id": 42, "email": "Ada@Example.com", "cio_id": "d9"}},
    }
    read_as = call(webhook(told), Settings())
    assert (read_as.api, read_as.kind, read_as.name, read_as.endpoint) == (
        "webhooks",
        "webhook_metric",
        "opened",
        "webhook",
    )
    assert read_as.person == Person(id="42", email="ada@example.com", cio_id="d9")
    assert read_as.data == told["data"]
    assert [(time.pointer, time.value, time.expects) for time in read_as.timestamps] == [
        ("/timestamp", 1613063089, "seconds")
    ]
    assert call(webhook(), Settings()).person == Person(id="42")
    gone = {**told, "data": {"customer_id": "", "identifiers": {"id": None}, "email_address": "B@example.com"}}
    assert call(webhook(gone), Settings()).person == Person(email="b@example.com")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "unreadable"),
        (b"\xff\xfe{", "unreadable"),
        (b"[" * 600, "unreadable"),
        ([1], "unreadable"),
        ({"metric": "sent"}, "other"),
        ({"metric": ["sent"], "object_type": "email"}, "other"),
        ({"metric": "sent", "object_type": "email", "data": [1]}, "webhook_metric"),
        ({"metric": "sent", "object_type": "email", "data": {"identifiers": 7}, "event_id": {}}, "webhook_metric"),
        ({"metric": "sent", "object_type": "email", "event_id": "e", "timestamp": 1e999}, "webhook_metric"),
    ],
)
async def test_whatever_is_posted_is_read(body: bytes | Json, kind: str) -> None:
    assert call(webhook(body)).kind == kind
    findings, errors = await told(Settings(), webhook(body), webhook(body))
    assert (findings, errors) == ([], [])


def test_the_signature_of_the_reference_is_right() -> None:
    credentials = call(webhook()).credentials
    assert (credentials.scheme, credentials.fault, credentials.belongs_to) == ("signature", "", "webhooks")
    assert SIGNATURE.decode() not in repr(credentials)
    spelled = (HEADERS[0], (b"x-cio-SIGNATURE", b" v0=" + SIGNATURE.upper()))
    assert call(webhook(headers=spelled)).credentials.fault == ""


@pytest.mark.parametrize(
    ("exchange", "fault"),
    [
        (webhook(SIGNED + b" "), "a signature that none of the configured keys makes"),
        (webhook(headers=((b"X-CIO-Timestamp", b"1613063088"), HEADERS[1])), "a signature that none of the"),
        (webhook(headers=(HEADERS[0], (b"X-CIO-Signature", b"\xff"))), "a signature that none of the"),
        (webhook(headers=(HEADERS[0], (b"X-CIO-Signature", SIGNATURE[:-1]))), "a signature that none of the"),
        (webhook(headers=HEADERS[1:]), "a signature without a timestamp"),
    ],
)
def test_a_signature_that_does_not_fit_is_a_fault(exchange: Exchange, fault: str) -> None:
    assert call(exchange).credentials.fault.startswith(fault)
    assert call(exchange, Settings()).credentials.fault == ""


def test_without_a_signature_there_is_a_fault_only_where_there_is_a_key() -> None:
    paths = WebhookSettings(paths=("/hooks/*",))
    assert call(webhook(headers=()), Settings(webhooks=paths)).credentials.fault == ""
    with_key = Settings(webhooks=replace(paths, signing_key=KEY))
    assert call(webhook(headers=()), with_key).credentials.fault == "no signature"


def test_a_key_tells_the_workspace() -> None:
    shop = WorkspaceSettings(signing_key_file=SigningKeys("f", ("other", KEY)))
    settings = Settings(workspaces={"shop": shop}, webhooks=WebhookSettings(signing_key="another"))
    assert (call(webhook(), settings).workspace, call(webhook(), settings).joined) == ("shop", "shop")
    nameless = call(webhook()).workspace
    assert nameless not in ("", "shop")
    several = WebhookSettings(signing_key=KEY, signing_key_file=SigningKeys("f", ("other",)))
    assert call(webhook(), Settings(webhooks=several)).workspace == nameless
    assert call(webhook(), Settings()).workspace == ""


class Sink:
    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def ended(self, end: object) -> None:
        pass


async def told(
    settings: Settings, *exchanges: Exchange, status: int = 200, metrics: Metrics | None = None
) -> tuple[list[tuple[str, str, str]], list[object]]:
    """What is found of exchanges with a store and an engine of their own, and the errors on the way."""
    errors: list[object] = []
    sink = Sink()
    engine = Engine(settings, RULES, SEAL, rule_error=lambda *error: errors.append(error))
    sinks = (sink, metrics) if metrics else (sink,)
    auditor = Auditor(engine, MemoryStore(), sinks, lambda: NOW, error=lambda *error: errors.append(error))
    for exchange in exchanges:
        audit = await auditor.begin(exchange)
        refusal = audit.verdict.refusal
        await auditor.answered(audit, refusal.status if refusal else status, b"")
    return [(each.rule, each.confidence, each.action) for each in sink.findings], errors


FORGED = ("invalid-webhook-signature", "certain")


def deliveries(metrics: Metrics) -> list[str]:
    return [
        line.removeprefix("cio_proxy_deliveries_total")
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("cio_proxy_deliveries_total{")
    ]


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_a_webhook_counts_once_however_often_it_is_sent_again(status: int) -> None:
    metrics = Metrics([], Settings(), "1")
    later = [webhook(at=NOW + wait, id=str(wait)) for wait in (0, 60, 7 * 86_400)]
    assert await told(WITH_KEY, *later, status=status, metrics=metrics) == ([], [])
    assert deliveries(metrics) == ['{channel="email",metric="bounced"} 1.0']


async def test_others_of_the_same_minute_count_too_and_what_is_unheard_of_as_other() -> None:
    metrics = Metrics([], Settings(), "1")
    odd = [{"event_id": str(n), "object_type": "fax", "metric": f"sung {n}", "timestamp": NOW} for n in range(3)]
    unnumbered = {"object_type": "sms", "metric": "sent"}
    sent = [webhook(each) for each in (*odd, unnumbered, unnumbered)]
    await told(Settings(), *sent, webhook({"object_type": "email"}), metrics=metrics)
    assert deliveries(metrics) == ['{channel="other",metric="other"} 3.0', '{channel="sms",metric="sent"} 2.0']


async def test_what_is_forged_is_found_every_time_counted_no_delivery_and_no_earlier_one() -> None:
    metrics = Metrics([], Settings(), "1")
    forged = webhook(headers=(HEADERS[0], (b"X-CIO-Signature", b"0" * 64)))
    found, errors = await told(WITH_KEY, forged, forged, webhook(), metrics=metrics)
    assert (found, errors) == ([(*FORGED, "logged")] * 2, [])
    assert deliveries(metrics) == ['{channel="email",metric="bounced"} 1.0']


async def test_only_block_refuses_what_is_forged_and_nothing_refuses_any_other_webhook() -> None:
    forged = webhook(headers=(HEADERS[0], (b"X-CIO-Signature", b"0" * 64)))
    enforce = replace(WITH_KEY, enforcement="enforce", block="possible")
    assert (await told(enforce, forged))[0] == [(*FORGED, "logged")]
    blocking = {rule.info.id: RuleSettings(action="block") for rule in RULES if "block" in rule.info.actions}
    refusing = replace(enforce, rules=blocking)
    assert (await told(refusing, forged))[0] == [(*FORGED, "blocked")]
    assert (await told(replace(refusing, enforcement="observe"), forged))[0] == [(*FORGED, "would_block")]
    assert (await told(refusing, webhook(), webhook(b"{"), webhook([1])))[0] == [(*FORGED, "blocked")] * 2
    audit = await Auditor(Engine(refusing, RULES, SEAL), MemoryStore(), (), lambda: NOW).begin(forged)
    assert audit.verdict.refusal is not None
    assert audit.verdict.refusal.status == 401
    assert json.loads(audit.verdict.refusal.body)["errors"][0]["status"] == "401"
