"""A company's traffic as its services send it: many people, two workspaces, five SDKs, all interleaved.

`clean` does nothing wrong. `planted` are stories of one person, or of a few, that each show one pitfall.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cio_proxy.drivers import Recorded
from cio_proxy.model import Exchange

START = 1_790_000_000.0
DAY = 86_400.0

type Sent = tuple[float, str, str, str, Any]
"""When, by which service, method, path, and the JSON body or None."""
type Story = Iterator[Sent]
type Teller = Callable[[int, float, random.Random], Story]
type Wrong = Callable[[float], Story]

PRODUCTION = b"Basic " + base64.b64encode(b"f82ad78f695bd32f9d99:a13c95a0bc44d9f01e27")
STAGING = b"Basic " + base64.b64encode(b"0a1bd78f695bd32f9d99:b24c95a0bc44d9f01e27")
PIPELINES = b"Basic " + base64.b64encode(b"4ac3e1d2b5f60718293a:")

SERVICES: dict[str, tuple[str, str, bytes]] = {
    "web": ("track.customer.io", "Customer.io Node Client/5.2.0", PRODUCTION),
    "worker": ("track.customer.io", "Customer.io Python Client/3.2.0", PRODUCTION),
    "shop": ("track.customer.io", "Customer.io Ruby Client/6.2.0", PRODUCTION),
    "staging": ("track.customer.io", "Customer.io Go Client/3.8.0", STAGING),
    "pipelines": ("cdp.customer.io", "analytics-python/1.1.0", PIPELINES),
}
"""Host, User-Agent and credentials."""


# --- stories of people who are served well ---------------------------------------------------------------------------


def a_newcomer(number: int, at: float, chance: random.Random) -> Story:
    """Looks around, signs up, buys; the anonymous id is handed over with the sign-up."""
    person, service = f"u{number}", chance.choice(("web", "worker", "shop"))
    path = f"/api/v1/customers/{person}"
    visitor = f"visitor-{number}"
    if number % 3 == 0:
        for step in range(2):
            data = {"page": f"/landing/{step}"}
            yield at + step, "web", "POST", "/api/v1/events", event("pricing_viewed", data, anonymous_id=visitor)
    created = int(at + 5)
    attributes: dict[str, Any] = {"email": f"{person}@example.com", "created_at": created, "plan": "free", "seats": 1}
    if number % 3 == 0:
        attributes["anonymous_id"] = visitor
    yield at + 5, service, "PUT", path, attributes
    yield at + 8, service, "POST", f"{path}/events", event("signed_up", {"source": "web", "seats": 1})
    if number % 5 == 0:
        device: dict[str, Any] = {"id": f"token-{number}", "platform": "ios", "last_used": int(at + 9)}
        yield at + 9, service, "PUT", f"{path}/devices", {"device": device}
    for order in range(chance.randint(0, 3)):
        bought = {
            "order_id": f"{number}-{order}",
            "total": round(chance.uniform(5, 90), 2),
            "currency": "EUR",
        }
        moment = at + 30 + 40 * order
        yield moment, service, "POST", f"{path}/events", event("order_completed", bought)
        yield moment + 0.4, service, "PUT", path, {"plan": "pro", "orders": order + 1, "last_order_at": int(moment)}


def a_customer_of_old(number: int, at: float, chance: random.Random) -> Story:
    """Was there before anybody looked: an event comes first, and then an identify that only updates."""
    person, service = f"old{number}", chance.choice(("web", "worker"))
    path = f"/api/v1/customers/{person}"
    yield at, service, "POST", f"{path}/events", event("logged_in", {"method": "password"})
    update: dict[str, Any] = {"last_seen_at": int(at + 3), "visits": chance.randint(2, 400)}
    if number % 4 == 0:
        update["created_at"] = int(START - 400 * DAY)
    if number % 4 == 1:
        update["email"] = f"{person}@example.com"
    yield at + 3, service, "PUT", path, update
    for visit in range(chance.randint(1, 3)):
        data = {"article": f"a-{chance.randint(1, 99)}", "seconds": chance.randint(1, 900)}
        yield at + 20 + 31 * visit, service, "POST", f"{path}/events", event("article_read", data)
    if number % 50 == 0:
        yield at + 200, service, "DELETE", path, None


def a_mail_customer(number: int, at: float, chance: random.Random) -> Story:
    """Is known by e-mail address; some change theirs by their canonical id, some are merged."""
    address = f"mail{number}@example.com"
    path = f"/api/v1/customers/{address.replace('@', '%40')}"
    yield at, "web", "PUT", path, {"created_at": int(at), "first_name": "Ada", "newsletter": True}
    yield at + 4, "web", "POST", f"{path}/events", event("newsletter_confirmed", {"list": "weekly"})
    if number % 7 == 0:
        yield (
            at + 60,
            "web",
            "POST",
            "/api/v1/merge_customers",
            {
                "primary": {"email": address},
                "secondary": {"email": f"typo{number}@example.com"},
            },
        )
    if number % 11 == 0:
        yield at + 90, "web", "PUT", path, {"newsletter": False, "unsubscribed": True}


def a_batch(number: int, at: float, chance: random.Random) -> Story:
    """Is imported by a nightly job, in v2 batches: each person first, then what they did."""
    items: list[Any] = []
    for each in range(4):
        identifiers = {"id": f"b{number}-{each}"}
        items.append(
            {
                "type": "person",
                "identifiers": identifiers,
                "action": "identify",
                "attributes": {"email": f"b{number}-{each}@example.com", "created_at": int(at), "plan": "free"},
            }
        )
        items.append(
            {
                "type": "person",
                "identifiers": identifiers,
                "action": "event",
                "name": "contract_signed",
                "attributes": {"value": chance.randint(1, 9), "term": "yearly"},
            }
        )
    yield at, "worker", "POST", "/api/v2/batch", {"batch": items}


def a_traveller(number: int, at: float, chance: random.Random) -> Story:
    """Comes through the Pipelines API: anonymous first, then identified with both ids."""
    message: dict[str, Any] = {"anonymousId": f"anon-{number}", "userId": None, "integrations": {}, "context": {}}
    stamp = "2026-09-21T14:13:20.000Z"
    yield (
        at,
        "pipelines",
        "POST",
        "/v1/batch",
        {
            "batch": [
                message | {"type": "page", "messageId": f"m{number}-1", "timestamp": stamp, "name": "Home"},
                message
                | {
                    "type": "identify",
                    "messageId": f"m{number}-2",
                    "timestamp": stamp,
                    "userId": f"t{number}",
                    "traits": {"email": f"t{number}@example.com", "created_at": int(at)},
                },
                message
                | {
                    "type": "track",
                    "messageId": f"m{number}-3",
                    "timestamp": stamp,
                    "userId": f"t{number}",
                    "event": "Trip Booked",
                    "properties": {"nights": chance.randint(1, 14), "city": chance.choice(("Rome", "Oslo"))},
                },
            ]
        },
    )


def a_tester(number: int, at: float, chance: random.Random) -> Story:
    """Is on staging, where people have the ids of production and everything else is different."""
    path = f"/api/v1/customers/u{number}"
    attributes = {"email": f"tester{number % 9}+u{number}@example.com", "created_at": int(at), "plan": 3, "seats": "1"}
    yield at, "staging", "PUT", path, attributes
    yield at + 2, "staging", "POST", f"{path}/events", event("signedup", {"source": 1})


CAST: tuple[Teller, ...] = (a_newcomer, a_customer_of_old, a_mail_customer, a_batch, a_traveller, a_tester)
SHARE = (6, 6, 3, 1, 2, 2)


def cast(people: int, seed: int) -> list[Teller]:
    """Which story each of so many people has."""
    return random.Random(seed).choices(CAST, SHARE, k=people)


def there_before(people: int, seed: int = 1) -> Iterator[str]:
    """The ids that an export of the production workspace would have held before the session."""
    return (f"old{number}" for number, teller in enumerate(cast(people, seed)) if teller is a_customer_of_old)


def stories(people: int, seed: int, spread: float) -> Iterator[Story]:
    """The stories of so many people, of whom a new one comes every `spread` seconds."""
    for number, teller in enumerate(cast(people, seed)):
        yield teller(number, START + spread * number, random.Random(f"{seed} {number}"))


def clean(people: int, seed: int = 1, *, spread: float = 0.5) -> Iterator[tuple[Exchange, Recorded]]:
    """Traffic in which nothing is wrong."""
    return exchanges(stories(people, seed, spread))


# --- stories that each show a pitfall --------------------------------------------------------------------------------


def event_before_identify(at: float) -> Story:
    path = "/api/v1/customers/early"
    yield at, "web", "POST", f"{path}/events", event("trial_started", {"days": 14})
    yield at + 19, "web", "PUT", path, {"email": "early@example.com", "created_at": int(at + 18)}


def no_address(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/mute", {"created_at": int(at), "plan": "free"}


def sent_twice(at: float) -> Story:
    body = event("order_completed", {"order_id": "twice", "total": 5.5, "currency": "EUR"})
    yield at, "web", "PUT", "/api/v1/customers/double", {"email": "double@example.com"}
    for again in range(2):
        yield at + 5 + again, "web", "POST", "/api/v1/customers/double/events", body


def late_time(at: float) -> Story:
    attributes = {"email": "late@example.com", "created_at": int(at) * 1000}
    yield at, "web", "PUT", "/api/v1/customers/late", attributes


def another_spelling(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/speller", {"email": "speller@example.com"}
    yield at + 5, "web", "POST", "/api/v1/customers/speller/events", event("order.completed", {"order_id": "s-1"})


def a_name_for_each_product(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/shopper", {"email": "shopper@example.com"}
    for product in range(11):
        name = f"viewed_product_{3001 + 2 * product}"
        yield at + 2 + product, "web", "POST", "/api/v1/customers/shopper/events", event(name, {})


def a_second_id(at: float) -> Story:
    attributes = {"email": "second@example.com", "created_at": int(START - 400 * DAY) + 5}
    for turn, person in enumerate(("first", "next", "next")):
        yield at + 20 * turn, "web", "PUT", f"/api/v1/customers/{person}", attributes | {"logins": turn}


def one_visitor_two_people(at: float) -> Story:
    for number in range(2):
        attributes = {"email": f"guest{number}@example.com", "anonymous_id": "visitor-kiosk"}
        yield at + 9 * number, "web", "PUT", f"/api/v1/customers/guest{number}", attributes


def a_number_in_quotes(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/quoted", {"email": "quoted@example.com", "seats": "4"}


def nothing_new(at: float) -> Story:
    for turn in range(10):
        attributes = {"email": "same@example.com", "plan": "free"}
        yield at + 3 * turn, "web", "PUT", "/api/v1/customers/same", attributes


def an_id_that_comes_back(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/again", {"email": "again@example.com"}
    for turn, name in enumerate(("order_completed", "invoice_sent")):
        body = event(name, {"order_id": "again"}, id="01HB4HBDKTFWYZCK01DMRSWRFD")
        yield at + 3 + turn, "web", "POST", "/api/v1/customers/again/events", body


def made_twice(at: float) -> Story:
    yield at, "web", "PUT", "/api/v1/customers/twice%40example.com", {"created_at": int(at)}
    yield at + 5, "worker", "PUT", "/api/v1/customers/twice", {"plan": "pro"}
    yield at + 9, "worker", "PUT", "/api/v1/customers/twice", {"email": "twice@example.com"}


PLANTED: dict[str, Wrong] = {
    "track-before-identify": event_before_identify,
    "missing-email": no_address,
    "duplicate-event": sent_twice,
    "millisecond-timestamp": late_time,
    "inconsistent-event-name": another_spelling,
    "dynamic-event-name": a_name_for_each_product,
    "changing-user-id": a_second_id,
    "shared-anonymous-id": one_visitor_two_people,
    "inconsistent-attribute-type": a_number_in_quotes,
    "redundant-identify": nothing_new,
    "invalid-event-id": an_id_that_comes_back,
    "split-identity": made_twice,
}
"""By the rule that finds it: once, and no other rule finds anything."""


def planted(people: int, seed: int = 1, *, spread: float = 0.5) -> Iterator[tuple[Exchange, Recorded]]:
    """The same traffic with each of the pitfalls in it, one after the other in the second half."""
    half = spread * people / 2
    gap = half / len(PLANTED)
    wrong = [(START + half + gap * number, story) for number, story in enumerate(PLANTED.values())]
    return exchanges(_mixed(stories(people, seed, spread), [START + spread * n for n in range(people)], wrong))


# --- from stories to exchanges ---------------------------------------------------------------------------------------


def event(name: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a Track v1 event."""
    return {"name": name, "data": data, **more}


