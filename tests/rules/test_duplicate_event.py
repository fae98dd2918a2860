"""What an example file cannot say of a duplicate event: which exchange it repeats, and that its bytes stay secret."""

import json
import re

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor, Recorded, audit_recorded
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import End, Exchange, Finding, Origin, Settings, Span
from cio_proxy.rules import RULES

RULE = tuple(rule for rule in RULES if rule.info.id == "duplicate-event")
EVENT = b'{"name": "order_placed", "data": {"order_id": "A-1000042"}}'


async def found(
    *sent: tuple[float, int | None, bytes],
    path: bytes = b"/api/v1/customers/42/events",
    store: MemoryStore | None = None,
    sites: tuple[bytes, ...] = (),
) -> list[Finding]:
    """The findings of requests, each with its time, the status of its answer and its body."""
    recorded = [
        (
            Exchange(
                id=f"exchange-{number}",
                at=1.75e9 + at,
                method="POST",
                target=path,
                host="track.customer.io",
                headers=((b"Authorization", sites[number]),) if sites else (),
                body=body,
            ),
            Recorded(1.75e9 + at, status),
        )
        for number, (at, status, body) in enumerate(sent)
    ]
    return await audit_recorded(recorded, Engine(Settings(), RULE, sealed_with(b"k" * 32)), store=store)


async def test_the_finding_belongs_to_the_later_exchange_and_names_the_earlier() -> None:
    (finding,) = await found((0, 200, EVENT), (1, 200, EVENT))
    assert (finding.exchange, finding.related) == ("exchange-1", ("exchange-0",))


async def test_of_two_in_one_batch_the_later_item_repeats_its_own_exchange() -> None:
    item = (
        b'{"type": "person", "action": "event", "identifiers": {"id": "42"}, "name": "a_b", "timestamp": 1749999999.5}'
    )
    (finding,) = await found((0, 200, b'{"batch": [%s, %s]}' % (item, item)), path=b"/api/v2/batch")
    assert (finding.item, finding.related) == (1, ("exchange-0",))


async def test_a_batch_sent_twice_repeats_each_of_its_events_once() -> None:
    item = (
        b'{"type": "person", "action": "event", "identifiers": {"id": "%d"}, "name": "a_b", "timestamp": 1749999999.5}'
    )
    batch = b'{"batch": [%s]}' % b", ".join(item % number for number in range(3))
    findings = await found((0, 200, batch), (1, 200, batch), path=b"/api/v2/batch")
    assert [(finding.item, finding.related) for finding in findings] == [(n, ("exchange-0",)) for n in range(3)]


@pytest.mark.parametrize("status", [500, 302, None])
async def test_an_event_that_may_have_been_lost_may_be_sent_again(status: int | None) -> None:
    assert await found((0, status, EVENT), (1, 200, EVENT), (1.5, 200, EVENT)) == []


async def test_other_data_is_another_event() -> None:
    assert await found((0, 200, EVENT), (1, 200, EVENT.replace(b"42", b"43"))) == []


async def test_what_is_remembered_of_an_event_is_one_sealed_fact_and_is_soon_forgotten() -> None:
    store = MemoryStore()
    events = [(float(number), 200, EVENT.replace(b"42", b"%d" % number)) for number in range(100)]
    assert await found(*events, store=store) == []  # one a second, and a second one is too late after two
    assert store.known()["event-sent"] == 3
    assert "A-1000" not in repr(vars(store))


NAMES = """
order transaction payment invoice booking reservation purchase charge refund receipt request submission
"""
OCCURRENCES = [
    f"{what}{which}"
    for what in re.findall(r"\w+", NAMES)
    for which in ("_id", "Uuid", "-no", "nr", " num", "Number", "_ref", ".reference", "_code", "")
]


@pytest.mark.parametrize("name", OCCURRENCES)
async def test_data_that_names_an_occurrence_proves_a_repeat(name: str) -> None:
    event = b'{"name": "a_placed", "data": {"x": 1, "%s": "A-1"}}' % name.encode()
    assert [finding.confidence for finding in await found((0, 200, event), (1, 200, event))] == ["likely"]


DONE = """
complete completed placed paid purchase purchased booked ordered created submitted confirmed canceled cancelled shipped
delivered succeeded signed_up registered received
"""


@pytest.mark.parametrize("verb", DONE.split())
async def test_an_event_that_is_done_with_happens_once(verb: str) -> None:
    for name, count in ((f"order_{verb}", 1), (f"Order {verb.title()}", 1), (f"order_{verb}_viewed", 0)):
        event = b'{"name": "%s", "data": {"order": "A-1"}}' % name.encode()
        assert len(await found((0, 200, event), (1, 200, event))) == count, name


