"""Texts and numbers are told apart by what they are, and nothing personal survives masking."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.masking import masked, masked_json
from cio_proxy.recognise import (
    LIMIT,
    PER_SECOND,
    REACH,
    Part,
    changes,
    created,
    is_card,
    is_day,
    is_email,
    is_iban,
    is_impersonal,
    is_like_a_version,
    is_milestone,
    is_plain,
    is_public_ip,
    labelled_moment,
    moment,
    moment_label,
    moment_of,
    number_of,
    parts,
    path_template,
    personal,
    place_label,
    replaced,
    replaced_by,
    template,
    unit,
    without_parts,
    year_of,
)

PERSONAL = {
    "ada@example.com": "email",
    "Ada.O'Byron+news@mail.example.co.uk": "email",
    "ada%2Bnews%40example.com": "email",
    "jürgen@müller.example": "email",
    "ada@163.com": "email",
    "+4915112345678": "phone",
    "+1 (555) 010-9999": "phone",
    "%2B4915112345678": "phone",
    "4111111111111111": "card",
    "4111 1111 1111 1111": "card",
    "5555-5555-5555-4444": "card",
    "3782_822463_10005": "card",
    "DE89370400440532013000": "iban",
    "gb82 west 1234 5698 7654 32": "iban",
    "203.0.113.9": "ip",
    "2001:db8::8a2e:370:7334": "ip",
    "sk_us_9f8e7d6c5b": "secret",
    "sa_live_5b1f0c9ad27e4368": "secret",
    "Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEz": "secret",
    "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl": "secret",
}
VARIABLE = {
    "https://shop.example.com/p/1?q=2": "url",
    "6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38": "uuid",
    "6f1c2b7e_93d4_4c5a_8f20_1b7d9e4a6c38": "uuid",
    "6f1c2b7e93d44c5a8f201b7d9e4a6c38": "uuid",
    "01HF7YAT00Q8Z3V5K2M9N4P6RS": "ulid",
    "01hf7yat00q8z3v5k2m9n4p6rs": "ulid",
    "507f1f77bcf86cd799439011": "long-hex",
    "0x52908400098527886e0f7030069857d2e4169ee7": "long-hex",
    "a3f9c27e": "hex",
    "2026-11-24": "date",
    "2026_11_24": "date",
    "8412377": "number",
}
WORDS = [
    "email_opened",
    "mentioned_@support",
    "lodash@4.17.21",
    "logo@2x.png",
    "facade_decade_added",
    "black_friday_2026",
    "signup_v2",
    "404_seen",
    "step_1",
    "mp3_played",
    "2fa_enabled",
    "billing::invoice::paid",
    "12:30:45",
    "1.12.3",
    "AB12 CD34 EF56",
    "+5_points",
    "the Basic credentials cannot be right",
]


@pytest.mark.parametrize(("text", "kind"), (PERSONAL | VARIABLE).items())
@pytest.mark.parametrize("frame", ["{}", "name_{}", "name {} more", "({})", "x={}"])
def test_a_part_is_found_whole_in_any_surroundings(text: str, kind: str, frame: str) -> None:
    found = parts(frame.format(text))
    assert [part.kind for part in found] == [kind]
    assert text in frame.format(text)[found[0].start : found[0].end]


@pytest.mark.parametrize("text", WORDS)
def test_words_are_no_parts(text: str) -> None:
    assert parts(text) == []
    assert masked(text) == text


@pytest.mark.parametrize("text", PERSONAL)
def test_masking_leaves_nothing_of_a_personal_value_or_a_secret(text: str) -> None:
    for frame in ("{}", "see {} there", "https://example.com/?a={}&b=1"):
        assert masked(frame.format(text)) == frame.format(f"<{PERSONAL[text]}>")


def test_masking_keeps_ids_and_hides_what_has_the_shape_of_a_key() -> None:
    assert masked("viewed_507f1f77bcf86cd799439011") == "viewed_507f1f77bcf86cd799439011"
    assert masked("key a13c95a0bc44d9f01e27") == "key <secret>"
    assert masked("key 20436c6351668b25a74a2c289a639d3f") == "key <secret>"
    assert masked("https://ada:pass@example.com/") == "https://<secret>@example.com/"


def test_a_template_is_the_same_for_every_value() -> None:
    assert template("viewed_8412377 by +4915112345678") == template("viewed_99181 by +4930901820")
    assert template("viewed_8412377") == "viewed_<number>"


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("viewed_product_8412377", "viewed_product"),
        ("order_8412377_viewed", "order_viewed"),
        ("Viewed 8412377 Today", "Viewed Today"),
        ("https://example.com/", ""),
        ("order_placed", "order_placed"),
    ],
)
def test_a_fixed_name_is_what_stays_without_the_parts(name: str, rest: str) -> None:
    assert without_parts(name) == rest


def test_one_part_never_lies_in_another() -> None:
    assert [part.kind for part in parts("https://example.com/?to=ada@example.com")] == ["url"]
    assert [part.kind for part in personal("https://example.com/?to=ada@example.com")] == ["email"]


def test_an_address_beyond_the_limit_is_not_cut_into_view() -> None:
    text = "x " * (LIMIT // 2 - 3) + "ada.byron@example.com"
    assert "ada" not in masked(text)
    assert len(masked("x" * 10**6)) == LIMIT + 1


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_read_and_an_address_in_it_is_masked(before: str, after: str) -> None:
    text = f"{before} ada.byron@example.com {after}"
    assert "ada.byron" not in masked(text)
    found = parts(text)
    assert all(0 <= part.start < part.end <= len(text) for part in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


PIECES = st.sampled_from(
    [*PERSONAL, *VARIABLE, *WORDS, *"aFkz019._-+%: /", "sk_us_", "sa_live_", "Basic ", "www.", "0x"]
)


@given(st.lists(PIECES, max_size=5).map("".join) | st.text(alphabet="a1.-_@%+ :/F", max_size=80))
def test_the_first_looks_overlook_nothing(text: str) -> None:
    """An at sign in front makes every text suspect, and is no part itself."""
    assert [(part.kind, part.start + 2, part.end + 2) for part in parts(text)] == parts(f"@ {text}")
    assert [(part.kind, part.start + 2, part.end + 2) for part in personal(text)] == personal(f"@ {text}")
    if is_plain(text):
        assert parts(text) == []
    if is_impersonal(text):
        assert personal(text) == []


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a.",
            "a_",
            "@",
            "a@",
            "a@a.",
            "%40",
            "%4",
            "+1 ",
            "4111 ",
            "4111-",
            "1.",
            "1:",
            ":",
            "f",
            "F-",
            "DE89 ",
        ),
        *("://a:", "www.", "eyJa.", "Basic ", "Bearer a", "sk_us_", "20261", "\0", "\ud800", "ä@ä."),
    ],
)
def test_hostile_texts_are_read(unit: str) -> None:
    text = unit * 100_000
    assert len(masked(text)) <= 8 * LIMIT
    assert len(template(text)) <= 8 * LIMIT
    without_parts(text)


def test_one_address() -> None:
    assert is_email("ada@example.com")
    assert not is_email("ada@example.com and more")
    assert not is_email("ada")
    assert not is_email("www.ada@example.com")
    assert not is_email("eyJhbGciOiJIUzI1@example.com")


def test_card_numbers_have_an_issuer_a_length_and_a_check_digit() -> None:
    assert is_card("4111 1111 1111 1111")
    assert not is_card("4111 1111 1111 1112")  # the check digit
    assert not is_card("9111111111111119")  # no issuer
    assert not is_card("4006381333931")  # a product code of 13 digits
    assert not is_card("1700000000000000")  # microseconds
    assert not is_card("0" * 16)


def test_bank_accounts_have_a_country_a_length_and_check_digits() -> None:
    assert is_iban("NO93 8601 1117 947")
    assert not is_iban("NO94 8601 1117 947")
    assert not is_iban("XX89370400440532013000")
    assert not is_iban("DE8937040044053201300")


@pytest.mark.parametrize("address", ["10.0.12.7", "192.168.0.1", "203.0.113.9", "1.2.3.4", "224.0.0.5", "127.0.0.1"])
def test_addresses_that_are_nobodys(address: str) -> None:
    assert not is_public_ip(address)
    assert is_public_ip("81.2.69.142")


@pytest.mark.parametrize("text", ["17.4.1.2", "10.0.190.45", "1.12.3.4", "8.8.8.8", "120.0.1.2", "23.10.0.5"])
def test_four_small_numbers_are_like_a_version(text: str) -> None:
    assert is_like_a_version(text)
    assert not is_like_a_version("81.2.69.142")
    assert not is_like_a_version("2001:db8::8a2e:370:7334")


def test_a_day_may_be_written_as_one_number() -> None:
    assert all(map(is_day, ["20261127", "202611", "19991231"]))
    assert not any(map(is_day, ["20261327", "20261132", "2026112", "84123771", "2026", "30261127"]))


def test_letters_and_digits_take_turns_in_ids() -> None:
    assert [changes(text) for text in ("feedface2024", "ace123bad", "a3f9c27e", "")] == [1, 2, 6, 0]


def test_names_by_the_thousands_are_looked_at_quickly() -> None:
    names = [f"attribute_{number}_seen" for number in range(100_000)]
    started = time.process_time()
    assert all(map(is_impersonal, names))
    assert time.process_time() - started < 2


def test_milestones_are_round() -> None:
    assert all(map(is_milestone, ["10000", "50000", "12500", "125000", "1234000"]))
    assert not any(map(is_milestone, ["8412377", "10001", "20261124"]))


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (1e9 - 1, None),
        (1e9, "seconds"),
        (1_700_000_000.5, "seconds"),
        (1e11 - 1, "seconds"),
        (1e11, "milliseconds"),
        (1_700_000_000_000, "milliseconds"),
        (1e14, "microseconds"),
        (1e17, "nanoseconds"),
        (1e20, None),
        (float("inf"), None),
        (float("nan"), None),
        (-1_700_000_000_000, None),
    ],
)
def test_digits_tell_the_unit(number: float, wanted: str | None) -> None:
    assert unit(number) == wanted


def test_what_holds_a_number() -> None:
    assert [number_of(value) for value in (7, 7.5, "1700000000000")] == [7, 7.5, 1_700_000_000_000]
    odd: list[object] = [True, None, "", "-7", "7.5", " 7", "²", "9" * 26, [7], {"a": 7}]
    assert [number_of(value) for value in odd] == [None] * len(odd)


@given(st.integers(-700_000, 2_900_000))
def test_years_are_those_of_the_calendar(days: int) -> None:
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days)
    assert year_of(day.timestamp()) == day.year


def test_years_that_no_datetime_can_hold() -> None:
    assert year_of(1_700_000_000 * PER_SECOND["milliseconds"]) == 55_840
    assert year_of(-62_135_596_801) == 0


def test_json_is_masked_to_its_depth() -> None:
    value = {"a@example.com": ["b@example.com", {"n": 4111111111111111}], "ok": [1, 2.5, True, None, "word"]}
    assert masked_json(value) == {"<email>": ["<email>", {"n": "<card>"}], "ok": [1, 2.5, True, None, "word"]}


# --- each entry and each bound -----------------------------------------------------------------


def kinds(text: str) -> list[str]:
    return [part.kind for part in parts(text)]


def test_where_the_parts_are() -> None:
    assert parts("x ada%2fb@example.com, 4111111111111111") == [Part("email", 2, 21), Part("card", 23, 39)]
    assert replaced_by("a12345b67890c", [Part("number", 1, 6), Part("number", 7, 12)], lambda part: "-") == "a-b-c"


def test_an_account_number_with_letters_among_its_digits() -> None:
    body = "12A34B56C78D90E12F34G56H78I9"
    rest = int("".join(str(int(sign, 36)) for sign in f"{body}LC00")) % 97
    assert kinds(f"LC{98 - rest:02}{body}") == ["iban"]
    assert not is_iban("DE\uff18\uff19370400440532013000")


def test_what_is_personal() -> None:
    assert {part.kind for text in PERSONAL for part in personal(text)} == {
        *("email", "phone", "card", "iban", "ip", "secret")
    }
    assert all(personal(text) == [] for text in VARIABLE)
    for text, kind in PERSONAL.items():
        assert [part.kind for part in personal(f"https://example.com/?a={text}")] == [kind]


MORE = {
    "12345678901234567890123456789012": ["uuid"],
    "DE89 ": [],
    "@ DE89 ": [],
    "Bearer acdefghijkl123": ["secret"],
    "see %61da%2fb@example.com": ["email"],
    "Ada@Example.COM": ["email"],
    "a@b.xn--p1ai": ["email"],
    "%41da@example.com": ["email"],
    "ADA@EXAMPLE.COM": ["email"],
    "lib@1.2": [],
    "lib@10.2.com": [],
    "a@1a.com": ["email"],
    **{f"logo@{n}x.{kind}": [] for n in (1, 4) for kind in ("png", "jpg", "jpeg", "gif", "webp", "svg", "avif")},
    "logo@5x.png": ["email"],
    "6F1C2B7E-93D4-4C5A-8F20-1B7D9E4A6C38": ["uuid"],
    "abcdefab-abcd-abcd-abcd-abcdefabcd12": [],
    "abcdefab-abcd-abcd-abcd-abcdefabc123": ["uuid"],
    "12345678-1234-1234-1234-123456789012": ["uuid"],
    "6F1C2B7E93D44C5A8F201B7D9E4A6C38": ["uuid"],
    "01HF7YATQQQQQQQQQQQQQQQQQQ": ["ulid"],
    "01HFAYATQQQQQQQQQQQQQQQQQQ": [],
    "0AHF7YATQQQQQQQQQ1QQQQQQQQ": ["ulid"],
    "a4111111111111111": ["number"],
    "Z4111111111111111": ["number"],
    "4111111111111111a": ["number"],
    "4111111111111111Z": ["number"],
    "4111111111111112": ["number"],
    "https://ada:pass@example.com/": ["url"],
    "ftp://ada:pass@example.com/": ["secret"],
    "HTTP://EXAMPLE.COM": ["url"],
    "Www.example.com": ["url"],
    "WWW.example.com": ["url"],
    "wWW.x": ["url"],
    "www.a": ["url"],
    "awww.a": [],
    "Zwww.a": [],
    "9www.a": [],
    "1999-01-01": ["date"],
    "2026_10.31": ["date"],
    "2026-12-30": ["date"],
    "2026-09-09": ["date"],
    "2026-13-01": [],
    "%2b4915112345678": ["phone"],
    "+4915112345": ["phone"],
    "+4915112": ["number"],
    "+1 2 3 4 5": [],
    "+49151123": ["phone"],
    "+10000000000": ["number"],
    "a+4915112345678": ["number"],
    "A+4915112345678": ["number"],
    "2001:DB8::8A2E:370:7334": ["ip"],
    "a::b:c::d": [],
    "aa:bb:cc:dd": [],
    "::ffff:1": ["ip"],
    "999.1.1.1": [],
    "1.2.3.4": ["ip"],
    "507F1F77BCF86CD799439011": ["long-hex"],
    "aaaaaaaaaaaaaaaaaaaaa123": ["long-hex"],
    "aaaaaaaaaaaaaaaaaaaaaa12": [],
    "11111111111111111111111a": ["long-hex"],
    "111111111111111111111111": ["number"],
    "A3F9C27E": ["hex"],
    "abcde123": ["hex"],
    "abcdef12": [],
    "123456ab": ["hex"],
    "1234567a": ["number"],
    "zabcde123": [],
    "Zabcde123": [],
    "abcde123z": [],
    "abcde123Z": [],
    "eyJhbGciOiJ": ["secret"],
    "eyJhbGci": [],
    "sk_eu_abc123": ["secret"],
    "pk_us_abc123": ["secret"],
    "sa_sandbox_abc123": ["secret"],
    "Bearer abcdefghij123": ["secret"],
    "Basic abcdefghij123": ["secret"],
    "de89370400440532013000": ["iban"],
    "DE88370400440532013000": ["hex"],
    "DE89 3704 0044 0532 0130 00": ["iban"],
    "DE89  3704 0044 0532 0130 00": [],
    "DE89 3704 0044 0532 0130 00x": [],
    "DE89 3704 0044 0532 0130 00 x": ["iban"],
    "DE89370400440532013000 1": ["iban"],
    "DE89.370400440532013000": ["number"],
    "ABCD12 DE89370400440532013000": ["iban"],
    "ada@example.comx 4111111111111111, DE89370400440532013000": ["email", "card", "iban"],
    "4111111111111111 and ada@example.com": ["card", "email"],
    "ada@example.com4111111111111111": ["email", "card"],
}


@pytest.mark.parametrize(("text", "wanted"), MORE.items())
def test_which_parts_a_text_has(text: str, wanted: list[str]) -> None:
    assert kinds(text) == wanted
    assert kinds(f"{text} @") == wanted, "whatever the first look says"
    assert [part.kind for part in personal(text)] == [part.kind for part in personal(f"{text} @")]


def test_parts_that_touch_are_both_found() -> None:
    assert [(part.start, part.end) for part in parts("2026-11-24/2026-11-25")] == [(0, 10), (11, 21)]


@pytest.mark.parametrize(
    ("text", "plain", "impersonal"),
    [
        ("order_placed", True, True),
        ("step 12", True, True),
        ("a w.b", False, True),
        ("a W.b", False, True),
        ("eyJ", False, False),
        ("step 123", True, True),
        ("step 1234567", False, True),
        ("step 12345678", False, False),
        ("sk_us_123", True, False),
        ("pk_eu_123", True, False),
        ("sa_live_123", True, False),
        ("Bearer 123", True, False),
        ("eyJ 123", False, False),
        ("a@b", False, False),
        ("1.2.3", False, False),
    ],
)
def test_what_the_first_looks_rule_out(text: str, plain: bool, impersonal: bool) -> None:
    """Whatever may be a part is not ruled out; most of what is none, is."""
    if not plain:
        assert not is_plain(text) or parts(text) == []
    assert is_impersonal(text) == impersonal or text.startswith(("sk", "pk", "sa", "Be"))


def test_words_with_two_digits_are_ruled_out_at_once() -> None:
    assert is_plain("order placed 12")
    assert is_plain("OrderPlaced")
    assert is_impersonal("order placed 1234567")
    assert is_impersonal("OrderPlaced 1 2 3 4 5 6 7")
    assert not is_plain("order 1234567 w.")


def with_check_digit(digits: str, length: int) -> str:
    """A number of this length that begins so and passes Luhn's check."""
    body = (digits + "1234567890123456")[: length - 1]
    return next(body + str(last) for last in range(10) if _luhn(body + str(last)))


