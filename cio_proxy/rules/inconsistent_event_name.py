"""An event name does not follow the convention: snake_case on the Track API, unless `convention` names another.

Campaigns match event names exactly. `UserSignedUp`, `user-signed-up` and `user_signed_up` are three
events to Customer.io, and a campaign on one of them never hears of the others.

The Track API is judged by snake_case unless `convention` names another style; Pipelines, where Title
Case names such as `Order Completed` are the specification, only when it does. Names of pages and
screens are titles and are never judged. Lower-case words with single spaces (`order placed`) are a
convention of their own, spelled in one way only: unless snake_case is configured they are possible at most.

Fix: pick one convention, snake_case by default, and rename the odd ones in code and campaigns at once.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from cio_proxy.model import Call, Confidence, Finding, Known, Param, RuleInfo
from cio_proxy.recognise import template

RULE = RuleInfo(
    id="inconsistent-event-name",
    severity="warning",
    category="3",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    surest="likely",
    params={
        "convention": Param(
            "auto",
            "the style of event names; auto is snake_case on the Track API and none on Pipelines",
            "text",
            ("auto", "any", "snake_case", "kebab-case", "camelCase", "PascalCase", "Title Case"),
        )
    },
)

SEMANTIC = frozenset(
    {
        *("Products Searched", "Product List Viewed", "Product List Filtered", "Promotion Viewed", "Promotion Clicked"),
        *("Product Clicked", "Product Viewed", "Product Added", "Product Removed", "Cart Viewed", "Checkout Started"),
        *(
            "Checkout Step Viewed",
            "Checkout Step Completed",
            "Payment Info Entered",
            "Order Updated",
            "Order Completed",
        ),
        *("Order Refunded", "Order Cancelled", "Coupon Entered", "Coupon Applied", "Coupon Denied", "Coupon Removed"),
        *("Product Added to Wishlist", "Product Removed from Wishlist", "Wishlist Product Added to Cart"),
        *("Product Shared", "Cart Shared", "Product Reviewed", "Application Installed", "Application Opened"),
        *("Application Updated", "Application Backgrounded", "Application Foregrounded", "Application Uninstalled"),
        *("Application Crashed", "Push Notification Received", "Push Notification Tapped", "Push Notification Bounced"),
        *("Install Attributed", "Deep Link Clicked", "Deep Link Opened"),
    }
)
"""Names that the specification behind Pipelines fixes, and that its mobile SDKs send by themselves."""

_PART = re.compile(r"<[a-z-]+>")
_SEPARATOR = re.compile(r"([.:/])")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+|[A-Z]")
_STYLES = {
    "kebab-case": re.compile(r"[^\WA-Z_]+(?:-[^\WA-Z_]+)*\Z"),
    "camelCase": re.compile(r"[^\W_A-Z][^\W_]*\Z"),
    "PascalCase": re.compile(r"[A-Z0-9][^\W_]*\Z"),
    "Title Case": re.compile(
        r"[A-Z0-9][^\s_]*(?: (?:[A-Z0-9&][^\s_]*|an?|and|as|at|by|for|from|in|of|on|or|the|to|with))*\Z"
    ),
}
_SPACED = re.compile(r"(?:[^\W_A-Z]++ )*+[^\W_A-Z]++\Z")
_NOT_SNAKE = re.compile(r"[^\W_][ -]+[^\W_]")
_COMPOUND = re.compile(
    r"(?<![^\W_])(?:[^\W_]{1,2}|multi|non|pre|self|sub)-(?=[^\W_])"
    r"|-(?:back|down|in|off|on|out|over|through|up)(?![^\W_]|-)"
)
"""Hyphens within a word: `e-mail`, `pre-order`, `opt-in`, `checked-out`."""


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for a name of another style. Variable and personal parts are other rules' business."""
    convention = known.params["convention"]
    spaced: Confidence = "likely" if convention != "auto" else "possible"
    if convention == "auto":
        convention = "any" if call.api == "pipelines" else "snake_case"
    if convention == "any" or not call.name or fits(call.name, convention):
        return ()
    return _odd(call, call.name.strip(), convention, spaced)


@lru_cache(10_000)
def fits(name: str, convention: str) -> bool:
    """Whether a name is of a style, as far as it is judged."""
    name = name.strip()
    return len(name) > 500 or _fits(template(name), convention)


def _odd(call: Call, name: str, convention: str, spaced: Confidence) -> Iterator[Finding]:
    if call.api == "pipelines" and name in SEMANTIC:
        return
    shape = template(name)
    yield RULE.finding(
        call.name_at,
        f"the event name is not in {convention}",
        effect="Campaigns match names exactly: where styles mix, one event soon has two spellings, and is two events.",
        fix=f"Rename it to {convention}, or set `convention` to the style you use.",
        corrected=_snake(name) if convention == "snake_case" and shape == name else None,
        name=name,
        confidence=spaced if _SPACED.match(name) else "likely",
    )


def _fits(shape: str, convention: str) -> bool:
    """Whether every segment of a name is of the style; what varies in it stands for a word that fits."""
    segments = [segment.strip() for segment in _SEPARATOR.split(_PART.sub("1", shape))[::2]]
    if convention == "snake_case":
        whole = [_COMPOUND.sub("", segment) for segment in segments]
        return not any(_NOT_SNAKE.search(s) or any(map(str.isupper, s)) for s in whole)
    return all(_STYLES[convention].match(segment) for segment in segments if segment)


def _snake(name: str) -> str:
    return "".join(
        segment if _SEPARATOR.fullmatch(segment) else "_".join(_WORDS.findall(segment)).lower()
        for segment in _SEPARATOR.split(name)
    )
