"""A secret travels where it can be read: from a browser, in a URL, in a body, or it was never a real one.

Customer.io checks the key and nothing else. Whoever finds a Track or App key in a page, a log of
URLs or a stored attribute can write to the workspace, or read from it. Write keys of Pipelines are
public by design and may be in a page.

Fix: keep keys on the server, read them from the environment, and rotate the one that was exposed.

See https://docs.customer.io/accounts-and-workspaces/managing-credentials/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import parse_qsl

from cio_proxy.model import KINDS, Call, Confidence, Finding, Known, RuleInfo, keys_of, pointer, recalled

RULE = RuleInfo(
    id="hardcoded-credentials",
    severity="error",
    category="1",
    kinds=frozenset(KINDS),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

BROWSER = (b"origin", b"sec-fetch-site", b"sec-ch-ua", b"referer")
"""`sec-fetch-mode` and `accept-language` are no marks of a browser: Node's own fetch sends them (reference 9.3)."""
MARKS = frozenset(BROWSER)
FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
PARAMETERS = frozenset({"api_key", "apikey", "write_key", "writekey", "access_token", "site_secret", "app_key"})
PLACEHOLDERS = frozenset(
    {
        "abc123",
        "apikey",
        "apisecret",
        "appapikey",
        "appkey",
        "apptoken",
        "changeme",
        "cioapikey",
        "ciositeid",
        "customerioapikey",
        "customeriositeid",
        "dummy",
        "example",
        "fake",
        "key",
        "nan",
        "nil",
        "none",
        "null",
        "placeholder",
        "secret",
        "secretkey",
        "secrettoken",
        "siteid",
        "test",
        "testkey",
        "todo",
        "trackapikey",
        "trackkey",
        "undefined",
        "writekey",
        "123456",
        "12345678",
        "1234567890",
    }
)
"""Keys of documentation and of settings that nobody made, without their punctuation."""
UNKNOWN_KEY = {"pipelines": "may answer 200 all the same"}
EFFECT_URL = "URLs end up in the logs of servers and proxies, and the key with them."
EFFECT_BODY = "Customer.io stores it, and every teammate and every template can read it."

_PLACEHOLDER = re.compile(
    r"(?:your|my|insert|replace|enter|add|put)(?=\D*\Z)(?=.*(?:key|site|id|token|secret|here))"  # YOUR_SITE_ID
    r"|x{3,}\Z|\*{3,}\Z|0{6,}\Z|\.{3,}\Z"
    r"|<.*>\Z|\[.*\]\Z|\{\{.*\}\}\Z|\$\{?\w+\}?\Z|%\w+%\Z|process\.env\b",  # <site id>, {{key}}, ${CIO_KEY}
    re.DOTALL,
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:sk_(?:us|eu)_|sa_live_)(?=[A-Za-z]*+\d)[A-Za-z0-9]{8,}")
"""A key has digits in it; `sk_us_customers` is the name of something in Slovak."""


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The exchange as a whole, then the texts of this call's body."""
    sent = call.credentials.secret
    secret = sent if len(sent) >= 16 and call.api != "pipelines" else None
    in_body = (raw := call.raw) is None or _may_show(raw, secret)
    found = _in_head(call) if call.leads else ()
    return chain(found, _in_body(call, secret)) if in_body else found


def _in_head(call: Call) -> Iterable[Finding]:
    credentials, target = call.credentials, call.exchange.target
    if are_placeholders(credentials.user, credentials.secret) or b"?" in target or not target.startswith(b"/"):
        return (*_placeholder(call), *_from_browser(call), *_url(call))
    return _from_browser(call)


def _placeholder(call: Call) -> Iterable[Finding]:
    credentials = call.credentials
    if not (is_placeholder(credentials.secret) or is_placeholder(credentials.user)) or call.exchange.sandbox:
        return ()
    user = "key" if call.api == "pipelines" else "site id"
    word, what = (credentials.secret, "key") if is_placeholder(credentials.secret) else (credentials.user, user)
    message = f"the {what} is a placeholder, or a setting that was never made"
    effect = f"Customer.io {UNKNOWN_KEY.get(call.api, 'answers 401')}, and nothing is stored."
    return (_finding("header:Authorization", message, effect, "certain", f"{len(word)} characters"),)


def are_placeholders(user: str, secret: str) -> bool:
    """Whether one of them is."""
    return is_placeholder(user) or is_placeholder(secret)


@recalled(1_000)
def is_placeholder(word: str) -> bool:
    """Whether a key is one that Customer.io never gives out."""
    if len(word) > 64:
        return False
    word = word.lower()
    return re.sub(r"[ _-]", "", word) in PLACEHOLDERS or _PLACEHOLDER.match(word) is not None


def _from_browser(call: Call) -> Iterable[Finding]:
    headers = call.exchange.named
    if MARKS.isdisjoint(headers) and not _is_browser(headers.get(b"user-agent")):
        return ()
    if not call.credentials.secret or call.api == "pipelines" or not FORWARDED.isdisjoint(headers):
        return ()
    mark = next(filter(headers.__contains__, BROWSER), b"user-agent")
    message = f"a server-side key comes from a browser (the request carries `{mark.decode()}`)"
    effect = "Everyone who opens the page can read the key, and use it."
    return (_finding("header:Authorization", message, effect, "likely"),)


def _is_browser(agent: bytes | None) -> bool:
    """Scripts call themselves Mozilla too (PowerShell, Google Apps Script), but name no engine."""
    return agent is not None and b"Mozilla/" in agent and (b"AppleWebKit/" in agent or b"Gecko/" in agent)


def _url(call: Call) -> Iterator[Finding]:
    secret = call.credentials.secret
    path, _, query = call.exchange.target.decode("latin-1").partition("?")
    if not path.startswith("/") and "@" in path.partition("://")[2].partition("/")[0]:
        yield _finding("path:", "user and password stand in the URL", EFFECT_URL, "certain")
    if not query:
        return
    for name, value in parse_qsl(query):
        if len(secret) >= 8 and value == secret:
            yield _finding(f"query:{name}", "the key of the request stands in its URL too", EFFECT_URL, "certain")
        elif name.lower() in PARAMETERS and value and call.api != "pipelines":
            yield _finding(f"query:{name}", "a key stands in the URL", EFFECT_URL, "likely")


def _in_body(call: Call, secret: str | None) -> Iterator[Finding]:
    for text, path in call.leaves:
        if not isinstance(text, str) or len(text) < 16:
            continue
        if secret is not None and secret in text:
            where = pointer(call.body_at, *keys_of(path))
            yield _finding(where, "the key of the request stands in its body too", EFFECT_BODY, "certain")
        elif ("sk_" in text or "sa_live_" in text) and _TOKEN.search(text):
            where = pointer(call.body_at, *keys_of(path))
            yield _finding(where, "a Customer.io secret stands in the body", EFFECT_BODY, "likely")


def _may_show(raw: bytes, secret: str | None) -> bool:
    """A quick first look at the bytes; what is escaped in them may be anything."""
    return b"k_" in raw or b"sa_live_" in raw or b"\\" in raw or (secret is not None and secret.encode() in raw)


def _finding(where: str, message: str, effect: str, confidence: Confidence, evidence: str | None = None) -> Finding:
    return RULE.finding(
        where,
        message,
        effect=effect,
        fix="Keep keys on the server, read them from the environment, and rotate the one that was exposed.",
        confidence=confidence,
        evidence=evidence,
        whole=not where.startswith("/"),
    )
