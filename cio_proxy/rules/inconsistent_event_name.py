"""An event name does not follow the convention of the others.

Campaigns match event names exactly. `UserSignedUp`, `user-signed-up` and `user_signed_up` are three
events to Customer.io, and a campaign on one of them never hears of the others.

The Track API is judged by snake_case unless `convention` names another style; Pipelines, where Title
Case names such as `Order Completed` are the specification, only when it does. Names of pages and
screens are titles and are never judged.

Fix: pick one convention, snake_case by default, and rename the odd ones in code and campaigns at once.

See https://docs.customer.io/journeys/events/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cio_proxy.model import Call, Finding, Known, Param, RuleInfo
from cio_proxy.recognise import template

RULE = RuleInfo(
    id="inconsistent-event-name",
    severity="warning",
    category="3",
    kinds=frozenset({"event"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        "convention": Param(
            "auto",
            "the style of event names; auto is snake_case on the Track API and none on Pipelines",
            "text",
            ("auto", "any", "snake_case", "kebab-case", "camelCase", "PascalCase", "Title Case"),
        )
    },
)

_PART = re.compile(r"<[a-z-]+>")
_NAMESPACES = re.compile(r"[.:/]")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+|[A-Z]|\d+")
_STYLES = {
    "kebab-case": re.compile(r"[^\WA-Z_]+(?:-[^\WA-Z_]+)*\Z"),
    "camelCase": re.compile(r"[^\W_A-Z][^\W_]*\Z"),
    "PascalCase": re.compile(r"[A-Z][^\W_]*\Z"),
    "Title Case": re.compile(r"[A-Z0-9][^\W_]*(?: [A-Z0-9][^\W_]*)*\Z"),
}
_NOT_SNAKE = re.compile(r"[A-Z]|[^\W_][ -]+[^\W_]")


def check(call: Call, known: Known) -> Iterator[Finding]:
    """One finding for a name of another style. Variable and personal parts are other rules' business."""
    convention = known.params["convention"]
    if convention == "auto":
        convention = "any" if call.api == "pipelines" else "snake_case"
    name = (call.name or "").strip()
    if convention == "any" or not name or len(name) > 500 or _fits(template(name), convention):
        return
    corrected = _snake(name) if convention == "snake_case" else None
    yield RULE.finding(
        call.name_at,
        f"the event name is not in {convention}",
        effect="Campaigns match names exactly: another spelling of the same event is another event to Customer.io.",
        fix=f"Rename it to {convention}, in code and in campaigns at once.",
        corrected=corrected,
        evidence=name,
        name=name,
        confidence="likely",
    )


def _fits(shape: str, convention: str) -> bool:
    bare = _PART.sub("x", shape)
    if convention == "snake_case":
        return not any(_NOT_SNAKE.search(segment) for segment in _NAMESPACES.split(bare))
    return all(_STYLES[convention].match(segment) for segment in _NAMESPACES.split(bare) if segment)


def _snake(name: str) -> str:
    return "".join(
        segment if _NAMESPACES.fullmatch(segment) else "_".join(_WORDS.findall(segment)).lower()
        for segment in re.split(r"([.:/])", name)
    )
