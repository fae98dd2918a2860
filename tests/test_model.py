"""Joining facts is commutative, associative and idempotent, whatever the facts are; and the walk over a body."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.audit import Sealer, sealed_with
from cio_proxy.model import (
    Deadline,
    Finding,
    Groups,
    Json,
    Key,
    Origin,
    Sample,
    Span,
    Tally,
    keys_of,
    leaves,
    pointer,
    recalled,
    shape,
)

SEALER = Sealer(sealed_with(b"k" * 32))
times = st.floats(0, 2e9, allow_nan=False)
origins = st.builds(Origin, st.text(max_size=3), st.text(max_size=3))
spans = st.tuples(times, times, origins).map(lambda t: Span(min(t[:2]), max(t[:2]), t[2]))
samples = st.frozensets(st.text(max_size=4), max_size=12).map(lambda m: Sample(5, plain=m).sealed(SEALER))
groups = st.dictionaries(st.sampled_from("abcde"), samples, max_size=5).map(lambda g: Groups(3, g).join(Groups(3, {})))
tallies = st.dictionaries(st.sampled_from("abc"), st.integers(1, 99)).map(Tally)


def deadline(at: float, exchange: str) -> Deadline:
    seed = Finding(
        rule="r", severity="error", confidence="likely", pointer="", message="", effect="", fix="", exchange=exchange
    )
    return Deadline(at, "r", (), seed)


deadlines = st.builds(deadline, times, st.text(max_size=3))
each_kind = pytest.mark.parametrize(
    "values", [spans, samples, groups, tallies, deadlines], ids=["span", "sample", "groups", "tally", "deadline"]
)


@each_kind
def test_the_order_of_learning_does_not_matter(values: st.SearchStrategy[Any]) -> None:
    @given(values, values, values)
    def holds(a: Any, b: Any, c: Any) -> None:
        assert a.join(b) == b.join(a)
        assert a.join(b).join(c) == a.join(b.join(c))
        assert a.join(a) == a

    run: Callable[[], None] = holds
    run()


@each_kind
def test_what_says_nothing_new_changes_nothing_but_the_last_minute(values: st.SearchStrategy[Any]) -> None:
    @given(values, values)
    def holds(a: Any, b: Any) -> None:
        joined = a.join(b)
        if a.lacks(b):
            assert joined != a
        elif isinstance(a, Span):
            assert joined._replace(last=a.last) == a._replace(origin=joined.origin)
            assert joined.last - a.last < 60
        elif isinstance(a, Deadline):
            assert joined.at == a.at
        else:
            assert joined == a
        assert not joined.lacks(b)

    run: Callable[[], None] = holds
    run()


def test_a_name_is_readable_in_a_store_unless_something_in_it_is_personal() -> None:
    taught = Groups(8, {name: Sample(8, plain=frozenset({"o"})) for name in ("signed_up", "mail_ada@example.com")})
    labels = sorted(taught.sealed(SEALER).samples)
    assert labels == sorted(["signed_up", SEALER.label("mail_ada@example.com")])
    assert "ada" not in str(labels)
    key = Key("event-name", "ws", "signed_up", named=True)
    assert SEALER.key(key).subject == "signed_up"
    assert "ada" not in SEALER.key(key._replace(subject="mail_ada@example.com")).subject


@given(st.frozensets(st.text(max_size=6), max_size=30))
def test_a_small_set_is_counted_exactly_and_keeps_no_clear_member(members: frozenset[str]) -> None:
    sample = Sample(100, plain=members).sealed(SEALER)
    assert sample.count() == len(members)
    assert not sample.plain


def test_a_large_set_is_estimated_within_bounded_memory() -> None:
    sample = Sample(256)
    for start in range(0, 20_000, 500):
        taught = Sample(256, plain=frozenset(map(str, range(start, start + 500)))).sealed(SEALER)
        sample = sample.join(taught)
    assert len(sample.hashes) == 256
    assert 16_000 < sample.count() < 24_000


def test_a_sealed_key_shows_nothing_of_its_subject_and_depends_on_the_key() -> None:
    key = Key("identified", "ws", "email:ada@example.com")
    assert "ada" not in str(SEALER.key(key))
    assert SEALER.key(key) == SEALER.key(key)
    assert SEALER.key(key) != Sealer(sealed_with(b"x" * 32)).key(key)


def test_pointers_escape_as_rfc_6901_says() -> None:
    assert pointer("/batch/0", "a/b~c") == "/batch/0/a~1b~0c"
    assert pointer("", 0, "") == "/0/"


def test_leaves_come_in_order_with_their_path_however_deep() -> None:
    value: Json = {"a": [1, {"b/c": None}], "d": "x", "e": {}}
    assert [(leaf, keys_of(path)) for leaf, path in leaves(value)] == [
        (1, ["a", 0]),
        (None, ["a", 1, "b/c"]),
        ("x", ["d"]),
    ]
    deep = json.loads("[" * 400 + "7" + "]" * 400)
    assert [(leaf, len(keys_of(path))) for leaf, path in leaves(deep)] == [(7, 400)]


def test_what_is_computed_of_a_long_text_is_not_kept() -> None:
    asked: list[str] = []

    @recalled(10)
    def compute(text: str) -> int:
        asked.append(text)
        return len(text)

    short, long = "x" * 256, "x" * 257
    assert [compute(short), compute(short)] == [256, 256]
    assert [compute(long), compute(long)] == [257, 257]
    assert asked == [short, long, long]


def test_no_more_results_are_kept_than_the_limit_says() -> None:
    asked: list[str] = []
    recall = recalled(2)(asked.append)
    for text in ("a", "b", "b", "a", "c", "b"):
        recall(text)
    assert asked == ["a", "b", "c", "b"]


def test_a_shape_leaves_out_long_names() -> None:
    assert shape({"x" * 257: 1, "a": {"y" * 257: 1, "b": 2}}) == (("a", dict, (("b", int, ()),)),)
    assert len(shape({"x" * 256: 1})) == 1
