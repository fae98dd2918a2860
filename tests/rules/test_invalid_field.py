"""Fields with a wrong type or none, each where it is documented, and words that are few."""

from typing import Any

import pytest

from .alone import concerned, findings

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
    *(
        (
            "POST",
            f"{CDP}/{call}",
            {"userId": WRONG, "anonymousId": WRONG, held: WRONG, **more},
            [
                ("/userId", a_list("userId", "a text")),
                ("/anonymousId", a_list("anonymousId", "a text")),
                (f"/{held}", a_list(held, "an object")),
            ],
        )
        for call, held, more in (
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


TEXT, SECONDS, OBJECT_WORDS, LIST_WORDS = "a text", "a number of seconds", "an object", "a list"
EVENT_FIELDS = {"name": TEXT, "data": OBJECT_WORDS, "timestamp": SECONDS}
EVENT_FIELDS_V2 = {"name": TEXT, "attributes": OBJECT_WORDS, "timestamp": SECONDS}
DESCRIBED = {"attributes": OBJECT_WORDS, "timestamp": SECONDS, "cio_relationships": LIST_WORDS}
RELATED = {"cio_relationships": LIST_WORDS}
IDENTIFY_FIELDS = {
    "id": TEXT,
    "email": TEXT,
    "anonymous_id": TEXT,
    "_timestamp": SECONDS,
    "_update": "true or false",
    "cio_subscription_preferences": OBJECT_WORDS,
    "cio_relationships": OBJECT_WORDS,
}
MERGE_FIELDS = {"primary": OBJECT_WORDS, "secondary": OBJECT_WORDS}
THING: dict[str, Any] = {"type": "object", "identifiers": OBJECT}
DOCUMENTED: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    ("PUT", f"{V1}/customers/42", {}, IDENTIFY_FIELDS),
    ("POST", f"{V1}/customers/42/events", {}, EVENT_FIELDS),
    ("POST", f"{V1}/customers/42/events", {"type": "page"}, EVENT_FIELDS),
    ("POST", f"{V1}/customers/42/events", {"type": "screen"}, EVENT_FIELDS),
    ("PUT", f"{V1}/customers/42/devices", {}, {"device": OBJECT_WORDS}),
    ("POST", f"{V1}/merge_customers", {}, MERGE_FIELDS),
    ("POST", f"{V1}/segments/7/add_customers", {}, {"ids": LIST_WORDS}),
    ("POST", f"{V1}/segments/7/remove_customers", {}, {"ids": LIST_WORDS}),
    ("POST", f"{V1}/forms/f/submit", {}, {"data": OBJECT_WORDS}),
    ("POST", f"{V1}/metrics", {}, {"delivery_id": TEXT, "metric": TEXT}),
    ("POST", V2, {**PERSON, "action": "identify"}, DESCRIBED),
    *(("POST", V2, {**PERSON, "action": action}, EVENT_FIELDS_V2) for action in ("event", "page", "screen")),
    ("POST", V2, {**PERSON, "action": "add_relationships"}, RELATED),
    ("POST", V2, {**PERSON, "action": "delete_relationships"}, RELATED),
    ("POST", V2, {"type": "person", "action": "merge"}, MERGE_FIELDS),
    ("POST", V2, {**THING, "action": "identify"}, DESCRIBED),
    ("POST", V2, {**THING, "action": "identify_anonymous"}, DESCRIBED),
    ("POST", V2, {**THING, "action": "add_relationships"}, RELATED),
    ("POST", V2, {**THING, "action": "delete_relationships"}, RELATED),
    ("POST", V2, DELIVERY, {"name": TEXT, "attributes": OBJECT_WORDS}),
]


@pytest.mark.parametrize(("method", "url", "body", "fields"), DOCUMENTED)
def test_every_documented_field_of_another_type(
    method: str, url: str, body: dict[str, Any], fields: dict[str, str]
) -> None:
    wrong: dict[str, Any] = {name: {"a": 1} if words == LIST_WORDS else WRONG for name, words in fields.items()}
    is_said = {
        f"/{name}": f"`{name}` is {'an object' if words == LIST_WORDS else 'a list'} where {words} is documented"
        for name, words in fields.items()
    }
    assert {pointer: message for pointer, message, _ in said(method, url, {**body, **wrong})} == is_said
    assert {sure for *_, sure in said(method, url, {**body, **wrong})} == {"certain"}


NEEDED = {"name", "device", "primary", "secondary", "ids", "data", "delivery_id", "metric"}


@pytest.mark.parametrize(("method", "url", "body", "fields"), DOCUMENTED)
def test_every_documented_field_that_is_needed(
    method: str, url: str, body: dict[str, Any], fields: dict[str, str]
) -> None:
    needed = {name for name in fields if name in NEEDED or fields == RELATED or body == DELIVERY}
    if fields == EVENT_FIELDS:
        needed -= {"data"}
    assert {pointer: message for pointer, message, _ in said(method, url, body)} == {
        f"/{name}": f"`{name}` is missing" for name in needed
    }


PEOPLE, EVENTS = ("PUT", f"{V1}/customers/42"), ("POST", f"{V1}/customers/42/events")
PLAIN: list[tuple[str, str, dict[str, Any]]] = [
    (*PEOPLE, {}),
    (*PEOPLE, {"email": "a@example.com", "_timestamp": 1, "_update": True, "id": None, "plan": ["any"]}),
    (*EVENTS, {"name": "a", "data": {"b": 1}, "timestamp": 1.5, "more": [1]}),
    (*EVENTS, {"name": "a", "data": None}),
    (*EVENTS, {"name": "/a", "type": "page"}),
    (*EVENTS, {"name": "a", "type": "screen", "data": {}}),
    ("POST", f"{V1}/events", {"name": "a", "anonymous_id": "b"}),
]


@pytest.mark.parametrize(("method", "url", "body"), PLAIN)
def test_plain_calls_as_documented_are_not_even_looked_at(method: str, url: str, body: dict[str, Any]) -> None:
    assert not concerned(RULE, method, url, body)


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        (*PEOPLE, {"id": ""}),
        (*PEOPLE, {"id": "a"}),  # which may be blank
        (*PEOPLE, {"_timestamp": "1"}),
        (*PEOPLE, {"cio_subscription_preferences": {"topics": 7}}),
        (*EVENTS, {"data": {}}),
        (*EVENTS, {"name": None}),
        (*EVENTS, {"name": " "}),
        (*EVENTS, {"name": 1}),
        ("PUT", f"{V1}/customers/42/devices", {"device": {"id": "a", "platform": "ios"}}),
        ("POST", V2, {**PERSON, "action": "event", "name": "a"}),
        ("POST", f"{CDP}/track", {"userId": "4", "event": "a"}),
    ],
)
def test_other_calls_are_looked_at(method: str, url: str, body: dict[str, Any]) -> None:
    assert concerned(RULE, method, url, body)


@pytest.mark.parametrize(("method", "url", "body", "wanted"), CASES)
def test_what_is_said_of_a_call(method: str, url: str, body: Any, wanted: list[tuple[str, str]]) -> None:
    assert [(pointer, message) for pointer, message, _ in said(method, url, body)] == wanted


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


@pytest.mark.parametrize(
    ("body", "where"),
    [
        *(({"_update": value}, "/_update") for value in (0, 1, "true")),
        *(({name: 7.5}, f"/{name}") for name in ("id", "email", "anonymous_id")),
        ({"_timestamp": "1700000000"}, "/_timestamp"),
    ],
)
def test_what_may_be_read_all_the_same_is_possible(body: dict[str, Any], where: str) -> None:
    assert [(pointer, sure) for pointer, _, sure in said("PUT", f"{V1}/customers/42", body)] == [(where, "possible")]


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
