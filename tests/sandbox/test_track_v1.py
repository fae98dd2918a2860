"""Track v1: what is answered, and what becomes of what was accepted."""

from typing import Any

import pytest

from .conftest import DAY, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADA = "/api/v1/customers/ada"
ULID = "01E4C4CT6YDC7Y5M7FE1GWWPQJ"


async def test_a_person_is_stored_as_sent(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "Ada@example.com", "plan": "pro", "created_at": 1_700_000_000})
    person = await cio.person(id="ada")
    assert person["sent"] == person["stored"] != {}
    assert (person["email"], person["stored"]["plan"], person["notes"]) == ("Ada@example.com", "pro", [])


async def test_millisecond_created_at_is_stored_and_never_matches(cio: Service) -> None:
    notes = await cio.ok("PUT", ADA, {"created_at": 1_704_288_000_000})
    assert "the year 55976" in notes
    assert "never matches a timestamp condition" in notes
    person = await cio.person(id="ada")
    assert person["stored"]["created_at"] == 1_704_288_000_000
    assert any("the year 55976" in note for note in person["notes"])
    await cio.ok("PUT", ADA, {"created_at": 1_704_288_000})
    assert not any("year" in note for note in (await cio.person(id="ada"))["notes"])


async def test_a_person_without_email_cannot_receive_mail(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"plan": "pro"})
    assert any("cannot be sent mail" in note for note in (await cio.person(id="ada"))["notes"])
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    assert (await cio.person(id="ada"))["notes"] == []


async def test_an_email_in_the_path_is_the_email_in_any_case(cio: Service) -> None:
    await cio.ok("PUT", "/api/v1/customers/Ada%40example.com", {"id": "ada"})
    await cio.ok("PUT", "/api/v1/customers/ada%40EXAMPLE.com", {"plan": "pro"})
    (person,) = await cio.shown("people")
    assert (person["id"], person["email"], person["stored"]["plan"]) == ("ada", "Ada@example.com", "pro")


async def test_an_encoded_slash_stays_in_the_identifier(cio: Service) -> None:
    await cio.ok("PUT", "/api/v1/customers/u%2F1%40x.com%2Fdevices", {})
    assert (await cio.shown("people"))[0]["email"] == "u/1@x.com/devices"
    assert (await cio.shown("requests"))[0]["target"] == "/api/v1/customers/u%2F1%40x.com%2Fdevices"
    assert (await cio.send("PUT", "/api/v1/customers/u/1", {})).status_code == 404


async def test_update_only_drops_an_unknown_person(cio: Service) -> None:
    assert "dropped" in await cio.ok("PUT", ADA, {"_update": True, "plan": "pro"})
    assert await cio.shown("people") == []
    await cio.ok("PUT", ADA, {})
    await cio.ok("PUT", ADA, {"_update": True, "plan": "pro"})
    assert (await cio.person(id="ada"))["stored"]["plan"] == "pro"


