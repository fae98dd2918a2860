"""A body, a batch, a name or a value is over a published limit.

Track refuses what is over its limits with 400; Pipelines answers 200 to an oversized call and drops
it. Limits are bytes of UTF-8: a name of 34 emoji is over 100 bytes.

Fix: send less: references instead of documents, smaller batches, shorter names.

See https://docs.customer.io/journeys/invalid-api-requests/
See https://docs.customer.io/integrations/api/track/ (v2 entity and batch)
See https://docs.customer.io/integrations/api/cdp/
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from cio_proxy.model import KINDS, Call, Confidence, Finding, Json, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="oversized-payload",
    severity="error",
    category="contract",
    kinds=frozenset(KINDS) - {"other", "content_read", "content_write", "send_message", "webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

KB = 1024
REFUSED = "Customer.io refuses it with 400."
DROPPED = "Pipelines answers 200 and drops the call."


def check(call: Call, known: Known) -> Iterator[Finding]:
    """The sizes of reference 6.2, each with how far over it is."""
    match call.api:
        case "track_v1":
            yield from _track_v1(call)
        case "track_v2":
            yield from _whole(call, 500 * KB, "certain", "/batch" if call.item is not None else "", REFUSED)
            if call.size > 32 * KB:
                yield _over(call.body_at, "operation", call.size, 32 * KB, "bytes", "certain", refusable=True)
        case _:
            yield from _pipelines(call)
    yield from _name(call)
    if call.person.id is not None and len(call.person.id) > 150:
        yield _over(call.person_at, "person's id", len(call.person.id), 150, "characters", "certain")


def _track_v1(call: Call) -> Iterator[Finding]:
    if call.kind == "identify":
        count = len(call.attributes)
        if count > 300:
            yield _over("", "identify", count, 300, "attributes", "certain")
        for name, value in call.attributes.items():
            where = pointer("", name)
            if (size := _bytes(name)) > 150:
                yield _over(where, "attribute name", size, 150, "bytes", "certain")
            if isinstance(value, str) and (size := _bytes(value)) > 1000:
                yield _over(where, "attribute value", size, 1000, "bytes", "certain")
    elif call.kind in ("event", "page", "screen") and call.size > 100_000:
        size = _bytes(json.dumps(dict(call.data), ensure_ascii=False, separators=(",", ":")))
        if size > 100_000:
            yield _over("/data", "event data", size, 100_000, "bytes", "certain", refusable=True)
    elif call.kind in ("segment_add", "segment_remove"):
        ids: Json = call.body.get("ids")
        if isinstance(ids, list) and len(ids) > 1000:
            yield _over("/ids", "segment call", len(ids), 1000, "ids", "certain")


def _pipelines(call: Call) -> Iterator[Finding]:
    if call.item is not None:
        whole = len(call.document.raw)
        certain = whole > KB * KB
        yield from _whole(call, KB * KB if certain else 500 * KB, "certain" if certain else "likely", "/batch", DROPPED)
    if call.size > 32 * KB:
        if call.size > 64 * KB:
            yield _over(call.body_at, "call", call.size, 64 * KB, "bytes", "certain", effect=DROPPED, refusable=True)
        else:
            yield _over(call.body_at, "call", call.size, 32 * KB, "bytes", "likely", effect=DROPPED)


def _whole(call: Call, limit: int, confidence: Confidence, where: str, effect: str) -> Iterator[Finding]:
    size = len(call.document.raw)
    if call.leads and call.item is not None and size > limit:
        sure = confidence == "certain"
        yield _over(where, "batch", size, limit, "bytes", confidence, effect=effect, refusable=sure, whole=True)


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
    return RULE.finding(
        where,
        f"the {what} is over the limit: {size:,} of {limit:,} {unit}",
        effect=effect,
        fix=f"Keep the {what} to {limit:,} {unit}.",
        evidence=size,
        confidence=confidence,
        refusable=refusable,
        whole=whole,
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
