"""Bounces: which are for good, what counts as a reaction, and from when on a mail or an identify ignores one."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.facts import workspace
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Exchange, Finding, Json, RuleSettings, Settings, SigningKeys, WorkspaceSettings
from cio_proxy.rules import RULES

from .alone import BASIC, NOW
from .alone import findings as alone

HOUR, DAY = 3_600.0, 86_400.0
RULE = "ignored-bounce"
SITE = base64.b64decode(BASIC.removeprefix("Basic ")).decode().partition(":")[0]
TRACK = "track.customer.io/api/v1/customers/42"
GONE = "550 5.1.1 no such user"
UNANSWERED = ("/data/failure_message", "likely")

type Sent = tuple[float, str, str, Json]


def put(at: float, **attributes: Json) -> Sent:
    return at, "PUT", TRACK, {**attributes}


def send(at: float, to: Json = "ada@example.com", **more: Json) -> Sent:
    return at, "POST", "api.customer.io/v1/send/email", {"to": to, "identifiers": {"id": "7"}, **more}


def webhook(at: float, metric: str = "bounced", failure: Json = GONE, **data: Json) -> Sent:
    told: dict[str, Json] = {
        "identifiers": {"id": "42", "email": "ada@example.com", "cio_id": "c0"},
        "customer_id": "42",
        "delivery_id": "D1",
        "recipient": "Ada@example.com",
        "failure_message": failure,
    }
    report: Json = {
        "event_id": f"{metric} {at}",
        "object_type": data.pop("object_type", "email"),
        "metric": metric,
        "timestamp": data.pop("timestamp", NOW + at),
        "data": told | data,
    }
    return at, "WEBHOOK", "shop.example.com/hooks", report


async def findings(
    *sent: Sent,
    end: float = 3 * DAY,
    params: dict[str, Any] | None = None,
    status: Sequence[int] = (),
    store: MemoryStore | None = None,
    shop: str = "",
    unable: list[str] | None = None,
) -> list[Finding]:
    """All that the rule says, after an identify that shows the Track site; `unable` is told what it cannot say.

    `shop` is the name of the one workspace that is configured, if any, and the key that its webhooks are signed with.
    """
    recorded, reasons = [], [] if unable is None else unable
    for number, (at, method, url, body) in enumerate([put(-1, email="ada@example.com"), *sent]):
        host, slash, path = url.partition("/")
        is_webhook, is_app = method == "WEBHOOK", host.startswith("api.")
        raw = b"" if body is None else json.dumps(body).encode()
        signature = hmac.new(shop.encode(), b"v0:1:" + raw, hashlib.sha256).hexdigest().encode()
        header = (
            (b"X-CIO-Signature", signature)
            if is_webhook
            else (b"Authorization", b"Bearer k" if is_app else BASIC.encode())
        )
        exchange = Exchange(
            id=f"{number:08x}",
            at=NOW + at,
            method="POST" if is_webhook else method,
            target=(slash + path).encode(),
            host=host,
            headers=(header, (b"X-CIO-Timestamp", b"1")),
            body=raw,
            listener="inbound" if is_webhook else "outbound",
        )
        answered = status[number - 1] if 0 < number <= len(status) else 200
        recorded.append((exchange, Recorded(NOW + at, answered)))
    errors: list[object] = []
    configured = WorkspaceSettings(
        site_ids=(SITE,), app_keys=(hashlib.sha256(b"k").hexdigest(),), signing_key_file=SigningKeys("f", (shop,))
    )
    engine = Engine(
        Settings(
            rules={RULE: RuleSettings(report="possible", params=params or {})},
            workspaces={shop: configured} if shop else {},
        ),
        tuple(each for each in RULES if each.info.id == RULE),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
        unable=lambda rule, reason: reasons.append(reason),
    )
    found = await audit_recorded(recorded, engine, end=NOW + end, store=store)
    assert errors == []
    return found


async def told(*sent: Sent, **more: Any) -> list[tuple[str, str]]:
    return [(each.pointer, each.confidence) for each in await findings(*sent, **more)]


SURE = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "550-5.1.1 gone", "smtp; 550 5.1.1", "[5.1.1].")
PERMANENT = ("550", "550 unknown", "521 no mail", "551", "553", "556", "5.0.0", "5.1.0", "550 5.4.1", "5.4.4", "5.5.0")
NOT_FOR_GOOD = (
    "4.2.2",
    "452 4.1.1",
    "421",
    "450 busy",
    "552 full",
    "554",
    "5.2.2",
    "5.1.7",
    "5.7.1",
    "550 5.7.1",
    "5.3.4",
)


@pytest.mark.parametrize("code", SURE)
async def test_a_code_of_no_mailbox_is_proof(code: str) -> None:
    assert await told(webhook(0, failure=code)) == [UNANSWERED]
    assert await told(webhook(0, failure=code), send(HOUR)) == [("/to", "certain")]


@pytest.mark.parametrize("code", PERMANENT)
async def test_another_permanent_code_is_none(code: str) -> None:
    assert await told(webhook(0, failure=code)) == [UNANSWERED]
    assert await told(webhook(0, failure=code), send(HOUR)) == [("/to", "likely")]


@pytest.mark.parametrize(
    "code", [*NOT_FOR_GOOD, "", "bounced", "5.1", "15.1.1", "10.5.1.1", "5.1.1.7", "5501", None, 550, ["5.1.1"]]
)
async def test_what_may_be_taken_later_or_was_refused_for_another_reason_is_no_bounce(code: Json) -> None:
    assert await told(webhook(0, failure=code), send(HOUR), put(3 * DAY, email="ada@example.com"), end=4 * DAY) == []


@pytest.mark.parametrize("metric", ["dropped", "failed", "sent", "Bounced"])
async def test_another_metric_is_no_bounce(metric: str) -> None:
    assert await told(webhook(0, metric), send(HOUR)) == []


@pytest.mark.parametrize("channel", ["sms", "push", "customer", "whatsapp"])
async def test_another_channel_is_no_mail(channel: str) -> None:
    assert await told(webhook(0, object_type=channel), send(HOUR)) == []


REACTIONS: dict[str, Sent] = {
    "unsubscribed": put(HOUR, unsubscribed=True),
    "in words": put(HOUR, unsubscribed="true"),
    "a topic": put(HOUR, **{"cio_subscription_preferences.topics.topic_1": False}),
    "topics": put(HOUR, cio_subscription_preferences={"topics": {"topic_1": False}}),
    "cleared": put(HOUR, email=None),
    "emptied": put(HOUR, email=""),
    "replaced": put(HOUR, email="ada@example.org"),
    "marked": put(HOUR, email_bounced=True),
    "since when": put(HOUR, bounced_at=NOW),
    "status": put(HOUR, email_status="invalid"),
    "invalid": put(HOUR, email_invalid=1),
    "not valid": put(HOUR, is_email_valid=False),
    "suppressed": (HOUR, "POST", f"{TRACK}/suppress", None),
    "deleted": (HOUR, "DELETE", TRACK, None),
    "event": (HOUR, "POST", f"{TRACK}/events", {"name": "Email Bounced"}),
    "provider": (HOUR, "POST", "api.customer.io/v1/esp/suppression/bounces/ADA%40example.com", None),
    "segment": (HOUR, "POST", "track.customer.io/api/v1/segments/3/add_customers", {"ids": ["42"]}),
    "segment by address": (
        HOUR,
        "POST",
        "track.customer.io/api/v1/segments/3/add_customers",
        {"ids": ["Ada@example.com"]},
    ),
    "opt-out": (HOUR, "POST", "track.customer.io/unsubscribe/D1", {"unsubscribe": True}),
    "reported": (HOUR, "POST", "track.customer.io/api/v1/metrics", {"metric": "bounced", "delivery_id": "D1"}),
    "merged": (
        HOUR,
        "POST",
        "track.customer.io/api/v1/merge_customers",
        {"primary": {"id": "1"}, "secondary": {"id": "42"}},
    ),
    "dropped": webhook(HOUR, "dropped", "suppressed", identifiers={}),
    "opted out": webhook(HOUR, "unsubscribed", None, object_type="customer", recipient=None),
    "preferences": webhook(HOUR, "cio_subscription_preferences_changed", None, object_type="customer"),
    "arrived": webhook(HOUR, "delivered", None),
    "read": webhook(HOUR, "opened", None),
    "followed": webhook(HOUR, "clicked", None),
}
NONE: dict[str, Sent] = {
    "another person": (HOUR, "PUT", "track.customer.io/api/v1/customers/43", {"unsubscribed": True}),
    "subscribed": put(HOUR, unsubscribed=False, email_status="active", bounced=False, newsletter_subscribed=True),
    "no mark": put(HOUR, plan="invalid", phone_invalid=True, email_bounced_at=None, bounces="0"),
    "same address": put(HOUR, email="ADA@example.com"),
    "event": (HOUR, "POST", f"{TRACK}/events", {"name": "signed_up"}),
    "taken from the list": (HOUR, "DELETE", "api.customer.io/v1/esp/suppression/bounces/ada@example.com", None),
    "looked up": (HOUR, "GET", "api.customer.io/v1/esp/suppression/bounces/ada@example.com", None),
    "an import": (
        HOUR,
        "POST",
        "track.customer.io/api/v1/segments/3/add_customers",
        {"ids": ["42", *map(str, range(10))]},
    ),
    "opt-out of another mail": (HOUR, "POST", "track.customer.io/unsubscribe/D2", {"unsubscribe": True}),
    "another's arrival": webhook(HOUR, "delivered", None, recipient="bob@example.com"),
    "arrived before": webhook(HOUR, "delivered", None, timestamp=NOW - 1),
    "a text": webhook(HOUR, "delivered", None, object_type="sms"),
    "sent": webhook(HOUR, "sent", None),
    "unsuppressed": (HOUR, "POST", f"{TRACK}/unsuppress", None),
}


@pytest.mark.parametrize("reaction", REACTIONS.values(), ids=REACTIONS)
async def test_a_reaction_is_enough_however_it_is_made(reaction: Sent) -> None:
    assert await told(webhook(0), reaction) == []
    if reaction[3] is None or "identifiers" not in str(reaction[3]):
        again: Sent = (
            2 * HOUR,
            "POST",
            "api.customer.io/v1/send/email",
            {"to": "ada@example.com", "identifiers": {"id": "42"}},
        )
        if reaction is not REACTIONS["opt-out"] and reaction is not REACTIONS["reported"]:
            assert await told(webhook(0), reaction, again) == []


@pytest.mark.parametrize("other", NONE.values(), ids=NONE)
async def test_what_says_nothing_about_the_bounce_is_none(other: Sent) -> None:
    assert await told(webhook(0), other) == [UNANSWERED]


async def test_a_reaction_that_customer_io_refused_is_none() -> None:
    assert await told(webhook(0), put(HOUR, unsubscribed=True), status=(200, 400)) == [UNANSWERED]


async def test_who_was_suppressed_before_the_webhook_came_needs_no_more() -> None:
    gone: Sent = (-HOUR, "POST", f"{TRACK}/suppress", None)
    assert await told((-0.5, *gone[1:]), webhook(2 * DAY - 60), end=9 * DAY) == []
    assert await told((-0.5, *gone[1:]), webhook(2 * DAY + 60), end=9 * DAY) == [UNANSWERED]
    minute = -NOW % 60  # what was last seen is kept to the minute
    just = ((minute, *gone[1:]), webhook(minute + 2 * DAY))
    assert await told(*just, end=9 * DAY) == []
    assert await told(*just, send(minute + 2 * DAY + HOUR, identifiers={"id": "42"}), end=9 * DAY) == []


async def test_who_is_deleted_needs_no_reaction_and_may_not_be_written_to() -> None:
    deleted = webhook(0, customer_id="", identifiers={"id": None, "email": "ada@example.com", "cio_id": None})
    assert await told(deleted) == []
    assert await told(deleted, send(HOUR)) == [("/to", "certain")]


async def test_by_address_alone() -> None:
    alone = webhook(0)
    alone[3]["data"] = {"recipient": "ada@example.com", "failure_message": GONE}  # type: ignore[index,call-overload]
    assert await told(alone, put(HOUR, plan="pro")) == [UNANSWERED]
    nobody = webhook(0)
    nobody[3]["data"] = {"failure_message": GONE}  # type: ignore[index,call-overload]
    assert await told(nobody, send(HOUR)) == []


@pytest.mark.parametrize(("after", "found"), [(600, []), (601, [("/to", "certain")])])
async def test_a_mail_may_have_been_under_way(after: float, found: list[tuple[str, str]]) -> None:
    assert await told(webhook(0), send(after), end=DAY) == found
    assert await told(webhook(0), send(after / 10), end=DAY, params={"grace": 60.0}) == found


@pytest.mark.parametrize(("after", "found"), [(2 * DAY, []), (2 * DAY + 1, [("/email", "certain")])])
async def test_an_address_may_be_given_again_until_the_window_is_over(
    after: float, found: list[tuple[str, str]]
) -> None:
    given = [each for each in await told(webhook(0), put(after, email="Ada@Example.com")) if each != UNANSWERED]
    assert given == found
    short = await told(webhook(0), put(after / 2, email="ada@example.com"), params={"window": DAY})
    assert [each for each in short if each != UNANSWERED] == found


async def test_an_identify_is_told_of_once_and_each_mail() -> None:
    again = [put(day * DAY, email="ada@example.com") for day in (3, 4, 5)]
    assert await told(webhook(0), *again, end=9 * DAY) == [UNANSWERED, ("/email", "certain")]
    assert await told(webhook(0), send(HOUR), send(2 * HOUR)) == [("/to", "certain")] * 2
    assert await told(webhook(0), send(HOUR), *again, end=9 * DAY) == [("/to", "certain")]


async def test_a_bounce_is_forgotten_after_a_month() -> None:
    assert await told(webhook(0), send(29 * DAY), end=0) == [UNANSWERED, ("/to", "certain")]
    assert await told(webhook(0), send(31 * DAY), end=0) == [UNANSWERED]


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("Ada Lovelace <ADA@example.com>", 1),
        ("bob@example.com,ada@example.com", 1),
        ('bob@example.com; "Ada"<ada@example.com>, ada@example.com', 1),
        ("ada@example.com.org", 0),
        ("nada@example.com", 0),
        (["ada@example.com"], 0),
        ("@" * 9_000, 0),
        ("", 0),
    ],
)
async def test_whom_a_mail_goes_to(to: Json, found: int) -> None:
    assert len(await told(webhook(0), send(HOUR, to), end=DAY)) == found


async def test_a_mail_to_who_is_identified_by_the_address_alone() -> None:
    by_email: Sent = (HOUR, "POST", "api.customer.io/v1/send/email", {"identifiers": {"email": "ADA@example.com"}})
    assert await told(webhook(0), by_email, end=DAY) == [("/identifiers/email", "certain")]
    push: Sent = (HOUR, "POST", "api.customer.io/v1/send/push", {"to": "ada@example.com"})
    assert await told(webhook(0), push, end=DAY) == []


async def test_a_finding_names_the_gentler_ways_first_and_no_address() -> None:
    found = await findings(webhook(0), send(HOUR), put(3 * DAY, email="ada@example.com"), end=9 * DAY)
    found += await findings(webhook(0))
    for finding in found:
        assert finding.fix.index("unsubscribed") < finding.fix.index("suppress`")
        assert "deletes the profile" in finding.fix
        assert "ada" not in repr(finding)


async def kept(store: MemoryStore, kind: str) -> list[float]:
    """For how long each fact of a kind is kept, in days from NOW."""
    return sorted([round((each.expiry - NOW) / DAY, 3) async for _, each in store.scan(kind)])


async def test_a_reaction_is_remembered_for_longer_than_its_bounce() -> None:
    store = MemoryStore()
    await findings(
        webhook(0), put(HOUR, email="ada@example.org"), webhook(2 * HOUR, "opened", None), end=0, store=store
    )
    assert await kept(store, "bounced") == [30.0] * 3
    assert await kept(store, "no-mailbox") == [30.0] * 3
    assert await kept(store, "reacted") == [round(40 + 1 / 24, 3)] * 1 + [round(40 + 2 / 24, 3)]
    assert await kept(store, "ignored-bounce") == [3.0]


async def test_a_deadline_is_the_addresss_own() -> None:
    store = MemoryStore()
    await findings(webhook(0), webhook(1, recipient="bob@example.com", identifiers={"id": "43"}), end=0, store=store)
    assert len({key.subject async for key, _ in store.scan("ignored-bounce")}) == 2
    of = [{key.workspace async for key, _ in store.scan(kind)} for kind in ("ignored-bounce", "bounced")]
    assert of[0] == of[1]


async def test_a_mail_that_customer_io_refused_leaves_the_rest_to_be_told() -> None:
    again = put(3 * DAY, email="ada@example.com")
    assert await told(webhook(0), send(HOUR), again, status=(200, 400)) == [
        ("/to", "certain"),
        UNANSWERED,
        ("/email", "certain"),
    ]


async def test_of_several_addresses_each_is_judged() -> None:
    bob = webhook(HOUR - 5, recipient="bob@example.com", identifiers={"id": "43"})
    assert await told(webhook(0), bob, send(HOUR, "bob@example.com, ada@example.com"), end=DAY) == [("/to", "certain")]
    assert (
        await told(webhook(0), bob, send(2 * HOUR, "bob@example.com, ada@example.com"), end=DAY)
        == [("/to", "certain")] * 2
    )


async def test_mail_that_arrives_in_the_second_of_the_bounce_came_after_it() -> None:
    assert await told(webhook(0), webhook(5, "delivered", None, timestamp=NOW)) == []


async def test_what_was_told_of_one_bounce_is_told_again_of_the_next() -> None:
    sent = (webhook(0), send(1.9 * DAY), webhook(2.5 * DAY))
    assert await told(*sent, end=9 * DAY) == [("/to", "certain"), UNANSWERED]


async def test_an_identify_is_not_told_of_when_the_mail_that_was_comes_back() -> None:
    minute = -NOW % 60
    sent = (webhook(0), send(minute + HOUR), webhook(minute + HOUR), put(4 * DAY, email="ada@example.com"))
    assert await told(*sent, end=9 * DAY) == [("/to", "certain")]


async def test_with_a_workspace_that_is_configured_the_address_of_a_mail_is_looked_up_too() -> None:
    assert await told(webhook(0), send(HOUR), end=DAY, shop="shop") == [("/to", "certain")]


async def test_an_identify_by_pipelines_is_told_of_as_well() -> None:
    body: Json = {"userId": "42", "traits": {"email": "ada@example.com"}}
    again: Sent = (3 * DAY, "POST", "cdp.customer.io/v1/identify", body)
    assert await told(webhook(0), again, end=9 * DAY) == [UNANSWERED, ("/traits/email", "certain")]


async def test_who_is_named_by_the_address_is_not_given_it() -> None:
    named: Sent = (3 * DAY, "PUT", "track.customer.io/api/v1/customers/ada@example.com", {"plan": "pro"})
    assert await told(webhook(0), named, end=9 * DAY) == [UNANSWERED]


@pytest.mark.parametrize("email", [5, None, [], {"a": 1}])
async def test_an_address_that_is_no_text_is_no_other_address(email: Json) -> None:
    assert len(await told(webhook(0), put(HOUR, email=email))) <= 1


@pytest.mark.parametrize("timestamp", ["now", None, [], 9e14])
async def test_mail_that_arrived_at_a_time_that_cannot_be_arrived_now(timestamp: Json) -> None:
    assert await told(webhook(0), webhook(HOUR, "delivered", None, timestamp=timestamp)) == []


@pytest.mark.parametrize(("lost", "found"), [(HOUR, []), (-2 * DAY, []), (-2 * DAY - 60, [("/to", "certain")])])
async def test_where_a_reaction_may_have_been_forgotten_nothing_is_told(
    lost: float, found: list[tuple[str, str]]
) -> None:
    store, minute = MemoryStore(), -NOW % 60
    await findings(webhook(minute), end=0, store=store)
    (of,) = {key.workspace async for key, _ in store.scan("bounced")}
    await store.join_many([workspace.lost(of, NOW + minute + lost)], (), NOW + HOUR)
    assert await told(send(2 * HOUR), end=DAY, store=store) == found


NOWHERE = "which workspace a webhook or a send is of is not known: name its keys in `workspaces`"
NO_CODE = "no SMTP code tells whether a bounce is for good"


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        (webhook(0), []),
        (webhook(0, failure="gone"), [NO_CODE]),
        (webhook(0, failure=None), [NO_CODE]),
        (webhook(0, "delivered", None), []),
        (webhook(0, failure=None, object_type="sms"), []),
        (send(0), []),
    ],
)
async def test_without_a_code_it_says_that_it_cannot_tell(sent: Sent, reasons: list[str]) -> None:
    unable: list[str] = []
    await findings(sent, unable=unable)
    assert unable == reasons


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        (webhook(0), [NOWHERE]),
        (webhook(0, "delivered"), []),
        (send(0), [NOWHERE]),
        ((0, "POST", "cdp.customer.io/v1/identify", {"userId": "42", "traits": {"email": "ada@example.com"}}), []),
    ],
)
def test_without_a_track_site_it_says_that_it_cannot_tell(sent: Sent, reasons: list[str]) -> None:
    unable: list[str] = []
    _, method, url, body = sent
    more: dict[str, Any] = {"listener": "inbound"} if method == "WEBHOOK" else {}
    headers = {"X-CIO-Signature": "00"} if method == "WEBHOOK" else {}
    assert alone(RULE, "POST", url, body, headers=headers, unable=unable, **more) == []
    assert unable == reasons
