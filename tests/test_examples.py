"""The `.http` files are read as the design words them, and every mistake has its line and its remedy."""

import base64
import itertools
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cio_proxy.apis.clients import Clients
from cio_proxy.config import overlay
from cio_proxy.examples import Example, ExampleError, Expect, Sent, read
from cio_proxy.model import Settings, Waits

START = 1_750_000_000.0
TRACK = "PUT https://track.customer.io/api/v1/customers/42"


def written(text: str | bytes) -> tuple[Example, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.http"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read(path)


def played(text: str | bytes) -> list[Sent]:
    (example,) = written(text)
    return list(example.play(START))


def case(*exchanges: str) -> str:
    """A case of exchanges given by their tags and, where it is not TRACK, their request."""
    requests = [each if "://" in each or "@end" in each else f"{each}\n{TRACK}".strip() for each in exchanges]
    return "### bad: x\n" + "\n###\n".join(requests) + "\n"


def header(sent: Sent, name: str) -> str | None:
    return sent.exchange.header(name)


# --- cases and exchanges -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bad", "good", "near miss", "hostile", "todo"])
def test_a_title_starts_a_case_of_its_kind(kind: str) -> None:
    (example,) = written(f"### {kind}: a name: with a colon\n{TRACK}\n")
    assert (example.kind, example.name, example.line) == (kind, "a name: with a colon", 1)


def test_a_bare_line_starts_the_next_exchange_of_the_case() -> None:
    first, second = written(
        f"### bad: one\n{TRACK}\n\n###\nDELETE https://track.customer.io/b\n\n### good: two\n{TRACK}"
    )
    assert [step.method for step in first.exchanges] == ["PUT", "DELETE"]
    assert [step.line for step in first.exchanges] == [2, 5]
    assert (second.name, second.line) == ("two", 7)


def test_comments_may_stand_before_the_first_case() -> None:
    (example,) = written(f"# about these cases\n\n### bad: one\n{TRACK}\n")
    assert example.line == 3


def test_the_source_of_a_case_is_what_was_written() -> None:
    text = f"### bad: one\n# @at +0s\n{TRACK}\n\n###\n{TRACK}"
    (example,) = written(text)
    assert example.source == text


def test_a_file_without_cases_has_none() -> None:
    assert written("") == ()


# --- the request -------------------------------------------------------------------------------


def test_the_target_is_exactly_what_follows_the_host() -> None:
    (sent,) = played("### bad: x\nGET https://track.customer.io:8443/api/v1//customers/%2f+@é?a=b&c=https://x/y\n")
    assert sent.exchange.target == "/api/v1//customers/%2f+@é?a=b&c=https://x/y".encode()
    assert (sent.exchange.host, header(sent, "host")) == ("track.customer.io", "track.customer.io:8443")


@pytest.mark.parametrize(
    ("url", "target"), [("https://h", b"/"), ("https://h?a=/b", b"/?a=/b"), ("http://[::1]:80/", b"/")]
)
def test_a_url_without_a_path_asks_for_the_root(url: str, target: bytes) -> None:
    (sent,) = played(f"### bad: x\nGET {url}\n")
    assert sent.exchange.target == target


def test_the_http_version_is_1_1_unless_given() -> None:
    (example,) = written(f"### bad: x\n{TRACK} HTTP/1.0\n\n###\n{TRACK}\n")
    assert [sent.exchange.http_version for sent in example.play(START)] == ["HTTP/1.0", "HTTP/1.1"]


@pytest.mark.parametrize(
    ("after", "body"),
    [
        (b"\n\n{}", b"{}"),
        (b"\n\n{}\n", b"{}"),
        (b"\n\n{}\n\n", b"{}\n"),
        (b"\n\n{}\n\n### good: y\nGET https://h/\n", b"{}\n"),
        (b"\n\n{}\n### good: y\nGET https://h/\n", b"{}"),
        (b"\n\n\n  {}  \r\n", b"\n  {}  \r"),
        (b"\n\n", b""),
        (b"\n", b""),
        (b"", b""),
        (b"\nX-A: b\n\n{}\n\n[]\n", b"{}\n\n[]"),
        (b"\n\n# not a tag\n ### not a case\n", b"# not a tag\n ### not a case"),
    ],
)
def test_a_body_ends_before_the_line_break_that_precedes_the_next_case(after: bytes, body: bytes) -> None:
    sent = next(iter(written(b"### bad: x\n" + TRACK.encode() + after)[0].play(START)))
    assert sent.exchange.body == body


def test_a_file_with_windows_line_ends_reads_the_same() -> None:
    text = f"### bad: x\n# @at +2s\n{TRACK}\nX-A: b\n\n{{}}\n###\n{TRACK}\n"
    for one, other in zip(
        written(text)[0].play(START), written(text.replace("\n", "\r\n"))[0].play(START), strict=True
    ):
        assert one.exchange == other.exchange


TOKENS = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True)
VALUES = st.binary(max_size=40).map(lambda value: bytes(b for b in value if b not in b"\r\n").strip(b" \t"))


