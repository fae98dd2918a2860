"""The server: credentials, the read API, its life, and bytes of any kind."""

import asyncio
import base64
import gzip
import json
import socket
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cio_proxy.sandbox import Sandbox, pipelines

from .conftest import APP, CDP, TRACK, Service

ROUTES = [
    ("GET", b"/api/v1/accounts/region"),
    ("PUT", b"/api/v1/customers/%s"),
    ("DELETE", b"/api/v1/customers/%s"),
    ("PUT", b"/api/v1/customers/%s/devices"),
    ("DELETE", b"/api/v1/customers/%s/devices/%s"),
    ("POST", b"/api/v1/customers/%s/suppress"),
    ("POST", b"/api/v1/customers/%s/unsuppress"),
    ("POST", b"/api/v1/customers/%s/events"),
    ("POST", b"/api/v1/events"),
    ("POST", b"/api/v1/merge_customers"),
    ("POST", b"/api/v1/segments/%s/add_customers?id_type=%s"),
    ("POST", b"/api/v1/segments/%s/remove_customers"),
    ("POST", b"/api/v1/forms/%s/submit"),
    ("POST", b"/api/v1/metrics"),
    ("POST", b"/push/events"),
    ("POST", b"/unsubscribe/%s"),
    ("POST", b"/api/v2/entity"),
    ("POST", b"/api/v2/batch"),
    *(("POST", b"/v1/" + kind) for kind in b"identify track page screen group alias batch".split()),
    ("POST", b"/v1/send/email"),
    ("POST", b"/v1/send/push"),
    ("POST", b"/v1/campaigns/%s/triggers"),
    ("POST", b"/v1/esp/suppression/bounces/%s"),
    ("GET", b"/v1/customers/%s/messages"),
    ("GET", b"/_sandbox/people"),
    ("GET", b"/_sandbox/%s"),
    ("PATCH", b"/%s"),
]


def auth_for(path: bytes) -> str:
    if pipelines.PATH.match(path):
        return CDP
    return APP if path.startswith(b"/v1/") else TRACK


async def call(
    sandbox: Sandbox, method: str, target: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> int:
    """One request straight into the application, with bytes that no HTTP client would send."""
    path, _, query = target.partition(b"?")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    authorization = (b"authorization", auth_for(path).encode())
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path,
        "query_string": query,
        "headers": [authorization, *headers],
    }
    await sandbox.app(scope, receive, send)
    return int(sent[0]["status"])


NAMES = ["id", "email", "cio_id", "phone", "name", "data", "type", "action", "identifiers", "attributes", "device",
         "primary", "secondary", "ids", "batch", "userId", "anonymousId", "groupId", "previousId", "event", "traits",
         "properties", "timestamp", "anonymous_id", "_timestamp", "created_at", "createdAt", "cio_relationships",
         "relationships", "cio_subscription_preferences", "to", "delivery_id", "metric", "object_id", "unsubscribe",
         "send_at", "context", "per_user_data", "token", "platform", "topics", "_update", "messageId"]  # fmt: skip
WORDS = ["person", "object", "delivery", "identify", "event", "page", "track", "merge", "add_device", "ios", "opened",
         "add_relationships", "a@b.c", "ada", "2024-01-03T13:20:00Z", "0001-01-01T00:00:00+23:59", "",
         "\ud800"]  # fmt: skip
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.just(10**400)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=25,
)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    route=st.sampled_from(ROUTES),
    part=st.binary(max_size=12),
    body=st.binary(max_size=200) | values.map(as_json),
    encoding=st.sampled_from([(), ((b"content-encoding", b"gzip"),), ((b"x-strict-mode", b"1"),)]),
)
def test_bytes_of_any_kind_never_break_a_route(
    route: tuple[str, bytes], part: bytes, body: bytes, encoding: tuple[tuple[bytes, bytes], ...]
) -> None:
    async def twice() -> list[int]:
        sandbox = Sandbox(clock=lambda: 1_800_000_000.0)
        method, target = route
        target = target.replace(b"%s", part)
        answers = [await call(sandbox, method, target, body, encoding) for _ in range(2)]
        reads = [await call(sandbox, "GET", b"/_sandbox/" + kind, b"") for kind in (b"people", b"events", b"requests")]
        return answers + reads

    assert all(status < 500 for status in asyncio.run(twice()))


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff\xfe", b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b"[" * 100_000, b'"text"',
        b"[" * 150 + b"]" * 150, b'{"a":' * 150 + b"1" + b"}" * 150,
    ],
)  # fmt: skip
async def test_a_body_that_is_no_json_object_is_refused_in_each_apis_shape(cio: Service, body: bytes) -> None:
    shapes = {
        ("PUT", "/api/v1/customers/ada"): "meta",
        ("POST", "/api/v1/events"): "meta",
        ("POST", "/api/v2/batch"): "errors",
        ("POST", "/v1/send/email"): "meta",
    }
    for (method, path), key in shapes.items():
        answer = await cio.send(method, path, content=body)
        assert (answer.status_code, list(answer.json())) == (400, [key])
    assert "dropped" in await cio.ok("POST", "/v1/track", content=body)
    assert await cio.shown("people") == []


