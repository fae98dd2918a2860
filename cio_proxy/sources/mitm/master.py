"""mitmproxy's master, which tells in one line what fails in a callback of the loop, and no traceback each time."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import time
from typing import Any, Final

from mitmproxy.master import Master
from mitmproxy.options import Options

from cio_proxy.sources.mitm.trouble import placed

log = logging.getLogger("cio_proxy")

SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Why a connection cannot be taken: asyncio tries again each second, once for each that it would let wait."""
AGAIN_SECONDS: Final = 60.0


class Embedded(Master):
    """A master in the running loop."""

    def __init__(self, options: Options) -> None:
        super().__init__(options, event_loop=asyncio.get_running_loop())
        self._told: dict[str, float] = {}

    def _asyncio_exception_handler(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Say each thing once a minute: whatever it is, the loop goes on."""
        line, now = in_a_line(context), time.monotonic()
        if now >= self._told.get(line, 0.0):
            self._told[line] = now + AGAIN_SECONDS
            log.warning(line)


def in_a_line(context: dict[str, Any]) -> str:
    """What asyncio tells of a failure, without any text that may hold values as sent."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in SHORTAGES and "accept" in context.get("message", ""):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reason = os.strerror(error.errno or 0).lower()
        return f"no more connections can be taken: {reason}; new ones wait (ulimit -n is {limit:,}, and may be raised)"
    what = str(context.get("message", "")) if error is None else placed(error)
    return f"something failed beside the traffic, which goes on: {what}"
