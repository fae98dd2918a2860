"""Facts of every kind, as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cio_proxy.model import MEMBERS, Deadline, Finding, Groups, Key, Origin, Sample, Span, Tally, Value

texts = st.text(st.characters(), max_size=4)  # also halves of surrogate pairs
times = st.floats(0, 2e9, allow_nan=False)
json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
spans = st.tuples(times, times, st.builds(Origin, texts, texts)).map(lambda t: Span(min(t[:2]), max(t[:2]), t[2]))
members = st.integers(0, 9) | st.integers(0, MEMBERS - 1)


def sample(limit: int, hashes: frozenset[int]) -> Sample:
    return Sample(limit, tuple(sorted(hashes)[:limit]))


samples = st.builds(sample, st.integers(1, 6), st.frozensets(members, max_size=8))
groups = st.builds(
    lambda limit, samples: Groups(limit, dict(sorted(samples.items())[:limit])),
    st.integers(1, 4),
    st.dictionaries(st.sampled_from("aBcé\ud800") | texts, samples, max_size=5),
)
tallies = st.dictionaries(st.sampled_from("abc") | texts, st.integers(0, 2**52), max_size=4).map(Tally)
findings = st.builds(
    Finding,
    rule=texts,
    severity=st.sampled_from(["error", "warning"]),
    confidence=st.just("likely"),
    pointer=texts,
    message=texts,
    effect=texts,
    fix=texts,
    corrected=json,
    evidence=json,
    related=st.lists(texts, max_size=2).map(tuple),
    whole=st.booleans(),
    time=times,
    item=st.none() | st.integers(0, 3),
    person=st.none() | texts,
    exchange=texts,
)
watched = st.lists(st.tuples(texts, texts, texts).map(lambda parts: Key(*parts)), max_size=2).map(tuple)
deadlines = st.builds(Deadline, st.sampled_from([1.0, 2.5]) | times, texts, watched, findings)

KINDS: dict[str, st.SearchStrategy[Value]] = {
    "span": spans,
    "sample": samples,
    "groups": groups,
    "tally": tallies,
    "deadline": deadlines,
}


def rank(deadline: Deadline) -> tuple[float, str, int]:
    """What says which of two deadlines stands; those of one rank are not told apart."""
    return deadline.at, deadline.seed.exchange, deadline.seed.item or 0
