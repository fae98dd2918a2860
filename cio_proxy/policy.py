"""From findings and configuration to what is done: reported or not, logged or refused."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from fnmatch import fnmatchcase

from cio_proxy.model import CONFIDENCES, FORGED, PREFERENCES, Call, Exemption, Finding, Kind, Settings, Taken, leaves

NEVER_REFUSED: frozenset[Kind] = frozenset(
    {
        "delete",
        "device_delete",
        "suppress",
        "unsuppress",
        "unsubscribe",
        "report_metric",
        "content_read",
        "webhook_metric",
    }
)
ONLY_ON_REQUEST: frozenset[Kind] = frozenset({"send_message", "broadcast_trigger"})


def is_never_refused(call: Call) -> bool:
    """Reference 9.19: refusing these does more harm than any fault in them."""
    if call.kind in NEVER_REFUSED or call.exchange.method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        return True
    return call.kind == "identify" and _unsubscribes(call)


def _unsubscribes(call: Call) -> bool:
    """Whether the person opts out of everything, or of a topic."""
    value = call.attributes.get("unsubscribed")
    if value is True or value == 1 or (isinstance(value, str) and value.lower() in ("true", "1")):
        return True
    return any(
        name.startswith(PREFERENCES) and any(leaf is False for leaf, _ in leaves(value))
        for name, value in call.attributes.items()
    )


def reported(finding: Finding, settings: Settings) -> bool:
    """Whether a finding is at or above its rule's report threshold."""
    threshold = settings.rule(finding.rule).report or settings.report
    return CONFIDENCES.index(finding.confidence) <= CONFIDENCES.index(threshold)


def decide(finding: Finding, calls: Sequence[Call], call: Call, settings: Settings) -> Taken:
    """What is done about one reported finding of `call`, one of the `calls` of its exchange."""
    said = settings.rule(finding.rule)
    threshold = said.block or settings.block
    if CONFIDENCES.index(finding.confidence) > CONFIDENCES.index(threshold):
        return "logged"
    if said.action != "block" and not (said.action == "default" and finding.refusable):
        return "logged"
    refused: Taken = "blocked" if settings.enforcement == "enforce" else "would_block"
    if call.exchange.listener == "inbound":
        return refused if finding.rule == FORGED and said.action == "block" else "logged"
    if is_never_refused(call) or (call.kind in ONLY_ON_REQUEST and said.action != "block"):
        return "logged"
    if _refuses_whole(finding, call) and any(is_never_refused(other) for other in calls):
        return "would_block"
    return refused


def exemption(
    finding: Finding, exemptions: Sequence[Exemption], *, endpoint: str, client: str, at: float
) -> Exemption | None:
    """The first exemption that still holds and fits a finding, masked or not."""
    for each in exemptions:
        given = ((each.endpoint, endpoint), (each.pointer, finding.pointer), (each.name, finding.name or ""))
        fits = all(glob is None or fnmatchcase(text, glob) for glob, text in given)
        if fits and each.client in (None, client) and each.holds(at):
            return each
    return None


def accepted(taken: Taken, fingerprint: str, baseline: Set[str]) -> Taken:
    """What is done once the baseline was asked; an exemption goes before it."""
    return "baselined" if fingerprint in baseline and taken != "exempt" else taken


def _refuses_whole(finding: Finding, call: Call) -> bool:
    return finding.whole or call.api != "track_v2" or call.item is None


def consistent(findings: Sequence[Finding]) -> list[Finding]:
    """Items of an exchange that is refused whole are not also refused one by one."""
    if any(f.action == "blocked" and f.item is None for f in findings):
        return [replace(f, action="logged") if f.action == "blocked" and f.item is not None else f for f in findings]
    return list(findings)
