"""The alerts: promtool plays what fires and what stays silent."""

import subprocess
from typing import Any

import pytest
import yaml

from .shipped import ALERTS, RULES_FOLDER, TESTS, program

pytestmark = pytest.mark.once

NAMES = [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yaml"),
        ("check", "rules", "alerts.yaml"),
        *(("test", "rules", file.name) for file in TESTS),
    ],
    ids=" ".join,
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=RULES_FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_shown_firing_beside_times_of_silence() -> None:
    fired: set[str] = set()
    silent = 0
    for test in [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]:
        asked = test.get("promql_expr_test", []) + test.get("alert_rule_test", [])
        expected = [each.get("exp_samples") or each.get("exp_alerts") or [] for each in asked]
        assert [] in expected, f"{test['name']}: is it ever silent?"
        fired |= {name for name in NAMES if f'"{name}"' in str(expected)}
        fired |= {each["alertname"] for each in asked if each.get("exp_alerts")}
        silent += expected.count([])
    assert fired == set(NAMES)
    assert silent >= len(NAMES)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_what_happened_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert "{{ $labels." in alert["annotations"]["description"]
    assert "{{" not in alert["annotations"]["summary"]
    assert alert["labels"]["severity"] in ("warning", "critical")
