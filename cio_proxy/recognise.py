"""What a piece of text or a number is: an e-mail address, a card number, a date in milliseconds.

Pure functions for judging, which would rather miss a part than see one that is none; `masking` is
the generous one, for showing. Every pattern runs in linear time on hostile input.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, Literal, NamedTuple

PartKind = Literal[
    "email", "phone", "card", "iban", "ip", "secret", "url", "uuid", "ulid", "hex", "long-hex", "date", "number"
]
Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]

PERSONAL: Final[frozenset[PartKind]] = frozenset({"email", "phone", "card", "iban", "ip", "secret"})
LIMIT: Final = 4_096
"""Characters of a text that are looked at and shown; names are far shorter."""
REACH: Final = 512
"""How far beyond the limit a part may go that begins before it."""


class Part(NamedTuple):
    """A recognised piece of a text."""

    kind: PartKind
    start: int
    end: int


_LABEL = r"[A-Za-z0-9\u00a1-\uffff-]"
_EMAIL = (
    r"(?<![\w.+'-])(?!(?<=%)[0-9A-Fa-f]{2})(?:[\w.+'-]|%(?!40)[0-9A-Fa-f]{2})++(?:@|%40)"
    r"(?!\d+\.\d|[1-4]x\.(?:png|jpe?g|gif|webp|svg|avif))"  # `lib@1.2`, `logo@2x.png`
    rf"(?:{_LABEL}++\.)+(?:xn--[A-Za-z0-9-]{{2,59}}|[A-Za-z\u00a1-\uffff]{{2,24}})"
)
UUID: Final = r"[0-9A-Fa-f]{8}([-_])[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{4}\1[0-9A-Fa-f]{12}(?![0-9A-Fa-f])"
_CARD = (
    r"(?<![A-Za-z0-9])(?<!\d-)(?:\d{4}([ _-]?)\d{4}\1\d{4}\1\d{4}|\d{4}([ _-]?)\d{6}\2\d{4,5})"
    r"(?![A-Za-z0-9])(?!-\d)"
)
_DIGITS = r"(?=(?:[^\s\d]*+\d){3})"
_SECRETS = (
    r"(?<=://)[^\s/?#@:]++:[^\s/?#@]++(?=@)"  # user and password in a URL
    rf"|(?<![A-Za-z0-9])(?:[sp]k_(?:us|eu)_|sa_(?:live|sandbox)_){_DIGITS}[A-Za-z0-9_-]{{6,}}+"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]++){0,2}"  # a JSON web token
    rf"|(?<![A-Za-z0-9])(?:Basic|Bearer)[ ]+{_DIGITS}[A-Za-z0-9+/=._~-]{{12,}}+"
)
_PATTERNS: Final[tuple[tuple[PartKind, re.Pattern[str]], ...]] = (
    ("url", re.compile(r"(?<![A-Za-z0-9])(?i:https?://|www\.)[^\s\"'<>]++")),
    ("secret", re.compile(_SECRETS)),
    ("email", re.compile(_EMAIL)),
    ("uuid", re.compile(rf"{UUID}|(?<![0-9A-Fa-f])[0-9A-Fa-f]{{32}}(?![0-9A-Fa-f])")),
    ("ulid", re.compile(r"(?<![0-9A-Za-z])(?:[0-7][0-9A-HJKMNP-TV-Z]{25}|[0-7][0-9a-hjkmnp-tv-z]{25})(?![0-9A-Za-z])")),
    ("iban", re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}")),
    ("date", re.compile(r"(?<!\d)(?:19|20)\d\d[-_.](?:0[1-9]|1[0-2])[-_.](?:0[1-9]|[12]\d|3[01])(?!\d)")),
    ("phone", re.compile(r"(?:(?<![A-Za-z0-9+])\+|%2[Bb])[1-9](?:[ .()_-]{0,2}\d){7,14}(?!\d)")),
    ("card", re.compile(_CARD)),
    ("ip", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")),
    ("ip", re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){3,7}(?![0-9A-Za-z:])")),
    ("long-hex", re.compile(r"(?<![0-9A-Za-z])(?:0x)?+[0-9A-Fa-f]{24,}+(?![0-9A-Za-z])")),
    ("hex", re.compile(r"(?<![0-9A-Za-z])(?:0x)?+[0-9A-Fa-f]{8,23}(?![0-9A-Za-z])")),
    ("number", re.compile(r"(?<!\d)\d{5,}+")),
)
_URL, _SECRET, _ADDRESS = (pattern for _, pattern in _PATTERNS[:3])
_PERSONAL: Final = tuple((kind, pattern) for kind, pattern in _PATTERNS if kind in PERSONAL)
_WORDS = re.compile(r"[A-Za-z_ .-]*+(?:[0-9][A-Za-z_ .-]*+){0,2}+\Z")
_FEW_DIGITS = re.compile(r"[A-Za-z_ -]*+(?:[0-9][A-Za-z_ -]*+){0,7}+\Z")
_ANY_PERSONAL = re.compile(
    r"[@%+:]|eyJ|[sp]k_|sa_|Ba|Be|\d{4}[ _-]?\d{4}|(?<![A-Za-z0-9])[A-Za-z]{2}\d\d|\d\.\d{1,3}\.\d"
)
_ANY = re.compile(rf"{_ANY_PERSONAL.pattern}|[Ww]\.|\d{{4}}[-_.]?\d|[0-9A-Fa-f]{{8}}|[0-7][0-9A-Za-z]{{25}}")
"""What every part has somewhere: each pattern above can only match where this one does, too."""


def parts(text: str) -> list[Part]:
    """The personal and variable parts of a text, in order and without overlaps; a more telling kind wins."""
    text = text[: LIMIT + REACH]
    if is_plain(text):
        return []
    return found_by(_PATTERNS, text, _span)


def personal(text: str) -> list[Part]:
    """The parts that name a person, or are a secret; also those inside a URL."""
    text = text[: LIMIT + REACH]
    if is_impersonal(text):
        return []
    return found_by(_PERSONAL, text, _span)


def is_plain(text: str) -> bool:
    """A quick first look: nothing in the text can be a personal or a variable part.

    Words with a digit or two hold none, but for web addresses and tokens; other texts are searched.
    """
    if _WORDS.match(text):
        return "w." not in text and "W." not in text and "eyJ" not in text
    return _ANY.search(text) is None


def is_impersonal(text: str) -> bool:
    """A quick first look: nothing in the text can be a personal part. Seven digits are too few for one."""
    if _WORDS.match(text):
        return "eyJ" not in text
    if _FEW_DIGITS.match(text) and not any(sign in text for sign in ("k_us_", "k_eu_", "sa_", "B", "eyJ")):
        return True
    return _ANY_PERSONAL.search(text) is None


def found_by(
    patterns: Iterable[tuple[PartKind, re.Pattern[str]]],
    text: str,
    span_of: Callable[[PartKind, re.Match[str]], tuple[int, int] | None],
) -> list[Part]:
    """What the patterns find, the earlier ones first, in the order of the text and without overlaps.

    `span_of` takes a closer look at each match and says where the part is, or None when it is none.
    """
    found: list[Part] = []
    for kind, pattern in patterns:
        taken: list[Part] = []
        for match in pattern.finditer(text):
            span = span_of(kind, match)
            if span is not None and (not taken or span[0] >= taken[-1].end):
                taken.append(Part(kind, *span))
        if taken:
            found += taken
            text = replaced_by(text, taken, lambda part: "\0" * (part.end - part.start))
    return sorted(found, key=lambda part: part.start)


def _span(kind: PartKind, match: re.Match[str]) -> tuple[int, int] | None:
    text = match[0]
    match kind:
        case "iban":
            return _iban(match.string, match.start())
        case "card":
            sure = is_card(text)
        case "ip":
            sure = is_ip(text)
        case "phone":
            sure = not is_milestone(text)
        case "uuid":
            sure = _mixed(text, 3, 0)
        case "ulid":
            sure = sum(c.isdigit() for c in text) >= 3
        case "long-hex":
            sure = _mixed(text, 3, 1)
        case "hex":
            sure = _mixed(text, 3, 2)
        case _:
            sure = True
    return match.span() if sure else None


def _mixed(text: str, digits: int, letters: int) -> bool:
    count = sum(c.isdigit() for c in text)
    return count >= digits and len(text) - count >= letters


def is_email(text: str) -> bool:
    """Whether the whole text is one e-mail address."""
    match = _ADDRESS.match(text, 0, LIMIT + REACH)
    return match is not None and match.end() == len(text) and not (_URL.search(text) or _SECRET.search(text))


def is_card(text: str) -> bool:
    """A payment card number: a large issuer's prefix and length, and the Luhn check digit.

    Left out are the Visa lengths 13 and 19, which hardly exist and which product codes and row ids have.
    """
    digits = re.sub(r"[ _-]", "", text)
    if not (digits.isascii() and digits.isdigit() and 14 <= len(digits) <= 16):
        return False
    two, four = int(digits[:2]), int(digits[:4])
    match len(digits):
        case 16:
            issued = two // 10 == 4 or 51 <= two <= 55 or two in (62, 65) or four == 6011
            issued = issued or 2200 <= four <= 2204 or 2221 <= four <= 2720 or 3528 <= four <= 3589
        case 15:
            issued = two in (34, 37)
        case _:
            issued = two in (36, 38) or 3000 <= four <= 3059
    total = sum(int(d) if n % 2 == 0 else sum(divmod(int(d) * 2, 10)) for n, d in enumerate(reversed(digits)))
    return issued and total % 10 == 0


IBAN_LENGTHS: Final = {
    word[:2]: int(word[2:])
    for word in re.findall(
        r"\S+",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29"
        " ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20"
        " LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29"
        " PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24"
        " XK20",
    )
}
"""Characters of an account number, by country (ISO 13616)."""


def is_iban(text: str) -> bool:
    """An international bank account number (ISO 13616): a country, its length, and the check digits."""
    compact = re.sub(r"[ _-]", "", text).upper()
    if len(compact) != IBAN_LENGTHS.get(compact[:2]) or not (compact.isascii() and compact.isalnum()):
        return False
    if sum(c.isdigit() for c in compact) < 10:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _iban(text: str, start: int) -> tuple[int, int] | None:
    """The account number that may begin here. A country fixes its length; groups may be set apart."""
    length = IBAN_LENGTHS.get(text[start : start + 2].upper())
    if length is None:
        return None
    end, count = start, 0
    while count < length and end < len(text):
        if text[end] in " _-" and text[end - 1] not in " _-":
            end += 1
        elif text[end].isalnum():
            end, count = end + 1, count + 1
        else:
            return None
    if text[end : end + 1].isalnum() or not is_iban(text[start:end]):
        return None
    return start, end


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address. A version number of four parts has the same shape."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(c.isdigit() for c in text)


def is_public_ip(text: str) -> bool:
    """An address on the Internet that is none of a documentation example; 1.2.3.4 is likelier a version number."""
    address = ipaddress.ip_address(text)
    return address.is_global and not address.is_multicast and int(address) >> 24 >= 5


def is_like_a_version(text: str) -> bool:
    """Whether four numbers are those of a version rather than an address: one is 0, or hardly one is large."""
    numbers = [int(number) for number in text.split(".") if number.isdigit()]
    large = sum(number >= 20 for number in numbers)
    return len(numbers) == 4 and (0 in numbers or max(numbers) < 100 or large < 3)


def is_milestone(digits: str) -> bool:
    """A round figure such as 10000 or 12500, which people do write into names."""
    return digits.endswith("000") or len(digits.rstrip("0")) <= 3


def is_day(digits: str) -> bool:
    """A day or a month without separators, 20261127 or 202611, of the years 1900 to 2099."""
    return _DAY.match(digits) is not None


_DAY = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])?\Z")


def changes(text: str) -> int:
    """How often letters and digits take turns in a text: often in an id, once or twice in a word with a number."""
    return sum(one.isdigit() != other.isdigit() for one, other in pairwise(text))


def template(text: str) -> str:
    """The text with every personal and variable part replaced by its kind."""
    return replaced(text, parts(text))


_SEGMENT = re.compile(r"(?=.{1,40}\Z)(?=[A-Za-z_.~-])[A-Za-z_.~-]*[0-9]{0,2}[A-Za-z_.~-]*\Z")
SEGMENTS: Final = 8
"""How many parts of a path are told apart."""


def path_template(path: str) -> str:
    """A path whose words stay, and of which all else, such as an id, an address or a token, is `{}`; at most so long.

    A word has no more than two digits in it. What it makes of its own result is the same again.
    """
    segments = path[:LIMIT].split("/")
    kept = ["{}" if segment and not _is_word(segment) else segment for segment in segments[: SEGMENTS + 1]]
    return "/".join(kept if len(segments) <= SEGMENTS + 1 else [*kept[:SEGMENTS], "…"])


def _is_word(segment: str) -> bool:
    return segment == "…" or (_SEGMENT.match(segment) is not None and not parts(segment))


def without_parts(text: str) -> str:
    """What stays of a name when its personal and variable parts, and the separators beside them, are taken out."""
    pieces = replaced_by(text, parts(text), lambda part: "\0").split("\0")
    kept = [piece.strip(" _-.:/#=") for piece in pieces]
    separator = next((c for piece in pieces for c in (piece[-1:], piece[:1]) if c and c in "_-.:/ "), "_")
    return separator.join(piece for piece in kept if piece)


def replaced(text: str, found: list[Part], limit: int = LIMIT) -> str:
    """The text with each of these parts replaced by its kind; cut at the limit, or where a part ends beyond it."""
    shown = [part for part in found if part.start < limit]
    if len(text) <= limit:
        return replaced_by(text, shown, lambda part: f"<{part.kind}>")
    return replaced_by(text[:limit], shown, lambda part: f"<{part.kind}>") + "…"


def replaced_by(text: str, found: list[Part], word: Callable[[Part], str]) -> str:
    """The text with each of these parts replaced by a word."""
    pieces, at = [], 0
    for part in found:
        pieces += [text[at : part.start], word(part)]
        at = part.end
    return "".join([*pieces, text[at:]])


NUMBER: Final = int | float


def number_of(value: object) -> float | int | None:
    """The number that a JSON value holds, also as a text of digits; None for anything else."""
    if type(value) is str:
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 25 else None
    return value if isinstance(value, NUMBER) and not isinstance(value, bool) else None


def unit(number: float) -> Unit | None:
    """The unit a Unix time is in, told by its digits (reference 6.4, right until 2286); None below 1e9."""
    if 1e9 <= number < 1e11:
        return "seconds"
    if 1e11 <= number < 1e14:
        return "milliseconds"
    if 1e14 <= number < 1e17:
        return "microseconds"
    return "nanoseconds" if 1e17 <= number < 1e20 else None


PER_SECOND: Final[dict[Unit, int]] = {
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


def moment(value: object) -> float | None:
    """The Unix time in seconds that a JSON value tells: a number in any unit, or a text in ISO 8601; else None."""
    if value is None:
        return None
    number = number_of(value)
    if number is not None:
        found = unit(number)
        return None if found is None else number / PER_SECOND[found]
    if not isinstance(value, str) or len(value) > 40 or not value[:4].isdigit():  # each date begins with its year
        return None
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def created(attributes: Mapping[str, object]) -> float | None:
    """When a person was created, as their attributes say: `created_at`, or `createdAt` on Pipelines."""
    return moment(attributes.get("created_at", attributes.get("createdAt")))


_AGES = 1 << 44
"""More milliseconds than any clock has shown since 1970, until the year 2527."""
_LONGEST = (1 << 24) - 1
"""Milliseconds that a label has room for: four and a half hours."""
_LAST = (1 << 12) - 1
"""Places in a batch that a label tells apart: no API takes so many."""
_TO_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_FROM_LETTERS = str.maketrans("abcdefghijklmnop", "0123456789abcdef")


def moment_label(at: float, until: float) -> str:
    """A time and when it was over, as 18 letters of which the latest time sorts first, and which nothing masks."""
    return _label(at, f"{min(max(0, round((until - at) * 1000)), _LONGEST):06x}")


def labelled_moment(label: str) -> tuple[float, float]:
    """The times that a label begins with, to the millisecond."""
    at = moment_of(label)
    return at, at + int(label[12:18].translate(_FROM_LETTERS), 16) / 1000


def place_label(at: float, item: int | None) -> str:
    """A time and a place in a batch, as 15 letters of which the latest sorts first, and which nothing masks."""
    return _label(at, f"{_LAST - min(item or 0, _LAST):03x}")


def moment_of(label: str) -> float:
    """The time that a label of either kind begins with, to the millisecond."""
    return (_AGES - int(label[:12].translate(_FROM_LETTERS), 16)) / 1000


def _label(at: float, rest: str) -> str:
    return f"{_AGES - round(at * 1000):012x}{rest}".translate(_TO_LETTERS)
