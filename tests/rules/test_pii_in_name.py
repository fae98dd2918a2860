"""Each place of a name, each word that makes a version of an address, and how many names are looked at."""

from typing import Any

import pytest

from .alone import findings, told

RULE = "pii-in-name"
MAIL, IP = "ada@example.com", "81.2.69.142"
EVENTS = "track.customer.io/api/v1/customers/42/events"


def event(name: str) -> list[tuple[str, str]]:
    return told(RULE, "POST", EVENTS, {"name": name})


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        (MAIL, "certain"),
        ("ada%40example.com", "certain"),
        ("4111 1111 1111 1111", "certain"),
        ("DE89370400440532013000", "certain"),
        ("+4915112345678", "likely"),
        (IP, "likely"),
        ("23.10.0.5", "possible"),
        (f"{IP} {MAIL}", "certain"),
        (f"23.10.0.5 {IP}", "likely"),
        (f"{MAIL} 23.10.0.5", "certain"),
    ],
)
def test_the_surest_part_of_a_name_counts(text: str, confidence: str) -> None:
    (finding,) = findings(RULE, "POST", EVENTS, {"name": f"seen_by {text}"})
    assert (finding.pointer, finding.confidence) == ("/name", confidence)
    assert finding.refusable == (confidence == "certain")


def test_what_is_told_of_is_the_surest_part_too() -> None:
    (finding,) = findings(RULE, "POST", EVENTS, {"name": f"seen {IP} {MAIL}"})
    assert finding.message == "the event name holds an e-mail address"
    (finding,) = findings(RULE, "POST", EVENTS, {"name": f"seen {MAIL} {IP}"})
    assert finding.message == "the event name holds an e-mail address"


def test_a_name_is_read_once_decoded() -> None:
    assert event("to ada%2540example.com") == event("to ada%40example.com") == [("/name", "certain")]
    assert event("100% ada") == []
    assert event("%2B4915112345678") == [("/name", "likely")]


@pytest.mark.parametrize(
    "word",
    [
        *("v", "V", "ver", "Ver.", "version ", "VERSION:", "release-", "Release_", "build ", "BUILD", "upgrade to "),
        *("upgraded_to ", "update-to_", "Updated to ", "see //", "http://"),
    ],
)
def test_an_address_after_such_a_word_is_none(word: str) -> None:
    assert event(f"{word}{IP}") == []
    assert event(f"a {word}{IP}") == []


@pytest.mark.parametrize("word", ["", "from ", "to ", "updating to ", "/", "version is ", "version  "])
def test_an_address_after_another_word_is_one(word: str) -> None:
    assert event(f"{word}{IP}") == [("/name", "likely")]


def test_an_address_of_ones_own_network_is_nobodys() -> None:
    assert event("seen_by 192.168.0.1") == []
    assert event(f"192.168.0.1 and {IP}") == [("/name", "likely")]


PLACES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("POST", EVENTS, {"name": MAIL}, "/name", "event name"),
    ("POST", EVENTS, {"name": MAIL, "type": "page"}, "/name", "name or address of a page"),
    ("POST", EVENTS, {"name": MAIL, "type": "screen"}, "/name", "screen name"),
    ("POST", "track.customer.io/api/v1/forms/ada@example.com/submit", {"data": {}}, "path:", "form name"),
    ("POST", EVENTS, {"name": "a", "data": {MAIL: 1}}, f"/data/{MAIL}", "name in the event's data"),
    ("POST", EVENTS, {"name": "a", "data": {"a": 1, f"b/ {MAIL}": 1}}, f"/data/b~1 {MAIL}", "name in the event's data"),
    ("PUT", "track.customer.io/api/v1/customers/42", {"a": 1, MAIL: 1}, f"/{MAIL}", "attribute name"),
    (
        "POST",
        "cdp.customer.io/v1/group",
        {"userId": "4", "groupId": "g", "objectTypeId": MAIL},
        "/objectTypeId",
        "object type",
    ),
    (
        "POST",
        "track.customer.io/api/v2/entity",
        {"type": "object", "action": "identify", "identifiers": {"object_type_id": MAIL, "object_id": "1"}},
        "/identifiers/object_type_id",
        "object type",
    ),
    (
        "POST",
        "track.customer.io/api/v2/batch",
        {
            "batch": [
                {"type": "object", "action": "identify", "identifiers": {"object_type_id": MAIL, "object_id": "1"}}
            ]
        },
        "/batch/0/identifiers/object_type_id",
        "object type",
    ),
    ("POST", "cdp.customer.io/v1/track", {"userId": "4", "event": MAIL}, "/event", "event name"),
    ("PUT", "api.customer.io/v1/transactional/3", {"name": MAIL}, "/name", "name"),
    ("POST", "cdp.customer.io/v1/screen", {"userId": "4", "name": MAIL}, "/name", "screen name"),
    *(
        (
            "POST",
            "cdp.customer.io/v1/page",
            {"userId": "4", "properties": {key: f"/a?m={MAIL}"}},
            f"/properties/{key}",
            page,
        )
        for key, page in dict.fromkeys(("url", "path", "search", "referrer"), "name or address of a page").items()
    ),
]


@pytest.mark.parametrize(("method", "url", "body", "pointer", "what"), PLACES)
def test_each_place_of_a_name(method: str, url: str, body: dict[str, Any], pointer: str, what: str) -> None:
    (finding,) = findings(RULE, method, url, body)
    assert finding.pointer in (pointer, pointer.replace(MAIL, "<email>"))
    assert finding.message == f"the {what} holds an e-mail address"
    assert finding.refusable == (what in ("event name", "segment name"))


def test_the_names_of_a_page_are_one_fault_and_other_names_are_not() -> None:
    body = {"userId": "4", "name": MAIL, "properties": {"url": f"/{MAIL}", "path": f"/{MAIL}", MAIL: 1}}
    found = findings(RULE, "POST", "cdp.customer.io/v1/page", body)
    assert [f.message.partition(" holds ")[0] for f in found] == [
        "the name or address of a page",
        "the name in the event's data",
    ]
    assert told(RULE, "POST", "cdp.customer.io/v1/page", {"userId": "4", "properties": {"title": MAIL, "url": 7}}) == []


def test_a_thousand_names_are_looked_at() -> None:
    many = {f"a{n}": n for n in range(999)}
    for url, method, wrap in (
        ("track.customer.io/api/v1/customers/42", "PUT", lambda held: held),
        (EVENTS, "POST", lambda held: {"name": "a", "data": held}),
    ):
        assert len(told(RULE, method, url, wrap({**many, MAIL: 1}))) == 1
        assert told(RULE, method, url, wrap({**many, "b": 1, MAIL: 1})) == []
        assert len(told(RULE, method, url, wrap({"a@example.com": 1, **many, MAIL: 1}))) == 1


def test_what_a_name_is_shown_without() -> None:
    (finding,) = findings(RULE, "POST", EVENTS, {"name": f"{MAIL}?a=b"})
    assert "?" not in str(finding.name)
