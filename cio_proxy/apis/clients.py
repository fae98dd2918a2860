"""Which client sent an exchange: a bounded set of names, for findings and metric labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

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


class Clients:
    """Names clients by their User-Agent: a configured name, else the family of their SDK, else `other`."""

    def __init__(self, configured: Mapping[str, str]) -> None:
        self._named = lru_cache(1_000)(lambda agent: _name({**configured, **FAMILIES}, agent.decode("latin-1")))

    def name(self, exchange: Exchange) -> str:
        """The name of the client that sent an exchange."""
        return self._named(exchange.named.get(b"user-agent", b""))


def _name(names: Mapping[str, str], agent: str) -> str:
    return next((name for text, name in names.items() if text in agent), "other")
