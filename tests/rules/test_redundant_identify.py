"""The latest identifies of a person: which they are, how long they count, and how they are told."""

from typing import Any

import pytest

from cio_proxy.model import Finding

from .alone import history, remembered

RULE = "redundant-identify"
URL = "track.customer.io/api/v1/customers/42"


async def found(*times: float, body: Any = None, **params: Any) -> list[Finding]:
    """What is said of identifies that all say the same, at these times."""
    sent = [(at, "PUT", URL, body or {"plan": "pro"}) for at in times]
    return await history(RULE, *sent, params={"times": 3, **params})


@pytest.mark.parametrize(
    ("seconds", "span"), [(2, "2 s"), (119, "119 s"), (120, "2 min"), (121, "2 min"), (1740, "29 min")]
)
async def test_the_finding_tells_how_many_there_were_and_within_what_time(seconds: float, span: str) -> None:
    (finding,) = await found(0, 1, seconds)
    assert finding.message == f"the latest 3 identifies of this person, within {span}, all say the same"


async def test_the_window_ends_with_its_last_moment() -> None:
    assert len(await found(0, 1, 3600)) == 1
    assert await found(0, 1, 3600.01) == []
    assert len(await found(0, 1, 7200, window=7200.0)) == 1


async def test_what_was_sent_at_one_moment_counts_once() -> None:
    assert await found(0, 0, 0) == []


async def test_two_identifies_of_one_moment_that_differ_are_a_change() -> None:
    url = "track.customer.io/api/v1/customers/42"
    same, other = {"plan": "pro"}, {"plan": "team"}
    sent = [(0, same), (1, same), (1, other), (2, same), (3, same)]
    said = await history(RULE, *((at, "PUT", url, body) for at, body in sent), params={"times": 3})
    assert said == []


async def test_a_heartbeat_is_no_repetition() -> None:
    assert await found(0, 1, 2, body={"active": True}) == []
    assert await found(0, 1, 2, body={"presence": 1, "plan": "pro"}) == []
    assert len(await found(0, 1, 2, body={"presence": 1, "plan": "pro"}, heartbeats=())) == 1
    assert len(await found(0, 1, 2, body={"active": True, "plan": "pro"})) == 1
    assert len(await found(0, 1, 2, body={"email": "ada@example.com"})) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_two_is_the_fewest_that_can_be_the_same(times: int) -> None:
    assert len(await found(0, 1, times=times)) == 1


async def test_a_person_who_was_deleted_at_the_moment_of_the_first_is_made_anew() -> None:
    same = [(at, "PUT", URL, {"plan": "pro"}) for at in (0, 1, 2)]
    assert await history(RULE, (0, "DELETE", URL, {}), *same, params={"times": 3}) == []
    assert len(await history(RULE, (-1, "DELETE", URL, {}), *same, params={"times": 3})) == 1


async def test_of_a_person_the_latest_identifies_are_remembered_without_what_they_said() -> None:
    sent = [(float(at), "PUT", URL, {"plan": f"p{at}"}) for at in range(5)]
    ((subject, value),) = (await remembered(RULE, *sent, params={"times": 4})).pop("identify-latest")
    assert "42" not in subject or len(subject) == 16
    assert len(value.samples) == 3
    assert all(len(said.hashes) == 1 for said in value.samples.values())


async def test_of_two_it_is_the_latest_that_counts() -> None:
    other, same = {"plan": "team"}, {"plan": "pro"}
    sent = [(float(at), "PUT", URL, body) for at, body in enumerate((other, same, same))]
    assert len(await history(RULE, *sent, params={"times": 2})) == 1