def is_plain(*texts: bytes) -> bool:
    """Nothing in it ends a body or stands for something else."""
    return all(b"{{" not in text and b"\n###" not in text and not text.startswith(b"###") for text in texts)


@settings(deadline=None)
@given(
    headers=st.lists(st.tuples(TOKENS, VALUES), max_size=5),
    bodies=st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), min_size=1, max_size=4),
)
def test_headers_and_bodies_are_read_back_byte_for_byte(
    headers: list[tuple[bytes, bytes]], bodies: list[bytes]
) -> None:
    headers = [(name, value) for name, value in headers if is_plain(value) and not name.startswith(b"###")]
    blocks: list[bytes] = []
    for body in bodies:
        plain = is_plain(body)
        tag, text = (b"", body) if plain else (b"# @body base64\n", base64.encodebytes(body))
        head = b"".join(b"%s: %s\n" % each for each in headers)
        blocks.append(b"###%s\n" % (b"" if blocks else b" bad: x") + tag + TRACK.encode() + b"\n" + head + b"\n" + text)
    sents = played(b"\n".join(blocks) + b"\n")
    assert [sent.exchange.body for sent in sents] == bodies
    for sent in sents:
        given_by_us = {b"host", b"authorization", b"content-type", b"content-length"}
        rest = [each for each in sent.exchange.headers if each in headers or each[0].lower() not in given_by_us]
        assert rest == headers


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    for start in (b"", b"### bad: x\n", b"### bad: x\n# @", b"### bad: x\nPUT https://h/\n"):
        try:
            examples = written(start + content)
        except ExampleError as error:
            examples, message = (), str(error)
            assert re.fullmatch(r"cases\.http:\d+: [^\n]+", message)
        for example in examples:
            assert all(sent.exchange.host for sent in itertools.islice(example.play(START), 3))


# --- what is added -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("https://track.customer.io/api/v1/customers/42", "Basic f82ad78f695bd32f9d99:a13c95a0bc44d9f01e27"),
        ("https://track-eu.customer.io/api/v2/batch", "Basic f82ad78f695bd32f9d99:a13c95a0bc44d9f01e27"),
        ("https://cdp.customer.io/v1/track", "Basic a13c95a0bc44d9f01e27:"),
        ("https://api.customer.io/v1/send/email", "Bearer 20436c6351668b25a74a2c289a639d3f"),
        ("https://track.customer.io/v1/send/email", "Bearer 20436c6351668b25a74a2c289a639d3f"),
    ],
)
def test_a_request_without_credentials_gets_valid_ones_for_its_api(url: str, value: str) -> None:
    (sent,) = played(f"### bad: x\nPOST {url}\n\n{{}}\n")
    scheme, text = value.split(" ")
    given = header(sent, "authorization") or ""
    assert given.split(" ")[0] == scheme
    assert (base64.b64decode(given[6:]).decode() if scheme == "Basic" else given[7:]) == text


