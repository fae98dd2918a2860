"""Fields with a wrong type or none, each where it is documented, and words that are few."""

from typing import Any

import pytest

from cio_proxy.rules.invalid_field import concerns

from .alone import call, findings

RULE = "invalid-field"
V1, V2, CDP = "track.customer.io/api/v1", "track.customer.io/api/v2/entity", "cdp.customer.io/v1"
WRONG: Any = ["a", {}]
"""Neither a text, a number, true or false, nor an object."""


def said(method: str, url: str, body: Any = None) -> list[tuple[str, str, str]]:
    return [(f.pointer, f.message, f.confidence) for f in findings(RULE, method, url, body)]


def a_list(name: str, wanted: str) -> str:
    return f"`{name}` is a list where {wanted} is documented"


PERSON: dict[str, Any] = {"type": "person", "identifiers": {"id": "42"}}
DELIVERY: dict[str, Any] = {"type": "delivery", "action": "event", "identifiers": {"id": "d"}}
OBJECT = {"object_type_id": "1", "object_id": "2"}
CASES: list[tuple[str, str, dict[str, Any], list[tuple[str, str]]]] = [
    (
        "PUT",
        f"{V1}/customers/42/devices",
        {"device": {"id": WRONG, "platform": WRONG, "last_used": WRONG, "attributes": WRONG}},
        [
            ("/device/id", a_list("id", "a text")),
            ("/device/last_used", a_list("last_used", "a number of seconds")),
            ("/device/attributes", a_list("attributes", "an object")),
            ("/device/platform", a_list("platform", "a text")),
        ],
    ),
    (
        "PUT",
        f"{V1}/customers/42/devices",
        {"device": {"id": "", "platform": ""}},
        [("/device/id", "`id` is missing"), ("/device/platform", "`platform` is missing")],
    ),
    (
        "POST",
        V2,
        {**PERSON, "action": "add_device", "device": {"platform": "ios"}},
        [("/device/token", "`token` is missing")],
    ),
    ("POST", V2, {**PERSON, "action": "delete_device", "device": {"token": "t"}}, []),
    (
        "POST",
        V2,
        {**PERSON, "action": "add_device", "device": {"token": 7, "platform": "ios"}},
        [("/device/token", "`token` is a number where a text is documented")],
    ),
    ("POST", V2, {"type": "object", "action": "delete"}, [("/identifiers", "`identifiers` is missing")]),
    (
        "POST",
        V2,
        {"type": "object", "action": "delete", "identifiers": WRONG},
        [("/identifiers", a_list("identifiers", "an object"))],
    ),
    (
        "POST",
        V2,
        {"type": "object", "action": "delete", "identifiers": {"a": 1}},
        [
            ("/identifiers/object_type_id", "`object_type_id` is missing"),
            ("/identifiers/object_id", "`object_id` is missing"),
        ],
    ),
    ("POST", V2, {"type": "object", "action": "delete", "identifiers": {"cio_object_id": "ob1"}}, []),
    ("POST", V2, {"type": "object", "action": "delete", "identifiers": OBJECT}, []),
    *(
        ("POST", V2, {**DELIVERY, "name": name, "attributes": {"device_token": "t"}}, [])
        for name in ("opened", "converted", "delivered", "Opened")
    ),
    (
        "POST",
        V2,
        {**DELIVERY, "name": "bounced", "attributes": {"device_token": "t"}},
        [("/name", "`name` is none of converted, delivered, opened")],
    ),
    ("POST", V2, {**PERSON, "action": ["identify"]}, [("/action", a_list("action", "a text"))]),
    ("POST", V2, {**PERSON, "type": {"a": 1}}, [("/type", "`type` is an object where a text is documented")]),
    ("POST", V2, {"type": "person", "action": "delete", "identifiers": {"anonymous_id": "a"}}, []),
    (
        "POST",
        V2,
        {"type": "person", "action": "delete", "identifiers": {"id": ""}},
        [("/identifiers", "`identifiers` has none of id, email, phone, cio_id")],
    ),
    (
        "POST",
        V2,
        {"type": "person", "action": "delete", "identifiers": {"id": 7}},
        [("/identifiers/id", "`id` is a number where a text is documented")],
    ),
    (
        "POST",
        f"{V1}/metrics",
        {"delivery_id": "d", "metric": "seen"},
        [
            (
                "/metric",
                "`metric` is none of bounced, clicked, converted, deferred, delivered, dropped, opened, spammed",
            )
        ],
    ),
    ("POST", f"{V1}/metrics", {"delivery_id": "d"}, [("/metric", "`metric` is missing")]),
    ("PUT", f"{V1}/customers/42", {"email": WRONG}, [("/email", a_list("email", "a text"))]),
    ("PUT", f"{V1}/customers/42", {"email": "a@example.com", "id": WRONG}, [("/id", a_list("id", "a text"))]),
    (
        "PUT",
        f"{V1}/customers/42",
        {"anonymous_id": WRONG, "_timestamp": WRONG, "_update": WRONG, "cio_relationships": WRONG},
        [
            ("/anonymous_id", a_list("anonymous_id", "a text")),
            ("/_timestamp", a_list("_timestamp", "a number of seconds")),
            ("/_update", a_list("_update", "true or false")),
            ("/cio_relationships", a_list("cio_relationships", "an object")),
        ],
    ),
    (
        "PUT",
        f"{V1}/customers/42",
        {"cio_subscription_preferences": WRONG},
        [("/cio_subscription_preferences", a_list("cio_subscription_preferences", "an object"))],
    ),
    (
        "PUT",
        f"{V1}/customers/42",
        {"cio_subscription_preferences": {"topics": WRONG}},
        [("/cio_subscription_preferences/topics", a_list("topics", "an object"))],
    ),
    ("POST", f"{V1}/customers/42/events", {"name": ""}, [("/name", "`name` is empty")]),
    *(
        (
            "POST",
            f"{V1}/customers/42/events",
            {"name": "a", "type": kind, "data": WRONG, "timestamp": WRONG},
            [("/data", a_list("data", "an object")), ("/timestamp", a_list("timestamp", "a number of seconds"))],
        )
        for kind in ("event", "page", "screen")
    ),
    (
        "POST",
        f"{V1}/merge_customers",
        {},
        [("/primary", "`primary` is missing"), ("/secondary", "`secondary` is missing")],
    ),
    (
        "POST",
        V2,
        {"type": "person", "action": "merge"},
        [("/primary", "`primary` is missing"), ("/secondary", "`secondary` is missing")],
    ),
    *(
        (
            "POST",
            V2,
            {**PERSON, "action": action, "name": "a", "attributes": WRONG, "timestamp": WRONG},
            [
                ("/attributes", a_list("attributes", "an object")),
                ("/timestamp", a_list("timestamp", "a number of seconds")),
            ],
        )
        for action in ("event", "page", "screen")
    ),
    *(
        (
            "POST",
            V2,
            {**about, "attributes": WRONG, "timestamp": WRONG, "cio_relationships": {}},
            [
                ("/attributes", a_list("attributes", "an object")),
                ("/timestamp", a_list("timestamp", "a number of seconds")),
                ("/cio_relationships", "`cio_relationships` is an object where a list is documented"),
            ],
        )
        for about in (
            {**PERSON, "action": "identify"},
            {"type": "object", "action": "identify", "identifiers": OBJECT},
            {"type": "object", "action": "identify_anonymous", "identifiers": OBJECT},
        )
    ),
    *(
        ("POST", V2, {**about, "action": action}, [("/cio_relationships", "`cio_relationships` is missing")])
        for about in (PERSON, {"type": "object", "identifiers": OBJECT})
        for action in ("add_relationships", "delete_relationships")
    ),
    ("POST", V2, {**DELIVERY, "attributes": {"device_token": "t"}}, [("/name", "`name` is missing")]),
    *(
        (
            "POST",
            f"{CDP}/{kind}",
            {"userId": WRONG, "anonymousId": WRONG, held: WRONG, **more},
            [
                ("/userId", a_list("userId", "a text")),
                ("/anonymousId", a_list("anonymousId", "a text")),
                (f"/{held}", a_list(held, "an object")),
            ],
        )
        for kind, held, more in (
            ("identify", "traits", {}),
            ("track", "properties", {"event": "a"}),
            ("page", "properties", {}),
            ("screen", "properties", {}),
            ("group", "traits", {"groupId": "g"}),
        )
    ),
    (
        "POST",
        f"{CDP}/alias",
        {},
        [("/userId", "`userId` is missing"), ("/previousId", "`previousId` is missing")],
    ),
    (
        "POST",
        f"{CDP}/track",
        {"event": "a", "groupId": "", "userId": "", "anonymousId": ""},
        [("/userId", "`track` has neither userId nor anonymousId")],
    ),
    ("POST", f"{CDP}/track", {"event": "a", "groupId": "g"}, []),
    ("POST", f"{CDP}/page", {"groupId": "g"}, [("/userId", "`page` has neither userId nor anonymousId")]),
    ("POST", f"{CDP}/page", {}, [("/userId", "`page` has neither userId nor anonymousId")]),
    ("POST", f"{CDP}/screen", {"userId": None}, [("/userId", "`screen` has neither userId nor anonymousId")]),
    (
        "POST",
        f"{CDP}/batch",
        {"batch": [{"type": WRONG, "userId": "4"}]},
        [("/batch/0/type", a_list("type", "a text"))],
    ),
    (
        "POST",
        f"{CDP}/batch",
        {"batch": [{"type": "tracked", "userId": "4"}]},
        [("/batch/0/type", "`type` is none of identify, track, page, screen, group, alias")],
    ),
]


