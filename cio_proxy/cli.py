"""The command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from cio_proxy.model import Address, Settings

VERSION = version("cio-proxy")
USAGE_ERROR = 2


class Refused(click.ClickException):
    """Something the user gave cannot be used: one clear line on stderr, exit code 2."""

    exit_code = USAGE_ERROR

    def show(self, file: Any = None) -> None:
        """Print the lines as they are, without a prefix that hides the place."""
        click.echo(self.format_message(), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="cio-proxy")
def main() -> None:
    """Audit an app's Customer.io traffic while it runs.

    \b
    cio-proxy run
    cio-proxy explain millisecond-timestamp
    """


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that starts the proxy."""
    for option in reversed(
        (
            click.option("--config", metavar="FILE", help="Configuration file (YAML)."),
            click.option("--listen", metavar="HOST:PORT", help="Where the app sends its Customer.io traffic."),
            click.option("--admin", metavar="HOST:PORT", help="Where metrics and findings are served."),
            click.option("--upstream", metavar="sandbox|live|live-eu|URL", help="Where traffic goes on to."),
            click.option("--upstream-proxy", metavar="URL", help="An HTTP proxy on the way there."),
            click.option("--enforcement", metavar="observe|enforce", help="Log what would be blocked, or block it."),
            click.option("--people", metavar="partial|complete", help="Whether every person is known to the proxy."),
            click.option("--journal", metavar="PATH", help="Write findings to this file as JSON lines."),
            click.option(
                "--show-values", is_flag=True, default=None, help="Show values as sent. For local sessions only."
            ),
        )
    ):
        command = option(command)
    return command


@main.command()
@shared_options
def run(config: str | None, **flags: Any) -> None:
    """Run the proxy until it is stopped.

    Nothing leaves this machine until you choose an upstream: the default is an emulated Customer.io.
    When everything listens, one line of JSON goes to stdout.

    \b
    cio-proxy run --listen 127.0.0.1:8080
    cio-proxy run --upstream live --enforcement enforce --journal findings.jsonl
    """
    settings, warnings = _settings(config, flags)
    for warning in warnings:
        click.echo(warning, err=True)
    sys.exit(asyncio.run(_serve(settings)))


