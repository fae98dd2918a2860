"""Each word and template, and each place where an identifier stands."""

from typing import Any

import pytest

from cio_proxy.rules.placeholder_identifier import is_placeholder

from .alone import told

RULE = "placeholder-identifier"
TRACK, CDP = "track.customer.io/api", "cdp.customer.io/v1"
PLACEHOLDERS = [
    *("undefined", "null", "NaN", "[object Object]", "%s", "%d", "%i", "{{ customer.id }}", "{{{id}}}", "{% id %}"),
    *("${id}", "#{id}", "%{id}", "{id}", "{User_id}", "{_a.B}", "%(id)s", "%(User_1)d", "<%= id %>"),
]
IDENTIFIERS = [
    *("", "42", "Undefined", "NULL", "nan", "[object Array]", "%x", "%", "{{id}} ", "{{{id}}", "{%id}", "{id", "$id"),
    *(
        "{6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38}",
        "{1}",
        "{a1}",
        "%(1)s",
        "%(id)x",
        "<id>",
        "<%id>",
        "{{a}b}",
        "nullable",
    ),
]


@pytest.mark.parametrize("word", PLACEHOLDERS)
def test_a_word_or_a_template_that_is_nobodys_identifier(word: str) -> None:
    assert is_placeholder(word)


@pytest.mark.parametrize("word", IDENTIFIERS)
def test_an_identifier_that_may_be_somebodys(word: str) -> None:
    assert not is_placeholder(word)


def item(action: str, **parts: Any) -> dict[str, Any]:
    return {"type": "person", "action": action, **parts}


X, OK = "undefined", "42"
PLACES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("PUT", f"{TRACK}/v1/customers/42", {"id": X, "email": X, "anonymous_id": X}, ["/id", "/email", "/anonymous_id"]),
    ("PUT", f"{TRACK}/v1/customers/42", {"userId": X, "phone": X, "name": X}, []),
    ("POST", f"{TRACK}/v1/events", {"name": X, "anonymous_id": X, "id": X}, ["/anonymous_id"]),
    ("POST", f"{TRACK}/v1/events", {"name": "a", "type": "page", "anonymous_id": X}, ["/anonymous_id"]),
    ("POST", f"{TRACK}/v1/events", {"name": "a", "type": "screen", "anonymous_id": X}, ["/anonymous_id"]),
    (
        "POST",
        f"{TRACK}/v1/merge_customers",
        {"primary": {"id": X}, "secondary": {"email": X}},
        ["/primary/id", "/secondary/email"],
    ),
    ("POST", f"{TRACK}/v1/forms/f/submit", {"data": {"id": X, "email": X, "name": X}}, ["/data/id", "/data/email"]),
    (
        "POST",
        f"{TRACK}/v2/entity",
        item("identify", identifiers={"id": X}, attributes={"id": X, "email": X, "anonymous_id": X, "name": X}),
        ["/identifiers/id", "/attributes/id", "/attributes/email", "/attributes/anonymous_id"],
    ),
    (
        "POST",
        f"{TRACK}/v2/entity",
        item("merge", primary={"cio_id": X}, secondary={"id": X}, identifiers={"id": X}),
        ["/primary/cio_id", "/secondary/id"],
    ),
    (
        "POST",
        f"{TRACK}/v2/entity",
        item("event", name=X, identifiers={"id": X}, attributes={"id": X}),
        ["/identifiers/id"],
    ),
    (
        "POST",
        f"{CDP}/identify",
        {"userId": X, "anonymousId": X, "traits": {"email": X, "id": X}},
        ["/userId", "/anonymousId", "/traits/email"],
    ),
    ("POST", f"{CDP}/alias", {"userId": X, "previousId": X, "anonymousId": X}, ["/userId", "/previousId"]),
    (
        "POST",
        f"{CDP}/track",
        {"userId": X, "anonymousId": X, "groupId": X, "event": X, "traits": {"email": X}},
        ["/userId", "/anonymousId", "/groupId"],
    ),
    ("POST", "api.customer.io/v1/send/email", {"to": X, "identifiers": {"id": X, "email": OK}}, ["/identifiers/id"]),
    ("POST", "api.customer.io/v1/send/email", {"identifiers": X}, []),
    ("POST", f"{TRACK}/v1/segments/7/add_customers", {"ids": [OK, X, X]}, ["/ids/1"]),
    ("POST", f"{TRACK}/v1/segments/7/remove_customers", {"ids": [1, None, X]}, ["/ids/2"]),
    ("POST", f"{TRACK}/v1/segments/7/remove_customers", {"ids": X}, []),
    ("POST", f"{TRACK}/v1/segments/7/remove_customers", {"ids": [OK]}, []),
    (
        "POST",
        f"{TRACK}/v2/batch",
        {"batch": [item("delete", identifiers={"id": OK}), item("delete", identifiers={"id": X, "email": X})]},
        ["/batch/1/identifiers/id", "/batch/1/identifiers/email"],
    ),
    ("POST", f"{CDP}/batch", {"batch": [{"type": "page", "userId": X}]}, ["/batch/0/userId"]),
]
LINKS: list[Any] = [{"identifiers": {"id": OK}}, None, {"identifiers": X}, {"identifiers": {"id": OK, "a/b": X}}]


@pytest.mark.parametrize(("method", "url", "body", "wanted"), PLACES)
def test_identifiers_are_looked_for_where_they_stand(
    method: str, url: str, body: dict[str, Any], wanted: list[str]
) -> None:
    assert told(RULE, method, url, body) == [(pointer, "certain") for pointer in wanted]


def test_the_other_end_of_a_relationship() -> None:
    body: dict[str, Any] = {"cio_relationships": {"relationships": LINKS}}
    at = "/cio_relationships/relationships/3/identifiers/a~1b"
    assert told(RULE, "PUT", f"{TRACK}/v1/customers/42", body) == [(at, "certain")]
    body = item("identify", identifiers={"id": OK}, cio_relationships=LINKS)
    at = "/cio_relationships/3/identifiers/a~1b"
    assert told(RULE, "POST", f"{TRACK}/v2/entity", body) == [(at, "certain")]
    assert told(RULE, "PUT", f"{TRACK}/v1/customers/42", {"cio_relationships": X}) == []
    for links in (X, 7, {"identifiers": {"id": X}}):
        assert told(RULE, "PUT", f"{TRACK}/v1/customers/42", {"cio_relationships": {"relationships": links}}) == []


@pytest.mark.parametrize("segment", ["undefined", "cio_null", "%7Bid%7D", "%7B%7Bid%7D%7D"])
def test_the_person_of_the_path(segment: str) -> None:
    for method, route, body in (("PUT", "", {"a": 1}), ("POST", "/events", {"name": "a"}), ("DELETE", "", None)):
        for query in ("", "?a=/customers/42", "?"):
            url = f"{TRACK}/v1/customers/{segment}{route}{query}"
            assert told(RULE, method, url, body) == [("path:", "certain")]


def test_the_same_identifier_in_path_and_body_is_one_fault() -> None:
    url = f"{TRACK}/v1/customers/undefined"
    assert told(RULE, "PUT", url, {"id": X}) == [("path:", "certain")]
    assert told(RULE, "PUT", url, {"id": X, "email": X}) == [("path:", "certain"), ("/email", "certain")]
    assert told(RULE, "PUT", url, {"email": X}) == [("path:", "certain"), ("/email", "certain")]
    assert told(RULE, "PUT", f"{TRACK}/v1/customers/ada@example.com", {"id": X}) == [("/id", "certain")]
