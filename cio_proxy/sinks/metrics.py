"""Prometheus metrics, in a registry of their own (design §5). No label is ever taken from traffic unbounded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from cio_proxy.model import APIS, ENDINGS, LISTENERS, End, Finding, RuleInfo, Settings

DAY = 86_400.0
CLIENTS = 20
WEIGHTS = {"hardcoded-credentials": 20, "track-before-identify": 15, "millisecond-timestamp": 5}
"""The weights of the pitfall list; other rules count by severity."""
SEVERITY_WEIGHTS = {"error": 10, "warning": 5, "info": 1}
AUDIT_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)
UPSTREAM_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def score(fired: Mapping[str, str]) -> int:
    """100 less a weight for each rule that fired, given as rule id to severity; never below 0."""
    return max(0, 100 - sum(WEIGHTS.get(rule, SEVERITY_WEIGHTS[severity]) for rule, severity in fired.items()))


class Metrics:
    """A sink that counts."""

    def __init__(self, rules: Sequence[RuleInfo], settings: Settings, version: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._fired: dict[str, tuple[str, float]] = {}
        self._clients = {"other"}
        self._degraded_parts: set[str] = set()
        self._children: dict[tuple[str, ...], Counter] = {}
        self._requests = self._counter("requests", "Exchanges by how they ended", "listener", "api", "outcome")
        self._calls = self._counter("calls", "Calls read from exchanges", "api", "call")
        self._violations = self._counter(
            "violations", "Findings", "rule", "severity", "confidence", "action", "api", "client"
        )
        self._rule_errors = self._counter("rule_errors", "Errors raised inside a rule", "rule")
        self._store_errors = self._counter("store_errors", "Errors of the fact store and the audit", "store")
        self._dropped = self._counter("dropped_records", "Findings that a sink could not write", "sink")
        self._connections = self._counter("client_connections", "Connections accepted from clients")
        self._audit = Histogram(
            "cio_proxy_audit_duration_seconds",
            "Time spent judging an exchange",
            buckets=AUDIT_BUCKETS,
            registry=self.registry,
        )
        self._upstream = Histogram(
            "cio_proxy_upstream_duration_seconds",
            "Time from forwarding an exchange to its answer",
            buckets=UPSTREAM_BUCKETS,
            registry=self.registry,
        )
        self._degraded = Gauge("cio_proxy_degraded", "1 while a part is not working", ["part"], registry=self.registry)
        self._score = Gauge("cio_proxy_score", "100 less the weight of every rule that fired", registry=self.registry)
        self._score.set_function(self.score)
        info = Gauge("cio_proxy_build_info", "Versions", ["version", "mitmproxy"], registry=self.registry)
        info.labels(version, version_of("mitmproxy")).set(1)
        reload = Gauge("cio_proxy_config_last_reload_successful", "1 if it was", registry=self.registry)
        reload.set(1)
        self._start_at_zero(rules, settings)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"cio_proxy_{name}", about, labels, registry=self.registry)

    def _start_at_zero(self, rules: Sequence[RuleInfo], settings: Settings) -> None:
        for rule in rules:
            self._rule_errors.labels(rule.id)
            for api in sorted(rule.apis - {"webhooks", "unknown"}):
                for confidence in ("certain", "likely"):
                    actions = ["logged"]
                    if confidence == "certain" and "block" in rule.actions:
                        actions.append("blocked" if settings.enforcement == "enforce" else "would_block")
                    for action in actions:
                        self._violations.labels(rule.id, rule.severity, confidence, action, api, "other")
        for api in ("track_v1", "track_v2", "pipelines", "app"):
            for ending in ENDINGS:
                self._requests.labels("outbound", api, ending)
        self._dropped.labels("journal")
        self._store_errors.labels("store")

    def found(self, finding: Finding) -> None:
        """Count a finding."""
        client = finding.client
        if client not in self._clients:
            if len(self._clients) < CLIENTS:
                self._clients.add(client)
            else:
                client = "other"
        labels = (finding.rule, finding.severity, finding.confidence, finding.action, finding.api, client)
        self._child(self._violations, "violations", *labels).inc()
        if finding.action not in ("exempt", "baselined"):
            self._fired[finding.rule] = (finding.severity, finding.time)

    def ended(self, end: End) -> None:
        """Count an exchange and its calls."""
        listener = end.exchange.listener if end.exchange.listener in LISTENERS else "outbound"
        api = end.api if end.api in APIS else "unknown"
        self._child(self._requests, "requests", listener, api, end.ending).inc()
        for call in end.calls:
            self._child(self._calls, "calls", call.api, call.kind).inc()
        self._audit.observe(end.audit_seconds)
        if end.upstream_seconds is not None:
            self._upstream.observe(end.upstream_seconds)

    def rule_error(self, rule: str) -> None:
        """Count an error inside a rule."""
        self._rule_errors.labels(rule).inc()

    def store_error(self, store: str) -> None:
        """Count an error of the store, or of the audit around it."""
        self._store_errors.labels(store).inc()

    def dropped(self, sink: str, count: int) -> None:
        """Count findings that were not written."""
        self._dropped.labels(sink).inc(count)

    def connection(self) -> None:
        """Count a client connection."""
        self._connections.inc()

    def degraded(self, part: str, broken: bool) -> None:
        """Say whether a part works."""
        self._degraded.labels(part).set(broken)
        (self._degraded_parts.add if broken else self._degraded_parts.discard)(part)

    def degraded_parts(self) -> list[str]:
        """The parts that do not work now."""
        return sorted(self._degraded_parts)

    def score(self) -> float:
        """The score over the last 24 hours."""
        since = time.time() - DAY
        return score({rule: severity for rule, (severity, at) in self._fired.items() if at >= since})

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _child(self, counter: Counter, *key: str) -> Counter:
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*key[1:])
        return child
