"""What a company sends in an hour: nothing is found where nothing is wrong, and everything that was planted."""

from collections import Counter

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import audit_recorded
from cio_proxy.facts import Store
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Finding, People, Settings
from cio_proxy.rules import RULES

from . import histories

PEOPLE = 900


def engine(people: People) -> Engine:
    return Engine(Settings(people=people), RULES, sealed_with(b"k" * 32))


async def found(people: People, *, planted: bool, store: Store) -> Counter[str]:
    sent = list((histories.planted if planted else histories.clean)(PEOPLE))
    findings: list[Finding] = await audit_recorded(sent, engine(people), store=store, end=sent[-1][0].at + 3600)
    return Counter(finding.rule for finding in findings)


async def test_clean_traffic_from_a_cold_start_gives_no_finding() -> None:
    assert await found("partial", planted=False, store=MemoryStore()) == {}


async def test_each_pitfall_that_was_planted_is_found_and_nothing_else() -> None:
    assert await found("partial", planted=True, store=MemoryStore()) == dict.fromkeys(histories.PLANTED, 1)
