"""Recipients say that mail is spam, and the app does not notice.

Mailbox providers measure it every day: Gmail asks senders to stay under 0.1 % of complaints and never to reach
0.3 %, and above that even wanted mail goes to the spam folder. Customer.io's own delivery stops mail to whoever
complained, and reports it as `spammed`; over an SMTP server of one's own nobody does.

Told are a complaint that no reaction follows (an opt-out, a marking attribute or event, suppression, deletion; reading
message metrics over the App API counts, too), a day's rate of complaints, and of mail that came back, over the
thresholds, and a webhook that is set up for what becomes of e-mail and leaves complaints out, while none comes
otherwise. Rates need volume: a few hundred mails prove nothing. They are counted from webhooks, by the day that these
tell and over the whole workspace, since a webhook does not name the sending domain. Gmail reports no single
complaint, so the true rate is higher.

Fix: let a webhook for `email_spammed` come to the app, stop mail to whoever complained (`unsubscribed: true` keeps the
profile, Track's `suppress` deletes it for good), and watch the daily rate, for Gmail in Postmaster Tools.

See https://support.google.com/a/answer/81126 (email sender guidelines: 0.1 % and 0.3 %)
See https://docs.customer.io/journeys/webhooks/ (reporting webhooks: spammed)
See https://docs.customer.io/journeys/esp-suppression/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cio_proxy.bounces import permanence
from cio_proxy.model import (
    REACTED,
    Call,
    Deadline,
    Fact,
    Finding,
    Key,
    Known,
    Outcome,
    Param,
    RuleInfo,
    Sample,
    Unavailable,
)

DAY = 86_400.0
COUNTED = 1_024
"""Mails of a day that are told apart; beyond that their number is estimated, to about 3 %."""
RETRIED = 8 * DAY
"""A webhook is sent again for seven days."""
WATCHED, COVERED = "complaints-watched", "complaints-covered"
COUNTS = {metric: f"mail-{metric}" for metric in ("sent", "delivered", "spammed", "bounced")}

RULE = RuleInfo(
    id="unmonitored-complaints",
    severity="error",
    category="6",
    kinds=frozenset({"webhook_metric", "other", "content_read"}),
    apis=frozenset({"webhooks", "app"}),
    actions=("off", "log", "default"),
    surest="likely",
    params={
        "window": Param(2 * DAY, "how long a complaint may wait for a reaction, as an opt-out may", "duration"),
        "volume": Param(1_000, "so many mails of a day have to be delivered before a rate means anything"),
        "complaints": Param(4, "so many complaints of a day are no chance"),
        "warned": Param(10, "complaints in 10,000 delivered mails that Gmail asks to stay under (0.1 %)"),
        "worst": Param(30, "complaints in 10,000 delivered mails that Gmail asks never to reach (0.3 %)"),
        "bounces": Param(5, "mails in a hundred that come back: over that, providers step in (common practice)"),
    },
)

FIX = (
    "Set `unsubscribed: true` for whoever complained, and find out which mail it was. Track's `suppress` deletes the"
    " profile and blocks its id for good."
)
NOWHERE = "which workspace a webhook is of is not known: name its signing key in `workspaces`"
_READS = re.compile(rb"/(?:messages|metrics|exports/deliveries|esp)(?=[/?]|\Z)")


def check(call: Call, known: Known) -> Iterable[Unavailable]:
    """Nothing can be told at once; not even later, where nobody knows whose webhook it is."""
    return (Unavailable(NOWHERE),) if call.joined is None and _is_mail(call, "spammed") else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """What became of a mail, that somebody complained, what the app reads, and which webhooks it sets up."""
    if call.kind == "webhook_metric":
        return _of_webhook(call, params["window"])
    return _of_app(call, outcome, params["window"])


def _of_webhook(call: Call, window: float) -> Iterator[Fact]:
    if call.body.get("object_type") != "email" or call.name not in COUNTS or not _counts(call):
        return
    mail = call.data.get("delivery_id") or call.exchange.id
    yield Fact(_of_day(call, COUNTS[call.name]), Sample(COUNTED, plain=frozenset({str(mail)})), RETRIED)
    if call.name != "spammed":
        return
    yield Fact(_joined(call, COVERED), call.seen, 30 * DAY)
    subjects = dict.fromkeys((*_recipient(call), *call.identifiers))
    if call.joined is not None and subjects:
        watch = tuple(Key(REACTED, call.joined, each) for each in (*subjects, f"delivery:{mail}"))
        deadline = Deadline(call.at + window, RULE.id, (*watch, _joined(call, WATCHED)), _unanswered())
        yield Fact(Key(RULE.id, call.joined, next(iter(subjects))), deadline, window + DAY)


def _of_app(call: Call, outcome: Outcome, window: float) -> Iterator[Fact]:
    method, span = call.exchange.method, call.seen
    if method == "GET":
        if _READS.search(call.exchange.target):
            yield Fact(_joined(call, WATCHED), span, RETRIED)
    elif method in ("POST", "PUT") and call.endpoint.startswith("/v1/reporting_webhooks"):
        events = call.body.get("events")
        names = [each for each in events if isinstance(each, str)] if isinstance(events, list) else []
        if any("spam" in each for each in names):
            yield Fact(_joined(call, COVERED), span, 30 * DAY)
        elif outcome.kind == "accepted" and not call.body.get("disabled") and any(map(_is_about_email, names)):
            watch = (_joined(call, COVERED), _joined(call, WATCHED))
            deadline = Deadline(call.at + window, RULE.id, watch, _left_out())
            yield Fact(_joined(call, "complaints-left-out"), deadline, window + DAY)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding | Fact]:
    """A finding for the first complaint, or bounce, that takes the rate of its day over a threshold."""
    if _is_mail(call, "spammed"):
        return _rate_of_complaints(call, known)
    return _rate_of_bounces(call, known) if _is_mail(call, "bounced") and _counts(call) else ()


def _rate_of_complaints(call: Call, known: Known) -> Iterator[Finding | Fact]:
    params = known.params
    delivered, complaints = _count(call, known, "delivered"), _count(call, known, "spammed") + 1
    if delivered < params["volume"] or complaints < params["complaints"]:
        return
    for threshold in ("worst", "warned"):
        limit = params[threshold]
        if complaints * 10_000 <= delivered * limit:
            continue
        if known.span(told := _of_day(call, f"complaints-{threshold}")) is None:
            yield Fact(told, call.seen, RETRIED)
            yield _rate("was complained of", complaints, delivered, "delivered", f"{limit / 100:g} %")
        return


def _rate_of_bounces(call: Call, known: Known) -> Iterator[Finding | Fact]:
    params = known.params
    bounced = _count(call, known, "bounced") + 1
    sent = max(_count(call, known, "sent"), _count(call, known, "delivered") + bounced)
    if sent < params["volume"] or bounced * 100 <= sent * params["bounces"]:
        return
    if known.span(told := _of_day(call, "bounces-told")) is None:
        yield Fact(told, call.seen, RETRIED)
        yield _rate("came back", bounced, sent, "sent", f"{params['bounces']} %")


def due(deadline: Deadline, known: Known) -> Iterator[Finding]:
    """The window is over: a finding if nobody reacted since shortly before."""
    for key in deadline.watch:
        span = known.span(key)
        if span is not None and (key.kind == COVERED or span.last >= deadline.seed.time - known.params["window"]):
            return
    yield deadline.seed


def _is_mail(call: Call, metric: str) -> bool:
    return call.name == metric and call.kind == "webhook_metric" and call.body.get("object_type") == "email"


def _counts(call: Call) -> bool:
    """A mail that may be taken later has not come back."""
    said = call.data.get("failure_message")
    return call.name != "bounced" or not isinstance(said, str) or permanence(said) != "other"


def _recipient(call: Call) -> Iterator[str]:
    if isinstance(recipient := call.data.get("recipient"), str) and recipient:
        yield f"email:{recipient.lower()}"


def _is_about_email(event: str) -> bool:
    return event.startswith("email_")


def _count(call: Call, known: Known, metric: str) -> float:
    """How many mails of the day it was, before this call."""
    sample = known.sample(_of_day(call, COUNTS[metric]))
    return 0 if sample is None else sample.count()


def _of_day(call: Call, kind: str) -> Key:
    at = call.body.get("timestamp")
    told = isinstance(at, int | float) and abs(call.at - at) < RETRIED
    day = int((at if told and isinstance(at, int | float) else call.at) / DAY)
    return Key(kind, call.workspace, f"mail of day {day}")


def _joined(call: Call, kind: str) -> Key:
    return call.joined_key(kind, "complaints")


def _unanswered() -> Finding:
    return RULE.finding(
        "/metric",
        "somebody complained that a mail is spam, and nothing was done about it",
        effect="Over your own SMTP server mail goes on to them, and every further complaint costs reputation.",
        fix=FIX,
        confidence="likely",
    )


def _left_out() -> Finding:
    return RULE.finding(
        "/events",
        "a webhook for what becomes of e-mail leaves complaints out, and none is read otherwise",
        effect="The app does not learn who complained, nor that the rate of complaints grows.",
        fix="Add `email_spammed` to its events, or read the metrics over the App API.",
        confidence="likely",
    )


def _rate(what: str, count: float, of: float, how: str, limit: str) -> Finding:
    return RULE.finding(
        "/metric",
        f"over {limit} of a day's mail {what}",
        effect=f"{count:.0f} of {of:.0f} mails {how}, {100 * count / of:.2f} %: providers put such mail aside.",
        fix="Stop what was sent last, send to who asked for it and reads it, and make leaving easy.",
        confidence="likely",
    )
