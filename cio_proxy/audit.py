"""The engine, without I/O: an exchange is opened, judged, and settled; deadlines expire.

`open` reads the calls and says which facts are wanted; `judge` runs the rules over them and the
policy over the findings; `settle` turns the outcome into facts and late findings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard

from cio_proxy import apis, policy
from cio_proxy.apis import track_v2
from cio_proxy.apis.clients import Clients
from cio_proxy.apis.credentials import Keyring, Sites
from cio_proxy.apis.refusals import refusal, too_many
from cio_proxy.completing import Completion, Exempted
from cio_proxy.facts import Rate, Reading, people, reactions, webhooks, workspace
from cio_proxy.facts.workspace import Watch
from cio_proxy.masking import masked
from cio_proxy.model import (
    FORGED,
    MINUTE,
    NOTHING,
    Call,
    Deadline,
    Exchange,
    Fact,
    Finding,
    Form,
    Groups,
    Kept,
    Key,
    Kind,
    Known,
    Latest,
    Limit,
    Outcome,
    People,
    Record,
    Sample,
    Seal,
    Settings,
    Span,
    Subject,
    Unavailable,
    Value,
    Verdict,
    made,
)
from cio_proxy.rules import Rule
from cio_proxy.watchdog import Overdue

type Params = Mapping[str, Any]
type Learn = Callable[[Call, Outcome, Params], Iterable[Fact]]
type RuleError = Callable[[str, BaseException], None]
type SubjectOf = Callable[[tuple[str, str, bool]], Subject]
type Unable = Callable[[str, str], None]

FINDINGS = 20
"""How much one rule may say about one call: the twenty-first fault of a kind helps nobody, and costs time."""
KEYS = 5_000
"""How many of the latest subjects, members and labels have their sealed form at hand."""
SHAPES = 1_000
"""How many sets of labels that are taught together are at hand."""
FORMS = 1_000
"""For how many forms of calls it is at hand which rules they concern."""
LARGEST = 10_000
"""Bytes of the largest call whose form is remembered."""
FRESH = 0.9
"""The part of a fact's time to live above which it is not taught again only to live longer."""
FORGOTTEN = "facts were lost or forgotten"
TELLING: tuple[tuple[Set[Kind], Learn], ...] = (
    (people.TELLING, people.learn),
    (reactions.KINDS, reactions.learn),
    (frozenset({"webhook_metric"}), webhooks.learn),
)
"""What the engine itself teaches, by the kinds of call that it is taught of."""
CLEAN = Verdict()
UNREAD = Reading()
_SUBJECT = itemgetter(0)
UNWATCHED = Watch(0.0)


def sealed_with(key: bytes) -> Seal:
    """A keyed hash of texts: 16 hexadecimal digits of BLAKE2b."""
    keyed = hashlib.blake2b(key=key, digest_size=8)

    def seal(text: str) -> str:
        hash = keyed.copy()
        hash.update(text.encode("utf-8", "surrogatepass"))
        return hash.hexdigest()

    return seal


class Sealer:
    """What a rule teaches and asks, as a store sees it: by keyed hashes."""

    def __init__(self, seal: Seal) -> None:
        def subject(words: tuple[str, str, bool]) -> Subject:
            workspace, text, named = words
            shown = named and masked(text) == text
            return made(Subject, (workspace, text if shown else seal(f"{workspace}\0{text}")))

        def member(text: str) -> int:
            return int(seal(text)[:13], 16)

        def label(name: str) -> str:
            return name if masked(name) == name else f"#{seal(name)}"

        self.subject: SubjectOf = Latest(subject, KEYS).__getitem__
        """The subject of a key: of its workspace, its text, and whether it is named."""
        self.label: Callable[[str], str] = Latest(label, KEYS).__getitem__
        self.labels: Callable[[tuple[str, ...]], tuple[str, ...]] = lru_cache(SHAPES)(
            lambda names: tuple(map(self.label, names))
        )
        self.member: Callable[[str], int] = Latest(member, KEYS).__getitem__

    def key(self, key: Key) -> Key:
        """A key with its subject sealed; for every kind the same."""
        return made(Key, (key.kind, *self.subject(key[1:]), False))


