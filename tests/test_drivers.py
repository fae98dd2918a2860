"""The driver of the doors: an exchange keeps the engine that it began with, and what fails is passed or refused."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import pytest

from cio_proxy.audit import Engine, Opened, sealed_with
from cio_proxy.drivers import Auditor
from cio_proxy.facts import Reading, workspace
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import (
    Call,
    Exchange,
    Fact,
    FactStore,
    Finding,
    Key,
    Known,
    Outcome,
    RuleSettings,
    Settings,
    Subject,
    Verdict,
)
from cio_proxy.rules import RULES

from .conftest import Collected

SEAL = sealed_with(b"k" * 32)
EXCHANGE = Exchange(
    id="e", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=b"{}"
)


def engine(name: str, settings: Settings = Settings()) -> Engine:  # noqa: B008 frozen
    """An engine whose one rule says its name, before and after the answer."""

    def check(call: Call, known: Known) -> Iterator[Finding]:
        yield RULES[0].info.finding("/early", name, effect="e", fix="f", confidence="certain")

    def review(call: Call, outcome: Outcome, known: Known) -> Iterator[Finding]:
        yield RULES[0].info.finding("/late", name, effect="e", fix="f", confidence="certain")

    return Engine(settings, [replace(RULES[0], check=check, review=review)], SEAL)


async def test_an_exchange_keeps_the_engine_it_began_with() -> None:
    sink = Collected()
    auditor = Auditor(engine("old"), MemoryStore(), [sink], lambda: 1.75e9)
    audit = await auditor.begin(EXCHANGE)
    auditor.engine = engine("new")
    await auditor.answered(audit, 200, b"{}")
    assert [(each.message, each.pointer) for each in sink.findings] == [("old", "/early"), ("old", "/late")]
    await auditor.begin(EXCHANGE)
    assert sink.findings[-1].message == "new"


async def test_while_bypassed_nothing_is_audited_and_what_is_known_starts_anew() -> None:
    sink, store = Collected(), MemoryStore()
    auditor = Auditor(engine("any"), store, [sink], lambda: 1.75e9)
    await auditor.answered(await auditor.begin(EXCHANGE), 200, b"{}")
    sink.findings.clear()
    auditor.bypass = True
    await auditor.answered(await auditor.begin(replace(EXCHANGE, at=1.75e9 + 60)), 200, b"{}")
    assert (sink.findings, [end.ending for end in sink.ends]) == ([], ["forwarded", "unaudited"])
    auditor.bypass = False
    audit = await auditor.begin(replace(EXCHANGE, at=1.75e9 + 90))
    assert audit.opened is not None
    assert audit.opened.watch.since == 1.75e9 + 60


@pytest.mark.parametrize("passed", ["unseen", "and one fact too many"])
async def test_once_a_fact_may_be_missing_unknown_people_prove_nothing_any_more(passed: str) -> None:
    sink, shown, store = Collected(), list[tuple[str, bool]](), MemoryStore()
    settings = Settings(people="complete")
    auditor = Auditor(
        Engine(settings, RULES, SEAL), store, [sink], lambda: 1.75e9, degraded=lambda part, on: shown.append((part, on))
    )
    event = replace(EXCHANGE, method="POST", target=b"/api/v1/customers/42/events", body=b'{"name": "order_placed"}')
    await auditor.begin(event)
    assert [finding.rule for finding in sink.findings] == ["track-before-identify"]
    if passed == "unseen":
        auditor.bypass = True
        await auditor.begin(EXCHANGE)
        auditor.bypass = False
    else:
        store.limit = 0
        await auditor.answered(await auditor.begin(replace(EXCHANGE, body=b'{"email": "a@example.com"}')), 200, b"{}")
    await auditor.begin(event)
    assert len(sink.findings) == 1
    assert shown == [("people", True)]
    await auditor.forget()
    await auditor.begin(event)
    assert len(sink.findings) == 2


async def test_where_nobody_was_imported_unknown_people_prove_nothing_but_in_the_sandbox() -> None:
    sink, shown, store = Collected(), list[tuple[str, bool]](), MemoryStore()
    settings = Settings(people="complete", upstream="live")
    auditor = Auditor(
        Engine(settings, RULES, SEAL), store, [sink], lambda: 1.75e9, degraded=lambda part, on: shown.append((part, on))
    )
    event = replace(EXCHANGE, method="POST", target=b"/api/v1/customers/42/events", body=b'{"name": "order_placed"}')
    audit = await auditor.begin(event)
    assert (sink.findings, shown) == ([], [("people", True)])
    assert await auditor.imported() == ()
    assert audit.opened is not None
    await store.join_many([workspace.imported(audit.opened.workspace, 1.75e9 - 60)], (), 1.75e9)
    assert await auditor.imported() == (audit.opened.workspace,)
    await auditor.begin(event)
    assert [finding.rule for finding in sink.findings] == ["track-before-identify"]
    assert shown == [("people", True), ("people", False)]
    await auditor.forget()
    await auditor.begin(event)
    assert len(sink.findings) == 1, "nobody is known any more"
    assert shown[-1] == ("people", True)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_the_log_names_the_store_that_failed(
    kind: Literal["memory", "sqlite", "redis"], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(facts=FactStore(kind, "somewhere"))
    await Auditor(Engine(settings, RULES, SEAL), Broken(), [], lambda: 1.75e9).begin(EXCHANGE)
    assert caplog.messages == [f"{kind} store failed, traffic goes on: ConnectionError"]


class Broken(MemoryStore):
    """A store that is down."""

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        raise ConnectionError

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        raise ConnectionError


async def test_a_store_that_is_down_is_counted_and_stops_nothing() -> None:
    sink, errors = Collected(), list[str]()
    auditor = Auditor(
        Engine(Settings(), RULES, SEAL), Broken(), [sink], lambda: 1.75e9, error=lambda part, error: errors.append(part)
    )
    late = b'{"email": "a@example.com", "created_at": 1700000000000}'
    audit = await auditor.begin(replace(EXCHANGE, body=late))
    assert (await auditor.answered(audit, 200, b"{}")).status == 200
    assert [end.ending for end in sink.ends] == ["forwarded"]
    assert [finding.rule for finding in sink.findings] == ["millisecond-timestamp"]
    assert errors == ["store", "store"], "once for reading, once for writing"


async def test_while_the_store_is_down_nobody_is_refused_for_being_unknown_and_it_heals() -> None:
    sink, shown, store = Collected(), list[tuple[str, bool]](), Weak()
    block = {"track-before-identify": RuleSettings(action="block")}
    settings = Settings(people="complete", enforcement="enforce", rules=block)
    auditor = Auditor(
        Engine(settings, RULES, SEAL), store, [sink], lambda: 1.75e9, degraded=lambda part, on: shown.append((part, on))
    )
    event = replace(EXCHANGE, method="POST", target=b"/api/v1/customers/42/events", body=b'{"name": "order_placed"}')
    refused = await auditor.begin(event)
    assert refused.verdict.refusal is not None
    store.down = True
    passed = await auditor.begin(event)
    assert passed.verdict.refusal is None
    assert (await auditor.answered(passed, 200, b"{}")).status == 200
    await auditor.beat(1.75e9)
    assert shown[-1] == ("store", True)
    store.down = False
    await auditor.beat(1.75e9)
    passed = await auditor.begin(event)
    assert passed.verdict.refusal is None, "what was taught meanwhile is not known"
    await auditor.answered(passed, 200, b"{}")
    assert [each for each in shown if each[0] == "store"][-1] == ("store", False)
    other = Auditor(Engine(settings, RULES, SEAL), store, [sink], lambda: 1.75e9)
    assert (await other.begin(event)).verdict.refusal is None, "nor by any other replica"


class Weak(MemoryStore):
    """A store that is down at times."""

    down = False

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        if self.down:
            raise ConnectionError
        return await super().get_many(subjects, announced, now)

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        if self.down:
            raise ConnectionError
        await super().join_many(facts, settled, now)


async def since(auditor: Auditor, at: float) -> float:
    """From when on nothing was missed, for an exchange of this time."""
    audit = await auditor.begin(replace(EXCHANGE, at=at))
    await auditor.answered(audit, 200, b"{}")
    assert audit.opened is not None
    return audit.opened.watch.since - 1.75e9


async def started(store: MemoryStore, at: float) -> Auditor:
    auditor = Auditor(Engine(Settings(), RULES, SEAL), store, (), lambda: 1.75e9)
    await auditor.beat(1.75e9 + at)
    return auditor


@pytest.mark.parametrize(("gap", "expected"), [(50, 0), (70, 90)])
async def test_a_gap_in_service_is_missed_everywhere_and_a_quick_restart_is_none(gap: int, expected: int) -> None:
    store = MemoryStore()
    first = await started(store, 0)
    assert await since(first, 1.75e9) == 0
    await first.beat(1.75e9 + 15)
    await first.beat(1.75e9 + 20)
    second = await started(store, 20 + gap)
    assert await since(second, 1.75e9 + 95) == expected
    third = await started(store, 100)
    assert await since(third, 1.75e9 + 101) == expected, "and it is known after the next one"


async def test_a_proxy_that_starts_with_nothing_known_has_missed_nothing() -> None:
    assert await since(await started(MemoryStore(), 500), 1.75e9 + 501) == 501


async def test_what_one_process_missed_everywhere_is_known_to_all_that_share_its_store() -> None:
    store = MemoryStore()
    first, second = await started(store, 0), await started(store, 0)
    assert await since(second, 1.75e9) == 0
    first.missed(1.75e9 + 5)
    await first.beat(1.75e9 + 10)
    await second.beat(1.75e9 + 10)
    assert await since(second, 1.75e9 + 11) == 5


async def test_a_store_that_forgot_everything_while_the_proxy_ran_has_lost_facts() -> None:
    store = MemoryStore()
    auditor = await started(store, 0)
    assert await since(auditor, 1.75e9) == 0
    await store.clear()
    await auditor.beat(1.75e9 + 10)
    assert await since(auditor, 1.75e9 + 11) == 11
    assert auditor._missed == {"": 1.75e9 + 10}
    await auditor.forget()
    await auditor.beat(1.75e9 + 20)
    assert auditor._missed == {}, "what is forgotten on purpose is not lost"


async def test_facts_that_are_lost_behind_an_answer_are_an_error_and_missed_in_their_workspace() -> None:
    errors, shown = list[str](), list[tuple[str, bool]]()
    auditor = Auditor(
        Engine(Settings(), RULES, SEAL),
        MemoryStore(),
        (),
        lambda: 1.75e9,
        error=lambda part, error: errors.append(part),
        degraded=lambda part, on: shown.append((part, on)),
    )
    auditor.lost_behind(1.75e9, "ws", TimeoutError())
    assert (errors, shown, auditor._missed) == (["store"], [("store", True)], {"ws": 1.75e9})
    await since(auditor, 1.75e9)
    assert shown[-1] == ("store", False)


@pytest.mark.parametrize("on_error", ["pass", "block"])
@pytest.mark.parametrize("fails", ["at once", "when it looks again"])
async def test_an_audit_that_fails_passes_or_is_refused_with_the_reason(fails: str, on_error: str) -> None:
    def check(call: Call, known: Known) -> Iterator[Finding]:
        yield RULES[0].info.finding("/x", "not known", effect="e", fix="f", confidence="certain", early=True)

    class Failing(Engine):
        looks = 0

        def judge(self, opened: Opened, reading: Reading, missed: float | None = None) -> Verdict:
            self.looks += 1
            if fails == "at once" or self.looks > 1:
                raise RuntimeError
            return super().judge(opened, reading, missed)

    block = {RULES[0].info.id: RuleSettings(action="block")}
    settings = Settings(on_error=on_error, enforcement="enforce", rules=block)  # type: ignore[arg-type]
    failing = Failing(settings, [replace(RULES[0], check=check)], SEAL)
    audit = await Auditor(failing, MemoryStore(), (), lambda: 1.75e9, looks=(0.0,)).begin(EXCHANGE)
    refusal = audit.verdict.refusal
    if on_error == "pass":
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.status == 400
        assert "the audit failed" in json.loads(refusal.body)["message"]
