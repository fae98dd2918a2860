"""A finding is published under the names of design §5, as JSON that every reader takes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.model import Finding
from cio_proxy.sinks.record import encode, record, rfc3339

FINDING = Finding(
    rule="millisecond-timestamp",
    severity="error",
    confidence="certain",
    pointer="/created_at",
    message="1792000000000 is a time in milliseconds",
    effect="Customer.io stores the year 58756.",
    fix="Send whole Unix seconds.",
    corrected=1792000000,
    evidence=1792000000000,
    related=("ex-0",),
    id="ex-1-millisecond-timestamp-0-0",
    time=1792000000.123,
    category="1",
    action="would_block",
    api="track_v1",
    call="identify",
    method="PUT",
    endpoint="/api/v1/customers/{identifier}",
    person="0123456789abcdef",
    client="customerio-node",
    workspace="production",
    exchange="ex-1",
    fingerprint="feedfacefeedface",
)


def test_the_published_form_has_exactly_the_documented_fields() -> None:
    assert record(FINDING, 7) == {
        "schema": 1,
        "id": "ex-1-millisecond-timestamp-0-0",
        "time": "2026-10-14T17:46:40.123Z",
        "rule": "millisecond-timestamp",
        "category": "1",
        "severity": "error",
        "confidence": "certain",
        "action": "would_block",
        "message": "1792000000000 is a time in milliseconds",
        "effect": "Customer.io stores the year 58756.",
        "fix": "Send whole Unix seconds.",
        "corrected": 1792000000,
        "api": "track_v1",
        "call": "identify",
        "method": "PUT",
        "endpoint": "/api/v1/customers/{identifier}",
        "pointer": "/created_at",
        "item": None,
        "evidence": 1792000000000,
        "person": "0123456789abcdef",
        "name": None,
        "client": "customerio-node",
        "listener": "outbound",
        "workspace": "production",
        "exchange": "ex-1",
        "trace_id": None,
        "fingerprint": "feedfacefeedface",
        "count": 7,
        "related": ["ex-0"],
    }


@pytest.mark.parametrize(
    ("time", "text"), [(0.0, "1970-01-01T00:00:00.000Z"), (1700000000.9996, "2023-11-14T22:13:20.999Z")]
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(time: float, text: str) -> None:
    assert rfc3339(time) == text


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "evidence", [float("nan"), [float("inf")], nested(200_000), 10**5000], ids=["nan", "infinity", "deep", "long"]
)
def test_evidence_that_json_cannot_hold_is_left_out(evidence: Any) -> None:
    line = json.loads(encode(record(replace(FINDING, evidence=evidence))), parse_constant=pytest.fail)
    assert line["evidence"] is None
    assert line["message"] == FINDING.message


def test_a_line_is_one_line_for_every_reader_and_no_command_for_a_terminal() -> None:
    hostile = "a\nb\x1b[31m\x9b1m\u2028\udc80é"
    line = encode(record(replace(FINDING, name=hostile)))
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    assert b"\x1b" not in line
    assert json.loads(line)["name"] == hostile
