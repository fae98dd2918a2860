"""Track v2: one operation and batches."""

from typing import Any

import pytest

from .conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADA: Any = {"type": "person", "identifiers": {"id": "ada"}}


async def test_an_entity_is_identified(cio: Service) -> None:
    operation = {**ADA, "action": "identify", "attributes": {"email": "a@example.com", "created_at": 1_704_288_000_000}}
    assert "55976" in await cio.ok("POST", "/api/v2/entity", operation)
    assert (await cio.person(id="ada"))["email"] == "a@example.com"


async def test_every_action_of_a_person_is_accepted(cio: Service) -> None:
    link = {"identifiers": {"object_type_id": "1", "object_id": "acme"}}
    operations = [
        {**ADA, "action": "identify", "attributes": {"plan": "pro"}},
        {**ADA, "action": "event", "name": "paid", "attributes": {"total": 5}},
        {**ADA, "action": "page", "name": "https://example.com/" + "x" * 100},
        {**ADA, "action": "screen", "name": "Home"},
        {**ADA, "action": "add_relationships", "cio_relationships": [link]},
        {**ADA, "action": "add_device", "device": {"token": "t1", "platform": "android"}},
        {**ADA, "action": "delete_device", "device": {"token": "t1"}},
        {"type": "object", "action": "identify", "identifiers": link["identifiers"], "attributes": {"name": "Acme"}},
        {"type": "person", "identifiers": {"phone": "+4930123456"}, "action": "identify"},
        {"type": "person", "action": "merge", "primary": {"id": "ada"}, "secondary": {"phone": "+4930123456"}},
        {"type": "delivery", "action": "event", "identifiers": {"id": "d"}, "name": "opened",
         "attributes": {"device_token": "t1"}},
    ]  # fmt: skip
    answer = await cio.send("POST", "/api/v2/batch", {"batch": operations})
    assert (answer.status_code, answer.json()) == (200, {})
    (person,) = await cio.shown("people")
    assert (person["phone"], person["relationships"], person["devices"]) == ("+4930123456", [link], {})
    assert [event["stored"]["type"] for event in await cio.shown("events")] == ["event", "page", "screen"]
    assert len(await cio.shown("objects")) == 1
    for action in ("suppress", "unsuppress", "delete"):
        await cio.ok("POST", "/api/v2/entity", {**ADA, "action": action})
    assert await cio.shown("people") == []


async def test_a_batch_accepts_the_valid_items_and_lists_the_others_with_207(cio: Service) -> None:
    good = {**ADA, "action": "event", "name": "paid"}
    bad = [
        {**ADA, "action": "event"},
        {**ADA, "action": "fly"},
        {"type": "device", "action": "identify"},
        {"type": "person", "action": "identify", "identifiers": {"id": "1", "email": "a@b"}},
        "nothing",
        {**ADA, "action": "identify", "attributes": {"bio": "x" * 40_000}},
    ]
    answer = await cio.send("POST", "/api/v2/batch", {"batch": [good, *bad, good]})
    assert answer.status_code == 207
    errors = answer.json()["errors"]
    assert [error["batch_index"] for error in errors] == [1, 2, 3, 4, 5, 6]
    assert all(error.keys() == {"batch_index", "reason", "field", "message"} for error in errors)
    assert errors[0] | {"message": ""} == {"batch_index": 1, "reason": "required", "field": "name", "message": ""}
    assert len(await cio.shown("events")) == 2


@pytest.mark.parametrize("body", [{}, {"batch": []}, {"batch": {}}, [], {"batch": ["x" * 600_000]}])
async def test_a_malformed_batch_is_refused_whole(cio: Service, body: object) -> None:
    answer = await cio.send("POST", "/api/v2/batch", body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0].keys() == {"reason", "field", "message"}


async def test_an_entity_over_32_kb_is_refused(cio: Service) -> None:
    operation = {**ADA, "action": "event", "name": "e", "attributes": {"x": "y" * 33_000}}
    assert (await cio.send("POST", "/api/v2/entity", operation)).status_code == 400
