"""`unplanned-event`: what counts as beside a plan, word by word and type by type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.config import plan
from cio_proxy.model import JSON_TYPES, Settings

from .alone import findings, told

CUSTOMER = "track.customer.io/api/v1/customers/42"
OTHERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda deeper: st.lists(deeper) | st.dictionaries(st.text(), deeper),
)


def planned(**parts: Any) -> Settings:
    return Settings(plan=plan(parts))


def event(data: Any, *, name: str = "order_placed", **attributes: Any) -> list[tuple[str, str]]:
    """What is said of an event of the one name that is planned, with these attributes."""
    settings = planned(events={"order_placed": {"attributes": attributes}})
    return told("unplanned-event", "POST", f"{CUSTOMER}/events", {"name": name, "data": data}, settings=settings)


def person(sent: Any, **attributes: Any) -> list[str]:
    settings = planned(person={"attributes": attributes})
    return [pointer for pointer, _ in told("unplanned-event", "PUT", CUSTOMER, sent, settings=settings)]


VALUES: dict[str, list[Any]] = {
    "string": ["", "x", "12"],
    "number": [0, -1, 2.5, 1e300],
    "integer": [0, 12, 3.0],
    "boolean": [True, False],
    "object": [{}, {"a": 1}],
    "array": [[], [1]],
}
FITTING = {("integer", "number")}


@pytest.mark.parametrize("sent", JSON_TYPES)
@pytest.mark.parametrize("wanted", JSON_TYPES)
def test_a_value_fits_its_own_type_and_a_whole_number_is_a_number(sent: str, wanted: str) -> None:
    for value in VALUES[sent]:
        fits = (
            sent == wanted
            or (sent, wanted) in FITTING
            or (wanted == "integer" and value in (0, -1) and sent == "number")
        )
        fits = fits or (wanted == "integer" and value == 1e300)
        assert event({"total": value}, total=wanted) == ([] if fits else [("/data/total", "certain")])
        assert event({"total": value}, total=[wanted, sent]) == []
        assert event({"total": value}, total="any") == []


def test_a_finding_says_both_types() -> None:
    settings = planned(events={"order_placed": {"attributes": {"total": ["number", "string"]}}})
    body = {"name": "order_placed", "data": {"total": [1]}}
    (finding,) = findings("unplanned-event", "POST", f"{CUSTOMER}/events", body, settings=settings)
    assert finding.message == "`total` is array, and string or number in the tracking plan"
    assert finding.name == "order_placed"
    assert finding.fix == "Send `total` as string or number."


@pytest.mark.parametrize("name", ["OrderPlaced", "order-placed", "ORDER PLACED", "orderPlaced"])
def test_an_event_of_another_spelling_is_told_with_the_planned_one(name: str) -> None:
    settings = planned(events={"order_placed": {}})
    (finding,) = findings("unplanned-event", "POST", f"{CUSTOMER}/events", {"name": name}, settings=settings)
    assert (finding.pointer, finding.corrected) == ("/name", "order_placed")
    assert finding.message == "the event is not in the tracking plan, which has `order_placed`"


def test_an_event_without_a_likeness_has_no_corrected_name() -> None:
    settings = planned(events={"order_placed": {}})
    (finding,) = findings("unplanned-event", "POST", f"{CUSTOMER}/events", {"name": "gone"}, settings=settings)
    assert (finding.corrected, finding.message) == (None, "the event is not in the tracking plan")


def test_space_around_an_event_name_is_another_matter() -> None:
    assert event({}, name=" order_placed ") == []
    settings = planned(events={" order placed ": {}})
    assert told("unplanned-event", "POST", f"{CUSTOMER}/events", {"name": " order placed "}, settings=settings) == []


@pytest.mark.parametrize("name", ["recipient", "from_address", "reply_to", "_x", "cio_x"])
def test_event_data_that_customer_io_reads_need_not_be_planned(name: str) -> None:
    assert event({name: "x"}) == []
    assert event({name: 1}, **{name: "string"}) == [(f"/data/{name}", "certain")]


@pytest.mark.parametrize(
    "name",
    [
        *("id", "email", "phone", "cio_id", "anonymous_id", "created_at", "createdAt", "unsubscribed", "timezone"),
        *("language", "_update", "cio_subscription_preferences", "cio_subscription_preferences.topics.topic_1"),
    ],
)
def test_what_customer_io_knows_of_people_need_not_be_planned(name: str) -> None:
    assert person({name: "x"}) == []
    assert person({name: "x"}, **{name: "number"}) == [f"/{name}"]


@pytest.mark.parametrize("name", ["recipient", "plan", "emails", "timezones", "xcio_", "x_"])
def test_other_attributes_of_people_do(name: str) -> None:
    assert person({name: "x"}) == [f"/{name}"]


@pytest.mark.parametrize("name", ["ada@example.com", "step_6f1c2a34-9a51-4c7e-8f3f-0d3b0f4f9c11"])
def test_a_name_that_holds_a_value_is_left_to_other_rules(name: str) -> None:
    assert event({name: 1}) == []
    assert person({name: 1}) == []
    assert event({}, name=name) == []


@pytest.mark.parametrize("data", ["text", 5, True, [1]])
def test_data_that_is_no_object_lacks_nothing(data: object) -> None:
    assert event(data, order_id={"required": True}) == []


@pytest.mark.parametrize("data", [None, {}])
def test_no_data_lacks_what_is_required(data: object) -> None:
    assert event(data, order_id={"required": True}) == [("/data/order_id", "certain")]


def test_null_hides_nothing_after_it() -> None:
    assert event({"a": None, "b": 1}) == [("/data/b", "certain")]


def test_the_data_of_each_api_is_judged_where_it_stands() -> None:
    settings = planned(events={"order_placed": {"attributes": {"id": {"required": True}}}})
    for url, body, pointer in (
        (
            "track.customer.io/api/v2/entity",
            {"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "order_placed"},
            "/attributes/id",
        ),
        ("cdp.customer.io/v1/track", {"userId": "42", "event": "order_placed"}, "/properties/id"),
    ):
        assert told("unplanned-event", "POST", url, body, settings=settings) == [(pointer, "certain")]
        part = pointer.split("/")[1]
        assert told("unplanned-event", "POST", url, {**body, part: "text"}, settings=settings) == []


def test_in_a_batch_an_item_whose_data_is_no_object_lacks_nothing() -> None:
    settings = planned(events={"order_placed": {"attributes": {"id": {"required": True}}}})
    item = {"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "order_placed"}
    batch = {"batch": [{**item, "attributes": "text"}, item]}
    where = "track.customer.io/api/v2/batch"
    assert told("unplanned-event", "POST", where, batch, settings=settings) == [("/batch/1/attributes/id", "certain")]


@given(OTHERS, OTHERS)
def test_any_event_is_judged_without_an_error(name: object, data: object) -> None:
    settings = planned(events={"order_placed": {"attributes": {"total": "integer"}}}, person={})
    for body in ({"name": name, "data": data}, {"name": "order_placed", "data": {"total": data}}):
        findings("unplanned-event", "POST", f"{CUSTOMER}/events", body, settings=settings)
    findings("unplanned-event", "PUT", CUSTOMER, {"x": data}, settings=settings)


SENT_BY_SDKS = (
    "Application Installed",
    "Application Opened",
    "Application Updated",
    "Application Backgrounded",
    "Application Foregrounded",
    "Application Crashed",
    "Application Uninstalled",
    "Deep Link Opened",
    "Push Notification Received",
    "Push Notification Tapped",
    "Push Notification Bounced",
)


@pytest.mark.parametrize("name", SENT_BY_SDKS)
def test_what_a_mobile_sdk_sends_by_itself_need_not_be_planned(name: str) -> None:
    body = {"userId": "1", "event": name}
    settings = planned(events={"order_placed": {}})
    assert told("unplanned-event", "POST", "cdp.customer.io/v1/track", body, settings=settings) == []
    assert event({}, name=name) == [("/name", "certain")]


def test_an_empty_text_clears_an_attribute_of_a_person_alone() -> None:
    assert person({"seats": ""}, seats="integer") == []
    assert person({"sets": ""}, seats="integer") == ["/sets"]
    assert event({"total": ""}, total="number") == [("/data/total", "certain")]
