"""One base URL serves every SDK: host and path choose the Customer.io host."""

import pytest

from cio_proxy.model import Settings
from cio_proxy.sources.mitm.upstreams import Target, Upstreams

from .conftest import OpenDoor, request, upstream


@pytest.mark.parametrize(
    ("upstream", "host", "path", "wanted"),
    [
        ("live", "localhost", b"/api/v1/customers/1", "track.customer.io"),
        ("live", "localhost", b"/api/v2/batch", "track.customer.io"),
        ("live", "localhost", b"/unsubscribe/abc", "track.customer.io"),
        ("live", "localhost", b"/push/events", "track.customer.io"),
        ("live", "localhost", b"/v1/identify", "cdp.customer.io"),
        ("live", "localhost", b"/v1/batch", "cdp.customer.io"),
        ("live", "localhost", b"/v1/send/email", "api.customer.io"),
        ("live", "localhost", b"/anything", "track.customer.io"),
        ("live-eu", "localhost", b"/api/v1/customers/1", "track-eu.customer.io"),
        ("live-eu", "localhost", b"/v1/track", "cdp-eu.customer.io"),
        ("live-eu", "localhost", b"/v1/send/email", "api-eu.customer.io"),
        ("live", "track-eu.customer.io", b"/api/v1/customers/1", "track-eu.customer.io"),
        ("live-eu", "cdp.customer.io", b"/v1/track", "cdp.customer.io"),
        ("live", "track.customer.io", b"/v1/send/email", "track.customer.io"),
        ("live", "elsewhere.example", b"/v1/track", "cdp.customer.io"),
    ],
)
def test_live_traffic_goes_to_the_host_of_its_api(upstream: str, host: str, path: bytes, wanted: str) -> None:
    upstreams = Upstreams(upstream)
    assert upstreams.target(upstreams.place(host, path)) == Target("https", wanted, 443)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://127.0.0.1:9000", b"127.0.0.1:9000"),
        ("http://127.0.0.1:80", b"127.0.0.1"),
        ("https://proxy.example", b"proxy.example"),
        ("https://[::1]:8443", b"[::1]:8443"),
    ],
)
def test_a_url_takes_everything(url: str, authority: bytes) -> None:
    upstreams = Upstreams(url)
    assert upstreams.target(upstreams.place("track.customer.io", b"/v1/track")).authority == authority


@pytest.mark.parametrize("host", [b"", b"[::1", b"\xff\xfe", b"a, b", b":80", b"track.customer.io:x"])
async def test_no_host_header_upsets_it(host: bytes, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url) as door:
        assert (await door.send(request("GET", "/api/v1/accounts/region", host=host))).startswith(b"HTTP/1.1 200")
    authority = raw.url.removeprefix("http://").encode()
    assert b"\r\nHost: " + authority + b"\r\n" in raw.received[0]


async def test_an_absolute_target_goes_to_the_upstream_too(open_door: OpenDoor) -> None:
    sent = request("GET", "http://track.customer.io/api/v1/accounts/region")
    async with upstream() as raw, open_door(raw.url, Settings()) as door:
        await door.send(sent)
    assert raw.received == [sent.replace(b"track.customer.io", raw.url.removeprefix("http://").encode())]
    assert door.sink.ends[0].exchange.target == b"/api/v1/accounts/region"


async def test_the_exchange_has_the_host_and_headers_of_the_client(open_door: OpenDoor) -> None:
    sent = request("PUT", "/api/v1/customers/42", b"{}", b"Expect: 100-continue", host=b"Track.Customer.io:8080")
    async with upstream() as raw, open_door(raw.url) as door:
        await door.send(sent.replace(b"Expect: 100-continue\r\n", b""))
    exchange = door.sink.ends[0].exchange
    assert exchange.host == "track.customer.io"
    assert exchange.header("host") == "Track.Customer.io:8080"
    assert exchange.client_address == "127.0.0.1"