def test_credentials_of_the_case_stay_and_no_auth_adds_none() -> None:
    own, none = played(f"### bad: x\n{TRACK}\nauthorization: Bearer abc\n\n###\n# @no-auth\n{TRACK}\n")
    assert [value for name, value in own.exchange.headers if name.lower() == b"authorization"] == [b"Bearer abc"]
    assert header(none, "authorization") is None


def test_a_request_to_the_app_gets_no_credentials() -> None:
    (sent,) = played("### bad: x\n# @listener inbound\nPOST https://shop.example.com/hooks\n\n{}\n")
    assert (sent.exchange.listener, header(sent, "authorization")) == ("inbound", None)


def test_a_body_gets_its_type_and_length_unless_the_case_gives_them() -> None:
    plain, own, empty = played(
        f"### bad: x\n{TRACK}\n\n{{}}\n###\n{TRACK}\ncontent-type: text/plain\ncontent-length: 9\n\n{{}}\n###\nGET https://h/"
    )
    assert (header(plain, "content-type"), header(plain, "content-length")) == ("application/json", "2")
    assert (header(own, "content-type"), header(own, "content-length")) == ("text/plain", "9")
    assert [name.lower() for name, _ in own.exchange.headers].count(b"content-length") == 1
    assert (header(empty, "content-type"), header(empty, "content-length")) == (None, None)


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("PUT https://track.customer.io/api/v1/customers/42", 200, b"{}"),
        ("POST https://track.customer.io/api/v2/batch", 200, b"{}"),
        ("POST https://track.customer.io/api/v1/forms/contact/submit", 204, b""),
        ("POST https://cdp.customer.io/v1/batch", 200, b'{"success": true}'),
        ("GET https://api.customer.io/v1/campaigns", 200, b"{}"),
        (
            "POST https://api.customer.io/v1/send/email",
            200,
            b'{"delivery_id": "ZAIAAVTJVG0QcCok0-0ZKj6yiQ==", "queued_at": 1750000000}',
        ),
    ],
)
def test_the_answer_is_that_apis_success_unless_given(request_line: str, status: int, body: bytes) -> None:
    (sent,) = played(f"### bad: x\n{request_line}\n\n{{}}\n")
    assert (sent.status, sent.response, sent.answered_at) == (status, body, START)


# --- tags --------------------------------------------------------------------------------------


def test_exchanges_are_a_second_apart_unless_a_tag_says_when_from_the_start() -> None:
    sents = played(case("", "", "# @at +10m\n# @answered +3s 207", "# @answered +500ms"))
    assert [sent.exchange.at - START for sent in sents] == [0, 1, 600, 601]
    assert [sent.answered_at - sent.exchange.at for sent in sents] == [0, 0, 3, 0.5]
    assert [sent.status for sent in sents] == [200, 200, 207, 200]


def test_the_first_exchange_may_wait() -> None:
    assert [sent.exchange.at - START for sent in played(f"### bad: x\n# @at +2s\n{TRACK}\n###\n{TRACK}\n")] == [2, 3]


def test_an_answer_may_be_given_and_may_be_empty() -> None:
    given, empty = played(case('# @answered +0s 207\n# @response {"errors": [{"at": {{now}}}]}', "# @response"))
    assert (given.status, given.response) == (207, b'{"errors": [{"at": 1750000000}]}')
    assert (empty.status, empty.response) == (200, b"")


def test_a_redirect_says_where_to() -> None:
    moved, plain = played(case(f"# @answered +0s 301\n# @location https://track-eu.customer.io/\n{TRACK}", ""))
    assert (moved.status, moved.location) == (301, "https://track-eu.customer.io/")
    assert plain.location is None


def test_a_refusal_does_not_answer_with_the_body_of_a_success() -> None:
    (sent,) = played("### bad: x\n# @answered +0s 400\nPOST https://cdp.customer.io/v1/track\n\n{}\n")
    assert (sent.status, sent.response) == (400, b"{}")


def test_an_unknown_outcome_is_no_answer() -> None:
    (sent,) = played(f"### bad: x\n# @outcome unknown\n# @answered +2s\n{TRACK}\n")
    assert (sent.status, sent.response, sent.answered_at) == (None, b"", START + 2)


