"""Prometheus metrics: the names and labels that dashboards and alerts build on (design §5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version as version_of
from itertools import chain
from typing import Final

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cio_proxy.model import (
    APIS,
    CONFIDENCES,
    ENDINGS,
    KINDS,
    PACED,
    Api,
    Call,
    Confidence,
    End,
    Ending,
    Exemption,
    Finding,
    Kind,
    Listener,
    Paced,
    RuleInfo,
    Settings,
    Severity,
    Taken,
)
from cio_proxy.sinks.score import Score

CLIENTS: Final = 20
"""How many client names get series of their own; any further one counts as `other`."""
AUDIT_BUCKETS: Final = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 0.25)
UPSTREAM_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
INBOUND: Final[Api] = "webhooks"
OUTBOUND: Final[tuple[Api, ...]] = tuple(api for api in APIS if api not in (INBOUND, "unknown"))
WEBHOOK_KINDS: Final[tuple[Kind, ...]] = ("webhook_metric", "other", "unreadable")

_ANY: Final = ("drafted", "attempted", "sent", "clicked", "failed", "undeliverable")
_PUSH: Final = (*_ANY, "delivered", "opened", "converted", "bounced", "dropped")
DELIVERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "customer": ("subscribed", "unsubscribed", "cio_subscription_preferences_changed"),
    "email": (*_PUSH, "unsubscribed", "spammed"),
    "push": _PUSH,
    "sms": (*_ANY, "delivered", "converted", "bounced", "replied"),
    "in_app": (*_ANY, "opened", "converted"),
    "slack": _ANY,
    "webhook": _ANY,
    "whatsapp": (*_PUSH, "replied"),
}
"""What reporting webhooks are about, and what they tell of each (reference 7.3)."""
DELIVERY_METRICS: Final = frozenset(chain.from_iterable(DELIVERIES.values()))

type Violation = tuple[str, Severity, Confidence, Taken, Api, str]


class Metrics:
    """Counts what passes, in a registry of its own. Every label comes from a closed or capped set."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, rules: Sequence[RuleInfo], settings: Settings, version: str) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = prometheus.CollectorRegistry()
        self.known: Callable[[], Mapping[str, int]] = dict
        """Asked at each scrape: how many facts of each kind are kept."""
        self._score = Score()
        self._clients = {"other"}
        self._violations = self._counter(
            "violations", "Findings reported.", "rule", "severity", "confidence", "action", "api", "client"
        )
        self._violation: dict[Violation, prometheus.Counter] = {}
        self._requests = self._counter("requests", "Exchanges, by what became of them.", "listener", "api", "outcome")
        self._request: dict[tuple[Listener, Api, Ending], prometheus.Counter] = {}
        self._calls = self._counter("calls", "Calls read from exchanges.", "api", "call")
        self._call: dict[tuple[Api, Kind], prometheus.Counter] = {}
        self._audit = prometheus.Histogram(
            "cio_proxy_audit_duration_seconds",
            "Time the audit took of an exchange.",
            registry=self.registry,
            buckets=AUDIT_BUCKETS,
        )
        self._upstream = prometheus.Histogram(
            "cio_proxy_upstream_duration_seconds",
            "Time upstream took to answer.",
            registry=self.registry,
            buckets=UPSTREAM_BUCKETS,
        )
        self._rule_errors = self._counter("rule_errors", "Exceptions in rules.", "rule")
        self._store_errors = self._counter("store_errors", "Failures of what remembers facts.", "store")
        self._dropped = self._counter("dropped_records", "Findings that a sink could not take.", "sink")
        self._deliveries = self._counter(
            "deliveries", "Reporting webhooks, each once, by what was sent and what became of it.", "channel", "metric"
        )
        self._connections = self._counter("client_connections", "Connections accepted from clients.")
        self._paced = self._counter("paced", "Exchanges that came faster than the configured rate.", "result")
        self._held = self._counter("held_seconds", "Time for which exchanges were held.")
        self._degraded = self._gauge("degraded", "1 while a part does not do its work.", "part")
        self._parts: dict[str, bool] = {}
        self._gauge("score", "From 100 down to 0, by the rules that fired in the last 24 hours.").set_function(
            self._score.value
        )
        self._reloaded = self._gauge("config_last_reload_successful", "1 when the latest configuration is in force.")
        self._reloaded.set(1)
        self._exemptions = self._gauge(
            "exemption_expiry_timestamp_seconds",
            "When an exemption expires.",
            "exemption",
        )
        self._gauge("build_info", "Versions.", "version", "mitmproxy").labels(version, version_of("mitmproxy")).set(1)
        self.registry.register(_Known(self))
        self._start(rules, settings)

    def found(self, finding: Finding) -> None:
        """Count a finding, every occurrence."""
        client = self._client(finding.client)
        self._violation_of(
            (finding.rule, finding.severity, finding.confidence, finding.action, finding.api, client)
        ).inc()
        self._score.found(finding)

    def ended(self, end: End) -> None:
        """Count an exchange and its calls, and the time it took."""
        self._score.passed(end.exchange.at)
        self._request_of((end.exchange.listener, end.api, end.ending)).inc()
        for labels, count in counted(end.calls).items():
            self._call_of(labels).inc(count)
        if end.api == INBOUND and not end.repeated:
            for call in end.calls:
                if call.kind == "webhook_metric":
                    self._deliveries.labels(*delivery(call)).inc()
        self._audit.observe(end.audit_seconds)
        if end.upstream_seconds is not None:
            self._upstream.observe(end.upstream_seconds)

    def passed(self, listener: Listener) -> None:
        """A request passed that is no exchange with Customer.io."""
        self._request_of((listener, "unknown", "unaudited")).inc()

    def rule_error(self, rule: str) -> None:
        """A rule raised an exception."""
        self._rule_errors.labels(rule).inc()

    def store_error(self, store: str) -> None:
        """A store failed or took too long."""
        self._store_errors.labels(store).inc()

    def degraded(self, part: str, on: bool = True) -> None:
        """A part stopped doing its work, or does it again."""
        self._parts[part] = on
        self._degraded.labels(part).set(on)

    def degraded_parts(self) -> list[str]:
        """The parts that do not do their work now."""
        return sorted(part for part, on in self._parts.items() if on)

    def dropped(self, sink: str, count: int = 1) -> None:
        """A sink could not take so many findings."""
        self._dropped.labels(sink).inc(count)

    def connection(self) -> None:
        """A client connected."""
        self._connections.inc()

    def paced(self, result: Paced, seconds: float) -> None:
        """An exchange was held for so long and released, or passed because it had been held for long enough."""
        self._paced.labels(result).inc()
        self._held.inc(seconds)

    def reloaded(self, successful: bool) -> None:
        """The configuration was read again, and is in force or was refused."""
        self._reloaded.set(successful)

    def exempt(self, exemptions: Sequence[Exemption]) -> None:
        """These exemptions are in force from now on."""
        self._exemptions.clear()
        for each in exemptions:
            if each.expires is not None:
                self._exemptions.labels(each.label).set(each.expires)

    def exposition(self) -> bytes:
        """All series, as text of the type `content_type`."""
        return prometheus.generate_latest(self.registry)

    def _client(self, client: str) -> str:
        if client in self._clients:
            return client
        if len(self._clients) >= CLIENTS:
            return "other"
        self._clients.add(client)
        return client

    def _violation_of(self, labels: Violation) -> prometheus.Counter:
        child = self._violation.get(labels)
        if child is None:
            child = self._violation[labels] = self._violations.labels(*labels)
        return child

    def _request_of(self, labels: tuple[Listener, Api, Ending]) -> prometheus.Counter:
        child = self._request.get(labels)
        if child is None:
            child = self._request[labels] = self._requests.labels(*labels)
        return child

    def _call_of(self, labels: tuple[Api, Kind]) -> prometheus.Counter:
        child = self._call.get(labels)
        if child is None:
            child = self._call[labels] = self._calls.labels(*labels)
        return child

    def _start(self, rules: Sequence[RuleInfo], settings: Settings) -> None:
        """Put every series that this configuration can reach at 0, so that its first increase is seen."""
        watched = OUTBOUND if settings.inbound is None else (*OUTBOUND, INBOUND)
        for rule in rules:
            self._rule_errors.labels(rule.id)
            for confidence, action in reachable(rule, settings):
                for api in rule.apis.intersection(watched) or rule.apis:
                    self._violation_of((rule.id, rule.severity, confidence, action, api, "other"))
        for api in OUTBOUND:
            for ending in ENDINGS:
                self._request_of(("outbound", api, ending))
                if settings.explicit is not None:
                    self._request_of(("explicit", api, ending))
            for kind in KINDS:
                self._call_of((api, kind))
        for result in PACED:
            self._paced.labels(result)
        for sink in ("journal", "console"):
            self._dropped.labels(sink)
        self._store_errors.labels(settings.facts.kind if settings.facts else "memory")
        for part in ("journal", "store", "upstream"):
            self.degraded(part, False)
        if settings.inbound is not None:
            self._request_of(("inbound", "unknown", "unaudited"))
            for ending in ENDINGS:
                self._request_of(("inbound", INBOUND, ending))
            for kind in WEBHOOK_KINDS:
                self._call_of((INBOUND, kind))
            for channel, metrics in DELIVERIES.items():
                for metric in metrics:
                    self._deliveries.labels(channel, metric)
            self.degraded("app", False)

    def _counter(self, name: str, about: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(f"cio_proxy_{name}_total", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(f"cio_proxy_{name}", about, labels, registry=self.registry)


class _Known:
    """The facts that are kept, counted when they are asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("cio_proxy_known", "Facts that are remembered.", labels=["kind"])
        for kind, count in self._metrics.known().items():
            family.add_metric([kind], count)
        yield family


def delivery(call: Call) -> tuple[str, str]:
    """What a webhook is about, and what it tells, in the words of reference 7.3; else `other`."""
    channel = call.body.get("object_type")
    return (
        channel if isinstance(channel, str) and channel in DELIVERIES else "other",
        call.name if call.name in DELIVERY_METRICS else "other",
    )


def counted(calls: Sequence[Call]) -> dict[tuple[Api, Kind], int]:
    """How many calls there are of each kind: a batch of a thousand costs few additions to a metric."""
    counts: dict[tuple[Api, Kind], int] = {}
    for call in calls:
        labels = (call.api, call.kind)
        counts[labels] = counts.get(labels, 0) + 1
    return counts


def reachable(rule: RuleInfo, settings: Settings) -> Iterator[tuple[Confidence, Taken]]:
    """What may be done about a rule's findings under these settings, by confidence."""
    said = settings.rule(rule.id)
    if said.action == "off":
        return
    report = CONFIDENCES.index(said.report or settings.report)
    block = CONFIDENCES.index(said.block or settings.block)
    for rank, confidence in enumerate(CONFIDENCES[: report + 1]):
        yield confidence, "logged"
        if rank <= block and "block" in rule.actions and said.action not in ("log", "pace"):
            yield confidence, "would_block"
            if settings.enforcement == "enforce":
                yield confidence, "blocked"
