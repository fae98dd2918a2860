"""The body is not what a JSON API can read.

Customer.io refuses what is not JSON, and takes one of two equal keys without saying which. A NaN or
bytes that are not UTF-8 come from a serialiser that was told not to check.

Fix: serialise an object with a strict JSON encoder, in UTF-8, with each key once.

See https://docs.customer.io/journeys/invalid-api-requests/
See RFC 8259 (JSON)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cio_proxy.model import KINDS, Call, Confidence, Finding, Known, RuleInfo, Unavailable

RULE = RuleInfo(
    id="malformed-body",
    severity="error",
    category="contract",
    kinds=frozenset(KINDS) - {"other", "content_read", "unsubscribe", "webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

FAULTS: Mapping[str, tuple[str, Confidence, str]] = {
    "not-json": ("the body is not JSON", "certain", "Customer.io refuses it with 400."),
    "not-object": ("the body is not a JSON object", "certain", "Customer.io refuses it or ignores what it holds."),
    "bad-utf8": ("the body is not UTF-8", "certain", "JSON is UTF-8: what other bytes become is not documented."),
    "nan": ("the body holds NaN or Infinity", "certain", "JSON has no such number: Customer.io refuses the body."),
    "duplicate-key": (
        "an object has the same key twice",
        "likely",
        "Only one of the values is stored, usually the last.",
    ),
}


def check(call: Call, known: Known) -> Iterator[Finding | Unavailable]:
    """One finding for each kind of fault of the whole body."""
    if not call.leads or (call.kind == "unreadable" and not call.document.faults):
        return
    seen: set[str] = set()
    for fault in call.document.faults:
        if fault.kind not in FAULTS:
            yield Unavailable(fault.detail)
        elif fault.kind not in seen:
            seen.add(fault.kind)
            message, confidence, effect = FAULTS[fault.kind]
            yield RULE.finding(
                fault.pointer,
                message,
                effect=effect,
                fix="Serialise an object with a strict JSON encoder, in UTF-8, with each key once.",
                evidence=fault.detail,
                confidence=confidence,
                whole=True,
            )