async def test_path_and_body_of_two_people_answer_200_and_change_nothing(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    await cio.ok("PUT", "/api/v1/customers/bob", {"email": "bob@example.com"})
    assert "Attribute Update Failure" in await cio.ok("PUT", ADA, {"email": "bob@example.com", "plan": "pro"})
    ada = await cio.person(id="ada")
    assert "plan" not in ada["stored"]
    assert any("two people" in note for note in ada["notes"])


async def test_a_known_email_under_a_new_id_renames_that_person(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    assert "got the id of the path" in await cio.ok("PUT", "/api/v1/customers/ada-2", {"email": "ada@example.com"})
    (person,) = await cio.shown("people")
    assert person["id"] == "ada-2"


async def test_a_set_email_changes_only_through_the_cio_id(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    assert "is not changed" in await cio.ok("PUT", ADA, {"email": "new@example.com"})
    person = await cio.person(id="ada")
    assert (person["sent"]["email"], person["stored"]["email"]) == ("new@example.com", "ada@example.com")
    await cio.ok("PUT", f"/api/v1/customers/cio_{person['cio_id']}", {"email": "new@example.com"})
    assert (await cio.person(id="ada"))["email"] == "new@example.com"
    assert "dropped" in await cio.ok("PUT", "/api/v1/customers/cio_0000", {"email": "x@example.com"})


async def test_an_older_timestamp_does_not_overwrite_a_newer_value(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"plan": "pro", "_timestamp": 1_700_000_100})
    assert "newer value" in await cio.ok("PUT", ADA, {"plan": "free", "_timestamp": 1_700_000_000})
    assert (await cio.person(id="ada"))["stored"]["plan"] == "pro"
    assert "milliseconds" in await cio.ok("PUT", ADA, {"plan": "team", "_timestamp": 1_704_288_000_000})
    assert (await cio.person(id="ada"))["stored"]["plan"] == "team"


@pytest.mark.parametrize(("sent", "stored"), [(True, True), ("TRUE", True), (1, True), ("1", True), ("yes", False)])
async def test_unsubscribed_is_stored_as_a_boolean(cio: Service, sent: object, stored: bool) -> None:
    await cio.ok("PUT", ADA, {"unsubscribed": sent})
    person = await cio.person(id="ada")
    assert (person["sent"]["unsubscribed"], person["stored"]["unsubscribed"]) == (sent, stored)


async def test_an_empty_value_clears_an_attribute(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"plan": "pro"})
    await cio.ok("PUT", ADA, {"plan": ""})
    assert "plan" not in (await cio.person(id="ada"))["stored"]


async def test_topics_add_up_in_both_notations(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"cio_subscription_preferences": {"topics": {"topic_1": True}}})
    await cio.ok("PUT", ADA, {"cio_subscription_preferences.topics.topic_2": False})
    stored = (await cio.person(id="ada"))["stored"]["cio_subscription_preferences"]
    assert stored == {"topics": {"topic_1": True, "topic_2": False}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"id": 5}, "id attribute must be a string value"),
        ({"id": ""}, "id attribute cannot be an empty string"),
        ({f"a{n}": 1 for n in range(301)}, "cannot identify more than 300 attributes in one request"),
        ({"é" * 76: 1}, "attribute name cannot be longer than 150 bytes"),
        ({"bio": "é" * 501}, "value for attribute 'bio' cannot be longer than 1000 bytes"),
    ],
)
async def test_a_bad_identify_is_refused_with_the_documented_message(cio: Service, body: Any, message: str) -> None:
    answer = await cio.send("PUT", ADA, body)
    assert (answer.status_code, answer.json()) == (400, {"meta": {"error": message}})
    assert await cio.shown("people") == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "name cannot be blank"),
        ({"name": " "}, "event name must not be blank"),
        ({"name": "🎉" * 34}, "event name cannot be longer than 100 bytes"),
        ({"name": "x" * 500, "type": "page"}, "event name must be less than 500 characters"),
        ({"name": "e", "data": [1]}, "event data must be a hash"),
        ({"name": "e", "data": {"x": "y" * 100_000}}, "event data cannot be longer than 100000 bytes"),
    ],
)
async def test_a_bad_event_is_refused_with_the_documented_message(cio: Service, body: Any, message: str) -> None:
    for path in (ADA + "/events", "/api/v1/events"):
        answer = await cio.send("POST", path, body)
        assert (answer.status_code, answer.json()) == (400, {"meta": {"errors": [message]}})
    assert await cio.shown("events") == []


async def test_an_event_for_an_unknown_person_is_kept_on_a_bare_profile_and_says_unverified(cio: Service) -> None:
    assert "(unverified)" in await cio.ok("POST", ADA + "/events", {"name": "signed_up"})
    person, event = await cio.person(id="ada"), await cio.event("signed_up")
    assert event["person"] == person["cio_id"]
    assert person["stored"] == {"id": "ada"}
    assert any("bare profile" in note for note in event["notes"])
    assert any("bare profile" in note for note in person["notes"])


async def test_an_event_older_than_72_hours_is_stored_and_triggers_nothing(cio: Service) -> None:
    await cio.ok("PUT", ADA, {})
    await cio.ok("POST", ADA + "/events", {"name": "recent", "timestamp": int(cio.now - 3 * DAY + 1)})
    assert "past 72 hours" in await cio.ok("POST", ADA + "/events", {"name": "old", "timestamp": cio.now - 3 * DAY - 1})
    assert (await cio.event("recent"))["can_trigger"]
    assert not (await cio.event("old"))["can_trigger"]


async def test_a_millisecond_event_timestamp_is_in_a_far_year_and_triggers_nothing(cio: Service) -> None:
    notes = await cio.ok("POST", ADA + "/events", {"name": "e", "timestamp": 1_704_288_000_000})
    assert "milliseconds" in notes
    assert "year 55976" in notes
    assert not (await cio.event("e"))["can_trigger"]


