"""The Grafana dashboard: `config/grafana/cio-proxy.json` as a Python value. `make docs` writes it, `docs.py` checks it.

Findings are rare, and a client's first one starts a new series at 1, whose increase Prometheus cannot see. The sum over
all clients is there from the start, at 0. So findings are summed for each proxy first, and then counted: `found`. Where
clients are told apart that does not help: `clients` takes a series that is younger than the time range whole.
"""

from __future__ import annotations

import json
from typing import Any

from cio_proxy.rules import RULES

type Json = dict[str, Any]

WHERE = 'job=~"$job", instance=~"$instance"'
FINDINGS = f'cio_proxy_violations_total{{{WHERE}, rule=~"$rule"}}'
REQUESTS = f"cio_proxy_requests_total{{{WHERE}}}"
FAILED = f'cio_proxy_requests_total{{{WHERE}, outcome="failed"}}'
REFUSED = f'cio_proxy_requests_total{{{WHERE}, outcome=~"blocked|partial"}}'
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}

SEVERITIES = {"error": "red", "warning": "orange", "info": "blue"}
ACTIONS = {"logged": "blue", "would_block": "orange", "blocked": "red", "exempt": "text", "baselined": "purple"}
RESULTS = {"held": "green", "passed": "orange", "would": "blue"}
OUTCOMES = {"forwarded": "green", "partial": "orange", "blocked": "red", "failed": "purple", "unaudited": "yellow"}

# --- queries -----------------------------------------------------------------------------------


def found(by: str, window: str, findings: str = FINDINGS) -> str:
    """Findings in a window, by a label."""
    return f"sum by ({by}) (increase(sum by (job, instance, {by}) ({findings})[{window}:15s]))"


def quantile(share: float, metric: str) -> str:
    """The duration that this share of the observations of a histogram stays under, in seconds."""
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{WHERE}}}[$__rate_interval])))"


def target(expr: str, legend: str = "", **options: Any) -> Json:
    """One query over time."""
    return {"datasource": PROMETHEUS, "expr": expr, "legendFormat": legend, "range": True, "instant": False, **options}


def once(expr: str, legend: str = "", **options: Any) -> Json:
    """One query at the end of the time range."""
    return target(expr, legend, range=False, instant=True, **options)


# --- panels ------------------------------------------------------------------------------------


def panel(kind: str, title: str, about: str, targets: list[Json], field: Json, options: Json, **more: Any) -> Json:
    """A panel; its place and id come with the layout."""
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": PROMETHEUS,
        "targets": [each | {"refId": chr(ord("A") + number)} for number, each in enumerate(targets)],
        "fieldConfig": {"defaults": field, "overrides": more.pop("overrides", [])},
        "options": options,
        **more,
    }


def steps(*colours: tuple[float | None, str]) -> Json:
    """Thresholds: a colour from each value on."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in colours]}


def named(name: str, **properties: Any) -> Json:
    """An override of the field of this name."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": id, "value": value} for id, value in properties.items()],
    }


def coloured(colours: dict[str, str]) -> list[Json]:
    """Overrides that give each series its own colour, the same in every panel."""
    return [named(name, color={"mode": "fixed", "fixedColor": colour}) for name, colour in colours.items()]


def stat(title: str, about: str, targets: list[Json], thresholds: Json, unit: str = "short", **field: Any) -> Json:
    """One figure, coloured by its thresholds."""
    defaults = {"unit": unit, "decimals": 0, "color": {"mode": "thresholds"}, "thresholds": thresholds, **field}
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "textMode": "auto" if len(targets) == 1 else "value_and_name",
        "wideLayout": True,
    }
    return panel("stat", title, about, targets, defaults, options)


def graph(
    title: str, about: str, targets: list[Json], unit: str, *, bars: bool = False, legend: str = "bottom", **more: Any
) -> Json:
    """Series over time: stacked bars for counts, else lines."""
    drawn: Json = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if bars:
        drawn = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": drawn}
    options = {
        "legend": {"displayMode": "list", "placement": legend, "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": True},
    }
    # Bars of a minute and more: shorter windows hold too few scrapes to count in.
    return panel("timeseries", title, about, targets, defaults, options, interval="1m", **more)


def per_minute(title: str, about: str, label: str, **more: Any) -> Json:
    """Findings over time, by a label."""
    query = f"{found(label, '$__rate_interval')} > 0"
    return graph(title, about, [target(query, f"{{{{{label}}}}}")], "short", bars=True, **more)


