"""What a text may show: everything but personal values and secrets.

A rule that judges would rather miss a value than accuse a name that holds none. What is shown is the
other way round: a text loses whatever looks like a value, however it is spelled, and a name that
loses a harmless number does no harm. So this looks at a text with its percent encoding undone and
its characters reduced to plain ones, and takes a generous view of where a value begins and ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from cio_proxy.recognise import IBAN_LENGTHS, LIMIT, REACH, UUID, PartKind, found_by, is_card, is_iban, is_ip, replaced

SHORTEST: Final = 8
"""Characters that a secret has at least; shorter ones are words too often to be taken out of a text."""

_LOCAL = r"[^\s\x00-\x20\x7f\"<>(),:;\\/?&@\[\]]"
_LABEL = r"[A-Za-z0-9_\u00a1-\U0010ffff-]"
_DOMAIN = (
    r"(?:\[[^\s\[\]]{2,60}\]"
    r"|(?!\d+\.\d|[1-4]x\.(?:png|jpe?g|gif|webp|svg|avif))"  # `lib@1.2`, `logo@2x.png`
    rf"(?:{_LABEL}++\.)+(?:xn--[A-Za-z0-9-]{{2,59}}|[A-Za-z\u00a1-\U0010ffff]{{2,24}}))"
)
_EMAIL = (
    rf"(?:(?<=[?&])[^\s=?&\x00]*+=|(?<!{_LOCAL}))"  # the name of a query parameter stays
    rf"(?P<address>(?:{_LOCAL}++|\"[^\"\x00]{{1,100}}\")@{_DOMAIN})"
)
_PEM = r"[A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
_SECRETS: Final[tuple[tuple[str, str], ...]] = (
    ("-----BEGIN ", rf"-----BEGIN {_PEM}(?:[^-]++|-(?!----))*+(?:-----END {_PEM})?"),
    ("://", r"(?<=://)[^\s/?#@:]*+:[^\s/?#@]++(?=@)"),  # user and password in a URL
    ("eyJ", r"eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]++){0,2}"),  # a JSON web token
    ("asic", r"[Bb]asic\s++(?=[^\s\d]*+\d)[A-Za-z0-9+/=._~-]{12,}+"),
    ("earer", r"[Bb]earer\s++(?=[^\s\d]*+\d)[A-Za-z0-9+/=._~-]{12,}+"),
    *((f"k{end}", rf"[sprw]k{end}<key>") for end in ("_us_", "_eu_", "_live_", "_test_")),
    *((start, f"{start}<key>") for start in ("sa_live_", "sa_sandbox_", "whsec_", "glpat-", "npm_", "shpat_")),
    ("sk-", r"sk-(?=[A-Za-z_-]*+\d)[A-Za-z0-9_-]{20,}+"),
    ("SG.", r"SG\.[A-Za-z0-9_-]{16,}+(?:\.[A-Za-z0-9_-]++)?"),
    ("AKIA", r"AKIA[0-9A-Z]{16}"),
    ("ASIA", r"ASIA[0-9A-Z]{16}"),
    ("AIza", r"AIza[A-Za-z0-9_-]{30,}+"),
    ("xox", r"xox[a-z]-[A-Za-z0-9-]{8,}+"),
    ("gh", r"gh[opsur]_[A-Za-z0-9]{16,}+"),
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{16,}+"),
)
"""What each kind of secret has in it, and what it looks like; letters may touch its beginning."""
_PHONES: Final[tuple[tuple[str, str], ...]] = (
    ("+", r"\+[\s(]{0,2}\d(?:[\s.()/_-]{0,3}\d){6,16}"),
    ("00", r"(?<![\d:])00[\s._-]?[1-9](?:[\s.()/_-]{0,3}\d){7,13}(?!\d)"),
    ("(", r"\(\d{2,5}\)[\s._-]{0,2}\d(?:[\s._/-]{0,2}\d){4,10}"),  # (555) 123-4567
    ("", r"(?<!\d)\d{3}[\s._-]{1,2}\d{3}[\s._-]{1,2}\d{4}(?!\d)"),  # 555-123-4567
    ("0", r"(?<!\d)0[1-9]\d{1,4}\)?[\s._/-]{1,3}\d{2,}(?:[\s._-]\d{2,}){0,4}(?!\d)"),  # 020 7946 0018
    ("0", r"(?<!\d)0[1-9](?:[\s._-]\d\d){4}(?!\d)"),  # 01 23 45 67 89
)
"""Phone numbers by a sign that they have: those without a plus only in a form that little else has."""
_KEY = re.compile(r"[0-9A-Fa-f]{20,}+")
_TOKEN = re.compile(r"(?=[^\s:]*[0-9])[^\s:]{16,}")


class _Row(NamedTuple):
    """A pattern, the text that whatever it matches has in it, and how many digits."""

    kind: PartKind
    pattern: re.Pattern[str]
    sign: str = ""
    digits: int = 0


_ROWS: Final = (
    *(
        _Row("secret", re.compile(look.replace("<key>", r"(?=[A-Za-z_-]*+\d)[A-Za-z0-9_-]{6,}+")), sign)
        for sign, look in _SECRETS
    ),
    _Row("email", re.compile(_EMAIL), "@"),
    _Row("uuid", re.compile(UUID), digits=3),  # stays: its digits are nobody's number
    _Row("iban", re.compile(r"[A-Za-z]{2}\d{2}"), digits=10),
    _Row("card", re.compile(r"(?<!\d)[2-6]\d{0,15}(?!\d)"), digits=14),
    _Row("secret", _KEY, digits=3),
    *(_Row("phone", re.compile(look), sign, 8 if sign == "+" else 9) for sign, look in _PHONES),
    _Row("ip", re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)"), ".", 4),
    _Row("ip", re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])"), ":", 1),
    # As long as a phone number, and not what seconds or milliseconds are until 2033.
    _Row("number", re.compile(r"(?<!\d)(?!1\d{9}(?:\d{3})?(?!\d))\d{10,15}(?!\d)"), digits=10),
)
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d+")
_GROUPS = re.compile(r"\d{1,16}+(?:[\s._/-]{1,3}\d{1,16}+){0,4}")
_WORDS = re.compile(r"[a-z]++\Z|[ _.,:;'`/-]*+(?:[A-Za-z]{1,15}+(?:[ _.,:;'`/-]++|\Z))*+\Z")
"""A quick first look: every value has something other than words, or than a row of small letters."""
_NESTED = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")
_SLASH = re.compile(r"(?<=\d)~1(?=\d)")
"""A slash between digits, as a pointer spells it."""
_KEY_LENGTHS: Final = frozenset({*range(20, 24), *range(32, 36)})
_SEPARATORS: Final = frozenset(" \t._-/")


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Texts known to be secret, as `masked` takes them: as they were sent, in one case, and escaped in a pointer.

    The longest come first, since one may hold another.
    """
    known = {spelling for secret in secrets for spelling in (secret, _reduced(secret))}
    known |= {secret.replace("~", "~0").replace("/", "~1") for secret in known}
    known |= {spelling for secret in known for spelling in (secret.lower(), secret.upper())}
    return tuple(sorted((secret for secret in known if len(secret) >= SHORTEST), key=len, reverse=True))


