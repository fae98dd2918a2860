"""The engine, without I/O: an exchange is opened, judged, and settled; deadlines expire.

`open` reads the calls and says which facts are wanted; `judge` runs the rules over them and the
policy over the findings; `settle` turns the outcome into facts and late findings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

from cio_proxy import apis, policy
from cio_proxy.apis import track_v2
from cio_proxy.apis.clients import Clients
from cio_proxy.apis.credentials import Keyring, secrets_of
from cio_proxy.apis.refusals import refusal
from cio_proxy.baseline import entry
from cio_proxy.facts import Reading
from cio_proxy.masking import masked, masked_json, spellings
from cio_proxy.model import (
    METHODS,
    NOTHING,
    Api,
    Call,
    Deadline,
    Exchange,
    Exemption,
    Fact,
    Finding,
    Json,
    Key,
    Kind,
    Outcome,
    People,
    Seal,
    Settings,
    Span,
    Taken,
    Unavailable,
    Value,
    Verdict,
)
from cio_proxy.rules import Rule
from cio_proxy.watchdog import Overdue

type RuleError = Callable[[str, BaseException], None]
type Unable = Callable[[str, str], None]
type Exempted = Callable[[Exemption], None]

MINUTE = 60.0
SHOWN = 300
FINDINGS = 20
"""How much one rule may say about one call: the twenty-first fault of a kind helps nobody, and costs time."""
KEYS = 5_000
"""How many of the latest keys have their sealed form at hand."""
CLEAN = Verdict()
UNREAD = Reading()
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?![0-9a-f])")


def sealed_with(key: bytes) -> Seal:
    """A keyed hash of texts: 16 hexadecimal digits of BLAKE2b."""

    def seal(text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=8).hexdigest()

    return seal


@dataclass(slots=True)
class Opened:
    """An exchange that was read, and what its rules want to know."""

    exchange: Exchange
    calls: tuple[Call, ...]
    client: str
    keys: Set[Key]
    marks: Set[Key]
    taught: list[list[Fact]] = field(default_factory=list)
    """What each call would teach if it were accepted."""
    reading: Reading = UNREAD


class Settled(NamedTuple):
    """What an outcome taught, and what it showed."""

    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]


class Plan(NamedTuple):
    """The rules that look at calls of one API and kind, by what they have to say about them."""

    needs: tuple[Rule, ...]
    learn: tuple[Rule, ...]
    check: tuple[tuple[Rule, Mapping[str, Any]], ...]
    review: tuple[tuple[Rule, Mapping[str, Any]], ...]


class _Known:
    """What one rule after the other may ask about an exchange; `params` are those of the rule that asks."""

    __slots__ = ("_flying", "_sealed", "_values", "params", "people", "since")

    def __init__(
        self, people: People, values: Mapping[Key, Value], reading: Reading, sealed: Callable[[Key], Key]
    ) -> None:
        self.people: People = people if reading.whole else "partial"
        self.since = reading.since
        self.params: Mapping[str, Any] = NOTHING
        self._values = values
        self._flying = reading.in_flight
        self._sealed = sealed

    def span(self, key: Key) -> Span | None:
        value = self._values.get(self._sealed(key))
        return value if isinstance(value, Span) else None

    def in_flight(self, key: Key) -> bool:
        return self._sealed(key) in self._flying


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
        self.rules = tuple(rule for rule in rules if settings.rule(rule.info.id).action != "off")
        self._by_id = {rule.info.id: rule for rule in self.rules}
        self._seal = seal
        self._sealed = lru_cache(KEYS)(lambda key: key.sealed(seal))
        self._secrets = lru_cache(1_000)(lambda header: spellings(secrets_of(header)))
        self._masked = lru_cache(1_000)(masked)
        self._rule_error = rule_error
        self._unable = unable
        self._exempted = exempted
        self._exemptions = {
            rule.info.id: tuple(each for each in settings.exemptions if each.rule == rule.info.id) for rule in rules
        }
        self._keyring = Keyring(settings.workspaces, seal)
        self._clients = Clients(settings.clients)
        self._params = {rule.info.id: self._params_of(rule) for rule in self.rules}
        self._plans: dict[tuple[Api, Kind], Plan] = {}

    def open(self, exchange: Exchange) -> Opened:
        """Read an exchange into its calls and gather the facts its rules need."""
        calls = apis.read(exchange, self._keyring, self.settings.max_audited_body)
        keys: set[Key] = set()
        marks: set[Key] = set()
        opened = Opened(exchange, calls, self._clients.name(exchange), keys, marks)
        presumed = Outcome(kind="accepted", at=exchange.at)
        for call in calls:
            plan = self._plan(call)
            for rule in plan.needs:
                try:
                    keys.update(map(self._sealed, rule.needs(call, self.settings.people)))  # type: ignore[misc]  # what a plan is for
                except (Exception, Overdue) as error:
                    self._rule_error(rule.info.id, error)
            facts = self._facts(plan, call, presumed, opened)
            for fact in facts:
                if isinstance(fact.value, Span):
                    marks.add(fact.key)
            opened.taught.append(facts)
        keys |= marks
        return opened

    def judge(self, opened: Opened, reading: Reading) -> Verdict:
        """Run every rule over every call; later calls see what earlier ones would teach."""
        opened.reading = reading
        values = dict(reading.values) if len(opened.calls) > 1 else reading.values
        known = _Known(self.settings.people, values, reading, self._sealed)
        findings: list[Finding] = []
        for call, taught in zip(opened.calls, opened.taught, strict=True):
            for rule, params in self._plan(call).check:
                known.params = params
                try:
                    if results := rule.check(call, known):  # type: ignore[misc]
                        self._take(results, rule, call, opened, findings)
                except (Exception, Overdue) as error:
                    self._rule_error(rule.info.id, error)
            if len(opened.calls) == 1:
                break
            for fact in taught:
                old = values.get(fact.key)
                values[fact.key] = old.join(fact.value) if type(old) is type(fact.value) else fact.value  # type: ignore
        return self._verdict(opened, policy.consistent(findings)) if findings else CLEAN

    def settle(self, opened: Opened, outcome: Outcome) -> Settled:
        """The facts of calls that were not refused, less those that change nothing, and the findings of `review`."""
        facts: list[Fact] = []
        findings: list[Finding] = []
        known = _Known(self.settings.people, opened.reading.values, opened.reading, self._sealed)
        for call, presumed in zip(opened.calls, opened.taught, strict=True):
            plan = self._plan(call)
            if outcome.of(call) != "refused":
                taught = presumed if outcome.kind == "accepted" else self._facts(plan, call, outcome, opened)
                facts += [fact for fact in taught if self._changes(fact, opened.reading)]
            for rule, params in plan.review:
                known.params = params
                try:
                    if results := rule.review(call, outcome, known):  # type: ignore[misc]
                        self._take(results, rule, call, opened, findings, late=True)
                except (Exception, Overdue) as error:
                    self._rule_error(rule.info.id, error)
        return Settled(tuple(facts), tuple(findings))

    def expire(self, deadlines: Sequence[Deadline], reading: Reading) -> tuple[Finding, ...]:
        """The findings of deadlines that have passed, from what is known now."""
        findings: list[Finding] = []
        known = _Known(self.settings.people, reading.values, reading, lambda key: key)
        for deadline in deadlines:
            rule = self._by_id.get(deadline.rule)
            if rule is None or rule.due is None:
                continue
            known.params = self._params[rule.info.id]
            try:
                results = rule.due(deadline, known)
                findings += [self._overdue(each, deadline) for each in results if self._is_reported(each)]
            except (Exception, Overdue) as error:
                self._rule_error(rule.info.id, error)
        return tuple(findings)

    def _take(
        self,
        results: Iterable[Finding | Unavailable],
        rule: Rule,
        call: Call,
        opened: Opened,
        findings: list[Finding],
        late: bool = False,
    ) -> None:
        """Keep what a rule says about a call, as far as it is reported."""
        reason, number = "", 0
        for result in islice(results, FINDINGS):
            if isinstance(result, Unavailable):
                reason = reason or result.reason
            elif self._is_reported(result):
                action = self._action(result, call, opened, late)
                findings.append(self._completed(result, call, opened, number, action))
                number += 1
        if reason and not number:
            self._unable(rule.info.id, reason)

    def _is_reported(self, result: Finding | Unavailable) -> TypeGuard[Finding]:
        return isinstance(result, Finding) and policy.reported(result, self.settings)

    def _overdue(self, finding: Finding, deadline: Deadline) -> Finding:
        exempt = self._is_exempt(finding, finding.endpoint, finding.client, deadline.at)
        action = policy.accepted("exempt" if exempt else "logged", finding.fingerprint, self.settings.baselined)
        return replace(finding, time=deadline.at, action=action)

    def _action(self, finding: Finding, call: Call, opened: Opened, late: bool) -> Taken:
        if self._is_exempt(finding, call.endpoint, opened.client, call.at):
            return "exempt"
        return "logged" if late else policy.decide(finding, opened.calls, call, self.settings)

    def _is_exempt(self, finding: Finding, endpoint: str, client: str, at: float) -> bool:
        exemptions = self._exemptions[finding.rule]
        found = policy.exemption(finding, exemptions, endpoint=endpoint, client=client, at=at) if exemptions else None
        if found is not None:
            self._exempted(found)
        return found is not None

    def _verdict(self, opened: Opened, findings: Sequence[Finding]) -> Verdict:
        blocked = [finding for finding in findings if finding.action == "blocked"]
        if not blocked:
            return Verdict(findings=tuple(findings))
        cut = None
        if opened.calls[0].api == "track_v2" and all(finding.item is not None for finding in blocked):
            cut = track_v2.cut(opened.exchange, opened.calls[0].document.raw, blocked)
        return Verdict(findings=tuple(findings), cut=cut, refusal=None if cut else refusal(blocked))

    def _facts(self, plan: Plan, call: Call, outcome: Outcome, opened: Opened) -> list[Fact]:
        facts: list[Fact] = []
        for rule in plan.learn:
            try:
                for key, value, ttl in rule.learn(call, outcome, self._params[rule.info.id]):  # type: ignore[misc]
                    facts.append(Fact(self._sealed(key), self._kept(value, call, opened), ttl))
            except (Exception, Overdue) as error:
                self._rule_error(rule.info.id, error)
        return facts

    def _kept(self, value: Value, call: Call, opened: Opened) -> Value:
        if isinstance(value, Deadline):
            value = replace(value, seed=self._completed(value.seed, call, opened, 0, "logged"))
        return value.sealed(self._seal)

    def _changes(self, fact: Fact, reading: Reading) -> bool:
        old = reading.values.get(fact.key)
        if not isinstance(old, Span) or not isinstance(fact.value, Span):
            return True
        return fact.value.first < old.first or fact.value.last - old.last >= MINUTE

    def _completed(self, finding: Finding, call: Call, opened: Opened, number: int, action: Taken) -> Finding:
        exchange = call.exchange
        person = call.person.main()
        secrets = self._secrets(exchange.header("authorization"))
        pointer = _short(self._masked(finding.pointer, secrets))
        name = None if finding.name is None else _short(self._masked(finding.name, secrets))
        fingerprint = entry(finding.rule, call.endpoint, pointer, name).fingerprint
        shown = not self.settings.show_values
        traced = _TRACEPARENT.match(exchange.header("traceparent") or "")
        return replace(
            finding,
            id=f"{exchange.id}-{finding.rule}-{call.item or 0}-{number}",
            time=exchange.at,
            action=policy.accepted(action, fingerprint, self.settings.baselined),
            message=_short(self._masked(finding.message, secrets) if shown else finding.message),
            effect=self._masked(finding.effect, secrets) if shown else finding.effect,
            fix=self._masked(finding.fix, secrets) if shown else finding.fix,
            evidence=_masked(finding.evidence, secrets) if shown else finding.evidence,
            corrected=_masked(finding.corrected, secrets) if shown else finding.corrected,
            pointer=pointer if shown else _short(finding.pointer),
            name=name if shown or finding.name is None else _short(finding.name),
            api=call.api,
            call=call.kind,
            method=exchange.method if exchange.method in METHODS else "other",
            endpoint=call.endpoint,
            item=None if finding.whole else call.item,
            person=None if person is None else self._seal(f"person\0{call.workspace}\0{person}"),
            client=opened.client,
            listener=exchange.listener,
            workspace=call.workspace,
            exchange=exchange.id,
            trace_id=traced[1] if traced else None,
            fingerprint=fingerprint,
        )

    def _plan(self, call: Call) -> Plan:
        plan = self._plans.get((call.api, call.kind))
        if plan is None:
            rules = [rule for rule in self.rules if call.kind in rule.info.kinds and call.api in rule.info.apis]
            plan = self._plans[call.api, call.kind] = Plan(
                needs=tuple(rule for rule in rules if rule.needs is not None),
                learn=tuple(rule for rule in rules if rule.learn is not None),
                check=tuple((rule, self._params[rule.info.id]) for rule in rules if rule.check is not None),
                review=tuple((rule, self._params[rule.info.id]) for rule in rules if rule.review is not None),
            )
        return plan

    def _params_of(self, rule: Rule) -> Mapping[str, Any]:
        defaults = {name: param.default for name, param in rule.info.params.items()}
        return {**defaults, **self.settings.rule(rule.info.id).params}


def _short(text: str) -> str:
    """A text of a length that people and stores can bear; cut once it is masked, or half a value would stay."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _masked(value: Json, secrets: Sequence[str]) -> Json:
    try:
        kept: Json = masked_json(value, secrets)
    except Exception:
        return None  # what cannot be masked is dropped
    return kept
