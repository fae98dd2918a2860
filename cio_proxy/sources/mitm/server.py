"""The embedded mitmproxy: a master with only the addons that a reverse proxy needs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import certifi
from mitmproxy.addons import block, core, disable_h2c, next_layer, tlsconfig, update_alt_svc
from mitmproxy.certs import CertStore
from mitmproxy.master import Master
from mitmproxy.options import CONF_BASENAME, KEY_SIZE, Options

from cio_proxy import state
from cio_proxy.drivers import Auditor
from cio_proxy.model import Address, Settings
from cio_proxy.sources.mitm import wire
from cio_proxy.sources.mitm.addon import READ_UP_TO, AuditAddon
from cio_proxy.sources.mitm.connections import Connections
from cio_proxy.sources.mitm.router import Router
from cio_proxy.sources.mitm.trouble import Trouble
from cio_proxy.sources.mitm.upstreams import Upstreams, target_of

NOWHERE = "http://127.0.0.1:9"
"""A reverse proxy wants a destination; the router sets the real one for each request."""
IDLE_SECONDS = 600
"""mitmproxy's own limit for a connection on which nothing happens."""


class Door:
    """One outbound listener, for plain HTTP and TLS alike. Lives in the running loop; one at a time in a process.

    `upstream` is what the settings say, or the URL of the sandbox, and `sandbox_eu` that of the EU's. `connected` is
    told of each client connection, `failed` of each error of the door's own, and `upstream_trouble` when an upstream
    cannot be reached, and when that is over.
    """

    def __init__(
        self,
        auditor: Auditor,
        *,
        upstream: str,
        sandbox: bool = False,
        sandbox_eu: str | None = None,
        clock: Callable[[], float] = time.time,
        connected: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None] = lambda error: None,
        upstream_trouble: Callable[[bool], None] = lambda on: None,
    ) -> None:
        settings = auditor.settings
        self._auditor = auditor
        self._clock = clock
        self._trouble = Trouble(upstream_trouble)
        upstreams = Upstreams(upstream, settings.upstreams, eu=sandbox_eu)
        emulated = frozenset(map(target_of, filter(None, (upstream, sandbox_eu)))) if sandbox else frozenset()
        self._router = Router(
            upstreams,
            settings.max_audited_body,
            workspaces=settings.workspaces,
            proxy=settings.upstream_proxy,
            direct=emulated,
        )
        self._audit = AuditAddon(
            auditor,
            sandbox=lambda host, path: sandbox and upstreams.target(upstreams.place(host, path)) in emulated,
            clock=clock,
            connected=connected,
            failed=failed,
        )
        self._running: contextlib.AsyncExitStack | None = None

    async def start(self) -> Address:
        """Listen; the address with the real port. Raises OSError when it cannot."""
        settings = self._auditor.settings
        certificates = authority(settings)
        roots = None if settings.extra_ca is None else str(trusted(settings.extra_ca, certificates))
        wire.install()
        # It logs a failed start in its own words, and so would we.
        logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
        connections = Connections(
            settings.timeouts,
            self._router,
            self._trouble,
            unread=self._audit.unread,
            failed=self._audit.failed,
        )
        options = Options()
        master = Master(options, event_loop=asyncio.get_running_loop())
        master.addons.add(
            core.Core(),
            block.Block(),
            disable_h2c.DisableH2C(),
            next_layer.NextLayer(),
            tlsconfig.TlsConfig(),
            update_alt_svc.UpdateAltSvc(),
            self._audit,
            self._router,
            connections,
        )
        options.update(
            mode=[f"outbound:{NOWHERE}@{settings.listen}"],
            confdir=str(certificates),
            connection_strategy="lazy",
            keep_host_header=True,
            http2=False,
            stream_large_bodies=str(max(settings.max_audited_body, READ_UP_TO)),
            tcp_timeout=int(max(IDLE_SECONDS, settings.timeouts.connect + settings.timeouts.response + 1)),
            ssl_verify_upstream_trusted_ca=roots,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(ended, asyncio.create_task(master.run()))
            stack.callback(master.shutdown)
            await connections.ready.wait()
            addresses = connections.listen_addrs()
            if not addresses:
                failed = next((server.last_exception for server in connections.servers), None)
                raise OSError(
                    f"cannot listen on {settings.listen}: {reason(failed)};"
                    " give --listen another port, or 0 for a free one"
                )
            stack.push_async_callback(connections.drain, settings.timeouts.drain)
            expiring = asyncio.create_task(self._expire())
            stack.push_async_callback(ended, expiring)
            stack.callback(expiring.cancel)
            self._running = stack.pop_all()
        return Address(settings.listen.host, addresses[0][1])

    async def stop(self) -> None:
        """Stop listening, let the requests in flight end, then stop for good."""
        running, self._running = self._running, None
        if running is not None:
            await running.aclose()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._auditor.beat(self._clock())
            await self._auditor.expire(self._clock())


def authority(settings: Settings) -> Path:
    """The folder of the certificate authority, made on first use; nobody but its owner may read it. Raises OSError."""
    folder = state.folder(settings, os.environ) / "certificates"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    try:
        CertStore.from_store(folder, CONF_BASENAME, KEY_SIZE)
    except ValueError as error:
        raise OSError(f"{folder} holds a broken certificate authority: delete it to have a new one made") from error
    for file in folder.iterdir():
        file.chmod(0o600)
    return folder


def trusted(named: str, folder: Path) -> Path:
    """A file in `folder` with the usual certificate authorities and those of the file named. Raises OSError."""
    try:
        added = state.authorities(Path(named).expanduser())
    except ValueError as error:
        raise OSError(f"extra_ca: {error}") from error
    roots = Path(certifi.where()).read_bytes() + b"\n" + added
    # Named by its content: another proxy that shares the folder may trust others.
    path = folder / f"upstream-roots-{hashlib.sha256(roots).hexdigest()[:16]}.pem"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(roots)
        unfinished.replace(path)
    return path


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for a task that is about to end."""
    with contextlib.suppress(asyncio.CancelledError):
        await task


def reason(error: Exception | None) -> str:
    """Why a listener failed, in a few words."""
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error or "not known")
