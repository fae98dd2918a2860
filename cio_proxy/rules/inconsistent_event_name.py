"""An event name is spelled in two ways, or does not follow the convention: snake_case on Track, unless told otherwise.

Campaigns match event names exactly. `UserSignedUp`, `user-signed-up` and `user_signed_up` are three
events to Customer.io, and a campaign on one of them never hears of the others.

Two names are spellings of one if they differ only in capitals and in `_`, `-`, `.` and spaces, and both were seen
within about a day: a renamed event is not two. What is told is the rarer one, or the newer one when both are new.

The convention is `convention`, else what most names of a workspace are in, once so many were seen that it is no chance
(eight of ten, and only names of several words show a style). Until then
the Track API is judged by snake_case, and Pipelines, where Title Case names such as `Order Completed` are the
specification, not at all. Names of pages and screens are titles and are never judged. Lower-case words with single
spaces (`order placed`) are a convention of their own, spelled in one way only: they are possible at most, unless
snake_case is configured or is what most names are in. So is, for snake_case, what may be one word among others that
are in it: one with a hyphen (`long-term_plan`), and an abbreviation or a brand (`QR_code_scanned`, `iOS_app_opened`).

Fix: pick one convention, snake_case by default, and rename the odd ones in code and campaigns at once.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from cio_proxy.model import (
    Call,
    Confidence,
    Fact,
    Finding,
    Groups,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    recalled,
)
from cio_proxy.recognise import parts, template

DAY = 86_400.0
MONTH = 30 * DAY

_PART = re.compile(r"<[a-z-]+>")
_SEPARATOR = re.compile(r"([.:/])")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+|[A-Z]")
_SPACED = re.compile(r"(?:[^\W_A-Z]++ )*+[^\W_A-Z]++\Z")
_STYLES = {
    "kebab-case": re.compile(r"[^\WA-Z_]+(?:-[^\WA-Z_]+)*\Z"),
    "camelCase": re.compile(r"[^\W_A-Z][^\W_]*\Z"),
    "PascalCase": re.compile(r"[A-Z0-9][^\W_]*\Z"),
    "Title Case": re.compile(
        r"[A-Z0-9][^\s_]*(?: (?:[A-Z0-9&][^\s_]*|an?|and|as|at|by|for|from|in|of|on|or|the|to|with))*\Z"
    ),
    "Sentence case": re.compile(r"[A-Z0-9][^\s_]*(?: [^\W_A-Z][^\s_A-Z]*)*\Z"),
    "lower case": _SPACED,
    "UPPER_CASE": re.compile(r"[^\W_a-z]+(?:_[^\W_a-z]+)*\Z"),
}
_WRITTEN: Mapping[str, tuple[str, ...]] = {
    " ": ("Title Case", "Sentence case", "lower case"),
    "_": ("snake_case", "UPPER_CASE"),
    "-": ("kebab-case",),
    "": ("camelCase", "PascalCase"),
}
"""The styles that set words apart in this way; the last is in every name."""
MIXED = "mixed"
"""What counts as the style of a name that is in none."""

RULE = RuleInfo(
    id="inconsistent-event-name",
    severity="warning",
    category="3",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        "convention": Param(
            "auto",
            "the style of event names; auto is that of most names, else snake_case on Track and none on Pipelines",
            "text",
            ("auto", "any", "snake_case", *_STYLES),
        ),
        "names": Param(10, "how many names of several words must have been seen to tell the style of a workspace"),
        "majority": Param(80, "in how many of 100 names a style must be to be that of the workspace"),
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

SPECIFIED = frozenset(
    {
        *("Account Created", "Account Deleted", "Account Added User", "Account Removed User", "Signed Up", "Signed In"),
        *("Signed Out", "Trial Started", "Trial Ended", "Invite Sent"),
        *("Email Delivered", "Email Opened", "Email Link Clicked", "Email Bounced", "Email Marked as Spam"),
        *("Unsubscribed", "Live Chat Conversation Started", "Live Chat Conversation Ended", "Live Chat Message Sent"),
        *("Live Chat Message Received", "Video Playback Started", "Video Playback Paused", "Video Playback Resumed"),
        *("Video Playback Completed", "Video Content Started", "Video Content Playing", "Video Content Completed"),
    }
)
"""Names that it recommends: on Pipelines they are in any style. Two spellings of one are two all the same."""

_NOT_SNAKE = re.compile(r"[^\W_][ -]+[^\W_]")
_COMPOUND = re.compile(
    r"(?<![^\W_])(?:[^\W_]{1,2}|multi|non|pre|self|sub)-(?=[^\W_])"
    r"|-(?:\d+|back|down|in|off|on|out|over|through|up)(?![^\W_]|-)"
)
"""Hyphens within a word: `e-mail`, `pre-order`, `opt-in`, `checked-out`, `covid-19`."""
_HYPHENATED = re.compile(r"(?<![^\W_])[^\W_A-Z]++(?:-[^\W_A-Z]++)+(?![^\W_])")
_ABBREVIATED = re.compile(r"(?<![^\W_])(?:[A-Z\d]{1,4}s?|[a-z][A-Z][A-Za-z]+)(?![^\W_])")
_SMALL = re.compile(r"(?<![^\W_])[^\W\dA-Z_]{2,}(?![^\W_])")
_BETWEEN = re.compile(r"(?<!\d)[_. -]+|[_. -]+(?!\d)")
"""What may set words apart; between digits it is part of a number or a version."""
_ID = re.compile(r"\d{3}")

LONGEST = 500
"""Characters of a name that is judged: a longer one is refused for that."""
COUNTED = 100
"""Up to how many occurrences of a spelling, and names of a style, are counted exactly."""
SPELLINGS = 8
_HIDDEN = re.compile(r"#[0-9a-f]{16}\Z")


class Style(NamedTuple):
    """The style that most names of a workspace are in: so many of all names."""

    name: str
    names: float
    total: float


def needs(call: Call, people: People) -> Iterable[Key]:
    """How the name was spelled the day before."""
    name = _judged(call)
    if not name:
        return ()
    word = normal(name)
    return (spellings(call.workspace, word, call.at // DAY - 1),) if word else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """How an accepted name is spelled, and what style it is in."""
    name = _judged(call)
    if not name or outcome.kind != "accepted" or not (word := normal(name)):
        return ()
    sent = Sample(COUNTED, plain=frozenset((f"{call.exchange.id}/{call.item}",)))
    spelled = Fact(spellings(call.workspace, word, call.at // DAY), Groups(SPELLINGS, {name: sent}), 2 * DAY)
    if params["convention"] != "auto" or not style_of(name):
        return (spelled,)
    return (spelled, Fact(styles(call.workspace), styled(name), MONTH))


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for a name of two spellings, or of another style. What varies in a name is other rules' business."""
    name = _judged(call)
    if not name:
        return ()
    convention: str = known.params["convention"]
    usual = _style(call, known) if convention == "auto" else None
    if convention == "auto":
        convention = usual.name if usual else "any" if call.api == "pipelines" else "snake_case"
    if (word := normal(name)) and (other := _usual(call, name, word, known)):
        is_better = convention == "any" or fits(other.name, convention) or not fits(name, convention)
        return _respelled(call, name, other, is_better)
    if convention == "any" or fits(name, convention) or (call.api == "pipelines" and name in SPECIFIED):
        return ()
    if usual and usual.name != "snake_case" and style_of(name) in ("", MIXED):
        return ()  # a brand, or a single word
    return _odd(call, name, convention, usual, known.params["convention"])


