"""What an app and a mail server say of mail that came back, or was not wanted."""

import time

import pytest

from cio_proxy.bounces import LIMIT, marks, permanence, reacts

REACTING: list[tuple[str, object]] = [
    ("email", None),
    ("email", ""),
    ("unsubscribed", True),
    ("unsubscribed", 1),
    ("Unsubscribed", "true"),
    ("unsubscribed_at", 1_750_000_000),
    ("opted_out", "yes"),
    ("opt-out", True),
    ("optout", True),
    ("do_not_email", True),
    ("donotcontact", True),
    ("bounce_count", 1),
    ("hardBounced", {"at": 1}),
    ("spam_complaint", ["x"]),
    ("complained", True),
    ("marked_as_spam", True),
    ("undeliverable", True),
    ("blocklisted", True),
    ("block_list", True),
    ("email_blocked", True),
    ("email_disabled", True),
    ("invalid_email", True),
    ("email_suppressed", "2026-01-01"),
    ("email_unreachable", True),
    ("email_inactive", True),
    ("bad_email", True),
    ("dead_mailbox", True),
    ("email_stopped", True),
    ("wrong_email", True),
    ("email_status", "hard bounce"),
    ("email_state", "INVALID"),
    ("emailHealth", "bad"),
    ("email_quality", "risky"),
    ("email_check_result", "undeliverable"),
    ("email_verification", "failed"),
    ("email_status", False),
    ("email_status", "blocked"),
    ("email_status", "suppressed"),
    ("email_status", "inactive"),
    ("email_status", "disabled"),
    ("email_status", "unsubscribed"),
    ("email_status", "complained"),
    ("email_status", "spam"),
    ("email_status", "dead"),
    ("email_status", "rejected"),
    ("email_status", "wrong"),
    ("email_valid", False),
    ("is_email_deliverable", "false"),
    ("email_reachable", 0),
    ("email_active", "no"),
    ("email_enabled", "off"),
    ("email_ok", False),
    ("good_email", False),
    ("emails_allowed", "0"),
    ("email_marketing", "N "),
    ("newsletter_subscribed", False),
    ("opt_in", False),
    ("opted in", False),
    ("consent", False),
    ("cio_subscription_preferences", {"topics": {"topic_1": True, "topic_2": False}}),
    ("consent", {"a": {"b": {"c": {"d": False}}}}),
    ("cio_subscription_preferences", '{"topics": {"topic_1": FALSE}}'),
    ("cio_subscription_preferences.topics.topic_1", False),
]
SILENT: list[tuple[str, object]] = [
    ("email", "a@example.com"),
    ("email", 0),
    ("unsubscribed", False),
    ("unsubscribed", "False "),
    ("unsubscribed", "no"),
    ("bounced", "none"),
    ("bounced", "null"),
    ("bounced", "never"),
    ("bounced", "n"),
    ("bounced", "off"),
    ("bounced", "0"),
    ("bounced", ""),
    ("bounced", None),
    ("bounces", 0),
    ("email_invalid", False),
    ("invalid", True),
    ("phone_invalid", True),
    ("account_disabled", True),
    ("blocked", True),
    ("inactive", True),
    ("email_status", "active"),
    ("email_status", "validated"),
    ("email_status", None),
    ("email_status", 0),
    ("status", "invalid"),
    ("email_valid", True),
    ("email_valid", None),
    ("valid", False),
    ("active", False),
    ("email_confirmed", False),
    ("subscribed", "yes"),
    ("consent", {"a": {"b": {"c": {"d": {"e": False}}}}}),
    ("consent", {}),
    ("consent", ["x"]),
    ("cio_subscription_preferences", {"topics": {"topic_1": True}}),
    ("plan", False),
]


@pytest.mark.parametrize(("name", "value"), REACTING, ids=lambda each: str(each)[:40])
def test_an_attribute_may_say_that_mail_came_back_or_is_not_wanted(name: str, value: object) -> None:
    assert reacts({"plan": "pro", name: value})
    many = {f"a{number}": False for number in range(100)}
    assert reacts({**many, name: value})


@pytest.mark.parametrize(("name", "value"), SILENT, ids=lambda each: str(each)[:40])
def test_other_attributes_say_nothing_of_it(name: str, value: object) -> None:
    assert not reacts({"plan": "pro", name: value})
    assert not reacts({})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("email_bounced", True),
        ("Email Bounced", True),
        ("complaint", True),
        ("marked as SPAM", True),
        ("undeliverable", True),
        ("user unsubscribed", True),
        ("invalid email", True),
        ("invalid_mail", True),
        ("EmailInvalid", True),
        ("email-invalid", True),
        ("x" * 200 + "bounced", False),
        ("signed_up", False),
        ("invalid card", False),
        ("email_opened", False),
    ],
)
def test_an_event_may_say_so_by_its_name(name: str, expected: bool) -> None:
    assert marks(name) is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        *((code, "address") for code in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")),
        *((code, "permanent") for code in ("5.0.0", "5.0.1", "5.1.0", "5.1.4", "5.4.1", "5.4.4", "5.4.310", "5.5.0")),
        *((code, "permanent") for code in ("521", "550", "551", "553", "556")),
        *((code, "other") for code in ("4.1.1", "5.1.7", "5.2.2", "5.7.1", "2.1.5", "450", "552", "554", "5.1.11")),
        ("550 5.7.1 blocked, not 5.1.1", "other"),
        ("smtp;550-5.1.1 gone", "address"),
        ("(5.1.1).", "address"),
        ("host 10.5.1.1 said: 550 no", "permanent"),
        ("5.1.1.9 said nothing", None),
        ("5501 mails", None),
        ("1550", None),
        ("550.1", None),
        ("350", None),
        ("bounced", None),
        ("", None),
        (" " * LIMIT + "5.1.1", None),
    ],
)
def test_whether_a_bounce_is_for_good_is_in_its_code(message: str, expected: str | None) -> None:
    assert permanence(message) == expected


def test_hostile_bounces_and_attributes_are_read_in_linear_time() -> None:
    started = time.perf_counter()
    for text in ("5" * 100_000, "5." * 50_000, "5.1." * 30_000, ".5" * 50_000, "550." * 30_000):
        permanence(text)
        marks(text)
        reacts({text: text, f"email_status{text}": text, "consent": text})
    assert time.perf_counter() - started < 2
