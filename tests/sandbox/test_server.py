"""The server: credentials, bodies, the read API, and its life."""

import asyncio
import base64
import gzip
import socket
from typing import Any

import httpx
import pytest

from cio_proxy.sandbox import Regions, Sandbox

from .conftest import APP, CDP, TRACK, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
        ("/v1/customers", "Bearer", {"errors"}),
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
        with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1:{port}: address already in use; give --listen"):
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


async def test_a_pair_of_sandboxes_turns_away_what_belongs_to_the_other() -> None:
    """As reference 1.1 has it: the US redirects, the EU fails."""
    regions = Regions(eu_keys=["0a1b2c3d4e5f60718293"])
    us, eu = await regions.start()
    pair = "Basic " + base64.b64encode(b"0a1b2c3d4e5f60718293:f82ad78f695bd32f9d99").decode()
    async with httpx.AsyncClient() as http:

        async def sent(url: str, path: str, authorization: str) -> httpx.Response:
            return await http.post(url + path, json={}, headers={"Authorization": authorization})

        moved = await sent(us, "/api/v1/customers/1/suppress?a=b%20c", pair)
        assert (moved.status_code, moved.headers["location"]) == (307, f"{eu}/api/v1/customers/1/suppress?a=b%20c")
        assert (await sent(us, "/v1/batch", "Bearer pk_eu_abc")).status_code == 307
        assert (await sent(eu, "/v1/batch", "Bearer pk_us_abc")).status_code == 401
        assert (await sent(eu, "/api/v1/customers/1/suppress", pair)).status_code == 200
        assert (await sent(us, "/api/v1/customers/1/suppress", TRACK)).status_code == 200
    await regions.stop()
