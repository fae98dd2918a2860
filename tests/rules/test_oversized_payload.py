"""Exactly at each limit a call is fine, and one above it is not."""

import json
from typing import Any

import pytest

from .alone import findings, told

RULE = "oversized-payload"
KB = 1024
PERSON = "track.customer.io/api/v1/customers/42"
CERTAIN, LIKELY = "certain", "likely"


def sized(body: dict[str, Any], size: int) -> bytes:
    """The body as so many bytes of JSON, with white space at its end."""
    raw = json.dumps(body).encode()
    return raw[:-1] + b" " * (size - len(raw)) + b"}"


def padded(size: int, **parts: Any) -> dict[str, Any]:
    """An object that is so many bytes of JSON as `json.dumps` writes it."""
    empty = len(json.dumps({**parts, "x": ""}))
    return {**parts, "x": "x" * (size - empty)}


@pytest.mark.parametrize(("length", "wanted"), [(150, []), (151, [("path:", CERTAIN)])])
def test_an_id_has_150_characters(length: int, wanted: list[tuple[str, str]]) -> None:
    url = f"track.customer.io/api/v1/customers/{'a' * length}"
    assert told(RULE, "DELETE", url) == wanted
    assert told(RULE, "PUT", url, {"a": 1}) == wanted
    assert told(RULE, "PUT", url, {"a": "x" * 1000}) == wanted


def test_what_has_a_long_name_is_judged_by_the_same_limits() -> None:
    name = "a" * 60
    assert told(RULE, "POST", f"track.customer.io/api/v1/customers/{'a' * 150}/events", {"name": name}) == []
    item = {"type": "person", "action": "event", "identifiers": {"id": "1"}, "name": name}
    assert told(RULE, "POST", "track.customer.io/api/v2/entity", sized(item, 32 * KB)) == []


def test_one_pipelines_call_is_no_batch() -> None:
    (finding,) = findings(RULE, "POST", "cdp.customer.io/v1/track", padded(600 * KB, userId="42", event="a"))
    assert "batch" not in finding.message
    assert finding.pointer == ""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a" * 100, []),
        ("a" * 101, [("/name", LIKELY)]),
        ("a" * 500, [("/name", LIKELY)]),
        ("a" * 501, [("/name", CERTAIN)]),
    ],
)
def test_an_event_name_has_100_bytes_and_at_most_500_characters(name: str, wanted: list[tuple[str, str]]) -> None:
    assert told(RULE, "POST", f"{PERSON}/events", {"name": name}) == wanted
    assert told(RULE, "POST", f"{PERSON}/events", {"name": name, "type": "page"}) == []


def test_bytes_are_counted_not_characters() -> None:
    emoji = b'"\xf0\x9f\x99\x82' + b"\xf0\x9f\x99\x82" * 24 + b'"'
    assert told(RULE, "POST", f"{PERSON}/events", b'{"name": %s}' % emoji) == []
    assert told(RULE, "POST", f"{PERSON}/events", b'{"name": %s}' % emoji.replace(b'"', b'"a', 1)) == [
        ("/name", LIKELY)
    ]
    assert told(RULE, "PUT", PERSON, {"ä" * 75: 1}) == []
    assert told(RULE, "PUT", PERSON, {"ä" * 75 + "a": 1}) == [("/" + "ä" * 75 + "a", CERTAIN)]
    assert told(RULE, "PUT", PERSON, {"🙂" * 37: 1}) == []
    assert told(RULE, "PUT", PERSON, {"🙂" * 38: 1}) == [("/" + "🙂" * 38, CERTAIN)]


def test_an_attribute_has_a_name_of_150_bytes_and_a_value_of_1000() -> None:
    assert told(RULE, "PUT", PERSON, {"a" * 150: 1}) == []
    assert told(RULE, "PUT", PERSON, {"a" * 151: 1}) == [("/" + "a" * 151, CERTAIN)]
    assert told(RULE, "PUT", PERSON, {"a/b": "x" * 1000}) == []
    assert told(RULE, "PUT", PERSON, {"a/b": "x" * 1001}) == [("/a~1b", CERTAIN)]
    assert told(RULE, "PUT", PERSON, {"a": ["x" * 1001]}) == []
    assert told(RULE, "PUT", PERSON, {"a" * 151: 1, "b": "x" * 1001}) == [("/" + "a" * 151, CERTAIN), ("/b", CERTAIN)]


def test_an_identify_has_300_attributes_beside_those_that_are_instructions() -> None:
    many = {f"a{n}": n for n in range(300)}
    assert told(RULE, "PUT", PERSON, {**many, "_update": True, "_timestamp": 1_700_000_000}) == []
    assert told(RULE, "PUT", PERSON, {**many, "b": 1}) == [("", CERTAIN)]
    assert told(RULE, "PUT", PERSON, {}) == []


