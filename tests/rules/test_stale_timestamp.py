"""Where exactly an event becomes too old, and which times are none to judge by."""

from typing import Any

import pytest

from .alone import NOW, told

HOUR = 3600


def track(timestamp: Any, **more: Any) -> list[tuple[str, str]]:
    body = {"name": "a", "timestamp": timestamp}
    return told("stale-timestamp", "POST", "track.customer.io/api/v1/customers/42/events", body, **more)


def pipelines(timestamp: str, **more: str) -> list[tuple[str, str]]:
    body = {"userId": "42", "event": "a", "timestamp": timestamp, **more}
    return told("stale-timestamp", "POST", "cdp.customer.io/v1/track", body)


CERTAIN, POSSIBLE = [("/timestamp", "certain")], [("/timestamp", "possible")]


def test_the_first_number_that_is_a_date_is_a_billion() -> None:
    assert track(1_000_000_000) == CERTAIN
    assert track(999_999_999) == []
    assert pipelines("2001-09-09T01:46:40Z") == CERTAIN
    assert pipelines("2001-09-09T01:46:39Z") == []


def test_exactly_72_hours_are_not_too_old() -> None:
    assert track(NOW - 72 * HOUR) == []
    assert track(NOW - 72 * HOUR - 1) == CERTAIN
    assert pipelines("2025-06-12T15:06:40Z") == []
    assert pipelines("2025-06-12T15:06:39Z") == CERTAIN


@pytest.mark.parametrize(
    ("zone", "wanted"),
    [("Z", CERTAIN), ("+02:00", CERTAIN), ("-0530", CERTAIN), ("", POSSIBLE), ("+02", POSSIBLE)],
)
def test_a_time_is_sure_with_its_zone(zone: str, wanted: list[tuple[str, str]]) -> None:
    assert pipelines(f"2025-06-01T12:00:00{zone}") == wanted


def test_a_text_without_dashes_and_a_number_are_no_iso_8601() -> None:
    assert pipelines("20250601T120000Z") == []
    assert pipelines("1000000000") == []


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("2025-06-15T14:06:40Z", CERTAIN),
        ("2025-06-15T14:06:39Z", POSSIBLE),
        ("2025-06-15T15:06:40Z", CERTAIN),
        ("2025-06-15T15:20:00Z", CERTAIN),
    ],
)
def test_a_sender_whose_clock_is_over_an_hour_behind_proves_nothing(sent: str, wanted: list[tuple[str, str]]) -> None:
    assert pipelines("2025-06-01T12:00:00Z", sentAt=sent) == wanted
