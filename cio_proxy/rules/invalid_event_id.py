"""The id of an event is not a ULID, or another event had it before.

The `id` of a Track event is documented as a ULID: Customer.io ignores a second event with the same
one, which makes a retry harmless. What becomes of any other text is not documented. If it is dropped,
a retried event counts twice; if it is taken, a value that is not unique, such as the id of the person
or of the order, makes later events vanish.

An id that comes back on another event - of another person, of another name, with other data - makes Customer.io drop
that event as a repetition, and answer 200. So it is with the `messageId` of Pipelines, unless it holds a UUID as those
do that the libraries make for each call. The same event under the same id is a retry and as it should be; times in its
data may differ, and who is named by an id at first and by e-mail address then may be one person. Ids are remembered for
seconds, since every event may have one: what is found is an id that many events share, not one that comes back a day
later.

An empty `id` or null is none. The ids of deliveries have a shape of their own and are not judged.

Fix: generate one ULID for each event, and send it again with each retry; or leave `id` out. What belongs to the
event, such as an order number, goes into its data.

See https://docs.customer.io/integrations/api/track/ (track; v2 person event)
See https://github.com/ulid/spec
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from cio_proxy.model import (
    Call,
    Fact,
    Finding,
    Form,
    Json,
    Key,
    Known,
    Outcome,
    Param,
    Person,
    RuleInfo,
    Sample,
    leaves,
    pointer,
)
from cio_proxy.recognise import moment

RULE = RuleInfo(
    id="invalid-event-id",
    severity="warning",
    category="contract",
    kinds=frozenset({"event", "page", "screen"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        # No longer than facts may live that never push out another one: with every event an id comes along.
        "remember": Param(30.0, "how long after an event its id may not come back on another one", "duration"),
    },
)

EVENTS = 4
"""How many events of one id are known: enough to know a retry of each."""
NAMED = ("", *Person._fields)
"""How an event may name its person, or nobody."""
LONGEST = 200
"""Characters of an id that is looked at."""

_UUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}\Z")


def concerns(form: Form) -> bool:
    """What has an id."""
    return _field(form) in form.body


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """Which event had this id, if it was accepted."""
    key = _key(call)
    if key is None or outcome.kind != "accepted":
        return ()
    said = _said(call)
    events = frozenset((f"{said} {call.subject}", f"{said} {_named(call)}"))
    return (Fact(key, Sample(2 * EVENTS, plain=events), params["remember"]),)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """That the id was another event's; else its shape alone, where a ULID is documented."""
    id = _id(call)
    if id is None or id == "":
        return ()
    if (key := _key(call)) and (seen := known.sample(key)) and not _is_known(call, seen, known):
        return _reused(call)
    if call.api == "pipelines" or (type(id) is str and _ULID.match(id)):
        return ()
    return _finding(call, id)


def _id(call: Call) -> Json:
    return call.body.get(_field(call))


def _field(call: Call | Form) -> str:
    return "messageId" if call.api == "pipelines" else "id"


def _key(call: Call) -> Key | None:
    id = _id(call)
    if not id or not isinstance(id, str | int) or isinstance(id, bool):
        return None
    text = str(id)
    if len(text) > LONGEST or (call.api == "pipelines" and _UUID.search(text)):
        return None
    return Key("event-id", call.workspace, text.upper())


def _is_known(call: Call, seen: Sample, known: Known) -> bool:
    """Whether this event is one of these: of the same person, or of one who was named in another way."""
    said = _said(call)
    others = (f"{said} {named}" for named in NAMED if named != _named(call))
    return any(known.member(each) in seen.hashes for each in (f"{said} {call.subject}", *others))


def _named(call: Call) -> str:
    return (call.subject or "").partition(":")[0]


def _said(call: Call) -> str:
    """Kind, name and data of an event, but for the times in it, which a retry may make anew."""
    data = [leaf for leaf in leaves(dict(call.data)) if moment(leaf[0]) is None]
    said = repr((call.kind, call.name and call.name.strip(), data))
    return blake2b(said.encode(), digest_size=16).hexdigest()


def _reused(call: Call) -> Iterator[Finding]:
    field = _field(call)
    yield RULE.finding(
        pointer(call.body_at, field),
        f"another event had this `{field}` a moment before",
        effect="Customer.io takes it for a repetition: it answers 200 and drops the event.",
        fix="Generate one ULID for each event and keep it for its retries."
        if field == "id"
        else "Give each call a message id of its own, and keep it for its retries.",
        confidence="certain",
        name=call.name,
    )


def _finding(call: Call, id: Json) -> Iterator[Finding]:
    yield RULE.finding(
        pointer(call.body_at, "id"),
        "the id of the event is not a ULID",
        effect="Customer.io documents a ULID: another id may not keep a repeated event from counting twice.",
        fix="Generate one ULID for each event and keep it for its retries, or leave `id` out.",
        confidence="likely",
        evidence=f"{len(id)} characters" if isinstance(id, str) else f"not a string: {type(id).__name__}",
        name=call.name,
    )
