"""A clean integration: every method of `CustomerIO`, and every `send_*` of `APIClient`.

python track_clean.py http://127.0.0.1:8080   (with REQUESTS_CA_BUNDLE: `batch` always speaks TLS)

The methods are read from the classes, so one that a new version adds fails here until it has a step.
"""

import sys
from datetime import UTC, datetime

import session
import track_client
from customerio import (
    APIClient,
    CustomerIO,
    SendEmailRequest,
    SendInAppRequest,
    SendInboxMessageRequest,
    SendPushRequest,
    SendSMSRequest,
    SendWhatsAppRequest,
)
from session import now, step, week_ago

proxy = sys.argv[1]
cio = track_client.connect(proxy)
tls = track_client.over_tls(proxy, cio.site_id, cio.api_key)
api = track_client.app(proxy)


def person(name: str, **more: object) -> dict[str, object]:
    return {"email": f"{name}@example.com", "created_at": week_ago(), "plan": "pro", **more}


ada = {"id": "cust-ada"}
to = {"to": "ada@example.com", "identifiers": ada}
letter = SendEmailRequest(
    **to, transactional_message_id=3, message_data={"order_id": "A-1000042"}, send_at=now() + 3600
)
letter.attach("invoice.txt", "Thank you for your order.\n" * 4000)

# In the order of a session: people first, what they did next, who leaves last.
CUSTOMER_IO = {
    "identify": [
        lambda: cio.identify("cust-ada", **person("ada", first_name="Ada", logins=3, trial=False)),
        lambda: cio.identify("cust-bob", **person("bob", anonymous_id="anon-bob")),
        lambda: cio.identify("cust-cleo", **person("cleo", created_at=datetime.fromtimestamp(week_ago(), UTC))),
        lambda: cio.identify("cust-dan", **person("dan")),
        lambda: cio.identify("cust-dan-old", **person("dan.old")),
        lambda: cio.identify("eve@example.com", created_at=week_ago(), first_name="Zoë"),
        lambda: tls.identify("team/frank+1", **person("frank", score=float("nan"))),
        lambda: cio.identify("cust-ada", plan="team", last_seen_at=datetime.now(UTC)),
        lambda: cio.identify("cust-bob", unsubscribed=True),
    ],
    "track": [
        lambda: cio.track("cust-ada", "order_completed", {"order_id": "A-1000042", "total": 12.5}),
        lambda: cio.track("cust-bob", "order_completed", {"order_id": "A-1000043", "total": 20}, timestamp=now() - 60),
        lambda: cio.track("eve@example.com", "plan_upgraded", {"plan": "team"}, id="01HB4HBDKTFWYZCK01DMRSWRFD"),
        lambda: tls.track("team/frank+1", "report_viewed"),
    ],
    "track_anonymous": [
        lambda: cio.track_anonymous("anon-bob", "pricing_viewed", {"source": "ad"}),
        lambda: cio.track_anonymous("", "friend_invited", {"recipient": "grace@example.com"}),
    ],
    "pageview": [lambda: cio.pageview("cust-ada", "/pricing", referrer="/home")],
    "backfill": [lambda: cio.backfill("cust-ada", "report_viewed", now() - 3600, pages=3)],
    "add_device": [
        lambda: cio.add_device("cust-ada", "fcm-token-ada", "android", last_used=now()),
        lambda: cio.add_device("cust-bob", "apns-token-bob", "ios"),
    ],
    "delete_device": [lambda: cio.delete_device("cust-bob", "apns-token-bob")],
    "batch": [
        lambda: tls.batch(
            [
                {
                    "type": "person",
                    "action": "identify",
                    "identifiers": {"id": "cust-hal"},
                    "attributes": person("hal"),
                },
                {
                    "type": "person",
                    "action": "event",
                    "identifiers": {"id": "cust-hal"},
                    "name": "order_completed",
                    "timestamp": now(),
                    "attributes": {"total": 7},
                },
            ]
        )
    ],
    "merge_customers": [lambda: cio.merge_customers("id", "cust-dan", "id", "cust-dan-old")],
    "suppress": [lambda: cio.suppress("cust-cleo")],
    "unsuppress": [lambda: cio.unsuppress("cust-cleo")],
    "delete": [lambda: cio.delete("cust-hal")],
    "send_request": [lambda: cio.send_request("PUT", f"{cio.base_url}/customers/cust-ada", {"plan": "solo"})],
    "close": [cio.close, tls.close],
}
OFFLINE = {"get_customer_query_string", "get_device_query_string", "get_event_query_string", "get_events_query_string"}
OFFLINE |= {"is_valid_id_type", "setup_base_url"}

API_CLIENT = {
    "send_email": [
        lambda: api.send_email(SendEmailRequest(**to, transactional_message_id="welcome")),
        lambda: api.send_email(letter),
    ],
    "send_push": [
        lambda: api.send_push(SendPushRequest(identifiers=ada, transactional_message_id=4, title="Shipped")),
    ],
    "send_sms": [lambda: api.send_sms(SendSMSRequest(identifiers=ada, transactional_message_id=5))],
    "send_whatsapp": [lambda: api.send_whatsapp(SendWhatsAppRequest(identifiers=ada, transactional_message_id=6))],
    "send_inbox_message": [
        lambda: api.send_inbox_message(SendInboxMessageRequest(identifiers=ada, transactional_message_id=7)),
    ],
    "send_in_app": [lambda: api.send_in_app(SendInAppRequest(identifiers=ada, transactional_message_id=8))],
    "send_request": [
        lambda: api.send_request(
            "POST", f"{proxy}/v1/campaigns/12/triggers", {"data": {"headline": "Spring"}, "ids": ["cust-ada"]}
        )
    ],
    "close": [api.close],
}

for client, steps in (CustomerIO, CUSTOMER_IO), (APIClient, API_CLIENT):
    for method in session.public_methods(client):
        if method not in steps and method not in OFFLINE:
            session.report(f"{client.__name__}.{method}", f"method {method} has no step")
    for method, calls in steps.items():
        for call in calls:
            step(f"{client.__name__}.{method}", call)
