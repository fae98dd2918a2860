"""The embedded mitmproxy: a master with only the addons that its listeners need."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial

from mitmproxy import http
from mitmproxy.addons import block, core, disable_h2c, next_layer
from mitmproxy.connection import Client
from mitmproxy.options import Options

from cio_proxy.apis import path_of, webhooks
from cio_proxy.drivers import Auditor
from cio_proxy.model import Address, Listener, Settings
from cio_proxy.probe import Probe
from cio_proxy.sources.mitm import wire
from cio_proxy.sources.mitm.addon import READ_UP_TO, AuditAddon
from cio_proxy.sources.mitm.certificates import Certificates, authority, own, trusted
from cio_proxy.sources.mitm.connections import Connections
from cio_proxy.sources.mitm.explicit import Customerio, Distrust, Explicit
from cio_proxy.sources.mitm.inbound import Inbound
from cio_proxy.sources.mitm.listeners import audited, listener_of, mode
from cio_proxy.sources.mitm.master import Embedded
from cio_proxy.sources.mitm.probing import Probing
from cio_proxy.sources.mitm.router import Router
from cio_proxy.sources.mitm.streams import AppStream, Begin, ExplicitStream, Stream
from cio_proxy.sources.mitm.trouble import Trouble
from cio_proxy.sources.mitm.upstreams import Upstreams, target_of
from cio_proxy.sources.mitm.wire import Excuse
from cio_proxy.state import AUTHORITY

IDLE_SECONDS = 600
"""mitmproxy's own limit for a connection on which nothing happens."""
ALT_SVC = "alt-svc"