type Learned = tuple[Subject, Fact, str]
"""A fact as a rule teaches it, with its subject as a store sees it, and the id of the rule."""
type Taught = tuple[Subject, str, Value, float]
"""A fact as a store sees it, taken apart: its subject, its kind, what it says, and for how long."""


class Plan(NamedTuple):
    """The rules that look at calls of one form, by what they have to say about them: ids, each with its function."""

    needs: tuple[tuple[str, Callable[[Call, People], Iterable[Key]]], ...]
    learn: tuple[tuple[str, Learn, Params], ...]
    """First what the engine itself teaches: who exists, what an app did about mail, which webhooks came."""
    check: tuple[tuple[str, Callable[[Call, Known], Iterable[Finding | Unavailable]], Params], ...]
    review: tuple[tuple[str, Callable[[Call, Outcome, Known], Iterable[Finding | Unavailable | Fact]], Params], ...]
    remembers: bool
    """Whether anything is to be known of who is in calls of this kind, whatever their form."""


@dataclass(slots=True)
class Part:
    """One call of an exchange, and who looks at it."""

    call: Call
    plan: Plan
    learned: Sequence[Learned]
    """What it teaches if it is accepted; sealed only once it was, or once the next call of a batch asks."""
    taught: Sequence[Taught] | None = None
    """The same as a store sees it, once it was sealed."""


@dataclass(slots=True)
class Opened:
    """An exchange that was read, and what its rules want to know."""

    exchange: Exchange
    calls: tuple[Call, ...]
    client: str
    subjects: Set[Subject]
    """Whose records to read; empty where nobody has anything to know or to learn."""
    announced: Set[Key]
    """What others may be about to ask, and is known once this exchange is answered."""
    parts: Sequence[Part]
    reading: Reading = UNREAD
    watch: Watch = UNWATCHED
    missed: float | None = None
    """When something passed that no store knows of yet."""
    known: _Known | None = None
    """What its rules may ask, where there is one call: a batch learns as it goes."""
    moot: bool = False
    """True for a webhook that came before, or whose signature is wrong: nothing is learned from it."""

    @property
    def workspace(self) -> str:
        """The workspace of all its calls: there is one credential."""
        return self.calls[0].workspace

    @property
    def joined(self) -> str | None:
        """The other workspace that facts of it may be about."""
        first = self.calls[0]
        return None if first.joined == first.workspace else first.joined

    @property
    def marked(self) -> Sequence[Key]:
        """What was announced and nobody knew."""
        if not self.announced:
            return ()
        records = self.reading.records
        return [key for key in self.announced if key.kind not in records.get(key.of, ())]


class Limited(NamedTuple):
    """How fast an exchange may go on: the schedule it shares with others, and what is done when it comes too early."""

    key: Key
    rate: Rate
    limit: Limit
    urgent: bool
    """Whether it is never refused, or exempt, and held only behind what is held of the same person."""
    refuses: bool
    """Whether it is refused then; else it is held, or counted."""


class Settled(NamedTuple):
    """What an outcome taught, and what it showed."""

    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]


def _asked[V](form: type[V]) -> Callable[[_Known, Key], V | None]:
    """What is asked for by key, if it is of this form."""

    def ask(known: _Known, key: Key) -> V | None:
        record = known._records.get(known._subject(key[1:]))
        if record is None or (kept := record.get(key[0])) is None:
            known.doubt = known._lossy
            return None
        value = kept[0]
        return value if type(value) is form else None

    return ask


class _Known:
    """What one rule after the other may ask about an exchange; `params` are those of the rule that asks.

    `doubt` is set when a rule asks for what is not known, while something was lost that might have told it.
    """

    __slots__ = (
        "_flying",
        "_lossy",
        "_records",
        "_subject",
        "doubt",
        "label",
        "lost",
        "member",
        "params",
        "people",
        "plan",
        "since",
    )

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        records: Mapping[Subject, Record],
        in_flight: frozenset[Key],
        sealer: Sealer,
        subject: SubjectOf,
    ) -> None:
        self.people = watch.people(settings.people)
        self.since = watch.since
        self.lost = watch.lost
        self.plan = settings.plan
        self.params: Params = NOTHING
        self.member = sealer.member
        self.label = sealer.label
        self.doubt = False
        self._lossy = watch.lossy
        self._records = records
        self._flying = in_flight
        self._subject = subject

    span = _asked(Span)
    sample = _asked(Sample)
    groups = _asked(Groups)

    def in_flight(self, key: Key) -> bool:
        if not self._flying:
            return False
        return (key.kind, *self._subject(key[1:]), False) in self._flying


