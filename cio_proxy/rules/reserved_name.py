"""An attribute has a name that Customer.io keeps for itself.

`cio_id` and the `_last_status` of a device are read-only: what is sent under them is not stored.
Names that begin with `cio_` or `_` are reserved for fields that Customer.io gives a meaning to, today
or tomorrow; that it is refused or ignored under every such name is not documented.

Fix: give the attribute a name of your own; to address a person by `cio_id`, put it where the API takes identifiers.

See https://docs.customer.io/journeys/reserved-attributes/
See https://docs.customer.io/integrations/api/track/ (identify, add_device)
"""

from __future__ import annotations

from collections.abc import Iterable

from cio_proxy.model import PREFERENCES, Call, Confidence, Finding, Form, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="reserved-name",
    severity="warning",
    category="contract",
    kinds=frozenset({"identify", "object_identify", "device_add"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

PREFIXES = ("_", "cio_")
MEANT = ("_update", "_timestamp", "cio_relationships")
DEVICE_STATUS = "_last_status"


def concerns(form: Form) -> bool:
    """Names that begin so."""
    return any(name.startswith(PREFIXES) for name in form.attributes)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for each attribute under a reserved name.

    Customer.io's mobile SDKs send `cio_sdk_version` and the like with a device: there only its status is judged.
    """
    if call.kind == "device_add":
        return [_finding(call, DEVICE_STATUS)] if call.attributes.get(DEVICE_STATUS) is not None else ()
    return [
        _finding(call, name)
        for name in call.attributes
        if name.startswith(PREFIXES)
        and name not in MEANT
        and not name.startswith(PREFERENCES)
        and call.attributes[name] is not None
        and not _repeats_the_path(call, name)
    ]


def _repeats_the_path(call: Call, name: str) -> bool:
    """The customerio gem 6.2.0 puts `cio_id` in the path and leaves it in the body: the app cannot help it."""
    return name == "cio_id" and call.attributes[name] == call.person.cio_id


def _finding(call: Call, name: str) -> Finding:
    confidence: Confidence = "likely" if name.startswith("cio_") else "possible"
    effect = "Customer.io may read it as a field of its own, or not store it."
    if name in ("cio_id", DEVICE_STATUS):
        confidence = "certain"
        effect = "Customer.io sets it itself: what is sent is not stored."
    return RULE.finding(
        pointer(call.attributes_at, name),
        f"the attribute name `{name[:60]}` is reserved",
        effect=effect,
        fix="Give the attribute a name of your own.",
        name=name,
        confidence=confidence,
    )