def _luhn(digits: str) -> bool:
    doubled = [int(sign) * (2 if at % 2 else 1) for at, sign in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


ISSUED = {
    16: ["40", "49", "51", "55", "62", "65", "6011", "2200", "2204", "2221", "2720", "3528", "3589"],
    15: ["34", "37"],
    14: ["36", "38", "3000", "3059"],
}
NOT_ISSUED = {
    16: ["39", "50", "56", "61", "63", "64", "66", "6010", "6012", "2199", "2205", "2220", "2721", "3527", "3590"],
    15: ["33", "35", "36", "38", "41", "62", "6011"],
    14: ["35", "37", "39", "40", "3060", "2999", "34", "62"],
    13: ["41", "36", "34"],
    17: ["41", "36", "34", "37", "51"],
}


@pytest.mark.parametrize(("length", "prefix"), [(length, each) for length, all in ISSUED.items() for each in all])
def test_each_issuer_has_its_prefixes_and_length(length: int, prefix: str) -> None:
    assert is_card(with_check_digit(prefix, length))
    assert not is_card(str(int(with_check_digit(prefix, length)) + 1))


@pytest.mark.parametrize(("length", "prefix"), [(length, each) for length, all in NOT_ISSUED.items() for each in all])
def test_other_prefixes_are_no_issuers(length: int, prefix: str) -> None:
    assert not is_card(with_check_digit(prefix, length))


def test_a_card_number_has_no_other_signs() -> None:
    assert is_card("4111_1111-1111 1111")
    assert not is_card("4111.1111.1111.1111")
    assert not is_card("\uff14" + "\uff11" * 15)


LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""


@pytest.mark.parametrize("country", LENGTHS.split())
def test_an_account_number_of_each_country(country: str) -> None:
    name, length = country[:2], int(country[2:])
    for size in (length, length + 1, length - 1):
        account = "1234567890" * 4
        body = account[: size - 4]
        rest = int("".join(str(int(sign, 36)) for sign in f"{body}{name}00")) % 97
        assert is_iban(f"{name}{98 - rest:02}{body}") == (size == length)
        assert ("iban" in kinds(f"x {name}{98 - rest:02}{body} y")) == (size == length)


def test_an_account_number_has_ten_digits() -> None:
    assert is_iban("MT84MALT011000012345MTLCAST001S")
    few = "ABCDEFGHIJ" * 2
    for digits, wanted in (("12345678", True), ("1234567", False)):
        body = (digits + few)[:14]
        rest = int("".join(str(int(sign, 36)) for sign in f"{body}NL00")) % 97
        assert is_iban(f"NL{98 - rest:02}{body}") == wanted


@pytest.mark.parametrize(
    ("address", "public"),
    [("4.255.255.255", False), ("5.0.0.1", True), ("9.9.9.9", True), ("2a00:1450:4001::1", True), ("fe80::1", False)],
)
def test_addresses_on_the_internet(address: str, public: bool) -> None:
    assert is_public_ip(address) == public


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("100.20.20.1", False),
        ("99.99.99.99", True),
        ("100.20.19.1", True),
        ("100.20.20.0", True),
        ("200.1.2.3", True),
        ("100.20.20.20", False),
        ("100.20.20", False),
    ],
)
def test_which_numbers_are_like_a_version(text: str, version: bool) -> None:
    assert is_like_a_version(text) == version


