"""The names that Pipelines fixes, each style with what fits it, and the spelling that is put right."""

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, RuleSettings, Settings
from cio_proxy.rules import RULES
from cio_proxy.rules.inconsistent_event_name import fits, is_snake_of_words, normal, style_of

from .alone import NOW, findings, history, remembered, told

RULE = "inconsistent-event-name"
FIXED = """
Products Searched, Product List Viewed, Product List Filtered, Promotion Viewed, Promotion Clicked, Product Clicked,
Product Viewed, Product Added, Product Removed, Cart Viewed, Checkout Started, Checkout Step Viewed,
Checkout Step Completed, Payment Info Entered, Order Updated, Order Completed, Order Refunded, Order Cancelled,
Coupon Entered, Coupon Applied, Coupon Denied, Coupon Removed, Product Added to Wishlist,
Product Removed from Wishlist, Wishlist Product Added to Cart, Product Shared, Cart Shared, Product Reviewed,
Application Installed, Application Opened, Application Updated, Application Backgrounded, Application Foregrounded,
Application Uninstalled, Application Crashed, Push Notification Received, Push Notification Tapped,
Push Notification Bounced, Install Attributed, Deep Link Clicked, Deep Link Opened
"""
NAMES = [" ".join(name.split()) for name in FIXED.split(",")]


def styled(name: str, convention: str, *, pipelines: bool = False) -> list[tuple[str, object]]:
    """How sure, and the spelling that is put right, under a convention."""
    host, target, body = (
        ("cdp.customer.io", b"/v1/track", b'{"userId": "42", "event": "%s"}')
        if pipelines
        else ("track.customer.io", b"/api/v1/customers/42/events", b'{"name": "%s"}')
    )
    exchange = Exchange(
        id="1", at=1.75e9, method="POST", target=target, host=host, headers=(), body=body % name.encode()
    )
    said = RuleSettings(report="possible", params={"convention": convention})
    engine = Engine(Settings(rules={RULE: said}), tuple(r for r in RULES if r.info.id == RULE), sealed_with(b"k" * 32))
    return [(f.confidence, f.corrected) for f in engine.judge(engine.open(exchange), Reading()).findings]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_pipelines_fixes_is_fine_there_in_any_style(name: str) -> None:
    assert styled(name, "snake_case", pipelines=True) == []
    assert styled(name, "camelCase", pipelines=True) == []
    assert styled(name.upper(), "camelCase", pipelines=True) != []
    assert [sure for sure, _ in styled(name, "snake_case")] == ["likely"]


FITS = {
    "snake_case": ["a", "order_placed", "order_1", "order", "größe_gewählt", "_a_", "a.b:c/d"],
    "kebab-case": ["a", "order-placed", "order-1-a", "größe", "a.b-c"],
    "camelCase": ["a", "orderPlaced", "order1", "orderID", "größeGewählt", "1a", "a.bC"],
    "PascalCase": ["A", "OrderPlaced", "Order1", "1Order", "A.BC"],
    "Title Case": [
        *("A", "Order Placed", "Order 1", "Order & Co", "One a Two", "One an Two", "One and Two", "One as Two"),
        *("One at Two", "One by Two", "One for Two", "One from Two", "One in Two", "One of Two", "One on Two"),
        *("One or Two", "One the Two", "One to Two", "One with Two", "1 Order", "A-b", "One.Two"),
    ],
}
FAILS = {
    "snake_case": ["A", "orderPlaced", "order placed", "order-placed", "a.b c", "Order_placed", "a  b"],
    "kebab-case": ["A", "order_placed", "order--placed", "-order", "order-", "order placed", "a-B"],
    "camelCase": ["Order", "order_placed", "order-placed", "order placed", "_a"],
    "PascalCase": ["order", "Order_Placed", "Order-Placed", "Order Placed", "a"],
    "Title Case": ["order Placed", "Order placed", "Order_Placed", "Order  Placed", "a", "A within B", "Order  A"],
}


