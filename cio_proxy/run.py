"""`cio-proxy run` as a whole: what is started, stopped, reloaded and switched while traffic flows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final, Literal, get_args

from cio_proxy import selftest, state
from cio_proxy.admin import Admin
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import ConfigError, Loaded, expired, kept
from cio_proxy.drivers import Auditor
from cio_proxy.facts import Unusable, stores
from cio_proxy.model import FactStore, Paced, Settings, Sink
from cio_proxy.pacing import Pacing
from cio_proxy.rules import RULES
from cio_proxy.sandbox import Regions
from cio_proxy.sinks.console import Console
from cio_proxy.sinks.coverage import Coverage
from cio_proxy.sinks.journal import Journal
from cio_proxy.sinks.metrics import Metrics
from cio_proxy.watchdog import Overdue, Watchdog

log = logging.getLogger("cio_proxy")

Switch = Literal["observe", "enforce", "bypass"]
SWITCHES: Final[tuple[Switch, ...]] = get_args(Switch)
LAST_SECONDS: Final = 2.0
SCAN_SECONDS: Final = 2.0
"""How long the start waits to hear whose people were imported."""
OVERDUES: Final = 3
"""How often a rule may take too long before it is switched off."""


class Proxy:
    """The running proxy. `load` reads the configuration, now and at every reload.

    `shown` takes the findings that are for people, in place of the console. `token` is that of the admin API; else it
    is a new one, which the command line finds in the state folder.
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        environ: Mapping[str, str],
        *,
        shown: Sink | None = None,
        token: str | None = None,
    ) -> None:
        self._load = load
        self._shown = shown
        self._token = token
        loaded = load()
        self.folder = state.folder(loaded.settings, environ)
        self.settings = self._settled(loaded.settings)
        try:
            self._seal = sealed_with(state.hash_key(self.folder, self.settings.hash_key_file))
        except ValueError as error:
            if self.settings.hash_key_file is None:
                raise
            raise ConfigError(f"hash_key_file: {error}") from error
        self._infos = [rule.info for rule in RULES]
        self._off: set[str] = set()
        self._overdue: Counter[str] = Counter()
        self._told: set[str] = set()
        self._switch: Switch | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._stack = contextlib.AsyncExitStack()
        for line in loaded.warnings:
            log.warning(line)
        self._open()

    def _open(self) -> None:
        settings = self.settings
        self.metrics = Metrics(self._infos, settings, version("cio-proxy"))
        self.journal = Journal(
            settings.journal,
            dropped=lambda count: self.metrics.dropped("journal", count),
            degraded=lambda on: self.metrics.degraded("journal", on),
        )
        self.coverage = Coverage()
        self._facts = settings.facts or FactStore("memory")
        try:
            self.store = stores.opened(self._facts, settings.facts_limit, self._facts_lost)
        except Unusable as error:
            raise ConfigError(f"facts: {error}") from error
        self.metrics.known = self.store.known
        watchdog = Watchdog()
        self.pacing = Pacing(self.store, self._paced)
        self.auditor = Auditor(
            self._engine(settings),
            self.store,
            (self.metrics, self.coverage, self.journal, self._shown or self._console()),
            pacing=self.pacing,
            watchdog=watchdog,
            error=self._part_error,
            degraded=self.metrics.degraded,
            looked=self.coverage.looked,
        )
        self.admin = Admin(
            metrics=self.metrics,
            journal=self.journal,
            summary=self.summary,
            degraded=self.metrics.degraded_parts,
            token=self._token or state.admin_token(self.folder),
            rules=[info.id for info in self._infos],
            switches=SWITCHES,
            enforce=self.enforce,
            reset=self.reset,
        )
        self._stack.callback(self.journal.close)
        self._stack.callback(watchdog.close)
        self._stack.push_async_callback(self.store.close)

    def _console(self) -> Console:
        console = Console(dropped=lambda count: self.metrics.dropped("console", count))
        self._stack.callback(console.close)
        return console

    async def start(self) -> dict[str, Any]:
        """Test the rules, listen everywhere, and give the ready line. Raises OSError when something cannot listen."""
        from cio_proxy.sources.mitm import Door  # most of a second, which a mistake need not wait for

        for rule, reason in (await selftest.failing()).items():
            self.metrics.rule_error(rule)
            self._switch_off(rule, reason)
        self._adopt(self.settings)
        await self.auditor.beat(self.auditor.clock())
        await self._tell_people("the sandbox begins with nobody")
        try:
            upstream, sandbox_eu = self.settings.upstream, None
            emulation = Regions() if upstream == "sandbox" else None
            if emulation is not None:
                upstream, sandbox_eu = await emulation.start()
                self._stack.push_async_callback(emulation.stop)
            listening = await self.admin.start(self.settings.admin)
            self._stack.push_async_callback(self.admin.stop)
            door = Door(
                self.auditor,
                upstream=upstream,
                sandbox=emulation is not None,
                sandbox_eu=sandbox_eu,
                connected=self.metrics.connection,
                failed=lambda error: self.metrics.degraded("door"),
                passed=self.metrics.passed,
                upstream_trouble=lambda on: self.metrics.degraded("upstream", on),
                app_trouble=lambda on: self.metrics.degraded("app", on),
            )
            outbound = await door.start()
            self._stack.push_async_callback(door.stop)
        except OSError:
            await self._stack.aclose()
            raise
        self.admin.ready = True
        return {
            "ready": True,
            "outbound": f"http://{outbound}",
            "inbound": door.url("inbound"),
            "explicit": door.url("explicit"),
            "admin": f"http://{listening}",
            "upstream": self.settings.upstream,
            "sandbox": upstream if emulation is not None else None,
            "pid": os.getpid(),
        }

    async def stop(self) -> None:
        """Let requests in flight end, then stop everything in the order that loses nothing."""
        self.admin.draining = True
        if self._expiry is not None:
            self._expiry.cancel()
        # Whoever is still held shortly before the end goes at once.
        last = max(0.0, self.settings.timeouts.drain - LAST_SECONDS)
        release = asyncio.get_running_loop().call_later(last, self.pacing.release)
        await self._stack.aclose()
        release.cancel()

    def reload(self) -> None:
        """Read the configuration again. A broken one changes nothing; what needs a restart keeps its value."""
        try:
            loaded = self._load()
        except ConfigError as error:
            self.metrics.reloaded(False)
            for line in str(error).splitlines():
                log.warning("not reloaded, the configuration in force stays: %s", line)
            return
        settings, names = kept(self._settled(loaded.settings), self.settings)
        for line in loaded.warnings:
            log.warning(line)
        if names:
            log.warning("reloaded, but a restart is needed for: %s", ", ".join(names))
        self.metrics.reloaded(True)
        self._adopt(settings)
        log.warning("configuration reloaded%s", f"; enforcement stays {self._switch}" if self._switch else "")

    def enforce(self, switch: Switch | None = None) -> Switch:
        """Set what is done about findings from now on, over what is configured; and say what holds."""
        if switch is not None:
            self._switch = switch
            self._adopt(self.settings)
            log.warning("enforcement is now %s", switch)
        return "bypass" if self.auditor.bypass else self.auditor.settings.enforcement

    async def reset(self, facts: bool) -> None:
        """Forget findings and coverage, and with `facts` what is known; counters stay."""
        self.journal.reset()
        self.coverage.reset()
        if facts:
            await self.auditor.forget()
            await self._tell_people("nobody is known any more, also of those who are in the sandbox")

    def summary(self) -> dict[str, Any]:
        """What was seen and found, and the enforcement in force."""
        return {**self.coverage.summary(), "enforcement": self.enforce()}

    def _settled(self, settings: Settings) -> Settings:
        """What was configured, with the places that follow from it."""
        return replace(settings, state=str(self.folder), facts=stores.chosen(settings, self.folder))

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        if self._switch in ("observe", "enforce"):
            settings = replace(settings, enforcement=self._switch)
        engine = self._engine(settings)
        self.auditor.engine, self.auditor.bypass = engine, self._switch == "bypass"
        self.metrics.degraded("audit", self.auditor.bypass)
        self.coverage.follow([rule.info for rule in engine.rules], settings.exemptions)
        self.metrics.exempt(settings.exemptions)
        self._tell_expired()

    def _engine(self, settings: Settings) -> Engine:
        return Engine(
            settings,
            [rule for rule in RULES if rule.info.id not in self._off],
            self._seal,
            rule_error=self._rule_error,
            unable=self.coverage.unable,
            exempted=self.coverage.exempted,
        )

    async def _tell_people(self, of_sandbox: str) -> None:
        """Say for whom `people: complete` counts, where it is configured."""
        settings = self.settings
        if settings.people != "complete":
            return
        if settings.begins_empty:
            log.warning("people: complete counts: %s", of_sandbox)
            return
        try:
            async with asyncio.timeout(SCAN_SECONDS):
                names = await self.auditor.imported()
        except Exception:
            names = ()  # what the store cannot say counts for nothing, until it can
        if names:
            log.warning(
                "people: complete counts in %s; elsewhere as partial, until everybody is imported", ", ".join(names)
            )
        else:
            how = "facts must outlive the proxy for that" if self._facts.kind == "memory" else "cio-proxy people import"
            log.warning("people: complete counts as partial until everybody is imported (%s)", how)

    def _tell_expired(self) -> None:
        """Say once of each exemption that it has expired, now or when it does."""
        if self._expiry is not None:
            self._expiry.cancel()
        now = time.time()
        for line in expired(self.settings, now):
            if line not in self._told:
                self._told.add(line)
                log.warning(line)
        coming = [each.expires for each in self.settings.exemptions if each.expires is not None and each.expires > now]
        if coming:
            seconds = min(min(coming) - now + 0.1, 86_400.0)
            self._expiry = asyncio.get_running_loop().call_later(seconds, self._tell_expired)

    def _rule_error(self, rule: str, error: BaseException) -> None:
        self.metrics.rule_error(rule)
        self.auditor.missed(self.auditor.clock())  # what the rule would have taught is not known
        if isinstance(error, Overdue):
            self._overdue[rule] += 1
            if self._overdue[rule] == OVERDUES:
                self._switch_off(rule, f"it took too long {OVERDUES} times")
                self._adopt(self.settings)
        kind = f"rule {rule} failed: {type(error).__name__}; traffic goes on"
        if kind not in self._told:
            self._told.add(kind)
            log.warning(kind)

    def _switch_off(self, rule: str, reason: str) -> None:
        self._off.add(rule)
        self.metrics.degraded(rule)
        log.warning("rule %s is switched off: %s", rule, reason)

    def _facts_lost(self, at: float, workspace: str, error: BaseException) -> None:
        self.auditor.lost_behind(at, workspace, error)

    def _paced(self, result: Paced, seconds: float) -> None:
        self.metrics.paced(result, seconds)
        self.coverage.paced(result)

    def _part_error(self, part: str, error: BaseException) -> None:
        if part == "store":
            self.metrics.store_error(self._facts.kind)