@pytest.mark.parametrize(
    ("path", "authorization", "shape"),
    [
        ("/api/v1/customers/ada", None, {"meta"}),
        ("/api/v1/customers/ada", APP, {"meta"}),
        ("/api/v2/batch", "Basic " + base64.b64encode(b"site_id:").decode(), {"meta"}),
        ("/api/v2/batch", "Basic " + base64.b64encode(b"nocolon").decode(), {"meta"}),
        ("/api/v2/batch", "Basic %%%", {"meta"}),
        ("/v1/batch", None, {"code", "message"}),
        ("/v1/batch", APP, {"code", "message"}),
        ("/v1/batch", TRACK, {"code", "message"}),
        ("/v1/send/email", TRACK, {"errors"}),
        ("/v1/customers", "Bearer ", {"errors"}),
    ],
)
async def test_a_wrong_scheme_is_answered_401_in_that_apis_shape(
    cio: Service, path: str, authorization: str | None, shape: set[str]
) -> None:
    answer = await cio.http.post(path, json={}, headers={"Authorization": authorization} if authorization else {})
    assert (answer.status_code, answer.json().keys()) == (401, shape)


@pytest.mark.parametrize("authorization", [CDP, "Bearer pk_us_abc", "Bearer sk_eu_abc"])
async def test_both_families_of_pipelines_keys_are_accepted(cio: Service, authorization: str) -> None:
    answer = await cio.http.post("/v1/batch", json={"batch": []}, headers={"Authorization": authorization})
    assert answer.status_code == 200


async def test_the_url_safe_alphabet_of_go_is_accepted(cio: Service) -> None:
    token = base64.urlsafe_b64encode(b"site\xfb\xff\xbe:key\xfb\xff\xbe").decode()
    assert set(token) & {"-", "_"}
    answer = await cio.http.delete("/api/v1/customers/ada", headers={"Authorization": f"Basic {token}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("region", ["us", "eu"])
async def test_the_region_is_the_sandboxs(region: Any) -> None:
    sandbox = Sandbox(region=region)
    url = await sandbox.start()
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/api/v1/accounts/region", headers={"Authorization": TRACK})
    await sandbox.stop()
    host = {"us": "track.customer.io", "eu": "track-eu.customer.io"}[region]
    assert answer.json() == {"url": f"https://{host}", "region": region, "environment_id": 123}


async def test_every_request_is_kept_as_received(cio: Service) -> None:
    body = gzip.compress(b'{"batch":[]}')
    headers = {"Content-Encoding": "gzip", "X-B": "2", "X-A": "1"}
    await cio.ok("POST", "/v1/batch?q=%2F", content=body, headers=headers)
    await cio.http.put("/api/v1/customers/ada", json={})
    kept = await cio.shown("requests")
    assert [(one["method"], one["target"], one["status"]) for one in kept] == [
        ("POST", "/v1/batch?q=%2F", 200),
        ("PUT", "/api/v1/customers/ada", 401),
    ]
    assert base64.b64decode(kept[0]["body"]) == body
    names = [name for name, _ in kept[0]["headers"]]
    assert names.index("x-b") < names.index("x-a"), "in the order they came in"


async def test_reset_forgets_everything(cio: Service) -> None:
    await cio.ok("POST", "/api/v1/customers/ada/events", {"name": "e"})
    await cio.ok("POST", "/v1/send/push", {"identifiers": {"id": "ada"}})
    await cio.http.post("/_sandbox/reset")
    for kind in ("people", "events", "deliveries", "objects", "requests"):
        assert await cio.shown(kind) == []


async def test_memory_is_bounded(cio: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cio_proxy.sandbox.state.MAX_PEOPLE", 5)
    monkeypatch.setattr("cio_proxy.sandbox.state.MAX_EVENTS", 6)
    monkeypatch.setattr("cio_proxy.sandbox.server.MAX_REQUESTS", 7)
    cio.sandbox.reset()
    for number in range(20):
        await cio.ok("POST", f"/api/v1/customers/{number}/events", {"name": f"e{number}"})
    assert [person["id"] for person in await cio.shown("people")] == ["15", "16", "17", "18", "19"]
    assert len(await cio.shown("events")) == 6
    assert len(await cio.shown("requests")) == 7


async def test_large_bodies_push_out_old_requests(cio: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cio_proxy.sandbox.server.MAX_REQUEST_BYTES", 3_000_000)
    cio.sandbox.reset()
    for _ in range(5):
        await cio.send("PUT", "/api/v1/customers/ada", content=b"x" * 1_000_000)
    assert len(await cio.shown("requests")) == 2


async def test_an_8_mb_body_is_kept_whole(cio: Service) -> None:
    body = b'{"to":"a@b.c","identifiers":{"id":"1"},"transactional_message_id":1,"attachments":{"f":"' + b"A" * 2**23
    await cio.ok("POST", "/v1/send/email", content=body + b'"}}')
    assert base64.b64decode((await cio.shown("requests"))[0]["body"]) == body + b'"}}'


async def test_a_gzip_bomb_is_refused(cio: Service) -> None:
    bomb = gzip.compress(b" " * (2**26))
    answer = await cio.send("PUT", "/api/v1/customers/ada", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400


async def test_a_busy_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(OSError, match=f"the sandbox cannot listen on 127.0.0.1:{port}: Address already in use"):
            await Sandbox().start(port=port)


async def test_it_starts_again_after_a_stop_and_frees_its_port() -> None:
    sandbox = Sandbox()
    await sandbox.stop()
    for _ in range(2):
        url = await sandbox.start()
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/_sandbox/people")).status_code == 200
        await sandbox.stop()
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(url)


async def test_an_absolute_target_is_read_by_its_path(cio: Service) -> None:
    host, port = cio.http.base_url.host, cio.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"DELETE http://track.customer.io/api/v1/customers/ada HTTP/1.1\r\nHost: track.customer.io\r\n"
        b"Connection: close\r\nAuthorization: " + TRACK.encode() + b"\r\n\r\n"
    )
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
