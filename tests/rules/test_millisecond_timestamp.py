"""Each name of a time, the bounds of what is plainly one, and what is said of each unit."""

from typing import Any

import pytest

from .alone import NOW, findings, told

RULE = "millisecond-timestamp"
MS = 1_700_000_000_000
PERSON = "track.customer.io/api/v1/customers/42"
TIMES = [
    *("a_at", "a_on", "a_date", "a_time", "a_ts", "paidAt", "x1At", "paidOn", "paidDate", "paidTime", "1At", "date"),
    "timestamp",
]
NO_TIMES = [
    "at",
    "at_a",
    "PAIDAt",
    "At",
    "Date",
    "update",
    "my_timestamp",
    "timestamps",
    "paidTs",
    "a_AT",
    "_atx",
    "phone",
]


def attributes(**named: Any) -> list[tuple[str, str]]:
    return told(RULE, "PUT", PERSON, named)


@pytest.mark.parametrize("name", TIMES)
def test_a_field_that_is_named_like_a_time(name: str) -> None:
    assert attributes(**{name: MS}) == [(f"/{name}", "likely")]
    assert attributes(**{name: str(MS)}) == [(f"/{name}", "likely")]
    assert attributes(**{name: MS // 1000}) == []


@pytest.mark.parametrize("name", NO_TIMES)
def test_a_field_that_is_not(name: str) -> None:
    assert attributes(**{name: MS}) == []


YEAR_2000, YEAR_2100 = 946_684_800, 4_102_444_800
AHEAD = int(NOW) + 5 * 365 * 86_400


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (YEAR_2000 - 1, None),
        (YEAR_2000, "possible"),
        (999_999_999, "possible"),
        (1_000_000_000, "likely"),
        (AHEAD - 1, "likely"),
        (AHEAD, "possible"),
        (YEAR_2100 - 1, "possible"),
        (YEAR_2100, None),
    ],
)
@pytest.mark.parametrize("factor", [1_000, 1_000_000, 1_000_000_000])
def test_which_numbers_are_times(seconds: int, wanted: str | None, factor: int) -> None:
    assert attributes(paid_at=seconds * factor) == ([] if wanted is None else [("/paid_at", wanted)])


def test_each_number_is_judged_whatever_stands_before_it() -> None:
    before: dict[str, Any] = {"a": True, "b_at": 12, "c_at": 10**12 * 5, "phone": MS, "d_at": 10**30}
    assert attributes(**before, paid_at=MS) == [("/paid_at", "likely")]
    body = {"name": "a", "id_at": MS, "data": {"x": {"paid_at": MS}}}
    assert told(RULE, "POST", f"{PERSON}/events", body) == [("/data/x/paid_at", "likely")]


def test_a_list_tells_of_each_name_once() -> None:
    assert attributes(items=[{"paid_at": MS}, {"paid_at": MS, "sent_at": MS}]) == [
        ("/items/0/paid_at", "likely"),
        ("/items/1/sent_at", "likely"),
    ]
    assert attributes(a_at=MS, b_at=MS, c={"a_at": MS}) == [
        ("/a_at", "likely"),
        ("/b_at", "likely"),
        ("/c/a_at", "likely"),
    ]


def test_names_that_take_turns_are_told_of_once_each() -> None:
    both = {"a_at": MS, "b_at": MS}
    assert attributes(items=[both, both]) == [("/items/0/a_at", "likely"), ("/items/0/b_at", "likely")]


def test_a_documented_field_is_certain_and_told_once() -> None:
    assert attributes(paid_at=MS, created_at=MS) == [("/created_at", "certain"), ("/paid_at", "likely")]
    assert attributes(created_at=MS, paid_at=MS) == [("/created_at", "certain"), ("/paid_at", "likely")]
    (finding,) = findings(RULE, "PUT", PERSON, {"created_at": MS + 999})
    assert (finding.corrected, finding.evidence, finding.refusable) == (MS // 1000, MS + 999, True)
    (finding,) = findings(RULE, "PUT", PERSON, {"created_at": MS * 1_000_000 + 999_999_999})
    assert (finding.corrected, finding.refusable) == (MS // 1000, False)
    (finding,) = findings(RULE, "PUT", PERSON, {"created_at": 4_915_112_345_678})
    assert (finding.corrected, finding.evidence) == (None, None)
    assert finding.message == "a number of 13 digits stands where a time in seconds belongs"
    (finding,) = findings(RULE, "PUT", PERSON, {"paid_at": MS})
    assert finding.refusable is False


def test_a_number_with_an_exponent_is_looked_at_too() -> None:
    for number in (b"1.7e12", b"1.7E12", b"1700000000000.0"):
        assert told(RULE, "PUT", PERSON, b'{"paid_at": %s}' % number) == [("/paid_at", "likely")]


def pipelines(timestamp: Any) -> list[Any]:
    body = {"userId": "42", "event": "a", "timestamp": timestamp}
    found = findings(RULE, "POST", "cdp.customer.io/v1/track", body)
    return [(f.confidence, f.corrected, f.evidence, f.message) for f in found]


def test_pipelines_documents_iso_8601() -> None:
    assert pipelines(1_700_000_000) == [
        (
            "possible",
            "2023-11-14T22:13:20Z",
            1_700_000_000,
            "1700000000 is a time in seconds where ISO 8601 is documented",
        )
    ]
    assert pipelines(MS + 999)[0][:3] == ("certain", "2023-11-14T22:13:20Z", MS + 999)
    assert pipelines(MS * 1_000_000 + 999_999_999)[0][1] == "2023-11-14T22:13:20Z"
    assert pipelines(str(MS))[0][0] == "certain"
    assert pipelines(4_915_112_345_678) == [
        ("certain", None, None, "a number of 13 digits stands where ISO 8601 is documented")
    ]
    assert pipelines(99) == []
    assert pipelines("2025-06-01") == []


def test_what_a_message_is_rendered_with_is_no_date_to_customer_io() -> None:
    url, to = "api.customer.io/v1/send/email", {"to": "ada@example.com", "identifiers": {"id": "42"}}
    headers = {"Authorization": "Bearer 20436c6351668b25a74a2c289a639d3f"}
    assert told(RULE, "POST", url, {**to, "message_data": {"paid_at": MS}}, headers=headers) == []
    assert told(RULE, "POST", url, {**to, "send_at": MS}, headers=headers) == [("/send_at", "certain")]