async def test_a_hundred_characters_of_a_name_are_read() -> None:
    for name, key, count in (
        ("a" * 94 + "placed", "order", 1),
        ("a" * 94 + "placed" + "z", "order", 1),
        ("a" * 95 + "placed", "order", 0),
        ("a_placed", "order" + "_" * 95 + "z", 1),
        ("a_placed", "order" + "_" * 94 + "z", 0),
    ):
        event = b'{"name": "%s", "data": {"%s": "A-1"}}' % (name.encode(), key.encode())
        assert len(await found((0, 200, event), (1, 200, event))) == count, (name, key)


@pytest.mark.parametrize(
    ("time", "count"),
    [
        ("1750000000.25", 1),
        ("1750000000.0", 0),
        ("1750000000", 0),
        ('"2025-06-15T15:06:40.120Z"', 1),
        ('"2025-06-15T15:06:40,120Z"', 1),
        ('"2025-06-15T15:06:40Z"', 0),
        ("null", 0),
    ],
)
async def test_a_time_to_the_millisecond_happens_once(time: str, count: int) -> None:
    event = b'{"name": "a_b", "timestamp": %s}' % time.encode()
    assert len(await found((0, 200, event), (1, 200, event))) == count


@pytest.mark.parametrize(
    "name", ["reorder_id", "order_ids", "order_date", "ids", "id", "total", "order_id_2", "x" * 96 + "order"]
)
async def test_other_data_proves_nothing(name: str) -> None:
    event = b'{"name": "a_placed", "data": {"%s": "A-1"}}' % name.encode()
    assert await found((0, 200, event), (1, 200, event)) == []


@pytest.mark.parametrize(
    ("field", "count"),
    [(b'"id": "01HF7YAT00Q8Z3V5K2M9N4P6RS"', 0), (b'"id": ""', 1), (b'"id": null', 1), (b'"messageId": "m"', 1)],
)
async def test_an_event_with_an_id_of_its_own_may_be_sent_again_and_an_empty_id_is_none(
    field: bytes, count: int
) -> None:
    sent = b'{"name": "a_placed", %s, "data": {"order": 1}}' % field
    assert len(await found((0, 200, sent), (1, 200, sent))) == count


async def test_another_workspace_has_people_of_its_own() -> None:
    one, other = b"Basic b25lOmtleTE=", b"Basic b3RoZXI6a2V5Mg=="  # one:key1, other:key2
    assert len(await found((0, 200, EVENT), (1, 200, EVENT), sites=(one, one))) == 1
    assert await found((0, 200, EVENT), (1, 200, EVENT), sites=(one, other)) == []


@pytest.mark.parametrize(("second", "count"), [(1.0, 1), (2.5, 0)])
async def test_replicas_on_one_store_see_each_others_events(second: float, count: int) -> None:
    """The load balancer sends the repetition through another proxy than the event."""
    store, now, findings = MemoryStore(), 1.75e9, []

    class Noted:
        def found(self, finding: Finding) -> None:
            findings.append((finding.exchange, finding.related))

        def ended(self, end: End) -> None:
            pass

    one, other = (
        Auditor(Engine(Settings(), RULE, sealed_with(b"k" * 32)), store, [Noted()], lambda: now) for _ in range(2)
    )
    for replica, at, id in ((one, 0.0, "first"), (other, second, "second")):
        now = 1.75e9 + at
        path = b"/api/v1/customers/42/events"
        sent = Exchange(
            id=id, at=now, method="POST", target=path, host="track.customer.io", headers=(), body=EVENT, connection=id
        )
        await replica.answered(await replica.begin(sent), 200, b"{}")
    assert findings == [("second", ("first",))] * count


async def test_what_nobody_did_is_no_repetition() -> None:
    assert await found((0, 200, EVENT), (1, 200, EVENT), path=b"/api/v1/events") == []


async def test_what_may_not_have_been_accepted_names_no_exchange_and_is_kept_for_a_second_more() -> None:
    store = MemoryStore()
    await found((0, 503, EVENT), store=store)
    ((_, kept),) = [each async for each in store.scan("event-sent")]
    assert kept == (Span(1.75e9, 1.75e9, Origin()), 1.75e9 + 3.0)


@pytest.mark.parametrize(("before", "count"), [(94, 1), (95, 0)])
async def test_names_are_read_up_to_their_hundredth_character(before: int, count: int) -> None:
    event = {"name": "x" * before + "placed", "data": {"order_id": "A-1000042"}}
    assert len(await found(*((at, 200, json.dumps(event).encode()) for at in (0, 1)))) == count
    event = {"name": "order_placed", "data": {"_" * (before + 1) + "order": "A-1000042"}}
    assert len(await found(*((at, 200, json.dumps(event).encode()) for at in (0, 1)))) == count
