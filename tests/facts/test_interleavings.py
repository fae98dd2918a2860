"""Whoever learns what, in whatever order, twice, and across restarts: every store ends in the same state."""

from __future__ import annotations

import asyncio
from functools import reduce
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cio_proxy.facts import Store
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.sqlite import SqliteStore
from cio_proxy.model import Deadline, Fact, Key

from .values import KINDS, rank

pytestmark = pytest.mark.once

LEARNERS = 2
facts = st.one_of(
    *(
        st.tuples(st.just(kind), st.sampled_from("ab"), values).map(lambda t: Fact(Key(t[0], "", t[1]), t[2], 60))
        for kind, values in KINDS.items()
    )
)


def told_apart(lesson: list[Fact]) -> bool:
    """Of two deadlines of one rank it is all the same which one stands."""
    ranks = [(fact.key, *rank(fact.value)) for fact in lesson if isinstance(fact.value, Deadline)]
    return len(ranks) == len(set(ranks))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, list[Fact] | None]]:
    """What is taught by whom, some of it twice; None is a restart of the learner."""
    lesson = draw(st.lists(facts, min_size=2, max_size=6).filter(told_apart))
    twice = draw(st.permutations(lesson + draw(st.lists(st.sampled_from(lesson), max_size=3))))
    steps = [draw(st.lists(st.just(fact), min_size=1, max_size=1)) for fact in twice]
    return [
        (draw(st.integers(0, LEARNERS - 1)), step)
        for fact_or_restart in steps
        for step in ([fact_or_restart, None] if draw(st.integers(0, 5)) == 0 else [fact_or_restart])
    ]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_every_interleaving_ends_in_the_same_state(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    numbers = count()
    memory = MemoryStore()
    url = request.getfixturevalue("redis") if kind == "redis" else ""

    def opened() -> Store:
        if kind == "memory":
            return memory  # what learns in one process
        if kind == "sqlite":
            return SqliteStore(tmp_path / "facts.sqlite")
        pytest.importorskip("redis")
        from cio_proxy.facts.redis import RedisStore

        return RedisStore(url)

    async def ended(history: list[tuple[int, list[Fact] | None]], name: str) -> dict[Key, Any]:
        stores = [opened() for _ in range(LEARNERS)]
        keys = set()
        for learner, step in history:
            if step is None:
                await stores[learner].close()
                stores[learner] = opened()
            else:
                taught = [fact._replace(key=fact.key._replace(workspace=name)) for fact in step]
                keys |= {fact.key for fact in taught}
                await stores[learner].join_many(taught, (), now=1)
        found = [(await store.get_many({key.of for key in keys}, (), 2)).records for store in stores]
        for store in stores:
            await store.close()
        assert found[0] == found[1]
        return {key: found[0][key.of][key.kind].value for key in keys}

    with asyncio.Runner() as runner:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(histories())
        def holds(history: list[tuple[int, list[Fact] | None]]) -> None:
            name = f"ws{next(numbers)}"
            expected: dict[Key, Any] = {}
            for _, step in history:
                for fact in step or ():
                    key = fact.key._replace(workspace=name)
                    expected[key] = reduce(lambda a, b: a.join(b), [expected.get(key, fact.value), fact.value])
            assert runner.run(ended(history, name)) == expected

        holds()