def stats() -> list[Json]:
    """The first row: is anything wrong, is anything refused, does the proxy work."""
    errors = FINDINGS.replace("}", ', severity="error"}')
    would = FINDINGS.replace("}", ', action="would_block"}')
    return [
        stat(
            "Error findings",
            "Findings of severity error in the time range: Customer.io drops or stores something else than meant, or "
            "a secret or a person is exposed.",
            [once(found("severity", "$__range", errors))],
            steps((None, "green"), (1, "red")),
        ),
        stat(
            "Refused",
            "Requests that were refused, wholly or in part, in the time range; and findings that `enforce` would "
            "refuse while the proxy observes.",
            [
                once(f"sum(increase({REFUSED}[$__range]))", "refused"),
                once(found("action", "$__range", would), "would be"),
            ],
            steps((None, "green"), (1, "orange")),
        ),
        stat(
            "Score",
            "The lowest score of a proxy, from 100 down to 0: each rule that fired in the last 24 hours takes its "
            "weight once.",
            [once(f"min(cio_proxy_score{{{WHERE}}})")],
            steps((None, "red"), (70, "orange"), (95, "green")),
        ),
        stat(
            "Requests",
            "Requests per second, all outcomes.",
            [once(f"sum(rate({REQUESTS}[$__rate_interval]))")],
            steps((None, "text")),
            "reqps",
            decimals=2,
        ),
        stat(
            "No answer",
            "Share of requests whose answer never reached the app: Customer.io could not be reached or took too long, "
            "or the app left first.",
            [once(f"sum(increase({FAILED}[$__range])) / sum(increase({REQUESTS}[$__range]))")],
            steps((None, "green"), (0.01, "orange"), (0.05, "red")),
            "percentunit",
            decimals=1,
            mappings=[{"type": "special", "options": {"match": "nan", "result": {"text": "no traffic", "index": 0}}}],
        ),
        stat(
            "Degraded parts",
            "Parts of the proxies that do not do their work now. Traffic passes all the same.",
            [once(f"sum(cio_proxy_degraded{{{WHERE}}})")],
            steps((None, "green"), (1, "red")),
        ),
    ]


def fired() -> Json:
    """The rules that fired, each with what it means and where that is documented."""
    counted = found("rule, severity", "$__range")
    for column in ("meaning", "source"):
        counted = f'label_replace({counted}, "{column}", "$1", "rule", "(.+)")'
    meanings = {rule.info.id: rule.title for rule in RULES}
    sources = {rule.info.id: rule.see[0].split()[0] for rule in RULES if rule.see}
    only = "${__url.path}?${__url.params:exclude:var-rule}&var-rule=${__value.raw:percentencode}"
    return panel(
        "table",
        "Rules that fired",
        "In the time range. `cio-proxy explain RULE` shows what Customer.io does, the fix, and examples.",
        [once(f"sort_desc({counted} > 0)", format="table")],
        {"custom": {"align": "auto", "inspect": False}, "noValue": "no findings"},
        {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": "findings", "desc": True}]},
        overrides=[
            named("rule", **{"custom.width": 210, "links": [{"title": "Show only this rule", "url": only}]}),
            named("severity", **{"custom.width": 90, "mappings": words(SEVERITIES, colours=SEVERITIES)}),
            named("findings", **{"custom.width": 90, "decimals": 0, "unit": "short"}),
            named("meaning", mappings=words(meanings)),
            named(
                "source",
                **{
                    "custom.width": 260,
                    "mappings": words(sources),
                    "links": [{"title": "What Customer.io says", "url": "${__value.text}", "targetBlank": True}],
                },
            ),
        ],
        transformations=[
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "renameByName": {"Value": "findings"},
                    "indexByName": {"rule": 0, "severity": 1, "Value": 2, "meaning": 3, "source": 4},
                },
            }
        ],
    )


def words(texts: dict[str, str], colours: dict[str, str] | None = None) -> list[Json]:
    """A mapping from values to what is shown instead; with colours, the value itself in its colour."""
    shown = {
        value: {"text": value, "color": colours[value], "index": index} if colours else {"text": text, "index": index}
        for index, (value, text) in enumerate(texts.items())
    }
    return [{"type": "value", "options": shown}]


