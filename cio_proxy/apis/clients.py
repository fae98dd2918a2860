"""Which client sent an exchange: a bounded set of names, for findings and metric labels."""

from __future__ import annotations

from collections.abc import Mapping

from cio_proxy.model import Exchange

FAMILIES: Mapping[str, str] = {
    "Customer.io Node Client": "customerio-node",
    "cdp-analytics-node": "cdp-analytics-node",
    "Customer.io Python Client": "customerio-python",
    "async-customerio": "async-customerio",
    "analytics-python": "customerio-cdp-analytics",
    "Customer.io Ruby Client": "customerio-ruby",
    "Customer.io Go Client": "customerio-go",
    "Mozilla/": "browser",
    "curl/": "curl",
}
"""User-Agent families (reference 8.1)."""


def client_of(exchange: Exchange, configured: Mapping[str, str]) -> str:
    """The configured name whose text the User-Agent contains, else its SDK family, else `other`."""
    agent = exchange.header("user-agent")
    if agent:
        for names in (configured, FAMILIES):
            for text, name in names.items():
                if text in agent:
                    return name
    return "other"
