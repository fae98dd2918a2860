"""Pipelines: permissive by default, so most mistakes are answered 200."""

from typing import Any

import pytest

from .conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

STRICT = {"headers": {"X-Strict-Mode": "1"}}
IDENTIFY: Any = {"userId": "ada", "anonymousId": "a1", "traits": {"email": "ada@example.com"}}


async def test_identify_joins_the_anonymous_history_and_converts_created_at(cio: Service) -> None:
    await cio.ok("POST", "/v1/track", {"anonymousId": "a1", "event": "Viewed", "timestamp": "2027-01-15T07:00:00Z"})
    traits = {"email": "ada@example.com", "createdAt": "2024-01-03T13:20:00Z"}
    assert "converted" in await cio.ok("POST", "/v1/identify", {**IDENTIFY, "traits": traits})
    person, event = await cio.person(id="ada"), await cio.event("Viewed")
    assert event["person"] == person["cio_id"]
    assert (person["sent"]["created_at"], person["stored"]["created_at"]) == ("2024-01-03T13:20:00Z", 1_704_288_000)


async def test_all_six_calls_are_carried_out(cio: Service) -> None:
    calls: dict[str, Any] = {
        "identify": IDENTIFY,
        "track": {"userId": "ada", "event": "Order Completed", "properties": {"total": 5}, "anonymousId": None},
        "page": {"userId": "ada", "properties": {"url": "https://example.com"}},
        "screen": {"anonymousId": "a2", "name": "Home"},
        "group": {"userId": "ada", "groupId": "acme", "traits": {"name": "Acme"}},
        "alias": {"userId": "ada", "previousId": "old"},
    }
    for kind, call in calls.items():
        answer = await cio.http.post(f"/v1/{kind}", json=call, auth=("key", ""), headers={"X-Strict-Mode": "1"})
        assert (answer.status_code, answer.json()) == (200, {})
    assert len(await cio.shown("events")) == 3
    assert len((await cio.person(id="ada"))["relationships"]) == 1


async def test_a_bad_call_is_dropped_with_200_and_refused_in_strict_mode(cio: Service) -> None:
    calls: list[Any] = [{"event": "e"}, {"userId": "ada"}, {"userId": "ada", "event": 5}, []]
    for call in calls:
        assert "dropped" in await cio.ok("POST", "/v1/track", call)
        answer = await cio.send("POST", "/v1/track", call, **STRICT)
        assert answer.status_code == 400
        assert answer.json().keys() == {"code", "message"}
    assert await cio.shown("events") == []


async def test_an_oversize_call_is_dropped_with_200(cio: Service) -> None:
    call: dict[str, Any] = {"userId": "ada", "event": "e", "properties": {"x": "y" * 70_000}}
    assert "too large" in await cio.ok("POST", "/v1/track", call)
    assert "too large" in await cio.ok("POST", "/v1/batch", {"batch": [{**call, "type": "track"}]})
    assert await cio.shown("events") == []
    call["properties"] = {"x": "y" * 40_000}
    assert "newer page" in await cio.ok("POST", "/v1/track", call)
    assert len(await cio.shown("events")) == 1


async def test_a_batch_keeps_its_good_calls(cio: Service) -> None:
    good = {"type": "track", "userId": "ada", "event": "paid", "messageId": "m1"}
    batch = {"batch": [good, {"type": "sing"}, 5, {**good, "messageId": "m2"}, good]}
    notes = await cio.ok("POST", "/v1/batch", batch)
    assert "dropped" in notes
    assert "ignored" in notes, "a repeated messageId"
    assert len(await cio.shown("events")) == 2
    assert (await cio.send("POST", "/v1/batch", batch, **STRICT)).status_code == 400


async def test_semantic_events_are_commands(cio: Service) -> None:
    await cio.ok("POST", "/v1/identify", IDENTIFY)
    await cio.ok("POST", "/v1/track", {"userId": "ada", "event": "User Suppressed"})
    assert "ignored" in await cio.ok("POST", "/v1/identify", IDENTIFY)
    await cio.ok("POST", "/v1/track", {"userId": "ada", "event": "User Unsuppressed"})
    assert await cio.shown("events") == []


@pytest.mark.parametrize("timestamp", [1_800_000_000, "yesterday", 1.8e12])
async def test_a_timestamp_that_is_not_iso_is_the_time_of_receipt(cio: Service, timestamp: object) -> None:
    assert "not ISO" in await cio.ok("POST", "/v1/track", {"userId": "ada", "event": "e", "timestamp": timestamp})
    assert (await cio.event("e"))["stored"]["timestamp"] == cio.now
