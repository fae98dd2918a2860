"""The admin server over real sockets: probes, metrics, findings, the summary, and who may see them."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cio_proxy.admin import Admin
from cio_proxy.model import Address, Finding, JournalSettings, Settings
from cio_proxy.sinks.coverage import Coverage
from cio_proxy.sinks.journal import Journal
from cio_proxy.sinks.metrics import Metrics

LOOPBACK = Address("127.0.0.1", 0)


def finding(number: int, **fields: Any) -> Finding:
    words: dict[str, Any] = {"rule": "millisecond-timestamp", "severity": "error", "confidence": "certain"}
    words |= {"pointer": "", "message": "m", "effect": "e", "fix": "f"}
    return Finding(**{**words, **fields}, id=f"f{number}", fingerprint=f"{number:016x}")


class Proxy:
    """What an admin shows, without a proxy behind it."""

    def __init__(self) -> None:
        self.metrics = Metrics([], Settings(), "1.2.3")
        self.journal = Journal(JournalSettings())
        self.coverage = Coverage([])
        self.admin = Admin(
            metrics=self.metrics,
            journal=self.journal,
            summary=self.coverage.summary,
            degraded=self.metrics.degraded_parts,
            token="right",
            rules=["millisecond-timestamp", "missing-email"],
            switches=("observe", "enforce"),
            reset=self.reset,
        )

    async def reset(self, facts: bool) -> None:
        self.journal.reset()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    await proxy.admin.stop()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    address = await proxy.admin.start(LOOPBACK)
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        yield client


async def test_it_is_alive_at_once_but_ready_only_while_traffic_is_taken(
    proxy: Proxy, client: httpx.AsyncClient
) -> None:
    async def ready() -> tuple[int, Any]:
        response = await client.get("/readyz")
        return response.status_code, response.json()

    assert (await client.get("/livez")).status_code == 200
    assert await ready() == (503, {"ready": False, "degraded": []})
    proxy.admin.ready = True
    assert await ready() == (200, {"ready": True, "degraded": []})
    proxy.metrics.degraded("journal")
    assert await ready() == (200, {"ready": True, "degraded": ["journal"]})
    proxy.admin.draining = True
    assert (await ready())[0] == 503
    assert (await client.get("/livez")).status_code == 200


async def test_metrics_are_what_prometheus_reads(proxy: Proxy, client: httpx.AsyncClient) -> None:
    proxy.metrics.connection()
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert families["cio_proxy_client_connections"].samples[0].value == 1


async def test_findings_are_chosen_by_every_filter_and_paged(proxy: Proxy, client: httpx.AsyncClient) -> None:
    common = {"api": "track_v1", "call": "event", "client": "curl", "workspace": "production"}
    for number in range(5):
        proxy.journal.found(finding(number, action="would_block", **common))
    proxy.journal.found(finding(9, rule="missing-email", severity="warning", confidence="likely"))
    wanted = {**common, "rule": "millisecond-timestamp", "severity": "error", "confidence": "certain"}
    wanted |= {"action": "would_block", "limit": "2"}
    ids: list[str] = []
    after: int | None = 0
    while after is not None:
        page = (await client.get("/api/findings", params={**wanted, "after": after})).json()
        ids += [found["id"] for found in page["findings"]]
        after = page["next"]
    assert ids == ["f0", "f1", "f2", "f3", "f4"]
    only = (await client.get("/api/findings", params={"fingerprint": f"{9:016x}"})).json()
    assert [found["rule"] for found in only["findings"]] == ["missing-email"]
    assert only["next"] is None


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("colour=red", "unknown parameter 'colour': use rule, severity"),
        ("severity=eror", "severity: 'eror' is none of error, warning, info"),
        ("rule=milisecond-timestamp", "rule: 'milisecond-timestamp' is none of"),
        ("call=identfy", "call: 'identfy' is none of"),
        ("limit=0", "limit: '0' is not a whole number from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("limit=%D9%A1", "is not a whole number"),
        ("after=-1", "after: '-1' is not"),
        ("after=" + "9" * 5000, "is not a whole number"),
        ("api=app&api=app", "'api' is given twice"),
    ],
)
async def test_a_query_that_cannot_be_right_gets_one_clear_line(
    client: httpx.AsyncClient, query: str, says: str
) -> None:
    response = await client.get(f"/api/findings?{query}")
    assert response.status_code == 400
    assert says in response.json()["error"]
    assert len(response.text.splitlines()) == 1


async def test_evidence_that_is_not_quite_unicode_is_still_json(proxy: Proxy, client: httpx.AsyncClient) -> None:
    proxy.journal.found(finding(1, name="\udc80"))
    assert (await client.get("/api/findings")).json()["findings"][0]["name"] == "\udc80"


async def test_the_summary_and_the_index_are_json(proxy: Proxy, client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/summary")).json() == proxy.coverage.summary()
    for route in (await client.get("/")).json()["routes"]:
        assert (await client.get(route)).status_code in (200, 503)


async def test_an_unknown_route_or_method_is_one_line_of_json(client: httpx.AsyncClient) -> None:
    missing, posted = await client.get("/nothing"), await client.post("/metrics")
    assert (missing.status_code, missing.json()) == (404, {"error": "GET /nothing: not found"})
    assert (posted.status_code, posted.json()) == (405, {"error": "POST /metrics: method not allowed"})


async def test_elsewhere_than_on_loopback_all_but_probes_and_metrics_need_the_token(proxy: Proxy) -> None:
    address = await proxy.admin.start(Address("0.0.0.0", 0))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address.port}", trust_env=False) as client:
        for route in ("/metrics", "/livez", "/readyz"):
            assert (await client.get(route)).status_code in (200, 503)
        for route in ("/", "/api/findings", "/api/summary", "/nothing"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
                refused = await client.get(route, headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
        shown = await client.get("/api/summary", headers={"Authorization": "Bearer right"})
        assert shown.status_code == 200


async def test_without_a_token_nothing_guarded_is_shown(proxy: Proxy) -> None:
    proxy.admin.token = ""
    address = await proxy.admin.start(Address("0.0.0.0", 0))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address.port}", trust_env=False) as client:
        for header in ("", "Bearer", "Bearer right"):
            assert (await client.get("/api/summary", headers={"Authorization": header})).status_code == 401


async def test_a_busy_port_is_an_oserror_that_names_it(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: address already in use; give --admin"
        ):
            await proxy.admin.start(Address("127.0.0.1", port))


async def test_ipv6_is_an_address_like_any_other(proxy: Proxy) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    address = await proxy.admin.start(Address("::1", 0))
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://{address}/api/summary")).status_code == 200


async def test_signals_stay_with_the_program_and_stopping_frees_the_port(proxy: Proxy) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    address = await proxy.admin.start(LOOPBACK)
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        assert (await client.get("/livez")).status_code == 200
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    await proxy.admin.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", address.port), timeout=5)
    await proxy.admin.start(Address("127.0.0.1", address.port))


async def test_a_client_that_hangs_does_not_hold_up_the_stop(proxy: Proxy) -> None:
    address = await proxy.admin.start(LOOPBACK)
    _, writer = await asyncio.open_connection("127.0.0.1", address.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(30):
        await proxy.admin.stop()
    writer.close()


@pytest.mark.parametrize("body", [b"[" * 5_000, b"{}", b"", b'{"enforcement": []}', b"\xff"])
async def test_a_change_that_cannot_be_read_is_one_line_of_json(client: httpx.AsyncClient, body: bytes) -> None:
    refused = await client.post("/api/enforcement", content=body, headers={"Authorization": "Bearer right"})
    assert refused.status_code == 400
    assert "observe" in refused.json()["error"]


async def test_a_body_that_is_too_large_is_not_read(client: httpx.AsyncClient) -> None:
    refused = await client.post("/api/enforcement", content=b" " * 100_000, headers={"Authorization": "Bearer right"})
    assert refused.status_code == 413


async def test_a_page_of_another_site_cannot_read_findings_through_its_own_name(client: httpx.AsyncClient) -> None:
    for host, status in (("evil.example", 403), ("localhost:9180", 200), ("[::1]:9180", 200), ("127.0.0.2", 200)):
        assert (await client.get("/api/findings", headers={"Host": host})).status_code == status
