"""What no-rate-limiting counts, and both sides of each of its limits."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Call, Exchange, Finding, Groups, RuleSettings, Settings
from cio_proxy.rules import RULES
from cio_proxy.rules.no_rate_limiting import RULE, excess, limit, needs, waits_longer

from .alone import BASIC, NOW

ID = "no-rate-limiting"
TRACK, APP, CDP = "track.customer.io", "api.customer.io", "cdp.customer.io"
EVENTS = f"{TRACK}/api/v1/customers/42/events"


class Sent(NamedTuple):
    at: float
    url: str = f"{TRACK}/api/v1/customers/42"
    body: Any = None
    method: str = "PUT"
    status: int = 200
    headers: Mapping[str, str] = {}
    took: float = 0.0


async def told(sents: Sequence[Sent], store: MemoryStore | None = None, **params: Any) -> list[Finding]:
    errors: list[object] = []
    engine = Engine(
        Settings(rules={ID: RuleSettings(report="possible", params=params)}),
        tuple(rule for rule in RULES if rule.info.id == ID),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
    )
    recorded = []
    for number, sent in enumerate(sorted(sents, key=lambda sent: sent.at)):
        host, slash, path = sent.url.partition("/")
        headers = {"Authorization": BASIC, **sent.headers}
        headers = {name: value for name, value in headers.items() if value}
        exchange = Exchange(
            id=f"{number:08x}",
            at=NOW + sent.at,
            method=sent.method,
            target=(slash + path).encode(),
            host=host,
            headers=tuple((name.encode(), value.encode()) for name, value in headers.items()),
            body=b"" if sent.body is None else json.dumps(sent.body).encode(),
            connection="c",
            carried=number + 1,
        )
        recorded.append((exchange, Recorded(NOW + sent.at + sent.took, sent.status)))
    found = await audit_recorded(recorded, engine, store=store)
    assert errors == []
    return found


def stream(count: int, seconds: float, **more: Any) -> list[Sent]:
    """So many, evenly over so long."""
    return [Sent(number * seconds / count, **more) for number in range(count)]


@pytest.mark.parametrize(("count", "found"), [(51, True), (50, False)])
async def test_a_rate_above_its_figure_for_ten_seconds_is_told(count: int, found: bool) -> None:
    (*findings,) = await told(stream(count, 9.9), track=5)
    assert bool(findings) is found
    assert [f.confidence for f in findings] == ["likely"] * found


@pytest.mark.parametrize(("seconds", "found"), [(6, True), (5, False)])
async def test_traffic_has_to_fill_six_of_the_ten_seconds(seconds: int, found: bool) -> None:
    assert bool(await told(stream(60, seconds), track=5)) is found


async def test_what_is_ten_seconds_old_counts_no_more() -> None:
    old, new = stream(40, 6), [Sent(15.9 + sent.at) for sent in stream(40, 6)]
    assert not await told([*old, *new], track=5)
    assert await told([*old, *[Sent(3.0 + sent.at) for sent in stream(40, 6)]], track=5)


async def test_of_many_requests_one_in_a_few_is_counted_and_enough_to_tell() -> None:
    assert not await told(stream(1_200, 12))
    (found,) = await told(stream(1_560, 12))
    assert found.confidence == "likely"
    assert found.message.startswith("about 1,")
    assert found.message.endswith("0 of them batches; Customer.io asks for 100 a second")


async def test_a_burst_above_both_published_figures_is_certain() -> None:
    (found,) = await told(stream(1_350, 3), burst_rate=300)
    assert (found.confidence, "in 3 s" in found.message) == ("certain", True)
    assert not await told(stream(870, 3), burst_rate=300)


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [(f"{TRACK}/api/v1/customers/42", {}, "track"), (f"{CDP}/v1/identify", {"userId": "42"}, "pipelines")],
)
async def test_a_burst_has_to_be_a_quarter_above_three_seconds_of_its_figure(url: str, body: Any, param: str) -> None:
    method = "PUT" if param == "track" else "POST"

    async def burst(count: int, seconds: float) -> list[str]:
        before = [Sent(-at, url, body, method) for at in range(11, 16)]  # it is kept, and counts no more
        sents = [*before, *stream(count, seconds, url=url, body=body, method=method)]
        return [found.confidence for found in await told(sents, None, **{param: 10}, burst_rate=8)]

    assert await burst(30, 2.9) == await burst(30, 0.9) == []
    assert await burst(31, 2.9) == await burst(31, 0.9) == ["certain"]


@pytest.mark.parametrize(
    ("batches", "fix"), [(17, "Limit how many requests run at once."), (14, "Send several operations in one batch")]
)
async def test_where_half_are_batches_already_no_more_are_asked_for(batches: int, fix: str) -> None:
    item = {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {}}
    sents = stream(batches, 1, url=f"{TRACK}/api/v2/batch", method="POST", body={"batch": [item]})
    (found,) = await told([*sents, *[Sent(1.0 + sent.at) for sent in stream(34 - batches, 1)]], burst_rate=9, track=30)
    assert found.message.startswith(f"about 34 Track requests in 3 s, {batches} of them batches")
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(("seconds", "params"), [(3, {"track": 100, "burst_rate": 20}), (10, {"track": 60})])
async def test_of_batches_too_one_in_a_few_is_counted(seconds: int, params: dict[str, int]) -> None:
    item = {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {}}
    sents = stream(900, seconds, url=f"{TRACK}/api/v2/batch", method="POST", body={"batch": [item]})
    (found,) = await told(sents, None, **params)
    total, batches = re.findall(r"([\d,]+) (?:Track|of them)", found.message)
    assert int(batches.replace(",", "")) == pytest.approx(int(total.replace(",", "")), rel=0.1)


async def test_it_takes_three_standard_deviations_above_the_figure() -> None:
    assert await told(stream(61 * 12, 12), track=52)
    assert not await told(stream(59 * 12, 12), track=52)


@pytest.mark.parametrize("track", [52, 59])
async def test_one_in_a_few_of_those_that_are_counted_speaks(track: int) -> None:
    (found,) = await told(stream(12 * 80, 12), track=track)
    times, rest = divmod(crc32(found.exchange.encode()), 2)
    assert (rest, times % 5) == (0, 0)


async def test_the_first_request_of_a_second_counts_once() -> None:
    before = [Sent(-5.0)]  # it is kept, and counts no more
    assert not await told([*before, *stream(49, 9), Sent(9.5)], track=5)
    assert await told([*before, *stream(50, 9), Sent(9.5)], track=5)


async def test_what_is_answered_429_counts_as_well() -> None:
    sents = [Sent(n * 0.128, f"{APP}/v1/campaigns/{n}", None, "GET", 429) for n in range(70)]
    assert [found.confidence for found in await told(sents, app=6)] == ["likely"]


async def test_pipelines_has_the_higher_figure() -> None:
    assert not await told(stream(1_560, 12, url=f"{CDP}/v1/identify", body={"userId": "42"}, method="POST"))


@pytest.mark.parametrize(
    ("url", "method", "param", "name"),
    [
        (f"{TRACK}/api/v2/entity", "POST", "track", "Track requests"),
        (f"{TRACK}/api/v1/metrics", "POST", "track", "Track requests"),
        (f"{CDP}/v1/track", "POST", "pipelines", "Pipelines requests"),
        (f"{APP}/v1/campaigns", "GET", "app", "App API requests"),
        (f"{APP}/v1/send/email", "POST", "send", "messages through the App API"),
        (f"{TRACK}/v1/send/push", "POST", "send", "messages through the App API"),
    ],
)
async def test_each_group_has_its_own_figure(url: str, method: str, param: str, name: str) -> None:
    figures: dict[str, Any] = {"track": 100, "pipelines": 100, "app": 100, "send": 100}
    sents = stream(70, 9, url=url, method=method, body={"to": "a@example.com"} if method == "POST" else None)
    assert not await told(sents, **figures)
    assert len(await told(sents, **{**figures, param: 7})) == 0
    (found,) = await told(sents, **{**figures, param: 6})
    if param in ("track", "pipelines"):
        assert found.message == f"about 61 {name} in 10 s, 0 of them batches; Customer.io asks for 6 a second"
        assert found.fix.startswith("Send several operations in one batch")
    else:
        assert found.message == f"about 61 {name} in 10 s; Customer.io takes 6 a second"
        assert found.fix == "Limit how many requests run at once."


async def test_groups_and_workspaces_are_counted_apart() -> None:
    mixed = [*stream(40, 9), *stream(40, 9, url=f"{APP}/v1/campaigns", method="GET")]
    assert not await told(mixed, track=5, app=5)
    other = base64.b64encode(b"another:key").decode()
    two = [*stream(40, 9), *stream(40, 9, headers={"Authorization": f"Basic {other}"})]
    assert not await told(two, track=5)
    nobody = stream(80, 9, headers={"Authorization": ""})
    assert not await told(nobody, track=5)


async def test_versions_one_and_two_are_counted_together_and_a_batch_is_one_request() -> None:
    item = {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {}}
    batches = stream(30, 9, url=f"{TRACK}/api/v2/batch", method="POST", body={"batch": [item] * 20})
    assert not await told(batches, track=5)
    (found,) = await told([*batches, *stream(30, 9)], track=5)
    assert "batches" in found.message
    (many,) = await told([*batches, *batches], track=5)
    assert many.fix == "Limit how many requests run at once."
    (single,) = await told(stream(60, 9), track=5)
    assert single.fix.startswith("Send several operations in one batch")


async def test_retries_are_counted_once() -> None:
    counted = stream(100, 9, headers={"X-Retry-Count": "1"})
    assert not await told(counted, track=5)
    message = {"userId": "42", "event": "A", "messageId": "m"}
    assert not await told(stream(100, 9, url=f"{CDP}/v1/track", method="POST", body=message), pipelines=5)
    event = {"name": "a", "id": "01HB4HBDKTFWYZCK01DMRSWRFD"}
    again = stream(100, 9, url=EVENTS, method="POST", body=event)
    assert not await told(again, track=5)


@pytest.mark.parametrize("id", ["", 5, None, ["a"]])
async def test_what_is_no_id_of_an_event_does_not_make_it_the_same(id: Any) -> None:
    assert await told(stream(60, 9, url=EVENTS, method="POST", body={"name": "a", "id": id}), track=5)
    assert await told(stream(60, 9, body={"id": "42"}), track=5)


async def test_an_id_that_is_no_unicode_is_one_all_the_same() -> None:
    assert not await told(stream(9, 9, url=EVENTS, method="POST", body={"name": "a", "id": "\ud800"}))


async def test_a_rate_is_told_once_an_hour() -> None:
    assert len(await told([*stream(80, 9), *[Sent(3_500 + s.at) for s in stream(80, 9)]], track=5)) == 1
    assert len(await told([*stream(80, 9), *[Sent(3_700 + s.at) for s in stream(80, 9)]], track=5)) == 2


def triggers(*each: tuple[float, int]) -> list[Sent]:
    url = f"{APP}/v1/campaigns/12/triggers"
    return [Sent(at, url, {"data": {"n": n}}, "POST") for at, n in each]


async def test_broadcast_triggers_have_to_be_ten_seconds_apart() -> None:
    (found,) = await told(triggers((0, 1), (9, 2)))
    assert found.message == "one broadcast is triggered twice within 10 s"
    assert not await told(triggers((0, 1), (10, 2)))
    assert not await told(triggers((0, 1), (2, 1)))
    assert not await told(triggers((0, 1), (4, 2)), trigger=4.0)


async def test_each_trigger_is_counted_however_far_apart_they_have_to_be() -> None:
    urls = [f"{APP}/v1/campaigns/{n}/triggers" for n in range(9)]
    sents = [Sent(at, url, {"data": {"n": at}}, "POST") for url in urls for at in (0, 2)]
    assert len(await told(sents, trigger=60.0)) == 9


def tried(*times: float, **more: Any) -> list[Sent]:
    return [Sent(at, status=429, took=0.01, **more) for at in times]


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ((0, 0.1, 0.2, 0.3), 1),
        ((0, 0.1, 0.2), 0),
        ((0, 1.0, 2.0, 3.0), 1),
        ((0, 1.01, 2.02, 3.03), 0),
        ((0, 0.1, 1.5, 1.6, 1.7), 0),
        ((0, 0.1, 1.5, 1.6, 1.7, 1.8), 1),
        ((0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1),
        ((0, 0.005, 0.007, 0.009), 0),
    ],
)
async def test_the_same_call_at_once_after_each_of_three_429_is_a_loop(times: Sequence[float], found: int) -> None:
    assert [f.confidence for f in await told(tried(*times))] == ["certain"] * found


@pytest.mark.parametrize(
    ("waits", "found"),
    [
        ((0.1, 0.2, 0.4, 0.8), 0),  # doubled each time
        ((0.4, 0.6, 0.9), 0),  # one and a half times as long, as Go's usual library does
        ((0.0, 0.2, 0.4, 0.8), 0),  # urllib3 with `backoff_factor=0.1`: at once first
        ((0.01, 0.03, 0.09), 1),  # a loop on a slow machine
        ((0.0, 0.0, 0.0), 1),
        ((0.5, 0.5, 0.5), 1),
        ((0.5, 0.6, 0.7), 1),
        ((0.9, 0.3, 0.1), 1),
    ],
)
async def test_a_wait_that_grows_is_no_loop(waits: Sequence[float], found: int) -> None:
    times = [0.0]
    for wait in waits:
        times.append(times[-1] + 0.01 + wait)
    assert [f.confidence for f in await told(tried(*times))] == ["certain"] * found


@pytest.mark.parametrize(
    ("waits", "longer"), [((1.0, 1.5), True), ((1.0, 1.499), False), ((0.0, 0.1), True), ((0.0, 0.099), False)]
)
def test_half_as_long_again_is_longer_and_a_tenth_of_a_second_at_least(waits: Sequence[float], longer: bool) -> None:
    assert waits_longer(waits) is longer


async def test_other_calls_in_between_hide_no_loop() -> None:
    sents = [Sent(n / 40, f"{APP}/v1/campaigns/{n % 4}", None, "GET", 429, took=0.01) for n in range(16)]
    assert len(await told(sents)) == 4


async def test_of_two_loops_at_the_same_moments_one_is_kept_whichever_comes_first() -> None:
    one, other = (tried(0, 0.1, 0.2, 0.3, body={"plan": plan}) for plan in ("free", "pro"))
    stores = MemoryStore(), MemoryStore()
    assert await told([*one, *other], stores[0])
    assert await told([*other, *one], stores[1])
    kept = [[each.value async for _, each in store.scan("throttled")] for store in stores]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("wait", "found"), [(59.9, 1), (60.1, 0)])
async def test_what_was_answered_429_is_forgotten_after_a_minute(wait: float, found: int) -> None:
    assert len(await told(tried(*(n * wait for n in range(4))), patience=100.0)) == found


async def test_other_calls_after_a_429_are_no_retries() -> None:
    assert not await told([Sent(n / 10, body={"n": n}, status=429) for n in range(9)])


async def test_what_sdks_try_again_by_themselves_is_not_told() -> None:
    assert not await told(tried(*(n / 10 for n in range(9)), headers={"X-Retry-Count": "1"}))
    assert not await told(tried(*(n / 10 for n in range(9)), url=f"{CDP}/v1/batch", method="POST", body={"batch": []}))


async def test_reads_of_the_app_api_are_told_apart_by_their_path() -> None:
    assert await told(tried(*(n / 10 for n in range(4)), url=f"{APP}/v1/campaigns", method="GET"))
    paths = [Sent(n / 10, f"{APP}/v1/campaigns/{n}", None, "GET", 429) for n in range(9)]
    assert not await told(paths)


async def kept_of(kind: str, sents: Sequence[Sent], **params: Any) -> tuple[int, int, float]:
    """Under how many labels, how many at most under one, and for how long after the latest request."""
    store = MemoryStore()
    await told(sents, store, **params)
    ((groups, expiry),) = [kept async for _, kept in store.scan(kind)]
    assert isinstance(groups, Groups)
    sizes = [len(sample.hashes) for sample in groups.samples.values()]
    return len(sizes), max(sizes), round(expiry - NOW - sents[-1].at - sents[-1].took, 3)


async def test_most_requests_teach_nothing() -> None:
    seconds, most, _ = await kept_of("rate", stream(300, 3))
    assert seconds == 3
    assert 20 < most < 45


@pytest.mark.parametrize(("figure", "kept"), [(51.1, 40), (51.2, 20)])
async def test_of_a_figure_up_to_which_every_request_is_counted(figure: float, kept: int) -> None:
    _, most, _ = await kept_of("rate", stream(40, 1), track=figure)
    assert most == pytest.approx(kept, abs=5)


async def test_of_a_second_64_requests_are_kept_and_of_seconds_the_latest_for_twenty() -> None:
    assert await kept_of("rate", stream(70, 0.9), track=9) == (1, 64, 20.0)
    assert await kept_of("rate", [Sent(float(n)) for n in range(40)], track=9) == (20, 1, 20.0)


async def test_of_calls_that_were_told_to_wait_one_more_is_kept_than_are_needed() -> None:
    assert await kept_of("throttled", tried(*range(9)), retries=5) == (6, 1, 60.0)


async def test_what_is_kept_is_found_by_the_next_version_too() -> None:
    store = MemoryStore()
    await told([*stream(60, 9), *tried(10)], store, track=5)
    assert store.known().keys() >= {"rate", "rate-told", "throttled"}
    paced = limit(call_of(Sent(0)), PARAMS)
    assert paced is not None
    assert (paced.key.kind, paced.key.subject) == ("pace", "rate:track")


async def test_only_of_calls_of_the_app_api_without_a_person_more_is_read() -> None:
    def read(url: str, body: Any = None) -> list[str]:
        return [key.kind for key in needs(call_of(Sent(0, url, body, "POST")), "complete")]

    assert read(f"{APP}/v1/campaigns") == ["throttled"]
    assert read(f"{APP}/v1/send/email", {"identifiers": {"id": "42"}}) == []
    assert read(f"{TRACK}/api/v1/events", {"name": "a"}) == []


def call_of(sent: Sent, authorization: str = BASIC) -> Call:
    host, slash, path = sent.url.partition("/")
    exchange = Exchange(
        id="1",
        at=NOW,
        method=sent.method,
        target=(slash + path).encode(),
        host=host,
        headers=((b"Authorization", authorization.encode()),) if authorization else (),
        body=json.dumps(sent.body or {}).encode(),
    )
    rules = tuple(rule for rule in RULES if rule.info.id == ID)
    (call,) = Engine(Settings(), rules, sealed_with(b"k" * 32)).open(exchange).calls
    return call


PARAMS: dict[str, Any] = {name: param.default for name, param in RULE.params.items()}


@pytest.mark.parametrize(
    ("url", "rate", "name"),
    [
        (f"{TRACK}/api/v1/customers/42", 100.0, "Track requests"),
        (f"{CDP}/v1/track", 1_000.0, "Pipelines requests"),
        (f"{APP}/v1/campaigns", 10.0, "App API requests"),
        (f"{APP}/v1/send/email", 100.0, "messages through the App API"),
    ],
)
def test_a_call_is_paced_to_the_figure_of_its_group(url: str, rate: float, name: str) -> None:
    call = call_of(Sent(0, url, method="POST"))
    paced = limit(call, PARAMS)
    assert paced is not None
    assert paced[1:] == (rate, rate, 8.0)
    shorter = limit(call, {**PARAMS, "burst": 0.5, "hold": 3.0})
    assert shorter == paced._replace(burst=rate / 2, hold=3.0)
    longer = limit(call, {**PARAMS, "hold": 60.0})
    assert longer == paced
    finding = excess(call, paced)
    assert (finding.pointer, finding.confidence, finding.whole) == ("path:", "certain", True)
    assert finding.message == f"more than {rate:g} {name} a second"
    assert "`Retry-After`" in finding.fix
    assert "throttled" in finding.effect


def test_each_group_of_each_workspace_has_a_schedule_of_its_own() -> None:
    urls = (f"{TRACK}/api/v1/customers/42", f"{CDP}/v1/track", f"{APP}/v1/campaigns", f"{APP}/v1/send/email")
    basics = (BASIC, "Basic " + base64.b64encode(b"another:key").decode())
    paced = [limit(call_of(Sent(0, url, method="POST"), basic), PARAMS) for url in urls for basic in basics]
    assert len({each.key for each in paced if each is not None}) == 8
    same = (f"{TRACK}/api/v1/customers/42", f"{TRACK}/api/v1/customers/43", f"{TRACK}/api/v2/entity")
    paced = [limit(call_of(Sent(0, url, method="POST")), PARAMS) for url in same]
    assert len({each.key for each in paced if each is not None}) == 1


def test_a_trigger_and_what_has_no_key_are_not_paced() -> None:
    assert limit(call_of(Sent(0, f"{APP}/v1/campaigns/12/triggers", method="POST")), PARAMS) is None
    assert limit(call_of(Sent(0), authorization=""), PARAMS) is None