@pytest.mark.parametrize("kind", ["event", "page", "screen"])
def test_event_data_has_100_000_bytes_as_short_as_json_can_be(kind: str) -> None:
    overhead = len('{"a":1,"x":""}')
    for pad, wanted in ((100_000 - overhead, []), (100_001 - overhead, [("/data", CERTAIN)])):
        for sign in ("x", "ä"):
            text = sign * (pad // len(sign.encode())) + "x" * (pad % len(sign.encode()))
            body = {"name": "a", "type": kind, "data": {"a": 1, "x": text}}
            assert told(RULE, "POST", f"{PERSON}/events", body) == wanted
    (finding,) = findings(RULE, "POST", f"{PERSON}/events", body)
    assert (finding.refusable, finding.evidence) == (True, 100_001)


@pytest.mark.parametrize("route", ["add_customers", "remove_customers"])
@pytest.mark.parametrize(("count", "wanted"), [(0, True), (1, False), (1000, False), (1001, True)])
def test_a_segment_takes_1_to_1000_ids(route: str, count: int, wanted: bool) -> None:
    body = {"ids": ["1"] * count}
    found = findings(RULE, "POST", f"track.customer.io/api/v1/segments/7/{route}", body)
    assert [(f.pointer, f.confidence, f.evidence) for f in found] == ([("/ids", CERTAIN, count)] if wanted else [])
    assert told(RULE, "POST", f"track.customer.io/api/v1/segments/7/{route}", {"ids": "1"}) == []


ITEM = {"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "a"}


def test_a_v2_operation_has_32_kb_and_a_batch_500() -> None:
    entity = "track.customer.io/api/v2/entity"
    assert told(RULE, "POST", entity, sized(ITEM, 32 * KB)) == []
    (finding,) = findings(RULE, "POST", entity, sized(ITEM, 32 * KB + 1))
    assert (finding.pointer, finding.confidence, finding.refusable, finding.whole) == ("", CERTAIN, True, False)
    batch = "track.customer.io/api/v2/batch"
    body = {"batch": [ITEM, ITEM]}
    assert told(RULE, "POST", batch, sized(body, 500 * KB)) == []
    (finding,) = findings(RULE, "POST", batch, sized(body, 500 * KB + 1))
    assert (finding.pointer, finding.confidence, finding.refusable, finding.whole) == ("/batch", CERTAIN, True, True)
    body = {"batch": [padded(32 * KB, **ITEM), padded(32 * KB + 1, **ITEM)]}
    assert told(RULE, "POST", batch, body) == [("/batch/1", CERTAIN)]


CALL = {"userId": "42", "event": "a"}


@pytest.mark.parametrize(
    ("size", "wanted"),
    [(32 * KB, None), (32 * KB + 1, LIKELY), (64 * KB, LIKELY), (64 * KB + 1, CERTAIN)],
)
def test_a_pipelines_call_has_32_kb_perhaps_64(size: int, wanted: str | None) -> None:
    found = findings(RULE, "POST", "cdp.customer.io/v1/track", sized(CALL, size))
    expected = [] if wanted is None else [("", wanted, wanted == CERTAIN, False)]
    assert [(f.pointer, f.confidence, f.refusable, f.whole) for f in found] == expected


def test_a_pipelines_call_alone_is_no_batch() -> None:
    assert told(RULE, "POST", "cdp.customer.io/v1/track", sized(CALL, 1024 * KB + 1)) == [("", CERTAIN)]
    large = padded(32 * KB + 1, type="track", **CALL)
    found = told(RULE, "POST", "cdp.customer.io/v1/batch", {"batch": [large] * 16})
    assert found == [("/batch", LIKELY), *((f"/batch/{index}", LIKELY) for index in range(16))]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [(500 * KB, None), (500 * KB + 1, LIKELY), (1024 * KB, LIKELY), (1024 * KB + 1, CERTAIN)],
)
def test_a_pipelines_batch_has_500_kb_perhaps_1024(size: int, wanted: str | None) -> None:
    body = sized({"batch": [{"type": "track", **CALL}] * 2}, size)
    found = findings(RULE, "POST", "cdp.customer.io/v1/batch", body)
    expected = [] if wanted is None else [("/batch", wanted, wanted == CERTAIN, True)]
    assert [(f.pointer, f.confidence, f.refusable, f.whole) for f in found] == expected
    assert all("the batch is over" in f.message for f in found)
