"""The names that Pipelines fixes, each style with what fits it, and the spelling that is put right."""

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, RuleSettings, Settings
from cio_proxy.rules import RULES

from .alone import findings, told

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
