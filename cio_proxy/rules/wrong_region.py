"""The traffic goes to the other region's host.

Customer.io redirects what an account in the EU sends to the host for the US, so it passes through
servers in the US first; what an account in the US sends to the host for the EU fails. An SDK that
follows the redirect itself may drop its credentials on the way. The newer keys of Pipelines name
their region in their prefix.

Fix: use the host of the account's region, or the region setting of the SDK.

See https://docs.customer.io/accounts-and-workspaces/data-centers/
See https://docs.customer.io/integrations/api/track/ (Track API overview)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from cio_proxy.model import KINDS, Call, Confidence, Finding, Known, Outcome, Region, RuleInfo

RULE = RuleInfo(
    id="wrong-region",
    severity="warning",
    category="contract",
    kinds=frozenset(KINDS) - {"webhook_metric"},
    apis=frozenset({"track_v1", "track_v2", "pipelines", "app"}),
)

HOSTS: Mapping[str, Region] = {
    "track.customer.io": "us",
    "cdp.customer.io": "us",
    "api.customer.io": "us",
    "track-eu.customer.io": "eu",
    "cdp-eu.customer.io": "eu",
    "api-eu.customer.io": "eu",
}
PREFIXES: Mapping[str, Region] = {"pk_us_": "us", "sk_us_": "us", "pk_eu_": "eu", "sk_eu_": "eu"}
PLACES = {"us": "the US", "eu": "the EU"}


def check(call: Call, known: Known) -> Iterable[Finding]:
    """The prefix of a Pipelines key against the host that it is sent to."""
    credentials = call.credentials
    key = credentials.secret or credentials.user
    if key[:3] not in ("pk_", "sk_") or call.api != "pipelines" or not call.leads:
        return ()
    host, region = HOSTS.get(call.exchange.host), PREFIXES.get(key[:6])
    if host is None or region is None or host == region:
        return ()
    message = f"a key for {PLACES[region]} is sent to the host for {PLACES[host]}"
    effect = "The key is of no account there: the calls are lost, or pass through the other region first."
    return (_finding("header:Authorization", message, effect, region, "certain"),)


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding]:
    """A redirect from one regional host to the other.

    Where the request names no host of Customer.io, only the redirect toward the EU is documented.
    """
    if outcome.location is None or not call.leads:
        return ()
    asked, told = HOSTS.get(call.exchange.host), _region(outcome.location)
    if told is None or asked == told or (asked is None and told == "us"):
        return ()
    message = f"Customer.io redirects to its host for {PLACES[told]}"
    effect = "Every call takes a way round through the other region, and an SDK may lose its credentials on it."
    return (_finding("header:Host", message, effect, told, "certain" if asked else "likely"),)


def _region(location: str) -> Region | None:
    try:
        host = urlsplit(location).hostname
    except ValueError:
        return None
    if host is None:
        return None
    return HOSTS.get(host)


def _finding(at: str, message: str, effect: str, region: Region, confidence: Confidence) -> Finding:
    return RULE.finding(
        at,
        message,
        effect=effect,
        fix=f"Use the host for {PLACES[region]}, or the region setting of the SDK.",
        confidence=confidence,
        whole=True,
    )