@pytest.mark.parametrize(("convention", "name"), [(style, name) for style, names in FITS.items() for name in names])
def test_a_name_of_a_style_fits(convention: str, name: str) -> None:
    assert styled(name, convention) == []
    assert styled(f" {name} ", convention) == []
    assert styled(name, "any") == []


@pytest.mark.parametrize(("convention", "name"), [(style, name) for style, names in FAILS.items() for name in names])
def test_a_name_of_another_style_does_not(convention: str, name: str) -> None:
    ((confidence, corrected),) = styled(name, convention)
    assert confidence == "likely"
    assert (corrected is not None) == (convention == "snake_case")
    assert styled(name, "any") == []


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("orderPlaced", "order_placed"),
        ("OrderPlaced", "order_placed"),
        ("Order Placed", "order_placed"),
        ("order-placed", "order_placed"),
        ("HTTPError", "http_error"),
        ("ErrorHTTP", "error_http"),
        ("userID", "user_id"),
        ("Order 66 Placed", "order_66_placed"),
        ("aB", "a_b"),
        ("Shop.Order Placed:New/Item", "shop.order_placed:new/item"),
        ("Größe Gewählt", "größe_gewählt"),
        ("ABTest", "ab_test"),
        ("X", "x"),
    ],
)
def test_the_spelling_is_put_right(name: str, snake: str) -> None:
    assert styled(name, "auto") == [("likely", snake)]


def test_small_words_with_single_spaces_are_possible_unless_a_style_is_set() -> None:
    assert styled("order placed", "auto") == [("possible", "order_placed")]
    assert styled("order placed 1", "auto") == [("possible", "order_placed_1")]
    assert styled("order placed", "snake_case") == [("likely", "order_placed")]
    for name in ("order  placed", "Order placed", "order_placed now", "order placed!"):
        assert styled(name, "auto")[0][0] == "likely"


def test_auto_is_snake_case_on_track_and_nothing_on_pipelines() -> None:
    assert styled("orderPlaced", "auto", pipelines=True) == []
    assert styled("orderPlaced", "snake_case", pipelines=True) == [("likely", "order_placed")]


def test_what_varies_in_a_name_fits_every_style_and_is_not_put_right() -> None:
    for convention in FITS:
        assert styled("ada@example.com", convention) == []
    assert styled("Viewed 8412377", "auto") == [("likely", None)]
    assert styled("viewed_8412377", "auto") == []


def test_the_longest_name_that_is_judged_has_500_characters() -> None:
    url = "track.customer.io/api/v1/customers/42/events"
    assert told(RULE, "POST", url, {"name": "A" * 500}) == [("/name", "likely")]
    assert told(RULE, "POST", url, {"name": "A" * 501}) == []
    assert told(RULE, "POST", url, {"name": ""}) == []
    (finding,) = findings(RULE, "POST", url, {"name": " A "})
    assert finding.name == "A"


URL = "track.customer.io/api/v1/customers/42/events"
DAY = 86_400.0
MIDNIGHT = DAY - NOW % DAY


async def said(*sent: tuple[str, int, float], convention: str = "any", **params: int) -> list[tuple[str, str]]:
    """What is told of events: each name, how often, and when."""
    calls = [(at, "POST", URL, {"name": name}) for name, times, at in sent for _ in range(times)]
    found = await history(RULE, *calls, params={"convention": convention, **params})
    return [(finding.message.partition(": ")[2] or finding.message, finding.confidence) for finding in found]


async def test_both_spellings_are_told_with_how_often_each_was_seen() -> None:
    assert await said(("a_b", 1, 0), ("aB", 1, 1)) == [("`a_b` (once) and `aB` (once)", "certain")]
    assert await said(("a_b", 3, 0), ("aB", 2, 1)) == [
        ("`a_b` (3 times) and `aB` (once)", "certain"),
        ("`a_b` (3 times) and `aB` (2 times)", "certain"),
    ]
    assert await said(("a_b", 99, 0), ("aB", 1, 1)) == [("`a_b` (99 times) and `aB` (once)", "certain")]


