"""The engine's drivers: one for the doors, one for recorded exchanges. They own the store and the clock."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cio_proxy.apis import surface, track_v2
from cio_proxy.apis.refusals import refused
from cio_proxy.audit import CLEAN, UNREAD, Engine, Limited, Opened, RuleError
from cio_proxy.facts import Reading, Store, stores, workspace
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import (
    NOTHING,
    Call,
    End,
    Ending,
    Exchange,
    FactStore,
    Finding,
    Key,
    Outcome,
    OutcomeKind,
    Seal,
    Settings,
    Sink,
    Verdict,
    Waits,
)
from cio_proxy.pacing import Pacing
from cio_proxy.rules import RULES
from cio_proxy.watchdog import Overdue

log = logging.getLogger("cio_proxy")

HEADER_LIMIT = 1024
AUDIT_FAILED = "blocked by cio-proxy: the audit failed and on_error is block"
UNWATCHED: AbstractContextManager[None] = nullcontext()
BEAT_SECONDS = 10.0
"""How often it is written down that a proxy is alive."""
GAP_SECONDS = 60.0
"""How long none may have been at the start: after that, something may have passed unseen."""
LOOKS: Final = (0.02, 0.1, 0.2)
"""Seconds after which it is looked again for what is not known: two requests of an app may overtake each other."""
MISSED = 1_000
"""How many workspaces it is known of one by one that something passed unseen."""
NO_ITEMS: frozenset[int] = frozenset()
NO_KEYS: frozenset[Key] = frozenset()
_WORST = ("blocked", "would_block", "logged", "exempt", "baselined")


@dataclass(slots=True)
class Audit:
    """One exchange on its way through the proxy, and the engine that it began with."""

    exchange: Exchange
    engine: Engine
    opened: Opened | None
    verdict: Verdict
    header: str
    seconds: float
    marks: Sequence[Key] = ()
    """What it has announced, and is to take back."""
    is_early: bool = False
    """True where something was found that its answer may show to be wrong."""


class Answer(NamedTuple):
    """What the client is to get. A body of None leaves the upstream's as it is."""

    status: int
    body: bytes | None


class Recorded(NamedTuple):
    """The answer of a recorded exchange. A status of None says that none was captured."""

    at: float
    status: int | None
    body: bytes = b""
    location: str | None = None
    waits: tuple[Waits, ...] = ()
    """What a probe had come to know by it."""


