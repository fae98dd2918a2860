"""A secret travels where it can be read: from a browser, in a URL, in a body, or it was never a real one.

Customer.io checks the key and nothing else. Whoever finds a Track or App key in a page, a log of
URLs or a stored attribute can write to the workspace, or read from it.

Fix: keep keys on the server, read them from the environment, and rotate the one that was exposed.

See https://docs.customer.io/accounts-and-workspaces/managing-credentials/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl

from cio_proxy.model import KINDS, Call, Confidence, Finding, Known, RuleInfo
from cio_proxy.recognise import texts

RULE = RuleInfo(
    id="hardcoded-credentials",
    severity="error",
    category="1",
    kinds=frozenset(KINDS),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

BROWSER = ("origin", "sec-fetch-site", "sec-ch-ua", "referer")
"""`sec-fetch-mode` and `accept-language` are no marks of a browser: Node's own fetch sends them (reference 9.3)."""
FORWARDED = ("forwarded", "x-forwarded-for", "via")
PLACEHOLDER = re.compile(
    r"(?:your|my|test|example|dummy|fake|changeme|insert|replace|todo|xxx+|abc123|secret|key|site|api|track|app|id|here"
    r"|customer|io|cio|the|a|me|[\W_])+\Z",
    re.IGNORECASE,
)
PARAMETERS = frozenset({"api_key", "apikey", "write_key", "writekey", "access_token", "site_secret", "app_key"})
_TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:sk_(?:us|eu)_|sa_live_)[A-Za-z0-9]{8,}")


def check(call: Call, known: Known) -> Iterator[Finding]:
    """The exchange as a whole, then the texts of this call's body."""
    if call.leads:
        yield from _placeholder(call)
        yield from _from_browser(call)
        yield from _in_url(call)
    yield from _in_body(call)


def _placeholder(call: Call) -> Iterator[Finding]:
    secret = call.credentials.secret
    if call.exchange.sandbox or len(secret) > 40 or not secret or not PLACEHOLDER.match(secret):
        return
    yield _finding(
        "header:Authorization",
        "the key is a placeholder",
        "Customer.io answers 401 and nothing is stored.",
        "certain",
        evidence=f"{len(secret)} characters",
    )


def _from_browser(call: Call) -> Iterator[Finding]:
    secret = call.credentials.secret
    if not secret or call.api == "pipelines":
        return
    exchange = call.exchange
    if any(exchange.header(name) is not None for name in FORWARDED):
        return
    mark = next((name for name in BROWSER if exchange.header(name) is not None), None)
    if mark is None and "Mozilla/" in (exchange.header("user-agent") or ""):
        mark = "user-agent"
    if mark is not None:
        yield _finding(
            "header:Authorization",
            f"a server-side key comes from a browser (the request carries `{mark}`)",
            "Everyone who opens the page can read the key and write to the workspace.",
            "likely",
        )


def _in_url(call: Call) -> Iterator[Finding]:
    target = call.exchange.target.decode("latin-1")
    secret = call.credentials.secret
    effect = "URLs end up in logs of servers and proxies, and the key with them."
    for name, value in parse_qsl(target.partition("?")[2], keep_blank_values=True):
        if secret and value == secret:
            yield _finding("query:", "the key of the request stands in its URL too", effect, "certain")
        elif name.lower() in PARAMETERS and value:
            yield _finding(f"query:{name.lower()}", "a key stands in the URL", effect, "likely")


def _in_body(call: Call) -> Iterator[Finding]:
    secret = call.credentials.secret
    effect = "Customer.io stores it as an attribute, where every teammate and every template can read it."
    for where, text in texts(dict(call.body), call.body_at):
        if len(secret) >= 16 and secret in text:
            yield _finding(where, "the key of the request stands in its body too", effect, "certain", whole=False)
        elif _TOKEN.search(text):
            yield _finding(where, "a Customer.io secret stands in the body", effect, "likely", whole=False)


def _finding(
    pointer: str, message: str, effect: str, confidence: Confidence, *, whole: bool = True, evidence: str | None = None
) -> Finding:
    return RULE.finding(
        pointer,
        message,
        effect=effect,
        fix="Keep keys on the server, read them from the environment, and rotate the one that was exposed.",
        confidence=confidence,
        evidence=evidence,
        whole=whole,
    )
