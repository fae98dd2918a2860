"""The engine, without I/O: an exchange is opened, judged, and settled; deadlines expire.

`open` reads the calls and says which facts are wanted; `judge` runs the rules over them and the
policy over the findings; `settle` turns the outcome into facts and late findings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cio_proxy import apis, policy
from cio_proxy.apis import track_v2
from cio_proxy.apis.clients import client_of
from cio_proxy.apis.credentials import Keyring, secrets_of
from cio_proxy.apis.refusals import refusal
from cio_proxy.facts import Reading
from cio_proxy.masking import masked, masked_json, spellings
from cio_proxy.model import (
    Call,
    Deadline,
    Exchange,
    Fact,
    Finding,
    Json,
    Key,
    Outcome,
    Seal,
    Settings,
    Span,
    Unavailable,
    Value,
    Verdict,
)
from cio_proxy.recognise import template
from cio_proxy.rules import Rule

type RuleError = Callable[[str, Exception], None]
type Judged = Callable[[str, bool, bool, str | None], None]

MINUTE = 60.0
SHOWN = 300
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
    keys: frozenset[Key] = frozenset()
    marks: frozenset[Key] = frozenset()
    taught: dict[int, tuple[Fact, ...]] = field(default_factory=dict)
    """What each call would teach if it were accepted, by its position."""
    reading: Reading = field(default_factory=Reading)
    sealed: dict[Key, Key] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """What an outcome taught, and what it showed."""

    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Known:
    people: Any
    params: Mapping[str, Any]
    values: Mapping[Key, Value]
    flying: frozenset[Key]
    seal: Callable[[Key], Key]

    def span(self, key: Key) -> Span | None:
        value = self.values.get(self.seal(key))
        return value if isinstance(value, Span) else None

    def in_flight(self, key: Key) -> bool:
        return self.seal(key) in self.flying


class Engine:
    """Judges exchanges with a set of rules under one configuration. Holds no facts of its own."""

    def __init__(
        self,
        settings: Settings,
        rules: Sequence[Rule],
        seal: Seal,
        *,
        rule_error: RuleError = lambda rule, error: None,
        judged: Judged | None = None,
    ) -> None:
        self.settings = settings
        self.rules = tuple(rule for rule in rules if settings.rule(rule.info.id).action != "off")
        self._by_id = {rule.info.id: rule for rule in self.rules}
        self._seal = seal
        self._rule_error = rule_error
        self._judged = judged
        self._keyring = Keyring(settings.workspaces, seal)
        self._params = {rule.info.id: self._params_of(rule) for rule in self.rules}
        self._applicable: dict[tuple[str, str], tuple[Rule, ...]] = {}

    def open(self, exchange: Exchange) -> Opened:
        """Read an exchange into its calls and gather the facts its rules need."""
        calls = apis.read(exchange, self._keyring, self.settings.max_audited_body)
        opened = Opened(exchange, calls, client_of(exchange, self.settings.clients))
        keys: set[Key] = set()
        presumed = Outcome(kind="accepted", at=exchange.at)
        for position, call in enumerate(calls):
            for rule in self._rules_for(call):
                if rule.needs is not None:
                    keys.update(self._sealed(key, opened) for key in self._guarded(rule, rule.needs, call))
            opened.taught[position] = tuple(self._facts(call, presumed, opened))
        marks = {fact.key for facts in opened.taught.values() for fact in facts if isinstance(fact.value, Span)}
        opened.keys, opened.marks = frozenset(keys | marks), frozenset(marks)
        return opened

    def judge(self, opened: Opened, reading: Reading) -> Verdict:
        """Run every rule over every call; later calls see what earlier ones would teach."""
        opened.reading = reading
        values = dict(reading.values)
        findings: list[Finding] = []
        for position, call in enumerate(opened.calls):
            for rule in self._rules_for(call):
                findings += self._check(rule, call, opened, values)
            for fact in opened.taught[position]:
                old = values.get(fact.key)
                values[fact.key] = old.join(fact.value) if type(old) is type(fact.value) else fact.value  # type: ignore
        return self._verdict(opened, policy.consistent(findings))

    def settle(self, opened: Opened, outcome: Outcome) -> Settled:
        """The facts of calls that were not refused, less those that change nothing, and the findings of `review`."""
        facts: list[Fact] = []
        findings: list[Finding] = []
        for position, call in enumerate(opened.calls):
            if outcome.of(call) != "refused":
                presumed = outcome.kind == "accepted"
                taught = opened.taught[position] if presumed else self._facts(call, outcome, opened)
                facts += (fact for fact in taught if self._changes(fact, opened.reading))
            for rule in self._rules_for(call):
                if rule.review is not None:
                    known = self._known(rule, opened, opened.reading.values)
                    results = self._guarded(rule, rule.review, call, outcome, known)
                    findings += self._kept(results, call, opened, late=True)
        return Settled(tuple(facts), tuple(findings))

    def expire(self, deadlines: Sequence[Deadline], reading: Reading) -> tuple[Finding, ...]:
        """The findings of deadlines that have passed, from what is known now."""
        findings: list[Finding] = []
        for deadline in deadlines:
            rule = self._by_id.get(deadline.rule)
            if rule is None or rule.due is None:
                continue
            known = _Known(
                self.settings.people, self._params[rule.info.id], reading.values, reading.in_flight, lambda key: key
            )
            results = self._guarded(rule, rule.due, deadline, known)
            reported = (r for r in results if isinstance(r, Finding) and policy.reported(r, self.settings))
            for finding in reported:
                findings.append(replace(finding, time=deadline.at))
                if self._judged is not None:
                    self._judged(finding.rule, False, True, None)
        return tuple(findings)

    def _check(self, rule: Rule, call: Call, opened: Opened, values: Mapping[Key, Value]) -> list[Finding]:
        if rule.check is None:
            return []
        known = self._known(rule, opened, values)
        results = list(self._guarded(rule, rule.check, call, known))
        if self._judged is not None:
            reason = next((r.reason for r in results if isinstance(r, Unavailable)), None)
            self._judged(rule.info.id, True, any(isinstance(r, Finding) for r in results), reason)
        return self._kept(results, call, opened)

    def _kept(
        self, results: Sequence[Finding | Unavailable] | Iterator[Any], call: Call, opened: Opened, late: bool = False
    ) -> list[Finding]:
        kept: list[Finding] = []
        for result in results:
            if isinstance(result, Finding) and policy.reported(result, self.settings):
                if late and self._judged is not None:
                    self._judged(result.rule, False, True, None)
                action = "logged" if late else policy.decide(result, opened.calls, call, self.settings)
                kept.append(replace(self._completed(result, call, opened, len(kept)), action=action))
        return kept

    def _verdict(self, opened: Opened, findings: Sequence[Finding]) -> Verdict:
        blocked = [finding for finding in findings if finding.action == "blocked"]
        if not blocked:
            return Verdict(findings=tuple(findings))
        cut = None
        if opened.calls[0].api == "track_v2" and all(finding.item is not None for finding in blocked):
            cut = track_v2.cut(opened.exchange, opened.calls[0].document.raw, blocked)
        return Verdict(findings=tuple(findings), cut=cut, refusal=None if cut else refusal(blocked))

    def _facts(self, call: Call, outcome: Outcome, opened: Opened) -> Iterator[Fact]:
        for rule in self._rules_for(call):
            if rule.learn is None:
                continue
            for fact in self._guarded(rule, rule.learn, call, outcome, self._params[rule.info.id]):
                value = fact.value
                if isinstance(value, Deadline):
                    value = replace(value, seed=self._completed(value.seed, call, opened, 0))
                yield Fact(self._sealed(fact.key, opened), value.sealed(self._seal), fact.ttl)

    def _changes(self, fact: Fact, reading: Reading) -> bool:
        old = reading.values.get(fact.key)
        if not isinstance(old, Span) or not isinstance(fact.value, Span):
            return True
        return fact.value.first < old.first or fact.value.last - old.last >= MINUTE

    def _completed(self, finding: Finding, call: Call, opened: Opened, number: int) -> Finding:
        exchange = call.exchange
        person = call.person.main()
        secrets = spellings(secrets_of(exchange))
        pointer = masked(finding.pointer, secrets)
        name = None if finding.name is None else masked(finding.name, secrets)
        shown = not self.settings.show_values
        traced = _TRACEPARENT.match(exchange.header("traceparent") or "")
        return replace(
            finding,
            id=f"{exchange.id}-{finding.rule}-{call.item or 0}-{number}",
            time=exchange.at,
            message=_short(masked(finding.message, secrets) if shown else finding.message),
            effect=masked(finding.effect, secrets) if shown else finding.effect,
            fix=masked(finding.fix, secrets) if shown else finding.fix,
            evidence=_masked(finding.evidence, secrets) if shown else finding.evidence,
            corrected=_masked(finding.corrected, secrets) if shown else finding.corrected,
            pointer=_short(pointer if shown else finding.pointer),
            name=None if name is None else _short(name if shown else finding.name or ""),
            api=call.api,
            call=call.kind,
            method=exchange.method,
            endpoint=call.endpoint,
            item=None if finding.whole else call.item,
            person=None if person is None else self._seal(f"person\0{call.workspace}\0{person}"),
            client=opened.client,
            listener=exchange.listener,
            workspace=call.workspace,
            exchange=exchange.id,
            trace_id=traced[1] if traced else None,
            fingerprint=fingerprint(finding.rule, call.endpoint, pointer, name or ""),
        )

    def _known(self, rule: Rule, opened: Opened, values: Mapping[Key, Value]) -> _Known:
        return _Known(
            self.settings.people,
            self._params[rule.info.id],
            values,
            opened.reading.in_flight,
            lambda key: self._sealed(key, opened),
        )

    def _sealed(self, key: Key, opened: Opened) -> Key:
        found = opened.sealed.get(key)
        if found is None:
            found = opened.sealed[key] = key.sealed(self._seal)
        return found

    def _rules_for(self, call: Call) -> tuple[Rule, ...]:
        found = self._applicable.get((call.api, call.kind))
        if found is None:
            found = tuple(rule for rule in self.rules if call.kind in rule.info.kinds and call.api in rule.info.apis)
            self._applicable[call.api, call.kind] = found
        return found

    def _guarded(self, rule: Rule, function: Callable[..., Any], *arguments: Any) -> Sequence[Any]:
        try:
            return list(function(*arguments) or ())
        except Exception as error:
            self._rule_error(rule.info.id, error)
            return ()

    def _params_of(self, rule: Rule) -> Mapping[str, Any]:
        defaults = {name: param.default for name, param in rule.info.params.items()}
        return {**defaults, **self.settings.rule(rule.info.id).params}


def fingerprint(rule: str, endpoint: str, pointer: str, subject: str) -> str:
    """What makes two findings the same: rule, endpoint, pointer without positions, and subject; both without values.

    It is no keyed hash, since baselines are shared: pointer and subject come masked.
    """
    shape = "/".join("*" if part.isdigit() else part for part in template(pointer).split("/"))
    return hashlib.blake2b(
        f"{rule}\0{endpoint}\0{shape}\0{template(subject)}".encode("utf-8", "replace"), digest_size=8
    ).hexdigest()


def _short(text: str) -> str:
    """A text of a length that people and stores can bear; cut once it is masked, or half a value would stay."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _masked(value: Json, secrets: Sequence[str]) -> Json:
    try:
        kept: Json = masked_json(value, secrets)
    except Exception:
        return None  # what cannot be masked is dropped
    return kept
