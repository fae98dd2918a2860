"""From the configuration to the store that it names."""

from __future__ import annotations

from cio_proxy.facts import Store
from cio_proxy.model import Settings


class NotLasting(Exception):
    """The facts end with the process that keeps them: no other one can tell it anything, or ask."""


def opened(settings: Settings) -> Store:
    """The store that outlives this process. Raises NotLasting, and OSError when it cannot be opened."""
    raise NotLasting(f'"{settings.facts}" ends with the process; set facts to sqlite:PATH or redis://HOST')