@pytest.mark.parametrize(
    ("convention", "corrected"), [("any", "aB"), ("auto", None), ("snake_case", None), ("camelCase", "aB")]
)
async def test_nobody_is_told_to_give_up_the_spelling_that_is_in_the_convention(
    convention: str, corrected: str | None
) -> None:
    calls = [(at, "POST", URL, {"name": name}) for at, name in enumerate(["aB", "a_b"])]
    found = await history(RULE, *calls, params={"convention": convention})
    respelled = [finding for finding in found if "two spellings" in finding.message]
    assert [(finding.name, finding.corrected) for finding in respelled] == [("a_b", corrected)]


async def test_what_was_seen_very_often_is_estimated() -> None:
    ((message, _),) = await said(("a_b", 150, 0), ("aB", 1, 1))
    assert message.startswith("`a_b` (about 1")


async def test_of_three_spellings_the_commonest_is_told_beside_each_other_one() -> None:
    assert await said(("A_B", 2, 0), ("a_b", 1, 1), ("aB", 1, 2)) == [
        ("`A_B` (2 times) and `a_b` (once)", "certain"),
        ("`A_B` (2 times) and `aB` (once)", "certain"),
    ]


async def test_spellings_are_known_of_this_day_and_the_last() -> None:
    assert len(await said(("a_b", 1, MIDNIGHT - 1), ("aB", 1, MIDNIGHT))) == 1
    assert len(await said(("a_b", 1, MIDNIGHT), ("aB", 1, MIDNIGHT + 2 * DAY - 1))) == 1
    assert await said(("a_b", 1, MIDNIGHT - 1), ("aB", 1, MIDNIGHT + DAY)) == []
    both_days = [("a_b", 2, MIDNIGHT - 2), ("aB", 1, MIDNIGHT - 1), ("aB", 1, MIDNIGHT), ("a_b", 1, MIDNIGHT + 1)]
    assert (await said(*both_days))[-1] == ("`a_b` (2 times) and `aB` (2 times)", "certain")
    own_days = [("a_b", 2, MIDNIGHT - 2), ("a_b", 2, MIDNIGHT), ("aB", 3, MIDNIGHT + 1), ("a_b", 1, MIDNIGHT + 2)]
    assert [message.partition(" and ")[0] for message, _ in await said(*own_days)] == ["`a_b` (4 times)"] * 3


async def test_a_spelling_that_is_hidden_in_the_store_is_not_shown() -> None:
    found = await history(
        RULE,
        *((at, "POST", URL, {"name": f"call{mark}01 23 45 67 89"}) for at, mark in enumerate("_-")),
        params={"convention": "any"},
    )
    assert [(finding.message, finding.corrected) for finding in found] == [
        ("one event has two spellings: another spelling (once) and `call-<phone>` (once)", None)
    ]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Order Placed", "orderplaced"),
        ("order_-. placed", "orderplaced"),
        ("level_1_2", "level1_2"),
        ("level-12a", "level12a"),
        ("a 1 b", "a1b"),
        ("_a_", "a"),
        ("a:b/c", "a:b/c"),
        ("GRÖSSE", "grösse"),
        ("a_12", "a12"),
        ("a_123", ""),
        ("a@b.example", ""),
        ("a\0b", ""),
        ("a" * 500, "a" * 500),
        ("a" * 501, ""),
        ("---", ""),
    ],
)
def test_what_all_spellings_of_a_name_have_in_common(name: str, word: str) -> None:
    assert normal(name) == word


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("order_placed", "snake_case"),
        ("ORDER_PLACED", "UPPER_CASE"),
        ("order-placed", "kebab-case"),
        ("orderPlaced", "camelCase"),
        ("OrderPlaced", "PascalCase"),
        ("HTTPError", "PascalCase"),
        ("Order Placed", "Title Case"),
        ("Item Added to Cart", "Title Case"),
        ("Order placed", "Sentence case"),
        ("order placed", "lower case"),
        ("Order_Placed", "mixed"),
        ("Order-Placed", "mixed"),
        ("order Placed", "mixed"),
        ("order_placed:itemAdded", "mixed"),
        ("shop.order_placed", "snake_case"),
        ("shop.order_placed/item_added", "snake_case"),
        ("shop.item", ""),
        ("order", ""),
        ("Order", ""),
        ("Added to", ""),
        ("order2", ""),
    ],
)
def test_the_style_that_a_name_shows(name: str, style: str) -> None:
    assert style_of(name) == style