def _judged(call: Call) -> str:
    """The name as Customer.io takes it: without the spaces around it (reference 2.2)."""
    name = (call.name or "").strip()
    return "" if call.api == "pipelines" and name in SEMANTIC else name


def fits(name: str, convention: str) -> bool:
    """Whether a name is of a style, as far as it is judged."""
    return len(name) > LONGEST or convention in _fitting(name)


@recalled(10_000)
def _fitting(name: str) -> tuple[str, ...]:
    """The styles that a name is in."""
    shape = template(name)
    return tuple(style for style in ("snake_case", *_STYLES) if _fits(shape, style))


@recalled(10_000)
def is_snake_of_words(name: str) -> bool:
    """Whether a name is in snake_case but for words with a hyphen, abbreviations and brands, beside others in it."""
    name = template(name)
    if "_" not in name or not _SMALL.search(name):
        return False
    return _fits(_ABBREVIATED.sub("x", _HYPHENATED.sub("x", name)), "snake_case")


@recalled(10_000)
def normal(name: str) -> str:
    """What all spellings of a name have in common; nothing for a name that may be another one in each call."""
    if len(name) > LONGEST or not name.isprintable() or _ID.search(name) or parts(name):
        return ""
    return _BETWEEN.sub("", name.lower())


@recalled(10_000)
def style_of(name: str) -> str:
    """The style that a name of several words shows, or `mixed`; nothing for a name that fits more than one."""
    words = [segment.strip() for segment in _SEPARATOR.split(name)[::2]]
    shown = {_shown(segment) for segment in words if len(_WORDS.findall(segment)) > 1}
    return MIXED if len(shown) > 1 else next(iter(shown), "")


