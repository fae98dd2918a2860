"""Nothing that is somebody's, and nothing secret, is left in a text that is shown, however it is spelled."""

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.masking import masked, masked_json, spellings
from cio_proxy.model import Exchange, Finding, Settings
from cio_proxy.recognise import LIMIT, personal
from cio_proxy.rules import RULES
from cio_proxy.sinks.record import encode, record

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
PAIR = base64.b64encode(f"{SITE}:{KEY}".encode()).decode()
SECRETS = [
    KEY.upper(),
    "20436C6351668B25A74A2C289A639D3F",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    "rk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "sk_us_9f8e7d6c5b",
    "sa_live_5b1f0c9ad27e4368",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2c3D4e5F6" * 3,
    "github_pat_11ABCDEFG0_abcdefghijklmnopqrstuvwxyz0123456789",
    "xoxb-123456789012-abcdefABCDEF",
    "xoxp-123456789012-123456789012-abcdef",
    "AIzaSyA1bcdefghijklmnopqrstuvwxyz-_01234",
    "SG.a1b2c3d4e5f6g7h8i9j0.k1l2m3n4o5p6q7r8s9",
    "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75\nx+/==\n-----END RSA PRIVATE KEY-----",
]
PEOPLE = {
    '"ada byron"@example.com': "email",
    "ada!tag@example.com": "email",
    "bounce+ada=example.com@mail.example.com": "email",
    "ada\uff20example.com": "email",
    "ada@example。com": "email",
    "ada%40example.com": "email",
    "ada%2540example.com": "email",
    "ada%252Btag%2540example.com": "email",
    "ada%EF%BC%A0example.com": "email",
    "ju\u0308rgen@example.com": "email",
    "ad\u200ba@example.com": "email",
    "ada@[81.2.69.142]": "email",
    "ada@my_host.example.com": "email",
    "+49\u00a0151\u00a012345678": "phone",
    "+49\u2009151\u202f12345678": "phone",
    "".join(chr(ord(sign) + 0xFEE0) for sign in "+4915112345678"): "phone",
    "%252B4915112345678": "phone",
    "0049 151 12345678": "phone",
    "004915112345678": "phone",
    "(555) 123-4567": "phone",
    "555-123-4567": "phone",
    "555_123_4567": "phone",
    "020 7946 0018": "phone",
    "0151/12345678": "phone",
    "01 23 45 67 89": "phone",
    "4915112345678": "number",
    "4111.1111.1111.1111": "card",
    "4111\u00a01111\u00a01111\u00a01111": "card",
    "3782.822463.10005": "card",
    "٤١١١١١١١١١١١١١١١": "card",
    "DE89.3704.0044.0532.0130.00": "iban",
    "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000": "iban",
    "fe80::1": "ip",
    "::1": "ip",
    "2001:db8::1": "ip",
}
KEPT = [
    "order_placed",
    "task_live_streaming_started",
    "disk_test_completed",
    "billing::invoice::paid",
    "12:30:45",
    "lodash@4.17.21",
    "logo@2x.png",
    "mentioned_@support",
    "größe_geändert_…",
    "full\uff0dwidth",
    "100%_done",
    "viewed_product_8412377",
    "viewed_507f1f77bcf86cd799439011",
    "6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38",
    "viewed_123e4567-e89b-12d3-a456-426614174000",
    "report_2026_11_24",
    "1700000000000 is a time in milliseconds, not in seconds",
    "2023-11-14T22:13:20+00:00 and 2023-11-14 22:13:20.123456",
    "the body is over the limit: 1,234,567 of 100,000 bytes",
    "/batch/12/attributes/created_at",
    "10.0.19045.1",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("frame", ["{}", "key {} here", "/data/{}/x", "my{}", "a_{}"])
def test_a_secret_is_taken_out_also_where_letters_touch_its_beginning(secret: str, frame: str) -> None:
    assert masked(frame.format(secret)) == frame.format("<secret>")


def test_a_private_key_goes_to_its_end_wherever_the_text_is_cut() -> None:
    assert masked("key: -----BEGIN EC PRIVATE KEY-----\\nMHcCAQEE oAoGCCqG") == "key: <secret>"
    assert masked("-----BEGIN PGP PRIVATE KEY BLOCK-----\n" + "abc+/1" * 10_000) == "<secret>…"


@pytest.mark.parametrize(("value", "kind"), PEOPLE.items())
@pytest.mark.parametrize("frame", ["{}", "see {} there", "https://example.com/?a={}&b=1", "/attributes/{}"])
def test_a_personal_value_is_taken_out_whole_in_every_spelling(value: str, kind: str, frame: str) -> None:
    assert masked(frame.format(value)) == frame.format(f"<{kind}>")


@pytest.mark.parametrize("text", KEPT)
def test_what_is_nobodys_is_shown_as_it_was_sent(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("secret", [KEY, "correct horse/battery~staple", "pässwörter", "Tr0ub4dor&3"])
@pytest.mark.parametrize("frame", ["{}", "x{}y", "{}{}", "a {} b"])
def test_a_known_secret_goes_in_every_spelling(secret: str, frame: str) -> None:
    known = spellings([secret, PAIR, "of"])
    escaped = secret.replace("~", "~0").replace("/", "~1")
    for spelling in (secret, secret.upper(), secret.lower(), escaped, quote(secret, safe=""), quote(quote(secret))):
        assert masked(frame.format(spelling, spelling), known) == frame.format("<secret>", "<secret>")
    assert masked("two of them", known) == "two of them"


WORD = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.!#$'*+-^_`{|}~ü", min_size=1, max_size=30)


@given(st.text(max_size=40), WORD, st.text(max_size=40))
def test_no_address_survives_in_any_text(before: str, local: str, after: str) -> None:
    text = f"{before} zq{local}zq@example.com {after}"
    assert f"{local}zq" not in masked(text)


@given(st.text(max_size=40), st.sampled_from(SECRETS), st.text(max_size=40))
def test_no_secret_survives_in_any_text(before: str, secret: str, after: str) -> None:
    assert secret not in masked(f"{before} {secret} {after}")


@given(st.text(max_size=40), st.text(st.characters(codec="ascii"), min_size=8, max_size=40), st.text(max_size=40))
def test_no_known_secret_survives_in_any_text(before: str, secret: str, after: str) -> None:
    if secret not in before + "<secret>" * 6 + after:
        assert secret not in masked(before + secret + after, spellings([secret]))


@given(st.text(alphabet="a1.-_@%+ :/F(0", max_size=80))
def test_what_a_rule_may_call_personal_is_never_shown(text: str) -> None:
    shown = masked(text)
    for part in personal(text):
        assert text[part.start : part.end] not in shown


def test_what_is_cut_off_leaves_no_half_of_a_value() -> None:
    for padding in range(LIMIT - 40, LIMIT + 8):
        text = " " * padding + "ada.byron@example.com and more" * 100
        assert "ada" not in masked(text)
    for shrinking in ("%41" * 1_600, "\u200b" * 4_590, f"{KEY} " * 230):
        assert "ada.by" not in masked(shrinking[: LIMIT + 500] + "ada.byron" + "x" * 600 + "@example.com", [KEY])


def test_numbers_that_may_be_somebodys_are_not_shown_either() -> None:
    values = {
        "n": [4915112345678, 4111111111111111, 4915112345678.0],
        "t": [1700000000000, 1700000000, 2.5, True, None],
    }
    assert masked_json(values) == {"n": ["<number>", "<card>", "<number>.0"], "t": values["t"]}


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a.",
            "a@",
            "@",
            '"',
            '"a"@',
            "&a=",
            "?a@",
            "=",
            "%4",
            "%25",
            "%2525",
            "%40",
            "ä",
            "\uff20",
            "\u200b",
            "ﷺ",
        ),
        *("1", "1 ", "1.", "0", "00 1", "4111 ", "4 ", "4111-", "DE89", "DE89 ", "d1", "f", "1f", ":", "1:", "::"),
        *(
            "(555)",
            "(55",
            "555-",
            "0123 ",
            "+1",
            "+1 ",
            "://a:",
            "eyJa.",
            "Basic ",
            "Bearer 1",
            "sk_live_",
            "sk-",
            "\0",
        ),
        *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-", "xoxb-", "gh", "SG.", "AKIA", "a@[", "\ud800"),
    ],
)
def test_hostile_texts_take_no_longer_than_others(unit: str) -> None:
    text = unit * 200_000
    started = time.process_time()
    assert len(masked(text)) <= 8 * LIMIT
    assert time.process_time() - started < 0.5


