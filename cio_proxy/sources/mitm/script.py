"""The addon for a user's own mitmproxy: it audits flows to Customer.io and leaves their way alone."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.mode_specs import ReverseMode

from cio_proxy import drivers, rules, state
from cio_proxy.apis import HOSTS, PREFIXES, path_of
from cio_proxy.audit import sealed_with
from cio_proxy.config import ConfigError, load
from cio_proxy.drivers import Auditor
from cio_proxy.facts import Unusable, stores
from cio_proxy.model import Settings
from cio_proxy.sinks.console import Console
from cio_proxy.sinks.journal import Journal
from cio_proxy.sources.mitm.addon import AuditAddon
from cio_proxy.sources.mitm.marks import Marks

log = logging.getLogger("cio_proxy")


class Script:
    """Option `cio_config` names a configuration file. A mistake in it stops mitmproxy with a clear line."""

    def __init__(self) -> None:
        self.addons: list[AuditAddon] = []
        """mitmproxy calls the hooks of what is listed here."""
        self._auditor: Auditor | None = None
        self._closing: list[Callable[[], None]] = []
        self._expiring: asyncio.Task[None] | None = None
        self._letting_go: set[asyncio.Task[None]] = set()

    def load(self, loader: Loader) -> None:
        """Declare the option. What mitmproxy would pass over without a word is an error, and stops the start."""
        for name, value in ctx.options.deferred.items():
            if name.startswith("cio") and name != "cio_config":
                log.error("unknown option %s: there is only cio_config", name)
            elif name == "cio_config" and not isinstance(value, str) and len(getattr(value, "val", ())) != 1:
                log.error("cio_config: give it one file, as in cio_config=cio-proxy.yaml")
        loader.add_option("cio_config", str, "", "Configuration of cio-proxy (YAML); empty for the defaults.")

    def configure(self, updated: Set[str]) -> None:
        """Build the auditor. Raises OptionsError for a change that cannot be made."""
        if "cio_config" not in updated:
            return
        named = ctx.options.cio_config
        try:
            loaded = load(Path(named) if named else None, os.environ, {}, rules=[rule.info for rule in rules.RULES])
            folder = state.folder(loaded.settings, os.environ)
            seal = sealed_with(state.hash_key(folder, loaded.settings.hash_key_file))
            facts = stores.chosen(loaded.settings, folder)
            settings = replace(loaded.settings, facts=facts, upstream="live")  # mitmproxy says where: to no sandbox
            auditor = drivers.build(settings, seal=seal)
        except (ConfigError, Unusable, OSError, ValueError) as error:
            if self._auditor is not None:
                raise exceptions.OptionsError(f"cio_config: {error}") from error
            # What is raised while a script loads is shown with its traceback. An error in the log stops the start, too.
            log.error("cio_config: %s", error)
            return
        for warning in loaded.warnings:
            log.warning(warning)
        self._close()
        self._open(settings, auditor)

    def running(self) -> None:
        """Look at deadlines once a second."""
        self._expiring = asyncio.create_task(self._expire())

    async def done(self) -> None:
        """Write what is still waiting."""
        if self._expiring is not None:
            self._expiring.cancel()
        self._close()
        await asyncio.gather(*self._letting_go)

    def _open(self, settings: Settings, auditor: Auditor) -> None:
        journal, console, marks = Journal(settings.journal), Console(), Marks()
        self._closing = [journal.close, console.close]
        auditor.sinks = (journal, console, marks)
        self._auditor = auditor
        self.addons = [AuditAddon(auditor, wanted=is_ours, noted=marks.note)]

    def _close(self) -> None:
        for close in self._closing:
            close()
        self._closing = []
        if self._auditor is not None:
            task = asyncio.get_running_loop().create_task(self._auditor.store.close())
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)
            self._auditor = None

    async def _expire(self) -> None:
        while True:
            if (auditor := self._auditor) is not None:
                now = time.time()
                await auditor.beat(now)
                await auditor.expire(now)
            await asyncio.sleep(1.0)


def is_ours(flow: http.HTTPFlow) -> bool:
    """True for a live request to Customer.io: by its host, or by its path where one upstream was chosen for all."""
    if not flow.live:  # read from a file: its time is not now
        return False
    if flow.request.pretty_host.lower() in HOSTS:
        return True
    reverse = isinstance(flow.client_conn.proxy_mode, ReverseMode)
    return reverse and path_of(flow.request.data.path).startswith(PREFIXES)
