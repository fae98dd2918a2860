"""The method and path are none that Customer.io documents.

No table of the Track API has this route: nothing is stored. A common cause is the right path with the
wrong method, a path with an empty identifier, or a base URL that repeats `/api/v1`.

Fix: compare method and path with the API reference; let an SDK build them where there is one.

See https://docs.customer.io/integrations/api/track/
See https://docs.customer.io/integrations/api/cdp/
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cio_proxy.model import METHODS, Call, Finding, Known, RuleInfo

RULE = RuleInfo(
    id="unknown-endpoint",
    severity="error",
    category="contract",
    kinds=frozenset({"other"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
)

_AROUND = re.compile(rb"\A[A-Za-z]+://[^/?#]*|[?#].*", re.DOTALL)
"""What is no part of a path: the host before it, and the query behind."""
_TRACK = re.compile(r"/api/v[12](?:/|\Z)")
_WORD = re.compile(r"[A-Za-z_]{1,30}\Z")
HOLDERS = frozenset({"customers", "devices", "segments", "forms", "unsubscribe"})
"""What stands right after these in a path names a person or a thing; after that comes a word of the route again."""


def check(call: Call, known: Known) -> Iterable[Finding]:
    """A call that no reader knows: certain where only Track's own routes can be."""
    exchange = call.exchange
    if call.endpoint != "other" or exchange.method in ("OPTIONS", "HEAD"):
        return ()
    path = _AROUND.sub(b"", exchange.target).decode("latin-1")
    method = exchange.method if exchange.method in METHODS else "an unknown method on"
    shape = f"{method} {_shape(path)}"
    on_track = call.api != "pipelines" and _TRACK.match(path) is not None
    return (
        RULE.finding(
            "path:",
            f"{shape} is no route of the API",
            effect="Customer.io has nothing behind it: the call is refused, and nothing is stored.",
            fix="Compare method and path with the API reference.",
            name=shape,
            confidence="certain" if on_track else "possible",
        ),
    )


def _shape(path: str) -> str:
    """The path with its words that belong to a route; all that may be an identifier is left out."""
    words = path[:200].split("/")[:10]
    return "/".join(word if _is_of_route(words, at) else "{}" for at, word in enumerate(words))


def _is_of_route(words: list[str], at: int) -> bool:
    if words[at] in ("", "api", "v1", "v2"):
        return True
    after_version = at > 0 and words[at - 1] in ("v1", "v2")
    after_identifier = at > 1 and words[at - 2] in HOLDERS
    return (after_version or after_identifier) and _WORD.match(words[at]) is not None