# --- through the engine ------------------------------------------------------------------------


def published(
    method: str, target: str, body: dict[str, Any], *, host: str = "track.customer.io"
) -> tuple[Finding, ...]:
    headers = ((b"Authorization", f"Basic {PAIR}".encode()),)
    exchange = Exchange(
        id="1",
        at=1.75e9,
        method=method,
        target=target.encode(),
        host=host,
        headers=headers,
        body=json.dumps(body).encode(),
    )
    engine = Engine(Settings(report="possible"), RULES, sealed_with(b"k" * 32))
    return engine.judge(engine.open(exchange), Reading()).findings


def in_the_journal(findings: tuple[Finding, ...]) -> str:
    """All texts of the findings as a reader of the journal gets them."""
    return json.dumps([json.loads(encode(record(finding))) for finding in findings], ensure_ascii=False)


SPELLED = [*PEOPLE, *SECRETS, f"my{KEY}x", f"x{PAIR}", f"x{SITE}x", KEY.upper()]


@pytest.mark.parametrize("value", SPELLED)
def test_no_value_in_a_name_reaches_the_journal(value: str) -> None:
    """Beside a value that the rules do find, so that there is a finding to show it."""
    name = f"Seen 6f1c2b7e-93d4-4c5a-8f20-1b7d9e4a6c38 {value}"
    findings = published("POST", "/api/v1/customers/42/events", {"name": name})
    assert findings
    assert value.strip("x") not in in_the_journal(findings)


