"""Commits one pitfall through `customerio-cdp-analytics`: python cdp_bad.py http://127.0.0.1:8080 PITFALL."""

import sys
import time
from datetime import UTC, datetime, timedelta

import session
from customerio.analytics.client import Client
from session import now, step

proxy, pitfall, *keys = session.arguments()
cdp = Client(keys[0] if keys else session.key(20), host=proxy, sync_mode=True)
PERSON = {"email": "grace@example.com", "createdAt": datetime.now(UTC) - timedelta(days=7)}
OTHER = PERSON | {"email": "heidi@example.com"}


def identify(**traits: object) -> None:
    step("identify", lambda: cdp.identify("cust-grace", traits))


def event(name: str, properties: dict[object, object] | None = None) -> None:
    step("track", lambda: cdp.track("cust-grace", name, properties))


def event_of_known_person(name: str, properties: dict[object, object] | None = None) -> None:
    identify(**PERSON)
    event(name, properties)


def anonymous_id_on_two_people() -> None:
    step("identify", lambda: cdp.identify("cust-grace", PERSON, anonymous_id="anon-42"))
    step("identify", lambda: cdp.identify("cust-heidi", OTHER, anonymous_id="anon-42"))


def too_fast() -> None:
    """Six a second for ten seconds, where five are configured."""
    for n in range(60):
        step("identify", lambda n=n: cdp.identify(f"cust-{n}", PERSON | {"email": f"p{n}@example.com"}))
        time.sleep(0.13)


def second_id() -> None:
    identify(**PERSON)
    for _ in range(2):
        step("identify", lambda: cdp.identify("cust-grace-2", PERSON))


def visitor_who_is_never_joined() -> None:
    step("track", lambda: cdp.track(event="pricing_viewed", anonymous_id="anon-grace"))
    identify(email="grace@example.com", created_at=now())


def told_of_every_update() -> None:
    for n in range(3):
        step("identify", lambda n=n: cdp.identify(f"cust-{n}", PERSON | {"email": f"p{n}@example.com"}))
        step("track", lambda n=n: cdp.track(f"cust-{n}", "user_updated"))


def made_twice() -> None:
    visitor = {"email": "grace@example.com", "created_at": now()}
    step("identify", lambda: cdp.identify(traits=visitor, anonymous_id="anon-grace"))
    identify(plan="pro")
    identify(**PERSON)


def two_spellings() -> None:
    event_of_known_person("report_viewed")
    event("Report Viewed")


def one_of_many() -> None:
    identify(**PERSON)
    for product in range(3001, 3102, 10):
        event(f"viewed_product_{product}")


def another_type() -> None:
    for number in range(21):
        seats = number if number < 20 else "20"
        person = PERSON | {"email": f"p{number}@example.com", "seats": seats}
        step("identify", lambda number=number, person=person: cdp.identify(f"cust-{number}", person))


def again_and_again() -> None:
    for _ in range(10):
        identify(**PERSON)


def event_before_the_person() -> None:
    event("signed_up")
    time.sleep(2.5)  # longer than the grace that the rule gives to calls that race each other
    identify(email="grace@example.com", created_at=now())


def in_the_background() -> None:
    """The same as `pii-in-name: event` from the queue of the default mode, which retries what it takes for a fault."""
    errors: list[Exception] = []
    queued = Client(session.key(20), host=proxy, on_error=lambda error, _: errors.append(error))

    def flush() -> None:
        queued.flush()
        if errors:
            raise errors.pop()

    queued.identify("cust-grace", PERSON)
    step("identify", flush)
    queued.track("cust-grace", "invited_ada@example.com")
    step("track", flush)


PITFALLS = {
    "wrong-api-key": lambda: identify(**PERSON),  # with the App key that the test gives
    "millisecond-timestamp": lambda: identify(**PERSON, created_at=now() * 1000),
    "hardcoded-credentials": lambda: identify(**PERSON, integration=f"sa_live_{session.key(32)}"),
    "dynamic-event-name": lambda: event_of_known_person("viewed_6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38"),
    "inconsistent-event-name: two spellings": two_spellings,
    "dynamic-event-name: one of many": one_of_many,
    "pii-in-name": lambda: identify(**PERSON, **{"invited_by_ada@example.com": True}),
    "pii-in-name: event": lambda: event_of_known_person("invited_ada@example.com"),
    "pii-in-name: queued event": in_the_background,
    "malformed-body": lambda: event_of_known_person("report_viewed", {"score": float("nan")}),
    "invalid-field": lambda: event_of_known_person(""),
    "reserved-name": lambda: identify(**PERSON, cio_id="d9c106000001"),
    "placeholder-identifier": lambda: step("identify", lambda: cdp.identify("undefined", PERSON)),
    "sensitive-value": lambda: identify(**PERSON, card_number="4111111111111111"),
    "shared-anonymous-id": anonymous_id_on_two_people,
    "oversized-payload": lambda: event_of_known_person("report_viewed" + "_again" * 100),
    "track-before-identify": event_before_the_person,
    "changing-user-id": second_id,
    "anonymous-id-not-merged": visitor_who_is_never_joined,
    "split-identity": made_twice,
    "inconsistent-attribute-type": another_type,
    "redundant-identify": again_and_again,
    "trigger-on-every-update": told_of_every_update,
    "unplanned-event": lambda: event_of_known_person("order_shipped", {"order_id": "A-1", "carrier": "post"}),
    "no-rate-limiting": too_fast,
    "missing-email": lambda: identify(first_name="Grace", created_at=now()),
}

if pitfall not in PITFALLS:
    sys.exit(f"usage: cdp_bad.py PROXY PITFALL [WRITE_KEY], one of: {', '.join(PITFALLS)}")
PITFALLS[pitfall]()
