"""The addon for a user's own mitmproxy: it audits flows to Customer.io and leaves their way alone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Set
from pathlib import Path
from typing import Any

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from cio_proxy import drivers, rules, state
from cio_proxy.apis import HOSTS, PREFIXES, path_of
from cio_proxy.audit import sealed_with
from cio_proxy.config import ConfigError, load
from cio_proxy.model import Settings
from cio_proxy.sinks.console import Console
from cio_proxy.sinks.journal import Journal
from cio_proxy.sources.mitm.addon import AuditAddon


class Script:
    """Option `cio_config` names a configuration file. A mistake in it stops mitmproxy with a clear line."""

    def __init__(self) -> None:
        self._addon: AuditAddon | None = None
        self._closing: list[Any] = []
        self._expiring: asyncio.Task[None] | None = None

    def load(self, loader: Loader) -> None:
        """Declare the option."""
        loader.add_option("cio_config", str, "", "Configuration of cio-proxy (YAML); empty for the defaults.")

    def configure(self, updated: Set[str]) -> None:
        """Build the auditor. Raises OptionsError."""
        if self._addon is not None and "cio_config" not in updated:
            return
        named = ctx.options.cio_config
        try:
            loaded = load(Path(named) if named else None, os.environ, {}, rules=[rule.info for rule in rules.RULES])
            seal = sealed_with(state.hash_key(state.folder(loaded.settings, os.environ)))
        except (ConfigError, OSError, ValueError) as error:
            raise exceptions.OptionsError(f"cio_config: {error}") from error
        self._close()
        self._addon = self._built(loaded.settings, seal)

    def _built(self, settings: Settings, seal: Any) -> AuditAddon:
        journal, console = Journal(settings.journal), Console()
        self._closing = [journal, console]
        return AuditAddon(drivers.build(settings, sinks=(journal, console), seal=seal))

    async def running(self) -> None:
        """Look at deadlines once a second."""
        self._expiring = asyncio.create_task(self._expire())

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._addon is not None:
                await self._addon.auditor.expire(time.time())

    def done(self) -> None:
        """Write what is still waiting."""
        if self._expiring is not None:
            self._expiring.cancel()
        self._close()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Take a flow to Customer.io."""
        if self._addon is not None and _is_ours(flow):
            self._addon.requestheaders(flow)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge it."""
        if self._addon is not None and flow.id in self._addon.in_flight:
            await self._addon.request(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Say what was found."""
        if self._addon is not None and flow.id in self._addon.in_flight:
            self._addon.responseheaders(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Settle it."""
        if self._addon is not None and flow.id in self._addon.in_flight:
            await self._addon.response(flow)

    async def error(self, flow: http.HTTPFlow) -> None:
        """Settle one that failed."""
        if self._addon is not None and flow.id in self._addon.in_flight:
            await self._addon.error(flow)

    def _close(self) -> None:
        for sink in self._closing:
            sink.close()
        self._closing = []


def _is_ours(flow: http.HTTPFlow) -> bool:
    if flow.request.pretty_host.lower() in HOSTS:
        return True
    return path_of(flow.request.data.path).startswith(PREFIXES)