@pytest.mark.parametrize("value", SPELLED)
def test_no_value_in_a_pointer_reaches_the_journal(value: str) -> None:
    findings = published("PUT", "/api/v1/customers/42", {f"{value}": {"seen_at": 1700000000000}})
    assert findings
    text = in_the_journal(findings)
    assert value.replace("~", "~0").replace("/", "~1").strip("x") not in text
    assert value.strip("x") not in text


@pytest.mark.parametrize("number", [4915112345678, "4915112345678", 447911123456, 989123456789, 4915112345678.0])
@pytest.mark.parametrize("field", ["created_at", "verified_at"])
def test_a_phone_number_where_a_time_belongs_is_never_repeated(number: object, field: str) -> None:
    findings = published("PUT", "/api/v1/customers/42", {"email": "ada@example.com", field: number})
    text = in_the_journal(findings)
    assert [f.rule for f in findings] == (["millisecond-timestamp"] if findings else [])
    assert field != "created_at" or findings
    digits = f"{float(str(number)):.0f}"
    assert digits not in text
    assert digits[:6] not in text


def test_a_time_in_milliseconds_is_shown_with_what_it_should_have_been() -> None:
    (finding,) = published("PUT", "/api/v1/customers/42", {"email": "ada@example.com", "created_at": 1700000000000})
    assert finding.evidence == 1700000000000
    assert finding.corrected == 1700000000
    assert "1700000000000" in finding.message


def test_a_fingerprint_tells_nothing_of_the_value_in_a_name() -> None:
    """It is no keyed hash: whoever has it could try all phone numbers."""
    one, other = (
        published("POST", "/api/v1/customers/42/events", {"name": f"Called ({area}) 123-4567"}) for area in (555, 212)
    )
    assert one[0].fingerprint == other[0].fingerprint


def test_a_trace_id_is_one_or_is_left_out() -> None:
    def traced(header: bytes) -> str | None:
        exchange = Exchange(
            id="1",
            at=1.75e9,
            method="PUT",
            target=b"/api/v1/customers/42",
            host="track.customer.io",
            headers=((b"traceparent", header),),
            body=b'{"email": "ada@example.com", "created_at": 1700000000000}',
        )
        engine = Engine(Settings(), RULES, sealed_with(b"k" * 32))
        return engine.judge(engine.open(exchange), Reading()).findings[0].trace_id

    assert traced(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == "0af7651916cd43dd8448eb211c80319c"
    assert traced(b"00-ada@example.com-b7ad6b7169203331-01") is None
