"""Whatever is sent is read into calls without an exception, and what is read is right."""

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.apis import read, route
from cio_proxy.apis.body import item_extents, parse, without_items
from cio_proxy.apis.credentials import Keyring, read_credentials
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import audit_recorded
from cio_proxy.model import Call, Exchange, Settings, WorkspaceSettings
from cio_proxy.rules import RULES

SEAL = sealed_with(b"k" * 32)
TARGETS = [
    ("PUT", "/api/v1/customers/42"),
    ("POST", "/api/v1/customers/42/events"),
    ("POST", "/api/v1/events"),
    ("PUT", "/api/v1/customers/42/devices"),
    ("POST", "/api/v1/merge_customers"),
    ("POST", "/api/v1/segments/3/add_customers"),
    ("POST", "/api/v1/forms/f/submit"),
    ("POST", "/api/v1/metrics"),
    ("POST", "/api/v2/entity"),
    ("POST", "/api/v2/batch"),
    ("POST", "/v1/track"),
    ("POST", "/v1/batch"),
    ("POST", "/v1/send/email"),
    ("POST", "/v1/campaigns/3/triggers"),
    ("POST", "/v1/segments"),
]


def exchange(method: str, target: str, body: bytes = b"", *headers: tuple[bytes, bytes], host: str = "x") -> Exchange:
    return Exchange(
        id="e", at=1.7e9, method=method, target=target.encode("latin-1"), host=host, headers=headers, body=body
    )


def calls(
    method: str, target: str, body: Any = b"", *headers: tuple[bytes, bytes], host: str = "x"
) -> tuple[Call, ...]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(exchange(method, target, raw, *headers, host=host), Keyring({}, SEAL), 1 << 20)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "batch",
                    "type",
                    "action",
                    "identifiers",
                    "attributes",
                    "name",
                    "data",
                    "event",
                    "userId",
                    "traits",
                    "id",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_no_body_makes_a_reader_or_a_rule_raise(method: str, target: str) -> None:
    errors: list[object] = []
    engine = Engine(Settings(), RULES, SEAL, rule_error=lambda rule, error: errors.append((rule, error)))

    @given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
    def holds(body: bytes) -> None:
        import asyncio

        asyncio.new_event_loop().run_until_complete(audit_recorded([(exchange(method, target, body), None)], engine))
        assert errors == []

    import asyncio

    await asyncio.to_thread(holds)


@pytest.mark.parametrize(
    ("target", "identifiers"),
    [
        ("/api/v1/customers/42", {"id:42"}),
        ("/api/v1/customers/u%2F1%40x.com", {"email:u/1@x.com"}),
        ("/api/v1/customers/u/1%40x.com", {"email:u/1@x.com"}),
        ("/api/v1/customers/Ada%40Example.com", {"email:ada@example.com"}),
        ("/api/v1/customers/cio_d9c106000001", {"cio_id:d9c106000001"}),
        ("/api/v1/customers/a%2520b", {"id:a%20b"}),
        ("/api/v1/customers/42/", {"id:42"}),
    ],
)
def test_an_identifier_is_decoded_once_from_the_raw_path(target: str, identifiers: set[str]) -> None:
    (call,) = calls("PUT", target, {"plan": "pro"})
    assert call.kind == "identify"
    assert set(call.person.identifiers()) == identifiers


def test_a_gzip_body_is_read_and_a_bomb_is_not() -> None:
    gzipped = (b"Content-Encoding", b"gzip")
    (call,) = calls("PUT", "/api/v1/customers/42", gzip.compress(b'{"plan": "pro"}'), gzipped)
    assert call.attributes == {"plan": "pro"}
    (bomb,) = calls("PUT", "/api/v1/customers/42", gzip.compress(b" " * (2 << 20)), gzipped)
    assert bomb.kind == "unreadable"
    assert bomb.document.faults[0].kind == "too-large"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_both_base64_alphabets_are_read(encode: Any) -> None:
    value = encode(b"site??>>:key??>>~~").decode()
    credentials = read_credentials(f"Basic {value}")
    assert (credentials.user, credentials.secret) == ("site??>>", "key??>>~~")
    assert "key" not in repr(credentials)


@pytest.mark.parametrize(
    ("host", "path", "api"),
    [
        ("cdp-eu.customer.io", b"/anything", ("pipelines", "eu")),
        ("localhost", b"/api/v2/batch", ("track_v1", "us")),
        ("localhost", b"/v1/batch", ("pipelines", "us")),
        ("localhost", b"/v1/send/email", ("app", "us")),
        ("localhost", b"/unsubscribe/abc", ("track_v1", "us")),
        ("localhost", b"/else", ("track_v1", "us")),
    ],
)
def test_a_request_goes_where_its_host_or_path_says(host: str, path: bytes, api: tuple[str, str]) -> None:
    assert route(host, path) == api


def test_deep_nesting_is_found_before_the_parser_meets_it() -> None:
    assert parse(b"[" * 501 + b"]" * 501).faults[0].kind == "too-deep"
    assert parse(b'{"a": "' + b"[" * 900 + b'"}').faults == ()


def test_a_huge_integer_is_kept_as_text() -> None:
    assert parse(b'{"n": ' + b"9" * 5000 + b"}").value == {"n": "9" * 5000}


