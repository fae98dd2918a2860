"""What a piece of text or a number is: an e-mail address, a card number, a date in milliseconds.

Pure functions. Every pattern runs in linear time on hostile input.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

PartKind = Literal[
    "email", "phone", "card", "iban", "ip", "secret", "url", "uuid", "ulid", "hex", "long-hex", "date", "number"
]
Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]

PERSONAL: Final[frozenset[PartKind]] = frozenset({"email", "phone", "card", "iban", "ip", "secret"})
LIMIT: Final = 4_096
"""Characters of a text that are looked at; names are far shorter."""


class Part(NamedTuple):
    """A recognised piece of a text."""

    kind: PartKind
    start: int
    end: int


_PATTERNS: Final[tuple[tuple[PartKind, re.Pattern[str]], ...]] = (
    ("url", re.compile(r"(?<![A-Za-z0-9])(?:https?://|www\.)[^\s\"'<>]++", re.IGNORECASE)),
    ("secret", re.compile(r"(?<![A-Za-z0-9])(?:[sp]k_(?:us|eu)_|sa_(?:live|sandbox)_)[A-Za-z0-9_-]{6,}+")),
    (
        "email",
        re.compile(
            r"(?<![A-Za-z0-9.%+-])[A-Za-z0-9][A-Za-z0-9_.+'-]{0,63}(?:@|%40)(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}"
            r"(?![A-Za-z0-9])",
        ),
    ),
    (
        "uuid",
        re.compile(
            r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}([-_]?)[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{12}"
            r"(?![0-9A-Fa-f])"
        ),
    ),
    ("ulid", re.compile(r"(?<![0-9A-Za-z])[0-7][0-9A-HJKMNP-TV-Z]{25}(?![0-9A-Za-z])")),
    ("iban", re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")),
    ("date", re.compile(r"(?<!\d)(?:19|20)\d\d[-_.](?:0[1-9]|1[0-2])[-_.](?:0[1-9]|[12]\d|3[01])(?!\d)")),
    ("phone", re.compile(r"(?<![\w+])\+[1-9](?:[ .()-]{0,2}\d){7,14}(?!\d)")),
    ("card", re.compile(r"(?<!\d)(?<!\d[ -])\d(?:[ -]?\d){12,18}(?!\d)")),
    ("ip", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")),
    ("long-hex", re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{24,128}(?![0-9A-Za-z])")),
    ("hex", re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8,23}(?![0-9A-Za-z])")),
    ("number", re.compile(r"(?<!\d)\d{5,}+")),
)


def parts(text: str) -> list[Part]:
    """The personal and variable parts of a text, in order and without overlaps; a more telling kind wins."""
    return _found(text, None)


def _found(text: str, kinds: frozenset[PartKind] | None) -> list[Part]:
    text = text[:LIMIT]
    taken: list[Part] = []
    for kind, pattern in _PATTERNS:
        if kinds is not None and kind not in kinds:
            continue
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(start < part.end and part.start < end for part in taken):
                continue
            if _confirmed(kind, match[0]):
                taken.append(Part(kind, start, end))
    return sorted(taken, key=lambda part: part.start)


def _confirmed(kind: PartKind, text: str) -> bool:
    match kind:
        case "card":
            return is_card(text)
        case "iban":
            return is_iban(text)
        case "ip":
            return is_ip(text)
        case "uuid":
            return any(c.isdigit() for c in text)
        case "ulid":
            return any(c.isdigit() for c in text[1:])
        case "long-hex":
            return _mixed(text, 1, 1)
        case "hex":
            return _mixed(text, 3, 2)
        case _:
            return True


def _mixed(text: str, digits: int, letters: int) -> bool:
    count = sum(c.isdigit() for c in text)
    return count >= digits and len(text) - count >= letters


def personal(text: str) -> list[Part]:
    """The parts that name a person, or are a secret; also those inside a URL."""
    return _found(text, PERSONAL)


def is_email(text: str) -> bool:
    """Whether the whole text is one e-mail address."""
    found = parts(text)
    return len(found) == 1 and found[0] == Part("email", 0, len(text))


def is_card(text: str) -> bool:
    """A payment card number: a known issuer's prefix and length, and the Luhn check digit."""
    digits = re.sub(r"[ -]", "", text)
    lengths = {"4": (13, 16, 19), "5": (16,), "2": (16,), "3": (14, 15, 16), "6": (16, 19)}
    if len(digits) not in lengths.get(digits[0], ()):
        return False
    two, four = int(digits[:2]), int(digits[:4])
    known = (
        digits[0] == "4"
        or 51 <= two <= 55
        or 2221 <= four <= 2720
        or two in (34, 37, 36, 38, 65)
        or 3528 <= four <= 3589
        or four == 6011
    )
    total = sum(int(d) if n % 2 == 0 else sum(divmod(int(d) * 2, 10)) for n, d in enumerate(reversed(digits)))
    return known and total % 10 == 0 and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """An international bank account number with valid check digits (ISO 13616)."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def is_ip(text: str) -> bool:
    """An IPv4 address of a host; version numbers such as 1.2.3.4 cannot be told apart and count only above 1.x."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return int(address) >> 24 >= 5 and not address.is_multicast


def is_milestone(digits: str) -> bool:
    """A round figure such as 10000, which people do write into names."""
    return digits.endswith("000") or len(digits.rstrip("0")) <= 2


def masked(text: str) -> str:
    """The text with every personal part and every secret replaced by its kind."""
    return _replaced(text, personal(text))


def template(text: str) -> str:
    """The text with every personal and variable part replaced by its kind."""
    return _replaced(text, parts(text))


def _replaced(text: str, found: list[Part]) -> str:
    pieces, at = [], 0
    for part in found:
        pieces += [text[at : part.start], f"<{part.kind}>"]
        at = part.end
    rest = text[at:] if len(text) <= LIMIT else text[at:LIMIT] + "…"
    return "".join([*pieces, rest])


def masked_json(value: Any) -> Any:
    """A JSON value with every text in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [masked_json(member) for member in value]
    if isinstance(value, dict):
        return {masked(key): masked_json(member) for key, member in value.items()}
    return value


def number_of(value: object) -> float | int | None:
    """The number that a JSON value holds, also as a text of digits; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 25:
        return int(value)
    return None


def unit(number: float) -> Unit | None:
    """The unit a Unix time is in, told by its digits (reference 6.4, right until 2286); None below 1e9."""
    if 1e9 <= number < 1e11:
        return "seconds"
    if 1e11 <= number < 1e14:
        return "milliseconds"
    if 1e14 <= number < 1e17:
        return "microseconds"
    return "nanoseconds" if 1e17 <= number < 1e20 else None


PER_SECOND: Final[dict[str, int]] = {
    "seconds": 1,
    "milliseconds": 1_000,
    "microseconds": 1_000_000,
    "nanoseconds": 1_000_000_000,
}


def year_of(seconds: float) -> int:
    """The Gregorian year of a Unix time in seconds, far beyond what datetime can hold."""
    cycle = 146_097 * 86_400
    cycles, rest = divmod(int(seconds), cycle)
    return datetime.fromtimestamp(rest, UTC).year + 400 * cycles


def texts(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with its pointer."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from texts(member, at + "/" + key.replace("~", "~0").replace("/", "~1"))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from texts(member, f"{at}/{index}")