def test_exchanges_share_a_connection_only_when_they_name_it() -> None:
    sents = played(case("# @connection a", "", "# @connection a", "# @repeat 2", "# @connection n{{i}}\n# @repeat 2"))
    a, alone, again, *repeated = [(sent.exchange.connection, sent.exchange.carried) for sent in sents]
    assert (a, again) == (("a", 1), ("a", 2))
    assert alone == ("c1", 1)
    assert repeated == [("c3", 1), ("c3", 2), ("n0", 1), ("n1", 1)]


@pytest.mark.parametrize("listener", ["outbound", "inbound", "explicit"])
def test_a_listener_can_be_chosen(listener: str) -> None:
    (sent,) = played(f"### bad: x\n# @listener {listener}\n{TRACK}\n")
    assert sent.exchange.listener == listener


def test_the_sandbox_can_be_the_upstream() -> None:
    sents = played(f"### bad: x\n# @sandbox\n{TRACK}\n###\n{TRACK}\n")
    assert [sent.exchange.sandbox for sent in sents] == [True, False]


def test_a_client_is_told_by_its_name() -> None:
    (example,) = written(case("# @client web", "# @client web-checkout", "# @client curl/8", ""))
    settings = overlay(Settings(), dict(example.config), rules=[])
    clients = [Clients(settings.clients).name(sent.exchange) for sent in example.play(START)]
    assert clients == ["web", "web-checkout", "curl/8", "other"]


def test_repeats_are_a_second_apart_and_count_from_zero() -> None:
    sents = played(
        case('# @repeat 1000\nPUT https://track.customer.io/api/v1/customers/{{i}}\nX-Turn: {{ i }}\n\n{"n": {{i}}}')
    )
    assert len(sents) == 1000
    last = sents[-1].exchange
    assert (last.target, last.body, last.header("x-turn")) == (b"/api/v1/customers/999", b'{"n": 999}', "999")
    assert (last.at - START, last.header("content-length")) == (999, "10")
    assert len({sent.exchange.id for sent in sents}) == 1000


def test_times_are_whole_seconds_from_the_start_of_the_case() -> None:
    body = "{{now}} {{now-72h}} {{now+5m}} {{ now+1d }} {{now-2s}}"
    (example,) = written(f"### bad: x\n# @at +1h\n{TRACK}\n\n{body}\n")
    (sent,) = example.play(1_000_000.75)
    assert sent.exchange.body == b"1000000 740800 1000300 1086400 999998"


def test_padding_has_the_length_it_says() -> None:
    (sent,) = played(f"### bad: x\n{TRACK}\n\n<{{{{pad 5}}}}>\n")
    assert sent.exchange.body == b"<xxxxx>"


def test_what_a_template_engine_left_over_stays() -> None:
    (sent,) = played(f"### bad: x\n{TRACK}\n\n{{{{customer.id}}}} {{{{ 'now' | date: '%s' }}}} {{{{nowhere}}}}\n")
    assert sent.exchange.body == b"{{customer.id}} {{ 'now' | date: '%s' }} {{nowhere}}"


def test_a_body_in_base64_is_sent_as_it_is() -> None:
    content = b"\xff\x00{{now}}\n### bad: no\n"
    (sent,) = played(b"### bad: x\n# @body base64\n" + TRACK.encode() + b"\n\n" + base64.encodebytes(content) + b"\n")
    assert sent.exchange.body == content


def test_expectations_belong_to_their_exchange_or_to_the_end() -> None:
    (example,) = written(
        case(
            '# @expect millisecond-timestamp /a certain\n# @expect malformed-body "" likely',
            "# @expect pii-in-name /a key/b possible",
            "# @end +1h\n# @expect missing-email /email likely",
        )
    )
    first, second = (step.expects for step in example.exchanges)
    assert first == (Expect("millisecond-timestamp", "/a", "certain"), Expect("malformed-body", "", "likely"))
    assert second == (Expect("pii-in-name", "/a key/b", "possible"),)
    assert (example.end, example.end_expects) == (3600, (Expect("missing-email", "/email", "likely"),))


