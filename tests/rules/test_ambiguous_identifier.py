"""Every route under a person's identifier, with each byte that has to be encoded."""

import pytest

from .alone import findings, told

PEOPLE = "track.customer.io/api/v1/customers/"
ROUTES = [
    ("PUT", "", {"email": "ada@example.com"}),
    ("DELETE", "", None),
    ("POST", "/events", {"name": "a"}),
    ("POST", "/suppress", None),
    ("POST", "/unsuppress", None),
    ("PUT", "/devices", {"device": {"id": "d", "platform": "ios"}}),
    ("DELETE", "/devices/d", None),
]
each_route = pytest.mark.parametrize(("method", "route", "body"), ROUTES, ids=str)


@each_route
def test_an_identifier_that_is_well_encoded_is_fine(method: str, route: str, body: object) -> None:
    for identifier in ("42", "a%2Fb", "ada%2Bnews%40example.com", "a%26b", "events", "devices"):
        assert told("ambiguous-identifier", method, f"{PEOPLE}{identifier}{route}", body) == []


@each_route
@pytest.mark.parametrize(
    ("identifier", "confidence"), [("ada+news", "possible"), ("ada@example.com", "possible"), ("a&b", "possible")]
)
def test_what_is_not_encoded_is_possible_trouble(
    method: str, route: str, body: object, identifier: str, confidence: str
) -> None:
    assert told("ambiguous-identifier", method, f"{PEOPLE}{identifier}{route}", body) == [("path:", confidence)]


@each_route
def test_a_slash_at_the_end_says_nothing(method: str, route: str, body: object) -> None:
    assert told("ambiguous-identifier", method, f"{PEOPLE}42{route}/", body) == []


def test_a_device_may_be_called_anything() -> None:
    assert told("ambiguous-identifier", "DELETE", f"{PEOPLE}42/devices/a@b+c&d") == []


def test_the_query_is_no_part_of_the_identifier() -> None:
    assert told("ambiguous-identifier", "DELETE", f"{PEOPLE}42?from=a/b@c&d=e+f") == []


def test_an_identifier_with_slashes_that_look_like_a_route() -> None:
    for identifier in ("a/b", "x/api/v1/customers/y", "a/devices/b"):
        assert told("ambiguous-identifier", "DELETE", f"{PEOPLE}{identifier}/devices/d") == [("path:", "likely")]
    assert told("ambiguous-identifier", "PUT", "track.customer.io/api/v1/accounts/a@b", {}) == []


def test_the_first_sign_that_is_not_encoded_is_named() -> None:
    for identifier, sign in (("X@b", "@"), ("X+b@c", "+"), ("a@b&c", "@"), ("a&b", "&")):
        (finding,) = findings("ambiguous-identifier", "DELETE", f"{PEOPLE}{identifier}")
        assert finding.message == f"the identifier in the path holds `{sign}` that is not percent-encoded"
