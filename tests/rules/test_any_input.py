"""Whatever is sent, no rule fails; and what a request line can say that an example file cannot."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Finding, Outcome, Settings
from cio_proxy.rules import RULES, Rule
from cio_proxy.rules.hardcoded_credentials import is_placeholder

ROUTES = [
    ("track.customer.io", "PUT", b"/api/v1/customers/42"),
    ("track.customer.io", "POST", b"/api/v1/customers/42/events"),
    ("track.customer.io", "PUT", b"/api/v1/customers/42/devices"),
    ("track.customer.io", "POST", b"/api/v1/segments/7/add_customers"),
    ("track.customer.io", "POST", b"/api/v1/forms/f/submit"),
    ("track.customer.io", "POST", b"/api/v1/merge_customers"),
    ("track.customer.io", "POST", b"/api/v2/entity"),
    ("track.customer.io", "POST", b"/api/v2/batch"),
    ("cdp.customer.io", "POST", b"/v1/batch"),
    ("cdp.customer.io", "POST", b"/v1/page"),
    ("api.customer.io", "POST", b"/v1/send/email"),
    ("api.customer.io", "POST", b"/v1/segments"),
]
NAMES = st.sampled_from(
    [
        "type",
        "action",
        "name",
        "event",
        "attributes",
        "data",
        "traits",
        "properties",
        "identifiers",
        "ids",
        "device",
        "created_at",
        "createdAt",
        "timestamp",
        "paid_at",
        "url",
        "objectTypeId",
        "object_type_id",
        "segment",
        "userId",
        "primary",
        "secondary",
        "cio_relationships",
        "id",
        "messageId",
        "sentAt",
        "recipient",
        "card_number",
    ]
)
TYPES = ["person", "object", "delivery", "event", "identify", "merge", "add_device", "track", "page"]
WORDS = st.sampled_from([*TYPES, "undefined", "a@example.com", "1700000000000", "2019-01-01T00:00:00Z"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=6), inner, max_size=6),
    max_leaves=20,
)


def judged(host: str, method: str, target: bytes, body: bytes, authorization: bytes) -> tuple[Finding, ...]:
    """The findings of one exchange; a rule that raises fails the test."""

    def fail(rule: str, error: BaseException) -> None:
        raise AssertionError(rule) from error

    headers = ((b"Authorization", authorization),)
    exchange = Exchange(id="1", at=1.75e9, method=method, target=target, host=host, headers=headers, body=body)
    engine = Engine(Settings(people="complete"), RULES, sealed_with(b"k" * 32), rule_error=fail)
    return engine.judge(engine.open(exchange), Reading()).findings


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]}{route[2].decode()}")
@given(value=st.dictionaries(NAMES, VALUES, max_size=6), authorization=st.binary(max_size=20))
def test_no_rule_fails_on_any_json(route: tuple[str, str, bytes], value: dict[str, Any], authorization: bytes) -> None:
    host, method, target = route
    body = {"batch": [value, value]} if target.endswith(b"/batch") else value
    judged(host, method, target, json.dumps(body).encode(), authorization)


def told(rules: Sequence[Rule], exchange: Exchange) -> tuple[object, object, object]:
    """What rules say of an exchange, and what they learn of it before and after its answer."""
    engine = Engine(Settings(people="complete", report="possible"), rules, sealed_with(b"k" * 32))
    opened = engine.open(exchange)
    findings = engine.judge(opened, Reading()).findings
    return findings, [part.learned for part in opened.parts], engine.settle(opened, Outcome("accepted", 1.75e9, 200))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]}{route[2].decode()}")
@given(value=st.dictionaries(NAMES, VALUES, max_size=6))
def test_a_rule_has_nothing_to_tell_of_a_form_that_does_not_concern_it(
    route: tuple[str, str, bytes], value: dict[str, Any]
) -> None:
    host, method, target = route
    body = json.dumps({"batch": [value, value]} if target.endswith(b"/batch") else value).encode()
    exchange = Exchange(id="1", at=1.75e9, method=method, target=target, host=host, headers=(), body=body)
    assert told(RULES, exchange) == told([replace(rule, concerns=None) for rule in RULES], exchange)


@pytest.mark.parametrize("piece", ["{", "{{", "${", "%(", "<%", "{%", "/", "//@", "a", "%2F", "cio_"])
def test_long_hostile_identifiers_are_judged_in_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    body = {"type": "person", "action": "event", "name": "a", "identifiers": {"id": text}}
    started = time.perf_counter()
    judged("track.customer.io", "POST", b"/api/v2/entity", json.dumps(body).encode(), b"")
    judged("track.customer.io", "PUT", b"/api/v1/customers/" + text.encode(), b'{"email": "a@example.com"}', b"")
    judged("track.customer.io", "POST", b"/api/v1/" + text.encode(), b"{}", b"")
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_asking_whether_a_route_answers_is_no_unknown_endpoint(method: str) -> None:
    assert judged("track.customer.io", method, b"/api/v1/accounts/region", b"", b"") == ()
    (finding,) = judged("track.customer.io", "PATCH", b"/api/v1/accounts/region", b"", b"")
    assert (finding.rule, finding.name) == ("unknown-endpoint", "PATCH /api/v1/accounts/{}")


def test_an_unknown_endpoint_is_shown_without_what_may_be_an_identifier() -> None:
    for target in (b"/api/v1/customers/cust-ada/event", b"http://h/api/v1/customers/ada/event?x=/cust-ada"):
        (finding,) = judged("track.customer.io", "POST", target, b"{}", b"")
        assert finding.name == "POST /api/v1/customers/{}/event"
        assert "ada" not in finding.message


def test_a_password_in_the_request_line_is_a_key_in_the_url() -> None:
    target = b"http://f82ad78f695bd32f9d99:a13c95a0bc44d9f01e27@track.customer.io/api/v1/accounts/region"
    (finding,) = judged("track.customer.io", "GET", target, b"", b"")
    assert (finding.rule, finding.pointer) == ("hardcoded-credentials", "path:")
    assert "a13c95a0bc44d9f01e27" not in repr(finding)


@pytest.mark.parametrize(
    "word",
    [
        "YOUR_SITE_ID",
        "your-api-key",
        "<site id>",
        "{{ key }}",
        "${CIO_API_KEY}",
        "$CIO_KEY",
        "%CIO_KEY%",
        "abc123",
        "secret-key",
        "xxxxxxxx",
        "undefined",
        "null",
        "My Track API Key",
        "process.env.CIO_KEY",
        "test",
    ],
)
def test_keys_that_nobody_was_given(word: str) -> None:
    assert is_placeholder(word)


@pytest.mark.parametrize(
    "word", ["", "f82ad78f695bd32f9d99", "20436c6351668b25a74a2c289a639d3f", "myq7h2k9site0id4key1", "x" * 100_000]
)
def test_keys_that_may_be_real(word: str) -> None:
    assert not is_placeholder(word)