def exchanges(stories: Iterable[Story]) -> Iterator[tuple[Exchange, Recorded]]:
    """The stories interleaved by time, each request answered 50 ms later; each service keeps two connections."""
    merged: list[tuple[float, int, Sent, Story]] = []
    sent = 0
    for turn, story in enumerate(stories):
        first = next(story)
        while merged and merged[0][0] < first[0]:
            yield _exchange(sent, _next(merged))
            sent += 1
        heapq.heappush(merged, (first[0], turn, first, story))
    while merged:
        yield _exchange(sent, _next(merged))
        sent += 1


def _mixed(told: Iterable[Story], begins: Iterable[float], wrong: list[tuple[float, Wrong]]) -> Iterator[Story]:
    for at, story in zip(begins, told, strict=True):
        while wrong and wrong[0][0] <= at:
            begin, teller = wrong.pop(0)
            yield teller(begin)
        yield story
    yield from (teller(begin) for begin, teller in wrong)


def _next(merged: list[tuple[float, int, Sent, Story]]) -> Sent:
    _, turn, sent, story = heapq.heappop(merged)
    if (following := next(story, None)) is not None:
        heapq.heappush(merged, (following[0], turn, following, story))
    return sent


def _exchange(number: int, sent: Sent) -> tuple[Exchange, Recorded]:
    at, service, method, path, body = sent
    host, agent, authorization = SERVICES[service]
    exchange = Exchange(
        id=f"{number:08x}",
        at=at,
        method=method,
        target=path.encode(),
        host=host,
        headers=(
            (b"Host", host.encode()),
            (b"Authorization", authorization),
            (b"User-Agent", agent.encode()),
            (b"Content-Type", b"application/json"),
        ),
        body=b"" if body is None else json.dumps(body).encode(),
        connection=f"{service}-{number % 2}",
        carried=number + 1,
    )
    answer = b'{"success": true}' if host.startswith("cdp") else b"{}"
    return exchange, Recorded(at + 0.05, 200, answer)
