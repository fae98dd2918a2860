"""The emulation in both regions, each on a socket of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from cio_proxy.sandbox.server import Sandbox


class Regions:
    """Two sandboxes that know each other; `eu_keys` and `clock` as for one."""

    def __init__(self, *, clock: Callable[[], float] = time.time, eu_keys: Collection[str] = ()) -> None:
        self.us = Sandbox(region="us", clock=clock, eu_keys=eu_keys)
        self.eu = Sandbox(region="eu", clock=clock, eu_keys=eu_keys)

    async def start(self) -> tuple[str, str]:
        """Listen on free ports of this machine; the URLs of the US and the EU. Raises OSError."""
        self.us.other = await self.eu.start()
        self.eu.other = await self.us.start()
        return self.eu.other, self.us.other

    async def stop(self) -> None:
        """Stop both."""
        await self.us.stop()
        await self.eu.stop()
