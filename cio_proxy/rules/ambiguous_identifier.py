"""An identifier stands in the path without its percent-encoding.

A slash in it makes another path: Customer.io has no such route, or reads another identifier. It also
asks for `+`, `@` and `&` to be encoded, and says that a value that is not silently matches nobody.

Fix: percent-encode the identifier as one segment of the path, once: `encodeURIComponent(id)` in JavaScript,
`quote(id, safe="")` in Python.

See https://docs.customer.io/integrations/api/ (APIs overview)
"""

from __future__ import annotations

from collections.abc import Iterable

from cio_proxy.model import Call, Confidence, Finding, Known, RuleInfo

RULE = RuleInfo(
    id="ambiguous-identifier",
    severity="error",
    category="contract",
    kinds=frozenset(
        {
            "identify",
            "event",
            "page",
            "screen",
            "delete",
            "suppress",
            "unsuppress",
            "device_add",
            "device_delete",
            "unreadable",
        }
    ),
    apis=frozenset({"track_v1"}),
    surest="likely",
)

PEOPLE = "/api/v1/customers/{identifier}"
MARKS = b"/+@&"
OTHERS = bytes(byte for byte in range(256) if byte not in MARKS)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for the identifier in the path, as it was sent."""
    if not call.endpoint.startswith(PEOPLE):
        return ()
    marks = _identifier(call.exchange.target, call.endpoint.removeprefix(PEOPLE)).translate(None, OTHERS)
    if not marks:
        return ()
    if b"/" in marks:
        effect = "Customer.io finds no such route, or reads another identifier: the call is lost."
        return (_finding("a slash", effect, "likely"),)
    mark = chr(min(marks, key=MARKS.index))
    effect = "Customer.io documents that a value that is not encoded may match nobody, without an error."
    return (_finding(f"`{mark}`", effect, "possible"),)


def _identifier(target: bytes, after: str) -> bytes:
    """The raw identifier of a path that ends in `after`; one slash at its end says nothing."""
    path = target.partition(b"?")[0].partition(b"/api/v1/customers/")[2].removesuffix(b"/")
    if after == "/devices/{device_id}":
        return path.rpartition(b"/devices/")[0]
    return path.removesuffix(after.encode())


def _finding(what: str, effect: str, confidence: Confidence) -> Finding:
    return RULE.finding(
        "path:",
        f"the identifier in the path holds {what} that is not percent-encoded",
        effect=effect,
        fix='Percent-encode it once: `encodeURIComponent(id)` in JavaScript, `quote(id, safe="")` in Python.',
        confidence=confidence,
    )