class Engine:
    """Judges exchanges with a set of rules under one configuration. Holds no facts of its own.

    `rule_error` is told of every exception of a rule, `unable` of every call that a rule could not judge, and why, and
    `exempted` of every finding that an exemption covers.
    """

    def __init__(
        self,
        settings: Settings,
        rules: Sequence[Rule],
        seal: Seal,
        *,
        rule_error: RuleError = lambda rule, error: None,
        unable: Unable = lambda rule, reason: None,
        exempted: Exempted = lambda exemption: None,
    ) -> None:
        self.settings = settings
        self.rules = tuple(rule for rule in rules if self._runs(rule))
        self._by_id = {rule.info.id: rule for rule in self.rules}
        self.sealer = Sealer(seal)
        self._completion = Completion(settings, seal, exempted)
        self._rule_error = rule_error
        self._unable = unable
        self._keyring = Keyring(settings.workspaces, seal, settings.webhooks)
        self._paths = settings.webhooks.paths
        self._begins_empty = settings.begins_empty
        self._clients = Clients(settings.clients)
        self._params = {rule.info.id: self._params_of(rule) for rule in self.rules}
        self._plans: dict[Form, Plan] = {}
        self.watches_app = any(rule.review and rule.info.apis == {"unknown"} for rule in self.rules)
        """Whether a rule looks at what the app's own users ask, as the latency probe tells of it."""
        self._limiting = next(
            (rule for rule in self.rules if rule.limit and settings.rule(rule.info.id).action in ("pace", "block")),
            None,
        )

    @property
    def sites(self) -> Sites:
        """The workspaces of Track sites that are known: others' traffic is theirs, while there is one."""
        return self._keyring.sites

    def follow(self, other: Engine) -> None:
        """Know the same Track sites as another engine does, from now on."""
        self._keyring.sites = other.sites

    def open(self, exchange: Exchange) -> Opened:
        """Read an exchange into its calls and gather what its rules need to know."""
        calls = apis.read(exchange, self._keyring, self.settings.max_audited_body, self._paths)
        subjects: set[Subject] = set()
        announced: set[Key] = set()
        parts: list[Part] = []
        opened = Opened(exchange, calls, self._clients.name(exchange), subjects, announced, parts)
        presumed = Outcome("accepted", exchange.at)
        people, subject = self.settings.people, self.sealer.subject
        for call in calls:
            plan = self._plan(call)
            learned = self._learned(plan, call, presumed, announced)
            parts.append(Part(call, plan, learned))
            subjects.update(map(_SUBJECT, learned))
            for rule, needs in plan.needs:
                try:
                    for key in needs(call, people):
                        subjects.add(subject(key[1:]))
                except (Exception, Overdue) as error:
                    self._rule_error(rule, error)
            if plan.remembers:
                for identifier in call.identifiers:
                    subjects.add(subject((call.workspace, identifier, False)))
        if subjects:
            subjects.add(workspace.subject(opened.workspace))
            if opened.joined is not None:
                subjects.add(workspace.subject(opened.joined))
        return opened

    def judge(self, opened: Opened, reading: Reading, missed: float | None = None) -> Verdict:
        """Run every rule over every call; later calls see what earlier ones would teach.

        `missed` is when something passed that this process could not write down yet.
        """
        opened.reading, opened.missed = reading, missed
        record = reading.records.get(workspace.subject(opened.workspace), NOTHING)
        empty = self._begins_empty
        opened.watch = workspace.watch(record, opened.exchange.at, missed, empty)
        if opened.joined is not None:
            joined = reading.records.get(workspace.subject(opened.joined), NOTHING)
            opened.watch = opened.watch.and_of(workspace.watch(joined, opened.exchange.at, missed, empty))
        several = len(opened.calls) > 1
        records = dict(reading.records) if several else reading.records
        known = self._known(opened, records)
        opened.known = None if several else known
        if opened.calls[0].api == "webhooks":
            call = opened.calls[0]
            opened.moot = bool(call.credentials.fault) or webhooks.came_before(call, known)
            known.doubt = False
        lossy = opened.watch.lossy
        findings: list[Finding] = []
        for part in opened.parts:
            call, checks = part.call, part.plan.check
            if opened.moot:
                checks = tuple(each for each in checks if each[0] == FORGED)
            for rule, check, params in checks:
                known.params = params
                try:
                    if results := check(call, known):
                        self._take(results, rule, call, opened, findings, known)
                except (Exception, Overdue) as error:
                    self._rule_error(rule, error)
                if lossy and known.doubt:
                    self._doubted(rule, known)
            if several:
                _add(self._taught(part, opened), records)  # type: ignore[arg-type]  # a copy, since there are more calls
        return self._verdict(opened, policy.consistent(findings)) if findings else CLEAN

    @property
    def paces(self) -> bool:
        """Whether what comes too early is held."""
        rule, settings = self._limiting, self.settings
        return rule is not None and settings.enforcement == "enforce" and settings.rule(rule.info.id).action == "pace"

    def limit(self, opened: Opened) -> Limited | None:
        """How fast exchanges such as this may go on, where the configuration paces or refuses what is faster."""
        rule = self._limiting
        if rule is None or rule.limit is None:
            return None
        first, refuses = opened.calls[0], self.settings.rule(rule.info.id).action == "block"
        urgent = all(map(policy.is_never_refused, opened.calls))
        try:
            limit = rule.limit(first, self._params[rule.info.id])
            if limit is None:
                return None
            if not (urgent or refuses) and rule.excess and self._completion.has_exemptions(rule.info.id):
                urgent = self._completion.is_exempt(rule.excess(first, limit), first, opened.client)
        except (Exception, Overdue) as error:
            self._rule_error(rule.info.id, error)
            return None
        return Limited(
            key=self.sealer.key(limit.key),
            rate=Rate(limit.rate, limit.burst, limit.hold),
            limit=limit,
            urgent=urgent,
            refuses=refuses,
        )

    def over(self, opened: Opened, verdict: Verdict, limit: Limit, seconds: float) -> Verdict:
        """The verdict on an exchange that comes so many seconds too early."""
        rule, call = self._limiting, opened.calls[0]
        if rule is None or rule.excess is None:
            return verdict
        finding = rule.excess(call, limit)
        if not self._is_reported(finding):
            return verdict
        finding = self._completion.finding(finding, call, opened.calls, opened.client)
        findings = tuple(policy.consistent([*verdict.findings, finding]))
        if finding.action != "blocked":
            return replace(verdict, findings=findings)
        return Verdict(findings=findings, refusal=too_many(finding, seconds))

    def settle(self, opened: Opened, outcome: Outcome) -> Settled:
        """The facts of calls that were not refused, less those that change nothing, and what `review` says.

        As in `judge`, later calls see what earlier ones taught. What a webhook tells is so, whatever the app answers.
        """
        first = opened.calls[0]
        if first.api == "webhooks":
            outcome = outcome._replace(kind="accepted")
        elif outcome.kind == "accepted" and first.workspace not in self.sites and first.api in apis.TRACK:
            self.sites.add(first.workspace)
        facts: list[Fact] = []
        findings: list[Finding] = []
        several = len(opened.calls) > 1
        records = dict(opened.reading.records) if several else opened.reading.records
        known = opened.known or self._known(opened, records)
        lossy, subject = opened.watch.lossy, self.sealer.subject
        for part in () if opened.moot else opened.parts:
            call, learned = part.call, []
            taught: Sequence[Taught] = ()
            ended = outcome.of(call)
            if ended.kind == "accepted":
                taught = self._taught(part, opened)
            elif ended.kind == "unknown" and part.learned:
                learned = self._learned(part.plan, call, ended)
            for rule, review, params in part.plan.review:
                known.params = params
                try:
                    if results := review(call, ended, known):
                        told = self._take(results, rule, call, opened, findings, known, late=True)
                        learned += [(subject(fact.key[1:]), fact, rule) for fact in told]
                except (Exception, Overdue) as error:
                    self._rule_error(rule, error)
                if lossy and known.doubt:
                    self._doubted(rule, known)
            if learned:
                taught = [*taught, *self._sealed(learned, call, opened)]
            facts += _news(taught, opened)
            if several:
                _add(taught, records)  # type: ignore[arg-type]  # a copy, since there are more calls
        if opened.subjects and (opened.missed is not None or opened.exchange.at - opened.watch.until >= MINUTE):
            facts += _news([_of_store(fact) for fact in self._of_workspace(opened)], opened)
        return made(Settled, (tuple(facts), tuple(findings)))

    def expire(
        self, deadlines: Sequence[tuple[Key, Deadline]], reading: Reading, now: float, missed: float | None = None
    ) -> tuple[Finding, ...]:
        """The findings of deadlines that have passed, from what is known now."""
        findings: list[Finding] = []
        for key, deadline in deadlines:
            rule = self._by_id.get(deadline.rule)
            if rule is None or rule.due is None:
                continue
            record = reading.records.get(workspace.subject(key.workspace), NOTHING)
            watch = workspace.watch(record, now, missed, self._begins_empty)
            known = _Known(self.settings, watch, reading.records, reading.in_flight, self.sealer, _is_sealed)
            known.params = self._params[rule.info.id]
            try:
                results = [each for each in rule.due(deadline, known) if self._is_reported(each)]
                if results and known.doubt and watch.since > deadline.seed.time:
                    self._unable(rule.info.id, FORGOTTEN)
                else:
                    findings += [self._completion.due(each, deadline.at) for each in results]
            except (Exception, Overdue) as error:
                self._rule_error(rule.info.id, error)
        return tuple(findings)

    def _known(self, opened: Opened, records: Mapping[Subject, Record]) -> _Known:
        in_flight, sealer = opened.reading.in_flight, self.sealer
        return _Known(self.settings, opened.watch, records, in_flight, sealer, sealer.subject)

    def _doubted(self, rule: str, known: _Known) -> None:
        known.doubt = False
        self._unable(rule, FORGOTTEN)

    def _take(
        self,
        results: Iterable[Finding | Unavailable | Fact],
        rule: str,
        call: Call,
        opened: Opened,
        findings: list[Finding],
        known: _Known,
        late: bool = False,
    ) -> list[Fact]:
        """Keep what a rule says about a call, as far as it is reported. Returns the facts among it."""
        reason, number = "", 0
        learned: list[Fact] = []
        for result in islice(results, FINDINGS):
            if isinstance(result, Unavailable):
                reason = reason or result.reason
            elif isinstance(result, Fact):
                learned.append(result)
            elif self._is_reported(result):
                findings.append(
                    self._completion.finding(result, call, opened.calls, opened.client, number=number, late=late)
                )
                number += 1
        if number:
            known.doubt = False
        elif reason:
            self._unable(rule, reason)
        return learned

    def _is_reported(self, result: Finding | Unavailable) -> TypeGuard[Finding]:
        return isinstance(result, Finding) and policy.reported(result, self.settings)

    def _verdict(self, opened: Opened, findings: Sequence[Finding]) -> Verdict:
        blocked = [finding for finding in findings if finding.action == "blocked"]
        if not blocked:
            return Verdict(findings=tuple(findings))
        cut = None
        if opened.calls[0].api == "track_v2" and all(finding.item is not None for finding in blocked):
            cut = track_v2.cut(opened.exchange, opened.calls[0].document.raw, blocked)
        return Verdict(findings=tuple(findings), cut=cut, refusal=None if cut else refusal(blocked))

    def _learned(self, plan: Plan, call: Call, outcome: Outcome, announced: set[Key] | None = None) -> list[Learned]:
        """What a call teaches with this outcome; `announced` gets the keys of what is to be announced."""
        learned: list[Learned] = []
        seal = self.sealer.subject
        for rule, learn, params in plan.learn:
            try:
                for fact in learn(call, outcome, params):
                    key = fact.key
                    subject = seal(key[1:])
                    learned.append((subject, fact, rule))
                    if fact.announced and announced is not None:
                        announced.add(made(Key, (key.kind, *subject, False)))
            except (Exception, Overdue) as error:
                self._rule_error(rule, error)
        return learned

    def _taught(self, part: Part, opened: Opened) -> Sequence[Taught]:
        """What a call teaches if it is accepted, sealed."""
        if part.taught is None:
            part.taught = self._sealed(part.learned, part.call, opened)
        return part.taught

    def _sealed(self, learned: Iterable[Learned], call: Call, opened: Opened) -> list[Taught]:
        taught: list[Taught] = []
        sealer = self.sealer
        for subject, (key, value, ttl, _), rule in learned:
            try:
                says = self._seeded(value, call, opened) if isinstance(value, Deadline) else value
                taught.append((subject, key.kind, says.sealed(sealer), ttl))
            except (Exception, Overdue) as error:
                self._rule_error(rule, error)
        return taught

    def _seeded(self, deadline: Deadline, call: Call, opened: Opened) -> Deadline:
        return replace(deadline, seed=self._completion.seed(deadline.seed, call, opened.client))

    def _of_workspace(self, opened: Opened) -> Iterable[Fact]:
        yield workspace.seen(opened.workspace, opened.exchange.at)
        if opened.missed is not None:
            yield workspace.lost(opened.workspace, opened.missed)

    def _plan(self, call: Call) -> Plan:
        plan = self._plans.get(call.form)
        if plan is None:
            if len(self._plans) >= FORMS:
                self._plans.clear()
            plan = self._planned(call.form)
            if call.size <= LARGEST:
                self._plans[call.form] = plan
        return plan

    def _planned(self, form: Form) -> Plan:
        of_kind = [rule for rule in self.rules if form.kind in rule.info.kinds and form.api in rule.info.apis]
        rules = [rule for rule in of_kind if self._is_concerned(rule, form)]
        named = [(rule.info.id, rule, self._params[rule.info.id]) for rule in rules]
        told = tuple(("", learn, NOTHING) for kinds, learn in TELLING if form.kind in kinds)
        return Plan(
            needs=tuple((id, rule.needs) for id, rule, _ in named if rule.needs is not None),
            learn=told + tuple((id, rule.learn, params) for id, rule, params in named if rule.learn is not None),
            check=tuple((id, rule.check, params) for id, rule, params in named if rule.check is not None),
            review=tuple((id, rule.review, params) for id, rule, params in named if rule.review is not None),
            remembers=bool(told) or any(rule.needs or rule.learn for rule in of_kind),
        )

    def _is_concerned(self, rule: Rule, form: Form) -> bool:
        try:
            return rule.concerns is None or rule.concerns(form)
        except (Exception, Overdue) as error:
            self._rule_error(rule.info.id, error)
            return True

    def _runs(self, rule: Rule) -> bool:
        is_on = self.settings.rule(rule.info.id).action != "off"
        return is_on and (rule.applies is None or rule.applies(self.settings))

    def _params_of(self, rule: Rule) -> Mapping[str, Any]:
        defaults = {name: param.default for name, param in rule.info.params.items()}
        return {**defaults, **self.settings.rule(rule.info.id).params}