async def test_a_repeated_event_id_is_ignored(cio: Service) -> None:
    await cio.ok("POST", ADA + "/events", {"name": "paid", "id": ULID})
    assert "ignored" in await cio.ok("POST", ADA + "/events", {"name": "paid", "id": ULID})
    assert len(await cio.shown("events")) == 1
    for _ in range(2):
        assert "not a ULID" in await cio.ok("POST", ADA + "/events", {"name": "sent", "id": "order-1"})
    assert len(await cio.shown("events")) == 3


async def test_a_recipient_in_the_data_redirects_mail(cio: Service) -> None:
    assert "goes there" in await cio.ok("POST", ADA + "/events", {"name": "e", "data": {"recipient": "x@example.com"}})


async def test_an_event_name_is_trimmed(cio: Service) -> None:
    await cio.ok("POST", ADA + "/events", {"name": " signed_up "})
    event = await cio.event("signed_up")
    assert event["sent"]["name"] == " signed_up "


async def test_anonymous_events_merge_30_days_back(cio: Service) -> None:
    await cio.ok("POST", "/api/v1/events", {"name": "too_old", "anonymous_id": "a1"})
    cio.now += DAY
    await cio.ok("POST", "/api/v1/events", {"name": "old", "anonymous_id": "a1"})
    cio.now += 29.5 * DAY
    await cio.ok("POST", "/api/v1/events", {"name": "recent", "anonymous_id": "a1"})
    assert not (await cio.event("recent"))["can_trigger"]
    await cio.ok("PUT", ADA, {"anonymous_id": "a1"})
    ada = (await cio.person(id="ada"))["cio_id"]
    merged = {event["stored"]["name"]: event for event in await cio.shown("events")}
    assert merged.keys() == {"old", "recent"}, "an event not merged for 30 days is deleted"
    assert {event["person"] for event in merged.values()} == {ada}
    assert (merged["old"]["can_trigger"], merged["recent"]["can_trigger"]) == (False, True)


async def test_anonymous_events_merge_5_minutes_ahead(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"anonymous_id": "a1"})
    cio.now += 300
    await cio.ok("POST", "/api/v1/events", {"name": "soon", "anonymous_id": "a1"})
    cio.now += 1
    assert "not merged" in await cio.ok("POST", "/api/v1/events", {"name": "late", "anonymous_id": "a1"})
    assert (await cio.event("soon"))["person"] is not None
    assert (await cio.event("late"))["person"] is None
    await cio.ok("PUT", ADA, {"anonymous_id": "a1"})
    assert (await cio.event("late"))["person"] is not None


async def test_an_anonymous_id_is_not_reusable(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"anonymous_id": "a1"})
    assert "not reusable" in await cio.ok("PUT", "/api/v1/customers/bob", {"anonymous_id": "a1"})
    assert (await cio.person(id="bob"))["anonymous_ids"] == []


async def test_an_event_without_anonymous_id_is_an_invite(cio: Service) -> None:
    assert "invite" in await cio.ok("POST", "/api/v1/events", {"name": "invited", "data": {"recipient": "x@e.com"}})


async def test_a_suppressed_person_is_ignored_with_200(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    await cio.ok("POST", ADA + "/events", {"name": "before"})
    await cio.ok("POST", ADA + "/suppress")
    assert "ignored" in await cio.ok("PUT", ADA, {})
    assert "ignored" in await cio.ok("PUT", "/api/v1/customers/ada%40example.com", {})
    assert "ignored" in await cio.ok("POST", ADA + "/events", {"name": "after"})
    assert await cio.shown("people") == await cio.shown("events") == []
    await cio.ok("POST", ADA + "/unsuppress")
    await cio.ok("PUT", ADA, {})
    assert len(await cio.shown("people")) == 1


async def test_a_deleted_person_can_come_back(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"plan": "pro"})
    await cio.ok("DELETE", ADA)
    assert await cio.shown("people") == []
    await cio.ok("PUT", ADA, {})
    assert "plan" not in (await cio.person(id="ada"))["stored"]