@pytest.mark.parametrize(("method", "url", "body", "wanted"), CASES)
def test_what_is_said_of_a_call(method: str, url: str, body: Any, wanted: list[tuple[str, str]]) -> None:
    assert [(pointer, message) for pointer, message, _ in said(method, url, body)] == wanted


@pytest.mark.parametrize("time", [1_700_000_000, 1_700_000_000.5])
def test_a_time_may_have_a_fraction_of_a_second(time: float) -> None:
    assert said("POST", f"{V1}/customers/42/events", {"name": "a", "timestamp": time}) == []
    assert said("POST", V2, {**PERSON, "action": "event", "name": "a", "timestamp": time}) == []


@pytest.mark.parametrize("update", [1, "true"])
def test_what_may_be_read_as_true_is_possible(update: Any) -> None:
    assert [sure for *_, sure in said("PUT", f"{V1}/customers/42", {"_update": update})] == ["possible"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("PUT customers/42", {}),
        ("PUT customers/42", {"email": "ada@example.com", "created_at": 1_700_000_000, "plan": ["pro"]}),
        ("PUT customers/42", {"email": None, "id": None, "_update": True, "_timestamp": 1.5, "cio_relationships": {}}),
        ("POST customers/42/events", {"name": "order_placed"}),
        ("POST customers/42/events", {"name": "order_placed", "data": {"total": 12.5}, "timestamp": 1_700_000_000}),
        ("POST events", {"name": "/pricing", "type": "page", "data": None}),
        ("POST events", {"name": "Settings", "type": "screen", "anonymous_id": "a"}),
    ],
)
def test_a_plain_call_of_track_v1_is_passed_over_by_its_form(route: str, body: Any) -> None:
    method, path = route.split()
    assert not concerns(call(method, f"{V1}/{path}", body).form)


