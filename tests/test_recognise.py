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
    changes,
    is_card,
    is_day,
    is_email,
    is_iban,
    is_impersonal,
    is_like_a_version,
    is_milestone,
    is_plain,
    is_public_ip,
    number_of,
    parts,
    personal,
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
