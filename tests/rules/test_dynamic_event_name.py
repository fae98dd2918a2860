"""Which part of a name is the most telling, what makes a part uncertain, and which names are of one shape."""

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import Exchange, Finding, RuleSettings, Settings
from cio_proxy.recognise import parts
from cio_proxy.rules import RULES
from cio_proxy.rules.dynamic_event_name import is_fixed_name, shape_of

from .alone import NOW, findings, remembered

RULE = "dynamic-event-name"


def said(name: str) -> tuple[str, str] | None:
    found = findings(RULE, "POST", "track.customer.io/api/v1/customers/42/events", {"name": name})
    return (found[0].message.partition(" holds ")[2].partition(":")[0], found[0].confidence) if found else None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("viewed 123457", ("a long number", "likely")),
        ("viewed 12345", ("a long number", "possible")),
        ("viewed 20261127", ("a long number", "possible")),
        ("viewed 1.123457", ("a long number", "possible")),
        ("viewed 123457.1", ("a long number", "possible")),
        ("viewed 123457, 1", ("a long number", "likely")),
        ("viewed x123457", ("a long number", "likely")),
        ("viewed 2026-11-24", ("a date", "likely")),
        ("viewed 2026.11.24", ("a date", "possible")),
        ("viewed abc123def4", ("a hexadecimal id", "likely")),
        ("viewed abcd12345e", ("a hexadecimal id", "possible")),
        ("viewed abcde12345", ("a hexadecimal id", "possible")),
        ("error 0x8a0f1b2c3d", ("a hexadecimal id", "possible")),
        ("viewed https://example.com/a", ("a URL", "certain")),
        ("viewed https://example.com/", ("a URL", "possible")),
        ("viewed HTTPS://example.com", ("a URL", "possible")),
        ("viewed www.example.com", ("a URL", "possible")),
        ("viewed 507f1f77bcf86cd799439011", ("a long hexadecimal id", "certain")),
        ("viewed 12500", None),
        ("ISO 27001 read", None),
        ("iso_27001", None),
        ("iso 9 27001", ("a long number", "possible")),
        ("viewed 123457 507f1f77bcf86cd799439011", ("a long hexadecimal id", "certain")),
        ("viewed 123457 2026-11-24", ("a long number", "likely")),
        ("viewed 2026-11-24 123457", ("a date", "likely")),
        ("viewed 2026.11.24 123457", ("a long number", "likely")),
    ],
)
def test_the_most_telling_part(name: str, wanted: tuple[str, str] | None) -> None:
    assert said(name) == wanted


@pytest.mark.parametrize("person", ["ada@example.com", "4111111111111111", "DE89370400440532013000", "+4915112345678"])
def test_a_url_with_a_personal_value_is_another_rules(person: str) -> None:
    assert said(f"viewed https://example.com/?a={person}") is None
    assert said(f"viewed https://example.com/?a={person} 123457") == ("a long number", "likely")
    assert said("viewed https://example.com/?a=81.2.69.142") == ("a URL", "certain")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("viewed_product_812", "viewed_product_<number>"),
        (" viewed 8412377 ", "viewed <number>"),
        ("a812b", "a<number>b"),
        ("report 2026-11-24 of 812", "report <date> of <number>"),
        ("812 of 8412377", "<number> of <number>"),
        ("viewed abc123def4", "viewed <hex>"),
        ("error 2099 or 1899", "error 2099 or <number>"),
        ("report 20991", "report <number>"),
        ("zip 90210", "zip <number>"),
        ("zip 90210 of 100", "zip <number> of 100"),
        ("spent 1250", ""),
        ("spent 12500", ""),
        ("spent 1255", "spent <number>"),
        ("step 12", ""),
        ("v101", ""),
        ("V101", ""),
        ("moved to 1.101", ""),
        ("moved to 101.1", ""),
        ("black friday 2026", ""),
        ("sale 1999", ""),
        ("iso 27001", ""),
        ("opened 507f1f77bcf86cd799439011 812", ""),
        ("mail 812 ada@example.com", ""),
        ("x" * 496 + " 812", "x" * 496 + " <number>"),
        ("x" * 497 + " 812", ""),
        ("x 4711 of 2026-11-27", "x <number> of <date>"),
    ],
)
def test_the_shape_that_a_name_shares_with_others(name: str, shape: str) -> None:
    assert shape_of(name) == shape
    assert is_fixed_name(name) == (not shape and not parts(name))


CODES = "code err error exception exit http https response rfc smtp status"
VERSIONS = "v ver version release build sdk os ios android chrome edge firefox opera safari"
COUNTED = "day days week month season episode sprint streak chapter lesson level module page part phase question round"


@pytest.mark.parametrize("word", CODES.split())
def test_a_code_has_six_digits_at_most(word: str) -> None:
    assert [shape_of(f"{word}_{number}") for number in ("415", "123", "123457", "1234578")] == [
        "",
        "",
        "",
        f"{word}_<number>",
    ]


