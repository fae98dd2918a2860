"""Commits one pitfall through `customerio`: python track_bad.py http://127.0.0.1:8080 PITFALL."""

import sys
import time

import session
import track_client
from customerio import SendEmailRequest
from session import now, step, week_ago

proxy, pitfall = session.arguments()
cio = track_client.connect(proxy)
PERSON = {"email": "grace@example.com", "created_at": week_ago()}
OTHER = PERSON | {"email": "heidi@example.com"}


def identify(**attributes: object) -> None:
    step("identify", lambda: cio.identify("cust-grace", **attributes))


def event(name: str, data: dict[object, object] | None = None, **rest: object) -> None:
    step("track", lambda: cio.track("cust-grace", name, data, **rest))


def put(path: str) -> None:
    """A path that is built by hand."""
    step("send_request", lambda: cio.send_request("PUT", f"{cio.base_url}/{path}", PERSON))


def with_key(api_key: str) -> None:
    step("identify", lambda: track_client.plain(proxy, cio.site_id, api_key).identify("cust-grace", **PERSON))


def event_of_known_person(name: str, data: dict[object, object] | None = None, **rest: object) -> None:
    identify(**PERSON)
    event(name, data, **rest)


def without_a_pool() -> None:
    cio.use_connection_pooling = False
    for n in range(22):
        step("identify", lambda n=n: cio.identify(f"cust-{n}", **PERSON | {"email": f"p{n}@example.com"}))


def too_fast() -> None:
    """Six a second for ten seconds, where five are configured."""
    for n in range(60):
        step("identify", lambda n=n: cio.identify(f"cust-{n}", **PERSON | {"email": f"p{n}@example.com"}))
        time.sleep(0.13)


def event_sent_twice() -> None:
    event_of_known_person("order_completed", {"order_id": "A-1000042"})
    event("order_completed", {"order_id": "A-1000042"})


def anonymous_id_on_two_people() -> None:
    identify(**PERSON, anonymous_id="anon-42")
    step("identify", lambda: cio.identify("cust-heidi", **OTHER, anonymous_id="anon-42"))


def second_id() -> None:
    identify(**PERSON)
    for _ in range(2):
        step("identify", lambda: cio.identify("cust-grace-2", **PERSON))


def visitor_who_is_never_joined() -> None:
    step("track_anonymous", lambda: cio.track_anonymous("anon-grace", "pricing_viewed"))
    identify(email="grace@example.com", created_at=now())


def mail_for_subscribers() -> None:
    letter = SendEmailRequest(
        to=PERSON["email"],
        _from="news@example.com",
        identifiers={"id": "cust-grace"},
        subject="Our week",
        body="<p>This was our week.</p>",
        send_to_unsubscribed=False,
    )
    step("send_email", lambda: track_client.app(proxy).send_email(letter))


def told_of_every_update() -> None:
    for n in range(3):
        step("identify", lambda n=n: cio.identify(f"cust-{n}", **PERSON | {"email": f"p{n}@example.com"}))
        step("track", lambda n=n: cio.track(f"cust-{n}", "user_updated"))


def made_twice() -> None:
    step("identify", lambda: cio.identify(PERSON["email"], created_at=now()))
    identify(plan="pro")
    identify(**PERSON)


def two_spellings() -> None:
    event_of_known_person("order_completed")
    event("order.completed")


def one_of_many() -> None:
    identify(**PERSON)
    for product in range(3001, 3102, 10):
        event(f"viewed_product_{product}")


def id_of_another_event() -> None:
    event_of_known_person("order_completed", id="01HB4HBDKTFWYZCK01DMRSWRFD")
    event("invoice_sent", id="01HB4HBDKTFWYZCK01DMRSWRFD")


def another_type() -> None:
    for number in range(21):
        seats = number if number < 20 else "20"
        person = PERSON | {"email": f"p{number}@example.com", "seats": seats}
        step("identify", lambda number=number, person=person: cio.identify(f"cust-{number}", **person))


def again_and_again() -> None:
    for _ in range(10):
        identify(**PERSON)


def event_before_the_person() -> None:
    event("signed_up")
    time.sleep(2.5)  # longer than the grace that the rule gives to calls that race each other
    identify(**PERSON | {"created_at": now()})


PITFALLS = {
    "wrong-api-key": lambda: with_key(""),
    "wrong-api-key: App key": lambda: with_key(session.key(32)),
    "millisecond-timestamp": lambda: identify(**PERSON | {"created_at": now() * 1000}),
    "hardcoded-credentials": lambda: identify(**PERSON, integration=f"sa_live_{session.key(32)}"),
    "inconsistent-event-name": lambda: event_of_known_person("orderCompleted"),
    "dynamic-event-name": lambda: event_of_known_person("viewed_6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38"),
    "inconsistent-event-name: two spellings": two_spellings,
    "dynamic-event-name: one of many": one_of_many,
    "pii-in-name": lambda: identify(**PERSON, **{"invited_by_ada@example.com": True}),
    "pii-in-name: event": lambda: event_of_known_person("invited_ada@example.com"),
    # Two keys of a Python dictionary that JSON writes alike.
    "malformed-body": lambda: event_of_known_person("seat_taken", {1: "Ada", "1": "Bob"}),
    "invalid-field": lambda: event_of_known_person(""),
    "reserved-name": lambda: identify(**PERSON, cio_id="d9c106000001"),
    "unknown-endpoint": lambda: put("people/cust-grace"),
    "placeholder-identifier": lambda: step("identify", lambda: cio.identify("undefined", **PERSON)),
    "ambiguous-identifier": lambda: put("customers/team/grace"),
    "stale-timestamp": lambda: event_of_known_person("order_completed", timestamp=week_ago()),
    "invalid-event-id": lambda: event_of_known_person("order_completed", id="order-1000042"),
    "invalid-event-id: of another event": id_of_another_event,
    "redirected-recipient": lambda: event_of_known_person("gift_sent", {"recipient": "ada@example.com"}),
    "sensitive-value": lambda: identify(**PERSON, card_number="4111111111111111"),
    "duplicate-event": event_sent_twice,
    "shared-anonymous-id": anonymous_id_on_two_people,
    "oversized-payload": lambda: event_of_known_person("report_viewed", {"text": "lorem ipsum " * 10_000}),
    "track-before-identify": event_before_the_person,
    "changing-user-id": second_id,
    "anonymous-id-not-merged": visitor_who_is_never_joined,
    "split-identity": made_twice,
    "inconsistent-attribute-type": another_type,
    "redundant-identify": again_and_again,
    "missing-unsubscribe-link": mail_for_subscribers,
    "trigger-on-every-update": told_of_every_update,
    "unplanned-event": lambda: event_of_known_person("order_shipped", {"order_id": "A-1", "carrier": "post"}),
    "no-connection-pooling": without_a_pool,
    "no-rate-limiting": too_fast,
    "missing-email": lambda: identify(first_name="Grace", created_at=now()),
}

if pitfall not in PITFALLS:
    sys.exit(f"usage: track_bad.py PROXY PITFALL, one of: {', '.join(PITFALLS)}")
PITFALLS[pitfall]()
