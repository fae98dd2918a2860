"""The App API: sending, broadcasts, and the rest."""

import pytest

from .conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMAIL = {"to": "ada@example.com", "identifiers": {"id": "ada"}, "transactional_message_id": "receipt"}


@pytest.mark.parametrize("kind", ["email", "push", "sms", "whatsapp", "inbox_message", "in_app"])
async def test_a_message_gets_a_delivery_id_and_a_time(cio: Service, kind: str) -> None:
    answer = await cio.send("POST", f"/v1/send/{kind}", EMAIL)
    assert answer.json() == {"delivery_id": answer.json()["delivery_id"], "queued_at": 1_800_000_000}
    (delivery,) = await cio.shown("deliveries")
    assert (delivery["delivery_id"], delivery["kind"], delivery["sent"]) == (answer.json()["delivery_id"], kind, EMAIL)


@pytest.mark.parametrize("missing", ["to", "identifiers", "transactional_message_id"])
async def test_an_incomplete_email_is_refused(cio: Service, missing: str) -> None:
    body = {name: value for name, value in EMAIL.items() if name != missing}
    answer = await cio.send("POST", "/v1/send/email", body)
    assert answer.status_code == 400
    assert isinstance(answer.json()["meta"]["error"], str)


async def test_an_unsubscribed_person_is_skipped_where_the_sender_says_so(cio: Service) -> None:
    await cio.ok("PUT", "/api/v1/customers/ada", {"unsubscribed": True})
    await cio.ok("POST", "/v1/send/email", EMAIL)
    await cio.ok("POST", "/v1/send/email", {**EMAIL, "send_to_unsubscribed": False})
    assert [delivery["stored"]["state"] for delivery in await cio.shown("deliveries")] == ["sent", "skipped"]


async def test_a_suppressed_address_is_dropped(cio: Service) -> None:
    path = "/v1/esp/suppression/bounces/Ada%40example.com"
    await cio.ok("POST", path)
    assert "dropped" in await cio.ok("POST", "/v1/send/email", EMAIL)
    assert (await cio.send("DELETE", path)).status_code == 204
    assert "dropped" not in await cio.ok("POST", "/v1/send/email", EMAIL)


async def test_a_broadcast_says_whom_it_does_not_reach(cio: Service) -> None:
    await cio.ok("PUT", "/api/v1/customers/ada", {})
    notes = await cio.ok("POST", "/v1/campaigns/4/triggers", {"ids": ["ada", "nobody"], "data": {}})
    assert "1 of 2 recipients are unknown" in notes
    assert "1 of 2 recipients have no email" in notes


async def test_millisecond_send_at_is_a_far_year(cio: Service) -> None:
    assert "55976" in await cio.ok("POST", "/v1/send/email", {**EMAIL, "send_at": 1_704_288_000_000})


async def test_other_routes_answer_without_content_and_unknown_ones_404(cio: Service) -> None:
    for path in ("/v1/customers?email=a%40b.c", "/v1/newsletters/1/metrics", "/v1/api/segments"):
        answer = await cio.send("GET", path)
        if path.startswith("/v1/api"):
            assert (await cio.send("POST", "/v1/api/send/email", EMAIL)).status_code == 200
        else:
            assert (answer.status_code, answer.json()) == (200, {})
    answer = await cio.send("GET", "/v1/nothing")
    assert (answer.status_code, answer.json()["errors"][0]["status"]) == (404, "404")