def test_what_is_sent_to_no_route_is_another_rules_business() -> None:
    assert said("POST", "track.customer.io/api/v2/entities", {"a": 1}) == []


SEGMENT = f"{V1}/segments/7/add_customers"


@pytest.mark.parametrize(
    "query", ["", "?id_type=id", "?id_type=email", "?id_type=cio_id", "?a=b&id_type=email&c", "?x?id_type=a"]
)
def test_kinds_of_ids_that_there_are(query: str) -> None:
    assert said("POST", SEGMENT + query, {"ids": ["1"]}) == []


@pytest.mark.parametrize("query", ["?id_type=phone", "?a=b&id_type=ID", "?id_type=", "?a&id_type=x?id_type=id"])
def test_kinds_of_ids_that_there_are_not(query: str) -> None:
    message = "`id_type` is none of id, email, cio_id"
    assert said("POST", SEGMENT + query, {"ids": ["1"]}) == [("query:id_type", message, "certain")]


def test_a_number_that_is_none_is_a_number() -> None:
    body = b'{"userId": NaN, "event": 1.5}'
    assert said("POST", f"{CDP}/track", body) == [
        ("/userId", "`userId` is a number where a text is documented", "possible"),
        ("/event", "`event` is a number where a text is documented", "certain"),
    ]


def test_an_empty_list_for_an_optional_object_is_what_php_writes() -> None:
    assert [sure for *_, sure in said("POST", f"{V1}/customers/42/events", {"name": "a", "data": []})] == ["possible"]
    assert [sure for *_, sure in said("PUT", f"{V1}/customers/42/devices", {"device": []})] == ["certain"]
    assert [sure for *_, sure in said("POST", V2, {**PERSON, "action": "delete", "identifiers": []})] == ["certain"]