def _news(taught: Iterable[Taught], opened: Opened) -> list[Fact]:
    """The facts that say anything new, or say what is about to be forgotten."""
    news: list[Fact] = []
    records, at = opened.reading.records, opened.exchange.at
    for subject, kind, value, ttl in taught:
        if (kept := records.get(subject, NOTHING).get(kind)) is not None:
            old, expiry = kept
            if type(old) is type(value) and expiry - at >= FRESH * ttl and not old.lacks(value):  # type: ignore[arg-type]
                continue
        news.append(made(Fact, (made(Key, (kind, *subject, False)), value, ttl, False)))
    return news


def _add(taught: Iterable[Taught], records: dict[Subject, Record]) -> None:
    """Let what a call would teach be known to the calls after it."""
    for subject, kind, value, _ in taught:
        record = records.get(subject, NOTHING)
        old = record.get(kind)
        joined = old.value.join(value) if old is not None and type(old.value) is type(value) else value  # type: ignore[arg-type]
        records[subject] = {**record, kind: Kept(joined, float("inf"))}


def _of_store(fact: Fact) -> Taught:
    return fact.key.of, fact.key.kind, fact.value, fact.ttl


def _is_sealed(words: tuple[str, str, bool]) -> Subject:
    return made(Subject, words[:2])
