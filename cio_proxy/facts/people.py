"""Who exists, as far as calls tell: taught by the engine itself, since many rules ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.facts.workspace import LIFE
from cio_proxy.model import (
    ADDRESSES,
    DELETED,
    HAS_EMAIL,
    IDENTIFIED,
    Call,
    Fact,
    Key,
    Kind,
    Outcome,
    Sample,
    Span,
    made,
)

MAKING: frozenset[Kind] = frozenset({"identify", "form_submit", "device_add", "relationship_add", "merge"})
"""What makes a person, or needs one."""
ENDING: frozenset[Kind] = frozenset({"delete", "suppress"})
MOST = 8
"""E-mail addresses of one id that are told apart."""
TELLING = MAKING | ENDING


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    """That the person of a call exists, and with which address, or does not any more; of a merge, that one is gone.

    Whom Pipelines identifies is a person to the Track API too.
    """
    if call.kind in MAKING:
        kind = IDENTIFIED
    elif call.kind in ENDING:
        kind = DELETED
    else:
        return
    for home in call.homes:
        for identifier in call.identifiers:
            yield Fact(made(Key, (kind, home, identifier, False)), call.seen, LIFE, announced=kind == IDENTIFIED)
        for identifier in call.merged.identifiers():
            yield Fact(made(Key, (DELETED, home, identifier, False)), call.seen, LIFE)
    id, email = call.person.id, call.person.email
    if call.kind == "identify" and id is not None and email is not None:
        yield Fact(call.key(ADDRESSES, f"id:{id}"), Sample(MOST, plain=frozenset({email})), LIFE)


def told(workspace: str, sealed: Iterable[str], email: bool, at: float) -> Iterator[Fact]:
    """That a person exists, as an export says that was made at `at`, and whether they have an e-mail address.

    The person's identifiers are sealed already, once for all of these facts.
    """
    span = Span(at, at)
    for subject in sealed:
        yield Fact(Key(IDENTIFIED, workspace, subject), span, LIFE)
        if email:
            yield Fact(Key(HAS_EMAIL, workspace, subject), span, LIFE)