def test_a_milestone_has_three_digits_and_zeros_or_ends_in_three_zeros() -> None:
    assert all(map(is_milestone, ["12300", "1234000", "100"]))
    assert not any(map(is_milestone, ["12340", "123400"]))


def test_days_of_each_month() -> None:
    days = [f"2026{month:02}{day:02}" for month in range(1, 13) for day in (1, 9, 10, 29, 30, 31)]
    assert all(map(is_day, [*days, "190001", "209912"]))
    assert not any(map(is_day, ["20260001", "20261301", "20260100", "20260132", "189912", "210001"]))


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("order-8412377", "order"),
        ("order-8412377viewed", "order-viewed"),
        ("order-8412377-viewed", "order-viewed"),
        ("8412377 order 8412378 viewed", "order viewed"),
        ("order8412377.viewed", "order.viewed"),
        ("order8412377viewed", "order_viewed"),
        ("order#8412377/viewed", "order/viewed"),
        ("order=8412377viewed", "order_viewed"),
        ("x order8412377viewed", "x order_viewed"),
    ],
)
def test_the_separator_beside_a_part_stays(name: str, rest: str) -> None:
    assert without_parts(name) == rest


def test_a_text_is_cut_at_the_limit_and_parts_are_not() -> None:
    assert replaced("x" * 10, [], 10) == "x" * 10
    assert replaced("x" * 11, [], 10) == "x" * 10 + "…"
    part = Part("number", 8, 13)
    assert replaced("x" * 8 + "12345yy", [part], 10) == "x" * 8 + "<number>…"
    assert replaced("x" * 10 + "12345yy", [Part("number", 10, 15)], 10) == "x" * 10 + "…"
    assert replaced("x" * 9 + "12345yy", [Part("number", 9, 14)], 10) == "x" * 9 + "<number>…"
    assert replaced("12345y" * 3, [Part("number", 0, 5)], 2) == "<number>…"
    assert replaced("abc", [], 0) == "…"
    assert replaced_by("a12345b", [Part("number", 1, 6)], lambda part: "-") == "a-b"


