"""What a finding about a sensitive value tells, and what it must not; and how often numbers pass by chance."""

import json
import random
import re
import time
from collections import Counter

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Finding, Json, RuleSettings, Settings
from cio_proxy.rules import RULES

from .alone import told

RULE = "sensitive-value"
INFOS = tuple(rule for rule in RULES if rule.info.id == RULE)
CONTENT = "TUFERSBVUCBGT1IgVEhFIEVYQU1QTEUsIE5PIEtFWQ"


def found(attributes: dict[str, Json], **settings: object) -> tuple[Finding, ...]:
    body = json.dumps(attributes).encode()
    exchange = Exchange(
        id="1", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=body
    )
    said = {RULE: RuleSettings(report="possible")}
    engine = Engine(Settings(rules=said, **settings), INFOS, sealed_with(b"k" * 32))  # type: ignore[arg-type]
    return engine.judge(engine.open(exchange), Reading()).findings


@pytest.mark.parametrize("show_values", [False, True])
@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("4111 1111 1111 1111", "1111"),
        (4111111111111111, "1111"),
        ("paid with 3782-822463-10005 at the door", "822463"),
        ("GB29 NWBK 6016 1331 9268 19", "NWBK"),
        (f"-----BEGIN EC PRIVATE KEY-----\n{CONTENT}\n-----END EC PRIVATE KEY-----", CONTENT),
    ],
)
def test_no_text_of_a_finding_holds_the_value(value: Json, secret: str, show_values: bool) -> None:
    (finding,) = found({"card": value}, show_values=show_values)
    assert finding.confidence == "likely"
    assert secret not in repr(finding)


def test_a_number_of_many_digits_is_no_likely_card_without_a_name_that_says_so() -> None:
    rng = random.Random(7)
    numbers = [f"4{rng.randrange(10**15):015}" for _ in range(2_000)]
    names = ("order_id", "amount", "reference", "orderNumber")
    told = Counter(f.confidence for number in numbers for name in names for f in found({name: number}))
    assert told["likely"] == 0
    assert told["possible"] > 100, "the numbers do pass the check of a card"


@pytest.mark.parametrize(
    "value",
    [
        "4111 1111 1111 111 " * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 100_000,
        "AB12" * 500_000,
        ["DE89 3704 0044 0532 0130 01"] * 50_000,
        [4111111111111112] * 100_000,
    ],
    ids=["groups", "frames", "accounts in one", "accounts", "numbers"],
)
def test_hostile_values_cost_linear_time(value: Json) -> None:
    started = time.perf_counter()
    assert found({"pan": value}) == ()
    assert time.perf_counter() - started < 5


CARD, ACCOUNT = "4111111111111111", "DE89370400440532013000"
OF_CARDS = re.findall(
    r"\w+", "card cards cardno cardnum cardnumber bankcard creditcard debitcard cc ccn ccno ccnum ccnumber pan"
)
OF_ACCOUNTS = ["account", "bank", "iban", "payout", "sepa"]
OF_OTHERS = re.findall(
    r"\w+",
    """
barcode bonus booking case club code confirmation contract coupon ean gift giftcard hash id ids imei invoice item key
library licence license loyalty member membership meter order parcel pin points policy product ref reference reward
rewards serial shipment sim sku store tax ticket token tracking uid uuid vat voucher
""",
)


def sure(value: Json, *names: str) -> list[str]:
    """How sure the rule is of a value under a name, or under one in another."""
    attributes: Json = value
    for name in reversed(names):
        attributes = {name: attributes}
    assert isinstance(attributes, dict)
    return [finding.confidence for finding in found(attributes)]


@pytest.mark.parametrize("word", OF_CARDS)
def test_bare_digits_are_a_card_under_a_name_that_says_so(word: str) -> None:
    for name in (word, word.upper(), word.title(), f"{word}_number", f"my{word.title()}"):
        assert sure(CARD, name) == sure(int(CARD), name) == ["likely"], name
    assert sure(CARD, word, "number") == ["likely"]
    assert sure(CARD, f"x{word}") == sure(CARD, "number") == ["possible"]


@pytest.mark.parametrize("word", OF_OTHERS)
def test_names_of_other_things_speak_against_a_card_and_an_account(word: str) -> None:
    for name in (word, f"{word}_x", f"x{word.title()}"):
        assert sure("4111 1111 1111 1111", name) == ["possible"], name
        assert sure(ACCOUNT, name) == ["possible"], name
    assert sure(CARD, f"{word}_card") == sure(CARD, f"{word}_card", "number") == ["possible"]
    assert sure("4111 1111 1111 1111", word, "number") == ["likely"]


