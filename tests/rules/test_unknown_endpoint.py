"""What is shown of a path that no route has, and where an unknown one is certain."""

import pytest

from .alone import findings, told

RULE = "unknown-endpoint"
SHAPES = [
    ("/api/v1/customers/ada/event", "/api/v1/customers/{}/event"),
    ("/api/v1/customers/ada/event_2", "/api/v1/customers/{}/{}"),
    ("/api/v1/devices/ada/Event", "/api/v1/devices/{}/Event"),
    ("/api/v1/segments/7/add", "/api/v1/segments/{}/add"),
    ("/api/v1/forms/f/send", "/api/v1/forms/{}/send"),
    ("/api/v1/x/unsubscribe/ada/b", "/api/v1/x/{}/{}/b"),
    ("/unsubscribe/ada/b", "/{}/{}/b"),
    ("/api/v2/ada/entity", "/api/v2/ada/{}"),
    ("/api/v2/" + "a" * 30, "/api/v2/" + "a" * 30),
    ("/api/v2/" + "a" * 31, "/api/v2/{}"),
    ("/v1/customers/ada", "/v1/customers/{}"),
    ("/ada", "/{}"),
    ("/ada/customers", "/{}/{}"),
    ("//api", "//api"),
    ("/api/v1/a/b/c/d/e/f/g/h", "/api/v1/a/{}/{}/{}/{}/{}/{}"),
    ("/api/v1/" + "a/" * 9, "/api/v1/a/{}/{}/{}/{}/{}/{}"),
    ("/api/v1/customers/" + "a" * 181 + "/b", "/api/v1/customers/{}/"),
    ("/api/v1/customers/" + "a" * 180 + "/bc", "/api/v1/customers/{}/b"),
]


@pytest.mark.parametrize(("path", "shape"), SHAPES)
@pytest.mark.parametrize("query", ["", "?a=/api/v1/b", "#/b", "?a=http://b/c", "?a\nb"])
def test_only_words_of_a_route_are_shown(path: str, shape: str, query: str) -> None:
    (finding,) = findings(RULE, "PATCH", f"track.customer.io{path}{query}")
    assert finding.name == f"PATCH {shape}"
    assert finding.message == f"PATCH {shape} is no route of the API"


@pytest.mark.parametrize(
    ("url", "confidence"),
    [
        ("track.customer.io/api/v1/a", "certain"),
        ("track.customer.io/api/v2", "certain"),
        ("track.customer.io/api/v3/a", "possible"),
        ("track.customer.io/api/v10", "possible"),
        ("track.customer.io/a", "possible"),
        ("cdp.customer.io/v1/a", "possible"),
        ("cdp.customer.io/api/v1/a", "possible"),
    ],
)
def test_it_is_certain_where_only_routes_of_track_can_be(url: str, confidence: str) -> None:
    assert told(RULE, "PATCH", url) == [("path:", confidence)]


@pytest.mark.parametrize("scheme", [b"http", b"HTTPS", b"Http"])
def test_the_host_in_a_request_line_is_no_part_of_the_path(scheme: bytes) -> None:
    target = scheme + b"://track.customer.io/api/v1/a?b"
    (finding,) = findings(RULE, "GET", "track.customer.io/", target=target)
    assert finding.name == "GET /api/v1/a"


@pytest.mark.parametrize(
    ("target", "shape"),
    [(b"ada", "{}"), (b"ada/v1", "{}/v1"), (b"v1/ada", "v1/ada"), (b"customers/42/events", "{}/{}/events"), (b"", "")],
)
def test_a_target_that_is_no_path_is_shown_as_one(target: bytes, shape: str) -> None:
    (finding,) = findings(RULE, "GET", "track.customer.io/", target=target)
    assert finding.name == f"GET {shape}"


def test_a_method_that_is_none_is_not_shown() -> None:
    (finding,) = findings(RULE, "ABCDEFGHIJKLM", "track.customer.io/api/v1/a")
    assert finding.name == "an unknown method on /api/v1/a"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_asking_what_there_is_is_fine(method: str) -> None:
    assert told(RULE, method, "track.customer.io/api/v1/a") == []
    assert told(RULE, "GET", "track.customer.io/api/v1/accounts/region") == []


def test_what_the_app_is_asked_is_its_own_business() -> None:
    assert told(RULE, "PATCH", "track.customer.io/api/v1/a", listener="inbound") == []