def test_how_far_a_text_is_looked_at() -> None:
    address = "ada@example.com"
    for look in (parts, personal):
        assert len(look("x " * ((LIMIT + REACH - len(address)) // 2) + address)) == 1
        assert look("x " * ((LIMIT + REACH) // 2) + address) == []
    assert (LIMIT, REACH) == (4_096, 512)


def test_a_number_has_25_digits_at_most() -> None:
    assert number_of("9" * 25) == int("9" * 25)
    assert number_of(float("inf")) == float("inf")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1_700_000_000, 1.7e9),
        (1_700_000_000_000, 1.7e9),
        (1_700_000_000_000_000, 1.7e9),
        (1_700_000_000_000_000_000, 1.7e9),
        ("1700000000", 1.7e9),
        ("1700000000000", 1.7e9),
        (12, None),
        (True, None),
        (None, None),
        ([], None),
        ("2023-11-14T22:13:20Z", 1.7e9),
        ("2023-11-14T22:13:20", 1.7e9),
        ("2023-11-14T23:13:20+01:00", 1.7e9),
        ("2023-11-14T22:13:20.000000+00:00:00.00000", None),
        ("2023-11-14T22:13:20.000000+00:00:00.000000", None),
        ("2023-11-14T22:13:20.000000+00:00:00", 1.7e9),
        ("soon", None),
        ("x" * 41, None),
        ("2023-11-14T22:13:20.000000000000000+00:00", None),
        ("2023-11-14T22:13:20.00000000000000+00:00", 1.7e9),
    ],
)
def test_which_moment_a_value_tells(value: object, wanted: float | None) -> None:
    assert moment(value) == wanted


def test_each_unit_has_its_place() -> None:
    assert PER_SECOND == {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
    assert unit(1e17 - 16) == "microseconds"
    assert unit(1e20 - 16384) == "nanoseconds"


def test_years_begin_at_midnight_utc() -> None:
    assert year_of(1_767_225_599) == 2025
    assert year_of(1_767_225_600) == 2026


def test_an_account_number_needs_no_digits_in_a_row() -> None:
    assert [part.kind for part in personal("MT05MALT01100A1B2C3D4E5F6G7H8I9")] == ["iban"]


def test_parts_of_one_kind_may_touch_but_not_overlap() -> None:
    assert parts("+4915112345678%2B4930901820") == [Part("phone", 0, 14), Part("phone", 14, 27)]
    within = "MT70 MALT01100AAA NO9386011117947"
    assert kinds(within[-15:]) == ["iban"]
    assert parts(within) == [Part("iban", 0, len(within))]


def test_words_are_plain_without_a_search() -> None:
    for text in ("Basic plan 2", "the Be list", "sk_1.0"):
        assert is_plain(text)
        assert is_impersonal(text)
    assert is_impersonal("Desk_12345 and 67")


@pytest.mark.parametrize(
    ("attributes", "at"),
    [
        ({"created_at": 1_750_000_000}, 1_750_000_000),
        ({"createdAt": "2025-06-15T15:06:40Z"}, 1_750_000_000),
        ({"created_at": 1_750_000_000, "createdAt": 1}, 1_750_000_000),
        ({"created_at": None, "createdAt": 1_750_000_000}, None),
        ({"created": 1_750_000_000}, None),
        ({}, None),
    ],
)
def test_when_a_person_was_created_is_told_by_either_name(attributes: dict[str, object], at: float | None) -> None:
    assert created(attributes) == at


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/orders/4711/items", "/orders/{}/items"),
        ("/Orders/ITEMS", "/Orders/ITEMS"),
        ("/api/v2/oauth2.0/sign-up_now.html", "/api/v2/{}/sign-up_now.html"),
        ("/users/ada@example.com", "/users/{}"),
        ("/users/ada%40example.com/x", "/users/{}/x"),
        ("/t/123e4567-e89b-12d3-a456-426614174000", "/t/{}"),
        ("/reset/eyJhbGciOiJIUzIuNiJ9", "/reset/{}"),
        ("/reset/eyJhbGciOiJIUzIwNiJ.abcdefgh", "/reset/{}"),
        ("/wp-json/stra\u00dfe", "/wp-json/{}"),
        ("//a//", "//a//"),
        ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h"),
        ("/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/…"),
        ("/" + "a" * 41, "/{}"),
    ],
)
def test_of_a_path_words_stay(path: str, template: str) -> None:
    assert path_template(path) == template
    assert path_template(template) == template


@given(st.text())
def test_a_path_template_is_short_and_its_own_template(path: str) -> None:
    template = path_template(path)
    assert len(template) <= 8 * 41 + 2
    assert path_template(template) == template


def test_of_labels_the_latest_come_first_and_stay_readable() -> None:
    at = 1_750_000_000.0
    moments = [at + 1, at + 0.001, at, at - 1, 1.0, 0.0]
    for labels in ([place_label(each, None) for each in moments], [moment_label(each, each + 2) for each in moments]):
        assert labels == sorted(labels)
        assert [masked(label) for label in labels] == labels
        assert [moment_of(label) for label in labels] == moments
    assert labelled_moment(moment_label(at, at + 2.5) + "o") == (at, at + 2.5)
    assert labelled_moment(moment_label(at, at - 1)) == (at, at)
    assert labelled_moment(moment_label(at, at + 86_400)) == (at, at + 16_777.215)


def test_of_one_moment_the_later_places_in_a_batch_come_first() -> None:
    at = 1_750_000_000.0
    labels = [place_label(at, item) for item in (4_095, 1, 0)]
    assert labels == sorted(set(labels))
    assert {len(label) for label in labels} == {15}
    assert place_label(at, None) == place_label(at, 0)
    assert place_label(at, 4_095) < place_label(at, 4_094)
    assert place_label(at, 4_096) == place_label(at, 10**6) == place_label(at, 4_095)