TITLES = ["Seat Added", "Plan Paused", "Team Left", "File Opened", "Tour Ended", "Game Won", "Bill Paid", "Trial Used"]


@pytest.mark.parametrize(
    ("titles", "others", "message"),
    [
        (8, 2, "the event name is not in Title Case, as 9 of 11 names of the workspace are"),
        (8, 1, "the event name is not in Title Case, as 9 of 10 names of the workspace are"),
        (7, 2, "the event name is not in Title Case, as 8 of 10 names of the workspace are"),
        (7, 1, "the event name is not in snake_case"),  # nine names
        (7, 3, "the event name is not in snake_case"),  # eight of eleven
    ],
)
async def test_a_style_is_that_of_the_workspace_from_ten_names_and_eight_of_ten_on(
    titles: int, others: int, message: str
) -> None:
    names = [*TITLES[:titles], *["seat_moved", "plan_viewed", "team_named"][:others], "Item Sold", "item_seen"]
    found = await said(*((name, 1, float(at)) for at, name in enumerate(names)), convention="auto")
    assert found[-1] == (message, "likely")


async def test_names_that_differ_in_a_small_number_are_one_name_of_a_style() -> None:
    steps = [(f"stepDone{number}", 1, float(number)) for number in range(20)]
    assert {message for message, _ in await said(*steps, convention="auto")} == {"the event name is not in snake_case"}


async def test_no_style_is_learned_where_one_is_configured() -> None:
    titles = [(name, 1, 0.0) for name in TITLES]
    assert await said(*titles, ("item_sold", 1, 1), convention="Title Case", names=2) == [
        ("the event name is not in Title Case", "likely")
    ]
    assert await said(*titles, ("item_sold", 1, 1), names=2) == []


async def test_names_are_remembered_readably() -> None:
    calls = [(0, "POST", URL, {"name": name}) for name in ("order_placed", "orderPlaced", "login", "order_84123")]
    kept = await remembered(RULE, *calls)
    spelled = {subject.partition("\0")[2]: value for subject, value in kept.pop("event-spellings")}
    assert {word: sorted(value.samples) for word, value in spelled.items()} == {
        "orderplaced": ["orderPlaced", "order_placed"],
        "login": ["login"],
    }
    assert {sample.limit for value in spelled.values() for sample in value.samples.values()} == {100}
    ((subject, styles),) = kept.pop("event-styles")
    assert (subject, sorted(styles.samples)) == ("", ["camelCase", "snake_case"])
    assert kept == {}
    assert await remembered(RULE, *calls, params={"convention": "any"}) != {}
    assert "event-styles" not in await remembered(RULE, *calls, params={"convention": "any"})


async def test_a_style_is_remembered_for_a_month_after_the_last_name_and_its_share_is_exact() -> None:
    titles = [("Seat Added", 1, 0.0), ("Plan Paused", 1, 0.0)]
    params = {"names": 2, "majority": 67}
    odd = ("the event name is not in Title Case, as 2 of 2 names of the workspace are", "likely")
    assert odd in await said(*titles, ("item_seen", 1, 30 * DAY - 1), convention="auto", **params)
    assert odd not in await said(*titles, ("item_seen", 1, 30 * DAY + 1), convention="auto", **params)
    last = ("item_seen", 1, 2.0)
    assert (
        len(await said(*titles, ("item_sold", 1, 1), last, convention="auto", **params)) == 3
    )  # one of them after two of two