async def test_a_merge_with_an_unknown_primary_does_nothing(cio: Service) -> None:
    await cio.ok("PUT", "/api/v1/customers/bob", {})
    body = {"primary": {"id": "ada"}, "secondary": {"id": "bob"}}
    assert "nothing happened" in await cio.ok("POST", "/api/v1/merge_customers", body)
    assert await cio.person(id="bob")


async def test_a_merge_copies_what_the_primary_lacks(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"plan": "pro"})
    await cio.ok("PUT", "/api/v1/customers/bob%40example.com", {"plan": "free", "city": "Berlin"})
    await cio.ok("POST", "/api/v1/customers/bob%40example.com/events", {"name": "paid"})
    await cio.ok(
        "POST", "/api/v1/merge_customers", {"primary": {"id": "ada"}, "secondary": {"email": "bob@example.com"}}
    )
    (person,) = await cio.shown("people")
    assert (person["stored"]["plan"], person["stored"]["city"]) == ("pro", "Berlin")
    assert person["email"] == "bob@example.com"
    event = await cio.event("paid")
    assert (event["person"], event["can_trigger"]) == (person["cio_id"], False)


@pytest.mark.parametrize("body", [{}, {"primary": {"id": "1", "email": "a@b"}, "secondary": {"id": "2"}}])
async def test_a_bad_merge_is_refused_with_the_singular_envelope(cio: Service, body: object) -> None:
    answer = await cio.send("POST", "/api/v1/merge_customers", body)
    assert answer.status_code == 400
    assert isinstance(answer.json()["meta"]["error"], str)


async def test_devices_come_and_go(cio: Service) -> None:
    device = {"id": "t/1", "platform": "ios", "last_used": 1_704_288_000_000}
    assert "last_used was sent in milliseconds" in await cio.ok("PUT", ADA + "/devices", {"device": device})
    assert (await cio.person(id="ada"))["devices"] == {"t/1": device}
    await cio.ok("DELETE", ADA + "/devices/t%2F1")
    assert (await cio.person(id="ada"))["devices"] == {}
    assert "errors" in (await cio.send("PUT", ADA + "/devices", {"device": {}})).json()["meta"]


async def test_a_segment_ignores_unknown_ids_silently(cio: Service) -> None:
    await cio.ok("PUT", ADA, {})
    notes = await cio.ok("POST", "/api/v1/segments/7/add_customers?id_type=id", {"ids": ["ada", "nobody"]})
    assert "1 of 2 ids name nobody" in notes
    assert (await cio.person(id="ada"))["segments"] == ["7"]
    await cio.ok("POST", "/api/v1/segments/7/remove_customers", {"ids": ["ada"]})
    assert (await cio.person(id="ada"))["segments"] == []
    for ids in ([], ["x"] * 1001, [1]):
        assert (await cio.send("POST", "/api/v1/segments/7/add_customers", {"ids": ids})).status_code == 400


async def test_a_form_creates_a_person_and_answers_204(cio: Service) -> None:
    answer = await cio.send("POST", "/api/v1/forms/newsletter/submit", {"data": {"email": "a@example.com", "x": "y"}})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await cio.person(email="a@example.com"))["stored"]["x"] == "y"
    for fields in ({"x": "y"}, {"id": "1", "email": "a@b"}, {"id": "1", "n": 5}, None):
        assert (await cio.send("POST", "/api/v1/forms/newsletter/submit", {"data": fields})).status_code == 400


async def test_metrics_and_unsubscribe_need_no_credentials(cio: Service) -> None:
    await cio.ok("PUT", ADA, {"email": "ada@example.com"})
    message = {"to": "ada@example.com", "identifiers": {"id": "ada"}, "transactional_message_id": 1}
    delivery = (await cio.send("POST", "/v1/send/email", message)).json()["delivery_id"]
    opened = {"delivery_id": delivery, "metric": "opened"}
    for path, body in (
        ("/api/v1/metrics", opened),
        ("/api/v1/push/events", {"delivery_id": delivery, "event": "converted"}),
        ("/push/events", {"delivery_id": delivery, "event": "delivered"}),
        (f"/unsubscribe/{delivery}", {"unsubscribe": True}),
    ):
        assert (await cio.http.post(path, json=body)).status_code == 200
    assert (await cio.shown("deliveries"))[0]["metrics"] == ["opened", "converted", "delivered"]
    assert (await cio.person(id="ada"))["stored"]["unsubscribed"] is True
    assert (await cio.http.post(f"/unsubscribe/{delivery}", json={})).status_code == 400
