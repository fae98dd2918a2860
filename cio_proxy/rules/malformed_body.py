"""The body is not what a JSON API can read.

Customer.io refuses what is not JSON, and takes one of two equal keys without saying which. A NaN or
bytes that are not UTF-8 come from a serialiser that was told not to check.

Fix: serialise an object with a strict JSON encoder, in UTF-8, with each key once.

See https://docs.customer.io/journeys/invalid-api-requests/
See RFC 8259 (JSON)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cio_proxy.model import KINDS, Call, Confidence, Fault, Finding, Form, Known, RuleInfo, Unavailable

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
EMPTY = "the body is empty"
UNREAD: Mapping[str, str] = {
    "too-deep": "the body is nested too deep to be read",
    "too-large": "the body is too large to be read",
    "bad-encoding": "the content coding of the body is not read",
    "unread": "the body was streamed past unread",
}


def concerns(form: Form) -> bool:
    """What a strict reader would refuse, or nobody can read."""
    return form.faulty or form.kind == "unreadable"


def check(call: Call, known: Known) -> Iterable[Finding | Unavailable]:
    """One finding for each kind of fault of the whole body."""
    return _faults(call) if call.leads else ()


def _faults(call: Call) -> Iterator[Finding | Unavailable]:
    faults = {fault.kind: fault for fault in reversed(call.document.faults)}  # the first of each kind
    if "bad-utf8" in faults:
        faults.pop("not-json", None)  # bytes of another encoding are rarely JSON; one fault, one finding
    for fault in reversed(faults.values()):
        if fault.kind in UNREAD:
            yield Unavailable(UNREAD[fault.kind])
        else:
            yield _finding(call, fault)
    if call.kind == "unreadable" and not faults and not call.document.raw.strip():
        yield _finding(call, Fault("not-json", "", EMPTY), "likely")


def _finding(call: Call, fault: Fault, confidence: Confidence | None = None) -> Finding:
    message, sure, effect = FAULTS[fault.kind]
    if _is_lenient_case(call, fault):
        confidence = "possible"
    return RULE.finding(
        fault.pointer,
        EMPTY if fault.detail == EMPTY else message,
        effect=effect,
        fix="Serialise an object with a strict JSON encoder, in UTF-8, with each key once.",
        evidence=fault.detail,
        confidence=confidence or sure,
        whole=True,
    )


def _is_lenient_case(call: Call, fault: Fault) -> bool:
    """A form, which Track may still take (unverified), Go's `null` for a nil map, or PHP's `[]` for an empty one."""
    if fault.kind == "not-json":
        sent = call.exchange.header("content-type")
        return sent is not None and sent.startswith("application/x-www-form-urlencoded")
    return fault.kind == "not-object" and call.document.value in (None, [])
