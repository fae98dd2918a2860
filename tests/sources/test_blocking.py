"""In `enforce` a refused exchange never reaches the upstream, and a batch loses only what is refused."""

import json

import pytest

from cio_proxy.model import Action, RuleSettings, Settings

from .conftest import BASIC, OK, OpenDoor, request, upstream

ENFORCE = Settings(enforcement="enforce")
LATE = b'{"email": "a@example.com", "created_at": 1700000000000}'


def body_of(message: bytes) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(message.partition(b"\r\n\r\n")[2])
    return parsed


def item(number: int, extra: bytes = b"") -> bytes:
    return (
        b'{"type": "person",  "action": "identify", "identifiers": {"id": "%d"},'
        b' "attributes": {"email": "p%d@example.com", "big": 12345678901234567890123, "twice": 1, "twice": 2%s}}'
    ) % (number, number, extra)


def batch(*late: int) -> tuple[bytes, list[bytes]]:
    items = [item(n, b', "created_at": 1700000000000' if n in late else b"") for n in range(10)]
    return b'{ "batch": [' + b",".join(items) + b"]}", items


async def test_a_refusal_answers_in_place_of_the_upstream(open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(request("PUT", "/api/v1/customers/42", LATE))
    assert raw.connections == 0
    assert answer.startswith(b"HTTP/1.1 400 Blocked by cio-proxy: millisecond-timestamp\r\n")
    assert b"Cio-Proxy-Findings: millisecond-timestamp;action=blocked\r\n" in answer
    body = body_of(answer)
    message = body["message"]
    assert isinstance(message, str)
    assert "milliseconds" in message
    assert body["meta"] == {"error": message}
    assert body["code"] == "blocked"
    assert body["errors"]
    assert door.sink.endings == ["blocked"]


async def test_a_batch_is_cut_and_its_answer_names_every_refusal_by_its_own_index(open_door: OpenDoor) -> None:
    sent, items = batch(2, 7)
    theirs = b'{"errors":[{"batch_index":3,"reason":"invalid","field":"id","message":"not today"}]}'
    answer_207 = b"HTTP/1.1 207 Multi-Status\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        theirs
    )
    async with upstream(lambda _: answer_207 + theirs) as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(request("POST", "/api/v2/batch", sent))
    arrived = raw.received[0].partition(b"\r\n\r\n")[2]
    assert arrived == b'{ "batch": [' + b",".join(items[n] for n in (0, 1, 3, 4, 5, 6, 8, 9)) + b"]}"
    assert answer.startswith(b"HTTP/1.1 207 ")
    errors = body_of(answer)["errors"]
    assert isinstance(errors, list)
    assert [error["batch_index"] for error in errors] == [2, 4, 7]
    assert "millisecond-timestamp" in errors[0]["message"]
    assert errors[1]["message"] == "not today"
    assert door.sink.endings == ["partial"]


async def test_a_batch_whose_other_items_are_accepted_is_a_207(open_door: OpenDoor) -> None:
    sent, _ = batch(0)
    async with upstream() as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(request("POST", "/api/v2/batch", sent))
    assert answer.startswith(b"HTTP/1.1 207 ")
    assert len(raw.received) == 1


async def test_a_batch_of_nothing_but_refusals_is_refused_whole(open_door: OpenDoor) -> None:
    sent, _ = batch(*range(10))
    async with upstream() as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(request("POST", "/api/v2/batch", sent))
    assert raw.connections == 0
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_other_answers_to_a_cut_batch_pass_unchanged(status: int, open_door: OpenDoor) -> None:
    told = b"HTTP/1.1 %d Told\r\nContent-Length: 2\r\n\r\nno" % status
    sent, _ = batch(1)
    async with upstream(lambda _: told) as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(request("POST", "/api/v2/batch", sent))
    assert answer.startswith(b"HTTP/1.1 %d Told\r\n" % status)
    assert answer.endswith(b"\r\n\r\nno")


