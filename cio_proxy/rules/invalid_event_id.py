"""The id of an event is not a ULID.

The `id` of a Track event is documented as a ULID: Customer.io ignores a second event with the same
one, which makes a retry harmless. What becomes of any other text is not documented. If it is dropped,
a retried event counts twice; if it is taken, a value that is not unique, such as the id of the person
or of the order, makes later events vanish.

An empty `id` or null is none. The ids of deliveries have a shape of their own and are not judged.

Fix: generate one ULID for each event, and send it again with each retry; or leave `id` out. What belongs to the
event, such as an order number, goes into its data.

See https://docs.customer.io/integrations/api/track/ (track; v2 person event)
See https://github.com/ulid/spec
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cio_proxy.model import Call, Finding, Json, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="invalid-event-id",
    severity="warning",
    category="contract",
    kinds=frozenset({"event", "page", "screen"}),
    apis=frozenset({"track_v1", "track_v2"}),
    surest="likely",
)

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}\Z")


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The shape of the id alone."""
    id = call.body.get("id")
    if id is None or id == "" or (type(id) is str and _ULID.match(id)):
        return ()
    return _finding(call, id)


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