def clients() -> Json:
    """Who sends what is found."""
    counted = f"(increase({FINDINGS}[$__range]) and {FINDINGS} offset $__range)"
    younger = f"last_over_time({FINDINGS}[$__range])"
    return panel(
        "bargauge",
        "Top clients",
        "Findings in the time range, by client: a name from the configuration or the family of its User-Agent.",
        [once(f"sort_desc(topk(10, sum by (client) ({counted} or {younger}) > 0))", "{{client}}")],
        {
            "unit": "short",
            "decimals": 0,
            "min": 0,
            "color": {"mode": "fixed", "fixedColor": "blue"},
            "noValue": "no findings",
        },
        {
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "namePlacement": "auto",
            "sizing": "auto",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "maxVizHeight": 300,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def latency(title: str, about: str, metric: str) -> Json:
    """Median and tail of a histogram of durations."""
    targets = [target(quantile(share, metric), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]
    return graph(title, about, targets, "s")


def traffic() -> list[Json]:
    """What passes through, and how fast."""
    rates = {label: f"sum by ({label}) (rate({REQUESTS}[$__rate_interval]))" for label in ("outcome", "api")}
    return [
        graph(
            "Requests by outcome",
            "`partial`: some calls of a batch were refused. `failed`: no answer reached the app. `unaudited`: passed "
            "unread.",
            [target(rates["outcome"], "{{outcome}}")],
            "reqps",
            overrides=coloured(OUTCOMES),
        ),
        graph("Requests by API", "Customer.io's APIs.", [target(rates["api"], "{{api}}")], "reqps"),
        latency(
            "Audit latency",
            "Time that the audit itself takes of a request.",
            "cio_proxy_audit_duration_seconds",
        ),
        latency("Upstream latency", "Time until Customer.io answered.", "cio_proxy_upstream_duration_seconds"),
    ]


def paced() -> Json:
    """What came faster than the configured rate."""
    return graph(
        "Paced requests",
        "What came faster than the rate to which `no-rate-limiting` paces. `held`: sent later, in its turn. `passed`: "
        "sent after the longest hold, too fast all the same. `would`: held if the proxy enforced.",
        [target(f"sum by (result) (increase(cio_proxy_paced_total{{{WHERE}}}[$__rate_interval]))", "{{result}}")],
        "short",
        bars=True,
        overrides=coloured(RESULTS),
    )


def deliveries() -> Json:
    """What became of mail and other messages, as reporting webhooks tell."""
    counted = f"sum by (channel, metric) (increase(cio_proxy_deliveries_total{{{WHERE}}}[$__rate_interval]))"
    return graph(
        "Deliveries",
        "Customer.io's reporting webhooks to the app, each once: what was sent, and what became of it.",
        [target(f"{counted} > 0", "{{channel}} {{metric}}")],
        "short",
        bars=True,
        legend="right",
    )


def faults() -> Json:
    """What the proxy itself gets wrong; empty on a good day."""
    faults = (
        ("rule", "cio_proxy_rule_errors_total", "rule {{rule}}"),
        ("store", "cio_proxy_store_errors_total", "store {{store}}"),
        ("sink", "cio_proxy_dropped_records_total", "dropped by {{sink}}"),
    )
    return graph(
        "Faults of the proxy",
        "Exceptions in rules, failures of what remembers facts, and findings that could not be written. Traffic "
        "passes all the same.",
        [
            target(f"sum by ({by}) (increase({metric}{{{WHERE}}}[$__rate_interval]))", legend)
            for by, metric, legend in faults
        ],
        "short",
        bars=True,
    )


# --- the dashboard -----------------------------------------------------------------------------


def variable(name: str, label: str, query: str) -> Json:
    """A filter: all values, or some of them."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name, "qryType": 1},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
    }


def row(*panels: Json, height: int, widths: tuple[int, ...] = ()) -> list[Json]:
    """Panels beside each other over 24 columns, of equal width unless told."""
    widths = widths or (24 // len(panels),) * len(panels)
    left = [sum(widths[:number]) for number in range(len(panels))]
    return [
        each | {"gridPos": {"x": x, "y": 0, "w": width, "h": height}}
        for each, x, width in zip(panels, left, widths, strict=True)
    ]


def dashboard() -> Json:
    """The whole dashboard."""
    rows = [
        row(*stats(), height=4),
        row(fired(), clients(), height=9, widths=(18, 6)),
        row(
            per_minute("Findings by rule", "Every occurrence, in each interval of the chart.", "rule", legend="right"),
            height=9,
        ),
        row(
            per_minute(
                "Findings by severity",
                "`error`: lost or stored wrong. `warning`: hurts later. `info`: advice.",
                "severity",
                overrides=coloured(SEVERITIES),
            ),
            per_minute(
                "Findings by action",
                "`would_block`: refused if the proxy enforced. `exempt` and `baselined`: known and accepted.",
                "action",
                overrides=coloured(ACTIONS),
            ),
            per_minute("Findings by API", "Customer.io's APIs.", "api"),
            height=8,
        ),
        row(*traffic(), height=8),
        row(paced(), deliveries(), height=8),
        row(faults(), height=7),
    ]
    panels: list[Json] = []
    top = 0
    for each in rows:
        for placed in each:
            placed["gridPos"]["y"] = top
            panels.append({"id": len(panels) + 1, **placed})
        top += each[0]["gridPos"]["h"]
    build = "cio_proxy_build_info"
    return {
        "id": None,
        "uid": "cio-proxy",
        "title": "cio-proxy",
        "description": "What cio-proxy finds in an app's Customer.io traffic, and whether the proxy itself is well.",
        "tags": ["cio-proxy", "customer.io"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Prometheus",
                    "query": "prometheus",
                    "refresh": 1,
                    "regex": "",
                    "multi": False,
                    "includeAll": False,
                    "current": {},
                    "options": [],
                    "hide": 0,
                },
                variable("job", "Job", f"label_values({build}, job)"),
                variable("instance", "Instance", f'label_values({build}{{job=~"$job"}}, instance)'),
                variable("rule", "Rule", f"label_values(cio_proxy_violations_total{{{WHERE}}}, rule)"),
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def text() -> str:
    """The dashboard as it stands in its file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