def test_a_pointer_in_quotes_is_a_json_string() -> None:
    (example,) = written(f'### bad: x\n# @expect pii-in-name "/a \\"b\\" \\u00e9" certain\n{TRACK}\n')
    assert example.exchanges[0].expects[0].pointer == '/a "b" é'


def test_settings_are_yaml_and_off_stays_a_word() -> None:
    (example,) = written(
        "### bad: x\n# @config people=complete\n# @config rules.x.action=off\n# @config rules.x.window=10m\n"
        f'# @config rules.x.names=[a, "b=c"]\n{TRACK}\n'
    )
    assert dict(example.config) == {
        "people": "complete",
        "rules.x.action": "off",
        "rules.x.window": "10m",
        "rules.x.names": ["a", "b=c"],
    }


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GET https://h/\n", "1: nothing but comments stands before the first case; start it with `### kind: name`"),
        (
            "\n### worse: x\nGET https://h/",
            "2: a case starts with `### kind: name`; kind is one of bad, good, near miss,",
        ),
        ("### bad\nGET https://h/", "1: a case starts with `### kind: name`"),
        ("### bad:\nGET https://h/", "1: a case starts with `### kind: name`"),
        ("###\nGET https://h/", "1: no case has started yet; write `### kind: name`"),
        ("### bad: x\n\n# @expct a /b certain\nGET https://h/", "3: there is no tag '@expct'; did you mean 'expect'?"),
        (
            "### bad: x\n# why\nGET https://h/",
            "2: between `###` and the request stand only tags; write `# @name value`",
        ),
        ("### bad: x\n# @at +1s\n# @at +2s\nGET https://h/", "3: '@at' stands here twice; keep one"),
        ("### bad: x\n# @at soon\nGET https://h/", "2: 'soon' is no time to wait; write +500ms, +2s, +10m, +1h or +3d"),
        ("### bad: x\n# @at -2s\nGET https://h/", "2: '-2s' is no time to wait"),
        ("### bad: x\n# @at\nGET https://h/", "2: '@at' needs a value; write `# @at value`"),
        ("### bad: x\n# @no-auth yes\nGET https://h/", "2: '@no-auth' takes no value; leave it out"),
        ("### bad: x\n# @answered 207\nGET https://h/", "2: '207' is no time to wait"),
        ("### bad: x\n# @answered +1s OK\nGET https://h/", "2: 'OK' is not a status; write a whole number from 200 to"),
        ("### bad: x\n# @outcome refused\nGET https://h/", "2: the only outcome to give is unknown"),
        ("### bad: x\n# @answered +1s 200\n# @outcome unknown\nGET https://h/", "3: an unknown outcome has no answer"),
        ("### bad: x\n# @location /\n# @outcome unknown\nGET https://h/", "3: an unknown outcome has no answer"),
        ("### bad: x\n# @repeat 0\nGET https://h/", "2: '0' is not a number of times; write a whole number from 1"),
        (
            "### bad: x\n# @listener outbond\nGET https://h/",
            "2: there is no listener 'outbond'; did you mean 'outbound'?",
        ),
        ("### bad: x\n# @body gzip\nGET https://h/", "2: the only other form of a body is base64"),
        ("### bad: x\n# @body base64\nPUT https://h/\nA: b\n\n!!\n", "6: the body is not base64"),
        ("### bad: x\n# @client a\nGET https://h/\nUser-Agent: b\n", "2: the request gives a User-Agent"),
        ("### bad: x\n# @config people\nGET https://h/", "2: not a setting; write `# @config key=value`"),
        ("### bad: x\n# @config a=[b\nGET https://h/", "2: the value is not YAML; put it in quotes"),
        ("### bad: x\nGET https://h/\n###\n# @config a=b\nGET https://h/", "4: settings hold for the whole case"),
        (
            "### bad: x\n# @expect a /b\nGET https://h/",
            "2: not an expectation; write `# @expect rule pointer confidence`",
        ),
        ("### bad: x\n# @expect a /b sure\nGET https://h/", "2: 'sure' is no confidence; choose from certain, likely,"),
        ("### bad: x\n# @expect a /b likley\nGET https://h/", "2: 'likley' is no confidence; did you mean 'likely'?"),
        ('### bad: x\n# @expect a "/b likely\nGET https://h/', "2: a quoted pointer is a JSON string"),
        ("### bad: x\n# @at +1s\n\nhttps://h/\n", "4: not a request line; write `METHOD https://host/path`"),
        ("### bad: x\nGET https://h/a b\n", "2: not a request line; write `METHOD https://host/path`, without spaces"),
        ("### bad: x\n", "2: not a request line"),
        ("### bad: x\nGET https:///path\n", "2: the URL names no host that can be sent to"),
        ("### bad: x\nGET https://user:key@h/path\n", "2: the URL names no host that can be sent to"),
        ("### bad: x\nGET https://h:port/path\n", "2: the URL names no host that can be sent to"),
        ("### bad: x\nPUT https://h/\nA: b\n{}\n", "4: not a header; write `Name: value`, and a blank line before the"),
        ("### bad: x\nPUT https://h/\n\n{{now-3w}}\n", "2: not a placeholder; write {{now}}, {{now-72h}}"),
        ("### bad: x\n# @end +1h\n", "1: `@end` stands on a last, empty exchange"),
        ("### bad: x\nGET https://h/\n###\n# @end +1h\nGET https://h/", "3: `@end` stands on a last, empty exchange"),
        (
            "### bad: x\nGET https://h/\n###\n# @end +1h\n# @at +1s\n",
            "5: the end of a case is no exchange; leave '@at' out",
        ),
        ("### bad: x\nGET https://h/\n###\n# @end +1h\n###\nGET https://h/", "5: the case has ended; move `@end`"),
        (b"### bad: \xff\nGET https://h/", "1: not UTF-8; save the file as UTF-8"),
        (b"### bad: x\n# @client \xff\nGET https://h/", "2: not UTF-8"),
    ],
)
def test_a_mistake_names_its_line_and_the_remedy(text: str | bytes, message: str) -> None:
    with pytest.raises(ExampleError) as caught:
        written(text)
    assert str(caught.value).startswith(f"cases.http:{message}")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match=r"none\.http: no such file or directory; give a readable file"):
        read(tmp_path / "none.http")