DEFAULT_REFUSED = {
    "Bearer on Track": ("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}', b"Bearer " + b"1" * 32),
    "malformed Basic": ("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}', b"Basic Og=="),
    "milliseconds in a known field": ("PUT", "/api/v1/customers/42", LATE, BASIC),
    "an e-mail address in an event name": (
        "POST",
        "/api/v1/customers/42/events",
        b'{"name": "a_b@example.com"}',
        BASIC,
    ),
    "a card number in an event name": (
        "POST",
        "/api/v1/customers/42/events",
        b'{"name": "paid_4111111111111111"}',
        BASIC,
    ),
    "an IBAN in an event name": (
        "POST",
        "/api/v1/customers/42/events",
        b'{"name": "paid DE89370400440532013000"}',
        BASIC,
    ),
    "a name over 500 characters": ("POST", "/api/v1/customers/42/events", b'{"name": "%s"}' % (b"x" * 501), BASIC),
    "data over 100,000 bytes": (
        "POST",
        "/api/v1/customers/42/events",
        b'{"name": "a", "data": {"x": "%s"}}' % (b"x" * 100_001),
        BASIC,
    ),
    "a v2 operation over 32 KB": (
        "POST",
        "/api/v2/entity",
        b'{"type":"person","action":"event","identifiers":{"id":"1"},"name":"a","attributes":{"x":"%s"}}'
        % (b"x" * 33_000),
        BASIC,
    ),
    "a Pipelines call over 64 KB": (
        "POST",
        "/v1/track",
        b'{"userId":"1","event":"a","properties":{"x":"%s"}}' % (b"x" * 66_000),
        b"Basic a2V5OmtleQ==",
    ),
}
NOT_REFUSED = {
    "a key that only looks wrong": (
        "PUT",
        "/api/v1/customers/42",
        b'{"email": "a@example.com"}',
        b"Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6MjA0MzZjNjM1MTY2OGIyNWE3NGEyYzI4OWE2MzlkM2Y=",
    ),
    "milliseconds by name": ("PUT", "/api/v1/customers/42", b'{"email": "a@b.io", "seen_at": 1700000000000}', BASIC),
    "milliseconds with unsubscribed": (
        "PUT",
        "/api/v1/customers/42",
        b'{"unsubscribed": true, "email": "a@b.io", "created_at": 1700000000000}',
        BASIC,
    ),
    "a dynamic event name": (
        "POST",
        "/api/v1/customers/42/events",
        b'{"name": "seen_6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38"}',
        BASIC,
    ),
    "a body that is not JSON": ("PUT", "/api/v1/customers/42", b"a=b", BASIC),
    "an event without a name": ("POST", "/api/v1/customers/42/events", b'{"data": {}}', BASIC),
    "an attribute of a reserved name": ("PUT", "/api/v1/customers/42", b'{"email": "a@b.io", "cio_id": "1"}', BASIC),
    "a route that there is not": ("POST", "/api/v1/customers/42", b'{"email": "a@b.io"}', BASIC),
    "an identifier that is none": ("PUT", "/api/v1/customers/undefined", b'{"email": "a@b.io"}', BASIC),
    "an identifier with a slash": ("PUT", "/api/v1/customers/a/b", b'{"email": "a@b.io"}', BASIC),
    "suppress with a Bearer token": ("POST", "/api/v1/customers/42/suppress", b"{}", b"Bearer x"),
    "delete with a Bearer token": ("DELETE", "/api/v1/customers/42", b"", b"Bearer x"),
    "a read with a Bearer token": ("GET", "/api/v1/accounts/region", b"", b"Bearer x"),
    "an App API send with Basic": (
        "POST",
        "/v1/send/email",
        b'{"to": "a@b.io", "identifiers": {"id": "1"}, "transactional_message_id": 1, "send_at": 1700000000000}',
        BASIC,
    ),
    "a Pipelines batch that suppresses someone": (
        "POST",
        "/v1/batch",
        (
            b'{"batch":[{"type":"identify","userId":"1","traits":{"email":"a@b.io","created_at":1700000000000}},'
            b'{"type":"track","userId":"2","event":"User Suppressed"}]}'
        ),
        b"Basic a2V5Og==",
    ),
}


def raw_request(method: str, target: str, body: bytes, authorization: bytes) -> bytes:
    plain = request(method, target, body, host=b"localhost")
    return plain.replace(b"Authorization: " + BASIC, b"Authorization: " + authorization)


@pytest.mark.parametrize("name", DEFAULT_REFUSED)
async def test_default_enforce_refuses(name: str, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(raw_request(*DEFAULT_REFUSED[name]))
    assert answer.startswith(b"HTTP/1.1 400 Blocked by cio-proxy")
    assert raw.connections == 0


@pytest.mark.parametrize("name", NOT_REFUSED)
async def test_default_enforce_lets_pass_and_reports(name: str, open_door: OpenDoor) -> None:
    async with upstream() as raw, open_door(raw.url, ENFORCE) as door:
        answer = await door.send(raw_request(*NOT_REFUSED[name]))
    assert answer.startswith(OK[:15])
    assert len(raw.received) == 1
    assert door.sink.findings


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        ("invalid-field", "an event without a name"),
        ("reserved-name", "an attribute of a reserved name"),
        ("unknown-endpoint", "a route that there is not"),
        ("placeholder-identifier", "an identifier that is none"),
        ("ambiguous-identifier", "an identifier with a slash"),
    ],
)
async def test_a_rule_of_the_contract_refuses_on_request(rule: str, case: str, open_door: OpenDoor) -> None:
    settings = Settings(enforcement="enforce", block="likely", rules={rule: RuleSettings(action="block")})
    async with upstream() as raw, open_door(raw.url, settings) as door:
        answer = await door.send(raw_request(*NOT_REFUSED[case]))
    assert answer.startswith(f"HTTP/1.1 400 Blocked by cio-proxy: {rule}\r\n".encode())
    assert raw.connections == 0


@pytest.mark.parametrize(("action", "status"), [("default", b"200"), ("block", b"400")])
async def test_a_key_of_the_other_region_is_refused_only_on_request(
    action: Action, status: bytes, open_door: OpenDoor
) -> None:
    sent = request("POST", "/v1/track", b'{"userId": "1", "event": "report_viewed"}', host=b"cdp.customer.io")
    sent = sent.replace(b"Authorization: " + BASIC, b"Authorization: Bearer pk_eu_0123456789abcdef")
    settings = Settings(enforcement="enforce", rules={"wrong-region": RuleSettings(action=action)})
    async with upstream() as raw, open_door(raw.url, settings) as door:
        answer = await door.send(sent)
    assert answer.split(b" ")[1] == status
    assert [finding.rule for finding in door.sink.findings] == ["wrong-region"]


async def test_what_only_the_answer_shows_is_reported_and_blocks_nothing(open_door: OpenDoor) -> None:
    moved = (
        b"HTTP/1.1 301 Moved\r\nLocation: https://track-eu.customer.io/api/v1/customers/42\r\nContent-Length: 0\r\n\r\n"
    )
    settings = Settings(enforcement="enforce", rules={"wrong-region": RuleSettings(action="block")})
    async with upstream(lambda _: moved) as raw, open_door(raw.url, settings) as door:
        answer = await door.send(request("PUT", "/api/v1/customers/42", b'{"email": "a@example.com"}'))
    assert answer == moved
    assert len(raw.received) == 1
    assert [(finding.rule, finding.action) for finding in door.sink.findings] == [("wrong-region", "logged")]


async def test_an_app_api_send_is_refused_only_on_request(open_door: OpenDoor) -> None:
    settings = Settings(enforcement="enforce", rules={"wrong-api-key": RuleSettings(action="block")})
    async with upstream() as raw, open_door(raw.url, settings) as door:
        answer = await door.send(raw_request(*NOT_REFUSED["an App API send with Basic"]))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert raw.connections == 0