@pytest.mark.parametrize("word", OF_ACCOUNTS)
def test_names_of_accounts_speak_for_an_account_all_the_same(word: str) -> None:
    assert sure(ACCOUNT, f"{word}_id") == sure(ACCOUNT, word, "id") == ["likely"]
    assert sure(CARD, f"{word}_number") == ["possible"]


def test_a_group_of_digits_needs_no_name() -> None:
    assert sure("4111-1111-1111-1111", "x") == sure("4111 1111 1111 1111", "x") == ["likely"]
    assert sure("4111_1111_1111_1111", "x") == ["possible"]


@pytest.mark.parametrize(
    "value",
    [
        *("30569309025904", "378282246310005", 30569309025904, "paid 4111111111111111", "4111111111111111 paid"),
        *(
            "NO9386011117947",
            "no93 8601 1117 947",
            "to DE89 3704 0044 0532 0130 00 please",
            "MT84MALT011000012345MTLCAST001S",
        ),
        *("see " + "x" * 60 + " 4111111111111111 there", '{"pan":"4111-1111-1111-1111"}'),
    ],
)
def test_what_holds_one(value: Json) -> None:
    assert len(sure(value, "x")) == 1 or value == "no93 8601 1117 947"


@pytest.mark.parametrize(
    "value",
    [
        *("4111 1111 1111", "4111111111111112", 4111111111111112, 10**16, 4111111111111, True, "12.10.2026 14:00:00"),
        *("2026-11-24T12:00:00.000Z", "x4111111111111111", "DE88370400440532013000", "-----BEGIN PUBLIC KEY-----"),
        *("-----BEGIN PRIVATE KEY-----", "PRIVATE KEY-----" + CONTENT, None, 4111111111111111.0),
    ],
)
def test_what_holds_none(value: Json) -> None:
    assert sure(value, "card") == []


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "ENCRYPTED ", "OPEN SSH "])
@pytest.mark.parametrize(("between", "wanted"), [("\n", ["likely"]), ("x " * 150, ["likely"]), ("x " * 250, [])])
def test_a_private_key_has_a_frame_and_its_content(kind: str, between: str, wanted: list[str]) -> None:
    assert sure(f"-----BEGIN {kind}PRIVATE KEY-----{between}{CONTENT}", "order_id") == wanted


def test_each_name_is_told_of_once_and_each_place_is_looked_at() -> None:
    held: dict[str, Json] = {"card": [{"number": CARD}, {"number": CARD}, {"pan": CARD}], "iban": ACCOUNT, "x": 1}
    assert [finding.pointer for finding in found(held)] == ["/card/0/number", "/card/2/pan", "/iban"]
    both: dict[str, Json] = {"card": [CARD, ACCOUNT, CARD]}
    assert [finding.pointer for finding in found(both)] == ["/card/0", "/card/1"]


def test_five_hundred_values_are_read_closer() -> None:
    assert len(found({"a": [4111111111111112] * 499, "card": CARD})) == 1
    assert found({"a": [4111111111111112] * 500, "card": CARD}) == ()


@pytest.mark.parametrize("value", ["4111 1111 111", "x" * 14, 10**13 - 1, 10**16])
def test_what_no_account_number_can_be_is_not_among_them(value: Json) -> None:
    assert len(found({"a": [value] * 500, "card": CARD})) == 1


@pytest.mark.parametrize("value", ["4111 1111 1111", 10**13, 10**16 - 1])
def test_what_one_could_be_is(value: Json) -> None:
    assert found({"a": [value] * 500, "card": CARD}) == ()


def test_a_hundred_characters_of_a_name_are_read() -> None:
    assert sure(CARD, "_" * 96 + "card") == ["likely"]
    assert sure(CARD, "_" * 97 + "card") == ["possible"]


def test_evidence_is_how_long_the_number_is() -> None:
    for value, evidence in (("4111 1111 1111 1111", "16 characters"), (ACCOUNT, "22 characters")):
        (finding,) = found({"x": value})
        assert finding.evidence == evidence


def test_an_account_number_of_few_digits_and_digits_behind_escapes_are_found() -> None:
    assert sure("NL91ABNA0417164300", "x") == sure("MT54MALT01100123ABCDEFGHIJKLMNO", "x") == ["likely"]
    escaped = "".join(f"\\u{ord(sign):04x}" for sign in CARD).encode()
    url = "track.customer.io/api/v1/customers/42"
    assert told(RULE, "PUT", url, b'{"card": "%s"}' % escaped) == [("/card", "likely")]


def test_the_content_of_a_key_ends_within_400_characters_of_its_frame() -> None:
    for between, count in (("x " * 180, 1), (" " + "x " * 180, 0)):
        assert len(sure(f"-----BEGIN PRIVATE KEY-----{between}{CONTENT}", "x")) == count
