"""A value that Customer.io has no use for and should never hold: a card number, a bank account, a private key.

Customer.io stores what it is sent. Every teammate can read it, exports and webhooks carry it on, and
a card number brings the workspace into the scope of the card industry's rules.

A value is judged by its own proof and by what its name says. An account number (IBAN) has a country,
that country's length and two check digits, and a private key has its PEM frame and its content. A card
number has less: more than one in fifty of all numbers with 16 digits has an issuer's prefix and the
right check digit by chance. Bare digits are therefore a card only under a name that says so (`card_number`, `pan`,
`card: {number}`); grouped as on a card they need no name. Names of identifiers, orders, vouchers and
loyalty cards speak against both. What is left in doubt is `possible`, and not reported by default.

E-mail addresses and phone numbers belong into attributes. So does part of a card number: `last4` is
fine. What the App API renders into one message is not judged, since invoices show account numbers.

Fix: drop the field, or send what a message needs of it: the last four digits, the brand, a token of your payment
provider. Delete the attribute from the people who have it.

See https://docs.customer.io/journeys/attributes/
See ISO/IEC 7812-1 (card numbers), ISO 13616 (IBAN), RFC 7468 (PEM)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from cio_proxy.model import Call, Confidence, Finding, Known, RuleInfo, keys_of, pointer
from cio_proxy.recognise import is_card, parts

RULE = RuleInfo(
    id="sensitive-value",
    severity="error",
    category="contract",
    kinds=frozenset({"identify", "event", "page", "screen", "object_identify", "device_add", "form_submit"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    surest="likely",
)

CARD, IBAN, KEY = "card number", "bank account number", "private key"
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SPACED = re.compile(r"\S+")
NAMES_OF_CARDS = frozenset(
    _SPACED.findall("card cards cardno cardnum cardnumber bankcard creditcard debitcard cc ccn ccno ccnum ccnumber pan")
)
NAMES_OF_ACCOUNTS = frozenset({"account", "bank", "iban", "payout", "sepa"})
OTHER_NAMES = frozenset(
    _SPACED.findall(
        "barcode bonus booking case club code confirmation contract coupon ean gift giftcard hash id ids imei invoice"
        " item key library licence license loyalty member membership meter order parcel pin points policy product ref"
        " reference reward rewards serial shipment sim sku store tax ticket token tracking uid uuid vat voucher"
    )
)
"""Of other things that are numbered, some of them with the same check digit."""

SHORTEST = 14
"""Characters of the shortest card number; the shortest account number has 15."""
SMALLEST = 10**13
CLOSER_LOOKS = 500
"""How many values of one call are read closer; Customer.io takes no call with so many."""
FEWEST = 10
"""Digits that an account number has at least; a card number has more."""
NO_DIGITS = bytes(byte for byte in range(256) if byte not in b"0123456789")
_TWELVE = re.compile(rb"[0-9](?:[ _-]?[0-9]){11}")
_BANK = re.compile(rb"[A-Z][A-Z][0-9]{2}[ _-]?[A-Z]")
_PEM = "PRIVATE KEY-----"
_DIGITS = re.compile(r"[0-9][0-9]{3}[ _-]?[0-9]{4}")
_SHAPE = re.compile(r"[0-9]{4}([ _-]?)[0-9]{4,6}\1[0-9]{4}|[A-Z]{2}[0-9]{2}(?:[ _-]?[A-Z0-9]){11}")
_FRAME = re.compile(r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----")
_CONTENT = re.compile(r"[A-Za-z0-9+/]{40}")


def check(call: Call, known: Known) -> Iterable[Finding]:
    """A quick look at the bytes; only what may be sensitive is read closer."""
    return _judge(call) if (raw := call.raw) is None or _may_hold_any(raw, call.sketch or b"") else ()


def _may_hold_any(raw: bytes, sketch: bytes) -> bool:
    """What a body that holds one has in it: a key, an escape, twelve digits, or a country with a bank."""
    if b"PRIVATE KEY" in raw or b"\\u" in raw:
        return True
    if b"000000000000" not in sketch and b"AA00A" not in sketch:
        return False
    if len(raw.translate(None, NO_DIGITS)) < FEWEST:
        return False
    return _TWELVE.search(raw) is not None or _BANK.search(raw) is not None


def _is_worth_a_look(value: object) -> bool:
    """Every account number has eight digits in a row, or two groups of four; only so long an integer is one."""
    if isinstance(value, str):
        return len(value) >= SHORTEST and (_DIGITS.search(value) is not None or _PEM in value)
    return isinstance(value, int) and SMALLEST <= value < 10**16


def _judge(call: Call) -> Iterator[Finding]:
    """One finding for each name, however many members of a list carry it."""
    seen: set[tuple[str, ...]] = set()
    for value, path in islice((leaf for leaf in call.leaves if _is_worth_a_look(leaf[0])), CLOSER_LOOKS):
        if (found := _found(value)) is None:
            continue
        what, text = found
        keys = keys_of(path)
        where = pointer(call.body_at, *keys)
        names = [key for key in keys if isinstance(key, str)]
        if call.holds(where) and (what, *names) not in seen:
            seen.add((what, *names))
            yield RULE.finding(
                where,
                f"the value holds a {what}",
                effect="Customer.io stores it, and every teammate, export and webhook can pass it on.",
                fix="Drop the field, or send what a message needs of it: the last four digits, or a token.",
                confidence=_confidence(what, text, names),
                evidence=f"{sum(map(str.isalnum, text))} characters",
                name=call.name,
            )


def _found(value: object) -> tuple[str, str] | None:
    """What a value holds, and the part of it that is sensitive."""
    text = str(value)
    if text.isdigit():
        return (CARD, text) if is_card(text) else None
    if _PEM in text and (frame := _FRAME.search(text)) and (content := _CONTENT.search(text, *_after(frame))):
        return KEY, content[0]
    if _SHAPE.search(text) is None:
        return None
    part = next((part for part in parts(text) if part.kind in ("card", "iban")), None)
    return None if part is None else (CARD if part.kind == "card" else IBAN, text[part.start : part.end])


def _after(frame: re.Match[str]) -> tuple[int, int]:
    """Where the content of a PEM frame begins; headers of an encrypted key may stand before it."""
    return frame.end(), frame.end() + 400


def _confidence(what: str, text: str, names: list[str]) -> Confidence:
    """What the value's own name says counts for and against; what holds it, only where it is named like a card."""
    if what == KEY:
        return "likely"
    worded = [{word.lower() for word in _WORD.findall(name[:100])} for name in names]
    of_cards = [words for words in worded if words & NAMES_OF_CARDS]
    speaks_against = any(words & OTHER_NAMES for words in (*worded[-1:], *of_cards))
    if what == IBAN:
        proven = not speaks_against or any(words & NAMES_OF_ACCOUNTS for words in worded)
    else:
        proven = not speaks_against and (bool(of_cards) or " " in text or "-" in text)
    return "likely" if proven else "possible"
