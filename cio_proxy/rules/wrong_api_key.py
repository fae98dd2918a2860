"""The key is of another kind than the API it is sent to, or Customer.io answers 401 to it.

Track takes HTTP Basic with a site id and a Track key, the App API a Bearer App key, Pipelines its
own key with an empty password or, for newer ones, as Bearer. A wrong kind answers 401 on Track and
the App API; Pipelines in its default mode may answer 200 and drop the call.

A key of the right kind that is answered 401 is another workspace's, was rotated or revoked, or went to
the host of the other region: US keys fail at the EU host. While a key is being rotated this passes by
itself. Where 401 is an answer to be expected it is only `possible`: to the call that asks for the
workspace's region, with which credentials are tried, and for the short-lived token of a service account.

Fix: give each client the credential of its own API: site id and Track API key for Track, an App API key for the App
API, a write key for Pipelines. After a 401 compare key, workspace and region, and look whether the key was rotated.

See https://docs.customer.io/accounts-and-workspaces/managing-credentials/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from cio_proxy.model import KINDS, Api, Call, Confidence, Finding, Known, Outcome, RuleInfo

RULE = RuleInfo(
    id="wrong-api-key",
    severity="error",
    category="1",
    kinds=frozenset(KINDS),
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
    refuses=True,
)

AT = "header:Authorization"
TRIED_AT = "/api/v1/accounts/region"
"""Where credentials are tried (reference 1.1): a 401 is one of the answers that are asked for."""
WITHOUT_AUTH = frozenset({"/api/v1/metrics", "/api/v1/push/events", "/unsubscribe/{delivery_id}"})
FIX = {
    "track": "Use HTTP Basic with the site id and the Track API key of the same workspace.",
    "app": "Use `Authorization: Bearer` with an App API key.",
    "pipelines": "Use the write key of the Pipelines source.",
}
OWNERS: Mapping[Api, str] = {"track_v1": "a Track key", "app": "an App API key", "pipelines": "a Pipelines key"}
PROBES = ("GET", "HEAD", "OPTIONS")
COMPARE = (
    "Compare the key, its workspace and the region of the host (US keys fail at the EU host), and see whether"
    " the key was rotated or revoked. During a rotation this passes by itself."
)
_PROTECTED = re.compile(rb"(?:https?://[^/]+)?/api/v[12]/")
_HEX_32 = re.compile(r"[0-9a-f]{32}\Z")
_HEX_20 = re.compile(r"[0-9a-f]{20}\Z")
_OF_PIPELINES = re.compile(r"[ps]k_(?:us|eu)_")
_OF_AN_ACCOUNT = re.compile(r"sa_(?:live|sandbox)_")
"""Prefixes of newer keys (reference 1.3)."""


def check(call: Call, known: Known) -> Iterable[Finding]:
    """Judge the scheme first, then the configured owner of the key, then its shape."""
    return _wrong_kind(call) if call.leads else ()


def _wrong_kind(call: Call) -> Iterable[Finding]:
    if call.api == "app":
        return _on_app(call)
    return _on_pipelines(call) if call.api == "pipelines" else _on_track(call)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding]:
    """One finding for an exchange that Customer.io answered with 401, where its credentials looked right."""
    if outcome.status != 401 or not call.leads or call.endpoint in WITHOUT_AUTH or any(_wrong_kind(call)):
        return ()
    if call.credentials.scheme == "none" and (call.endpoint == "other" or call.exchange.method in PROBES):
        return ()  # a health check, a scanner, or a browser that asks before it sends
    return _answered_401(call)


def _answered_401(call: Call) -> Iterator[Finding]:
    credentials = call.credentials
    if credentials.scheme == "none":
        message = "Customer.io answered 401 to a call without credentials"
    else:
        message = "Customer.io answered 401: another workspace's key, a rotated one, or the host of the other region"
    expected = call.endpoint == TRIED_AT or credentials.secret.startswith("eyJ")
    yield RULE.finding(
        AT,
        message,
        effect="Customer.io did nothing with the call.",
        fix=FIX["app" if call.api == "app" else "track"] if credentials.scheme == "none" else COMPARE,
        confidence="possible" if expected else "likely",
        evidence=f"{credentials.scheme}, {len(credentials.secret)} characters",
        whole=True,
    )


def _on_track(call: Call) -> Iterable[Finding]:
    credentials = call.credentials
    if is_of_track(credentials.scheme, credentials.secret, credentials.fault, credentials.belongs_to):
        return ()
    protected = call.endpoint not in WITHOUT_AUTH and _PROTECTED.match(call.exchange.target)
    return _not_of_track(call) if protected else ()


@lru_cache(1_000)
def is_of_track(scheme: str, secret: str, fault: str, owner: Api | None) -> bool:
    """Whether nothing speaks against credentials on the Track API."""
    is_ours = owner == "track_v1" or (owner is None and not _foreign_to_track(secret))
    return scheme != "bearer" and not fault and is_ours


def _foreign_to_track(secret: str) -> str:
    """What the key looks like, when that is no Track key."""
    if _HEX_32.match(secret):
        return "a key of 32 characters, the shape of an App API key,"
    if _OF_PIPELINES.match(secret):
        return "a key with the prefix of a Pipelines key"
    return "the token of a service account" if _OF_AN_ACCOUNT.match(secret) else ""


def _not_of_track(call: Call) -> Iterator[Finding]:
    credentials, owner = call.credentials, call.credentials.belongs_to
    if credentials.scheme == "bearer":
        yield _finding(call, "a Bearer token on the Track API, which takes HTTP Basic", "track", "certain", True)
    elif credentials.fault:
        yield _finding(call, f"the Basic credentials cannot be right: {credentials.fault}", "track", "certain", True)
    elif owner:
        yield _finding(call, f"{OWNERS[owner]} on the Track API", "track", "certain")
    elif shape := _foreign_to_track(credentials.secret):
        yield _finding(call, f"{shape} on the Track API", "track", "likely")


def _on_app(call: Call) -> Iterator[Finding]:
    credentials, owner = call.credentials, call.credentials.belongs_to
    if credentials.scheme == "basic":
        yield _finding(call, "HTTP Basic on the App API, which takes a Bearer App API key", "app", "certain")
    elif owner == "app":
        return
    elif owner:
        yield _finding(call, f"{OWNERS[owner]} on the App API", "app", "certain")
    elif _HEX_20.match(credentials.secret):
        yield _finding(call, "a token of 20 characters, the shape of a Track key, on the App API", "app", "likely")
    elif _OF_PIPELINES.match(credentials.secret):
        yield _finding(call, "a token with the prefix of a Pipelines key on the App API", "app", "likely")


def _on_pipelines(call: Call) -> Iterator[Finding]:
    credentials, owner = call.credentials, call.credentials.belongs_to
    if owner == "pipelines":
        return
    if owner:
        yield _finding(call, f"{OWNERS[owner]} on the Pipelines API", "pipelines", "certain")
    elif _HEX_20.match(credentials.user) and _HEX_20.match(credentials.secret):
        yield _finding(call, "a pair in the shape of a site id and a Track key on Pipelines", "pipelines", "likely")
    elif credentials.scheme == "bearer" and _HEX_32.match(credentials.secret):
        yield _finding(
            call, "a token of 32 characters, the shape of an App API key, on Pipelines", "pipelines", "likely"
        )
    elif _OF_AN_ACCOUNT.match(credentials.secret) or _OF_AN_ACCOUNT.match(credentials.user):
        yield _finding(call, "the token of a service account on Pipelines", "pipelines", "likely")


def _finding(call: Call, message: str, fix: str, confidence: Confidence, refusable: bool = False) -> Finding:
    lost = "may answer 200 and drop the call" if call.api == "pipelines" else "answers 401 and nothing is stored"
    return RULE.finding(
        AT,
        message,
        effect=f"Customer.io {lost}.",
        fix=FIX[fix],
        confidence=confidence,
        evidence=f"{call.credentials.scheme}, {len(call.credentials.secret)} characters",
        refusable=refusable,
        whole=True,
    )
