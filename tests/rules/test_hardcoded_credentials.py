"""Each key that nobody was given, each mark of a browser, and each place of a key."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from cio_proxy.rules.hardcoded_credentials import is_placeholder

from .alone import findings, told

RULE = "hardcoded-credentials"
SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
EVENT = ("POST", "track.customer.io/api/v1/customers/42/events")
PIPELINES = ("POST", "cdp.customer.io/v1/track")
SEND = ("POST", "api.customer.io/v1/send/email")
CERTAIN, LIKELY = [("header:Authorization", "certain")], [("header:Authorization", "likely")]


def basic(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


WORDS = [
    *("abc123", "apikey", "api_secret", "app-api-key", "appkey", "app token", "changeme", "CIO_API_KEY", "cio_site_id"),
    *("customerio_api_key", "customerio-site-id", "dummy", "example", "fake", "key", "NaN", "nil", "none", "null"),
    *("placeholder", "secret", "secret key", "secret_token", "siteid", "test", "test_key", "TODO", "track_api_key"),
    *("track_key", "undefined", "write_key", "123456", "12345678", "1234567890"),
]
TEMPLATES = [
    *(
        "YOUR_SITE_ID",
        "my site",
        "my track key",
        "insert-token",
        "replace_secret",
        "enter key here",
        "add_id",
        "put it here",
    ),
    *("xxx", "XXXXXXXX", "***", "000000", "...", "<site id>", "<a\nb>", "[key]", "{{ key }}", "${CIO_KEY}", "$CIO_KEY"),
    *("%CIO_KEY%", "process.env.CIO_KEY", "PROCESS.ENV"),
]
NONE = [
    *("", KEY, SITE, "xx", "**", "00000", "..", "yourcompany", "my_key_1", "keyless", "tests", "mykeys1", "1234567"),
    *("<a", "[a", "{{a}", "${a-b}", "%a", "processes", "a<b>", "nulls", "x" * 65, "0" * 65, "<a> ", "{{a}} ", "12345"),
    *("addendum", "xxxa", "***a", "0000000a", "....a", "[a]b", "$a b", "%a%b", "_1", "process.environment"),
]


@pytest.mark.parametrize("word", WORDS + TEMPLATES)
def test_a_key_that_nobody_was_given_is_told_on_either_side(word: str) -> None:
    assert is_placeholder(word)
    assert told(RULE, *EVENT, {"name": "a"}, headers=basic(SITE, word)) == CERTAIN
    assert told(RULE, *EVENT, {"name": "a"}, headers=basic(word, KEY)) == CERTAIN
    assert told(RULE, *PIPELINES, {"userId": "42", "event": "a"}, headers=basic(word, "")) == CERTAIN


@pytest.mark.parametrize("word", NONE)
def test_a_key_that_may_be_real_is_not(word: str) -> None:
    assert not is_placeholder(word)
    assert told(RULE, *EVENT, {"name": "a"}, headers=basic(word, KEY)) == []


def test_a_placeholder_has_64_characters_at_most() -> None:
    assert is_placeholder("x" * 64)
    assert not is_placeholder("x" * 65)


def test_a_placeholder_is_told_once_and_by_its_length_alone() -> None:
    (finding,) = findings(RULE, *EVENT, {"name": "a"}, headers=basic("siteid", "secret-key"))
    assert (finding.message[:11], finding.evidence) == ("the key is ", "10 characters")
    (finding,) = findings(RULE, *EVENT, {"name": "a"}, headers=basic("siteid", KEY))
    assert (finding.message[:15], finding.evidence) == ("the site id is ", "6 characters")
    (finding,) = findings(RULE, *PIPELINES, {"userId": "42", "event": "a"}, headers=basic("secret-key", ""))
    assert finding.message.startswith("the key is ")
    assert finding.effect == "Customer.io may answer 200 all the same, and nothing is stored."


def test_the_sandbox_takes_placeholders() -> None:
    assert told(RULE, *EVENT, {"name": "a"}, headers=basic(SITE, "secret"), sandbox=True) == []


def test_the_first_item_of_a_batch_speaks_for_all() -> None:
    item = {"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "a"}
    body = {"batch": [item, item]}
    assert told(RULE, "POST", "track.customer.io/api/v2/batch", body, headers=basic(SITE, "secret")) == CERTAIN


CHROME = "Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/130"
FIREFOX = "Mozilla/5.0 (X11) Gecko/20100101 Firefox/130"
BROWSERS = [
    {"Origin": "https://shop.example.com"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-CH-UA": '"Chromium"'},
    {"Referer": "https://shop.example.com/"},
    {"User-Agent": CHROME},
    {"User-Agent": FIREFOX},
]
BACKENDS = [
    {"User-Agent": "Mozilla/5.0 (compatible; Google-Apps-Script)"},
    {"User-Agent": "AppleWebKit/537.36"},
    {"User-Agent": "Gecko/20100101"},
    {"Sec-Fetch-Mode": "cors", "Accept-Language": "*"},
]


def test_a_browser_exposes_the_key_whatever_else_the_url_says() -> None:
    url = "track.customer.io/api/v1/customers/42/events?a=b"
    assert [f.pointer for f in findings(RULE, "POST", url, {"name": "a"}, headers=BROWSERS[0])] == [
        "header:Authorization"
    ]


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
def test_each_mark_of_a_browser_exposes_a_server_side_key(headers: dict[str, str]) -> None:
    (finding,) = findings(RULE, *EVENT, {"name": "a"}, headers=headers)
    assert (finding.pointer, finding.confidence, finding.whole) == ("header:Authorization", "likely", True)
    assert f"`{next(iter(headers)).lower()}`" in finding.message
    assert told(RULE, *EVENT, {"name": "a"}, headers={**headers, "Authorization": ""}) == []
    assert told(RULE, *PIPELINES, {"userId": "42", "event": "a"}, headers=headers) == []


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
def test_a_browser_is_told_of_whatever_else_is_wrong_with_a_request(headers: dict[str, str]) -> None:
    method, url = EVENT
    assert told(RULE, method, f"{url}?a=1", {"name": "a"}, headers=headers) == LIKELY
    in_query = told(RULE, method, f"{url}?k={KEY}", {"name": "a"}, headers=headers)
    assert in_query == [*LIKELY, ("query:k", "certain")]
    assert told(RULE, *EVENT, {"name": "a"}, headers=headers | basic(SITE, "secret")) == [*CERTAIN, *LIKELY]


@pytest.mark.parametrize("forwarded", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_a_browsers_request_that_a_server_passes_on_may_have_got_its_key_there(forwarded: str) -> None:
    for headers in BROWSERS:
        assert told(RULE, *EVENT, {"name": "a"}, headers={**headers, forwarded: "203.0.113.9"}) == []


@pytest.mark.parametrize("headers", BACKENDS, ids=str)
def test_what_servers_send_is_no_mark_of_a_browser(headers: dict[str, str]) -> None:
    assert told(RULE, *EVENT, {"name": "a"}, headers=headers) == []


PARAMETERS = ["api_key", "apikey", "write_key", "writeKey", "access_token", "site_secret", "APP_KEY"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_key_in_a_query_is_likely_one_by_its_name(name: str) -> None:
    method, url = EVENT
    assert told(RULE, method, f"{url}?a=1&{name}=somebody", {"name": "a"}) == [(f"query:{name}", "likely")]
    assert told(RULE, method, f"{url}?{name}=", {"name": "a"}) == []
    assert told(RULE, "POST", f"cdp.customer.io/v1/track?{name}=somebody", {"userId": "42", "event": "a"}) == []


def test_the_requests_own_key_in_a_query_is_certain_under_any_name() -> None:
    method, url = EVENT
    assert told(RULE, method, f"{url}?k={KEY}&a=1", {"name": "a"}) == [("query:k", "certain")]
    assert told(RULE, method, f"{url}?api_key={KEY}", {"name": "a"}) == [("query:api_key", "certain")]
    assert told(RULE, method, f"{url}?k={KEY}1", {"name": "a"}) == []
    for secret, wanted in (("12abcdef", [("query:k", "certain")]), ("2abcdef", [])):
        assert told(RULE, method, f"{url}?k={secret}", {"name": "a"}, headers=basic(SITE, secret)) == wanted


def test_a_query_may_hold_a_second_question_mark() -> None:
    method, url = EVENT
    assert told(RULE, method, f"{url}?api_key=a?b", {"name": "a"}) == [("query:api_key", "likely")]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"http://ada:pass@track.customer.io/api/v1/accounts/region", [("path:", "certain")]),
        (b"http://track.customer.io/api/v1/customers/ada@example.com", []),
        (b"http://track.customer.io/api/v1/customers/ada@example.com/events", []),
        (b"http://track.customer.io/api/v1/customers/x://ada@example.com", []),
        (b"http://track.customer.io/api/v1/accounts/region?a=b://c@d", []),
        (b"/api/v1/customers/http://ada@example.com/", []),
        (b"/api/v1/customers/http://ada@example.com/?a=1", []),
    ],
)
def test_user_and_password_in_the_request_line(target: bytes, wanted: list[tuple[str, str]]) -> None:
    assert told(RULE, "GET", "track.customer.io/", target=target) == wanted


SECRET = "sk_us_9f8e7d6c5b4a3f2e"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (KEY, "certain"),
        (f"the key is {KEY}!", "certain"),
        (SECRET, "likely"),
        ("sk_eu_9f8e7d6c5b4a", "likely"),
        (f"key={SECRET}", "likely"),
        ("sa_live_9f8e7d6c", "likely"),
        ("sk_us_12345678 ab", "likely"),
        ("Xsk_us_9f8e7d6c5b4a", None),
        ("9sk_us_9f8e7d6c5b4a", None),
        ("sk_us_ABCDEFGHI1", "likely"),
        ("sk_us_1234567 abc", None),
        ("sk_us_customers_of_1", None),
        ("desk_us_9f8e7d6c5b4a", None),
        ("SK_US_9F8E7D6C5B4A", None),
        (SITE, None),
        (KEY[:-1], None),
    ],
)
def test_keys_in_the_body(text: str, wanted: str | None) -> None:
    body: Mapping[str, Any] = {"name": "a", "data": {"x": 1, "list": ["a", {"note": text}]}}
    where = [] if wanted is None else [("/data/list/1/note", wanted)]
    assert told(RULE, *EVENT, body) == where
    item = {"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "a", "attributes": {"n": text}}
    where = [] if wanted is None else [("/batch/1/attributes/n", wanted)]
    assert told(RULE, "POST", "track.customer.io/api/v2/batch", {"batch": [{**item, "attributes": {}}, item]}) == where
    assert all(not finding.whole for finding in findings(RULE, *EVENT, body))


@pytest.mark.parametrize(
    ("secret", "wanted"), [("12abcdefghijklmn", [("/data/n", "certain")]), ("2abcdefghijklmn", [])]
)
def test_a_short_key_may_stand_in_a_text_by_chance(secret: str, wanted: list[tuple[str, str]]) -> None:
    assert told(RULE, *EVENT, {"name": "a", "data": {"n": f"xx {secret} yy"}}, headers=basic(SITE, secret)) == wanted
    assert told(RULE, *EVENT, {"name": "a", "data": {"n": secret}}, headers=basic(SITE, secret)) == wanted


def test_a_key_in_the_body_is_found_behind_escapes() -> None:
    for text in (KEY, "sa_live_9f8e7d6c"):
        escaped = "".join(f"\\u{ord(sign):04x}" for sign in text).encode()
        (finding,) = findings(RULE, *EVENT, b'{"name": "a", "data": {"n": "%s"}}' % escaped)
        assert finding.pointer == "/data/n"


def test_a_pipelines_key_is_public_in_its_body_and_a_secret_of_another_api_is_not() -> None:
    body = {"userId": "42", "event": "a", "properties": {"a": KEY, "b": SECRET}}
    assert told(RULE, *PIPELINES, body, headers=basic("x", KEY)) == [("/properties/b", "likely")]
    assert told(RULE, *PIPELINES, body, headers=basic(KEY, "")) == [("/properties/b", "likely")]
