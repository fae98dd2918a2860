"""An identifier is what a program writes when it has none.

`undefined`, `null`, `NaN`, `[object Object]` or a template that nobody filled in is an identifier like
any other to Customer.io: everyone whose id was missing becomes one and the same person, who gets all
their attributes, events and messages.

Fix: check the identifier before the call, and do not call without one.

See https://docs.customer.io/journeys/identifying-people/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from cio_proxy.model import Api, Call, Finding, Json, Kind, Known, RuleInfo, pointer

RULE = RuleInfo(
    id="placeholder-identifier",
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
            "merge",
            "device_add",
            "device_delete",
            "segment_add",
            "segment_remove",
            "relationship_add",
            "relationship_delete",
            "object_identify",
            "object_delete",
            "form_submit",
            "send_message",
            "unreadable",
        }
    ),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

WORDS = frozenset({"undefined", "null", "NaN", "[object Object]", "%s", "%d", "%i"})
FIRST = frozenset("unN[{$<#%")
"""What a placeholder begins with: a quick first look."""
_TEMPLATE = re.compile(
    r"\{\{[^{}]*\}\}\Z|\{\{\{[^{}]*\}\}\}\Z|\{%[^{}]*%\}\Z"  # Liquid, Mustache
    r"|[$#%]\{[^{}]*\}\Z"  # JavaScript and shell, ruby
    r"|\{[A-Za-z_][A-Za-z_.]*\}\Z"  # Python, and the paths of documentation; a GUID in braces has digits
    r"|%\([A-Za-z_]\w*\)[sd]\Z|<%[^<>]*%>\Z"  # Python, ERB
)

type Places = tuple[tuple[str, tuple[str, ...]], ...]

ALL: tuple[str, ...] = ()
IN_BODY: Mapping[tuple[Api, Kind], Places] = {
    ("track_v1", "identify"): (("", ("id", "email", "anonymous_id")),),
    ("track_v1", "event"): (("", ("anonymous_id",)),),
    ("track_v1", "page"): (("", ("anonymous_id",)),),
    ("track_v1", "screen"): (("", ("anonymous_id",)),),
    ("track_v1", "merge"): (("primary", ALL), ("secondary", ALL)),
    ("track_v1", "form_submit"): (("data", ("id", "email")),),
    ("track_v2", "identify"): (("identifiers", ALL), ("attributes", ("id", "email", "anonymous_id"))),
    ("track_v2", "merge"): (("primary", ALL), ("secondary", ALL)),
    ("pipelines", "identify"): (("", ("userId", "anonymousId")), ("traits", ("email",))),
    ("pipelines", "merge"): (("", ("userId", "previousId")),),
    ("app", "send_message"): (("identifiers", ALL),),
}
"""Where identifiers stand in a body: a member of it, or the body itself, and the names in there."""
OTHERS: Mapping[Api, Places] = {
    "track_v2": (("identifiers", ALL),),
    "pipelines": (("", ("userId", "anonymousId", "groupId")),),
}


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding for each identifier that is a placeholder as a whole."""
    found: list[Finding] = []
    named = call.person.cio_id or call.person.id or ""
    if named[:1] in FIRST and call.person_at == "path:" and is_placeholder(named) and _is_in_path(call):
        found.append(_finding("path:", named))
    for member, names in IN_BODY.get((call.api, call.kind)) or OTHERS.get(call.api, ()):
        held = call.body.get(member) if member else call.body
        if isinstance(held, dict):
            for name in names or held:
                value = held.get(name)
                if type(value) is str and value[:1] in FIRST and is_placeholder(value):
                    where = f"{call.body_at}/{member}" if member else call.body_at
                    found.append(_finding(pointer(where, name), value))
    if "cio_relationships" in call.body:
        found += _in_relationships(call)
    if call.kind in ("segment_add", "segment_remove") and isinstance(ids := call.body.get("ids"), list):
        at = next((index for index, value in enumerate(ids) if is_placeholder(value)), None)
        if at is not None:
            found.append(_finding(f"/ids/{at}", ids[at]))
    if len(found) > 1 and found[0].pointer == "path:" and found[1].pointer == "/id":
        del found[1]  # ruby sends the id in the body as well (reference 8.2)
    return found


def _is_in_path(call: Call) -> bool:
    """Whether the path names the person so; where it has an address, the id is the body's."""
    segment = call.exchange.target.partition(b"/customers/")[2].partition(b"?")[0].partition(b"/")[0]
    return unquote(segment.decode("latin-1")) in (call.person.id, f"cio_{call.person.cio_id}")


def _in_relationships(call: Call) -> Iterator[Finding]:
    """The other ends of relationships: a list in v2, in v1 an object that holds it (reference 2.1)."""
    related, at = call.body["cio_relationships"], f"{call.body_at}/cio_relationships"
    if isinstance(related, dict):
        related, at = related.get("relationships"), f"{at}/relationships"
    for index, link in enumerate(related if isinstance(related, list) else ()):
        identifiers = link.get("identifiers") if isinstance(link, dict) else None
        for name, value in identifiers.items() if isinstance(identifiers, dict) else ():
            if is_placeholder(value):
                yield _finding(pointer(f"{at}/{index}/identifiers", name), value)


def is_placeholder(value: Json) -> bool:
    """Whether an identifier, as a whole, is none: a word for nothing, or a template that was not filled in."""
    if not isinstance(value, str) or value[:1] not in FIRST:
        return False
    return value in WORDS or _TEMPLATE.match(value) is not None


def _finding(at: str, value: Json) -> Finding:
    return RULE.finding(
        at,
        "the identifier is a placeholder: the program had none, or a template was not filled in",
        effect="Customer.io takes it for a person: everyone without an identifier becomes the same one.",
        fix="Check the identifier before the call, and do not call without one.",
        evidence=value,
        confidence="certain",
    )
