"""Completes what a rule says: where and when it was, masked, under what name it is accepted, and what is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from cio_proxy import policy
from cio_proxy.apis.credentials import secrets_of
from cio_proxy.baseline import entry
from cio_proxy.masking import masked, masked_json, spellings
from cio_proxy.model import METHODS, Call, Exemption, Finding, Json, Seal, Settings, Taken

type Exempted = Callable[[Exemption], None]

SHOWN = 300
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?![0-9a-f])")


class Completion:
    """Completes findings under one configuration. `exempted` is told of each exemption that fits one."""

    def __init__(self, settings: Settings, seal: Seal, exempted: Exempted) -> None:
        self._settings = settings
        self._seal = seal
        self._exempted = exempted
        self._exemptions: dict[str, list[Exemption]] = {}
        for each in settings.exemptions:
            self._exemptions.setdefault(each.rule, []).append(each)
        self._secrets = lru_cache(1_000)(lambda header: spellings(secrets_of(header)))
        self._masked = lru_cache(1_000)(masked)

    def finding(
        self, said: Finding, call: Call, calls: Sequence[Call], client: str, *, number: int = 0, late: bool = False
    ) -> Finding:
        """The finding number `number` of its rule about one of the calls of an exchange; nothing late is refused."""
        if self.is_exempt(said, call, client):
            return self._completed(said, call, client, number, "exempt")
        action: Taken = "logged" if late else policy.decide(said, calls, call, self._settings)
        return self._completed(said, call, client, number, action)

    def seed(self, said: Finding, call: Call, client: str) -> Finding:
        """The finding that a deadline may give, free of personal values; what is done is decided when it is due."""
        return self._completed(said, call, client, 0, "logged")

    def has_exemptions(self, rule: str) -> bool:
        """Whether any finding of a rule may be exempt."""
        return rule in self._exemptions

    def is_exempt(self, said: Finding, call: Call, client: str) -> bool:
        """Whether an exemption holds for what is said of a call."""
        return self._is_exempt(said, call.endpoint, client, call.at)

    def due(self, seed: Finding, at: float) -> Finding:
        """The finding of a deadline that has passed."""
        exempt = self._is_exempt(seed, seed.endpoint, seed.client, at)
        action = policy.accepted("exempt" if exempt else "logged", seed.fingerprint, self._settings.baselined)
        return replace(seed, time=at, action=action)

    def _is_exempt(self, said: Finding, endpoint: str, client: str, at: float) -> bool:
        exemptions = self._exemptions.get(said.rule)
        found = policy.exemption(said, exemptions, endpoint=endpoint, client=client, at=at) if exemptions else None
        if found is not None:
            self._exempted(found)
        return found is not None

    def _completed(self, said: Finding, call: Call, client: str, number: int, action: Taken) -> Finding:
        exchange = call.exchange
        person = call.person.main()
        secrets = self._secrets(exchange.header("authorization"))
        pointer = _short(self._masked(said.pointer, secrets))
        name = None if said.name is None else _short(self._masked(said.name, secrets))
        fingerprint = _fingerprint(said.rule, call.endpoint, pointer, name)
        hidden = not self._settings.show_values
        traced = _TRACEPARENT.match(exchange.header("traceparent") or "")
        return replace(
            said,
            id=f"{exchange.id}-{said.rule}-{call.item or 0}-{number}",
            time=exchange.at,
            action=policy.accepted(action, fingerprint, self._settings.baselined),
            message=_short(self._masked(said.message, secrets) if hidden else said.message),
            effect=self._masked(said.effect, secrets) if hidden else said.effect,
            fix=self._masked(said.fix, secrets) if hidden else said.fix,
            evidence=_masked(said.evidence, secrets) if hidden else said.evidence,
            corrected=_masked(said.corrected, secrets) if hidden else said.corrected,
            pointer=pointer if hidden else _short(said.pointer),
            name=name if hidden or said.name is None else _short(said.name),
            api=call.api,
            call=call.kind,
            method=exchange.method if exchange.method in METHODS else "other",
            endpoint=call.endpoint,
            item=None if said.whole else call.item,
            person=None if person is None else self._seal(f"person\0{call.workspace}\0{person}"),
            client=client,
            listener=exchange.listener,
            workspace=call.workspace,
            exchange=exchange.id,
            trace_id=traced[1] if traced else None,
            fingerprint=fingerprint,
        )


@lru_cache(1_000)
def _fingerprint(rule: str, endpoint: str, pointer: str, name: str | None) -> str:
    """What findings of one kind have in common; the texts are short by now."""
    return entry(rule, endpoint, pointer, name).fingerprint


def _short(text: str) -> str:
    """A text of a length that people and stores can bear; cut once it is masked, or half a value would stay."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _masked(value: Json, secrets: Sequence[str]) -> Json:
    try:
        kept: Json = masked_json(value, secrets)
    except Exception:
        return None  # what cannot be masked is dropped
    return kept
