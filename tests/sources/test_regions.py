"""Each host of Customer.io may have a URL of its own, and a redirect to the other region is followed here."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cio_proxy.model import Outcome, Settings, TimeoutSettings, UpstreamSettings, WorkspaceSettings
from cio_proxy.sandbox import Regions
from cio_proxy.sources.mitm.upstreams import Target, Upstreams

from .conftest import OK, SITE, OpenDoor, Opened, Upstream, read_message, request, upstream
from .test_gateway import gateway_error, serving, tls_for

PATH = "/api/v1/customers/42"
BODY = b'{"email": "a@example.com"}'
IDENTIFY = request("PUT", PATH, BODY)
STRANGER = base64.b64encode(b"0a1b2c3d4e5f60718293:a13c95a0bc44d9f01e27")


def redirect(location: str, status: int = 307) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 4\r\n\r\ngone" % (status, location.encode())


TO_EU = redirect(f"https://track-eu.customer.io{PATH}")
TO_US = redirect(f"https://track.customer.io{PATH}")


def named(us: str, eu: str, **settings: Any) -> Settings:
    return Settings(upstreams=UpstreamSettings(track=us, track_eu=eu), **settings)


def recorded(door: Opened) -> list[Outcome]:
    """The outcomes that rules will see from now on."""
    outcomes: list[Outcome] = []
    settle = door.auditor.engine.settle

    def settled(opened: Any, outcome: Outcome) -> Any:
        outcomes.append(outcome)
        return settle(opened, outcome)

    door.auditor.engine.settle = settled  # type: ignore[method-assign]
    return outcomes


@asynccontextmanager
async def both(
    open_door: OpenDoor, us: Any, eu: Any, **settings: Any
) -> AsyncIterator[tuple[Upstream, Upstream, Opened]]:
    """A door in front of an upstream for each region."""
    async with (
        upstream(us) as first,
        upstream(eu) as second,
        open_door("http://127.0.0.1:9", named(first.url, second.url, **settings)) as door,
    ):
        yield first, second, door


def moved(sent: bytes, to: Upstream) -> bytes:
    """What an upstream receives of a request: the same bytes with another `Host`."""
    return sent.replace(b"track.customer.io", to.url.removeprefix("http://").encode())


@pytest.mark.parametrize(
    ("host", "path", "wanted"),
    [
        ("track.customer.io", b"/api/v1/x", "http://a:1"),
        ("track-eu.customer.io", b"/api/v1/x", "https://b"),
        ("localhost", b"/api/v1/x", "http://a:1"),
        ("api.customer.io", b"/v1/send/email", "http://c:1"),
        ("localhost", b"/v1/send/email", "http://c:1"),
        ("beta-api.customer.io", b"/v1/send/email", "http://c:1"),
        ("cdp.customer.io", b"/v1/track", "http://rest:1"),
        ("api-eu.customer.io", b"/v1/send/email", "http://rest:1"),
    ],
)
def test_a_url_named_for_a_host_goes_before_the_one_for_all(host: str, path: bytes, wanted: str) -> None:
    settings = UpstreamSettings(track="http://a:1", track_eu="https://b", app="http://c:1")
    upstreams = Upstreams("http://rest:1", settings)
    target = upstreams.target(upstreams.place(host, path))
    assert f"{target.scheme}://{target.authority.decode()}" == wanted


def test_the_rest_goes_to_customer_io_where_upstream_is_live() -> None:
    upstreams = Upstreams("live-eu", UpstreamSettings(track_eu="http://a:1"))
    assert upstreams.target(upstreams.place("localhost", b"/api/v1/x")) == Target("http", "a", 1)
    assert upstreams.target(upstreams.place("localhost", b"/v1/track")) == Target("https", "cdp-eu.customer.io", 443)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_client_gets_the_answer_of_the_other_region(status: int, chunked: bool, open_door: OpenDoor) -> None:
    sent = request("PUT", PATH, BODY, b"X-Odd:  a", b"x-odd: B")
    if chunked:
        sent = request("PUT", PATH, b"", b"Transfer-Encoding: chunked") + b"1a\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % BODY
    location = f"https://track-eu.customer.io{PATH}"
    async with both(open_door, lambda _: redirect(location, status), lambda _: OK) as (us, eu, door):
        outcomes = recorded(door)
        assert await door.send(sent) == OK
    trimmed = sent.replace(b"X-Odd:  a", b"X-Odd: a")
    assert (us.received, eu.received) == ([moved(trimmed, us)], [moved(trimmed, eu)])
    assert [(outcome.kind, outcome.status, outcome.location) for outcome in outcomes] == [("accepted", 200, location)]
    assert door.sink.endings == ["forwarded"]


async def test_the_redirects_own_path_is_asked_for(open_door: OpenDoor) -> None:
    location = "https://track-eu.customer.io/api/v1/customers/42?moved=%2f#part"
    async with both(open_door, lambda _: redirect(location), lambda _: OK) as (_, eu, door):
        await door.send(IDENTIFY)
    assert eu.received[0].startswith(b"PUT /api/v1/customers/42?moved=%2f HTTP/1.1\r\n")


async def test_a_workspace_is_sent_to_its_region_at_once_from_then_on(open_door: OpenDoor) -> None:
    async with both(open_door, lambda _: TO_EU, lambda _: OK) as (us, eu, door):
        outcomes = recorded(door)
        reader, writer = await door.connect()
        for _ in range(3):
            writer.write(IDENTIFY)
            assert await asyncio.wait_for(read_message(reader), 20) == OK
        writer.close()
        assert await door.send(IDENTIFY) == OK
    assert (len(us.received), len(eu.received)) == (1, 4)
    assert [bool(outcome.location) for outcome in outcomes] == [True, False, False, False]


async def test_a_named_workspace_takes_its_other_apis_along_and_leaves_strangers(open_door: OpenDoor) -> None:
    key = f"sha256:{hashlib.sha256(b'secret').hexdigest()}"
    workspaces = {"shop": WorkspaceSettings(site_ids=(SITE,), app_keys=(key,))}
    message = request("POST", "/v1/send/email", b"{}", host=b"api.customer.io")
    message = message.replace(b"Authorization: Basic", b"Authorization: Bearer secret\r\nX-Old: Basic")
    async with upstream(lambda sent: TO_EU if b"Basic Zjgy" in sent else OK) as us, upstream() as eu:
        urls = UpstreamSettings(track=us.url, app=us.url, track_eu=eu.url, app_eu=eu.url)
        async with open_door("http://127.0.0.1:9", Settings(upstreams=urls, workspaces=workspaces)) as door:
            await door.send(IDENTIFY)
            await door.send(IDENTIFY.replace(IDENTIFY.split(b"Basic ")[1].split(b"\r\n")[0], STRANGER))
            await door.send(message)
    assert [sent.split(b" ", 2)[:2] for sent in us.received] == [[b"PUT", PATH.encode()]] * 2
    assert [sent.split(b" ", 2)[1] for sent in eu.received] == [PATH.encode(), b"/v1/send/email"]


async def test_a_region_that_refuses_the_key_is_forgotten(open_door: OpenDoor) -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"
    us = iter([TO_EU, OK])
    eu = iter([OK, refused])
    async with both(open_door, lambda _: next(us), lambda _: next(eu)) as (_, _, door):
        statuses = [(await door.send(IDENTIFY))[9:12] for _ in range(3)]
    assert statuses == [b"200", b"401", b"200"]


async def test_a_loop_ends_after_one_hop_with_the_second_redirect_as_it_came(open_door: OpenDoor) -> None:
    async with both(open_door, lambda _: TO_EU, lambda _: TO_US) as (us, eu, door):
        outcomes = recorded(door)
        assert await door.send(IDENTIFY) == TO_US
        assert await door.send(IDENTIFY) == TO_US  # and nothing was remembered
    assert (len(us.received), len(eu.received)) == (2, 2)
    assert {outcome.kind for outcome in outcomes} == {"unknown"}
    assert door.sink.endings == ["forwarded"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        redirect("https://elsewhere.example/x"),
        redirect("/api/v1/elsewhere"),
        redirect(f"https://track.customer.io{PATH}"),
        redirect("https://api-eu.customer.io/v1/x"),
        redirect(f"https://track-eu.customer.io:8443{PATH}"),
        redirect(f"https://track-eu.customer.io.elsewhere.example{PATH}"),
        redirect(f"https://me@track-eu.customer.io{PATH}"),
        redirect("https://track-eu.customer.io/a b"),
        redirect("https://[::1/x"),
        redirect(f"https://track-eu.customer.io{PATH}", 303),
        redirect(f"https://track-eu.customer.io{PATH}", 200),
        b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda answer: answer.partition(b"\r\n\r\n")[0].decode().replace("\r\n", " "),
)
async def test_any_other_redirect_passes_untouched(answer: bytes, open_door: OpenDoor) -> None:
    async with both(open_door, lambda _: answer, lambda _: OK) as (_, eu, door):
        assert await door.send(IDENTIFY) == answer
    assert eu.received == []


async def test_where_both_regions_are_one_server_the_redirect_passes_and_rules_know(open_door: OpenDoor) -> None:
    async with upstream(lambda _: TO_EU) as raw, open_door(raw.url) as door:
        outcomes = recorded(door)
        assert await door.send(IDENTIFY) == TO_EU
    assert len(raw.received) == 1
    assert outcomes[0].location == f"https://track-eu.customer.io{PATH}"


async def test_a_streamed_body_cannot_be_followed_and_the_client_reads_why(open_door: OpenDoor) -> None:
    large = request("PUT", PATH, b"x" * 5_000)
    async with both(open_door, lambda _: TO_EU, lambda _: OK, max_audited_body=1_000) as (_, eu, door):
        message = gateway_error(await door.send(large), 502)
        assert "track-eu.customer.io" in message
        assert "too large" in message
        assert eu.received == []
        assert await door.send(large) == OK  # the second try goes there at once
    assert len(eu.received) == 1
    assert door.sink.endings == ["failed", "unaudited"]


async def test_a_redirect_before_the_streamed_body_has_ended_is_a_502_too(open_door: OpenDoor) -> None:
    head, _, _ = request("PUT", PATH, b"x" * 5_000).partition(b"\r\n\r\n")

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TO_EU)
        await reader.read()
        writer.close()

    async with serving(early) as port, upstream() as eu:
        settings = named(f"http://127.0.0.1:{port}", eu.url, max_audited_body=1_000)
        async with open_door("http://127.0.0.1:9", settings) as door:
            assert "too large" in gateway_error(await door.send(head + b"\r\n\r\nxxx"), 502)
    assert door.sink.endings == ["failed"]


async def test_a_dead_other_region_is_one_502(open_door: OpenDoor) -> None:
    async with (
        upstream(lambda _: TO_EU) as us,
        open_door("http://127.0.0.1:9", named(us.url, "http://127.0.0.1:9")) as door,
    ):
        assert "cannot be reached: connection refused" in gateway_error(await door.send(IDENTIFY), 502)
    assert door.sink.endings == ["failed"]


async def test_each_region_has_the_whole_time_to_answer_and_no_more(open_door: OpenDoor) -> None:
    async def slow(_: bytes) -> bytes:
        await asyncio.sleep(0.5)
        return TO_EU

    async def silent(_: bytes) -> bytes:
        await asyncio.sleep(30)
        return OK

    async def answer(_: bytes) -> bytes:
        await asyncio.sleep(0.5)
        return OK

    timeouts = TimeoutSettings(connect=0.9, response=0.9, drain=1.0)
    async with both(open_door, slow, answer, timeouts=timeouts) as (_, _, door):
        assert await door.send(IDENTIFY) == OK
    async with both(open_door, slow, silent, timeouts=timeouts) as (_, _, door):
        assert "in time" in gateway_error(await door.send(IDENTIFY), 504)
    assert door.sink.endings == ["failed"]


@pytest.mark.parametrize(
    "answer",
    [
        TO_EU.replace(b"Content-Length: 4", b"Content-Length: 4\r\nConnection: close"),
        TO_EU.replace(b"Content-Length: 4\r\n\r\ngone", b"Content-Length: 0\r\n\r\n"),
        TO_EU.replace(b"Content-Length: 4\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n4\r\n") + b"\r\n0\r\n\r\n",
        TO_EU.replace(b"Content-Length: 4\r\n", b""),
    ],
    ids=["closing", "empty", "chunked", "until the end"],
)
async def test_however_the_redirect_ends_it_is_followed(answer: bytes, open_door: OpenDoor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(answer)
        if b"Content-Length" not in answer and b"chunked" not in answer:
            writer.write_eof()
        await reader.read()
        writer.close()

    async with serving(serve) as port, upstream() as eu:
        settings = named(f"http://127.0.0.1:{port}", eu.url)
        async with open_door("http://127.0.0.1:9", settings) as door:
            assert await door.send(IDENTIFY) == OK
    assert door.sink.endings == ["forwarded"]


async def test_a_redirect_that_never_ends_is_a_504(open_door: OpenDoor) -> None:
    stalled = TO_EU.replace(b"Content-Length: 4", b"Content-Length: 5")
    timeouts = TimeoutSettings(connect=0.3, response=0.3, drain=1.0)
    async with both(open_door, lambda _: stalled, lambda _: OK, timeouts=timeouts) as (_, eu, door):
        assert "in time" in gateway_error(await door.send(IDENTIFY), 504)
    assert eu.received == []


async def test_pipelined_requests_are_followed_in_their_order(open_door: OpenDoor) -> None:
    def answer(sent: bytes) -> bytes:
        number = sent.split(b" ")[1].rpartition(b"/")[2]
        return b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n" + number  # not accepted, so nothing is remembered

    def moved(sent: bytes) -> bytes:
        return redirect(f"https://track-eu.customer.io{sent.split(b' ')[1].decode()}")

    async with both(open_door, moved, answer) as (us, _, door):
        reader, writer = await door.connect()
        writer.write(b"".join(request("PUT", f"/api/v1/customers/{number}", BODY) for number in range(5)))
        answers = [await asyncio.wait_for(read_message(reader), 20) for _ in range(5)]
        writer.close()
    assert [answer[-1:] for answer in answers] == [b"0", b"1", b"2", b"3", b"4"]
    assert len(us.received) == 5


async def test_a_stop_lets_a_followed_request_finish(open_door: OpenDoor) -> None:
    release = asyncio.Event()

    async def later(_: bytes) -> bytes:
        await release.wait()
        return OK

    async with both(open_door, lambda _: TO_EU, later) as (_, eu, door):
        reader, writer = await door.connect()
        writer.write(IDENTIFY)
        await asyncio.wait_for(eu.arrived.wait(), 20)
        stopping = asyncio.create_task(door.door.stop())
        await asyncio.sleep(0.1)
        release.set()
        assert (await asyncio.wait_for(read_message(reader), 20)).startswith(b"HTTP/1.1 200")
        writer.close()
        await asyncio.wait_for(stopping, 20)
    assert door.sink.endings == ["forwarded"]


async def test_a_client_that_leaves_meanwhile_is_counted_once(open_door: OpenDoor) -> None:
    async def later(_: bytes) -> bytes:
        await asyncio.sleep(0.2)
        return OK

    async with both(open_door, lambda _: TO_EU, later) as (_, eu, door):
        _, writer = await door.connect()
        writer.write(IDENTIFY)
        await asyncio.wait_for(eu.arrived.wait(), 20)
        writer.close()
        async with asyncio.timeout(20):
            while not door.sink.ends:
                await asyncio.sleep(0.01)
    assert door.sink.endings == ["forwarded"]


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_other_regions_certificate_is_verified(trusted: bool, open_door: OpenDoor, tmp_path: Path) -> None:
    context, ca = tls_for("localhost", tmp_path / "ca")
    async with upstream(lambda _: TO_EU) as us, serving(Upstream().serve, ssl=context) as port:
        settings = named(us.url, f"https://localhost:{port}", extra_ca=str(ca) if trusted else None)
        async with open_door("http://127.0.0.1:9", settings) as door:
            answer = await door.send(IDENTIFY)
    assert answer == OK if trusted else "ertificate" in gateway_error(answer, 502)


async def test_of_a_cut_batch_the_cut_one_is_sent_on(open_door: OpenDoor) -> None:
    good = b'{"type":"person","action":"identify","identifiers":{"id":"1"},"attributes":{"email":"a@example.com"}}'
    late = good.replace(b'"email"', b'"created_at":1700000000000,"email"')
    sent = request("POST", "/api/v2/batch", b'{"batch":[%b,%b]}' % (late, good))
    to_eu = redirect("https://track-eu.customer.io/api/v2/batch")
    async with both(open_door, lambda _: to_eu, lambda _: OK, enforcement="enforce") as (_, eu, door):
        assert (await door.send(sent)).startswith(b"HTTP/1.1 207")
    assert eu.received[0].endswith(b'{"batch":[%b]}' % good)
    assert door.sink.endings == ["partial"]


async def test_the_sandbox_has_both_regions_and_redirects_as_customer_io_does(open_door: OpenDoor) -> None:
    regions = Regions(eu_keys=["0a1b2c3d4e5f60718293"])
    us, eu = await regions.start()
    try:
        async with open_door(us, sandbox=True, sandbox_eu=eu) as door:
            where = request("GET", "/api/v1/accounts/region")
            assert b'"region": "us"' in await door.send(where)
            assert b'"region": "eu"' in await door.send(where.replace(b"track.", b"track-eu."))
            theirs = IDENTIFY.split(b"Basic ")[1].split(b"\r\n")[0]
            assert (await door.send(IDENTIFY.replace(theirs, STRANGER))).startswith(b"HTTP/1.1 200")
            assert door.sink.ends[-1].exchange.sandbox
    finally:
        await regions.stop()
    assert [received.status for received in regions.us.requests] == [200, 307]
    assert list(regions.us.workspace.people) == []
    assert len(regions.eu.workspace.people) == 1