@pytest.mark.parametrize("word", VERSIONS.split())
def test_a_version_has_any_number_of_digits(word: str) -> None:
    assert {shape_of(f"{word}_{number}") for number in ("123", "123457", "1234578")} == {""}


@pytest.mark.parametrize("word", [*COUNTED.split(), "stage", "step"])
def test_what_goes_up_by_one_has_three_digits(word: str) -> None:
    assert [shape_of(f"{word}_{number}") for number in ("123", "1234")] == ["", f"{word}_<number>"]


@pytest.mark.parametrize(
    ("name", "few"),
    [
        ("api_error_123", True),
        ("apiError123", True),
        ("API ERROR: 123", True),
        ("error_5_1.2 123", True),
        ("iOS 123", True),
        ("terror_123", False),
        ("error_in_123", False),
        ("order" + "_" * 10 + "123", False),
        ("error" + "_" * 35 + "123", True),
        ("error" + "_" * 36 + "123", False),
        ("seen_404", True),
        ("502_seen", True),
        ("seen_599", False),
        ("seen_199", False),
        ("seen_202601", True),
        ("seen_202612", True),
        ("seen_202613", True),
        ("seen_202600", False),
        ("seen_202653", True),
        ("seen_202654", False),
        ("seen_012026", True),
        ("seen_122026", True),
        ("seen_121999", True),
        ("seen_132026", False),
        ("seen_002026", False),
        ("seen_121899", False),
        ("seen_189912", False),
        ("seen_1999", True),
        ("seen_1899", False),
        ("seen_20261124", False),
        ("seen_12026", False),
        ("seen_0122026", False),
        ("seen_20261", False),
        ("seen_2026011", False),
        ("seen_41230", False),
        ("seen_412000", True),
    ],
)
def test_which_numbers_make_few_names(name: str, few: bool) -> None:
    assert (shape_of(name) == "") == few


@pytest.mark.parametrize(
    ("number", "confidence"),
    [
        ("24112026", "possible"),
        ("11242026", "possible"),
        ("31122026", "possible"),
        ("12311999", "possible"),
        ("24012026", "possible"),
        ("01242026", "possible"),
        ("32112026", "likely"),
        ("24132026", "likely"),
        ("13322026", "likely"),
        ("24111899", "likely"),
        ("241120261", "likely"),
        ("202648", "possible"),
        ("112026", "possible"),
    ],
)
def test_a_day_or_a_month_may_end_with_its_year(number: str, confidence: str) -> None:
    assert said(f"seen_{number}") == ("a long number", confidence)


def test_a_long_number_of_few_is_only_possible() -> None:
    assert said("build_8412377") == ("a long number", "possible")
    assert said("error_123457") == ("a long number", "possible")
    assert said("error_8412377") == ("a long number", "likely")


async def test_all_names_of_a_shape_are_one_finding_by_their_fingerprint() -> None:
    found = await played(
        [f"viewed_product_{number}" for number in (811, 812, 813, 814, 815, 816, 817, 818, 819, 821, 822, 823, 811)]
    )
    assert [(finding.confidence, finding.name) for finding in found] == [("certain", "viewed_product_<number>")] * 3
    assert len({finding.fingerprint for finding in found}) == 1
    assert [finding.evidence for finding in found] == ["viewed_product_822", "viewed_product_823", "viewed_product_811"]


async def test_names_that_are_blocked_teach_nothing_so_the_first_ones_go_on() -> None:
    blocking = Settings(enforcement="enforce", rules={RULE: RuleSettings(action="block")})
    names = [f"viewed_product_8{number}1" for number in range(10)]
    found = await played([*names, "viewed_product_777", *names, "viewed_product_778"], blocking)
    assert [(finding.action, finding.evidence) for finding in found] == [
        ("blocked", "viewed_product_777"),
        ("blocked", "viewed_product_778"),
    ]


async def played(names: list[str], settings: Settings | None = None) -> list[Finding]:
    """What is found in events of these names, one after the other."""
    sent = [
        (
            Exchange(
                id=str(number),
                at=NOW + number,
                method="POST",
                target=b"/api/v1/customers/42/events",
                host="track.customer.io",
                headers=(),
                body=b'{"name": "%s"}' % name.encode(),
            ),
            Recorded(NOW + number, 200),
        )
        for number, name in enumerate(names)
    ]
    rules = tuple(rule for rule in RULES if rule.info.id == RULE)
    return await audit_recorded(sent, Engine(settings or Settings(), rules, sealed_with(b"k" * 32)))


async def test_only_names_of_a_shape_are_remembered() -> None:
    url = "track.customer.io/api/v1/customers/42/events"
    names = ["viewed_product_811", "viewed_product_812", "step_1", "opened_507f1f77bcf86cd799439011"]
    kept = await remembered(RULE, *((float(at), "POST", url, {"name": name}) for at, name in enumerate(names)))
    ((subject, value),) = kept.pop("event-names")
    assert kept == {}
    assert subject == "viewed_product_<number>"
    assert value.count() == 2
