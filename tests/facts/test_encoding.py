"""What is encoded is read again as it was, and what nobody can read stops nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.facts.encoding import decode, encode, packed, unpacked
from cio_proxy.model import Deadline, Finding, Key, Sample, Span, Value

from .values import KINDS

SEED = Finding(rule="r", severity="error", confidence="likely", pointer="/a", message="m", effect="e", fix="f")


@given(st.one_of(*KINDS.values()))
def test_a_value_is_read_as_it_was_written(value: Value) -> None:
    assert decode(encode(value)) == value


@given(st.one_of(*KINDS.values()), st.data())
def test_a_value_that_is_cut_short_is_read_as_nothing(value: Value, data: st.DataObject) -> None:
    encoded = encode(value)
    assert decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))]) is None


@given(st.binary(max_size=40))
def test_no_bytes_are_too_strange_to_be_passed_over(encoded: bytes) -> None:
    decode(encoded)


@pytest.mark.parametrize(
    "parts",
    [["s2", 1.0, 2.0], ["s", 1.0, 2.0, "e", "c", "more"], ["g", 3, ["a", 2]], ["d", 1.0, "e", 0, "r", [], "{"], {}, 7],
)
def test_a_form_of_another_version_is_passed_over(parts: object) -> None:
    assert decode(packed(parts)) is None


def test_what_a_later_version_adds_to_a_finding_is_passed_over() -> None:
    deadline = Deadline(1.0, "r", (Key("k", "w", "s"),), SEED)
    *parts, seed = unpacked(encode(deadline))
    assert decode(packed([*parts, seed.replace('"fix":"f"}', '"fix":"f","later":1}')])) == deadline


def test_only_the_hashes_of_a_set_are_kept() -> None:
    assert b"ada" not in encode(Sample(3, (1,), frozenset({"ada"})))
    assert decode(encode(Span(1, 2))) == Span(1.0, 2.0)
