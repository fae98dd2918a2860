"""Which part of a name is the most telling, and what makes a part uncertain."""

import pytest

from .alone import findings

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