# --- what a probe tells ------------------------------------------------------------------------


def test_what_a_probe_tells_is_about_the_route_of_the_request() -> None:
    tags = "# @listener inbound\n# @waits held=1/20 free=2/400 nested=7 by=trace call=event order placed"
    (sent,) = played(case(f"{tags}\nPOST https://shop.example.com/orders/4711?a=b"))
    assert sent.waits == (Waits("POST /orders/{}", "event order placed", True, 0.4, 20, 1, 400, 2, 7),)
    (sent,) = played(
        case("# @listener inbound\n# @waits held=0/0 free=0/9 call=identify\nGET https://shop.example.com/")
    )
    assert sent.waits == (Waits("GET /", "identify", False, 0.4, 0, 0, 9, 0, 0),)
    (sent,) = played(case(""))
    assert sent.waits == ()


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (
            "# @listener inbound\n# @waits held=20 free=1/400 call=event",
            "not what a probe tells; write `# @waits held=",
        ),
        ("# @listener inbound\n# @waits held=1/20 free=1/400", "not what a probe tells; write `# @waits held="),
        (
            "# @waits held=1/20 free=1/400 call=event",
            "a probe tells of the app's own answers; add `# @listener inbound`",
        ),
        (
            "# @listener inbound\n# @outcome unknown\n# @waits held=1/20 free=1/400 call=event",
            "an unknown outcome has no answer",
        ),
    ],
)
def test_what_no_probe_tells_is_a_mistake(tags: str, told: str) -> None:
    with pytest.raises(ExampleError, match=re.escape(told)):
        written(case(tags))
