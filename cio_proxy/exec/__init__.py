"""`cio-proxy exec`: a command runs with its Customer.io traffic led through the proxy, and the run is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cio_proxy.exec.child import NotStarted, finished
from cio_proxy.exec.surroundings import behind, surroundings
from cio_proxy.run import Proxy

__all__ = ["NotStarted", "Run", "behind", "execute"]


class Run(NamedTuple):
    """How a command ended (as a shell counts: 128 and the number of the signal that ended it), and what was seen."""

    code: int
    summary: Mapping[str, Any]


async def execute(proxy: Proxy, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Run:
    """Start the proxy, run the command behind it until it ends, and stop everything. `folder` takes files until then.

    Raises OSError where the proxy cannot listen, and NotStarted where the command cannot be started.
    """
    ready = await proxy.start()
    try:
        code = await finished(command, surroundings(environ, ready, proxy.folder, folder))
    finally:
        await proxy.stop()
    return Run(code, proxy.summary())
