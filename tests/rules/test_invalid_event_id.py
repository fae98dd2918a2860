"""What makes two events under one id the same event, and which ids are looked at."""

from typing import Any

import pytest

from .alone import history, remembered

RULE = "invalid-event-id"
ULID = "01HB4HBDKTFWYZCK01DMRSWRFD"
EVENT = {"name": "seat_added", "id": ULID, "data": {"seat": 1, "list": [{"a": True}]}}
URL = "track.customer.io/api/v1/customers/42/events"
CDP = "cdp.customer.io/v1/"


async def confidences(*sent: tuple[float, str, str, Any]) -> list[str]:
    return [finding.confidence for finding in await history(RULE, *sent)]


@pytest.mark.parametrize(
    ("second", "count"),
    [
        ({}, 0),
        ({"timestamp": 1_750_000_000}, 0),
        ({"name": " seat_added "}, 0),
        ({"id": ULID.lower()}, 0),
        ({"data": {"seat": 1, "list": [{"a": True}], "at": 1_750_000_000}}, 0),
        ({"data": {"seat": 1, "list": [{"a": True}], "at": "2026-11-24T10:00:00Z"}}, 0),
        ({"data": {"seat": 1, "list": [{"a": False}]}}, 1),
        ({"data": {"seat": 1, "list": []}}, 1),
        ({"data": {"seat": "1", "list": [{"a": True}]}}, 1),
        ({"data": {}}, 1),
        ({"name": "seat_Added"}, 1),
        ({"type": "page"}, 1),
        ({"id": "01HB4HBDKTFWYZCK01DMRSWRFE"}, 0),
    ],
)
async def test_another_event_has_another_name_or_other_data_than_times(second: dict[str, Any], count: int) -> None:
    found = await confidences((0, "POST", URL, EVENT), (1, "POST", URL, EVENT | second))
    assert found == ["certain"] * count


async def test_another_person_makes_another_event_if_both_are_named_alike() -> None:
    other = URL.replace("42", "43")
    assert await confidences((0, "POST", URL, EVENT), (1, "POST", other, EVENT)) == ["certain"]
    nobody = "track.customer.io/api/v1/events"
    assert await confidences((0, "POST", nobody, EVENT), (1, "POST", nobody, EVENT)) == []
    by_mail = URL.replace("42", "a%40example.com")
    visitor = EVENT | {"anonymous_id": "a"}
    ways = ((URL, EVENT), (by_mail, EVENT), (nobody, visitor), (nobody, EVENT))
    sent = [(float(at), "POST", *way) for at, way in enumerate(ways)]
    for one in sent:
        for two in sent:
            assert await confidences((0, *one[1:]), (1, *two[1:])) == []
            assert await confidences((0, *one[1:]), (1, *two[1:3], two[3] | {"name": "seat_taken"})) == ["certain"]
    assert await confidences((0, "POST", URL.replace("42", "team:42"), EVENT), sent[2]) == []
    assert await confidences((0, "POST", URL.replace("42", "team:42"), EVENT), sent[0]) == ["certain"]
    assert await confidences(sent[0], sent[1], (2, "POST", other, EVENT)) == []  # may be who was named by address
    assert await confidences(sent[1], (2, "POST", by_mail.replace("a%", "b%"), EVENT)) == ["certain"]


async def test_a_retry_of_each_event_of_a_shared_id_is_known() -> None:
    events = [EVENT | {"name": name} for name in ("a_b", "b_c", "c_d", "d_e", "b_c", "d_e", "a_b")]
    sent = [(float(at), "POST", URL, event) for at, event in enumerate(events)]
    assert await confidences(*sent) == ["certain"] * 3


@pytest.mark.parametrize("id", ["order-1", 7, "A" * 200, ULID])
async def test_any_text_or_number_is_an_id(id: Any) -> None:
    found = await history(
        RULE, (0, "POST", URL, EVENT | {"id": id}), (1, "POST", URL, EVENT | {"id": id, "name": "seat_taken"})
    )
    assert found[-1].confidence == "certain"
    assert (found[-1].pointer, found[-1].message) == ("/id", "another event had this `id` a moment before")


@pytest.mark.parametrize("id", [True, {"a": 1}, [1], 0, 1.5, "A" * 201])
async def test_what_is_no_id_is_only_no_ulid(id: Any) -> None:
    sent = ((0, "POST", URL, EVENT | {"id": id}), (1, "POST", URL, EVENT | {"id": id, "name": "seat_taken"}))
    assert await confidences(*sent) == ["likely", "likely"]


@pytest.mark.parametrize(
    ("id", "count"),
    [
        ("m-1", 1),
        (7, 1),
        ("6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38", 0),
        ("node-next-1-6F1C2B7E-93D4-4C5A-8F20-1B7D9E4A6C38", 0),
        ("6f1c2b7e-93d4-4c5a-8f20", 1),
        (None, 0),
        ("", 0),
    ],
)
async def test_a_message_id_of_pipelines_is_one_unless_a_library_makes_it(id: Any, count: int) -> None:
    track = {"userId": "42", "event": "Seat Added", "messageId": id, "id": ULID}
    page = {"userId": "42", "name": "Seats", "messageId": id, "id": ULID}
    found = await history(RULE, (0, "POST", CDP + "track", track), (1, "POST", CDP + "page", page))
    assert [(finding.pointer, finding.confidence) for finding in found] == [("/messageId", "certain")] * count


@pytest.mark.parametrize(("at", "count"), [(29.9, 1), (30.1, 0)])
async def test_an_id_is_remembered_for_half_a_minute(at: float, count: int) -> None:
    sent = ((0, "POST", URL, EVENT), (at, "POST", URL, EVENT | {"name": "seat_taken"}))
    assert await confidences(*sent) == ["certain"] * count


async def test_four_events_of_an_id_are_remembered_and_the_id_is_not_readable() -> None:
    events = [EVENT | {"name": f"a_{number}"} for number in range(6)]
    kept = await remembered(RULE, *((float(at), "POST", URL, event) for at, event in enumerate(events)))
    ((subject, value),) = kept.pop("event-id")
    assert kept == {}
    assert len(value.hashes) == 8  # each with its person, and with how they are named
    assert ULID not in subject
    assert await remembered(RULE, (0, "POST", URL, {"name": "a_b"})) == {}