class Auditor:
    """The asynchronous driver. Whatever goes wrong inside it, traffic goes on (unless `on_error: block`).

    `error` is told of each error, by the part that failed, and `degraded` of the parts that do not do their work, and
    of those that do again. A part is `audit`, `sink`, `store`, or `people`: what is known is not every person.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        sinks: Sequence[Sink],
        clock: Callable[[], float] = time.time,
        *,
        pacing: Pacing | None = None,
        looks: Sequence[float] = (),
        watchdog: AbstractContextManager[None] = UNWATCHED,
        error: RuleError = lambda part, error: None,
        degraded: Callable[[str, bool], None] = lambda part, on: None,
        looked: Callable[[Sequence[Call]], None] = lambda calls: None,
    ) -> None:
        self._engine = engine
        self._bypass = False
        self.store = store
        self.sinks = tuple(sinks)
        self.clock = clock
        self._pacing = pacing
        """Holds what comes too early; recorded exchanges are not held."""
        self._looks = looks
        """Seconds between looks at what is not known; recorded exchanges come in their order."""
        self._watchdog = watchdog
        self._error = error
        self._degraded = degraded
        self._looked = looked
        """Told of what stands for a request of the app's own users, each time that rules look at it."""
        self._failing: set[str] = set()
        """What the store did not do when it was asked last."""
        self._told: set[str] = set()
        self._missed: dict[str, float] = {}
        """When something passed unseen last, by the workspace; "" stands for all of them."""
        self._beaten: float | None = None
        """When it was written down last that this proxy is alive."""
        self._partial: set[str] = set()
        """The workspaces of which not every person is known, although the configuration says so."""

    @property
    def engine(self) -> Engine:
        """Judges what begins from now on. Another one may take its place while traffic flows."""
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        engine.follow(self._engine)
        self._engine = engine
        self._hold_or_let_go()

    @property
    def bypass(self) -> bool:
        """True while nothing is audited."""
        return self._bypass

    @bypass.setter
    def bypass(self, on: bool) -> None:
        self._bypass = on
        self._hold_or_let_go()

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self.engine.settings

    async def begin(self, exchange: Exchange) -> Audit:
        """Judge an exchange before it is forwarded, and report what was found."""
        started = time.perf_counter()
        engine = self.engine
        opened: Opened | None = None
        verdict = CLEAN
        if self.bypass:
            self.missed(exchange.at)
        elif exchange.body is not None:
            try:
                with self._watchdog:
                    opened = engine.open(exchange)
                verdict = await self._judged(engine, opened, opened.announced)
                if engine.settings.people == "complete" and opened.subjects:
                    self._note_people(opened)
            except (Exception, Overdue) as error:
                verdict = self._unjudged(engine, error)
                self.missed(exchange.at)
        seconds = time.perf_counter() - started
        marks, is_early = opened.marked if opened else (), False
        if opened is not None and self._looks and any(each.early for each in verdict.findings):
            if _is_hasty(verdict):
                verdict = await self._patiently(engine, opened)
            elif verdict.refusal is None:
                is_early = True
                verdict = replace(verdict, findings=tuple(each for each in verdict.findings if not each.early))
        if opened is not None and verdict.refusal is None and (limited := engine.limit(opened)) is not None:
            verdict = await self._limited(engine, opened, verdict, limited)
        header = findings_header(verdict.findings) if verdict.findings and engine.settings.findings_header else ""
        audit = Audit(exchange, engine, opened, verdict, header, seconds, marks, is_early)
        self._report(verdict.findings)
        return audit

    async def _judged(self, engine: Engine, opened: Opened, announced: Set[Key] = NO_KEYS) -> Verdict:
        """The verdict by what is known now. Raises what the engine raises."""
        reading = await self._read(opened, announced)
        with self._watchdog:
            return engine.judge(opened, reading, self._missed_of(opened))

    async def _again(self, engine: Engine, opened: Opened) -> Verdict:
        """The verdict by what is known by now; what it was announced for is marked already."""
        try:
            return await self._judged(engine, opened)
        except (Exception, Overdue) as error:
            return self._unjudged(engine, error)

    async def _patiently(self, engine: Engine, opened: Opened) -> Verdict:
        """Look again before something is refused because something is not known."""
        verdict = CLEAN
        for seconds in self._looks:
            await asyncio.sleep(seconds)
            verdict = await self._again(engine, opened)
            if not _is_hasty(verdict):
                break
        return verdict

    def _unjudged(self, engine: Engine, error: BaseException) -> Verdict:
        self._failed("audit", error)
        if engine.settings.on_error != "block":
            return CLEAN
        return Verdict(refusal=refused("audit failed", "audit_failed", AUDIT_FAILED))

    async def answered(
        self,
        audit: Audit,
        status: int,
        body: bytes | None,
        *,
        upstream_seconds: float | None = None,
        location: str | None = None,
        closed: bool = False,
        waits: tuple[Waits, ...] = (),
    ) -> Answer:
        """Settle an exchange that has its answer; what it taught is stored before this returns.

        `location` is that of a redirect to the other region; `closed`: the answer ends the client's connection; `waits`
        is what a probe came to know by it.
        """
        answer = Answer(status, None)
        verdict = audit.verdict
        ending: Ending = "forwarded" if audit.opened is not None else "unaudited"
        kept, cut = None, NO_ITEMS
        if verdict.refusal is not None:
            ending = "blocked"
        elif verdict.cut is not None:
            ending, kept, cut = "partial", verdict.cut.kept, verdict.refused_items
            try:
                told, merged = track_v2.merged(verdict.cut, status, body or b"")
                answer = Answer(told, None if merged is body else merged)
            except (Exception, Overdue) as error:
                self._failed("audit", error)
        outcome = Outcome(
            kind=outcome_kind(answer.status),
            at=self.clock(),
            status=answer.status,
            refused_items=cut | track_v2.refused_by(status, body, kept),
            body=body,
            location=location,
            closed=closed,
            waits=waits,
        )
        await self._settle(audit, outcome)
        self._end(audit, ending, answer.status, upstream_seconds)
        return answer

    async def lost(self, audit: Audit, *, location: str | None = None) -> None:
        """Settle an exchange whose answer never reached the client: nobody knows what became of it."""
        await self._settle(audit, Outcome(kind="unknown", at=self.clock(), location=location))
        self._end(audit, "failed", None, None)

    @property
    def watches_app(self) -> bool:
        """Whether the latency probe is to watch: something is audited, and a rule looks at what it tells."""
        return not self.bypass and self.engine.watches_app

    def noticed(self, exchange: Exchange, status: int, waits: tuple[Waits, ...]) -> None:
        """Judge what the latency probe has come to know by this answer of the app's to one of its users.

        That request is no exchange with Customer.io: it is counted as passed, and nothing is known of it or learned.
        """
        engine = self.engine
        outcome = Outcome(kind=outcome_kind(status), at=self.clock(), status=status, waits=waits)
        try:
            with self._watchdog:
                opened = engine.open(exchange)
                settled = engine.settle(opened, outcome)
        except (Exception, Overdue) as error:
            self._failed("audit", error)
        else:
            self._looked(opened.calls)
            self._report(settled.findings)

    def unaudited(self, exchange: Exchange) -> Audit:
        """An exchange that passes without a look."""
        return Audit(exchange, self.engine, None, CLEAN, "", 0.0)

    def unread(self, exchange: Exchange) -> None:
        """Count a request that could not even be parsed."""
        self._end(self.unaudited(exchange), "failed", None, None)

    async def expire(self, now: float) -> None:
        """Give the findings of deadlines that have passed."""
        try:
            if due := await self.store.due(now):
                subjects = {key.of for _, deadline in due for key in deadline.watch}
                subjects |= {workspace.subject(key.workspace) for key, _ in due}
                reading = await self.store.get_many(subjects, (), now)
                self._report(self.engine.expire(due, reading, now, max(self._missed.values(), default=None)))
                await self.store.acknowledge([key for key, _ in due])
        except (Exception, Overdue) as error:
            self._store_failed("expire", error)
        else:
            self._store_did("expire")

    async def beat(self, now: float) -> None:
        """Every ten seconds: write down that a proxy is alive, share what was missed, and let the store be tended.

        Call it before traffic comes: after a gap nothing proves any more that a person is new.
        """
        if self._beaten is not None and 0 <= now - self._beaten < BEAT_SECONDS:
            return
        try:
            await self.store.tend(now)
            record = (await self.store.get_many([workspace.EVERY], (), now)).records.get(workspace.EVERY, NOTHING)
            alive, lost = workspace.span(record, workspace.ALIVE), workspace.span(record, workspace.LOST)
            if lost is not None:
                self.missed(lost.last)
            has_forgotten = alive is None and self._beaten is not None
            if has_forgotten or (self._beaten is None and alive is not None and now - alive.last > GAP_SECONDS):
                self.missed(now)
            facts = [workspace.alive(now)]
            told = workspace.sites_in(record)
            if not self.engine.sites <= set(told):
                facts.append(workspace.sites(self.engine.sites))
            for site in told:
                self.engine.sites.add(site)
            missed = self._missed.get("")
            if missed is not None and (lost is None or lost.last < missed):
                facts.append(workspace.lost_everywhere(missed))
            await self.store.join_many(facts, (), now)
            self._beaten = now
        except (Exception, Overdue) as error:
            self._store_failed("beat", error)
        else:
            for what in ("beat", "read", "write"):
                self._store_did(what)

    def lost_behind(self, at: float, workspace: str, error: BaseException) -> None:
        """Facts of a workspace were lost after their exchange had been answered."""
        self._store_failed("write", error)
        self.missed(at, workspace)

    def missed(self, at: float, workspace: str = "") -> None:
        """Something passed that is in no fact, in one workspace or in any: until then nothing proves that it is new."""
        if workspace and len(self._missed) >= MISSED:
            workspace = ""
        self._missed[workspace] = max(at, self._missed.get(workspace, at))

    async def imported(self) -> tuple[str, ...]:
        """The workspaces whose people were imported, and nothing missed since. Raises what the store raises."""
        names = {key.workspace async for key, _ in self.store.scan(workspace.IMPORTED)}
        now, subjects = self.clock(), {name: workspace.subject(name) for name in names}
        records = (await self.store.get_many(subjects.values(), (), now)).records

        def is_whole(name: str) -> bool:
            missed = max(filter(None, map(self._missed.get, ("", name))), default=None)
            return workspace.watch(records.get(subjects[name], NOTHING), now, missed).whole

        return tuple(sorted(filter(is_whole, names)))

    async def forget(self) -> None:
        """Forget everything that is known."""
        await self.store.clear()
        self._missed.clear()
        self._partial.clear()
        self.engine.sites.clear()
        self._degraded("people", False)
        self._beaten = None
        await self.beat(self.clock())

    @property
    def _holds(self) -> bool:
        """As it is now, not as it was when an exchange began: what is held then would be overtaken."""
        return not self._bypass and self.engine.paces

    def _hold_or_let_go(self) -> None:
        if self._pacing is not None and not self._holds:
            self._pacing.let_go()

    async def _limited(self, engine: Engine, opened: Opened, verdict: Verdict, limited: Limited) -> Verdict:
        """Hold what comes too early, or refuse it. Without the store, or a way to hold anything, it passes."""
        try:
            if not limited.refuses:
                if self._pacing is not None:
                    people = {call.subject for call in opened.calls if call.subject is not None}
                    await self._pacing.hold(limited.key, limited.rate, people, limited.urgent, self._holds)
            elif not limited.urgent:
                slots = await self.store.reserve(limited.key, 1, limited.rate._replace(ahead=0.0))
                if not slots.granted:
                    verdict = engine.over(opened, verdict, limited.limit, slots.first)
        except (Exception, Overdue) as error:
            self._store_failed("reserve", error)
        else:
            self._store_did("reserve")
        return verdict

    async def _read(self, opened: Opened, announced: Set[Key]) -> Reading:
        if not opened.subjects:
            return UNREAD
        try:
            reading = await self.store.get_many(opened.subjects, announced, opened.exchange.at)
        except (Exception, Overdue) as error:
            self._store_failed("read", error)
            self._missed_by(opened, opened.exchange.at)
            return UNREAD
        self._store_did("read")
        return reading

    def _note_people(self, opened: Opened) -> None:
        name, whole = opened.workspace, opened.watch.whole
        if whole is (name in self._partial):
            if whole:
                self._partial.discard(name)
            elif len(self._partial) < MISSED:
                self._partial.add(name)
            self._degraded("people", bool(self._partial))

    def _missed_by(self, opened: Opened, at: float) -> None:
        self.missed(at, opened.workspace)
        if opened.joined is not None:
            self.missed(at, opened.joined)

    def _missed_of(self, opened: Opened) -> float | None:
        if not self._missed:
            return None
        names = ("", opened.workspace, opened.joined)
        times = [self._missed[each] for each in names if each is not None and each in self._missed]
        return max(times, default=None)

    async def _settle(self, audit: Audit, outcome: Outcome) -> None:
        opened = audit.opened
        if opened is None:
            return
        if audit.is_early:
            verdict = await self._again(audit.engine, opened)
            self._report(each for each in verdict.findings if each.early)
        try:
            with self._watchdog:
                settled = audit.engine.settle(opened, outcome)
        except (Exception, Overdue) as error:
            self._failed("audit", error)
            self._missed_by(opened, outcome.at)
            return
        marks = audit.marks
        if settled.facts or marks:
            try:
                await self.store.join_many(settled.facts, marks, outcome.at)
            except (Exception, Overdue) as error:
                self._store_failed("write", error)
                self._missed_by(opened, outcome.at)
            else:
                self._store_did("write")
        self._report(settled.findings)

    def _store_failed(self, what: str, error: BaseException) -> None:
        self._failing.add(what)
        self._failed("store", error)

    def _store_did(self, what: str) -> None:
        if what in self._failing:
            self._failing.discard(what)
            self._degraded("store", bool(self._failing))

    def _report(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            for sink in self.sinks:
                self._guarded(sink.found, finding)

    def _end(self, audit: Audit, ending: Ending, status: int | None, upstream_seconds: float | None) -> None:
        opened = audit.opened
        end = End(
            exchange=audit.exchange,
            api=opened.calls[0].api if opened else surface(audit.exchange, audit.engine.settings.webhooks.paths),
            ending=ending,
            calls=opened.calls if opened else (),
            client=opened.client if opened else "other",
            status=status,
            audit_seconds=audit.seconds,
            upstream_seconds=upstream_seconds,
            repeated=opened is not None and opened.moot,
        )
        for sink in self.sinks:
            self._guarded(sink.ended, end)

    def _guarded[T](self, tell: Callable[[T], None], what: T) -> None:
        try:
            tell(what)
        except (Exception, Overdue) as error:
            self._failed("sink", error)

    def _failed(self, part: str, error: BaseException) -> None:
        """Tell of each error, and log each kind once: by its type, since its text may hold values as they were sent."""
        self._error(part, error)
        self._degraded(part, True)
        refused = part == "audit" and self.settings.on_error == "block"
        name = f"{self.settings.facts.kind if self.settings.facts else 'memory'} store" if part == "store" else part
        kind = f"{name} failed, {'what it concerns is refused' if refused else 'traffic goes on'}"
        kind = f"{kind}: {type(error).__name__}"
        if kind not in self._told:
            self._told.add(kind)
            log.warning(kind)


class _Found:
    """A sink that keeps findings in memory, for runs that end."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def ended(self, end: End) -> None:
        pass


async def audit_recorded(
    exchanges: Iterable[tuple[Exchange, Recorded | None]],
    engine: Engine,
    *,
    store: Store | None = None,
    end: float | None = None,
) -> list[Finding]:
    """Audit recorded exchanges, in their order and by their own time; return the findings.

    Without an answer an exchange counts as unknown. Deadlines run up to `end`, else up to the last
    exchange; what is still open then is pending, and no finding.
    """
    now = 0.0
    sink = _Found()
    auditor = Auditor(engine, store or MemoryStore(), [sink], lambda: now)
    waiting: list[tuple[float, int, Audit, Recorded | None]] = []

    async def answer(before: float) -> None:
        nonlocal now
        while waiting and waiting[0][0] <= before:
            now, _, audit, recorded = heapq.heappop(waiting)
            if audit.verdict.refusal is not None:
                await auditor.answered(audit, audit.verdict.refusal.status, None)
            elif recorded is None or recorded.status is None:
                await auditor.lost(audit)
            else:
                await auditor.answered(
                    audit,
                    recorded.status,
                    recorded.body,
                    location=recorded.location if 300 <= recorded.status < 400 else None,
                    waits=recorded.waits,
                )
        now = before

    for number, (exchange, recorded) in enumerate(exchanges):
        await answer(exchange.at)
        await auditor.expire(exchange.at)
        audit = await auditor.begin(exchange)
        heapq.heappush(waiting, (recorded.at if recorded else exchange.at, number, audit, recorded))
    await answer(float("inf"))
    if end is not None:
        await auditor.expire(end)
    return sink.findings


def build(
    settings: Settings, *, seal: Seal, sinks: Sequence[Sink] = (), clock: Callable[[], float] = time.time
) -> Auditor:
    """An auditor with the shipped rules, and a store where the settings say. Raises Unusable."""

    def lost(at: float, workspace: str, error: BaseException) -> None:
        auditor.lost_behind(at, workspace, error)

    store = stores.opened(settings.facts or FactStore("memory"), settings.facts_limit, lost)
    auditor = Auditor(Engine(settings, RULES, seal), store, sinks, clock, looks=LOOKS)
    return auditor


def _is_hasty(verdict: Verdict) -> bool:
    """Whether something is to be refused that the next moments may show to be right."""
    return any(each.early and each.action == "blocked" for each in verdict.findings)


def outcome_kind(status: int) -> OutcomeKind:
    """2xx is accepted, 4xx refused; of a redirect or a server error nobody knows (design §3).

    A 429 is no refusal of what was said: the app said it in time, and says it again.
    """
    if 200 <= status < 300:
        return "accepted"
    return "refused" if 400 <= status < 500 and status != 429 else "unknown"


def findings_header(findings: Sequence[Finding]) -> str:
    """The value of `Cio-Proxy-Findings`: each rule once with its worst action, at most 1 KiB (design §5)."""
    worst: dict[str, int] = {}
    for finding in findings:
        rank = _WORST.index(finding.action)
        worst[finding.rule] = min(rank, worst.get(finding.rule, rank))
    entries = [f"{rule};action={_WORST[rank]}" for rule, rank in sorted(worst.items(), key=lambda entry: entry[1])]
    value = ", ".join(entries)
    shown = len(entries)
    while len(value) > HEADER_LIMIT:
        shown -= 1
        value = ", ".join([*entries[:shown], f"more;count={len(entries) - shown}"])
    return value