class Door:
    """All listeners, each for plain HTTP and TLS alike. Lives in the running loop; one at a time in a process.

    `upstream` is what the settings say, or the URL of the sandbox, and `sandbox_eu` that of the EU's. `connected` is
    told of each connection of the app, `passed` of each request that is no exchange, `failed` of each error of the
    door's own, and `upstream_trouble` and `app_trouble` when an upstream or the app cannot be reached, and when that is
    over. `probe` takes the place of the one that the settings describe.
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
        passed: Callable[[Listener], None] = lambda listener: None,
        failed: Callable[[Exception], None] = lambda error: None,
        upstream_trouble: Callable[[bool], None] = lambda on: None,
        app_trouble: Callable[[bool], None] = lambda on: None,
        probe: Probe | None = None,
    ) -> None:
        settings = auditor.settings
        self._auditor = auditor
        self._clock = clock
        self._passed = passed
        self._trouble = Trouble(upstream_trouble)
        self._app_trouble = Trouble(app_trouble, "app")
        self.addresses: dict[Listener, Address] = {}
        """Where each listener listens, once it does."""
        upstreams = Upstreams(upstream, settings.upstreams, eu=sandbox_eu)
        emulated = frozenset(map(target_of, filter(None, (upstream, sandbox_eu)))) if sandbox else frozenset()
        self._looks_into = Customerio(settings.upstreams)
        self._router = Router(
            upstreams,
            settings.max_audited_body,
            workspaces=settings.workspaces,
            proxy=settings.upstream_proxy,
            direct=emulated,
        )
        self._probing = Probing(probe or Probe(settings.probe), auditor, clock)
        self._audit = AuditAddon(
            auditor,
            sandbox=lambda host, path: sandbox and upstreams.target(upstreams.place(host, path)) in emulated,
            clock=clock,
            wanted=audited,
            connected=connected,
            failed=failed,
            probing=None if settings.inbound is None else self._probing,
        )
        self._running: contextlib.AsyncExitStack | None = None

    def url(self, listener: Listener) -> str | None:
        """Where a listener is, if there is one."""
        address = self.addresses.get(listener)
        return None if address is None else f"http://{address}"

    async def start(self) -> Address:
        """Listen; the address of the outbound listener, with the real port. Raises OSError when one cannot."""
        settings = self._auditor.settings
        certificates = authority(settings)
        roots = None if settings.extra_ca is None else str(trusted(settings.extra_ca, certificates))
        wire.install()
        # It logs a failed start in its own words, and so would we.
        logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
        logging.getLogger("mitmproxy.proxy.server").setLevel(logging.ERROR)  # and each connection that fails
        excuses: dict[str, Excuse] = {}
        connections = Connections(
            settings.timeouts,
            excuses,
            self._begin(excuses),
            unread=self._unread,
            failed=self._audit.failed,
        )
        inbound = [] if settings.app is None else [self._inbound(settings.app)]
        explicit = [] if settings.explicit is None else [Explicit(self._looks_into)]
        options = Options()
        master = Embedded(options)
        master.addons.add(
            core.Core(),
            Block(),
            DisableH2C(),
            next_layer.NextLayer(),
            Certificates(own(settings.tls)),
            AltSvc(),
            Distrust(certificates / AUTHORITY),
            *inbound,
            *explicit,
            self._audit,
            self._router,
            connections,
        )
        options.update(
            mode=[mode(listener, address) for listener, address in listening(settings).items()],
            confdir=str(certificates),
            connection_strategy="lazy",
            keep_host_header=True,
            http2=False,
            websocket=False,
            rawtcp=False,
            stream_large_bodies=str(max(settings.max_audited_body, READ_UP_TO)),
            tcp_timeout=int(max(IDLE_SECONDS, settings.timeouts.connect + settings.timeouts.response + 1)),
            ssl_verify_upstream_trusted_ca=roots,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(ended, asyncio.create_task(master.run()))
            stack.callback(master.shutdown)
            await connections.ready.wait()
            self.addresses = connections.addresses()
            stack.push_async_callback(connections.drain, settings.timeouts.drain)
            stack.callback(self._probing.stop)
            expiring = asyncio.create_task(self._expire())
            stack.push_async_callback(ended, expiring)
            stack.callback(expiring.cancel)
            self._running = stack.pop_all()
        return self.addresses["outbound"]

    async def stop(self) -> None:
        """Stop listening, let the requests in flight end, then stop for good."""
        running, self._running = self._running, None
        if running is not None:
            await running.aclose()

    def _begin(self, excuses: dict[str, Excuse]) -> dict[Listener, Begin]:
        """How an exchange begins at each listener."""
        begin: Begin = partial(Stream, router=self._router, trouble=self._trouble, excuses=excuses)
        app = self._auditor.settings.app or ""
        return {
            "outbound": begin,
            "explicit": partial(
                ExplicitStream,
                router=self._router,
                trouble=self._trouble,
                excuses=excuses,
                looks_into=self._looks_into,
            ),
            "inbound": partial(AppStream, app=app, trouble=self._app_trouble, excuses=excuses),
        }

    def _inbound(self, app: str) -> Inbound:
        settings = self._auditor.settings

        def reads(flow: http.HTTPFlow) -> bool:
            headers = {name.lower(): value for name, value in flow.request.headers.fields}
            return webhooks.looks_like(
                flow.request.method, path_of(flow.request.data.path), headers, self._auditor.settings.webhooks.paths
            )

        return Inbound(
            target_of(app), settings.max_audited_body, reads=reads, passed=self._passed, probing=self._probing
        )

    def _unread(self, client: Client) -> None:
        """Count a request that could not be parsed."""
        if listener_of(client) == "inbound":
            self._passed("inbound")
        else:
            self._audit.unread(client)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._auditor.beat(self._clock())
            await self._auditor.expire(self._clock())


def listening(settings: Settings) -> dict[Listener, Address]:
    """Where to listen."""
    wanted: dict[Listener, Address | None] = {
        "outbound": settings.listen,
        "inbound": settings.inbound,
        "explicit": settings.explicit,
    }
    return {listener: address for listener, address in wanted.items() if address is not None}


class Block(block.Block):
    """mitmproxy refuses clients with a public address, as proxies for everybody are abused. An app has such clients."""

    def client_connected(self, client: Client) -> None:
        """Refuse a client."""
        if listener_of(client) != "inbound":
            super().client_connected(client)


class DisableH2C(disable_h2c.DisableH2C):
    """mitmproxy cannot read HTTP/2 in the clear, and takes away the offer of it; the app's side is not read."""

    def request(self, flow: http.HTTPFlow) -> None:
        """Take away an upgrade to it, without a word: Java offers it with each request that is not over TLS."""
        if listener_of(flow.client_conn) == "inbound":
            return
        headers = flow.request.headers
        if headers.get("upgrade", "").lower() == "h2c":
            for name in ("upgrade", "connection", "http2-settings"):
                headers.pop(name, None)
        super().request(flow)


class AltSvc:
    """An addon that takes `Alt-Svc` away, by which an upstream leads a client of its own to another port (RFC 7838)."""

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Keep a client of the outbound listener here; mitmproxy would promise that HTTP/3 is to be had at our port."""
        response = flow.response
        if response is not None and ALT_SVC in response.headers and listener_of(flow.client_conn) == "outbound":
            del response.headers[ALT_SVC]


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for a task that is about to end."""
    with contextlib.suppress(asyncio.CancelledError):
        await task