async def test_a_name_in_no_style_is_told_where_most_are_in_snake_case() -> None:
    names = [("seat_added", 1, 0.0), ("plan_paused", 1, 0.0)]
    assert await said(*names, ("Order_Placed", 1, 1), convention="auto", names=2) == [
        ("the event name is not in snake_case, as 2 of 2 names of the workspace are", "likely")
    ]
    titles = [("Seat Added", 1, 0.0), ("Plan Paused", 1, 0.0)]
    assert len(await said(*titles, ("Order_Placed", 1, 1), convention="auto", names=2)) == 2


COMPOUNDS = (
    "multi-step non-member pre-order self-check sub-item e-mail "
    "call-back log-down check-in sign-off log-on check-out take-over click-through sign-up"
)


@pytest.mark.parametrize("name", COMPOUNDS.split())
def test_a_hyphen_within_a_word_is_no_style(name: str) -> None:
    assert styled(f"{name}_b", "snake_case") == []
    assert styled(f"user_{name}", "snake_case") == []
    assert styled(f"xyz{name}xyz", "snake_case") != []
    assert styled(f"{name}-order", "snake_case") != []
    assert styled("log-down-in", "snake_case") != []


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("long-term_plan", True),
        ("a_back-in-stock_alert", True),
        ("QR_code", True),
        ("PDFs_read", True),
        ("H1_read", True),
        ("code_QR", True),
        ("iOS_read", True),
        ("read_eBook", True),
        ("iOS-17_read", True),
        ("HTML_read", True),
        ("HTTPS_read", False),
        ("QR_A", False),
        ("QR_a", False),
        ("QR_ab", True),
        ("ab_QR_Ab", False),
        ("Ab_cd", False),
        ("AbC_cd", False),
        ("ab-Cd_ef", False),
        ("ab_cd ef", False),
        ("long-term", False),
        ("QR code", False),
        ("user_signedUp", False),
        ("QR_code_6F1C2B7E-93D4-4C5A-8F20-1B7D9E4A6C38", True),
    ],
)
def test_snake_case_of_words_with_hyphens_and_abbreviations(name: str, snake: bool) -> None:
    assert is_snake_of_words(name) == snake


def test_a_number_behind_a_hyphen_is_part_of_a_word() -> None:
    assert fits("covid-19", "snake_case")
    assert fits("covid-19_form", "snake_case")
    assert not fits("covid-19a", "snake_case")
    assert not fits("covid-19-form", "snake_case")
    assert not fits("covid-form", "snake_case")


RECOMMENDED = """
Account Created, Account Deleted, Account Added User, Account Removed User, Signed Up, Signed In, Signed Out,
Trial Started, Trial Ended, Invite Sent, Email Delivered, Email Opened, Email Link Clicked, Email Bounced,
Email Marked as Spam, Unsubscribed, Live Chat Conversation Started, Live Chat Conversation Ended,
Live Chat Message Sent, Live Chat Message Received, Video Playback Started, Video Playback Paused,
Video Playback Resumed, Video Playback Completed, Video Content Started, Video Content Playing, Video Content Completed
"""


@pytest.mark.parametrize("name", [" ".join(name.split()) for name in RECOMMENDED.split(",")])
def test_a_name_of_a_specification_is_in_any_style_on_pipelines_alone(name: str) -> None:
    settings = Settings(rules={"inconsistent-event-name": RuleSettings(params={"convention": "snake_case"})})
    track = {"name": name}
    url = "track.customer.io/api/v1/customers/42/events"
    assert told("inconsistent-event-name", "POST", url, track, settings=settings) == [("/name", "likely")]
    sent = {"userId": "42", "event": name}
    assert told("inconsistent-event-name", "POST", "cdp.customer.io/v1/track", sent, settings=settings) == []
