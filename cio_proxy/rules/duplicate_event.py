"""The same event was sent twice within two seconds.

Customer.io stores both: counts and sums double, and a campaign that may be entered again mails twice.
The usual causes are a handler that is registered twice, and two services that both send the event.

Both events were accepted, and they are the same bytes: person, name, time and data. Two requests that
carry ids of their own (an event's `id`, a `messageId`) are two events, or, with one id, a repetition
that Customer.io ignores. A retry is not judged: neither one marked with `X-Retry-Count`, nor one after
an answer that never came or was an error of the server. Requests that overlap are not judged either, nor is an event of
somebody who was deleted meanwhile, as between two tests: the first one is gone.

Most events may well happen twice in two seconds: somebody presses a button again. Judged are those that
have a time to the millisecond, and those whose name says that something is done (`order_completed`) and
whose data names it (`order_id`).

Fix: send each event from one place; give it a ULID as `id` (a `messageId` on Pipelines), which makes a repetition
harmless.

See https://docs.customer.io/integrations/api/track/ (track: id)
See https://docs.customer.io/integrations/api/cdp/ (messageId)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.model import (
    Call,
    Fact,
    Finding,
    Form,
    Key,
    Known,
    Origin,
    Outcome,
    Param,
    RuleInfo,
    Span,
    lapse,
    recalled,
)

RULE = RuleInfo(
    id="duplicate-event",
    severity="warning",
    category="contract",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={"within": Param(2.0, "how soon after an event the same one is a duplicate", "duration")},
)

_DONE = re.compile(
    r"(?:completed?|placed|paid|purchased?|booked|ordered|created|submitted|confirmed|cancell?ed|shipped|delivered"
    r"|succeeded|signedup|registered|received)\Z"
)
_EXACT = re.compile(r":\d\d[.,]\d{3}")
UNSURE = Origin()
"""What a span has whose event may not have been accepted: no exchange can be named that brought it."""
_OCCURRENCE = re.compile(
    r"(?:order|transaction|payment|invoice|booking|reservation|purchase|charge|refund|receipt|request|submission)"
    r"(?:id|uuid|no|nr|num|number|ref|reference|code)?\Z"
)


def concerns(form: Form) -> bool:
    """Events with a time of their own, or of what happens once."""
    return "timestamp" in form.body or _happens_once(form)


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """That the event was sent, for as long as a repetition of it is a duplicate."""
    if (key := _key(call)) is None:
        return ()
    sent = call.seen if outcome.kind == "accepted" else call.seen._replace(origin=UNSURE)
    return (Fact(key, sent, params["within"] + 1.0),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The same event twice in one batch."""
    return _judge(call, known, same_exchange=True) if call.item else ()


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding]:
    """The same event in an earlier exchange; both have been accepted by now."""
    return _judge(call, known, same_exchange=False) if outcome.kind == "accepted" else ()


def _judge(call: Call, known: Known, *, same_exchange: bool) -> Iterable[Finding]:
    key = _key(call)
    sent = None if key is None else known.span(key)
    if sent is None or sent.origin == UNSURE or (sent.origin.exchange == call.exchange.id) is not same_exchange:
        return ()
    return _again(call, known, sent, same_exchange)


def _again(call: Call, known: Known, sent: Span, same_exchange: bool) -> Iterator[Finding]:
    gap = call.at - sent.last
    if not 0 <= gap <= known.params["within"] or call.exchange.header("x-retry-count") is not None:
        return
    if call.is_gone_since(sent.last, known):
        return  # and the first event with the person
    yield RULE.finding(
        call.name_at,
        "the same event stands in the batch twice" if same_exchange else f"the same event was sent {lapse(gap)} before",
        effect="Customer.io stores both: counts double, and a campaign that may be entered again mails twice.",
        fix="Send each event from one place, and give it an id of its own, which makes a repetition harmless.",
        confidence="likely",
        name=call.name,
        related=(sent.origin.exchange,),
    )


def _key(call: Call) -> Key | None:
    """The person and the event as it was sent. None where an id tells events apart, or the event may well recur."""
    if call.body.get("messageId" if call.api == "pipelines" else "id") not in (None, "") or not call.name:
        return None
    if not (_has_exact_time(call) or _happens_once(call.form)):
        return None
    person = call.subject
    return call.key("event-sent", f"{call.exchange.host}\0{person}\0{call.digest}") if person else None


def _happens_once(form: Form) -> bool:
    """Whether the name says that something is done, and the data names an order, a payment or the like."""
    return form.name is not None and _is_done(form.name) and any(map(_is_an_occurrence, form.data))


def _has_exact_time(call: Call) -> bool:
    """To the millisecond: within one second much can happen twice."""
    sent = call.body.get("timestamp")
    return (type(sent) is str and _EXACT.search(sent) is not None) or (type(sent) is float and not sent.is_integer())


@recalled(10_000)
def _is_done(name: str) -> bool:
    return _DONE.search(re.sub(r"[^a-z]", "", name[:100].lower())) is not None


@recalled(10_000)
def _is_an_occurrence(name: str) -> bool:
    return _OCCURRENCE.match(re.sub(r"[_ .-]", "", name[:100]).lower()) is not None