@given(st.lists(json_values, max_size=6), st.data())
def test_cutting_a_batch_keeps_every_other_item_to_the_byte(batch: list[Any], data: st.DataObject) -> None:
    texts = [json.dumps(item, ensure_ascii=data.draw(st.booleans())) for item in batch]
    raw = ('{"é": [1], "batch": [ ' + " , ".join(texts) + ' ], "x": "é"}').encode("utf-8", "surrogatepass")
    found = [raw[start:end] for start, end in item_extents(raw)]
    assert found == [text.encode("utf-8", "surrogatepass") for text in texts]
    if batch:
        refused = frozenset(data.draw(st.sets(st.integers(0, len(batch) - 1))))
        left = without_items(raw, refused)
        assert [left[start:end] for start, end in item_extents(left)] == [
            item for index, item in enumerate(found) if index not in refused
        ]


def test_a_v2_batch_gives_a_call_for_each_item_with_its_own_pointers() -> None:
    first, second, third = calls(
        "POST",
        "/api/v2/batch",
        {
            "batch": [
                {"type": "person", "action": "event", "identifiers": {"id": 1}, "name": "a", "attributes": {"x": 1}},
                "nonsense",
                {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "2"}},
            ]
        },
    )
    assert (first.kind, first.item, first.name_at, first.data_at) == (
        "event",
        0,
        "/batch/0/name",
        "/batch/0/attributes",
    )
    assert list(first.person.identifiers()) == ["id:1"]
    assert (second.kind, second.reason) == ("unreadable", "the operation is not an object")
    assert third.kind == "object_identify"
    assert first.leads
    assert not second.leads


@pytest.mark.parametrize(
    ("name", "kind"), [("User Deleted", "delete"), ("User Suppressed", "suppress"), ("Order Completed", "event")]
)
def test_reserved_pipelines_names_are_other_calls(name: str, kind: str) -> None:
    (call,) = calls("POST", "/v1/track", {"userId": "1", "event": name})
    assert call.kind == kind


def test_a_workspace_is_named_by_configuration_else_by_a_hash_of_the_site_id() -> None:
    basic = (b"Authorization", b"Basic " + base64.b64encode(b"site:key1"))
    rotated = (b"Authorization", b"Basic " + base64.b64encode(b"site:key2"))
    hashed = [calls("PUT", "/api/v1/customers/1", {}, header)[0].workspace for header in (basic, rotated)]
    assert hashed[0] == hashed[1] == SEAL("site:site")
    keyring = Keyring({"shop": WorkspaceSettings(site_ids=("site",))}, SEAL)
    (call,) = read(exchange("PUT", "/api/v1/customers/1", b"{}", basic), keyring, 100)
    assert call.workspace == "shop"


async def test_a_finding_about_a_huge_name_stays_small() -> None:
    engine = Engine(Settings(), RULES, SEAL)
    body = json.dumps({"email": "a@example.com", "x" * 100_000: 1}).encode()
    (finding,) = await audit_recorded([(exchange("PUT", "/api/v1/customers/42", body), None)], engine)
    assert finding.rule == "oversized-payload"
    assert len(finding.pointer) < 400


@pytest.mark.parametrize(
    ("method", "path", "kind", "endpoint"),
    [
        ("PUT", "/v1/campaigns/3/actions/96", "content_write", "/v1/campaigns/{id}/actions/{id}"),
        ("GET", "/v1/campaigns/3/actions", "content_read", "/v1/campaigns/{id}/actions"),
        (
            "PUT",
            "/v1/broadcasts/3/actions/96/language/de",
            "content_write",
            "/v1/broadcasts/{id}/actions/{id}/language/{language}",
        ),
        ("POST", "/v1/newsletters", "content_write", "/v1/newsletters"),
        ("POST", "/v1/newsletters/", "content_write", "/v1/newsletters"),
        ("GET", "/v1/newsletters/7/contents/2", "content_read", "/v1/newsletters/{id}/contents/{id}"),
        (
            "PUT",
            "/v1/newsletters/7/test_group/a/language/fr",
            "content_write",
            "/v1/newsletters/{id}/test_group/{id}/language/{language}",
        ),
        ("POST", "/v1/newsletters/7/send", "content_write", "/v1/newsletters/{id}/send"),
        ("PUT", "/v1/api/transactional/3/content/139", "content_write", "/v1/transactional/{id}/content/{id}"),
        ("PATCH", "/v1/design_studio/emails/x", "content_write", "/v1/design_studio/emails/{id}"),
        ("PUT", "/v1/snippets/footer%20of%20Ada", "content_write", "/v1/snippets/{name}"),
        ("HEAD", "/v1/snippets/footer", "content_read", "/v1/snippets/{name}"),
        ("DELETE", "/v1/snippets/footer", "other", "/v1/snippets/{name}"),
        ("POST", "/v1/segments", "content_write", "/v1/segments"),
        ("GET", "/v1/newsletters/7/metrics", "other", "other"),
        ("GET", "/v1/campaigns/3", "other", "other"),
        ("PUT", "/v1/campaigns//actions/96", "other", "other"),
        ("GET", "/v1/segments/ada@example.com", "other", "other"),
    ],
)
def test_content_on_the_app_api_has_an_endpoint_without_ids(method: str, path: str, kind: str, endpoint: str) -> None:
    (call,) = calls(method, path, {"name": "n"}, host="api.customer.io")
    assert (call.kind, call.endpoint) == (kind, endpoint)