def masked(text: str, secrets: Sequence[str] = ()) -> str:
    """The text with every personal value and every secret replaced by its kind, those known before the others."""
    shown = _without(text[: LIMIT + REACH], secrets)
    limit = LIMIT
    if secrets or not _WORDS.match(shown):
        reduced = _reduced(shown)
        plain = _without(reduced, secrets)
        found = [] if _WORDS.match(plain) else found_by(_rows(plain), plain, _span)
        found = [part for part in found if part.kind != "uuid"]
        if len(text) > LIMIT + REACH:  # what was cut off may have been the end of a value
            limit = min(LIMIT, max(0, len(plain) - REACH))
        if found or plain != reduced:
            return replaced(plain, found, limit)
    return shown if len(text) <= limit else shown[:limit] + "…"


def named(text: str) -> str:
    """A name from a file as a message may show it: short, on one line, and without what looks like a secret."""
    line = "".join(c if c.isprintable() else "?" for c in _TOKEN.sub("<hidden>", masked(text)))
    return line if len(line) <= 80 else f"{line[:79]}…"


def masked_json(value: Any, secrets: Sequence[str] = ()) -> Any:
    """A JSON value with every text in it masked, and every number that may be somebody's."""
    if isinstance(value, str):
        return masked(value, secrets)
    if isinstance(value, list):
        return [masked_json(member, secrets) for member in value]
    if isinstance(value, dict):
        return {masked(key, secrets): masked_json(member, secrets) for key, member in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
        return value if (shown := masked(text, secrets)) == text else shown
    return value


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "<secret>")
    return text


