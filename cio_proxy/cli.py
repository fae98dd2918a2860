"""The command line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cio_proxy.model import Address, Settings

if TYPE_CHECKING:
    from cio_proxy.config import Loaded

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
            click.option("--facts", metavar="STORE", help="Keep facts in sqlite:PATH or redis://HOST."),
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
    sys.exit(asyncio.run(_serve(lambda: _load(config, flags))))


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
    from cio_proxy.config import Mistake, address
    from cio_proxy.sandbox import Sandbox

    async def serve(where: Address) -> int:
        emulation = Sandbox(region=region)
        try:
            url = await emulation.start(where.host, where.port)
        except OSError as error:
            raise Refused(f"--listen {where}: {error}") from error
        stopped = _stop_signal()
        click.echo(json.dumps({"ready": True, "sandbox": url, "pid": os.getpid()}))
        await stopped.wait()
        await emulation.stop()
        return 0

    try:
        where = address(listen)
    except Mistake as error:
        raise Refused(f"--listen: {error}") from error
    sys.exit(asyncio.run(serve(where)))


@main.command()
@click.argument("rule", required=False, shell_complete=lambda context, word, start: rules_like(start))
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


@main.group()
def config() -> None:
    """Check or show the configuration.

    \b
    cio-proxy config check cio-proxy.yaml
    cio-proxy config show
    """


@config.command("check")
@click.argument("file")
def config_check(file: str) -> None:
    """Check a configuration file: every mistake at once, each with its line.

    \b
    cio-proxy config check cio-proxy.yaml
    cio-proxy config check config/sidecar.yaml
    """
    from cio_proxy.config import expired

    loaded = _loaded(file, {})
    for line in (*loaded.warnings, *expired(loaded.settings, time.time())):
        click.echo(line, err=True)
    click.echo(f"{file} can be used")


@config.command("show")
@shared_options
def config_show(config: str | None, **flags: Any) -> None:
    """Show the configuration in force, from file, environment and flags, as a file that would give the same.

    \b
    cio-proxy config show
    cio-proxy config show --config cio-proxy.yaml --enforcement enforce
    """
    from cio_proxy.config import written
    from cio_proxy.rules import RULES

    click.echo(written(_loaded(config, flags).settings, [rule.info for rule in RULES]), nl=False)


@main.command()
@click.option("--config", metavar="FILE", help="Configuration file (YAML).")
@click.option("--listen", metavar="HOST:PORT", help="Where the app sends its Customer.io traffic.")
def env(config: str | None, listen: str | None) -> None:
    """Print how to point each SDK at the proxy, and the variables to export.

    \b
    cio-proxy env
    eval "$(cio-proxy env --listen 127.0.0.1:8081)"
    """
    from cio_proxy.state import folder

    settings = _loaded(config, {"listen": listen}).settings
    url = f"http://{settings.listen}"
    click.echo(f"export CIO_PROXY_URL={url}")
    authority = folder(settings, os.environ) / "certificates" / "mitmproxy-ca-cert.pem"
    for line in (
        "Node (customerio-node):",
        f"  new TrackClient(site, key, {{url: '{url}/api/v1'}})",
        f"  new APIClient(key, {{url: '{url}/v1'}})",
        f"  new PipelinesClient(key, {{url: '{url}/v1'}})",
        "Python (customerio):",
        f"  client = CustomerIO(site, key); client.base_url = '{url}/api/v1'",
        f"  APIClient(key, url='{url}')",
        "Python (customerio-cdp-analytics):",
        f"  Client(write_key, host='{url}')",
        "Over TLS, any SDK: the same port, and as the certificate authority to trust",
        f"  {authority}",
    ):
        click.echo(f"# {line}")


@main.command()
@click.argument("switch", required=False, type=click.Choice(["observe", "enforce", "bypass"]))
@click.option("--config", metavar="FILE", help="The proxy's configuration file, for its admin address.")
@click.option("--admin", metavar="HOST:PORT", help="Where the proxy serves metrics and findings.")
def enforcement(switch: str | None, config: str | None, admin: str | None) -> None:
    """Switch a running proxy: only observe, enforce, or bypass the audit altogether; without a word, ask it.

    It holds until the proxy ends, also over a reload of the configuration.

    \b
    cio-proxy enforcement bypass
    cio-proxy enforcement enforce --admin 127.0.0.1:9181
    """
    from cio_proxy import state

    settings = _loaded(config, {"admin": admin}).settings
    token = state.folder(settings, os.environ) / "admin.token"
    request = urllib.request.Request(f"http://{settings.admin}/api/enforcement")
    try:
        request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
        if switch is not None:
            request.data = json.dumps({"enforcement": switch}).encode()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            click.echo(json.load(answer)["enforcement"])
    except urllib.error.HTTPError as error:
        raise Refused(
            f"the proxy at {settings.admin} refused: {json.load(error).get('error', error.reason)}"
        ) from error
    except FileNotFoundError as error:
        raise Refused(f"{token} is not there: start the proxy first, as the same user") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Refused(f"no proxy at {settings.admin}: {reason}; --admin names another") from error


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completions(shell: str) -> None:
    """Print a script that completes commands and options in your shell.

    \b
    eval "$(cio-proxy completions bash)"
    cio-proxy completions fish > ~/.config/fish/completions/cio-proxy.fish
    """
    from click.shell_completion import get_completion_class

    if script := get_completion_class(shell):
        click.echo(script(main, {}, "cio-proxy", "_CIO_PROXY_COMPLETE").source())


def rules_like(start: str) -> list[str]:
    """The ids of rules that begin so, for a shell to complete."""
    from cio_proxy.rules import RULES

    return [rule.info.id for rule in RULES if rule.info.id.startswith(start)]


def _load(config: str | None, flags: dict[str, Any]) -> Loaded:
    """The configuration of a command. Raises ConfigError."""
    from cio_proxy import rules
    from cio_proxy.config import load

    named = config or os.environ.get("CIO_PROXY_CONFIG")
    given = {_KEYS.get(name, name): value for name, value in flags.items() if value is not None}
    return load(Path(named) if named else None, os.environ, given, rules=[rule.info for rule in rules.RULES])


def _loaded(config: str | None, flags: dict[str, Any]) -> Loaded:
    """The same for a user: a mistake is one line each. Raises Refused."""
    from cio_proxy.config import ConfigError

    try:
        return _load(config, flags)
    except ConfigError as error:
        raise Refused(str(error)) from error


_KEYS = {"journal": "journal.path"}


async def _serve(load: Callable[[], Loaded]) -> int:
    """Start everything, say so, wait for a signal, and stop in the order that loses nothing."""
    from cio_proxy.config import ConfigError
    from cio_proxy.run import Proxy

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="cio-proxy: %(message)s")
    try:
        proxy = Proxy(load, os.environ)
    except ConfigError as error:
        raise Refused(str(error)) from error
    except (OSError, ValueError) as error:
        raise Refused(f"state folder: {error}") from error
    try:
        ready = await proxy.start()
    except OSError as error:
        raise Refused(str(error)) from error
    stopped = _stop_signal()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, proxy.reload)
    click.echo(json.dumps(ready))
    for line in greeting(ready, proxy.settings):
        click.echo(f"cio-proxy: {line}", err=True)
    await stopped.wait()
    await proxy.stop()
    for line in farewell(proxy.summary()):
        click.echo(f"cio-proxy: {line}", err=True)
    return 0


def greeting(ready: dict[str, Any], settings: Settings) -> Iterator[str]:
    """What a person wants to know first: where to send traffic, where it goes, and what is done about findings."""
    yield f"send Customer.io traffic to {ready['outbound']}; metrics and findings are at {ready['admin']}"
    if settings.upstream == "sandbox":
        yield "upstream is the sandbox, nothing leaves this machine (--upstream live changes that)"
    else:
        yield f"upstream is {settings.upstream}"
    if settings.enforcement == "observe":
        yield "observing: findings are shown, nothing is refused (--enforcement enforce changes that)"
    else:
        yield "enforcing: what is certain to be lost is refused with 400"


def farewell(summary: dict[str, Any]) -> Iterator[str]:
    """What the run came to."""
    found = ", ".join(f"{count:,} {rule}" for rule, count in sorted(summary["by_rule"].items(), key=lambda e: -e[1]))
    blocked = f", {summary['blocked']:,} blocked" if summary["blocked"] else ""
    yield f"{summary['requests']:,} requests, {summary['calls']:,} calls{blocked}; findings: {found or 'none'}"
    for exemption in summary["exemptions"]:
        if not exemption["used"]:
            yield f"the exemption '{exemption['exemption']}' was never used"


def _stop_signal() -> asyncio.Event:
    """What SIGINT or SIGTERM sets from now on; ask for it before saying that all is ready."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


if __name__ == "__main__":
    main()