@main.command()
@click.option("--listen", default="127.0.0.1:8090", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--region", type=click.Choice(["us", "eu"]), default="us", show_default=True)
def sandbox(listen: str, region: Any) -> None:
    """Run an emulated Customer.io that keeps what it is sent.

    Read it at /_sandbox/people, /_sandbox/events and /_sandbox/requests.

    \b
    cio-proxy sandbox
    cio-proxy sandbox --listen 127.0.0.1:0 --region eu
    """
    from cio_proxy.config import ConfigError, address
    from cio_proxy.sandbox import Sandbox

    async def serve(where: Address) -> int:
        emulation = Sandbox(region=region)
        try:
            url = await emulation.start(where.host, where.port)
        except OSError as error:
            raise Refused(f"--listen {where}: {error}") from error
        click.echo(json.dumps({"ready": True, "sandbox": url, "pid": os.getpid()}))
        await _stopped()
        await emulation.stop()
        return 0

    try:
        where = address(listen)
    except (ConfigError, ValueError) as error:
        raise Refused(f"--listen: {error}") from error
    sys.exit(asyncio.run(serve(where)))


@main.command()
@click.argument("rule", required=False)
def explain(rule: str | None) -> None:
    """Explain a rule, with examples; without a name, list them all.

    \b
    cio-proxy explain
    cio-proxy explain track-before-identify
    """
    from cio_proxy.explain import find, page
    from cio_proxy.rules import RULES

    if rule is None:
        width = max(len(each.info.id) for each in RULES)
        for each in RULES:
            click.echo(f"{each.info.id:<{width}}  {each.info.severity:<7}  {each.title}")
        return
    try:
        click.echo(page(find(rule)), nl=False)
    except LookupError as error:
        raise Refused(str(error.args[0])) from error


def _settings(config: str | None, flags: dict[str, Any]) -> tuple[Settings, tuple[str, ...]]:
    from cio_proxy import rules
    from cio_proxy.config import ConfigError, load

    named = config or os.environ.get("CIO_PROXY_CONFIG")
    given = {_KEYS.get(name, name): value for name, value in flags.items() if value is not None}
    try:
        loaded = load(Path(named) if named else None, os.environ, given, rules=[rule.info for rule in rules.RULES])
    except ConfigError as error:
        raise Refused(str(error)) from error
    return loaded.settings, loaded.warnings


_KEYS = {"journal": "journal.path"}


async def _serve(settings: Settings) -> int:
    """Start everything, say so, wait for a signal, and stop in the order that loses nothing."""
    from cio_proxy import drivers, rules, state
    from cio_proxy.admin import Admin
    from cio_proxy.audit import sealed_with
    from cio_proxy.sandbox import Regions
    from cio_proxy.sinks.console import Console
    from cio_proxy.sinks.coverage import Coverage
    from cio_proxy.sinks.journal import Journal
    from cio_proxy.sinks.metrics import Metrics
    from cio_proxy.sources.mitm import Door

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="cio-proxy: %(message)s")
    infos = [rule.info for rule in rules.RULES]
    try:
        folder = state.folder(settings, os.environ)
        key = state.hash_key(folder)
    except (OSError, ValueError) as error:
        raise Refused(f"state folder: {error}") from error
    settings = replace(settings, state=str(folder))
    metrics = Metrics(infos, settings, VERSION)
    journal = Journal(
        settings.journal,
        dropped=lambda count: metrics.dropped("journal", count),
        degraded=lambda on: metrics.degraded("journal", on),
    )
    console = Console(dropped=lambda count: metrics.dropped("console", count))
    coverage = Coverage([info for info in infos if settings.rule(info.id).action != "off"])
    auditor = drivers.build(
        settings,
        sinks=(metrics, coverage, journal, console),
        seal=sealed_with(key),
        rule_error=_once(lambda rule, error: metrics.rule_error(rule)),
        error=lambda part, error: metrics.store_error("memory") if part == "store" else metrics.degraded(part),
        unable=coverage.unable,
    )
    admin = Admin(
        metrics=metrics,
        journal=journal,
        summary=coverage.summary,
        degraded=metrics.degraded_parts,
        token=state.admin_token(folder),
        rules=[info.id for info in infos],
    )
    metrics.known = auditor.store.known
    emulation = Regions() if settings.upstream == "sandbox" else None
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        stack.callback(console.close)
        try:
            upstream, sandbox_eu = settings.upstream, None
            if emulation is not None:
                upstream, sandbox_eu = await emulation.start()
                stack.push_async_callback(emulation.stop)
            listening = await admin.start(settings.admin)
            stack.push_async_callback(admin.stop)
            door = Door(
                auditor,
                upstream=upstream,
                sandbox=emulation is not None,
                sandbox_eu=sandbox_eu,
                connected=metrics.connection,
                failed=lambda error: metrics.degraded("door"),
                upstream_trouble=lambda on: metrics.degraded("upstream", on),
            )
            outbound = await door.start()
        except OSError as error:
            raise Refused(str(error)) from error
        ready = {
            "ready": True,
            "outbound": f"http://{outbound}",
            "inbound": None,
            "explicit": None,
            "admin": f"http://{listening}",
            "upstream": settings.upstream,
            "sandbox": upstream if emulation is not None else None,
            "pid": os.getpid(),
        }
        click.echo(json.dumps(ready))
        if emulation is not None:
            click.echo(
                "cio-proxy: upstream is the sandbox, nothing leaves this machine (--upstream live changes that)",
                err=True,
            )
        admin.ready = True
        await _stopped()
        admin.draining = True
        await door.stop()
    return 0


def _once(count: Callable[[str, Exception], None]) -> Callable[[str, Exception], None]:
    """Count every error of a rule and log the first."""
    seen: set[str] = set()

    def rule_error(rule: str, error: Exception) -> None:
        count(rule, error)
        if rule not in seen:
            seen.add(rule)
            logging.getLogger("cio_proxy").warning("rule %s failed: %s", rule, type(error).__name__)

    return rule_error


async def _stopped() -> None:
    """Wait for SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    main()
