"""The sandbox posts reporting webhooks: signed, in the shapes of the reference, and as often as it is asked to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cio_proxy.apis import read
from cio_proxy.apis.credentials import Keyring
from cio_proxy.audit import sealed_with
from cio_proxy.model import Call, Exchange, WebhookSettings
from cio_proxy.sandbox.webhooks import report, signature

from .conftest import START, Service

on_the_shared_loop = pytest.mark.asyncio(loop_scope="session")
KEY = "test_signing_key_123"


@asynccontextmanager
async def app(status: int = 200) -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """An app that keeps what is posted to it."""
    posted: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        posted.append((line, headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {status} Answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", posted


def call(headers: dict[str, str], body: bytes) -> Call:
    pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
    exchange = Exchange(
        id="1", at=START, method="POST", target=b"/hooks", host="", headers=pairs, body=body, listener="inbound"
    )
    (only,) = read(exchange, Keyring({}, sealed_with(b"k" * 32), WebhookSettings(signing_key=KEY)), 1 << 20)
    return only


def test_the_signature_is_that_of_the_reference() -> None:
    body = (
        b'{"event_id":"01E4C4CT6YDC7Y5M7FE1GWWPQJ","object_type":"email","metric":"bounced","timestamp":1613063089,'
        b'"data":{"customer_id":"42","recipient":"test@example.com"}}'
    )
    expected = "a5009ca6c2464da4df020ab7aab6ccbebaaded4461c5742fa15d7dd113ed0f02"
    assert signature(KEY, "1613063089", body) == expected


@on_the_shared_loop
async def test_what_is_posted_is_signed_and_the_answer_is_told(cio: Service) -> None:
    asked = {"signing_key": KEY, "metric": "bounced", "id": "42", "email": "ada@example.com"}
    async with app(503) as (url, posted):
        answer = (await cio.http.post("/_sandbox/webhooks", json={"url": f"{url}/hooks?a=b", **asked})).json()
    ((line, headers, body),) = posted
    assert (line, answer["status"]) == ("POST /hooks?a=b HTTP/1.1", 503)
    assert json.loads(body) == answer["webhook"]
    told = call(headers, body)
    assert (told.kind, told.name, told.credentials.belongs_to) == ("webhook_metric", "bounced", "webhooks")
    assert told.identifiers == ("id:42", "email:ada@example.com", "cio_id:d9c106000001")
    assert await cio.shown("requests") == []


@on_the_shared_loop
async def test_without_a_key_there_is_no_signature_and_without_an_app_no_status(cio: Service) -> None:
    async with app() as (url, posted):
        assert (await cio.http.post("/_sandbox/webhooks", json={"url": url})).json()["status"] == 200
    assert "x-cio-signature" not in posted[0][1]
    assert (await cio.http.post("/_sandbox/webhooks", json={"url": url})).json()["status"] == 0


@on_the_shared_loop
@pytest.mark.parametrize(
    "asked", [[], {}, {"url": 7}, {"url": "ftp://h/"}, {"url": "http://[/"}, {"url": "http://h\n/"}]
)
async def test_what_cannot_be_posted_is_refused_with_a_reason(asked: Any, cio: Service) -> None:
    answer = await cio.http.post("/_sandbox/webhooks", json=asked)
    assert answer.status_code == 400
    assert "http://127.0.0.1" in answer.json()["error"]
    assert (await cio.http.post("/_sandbox/webhooks", content=b"{")).status_code == 400


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"metric": "bounced"},
            {"failure_message": "550 5.1.1 The email account that you tried to reach does not exist"},
        ),
        (
            {"metric": "bounced", "failure": "soft"},
            {"failure_message": "452 4.2.2 The recipient's inbox is out of storage space"},
        ),
        ({"metric": "dropped"}, {"failure_message": "suppressed"}),
        ({"metric": "failed", "failure": "421 busy"}, {"failure_message": "421 busy"}),
        ({"metric": "clicked"}, {"href": "https://shop.example.com/", "link_id": 1, "machine": False}),
        ({"metric": "opened"}, {"prefetched": False, "proxied": False, "synthetic": False}),
        ({"metric": "sent", "body": "<p>"}, {"content": "<p>", "headers": {}}),
        ({"metric": "sent"}, {}),
        ({"metric": "spammed"}, {}),
        ({"metric": "delivered", "data": {"x": 1}}, {"x": 1}),
    ],
)
def test_a_report_on_a_mail_has_what_belongs_to_its_metric(asked: dict[str, Any], told: dict[str, Any]) -> None:
    made = report({"id": "42", "email": "ada@example.com", "delivery_id": "D"} | asked, START)
    assert (made["object_type"], made["metric"], made["timestamp"]) == ("email", asked["metric"], int(START))
    assert made["data"] == told | {
        "customer_id": "42",
        "identifiers": {"id": "42", "email": "ada@example.com", "cio_id": "d9c106000001"},
        "delivery_id": "D",
        "campaign_id": 9,
        "action_id": 96,
        "journey_id": "01GW20GXAAXBKZD8J96M8FNV3R",
        "recipient": "ada@example.com",
        "subject": "Welcome",
    }


def test_each_report_is_another_one_unless_it_is_asked_for_again() -> None:
    first, second = report({}, START), report({}, START)
    assert first["event_id"] != second["event_id"]
    again = report({"event_id": first["event_id"], "object_type": "customer", "metric": "unsubscribed"}, START)
    assert again["event_id"] == first["event_id"]
    assert again["data"] == {
        "customer_id": "",
        "identifiers": {"id": None, "email": None, "cio_id": "d9c106000001"},
        "email_address": None,
    }