@recalled(10_000)
def styled(name: str) -> Groups:
    """That a name, whatever small number is in it, is in the style that it shows."""
    return Groups(len(_STYLES) + 2, {style_of(name): Sample(COUNTED, plain=frozenset((re.sub(r"\d+", "0", name),)))})


def _shown(segment: str) -> str:
    mark = next(mark for mark in _WRITTEN if mark in segment)
    fitting = [style for style in _WRITTEN[mark] if _fits(segment, style)]
    return MIXED if not fitting else fitting[0] if len(fitting) == 1 else ""


@lru_cache(10_000)
def spellings(workspace: str, word: str, day: float) -> Key:
    """The key of the spellings of one name on one day."""
    return Key("event-spellings", workspace, f"{day:.0f}\0{word}", named=True)


@lru_cache(1_000)
def styles(workspace: str) -> Key:
    """The key of the styles of all names: known of the workspace as a whole."""
    return Key("event-styles", workspace, "", named=True)


class Spelling(NamedTuple):
    """The other spelling of a name and how often it was seen, and how often the one at hand was."""

    name: str
    times: float
    own: float


def _usual(call: Call, name: str, word: str, known: Known) -> Spelling | None:
    """The commonest other spelling, if it is commoner than this one, or this one is new."""
    own, day = known.label(name), call.at // DAY
    today = known.groups(spellings(call.workspace, word, day))
    before = known.groups(spellings(call.workspace, word, day - 1))
    if _is_alone(own, today) and _is_alone(own, before):
        return None
    counts = reduce(Groups.join, filter(None, (today, before))).counts()
    mine = counts.pop(own, 0)
    other = max(counts, key=lambda each: (counts[each], each))
    return Spelling(other, counts[other], mine) if mine < counts[other] else None


def _is_alone(own: str, seen: Groups | None) -> bool:
    return seen is None or (len(seen.samples) == 1 and own in seen.samples)


def _style(call: Call, known: Known) -> Style | None:
    """The style that most names of the workspace are in, if enough were seen."""
    seen = known.groups(styles(call.workspace))
    if seen is None:
        return None
    total, most, usual = 0.0, 0.0, MIXED
    for style, names in seen.samples.items():
        count = names.count()
        total += count
        if count > most:
            most, usual = count, style
    enough = total >= known.params["names"] and most * 100 >= total * known.params["majority"]
    return Style(usual, most, total) if enough and usual != MIXED else None


def _respelled(call: Call, name: str, other: Spelling, is_better: bool) -> Iterator[Finding]:
    hidden = _HIDDEN.match(other.name) is not None
    shown = "another spelling" if hidden else f"`{other.name}`"
    yield RULE.finding(
        call.name_at,
        f"one event has two spellings: {shown} ({_times(other.times)}) and `{name}` ({_times(other.own + 1)})",
        effect="Campaigns match names exactly: these are two events, and a campaign on one never hears of the other.",
        fix="Use one spelling in all code and campaigns.",
        corrected=other.name if is_better and not hidden else None,
        name=name,
        confidence="certain",
    )


def _times(count: float) -> str:
    return f"about {count:,.0f} times" if count >= COUNTED else f"{count:.0f} times" if count > 1 else "once"


def _odd(call: Call, name: str, convention: str, usual: Style | None, configured: str) -> Iterator[Finding]:
    shape = template(name)
    possible = (configured == "auto" and usual is None and _SPACED.match(name)) or (
        convention == "snake_case" and is_snake_of_words(name)
    )
    confidence: Confidence = "possible" if possible else "likely"
    yield RULE.finding(
        call.name_at,
        f"the event name is not in {convention}"
        + (f", as {usual.names:.0f} of {usual.total:.0f} names of the workspace are" if usual else ""),
        effect="Campaigns match names exactly: where styles mix, one event soon has two spellings, and is two events.",
        fix=f"Rename it to {convention}, or set `convention` to the style you use.",
        corrected=_snake(name) if convention == "snake_case" and shape == name else None,
        name=name,
        confidence=confidence,
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
