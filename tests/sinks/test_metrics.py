"""Metrics, read back with Prometheus' own parser: names, labels, the series at start, bounds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cio_proxy.model import (
    ENDINGS,
    KINDS,
    PACED,
    Address,
    Api,
    Call,
    End,
    Exchange,
    Finding,
    Kind,
    RuleInfo,
    RuleSettings,
    Settings,
)
from cio_proxy.rules import RULES
from cio_proxy.sinks.metrics import CLIENTS, DELIVERIES, Metrics
from cio_proxy.sinks.score import Score

INFOS = [rule.info for rule in RULES]
EXCHANGE = Exchange(id="e", at=1000.0, method="PUT", target=b"/", host="h", headers=(), body=b"")
FINDING = Finding(
    rule="millisecond-timestamp",
    severity="error",
    confidence="certain",
    pointer="",
    message="m",
    effect="e",
    fix="f",
    api="track_v1",
    time=1000.0,
)
SAMPLE_NAMES = {
    "cio_proxy_requests_total": {"listener", "api", "outcome"},
    "cio_proxy_calls_total": {"api", "call"},
    "cio_proxy_violations_total": {"rule", "severity", "confidence", "action", "api", "client"},
    "cio_proxy_audit_duration_seconds_count": set(),
    "cio_proxy_upstream_duration_seconds_count": set(),
    "cio_proxy_rule_errors_total": {"rule"},
    "cio_proxy_store_errors_total": {"store"},
    "cio_proxy_deliveries_total": {"channel", "metric"},
    "cio_proxy_paced_total": {"result"},
    "cio_proxy_held_seconds_total": set(),
    "cio_proxy_degraded": {"part"},
    "cio_proxy_dropped_records_total": {"sink"},
    "cio_proxy_client_connections_total": set(),
    "cio_proxy_known": {"kind"},
    "cio_proxy_score": set(),
    "cio_proxy_build_info": {"version", "mitmproxy"},
    "cio_proxy_config_last_reload_successful": set(),
}

type Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Series:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((f"cio_proxy_{name}", frozenset(labels.items())))


WITH_ALL_LISTENERS = Settings(enforcement="enforce", inbound=Address("127.0.0.1", 0), explicit=Address("127.0.0.1", 0))


def fresh(settings: Settings | None = None) -> Metrics:
    return Metrics(INFOS, settings or Settings(), "1.2.3")


def violations(metrics: Metrics) -> set[tuple[str, str]]:
    return {
        (dict(labels)["confidence"], dict(labels)["action"])
        for name, labels in scrape(metrics)
        if name == "cio_proxy_violations_total"
    }


def call(api: Api, kind: Kind) -> Call:
    return Call(exchange=EXCHANGE, api=api, kind=kind, endpoint="/", workspace="w")


def end(**changes: Any) -> End:
    return End(exchange=EXCHANGE, api="track_v1", ending="forwarded")._replace(**changes)


def test_every_series_has_its_documented_name_and_labels() -> None:
    metrics = fresh(WITH_ALL_LISTENERS)
    metrics.known = lambda: {"person": 3}
    found = {name: {key for key, _ in labels} for name, labels in scrape(metrics)}
    assert {name: found.get(name) for name in SAMPLE_NAMES} == SAMPLE_NAMES
    assert not [name for name in found if not name.startswith("cio_proxy_") or name.endswith("_created")]


@pytest.mark.parametrize("settings", [Settings(), WITH_ALL_LISTENERS], ids=["one listener", "all listeners"])
def test_a_fresh_proxy_has_its_series_at_zero_and_fewer_than_a_thousand(settings: Settings) -> None:
    series = scrape(fresh(settings))
    assert len(series) < 1000
    counters = {key: count for key, count in series.items() if key[0].endswith("_total")}
    assert set(counters.values()) == {0.0}
    assert {dict(labels)["rule"] for name, labels in counters if name == "cio_proxy_violations_total"} == {
        info.id for info in INFOS
    }
    assert {dict(labels)["client"] for name, labels in counters if name == "cio_proxy_violations_total"} == {"other"}


def test_the_series_at_start_are_what_the_configuration_can_reach() -> None:
    assert violations(fresh()) == {("certain", "logged"), ("certain", "would_block"), ("likely", "logged")}
    assert ("certain", "blocked") in violations(fresh(Settings(enforcement="enforce")))
    assert violations(fresh(Settings(report="possible", block="likely"))) == {
        (confidence, action)
        for confidence, action in [
            ("certain", "logged"),
            ("certain", "would_block"),
            ("likely", "logged"),
            ("likely", "would_block"),
            ("possible", "logged"),
        ]
    }
    assert violations(fresh(Settings(rules={info.id: RuleSettings(action="off") for info in INFOS}))) == set()


def labelled(metrics: Metrics, name: str) -> set[tuple[str, ...]]:
    """The values of the labels that a counter has series for, in the order of the names of the labels."""
    return {
        tuple(value for _, value in sorted(labels)) for found, labels in scrape(metrics) if found == f"cio_proxy_{name}"
    }


def test_what_webhooks_can_tell_starts_at_zero_where_they_come_in() -> None:
    assert labelled(fresh(), "deliveries_total") == set()
    assert ("webhooks", "forwarded", "inbound") not in {
        (api, outcome, listener) for api, listener, outcome in labelled(fresh(), "requests_total")
    }
    metrics = fresh(WITH_ALL_LISTENERS)
    assert labelled(metrics, "deliveries_total") == {(c, each) for c, told in DELIVERIES.items() for each in told}
    assert {("webhooks", "inbound", ending) for ending in ENDINGS} <= labelled(metrics, "requests_total")
    assert ("webhooks", "webhook_metric") in labelled(metrics, "calls_total")
    started = {(api, rule) for _, api, _, _, rule, _ in labelled(metrics, "violations_total")}
    assert {("webhooks", "ignored-bounce"), ("app", "ignored-bounce")} <= started


def test_a_delivery_starts_no_series_of_its_own() -> None:
    metrics = fresh(WITH_ALL_LISTENERS)
    before = scrape(metrics).keys()
    told = replace(call("webhooks", "webhook_metric"), name="bounced", body={"object_type": "email"})
    metrics.ended(end(exchange=replace(EXCHANGE, listener="inbound"), api="webhooks", calls=(told,)))
    assert scrape(metrics).keys() == before
    assert value(metrics, "deliveries_total", channel="email", metric="bounced") == 1


def test_every_result_of_pacing_starts_at_zero() -> None:
    metrics = fresh()
    assert labelled(metrics, "paced_total") == {(result,) for result in PACED}
    metrics.paced("held", 0.5)
    assert value(metrics, "paced_total", result="held") == 1
    assert value(metrics, "held_seconds_total") == 0.5


def test_every_occurrence_counts_under_its_own_action() -> None:
    metrics = fresh()
    for action in ("logged", "logged", "exempt"):
        metrics.found(replace(FINDING, action=action, client="curl"))
    labels = {"rule": "millisecond-timestamp", "severity": "error", "confidence": "certain", "api": "track_v1"}
    assert value(metrics, "violations_total", **labels, action="logged", client="curl") == 2
    assert value(metrics, "violations_total", **labels, action="exempt", client="curl") == 1
    assert value(metrics, "violations_total", **labels, action="logged", client="other") == 0


def test_clients_beyond_the_limit_count_as_other() -> None:
    metrics = fresh()
    for number in range(100):
        metrics.found(replace(FINDING, client=f"client-{number}"))
    series = {
        dict(labels)["client"]: count
        for (name, labels), count in scrape(metrics).items()
        if "violations" in name and count
    }
    assert len(series) == CLIENTS
    assert sum(series.values()) == 100
    assert series["other"] == 100 - (CLIENTS - 1)


def test_exchanges_calls_and_durations_are_counted() -> None:
    metrics = fresh()
    batch = (call("track_v2", "identify"), call("track_v2", "identify"), call("track_v2", "event"))
    metrics.ended(end(api="track_v2", ending="partial", calls=batch, audit_seconds=0.0001, upstream_seconds=0.2))
    metrics.ended(end(ending="failed", audit_seconds=0.0001))
    assert value(metrics, "requests_total", listener="outbound", api="track_v2", outcome="partial") == 1
    assert value(metrics, "requests_total", listener="outbound", api="track_v1", outcome="failed") == 1
    assert value(metrics, "calls_total", api="track_v2", call="identify") == 2
    assert value(metrics, "calls_total", api="track_v2", call="event") == 1
    assert value(metrics, "audit_duration_seconds_count") == 2
    assert value(metrics, "upstream_duration_seconds_count") == 1
    assert value(metrics, "upstream_duration_seconds_sum") == 0.2


def test_errors_drops_connections_and_degraded_parts_are_told() -> None:
    metrics = fresh()
    metrics.rule_error("missing-email")
    metrics.store_error("store")
    metrics.dropped("journal", 5)
    metrics.connection()
    metrics.degraded("journal", True)
    metrics.degraded("rule missing-email", True)
    assert value(metrics, "rule_errors_total", rule="missing-email") == 1
    assert value(metrics, "store_errors_total", store="store") == 1
    assert value(metrics, "dropped_records_total", sink="journal") == 5
    assert value(metrics, "client_connections_total") == 1
    assert value(metrics, "degraded", part="journal") == 1
    assert metrics.degraded_parts() == ["journal", "rule missing-email"]
    metrics.degraded("journal", False)
    assert value(metrics, "degraded", part="journal") == 0
    assert metrics.degraded_parts() == ["rule missing-email"]


def test_known_facts_are_counted_when_they_are_asked_for() -> None:
    metrics, kept = fresh(), {"person": 1}
    metrics.known = lambda: kept
    assert value(metrics, "known", kind="person") == 1
    kept["person"] = 2
    assert value(metrics, "known", kind="person") == 2


def test_two_proxies_in_one_process_count_apart() -> None:
    first, second = fresh(), fresh()
    first.connection()
    assert value(second, "client_connections_total") == 0


def test_the_exported_score_follows_findings_and_exchange_time() -> None:
    metrics = fresh()
    assert value(metrics, "score") == 100
    metrics.found(FINDING)
    assert value(metrics, "score") == 95
    metrics.ended(end(exchange=replace(EXCHANGE, at=1000.0 + 24 * 3600)))
    assert value(metrics, "score") == 95
    metrics.ended(end(exchange=replace(EXCHANGE, at=1001.0 + 24 * 3600)))
    assert value(metrics, "score") == 100


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([], 100),
        ([FINDING, FINDING], 95),
        ([replace(FINDING, rule="hardcoded-credentials")], 80),
        ([replace(FINDING, rule="track-before-identify")], 85),
        ([replace(FINDING, rule="pii-in-name")], 90),
        ([replace(FINDING, rule="missing-email", severity="warning")], 95),
        ([replace(FINDING, rule="redundant-identify", severity="info")], 99),
        ([replace(FINDING, action="exempt"), replace(FINDING, rule="pii-in-name", action="baselined")], 100),
        ([replace(FINDING, rule=f"rule-{number}") for number in range(11)], 0),
        ([replace(FINDING, time=1000.0), replace(FINDING, rule="pii-in-name", time=1000.0 + 25 * 3600)], 90),
    ],
)
def test_the_score_takes_a_weight_once_for_each_rule_that_fired_in_a_day(
    findings: list[Finding], expected: int
) -> None:
    score = Score()
    for finding in findings:
        score.found(finding)
    assert score.value() == expected


def test_a_rule_of_every_kind_on_every_api_still_starts_small() -> None:
    """Room for the rules to come: forty of the widest kind stay under the limit of series."""
    rules = [RuleInfo(id=f"rule-{n}", severity="error", category="1", kinds=frozenset(KINDS)) for n in range(40)]
    assert len(scrape(Metrics(rules, Settings(), "1"))) < 1000
