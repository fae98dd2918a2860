"""A body, a batch, a name or a value is over a published limit.

Track refuses what is over its limits with 400; Pipelines answers 200 to an oversized call and drops
it. Limits are bytes of UTF-8: a name of 34 emoji is over 100 bytes. The pages of Customer.io give two
figures for the length of an event name and for the sizes of Pipelines; between the two it may pass.

Fix: send less: references instead of documents, smaller batches, shorter names.

See https://docs.customer.io/journeys/invalid-api-requests/
See https://docs.customer.io/integrations/api/track/ (v2 entity and batch)
See https://docs.customer.io/integrations/api/cdp/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from cio_proxy.model import KINDS, Call, Confidence, Finding, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="oversized-payload",
    severity="error",
    category="contract",
    kinds=frozenset(KINDS) - {"other", "content_read", "content_write", "send_message", "webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    refuses=True,
)

KB = 1024
REFUSED = "Customer.io refuses it with 400."
DROPPED = "Pipelines answers 200 and drops it."
MAYBE_DROPPED = (
    "Pipelines answers 200 and may drop it: one page of its documentation gives this limit, another its double."
)
EVENT_DATA = 100_000


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The sizes of reference 6.2, each with how far over it is."""
    return _judge(call) if _may_be_over(call) else ()


def _may_be_over(call: Call) -> bool:
    """A quick first look, at characters: one has at most four bytes, and JSON is no shorter than what it says."""
    name, id = call.name, call.person.id
    if (name is not None and len(name) > 25) or (id is not None and len(id) > 150):
        return True
    if call.api != "track_v1":
        return call.size > 32 * KB or (call.leads and call.item is not None)
    if call.kind == "identify":
        return call.size > 1000 or max(map(len, call.attributes), default=0) > 37
    return call.size > EVENT_DATA or call.kind in ("segment_add", "segment_remove")


def _judge(call: Call) -> Iterator[Finding]:
    match call.api:
        case "track_v1":
            yield from _track_v1(call)
        case "track_v2":
            yield from _track_v2(call)
        case _:
            yield from _pipelines(call)
    yield from _name(call)
    if call.person.id is not None and len(call.person.id) > 150:
        yield _over(call.person_at, "person's id", len(call.person.id), 150, "characters", "certain")


def _track_v1(call: Call) -> Iterator[Finding]:
    match call.kind:
        case "identify":
            yield from _attributes(call)
        case "event" | "page" | "screen" if call.size > EVENT_DATA:
            size = _bytes(json.dumps(dict(call.data), ensure_ascii=False, separators=(",", ":")))
            if size > EVENT_DATA:
                yield _over("/data", "event data", size, EVENT_DATA, "bytes", "certain", refusable=True)
        case "segment_add" | "segment_remove":
            ids = call.body.get("ids")
            if isinstance(ids, list) and not 1 <= len(ids) <= 1000:
                yield _over("/ids", "list of ids", len(ids), 1000, "ids", "certain")


def _attributes(call: Call) -> Iterator[Finding]:
    count = sum(not name.startswith("_") for name in call.attributes)
    if count > 300:
        yield _over("", "identify", count, 300, "attributes", "certain")
    for name, value in call.attributes.items():
        if (size := _bytes(name)) > 150:
            yield _over(pointer("", name), "attribute name", size, 150, "bytes", "certain")
        if isinstance(value, str) and (size := _bytes(value)) > 1000:
            yield _over(pointer("", name), "attribute value", size, 1000, "bytes", "certain")


def _track_v2(call: Call) -> Iterator[Finding]:
    whole = len(call.document.raw)
    if call.leads and call.item is not None and whole > 500 * KB:
        yield _over("/batch", "batch", whole, 500 * KB, "bytes", "certain", refusable=True, whole=True)
    if call.size > 32 * KB:
        yield _over(call.body_at, "operation", call.size, 32 * KB, "bytes", "certain", refusable=True)


def _pipelines(call: Call) -> Iterator[Finding]:
    whole = len(call.document.raw)
    if call.leads and call.item is not None:
        yield from _doubtful("/batch", "batch", whole, 500 * KB, 1024 * KB, whole=True)
    yield from _doubtful(call.body_at, "call", call.size, 32 * KB, 64 * KB)


def _doubtful(where: str, what: str, size: int, lower: int, upper: int, *, whole: bool = False) -> Iterator[Finding]:
    if size > upper:
        yield _over(where, what, size, upper, "bytes", "certain", effect=DROPPED, refusable=True, whole=whole)
    elif size > lower:
        yield _over(where, what, size, lower, "bytes", "likely", effect=MAYBE_DROPPED, whole=whole)


def _name(call: Call) -> Iterator[Finding]:
    if call.name is None or call.kind != "event":
        return
    if len(call.name) > 500:
        yield _over(call.name_at, "event name", len(call.name), 500, "characters", "certain", refusable=True)
    elif (size := _bytes(call.name)) > 100:
        yield _over(call.name_at, "event name", size, 100, "bytes", "likely")


def _over(
    where: str,
    what: str,
    size: int,
    limit: int,
    unit: str,
    confidence: Confidence,
    *,
    effect: str = REFUSED,
    refusable: bool = False,
    whole: bool = False,
) -> Finding:
    message = f"the {what} is over the limit: {size:,} of {limit:,} {unit}" if size else f"the {what} is empty"
    return RULE.finding(
        where,
        message,
        effect=effect,
        fix=f"Keep the {what} to {limit:,} {unit}.",
        evidence=size,
        confidence=confidence,
        refusable=refusable,
        whole=whole,
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
