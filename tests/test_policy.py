"""What may be refused, and what never is, whatever the configuration says (reference 9.19)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy import policy
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Exemption, Finding, RuleSettings, Settings
from cio_proxy.rules import RULES

BLOCK_ALL = Settings(
    enforcement="enforce",
    report="possible",
    block="possible",
    rules={rule.info.id: RuleSettings(action="block") for rule in RULES if "block" in rule.info.actions},
)
LATE = {"email": "ada@example.com", "created_at": 1700000000000}


def taken(method: str, path: str, body: dict[str, Any], settings: Settings = BLOCK_ALL) -> set[str]:
    """What is done about the findings of one exchange."""
    exchange = Exchange(
        id="e",
        at=1.75e9,
        method=method,
        target=path.encode(),
        host="track.customer.io",
        headers=((b"Authorization", b"Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEzYzk1YTBiYzQ0ZDlmMDFlMjc="),),
        body=json.dumps(body).encode(),
    )
    engine = Engine(settings, RULES, sealed_with(b"k" * 32))
    return {finding.action for finding in engine.judge(engine.open(exchange), Reading()).findings}


def test_a_fault_is_refused_where_the_operator_says_so() -> None:
    assert taken("PUT", "/api/v1/customers/42", LATE) == {"blocked"}


@pytest.mark.parametrize(
    "opt_out",
    [
        {"unsubscribed": True},
        {"unsubscribed": "true"},
        {"unsubscribed": 1},
        {"cio_subscription_preferences": {"topics": {"topic_1": False, "topic_2": True}}},
        {"cio_subscription_preferences.topics.topic_1": False},
    ],
    ids=json.dumps,
)
def test_an_opt_out_always_passes(opt_out: dict[str, Any]) -> None:
    assert taken("PUT", "/api/v1/customers/42", LATE | opt_out) == {"logged"}


@pytest.mark.parametrize(
    "opt_in",
    [{"unsubscribed": False}, {"unsubscribed": "no"}, {"cio_subscription_preferences": {"topics": {"topic_1": True}}}],
    ids=json.dumps,
)
def test_an_opt_in_is_as_any_other_update(opt_in: dict[str, Any]) -> None:
    assert taken("PUT", "/api/v1/customers/42", LATE | opt_in) == {"blocked"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/customers/{{id}}"),
        ("POST", "/api/v1/customers/undefined/suppress"),
        ("POST", "/api/v1/customers/undefined/unsuppress"),
        ("DELETE", "/api/v1/customers/undefined/devices/d"),
    ],
)
def test_what_ends_something_always_passes(method: str, path: str) -> None:
    assert taken(method, path, {}) == {"logged"}


def test_observing_refuses_nothing_and_says_what_it_would() -> None:
    assert taken("PUT", "/api/v1/customers/42", LATE, replace(BLOCK_ALL, enforcement="observe")) == {"would_block"}


FINDING = Finding(
    rule="r",
    severity="error",
    confidence="certain",
    pointer="/batch/3/created_at",
    message="",
    effect="",
    fix="",
    name="order_42",
)
EXEMPTION = Exemption(rule="r", reason="known")


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        ({"pointer": "/batch/*/created_at"}, True),
        ({"pointer": "/created_at"}, False),
        ({"name": "order_*"}, True),
        ({"name": "order"}, False),
        ({"endpoint": "/api/v2/*"}, True),
        ({"endpoint": "/api/v1/*"}, False),
        ({"client": "billing"}, True),
        ({"client": "bill"}, False),
        ({"endpoint": "/api/v2/batch", "client": "web"}, False),
        ({"pointer": "/batch/*", "expires": 99.0}, False),
        ({"pointer": "/batch/*", "expires": 100.0}, False),
        ({"pointer": "/batch/*", "expires": 100.1}, True),
    ],
)
def test_an_exemption_covers_what_all_its_matchers_fit_until_it_expires(
    matchers: dict[str, Any], covered: bool
) -> None:
    exemption = replace(EXEMPTION, **matchers)
    found = policy.exemption(FINDING, [exemption], endpoint="/api/v2/batch", client="billing", at=100.0)
    assert (found is exemption) is covered
