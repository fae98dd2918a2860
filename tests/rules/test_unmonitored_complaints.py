"""Complaints: who reacts to one, what rate of a day is too high, and which webhook leaves them out."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Exchange, Finding, Json, RuleSettings, Sample, Settings, SigningKeys, WorkspaceSettings
from cio_proxy.rules import RULES

from .alone import BASIC, NOW
from .alone import findings as alone

HOUR, DAY = 3_600.0, 86_400.0
RULE = "unmonitored-complaints"
UNANSWERED = "somebody complained that a mail is spam, and nothing was done about it"
LEFT_OUT = "a webhook for what becomes of e-mail leaves complaints out, and none is read otherwise"
APP = "api.customer.io/v1"

type Sent = tuple[float, str, str, Json]


def webhook(at: float, metric: str = "spammed", number: int = 0, **parts: Json) -> Sent:
    data: Json = {
        "identifiers": {"id": f"p{number}"},
        "delivery_id": f"{metric}{number}",
        "recipient": f"P{number}@example.com",
    }
    report: dict[str, Json] = {"event_id": f"{metric}{number}", "object_type": "email", "metric": metric, "data": data}
    return at, "WEBHOOK", "shop.example.com/hooks", report | {"timestamp": NOW + at} | parts


def many(metric: str, count: int, at: float = 0.0, first: int = 0, **parts: Json) -> list[Sent]:
    return [webhook(at, metric, first + number, **parts) for number in range(count)]


def watching(at: float, path: str = "/messages?metric=spammed", method: str = "GET") -> Sent:
    return at, method, f"{APP}{path}", None


def setup(at: float, events: Any, method: str = "POST", path: str = "", **more: Json) -> Sent:
    return at, method, f"{APP}/reporting_webhooks{path}", {"name": "n", "events": events, **more}


async def findings(
    *sent: Sent,
    end: float = 3 * DAY,
    status: int = 200,
    sites: int = 1,
    shops: Sequence[str] = (),
    store: MemoryStore | None = None,
    **params: Any,
) -> list[Finding]:
    """What is found of requests. `shops` are the workspaces of webhooks, in turn: each has its name for a key."""
    recorded = []
    calls: list[Sent] = [(-3 * DAY, "PUT", "track.customer.io/api/v1/customers/1", {}) for _ in range(sites)]
    for number, (at, method, url, body) in enumerate([*calls, *sent]):
        host, slash, path = url.partition("/")
        raw = b"" if body is None else json.dumps(body).encode()
        key = shops[number % len(shops)].encode() if shops else b""
        signature = hmac.new(key, b"v0:1:" + raw, hashlib.sha256).hexdigest().encode() if shops else b"00"
        basic = BASIC if number == 0 or number >= sites else "Basic dHdvOmtleQ=="
        header = (b"Authorization", b"Bearer k" if host.startswith("api.") else basic.encode())
        exchange = Exchange(
            id=f"{number:08x}",
            at=NOW + at,
            method="POST" if method == "WEBHOOK" else method,
            target=(slash + path).encode(),
            host=host,
            headers=((b"X-CIO-Signature", signature), (b"X-CIO-Timestamp", b"1")) if method == "WEBHOOK" else (header,),
            body=raw,
            listener="inbound" if method == "WEBHOOK" else "outbound",
        )
        recorded.append((exchange, Recorded(NOW + at, status if host.startswith("api.") else 200)))
    errors: list[object] = []
    engine = Engine(
        Settings(
            rules={RULE: RuleSettings(report="possible", params=params)},
            workspaces={name: WorkspaceSettings(signing_key_file=SigningKeys("f", (name,))) for name in set(shops)},
        ),
        tuple(each for each in RULES if each.info.id == RULE),
        sealed_with(b"k" * 32),
        rule_error=lambda *error: errors.append(error),
    )
    found = await audit_recorded(recorded, engine, store=store, end=NOW + end)
    assert errors == []
    return found


async def told(*sent: Sent, **more: Any) -> list[str]:
    found = await findings(*sent, **more)
    assert {each.confidence for each in found} <= {"likely"}
    return [each.message for each in found]


REACTIONS: dict[str, Sent] = {
    "unsubscribed": (HOUR, "PUT", "track.customer.io/api/v1/customers/p0", {"unsubscribed": True}),
    "marked": (HOUR, "PUT", "track.customer.io/api/v1/customers/p0", {"spam_complaint_at": NOW}),
    "event": (HOUR, "POST", "track.customer.io/api/v1/customers/p0/events", {"name": "complained"}),
    "suppressed": (HOUR, "POST", "track.customer.io/api/v1/customers/p0/suppress", None),
    "by address": (HOUR, "DELETE", "track.customer.io/api/v1/customers/p0%40example.com", None),
    "provider": (HOUR, "POST", f"{APP}/esp/suppression/spam_reports/p0@example.com", None),
    "mail": (HOUR, "POST", "track.customer.io/unsubscribe/spammed0", None),
    "told": webhook(HOUR, "unsubscribed", 0),
    "messages": watching(HOUR),
    "before": watching(-1, "/campaigns/9/metrics"),
    "newsletter": watching(HOUR, "/newsletters/9/metrics?period=days"),
    "export": watching(HOUR, "/exports/deliveries"),
    "list": watching(HOUR, "/esp/suppression/spam_reports"),
}


@pytest.mark.parametrize("reaction", REACTIONS.values(), ids=REACTIONS)
async def test_a_reaction_is_enough_however_it_is_made(reaction: Sent) -> None:
    sent = sorted([webhook(0), reaction], key=lambda each: each[0])
    assert await told(*sent) == []


@pytest.mark.parametrize(
    "other",
    [
        watching(HOUR, "/campaigns/9"),
        watching(HOUR, "/messages_of_mine"),
        watching(HOUR, "/messages", "POST"),
        (HOUR, "PUT", "track.customer.io/api/v1/customers/p1", {"unsubscribed": True}),
        (HOUR, "GET", "track.customer.io/api/v1/messages", None),
        webhook(HOUR, "delivered", 0),
    ],
)
async def test_what_says_nothing_about_the_complaint_is_none(other: Sent) -> None:
    assert await told(webhook(0), other) == [UNANSWERED]


async def test_each_who_complains_is_told_of_once_and_in_time() -> None:
    assert await told(webhook(0), webhook(1), webhook(2, number=1)) == [UNANSWERED] * 2
    assert await told(webhook(0), end=2 * DAY - 1) == []
    assert await told(webhook(0), end=2 * DAY) == [UNANSWERED]
    assert await told(webhook(0), end=HOUR, window=HOUR) == [UNANSWERED]


async def test_what_is_no_complaint_about_a_mail_is_none() -> None:
    assert await told(webhook(0, "Spammed"), webhook(1, object_type="sms"), webhook(2, "clicked")) == []
    assert await told(webhook(0, data={})) == []
    assert await told(webhook(0, data={"recipient": "a@example.com"})) == [UNANSWERED]
    assert await told(webhook(0, data={"customer_id": "7"})) == [UNANSWERED]


async def test_without_one_track_site_nobody_can_tell_but_for_the_rate() -> None:
    assert await told(webhook(0), sites=0) == []
    assert await told(webhook(0), sites=2) == []
    rate = await told(*many("delivered", 9), *many("spammed", 4), sites=2, volume=9)
    assert rate == ["over 0.3 % of a day's mail was complained of"]


def test_of_a_complaint_whose_workspace_is_not_known_it_says_so() -> None:
    _, _, url, report = webhook(0)

    def reasons(**parts: Json) -> list[str]:
        unable: list[str] = []
        body = report | parts if isinstance(report, dict) else {}
        found = alone(RULE, "POST", url, body, headers={"X-CIO-Signature": "00"}, listener="inbound", unable=unable)
        assert found == []
        return unable

    assert reasons() == ["which workspace a webhook is of is not known: name its signing key in `workspaces`"]
    assert reasons(metric="opened") == reasons(object_type="sms") == []


async def test_workspaces_are_apart() -> None:
    same = [webhook(0), webhook(1)]
    assert await told(*same, sites=0, shops=["a"]) == [UNANSWERED]
    assert await told(*same, sites=0, shops=["a", "b"]) == [UNANSWERED] * 2
    mail = [*many("delivered", 100), *many("spammed", 4)]
    assert await told(*mail, sites=0, shops=["a"], end=HOUR, volume=100) == [WORST]
    assert await told(*mail, sites=0, shops=["a", "b"], end=HOUR, volume=100) == []


async def test_what_the_app_read_so_long_before_a_complaint_is_a_reaction() -> None:
    minute = -NOW % 60  # what was last seen is kept to the minute
    assert await told(watching(minute - 2 * DAY), webhook(minute)) == []
    assert await told(watching(minute - 2 * DAY - 1), webhook(minute)) == [UNANSWERED]


async def test_what_is_waited_for_is_not_forgotten_meanwhile() -> None:
    assert await told(webhook(0), webhook(1.5 * DAY), end=2 * DAY) == [UNANSWERED]
    assert await told(setup(0, BOUNCES), setup(1.5 * DAY, BOUNCES), end=2 * DAY) == [LEFT_OUT]


WORST, WARNED = "over 0.3 % of a day's mail was complained of", "over 0.1 % of a day's mail was complained of"
BACK = "over 5 % of a day's mail came back"


@pytest.mark.parametrize(
    ("delivered", "complaints", "params", "found"),
    [
        (1_000, 4, {}, [WORST]),
        (999, 4, {}, []),
        (1_000, 3, {}, []),
        (1_000, 3, {"complaints": 3}, [WARNED]),
        (1_000, 1, {"complaints": 1}, []),
        (1_000, 2, {"complaints": 2}, [WARNED]),
        (1_000, 4, {"worst": 40}, [WARNED]),
        (1_000, 4, {"worst": 40, "warned": 40}, []),
        (1_000, 4, {"worst": 39, "warned": 10}, ["over 0.39 % of a day's mail was complained of"]),
        (100, 9, {"volume": 100}, [WORST]),
        (100, 9, {"volume": 101}, []),
        (1_000, 5, {"complaints": 2}, [WARNED, WORST]),
    ],
)
async def test_a_days_rate_of_complaints(
    delivered: int, complaints: int, params: dict[str, int], found: list[str]
) -> None:
    sent = [*many("delivered", delivered), *many("spammed", complaints)]
    assert await told(*sent, end=HOUR, **params) == found


@pytest.mark.parametrize(
    ("sent", "delivered", "bounced", "found"),
    [
        (100, 0, 6, [BACK]),
        (100, 0, 5, []),
        (99, 0, 6, []),
        (0, 94, 6, [BACK]),
        (0, 95, 5, []),
        (200, 94, 6, []),
        (100, 94, 9, [BACK]),
    ],
)
async def test_a_days_rate_of_mail_that_came_back(sent: int, delivered: int, bounced: int, found: list[str]) -> None:
    mail = [*many("sent", sent), *many("delivered", delivered), *many("bounced", bounced)]
    assert await told(*mail, volume=100) == found
    assert await told(*mail) == []


async def test_what_may_be_taken_later_has_not_come_back() -> None:
    later: Json = {"failure_message": "452 4.2.2 full", "delivery_id": "x"}
    mail = many("sent", 100)
    assert await told(*mail, *many("bounced", 50, data=later), volume=100) == []
    gone = [webhook(0, "bounced", n, data={"failure_message": "5.1.1", "delivery_id": str(n)}) for n in range(6)]
    assert await told(*mail, *gone, volume=100) == [BACK]
    assert await told(*mail, *gone[:5], webhook(0, "bounced", 9, data=later), volume=100) == []


async def test_a_day_is_that_of_the_webhook_and_each_mail_counts_once() -> None:
    day: Json = NOW - 3 * DAY
    later = [*many("delivered", 100), *many("spammed", 4, at=HOUR)]
    assert await told(*later, volume=100, end=2 * HOUR) == [WORST]
    late = [*many("delivered", 100, timestamp=day), *many("spammed", 4)]
    assert await told(*late, volume=100, end=HOUR) == []
    assert await told(*late[:100], *many("spammed", 4, timestamp=day), volume=100, end=HOUR) == [WORST]
    odd: Json = "today"
    assert await told(*many("delivered", 100, timestamp=odd), *many("spammed", 4), volume=100, end=HOUR) == [WORST]
    far: Json = 9e14
    assert await told(*many("delivered", 100, timestamp=far), *many("spammed", 4), volume=100, end=HOUR) == [WORST]
    one: Json = {"delivery_id": "one"}
    same = [webhook(0, "delivered", number, data=one) for number in range(100)]
    assert await told(*same, *many("spammed", 4), volume=100, end=HOUR) == []
    ago: Json = NOW - 8 * DAY
    assert await told(*many("delivered", 100, timestamp=ago), *many("spammed", 4), volume=100, end=HOUR) == [WORST]
    nameless = many("delivered", 100, data={})
    assert await told(*nameless, *many("spammed", 4), volume=100, end=HOUR) == [WORST]


async def test_of_a_day_so_many_mails_are_told_apart() -> None:
    store = MemoryStore()
    await told(*many("delivered", 1_030), store=store, end=HOUR)
    ((mails, _),) = [kept async for _, kept in store.scan("mail-delivered")]
    assert isinstance(mails, Sample)
    assert len(mails.hashes) == 1_024


async def test_what_is_kept_is_found_by_the_next_version_too() -> None:
    store = MemoryStore()
    mail = [*many("sent", 9), *many("delivered", 9), *many("bounced", 9), *many("spammed", 5)]
    await told(*mail, setup(HOUR, BOUNCES), watching(2 * HOUR), store=store, end=3 * HOUR, volume=9, worst=5_000)
    assert store.known().keys() - {"identified", "observed", "webhook"} == {
        *("mail-sent", "mail-delivered", "mail-bounced", "mail-spammed"),
        *("bounces-told", "complaints-warned", "complaints-worst"),
        *("complaints-watched", "complaints-covered", "complaints-left-out", RULE),
    }


async def test_the_numbers_are_in_the_finding() -> None:
    (finding,) = await findings(*many("delivered", 1_000), *many("spammed", 4), end=HOUR)
    assert finding.effect.startswith("4 of 1000 mails delivered, 0.40 %: ")
    assert (finding.pointer, finding.call, finding.api) == ("/metric", "webhook_metric", "webhooks")


BOUNCES = ["email_bounced", "email_delivered"]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([setup(0, BOUNCES)], [LEFT_OUT]),
        ([setup(0, BOUNCES, "PUT", "/12")], [LEFT_OUT]),
        ([setup(0, ["customer_subscribed", "email_sent"], disabled=False)], [LEFT_OUT]),
        ([setup(0, BOUNCES, "DELETE", "/12")], []),
        ([setup(0, BOUNCES, "POST", "/12/test")], []),
        ([setup(0, [*BOUNCES, "email_spammed"])], []),
        ([setup(0, ["sms_sent"])], []),
        ([setup(0, [])], []),
        ([setup(0, "email_sent")], []),
        ([setup(0, [1, None, {}])], []),
        ([setup(0, None)], []),
        ([setup(0, {"email_sent": True})], []),
        ([setup(0, BOUNCES, disabled=True)], []),
        ([setup(0, BOUNCES), setup(HOUR, ["email_spammed"])], []),
        ([setup(0, ["email_spammed"]), setup(20 * DAY, BOUNCES)], []),
        ([setup(0, ["email_spammed"]), setup(28 * DAY + HOUR, BOUNCES)], [LEFT_OUT]),
        ([webhook(0), (HOUR, *REACTIONS["unsubscribed"][1:]), setup(28 * DAY + HOUR, BOUNCES)], [LEFT_OUT]),
        ([setup(0, BOUNCES), watching(HOUR)], []),
        ([setup(0, BOUNCES), webhook(HOUR), (2 * HOUR, *REACTIONS["unsubscribed"][1:])], []),
        ([setup(0, BOUNCES), watching(HOUR, "/messages", "POST")], [LEFT_OUT]),
    ],
)
async def test_a_webhook_for_mail_needs_complaints_unless_they_come_otherwise(
    sent: list[Sent], found: list[str]
) -> None:
    assert await told(*sent, end=sent[-1][0] + 2 * DAY) == found


async def test_a_webhook_that_customer_io_did_not_take_leaves_nothing_out() -> None:
    assert await told(setup(0, BOUNCES), status=422) == []
    assert await told(setup(0, BOUNCES), status=500) == []


async def test_a_webhook_that_is_set_up_needs_no_track_site() -> None:
    assert await told(setup(0, BOUNCES), sites=0) == [LEFT_OUT]
