"""The embedded mitmproxy: a master with only the addons that a reverse proxy needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from mitmproxy.addons import block, core, disable_h2c, next_layer, proxyserver, tlsconfig, update_alt_svc
from mitmproxy.master import Master
from mitmproxy.options import Options

from cio_proxy.drivers import Auditor
from cio_proxy.model import Address
from cio_proxy.sources.mitm import wire
from cio_proxy.sources.mitm.addon import AuditAddon
from cio_proxy.sources.mitm.upstreams import Upstreams

NOWHERE = "http://127.0.0.1:9"
"""mitmproxy wants a destination for its reverse mode; the addon sets the real one for each request."""


class Door:
    """One outbound listener, for plain HTTP and TLS alike. Lives in the running loop."""

    def __init__(
        self,
        auditor: Auditor,
        *,
        upstream: str,
        sandbox: bool = False,
        clock: Callable[[], float] = time.time,
        connected: Callable[[], None] = lambda: None,
        extra_ca: Path | None = None,
    ) -> None:
        self._auditor = auditor
        self._clock = clock
        self._extra_ca = extra_ca
        self._addon = AuditAddon(
            auditor, upstreams=Upstreams(upstream), sandbox=sandbox, clock=clock, connected=connected
        )
        self._master: Master | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Address:
        """Listen; the address with the real port. Raises OSError when it cannot."""
        settings = self._auditor.settings
        wire.install()
        # It logs a failed start in its own words, and so would we.
        logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
        options = Options()
        self._master = master = Master(options, event_loop=asyncio.get_running_loop())
        self._proxyserver = proxyserver.Proxyserver()
        master.addons.add(
            core.Core(),
            block.Block(),
            disable_h2c.DisableH2C(),
            next_layer.NextLayer(),
            self._proxyserver,
            tlsconfig.TlsConfig(),
            update_alt_svc.UpdateAltSvc(),
            self._addon,
        )
        options.update(
            mode=[f"reverse:{NOWHERE}@{settings.listen}"],
            confdir=str(Path(settings.state or ".") / "certificates"),
            connection_strategy="lazy",
            keep_host_header=True,
            http2=False,
            stream_large_bodies=str(settings.max_audited_body),
            ssl_verify_upstream_trusted_ca=None if self._extra_ca is None else str(self._extra_ca),
        )
        os.makedirs(options.confdir, mode=0o700, exist_ok=True)
        self._tasks = [asyncio.create_task(self._run(master)), asyncio.create_task(self._expire())]
        await self._addon.ready.wait()
        addresses = self._proxyserver.listen_addrs()
        if not addresses:
            failed = next((server.last_exception for server in self._proxyserver.servers), None)
            await self.stop()
            number = failed.errno if isinstance(failed, OSError) else None
            reason = os.strerror(number).lower() if number else str(failed)
            raise OSError(
                f"cannot listen on {settings.listen}: {reason}; give --listen another port, or 0 for a free one"
            )
        return Address(settings.listen.host, addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, let the requests in flight end, then stop for good."""
        if self._master is None:
            return
        master, self._master = self._master, None
        await self._proxyserver.servers.update([])
        deadline = time.monotonic() + self._auditor.settings.timeouts.drain
        while self._addon.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        master.shutdown()
        run, expire = self._tasks
        expire.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await expire
        await run

    async def _run(self, master: Master) -> None:
        try:
            await master.run()
        finally:
            self._addon.ready.set()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._auditor.expire(self._clock())