def _rows(text: str) -> list[tuple[PartKind, re.Pattern[str]]]:
    digits = len(_DIGIT.findall(text))
    return [(kind, pattern) for kind, pattern, sign, least in _ROWS if digits >= least and sign in text]


def _reduced(text: str) -> str:
    """The text without percent encoding, and with every character that stands for a plain one replaced by it."""
    if "%" in text:
        text = unquote(_NESTED.sub("%", text))
    if "~1" in text:
        text = _SLASH.sub("/", text)
    return text if text.isascii() else text.translate(_PLAIN)


class _Plain(dict[int, int | None]):
    """What a character is for a reader: full-width letters, other digits, dashes and spaces; None for no width."""

    def __missing__(self, code: int) -> int | None:
        char = unicodedata.normalize("NFKC", chr(code))
        if len(char) != 1:
            char = chr(code)
        category = unicodedata.category(char)
        found: int | None = ord(char)
        if category == "Cf":
            found = None
        elif category == "Nd":
            found = ord("0") + unicodedata.decimal(char)
        elif category == "Pd":
            found = ord("-")
        elif char.isspace():
            found = ord(" ")
        elif char == "。":
            found = ord(".")
        if len(self) < 10_000:
            self[code] = found
        return found


_PLAIN = _Plain()


def _span(kind: PartKind, match: re.Match[str]) -> tuple[int, int] | None:
    text = match[0]
    match kind:
        case "email":
            return match.span("address")
        case "iban":
            return _iban(match.string, match.start())
        case "card":
            return _card(match.string, match.start())
        case "ip" if ":" in text:
            sure = is_ip(text)
        case "ip":
            sure = all(int(number) < 256 for number in text.split("."))
        case "secret" if match.re is _KEY:
            # The lengths of Track and App keys (reference 1.3), and of up to three letters of a word beside them.
            sure = len(text) in _KEY_LENGTHS and sum(c.isdigit() for c in text) >= 3 and not text.isdigit()
        case "uuid":
            sure = any(c.isalpha() for c in text)
        case "phone":
            sure = text[0] == "+" or sum(c.isdigit() for c in text) >= 9
        case _:
            sure = True
    return match.span() if sure else None


def _iban(text: str, start: int) -> tuple[int, int] | None:
    """The account number that begins here, however it is grouped, and whatever follows it."""
    length = IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    compact = ""
    for at in range(start, min(start + 3 * length, len(text))):
        if text[at] in _SEPARATORS:
            continue
        compact += text[at]
        if len(compact) == length:
            return (start, at + 1) if is_iban(compact) else None
    return None


def _card(text: str, start: int) -> tuple[int, int] | None:
    """The card number that begins with the digits here and ends with others, in at most five groups."""
    groups = _GROUPS.match(text, start)
    digits = ""
    for group in _DIGITS.finditer(groups[0] if groups else ""):
        digits += group[0]
        if is_card(digits):
            return start, start + group.end()
    return None
