"""The command line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import secrets
import shlex
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from cio_proxy.model import SEVERITIES, Address, Seal, Settings, TrackingPlan

if TYPE_CHECKING:
    from cio_proxy.baseline import Seen
    from cio_proxy.config import Loaded
    from cio_proxy.facts import Store
    from cio_proxy.people import Import
    from cio_proxy.run import Proxy

VERSION = version("cio-proxy")
FOUND = 1
"""The exit code where something was found."""
USAGE_ERROR = 2
NOTHING = 3
"""The exit code where there is nothing to look at."""


class Refused(click.ClickException):
    """Something the user gave cannot be used: one clear line on stderr, exit code 2."""

    exit_code = USAGE_ERROR

    def show(self, file: Any = None) -> None:
        """Print the lines as they are, without a prefix that hides the place."""
        click.echo(self.format_message(), err=True)


class NotLasting(Refused):
    """The facts end with the process that keeps them: no other one can tell it anything, or ask."""


class NothingToRead(Refused):
    """There is nothing that the command could work on."""

    exit_code = NOTHING


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
            click.option("--tls-certificate", metavar="FILE", help="What --listen shows for itself (PEM)."),
            click.option("--tls-key", metavar="FILE", help="Its key, if it is not in the same file."),
            click.option("--inbound", metavar="HOST:PORT", help="Where the app's own clients come in; with --app."),
            click.option("--app", metavar="URL", help="The app behind it."),
            click.option("--explicit", metavar="HOST:PORT", help="An HTTP proxy for the app (HTTPS_PROXY)."),
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
    cio-proxy run --upstream live --inbound 127.0.0.1:8000 --app http://127.0.0.1:3000 --journal findings.jsonl
    """
    sys.exit(asyncio.run(_serve(lambda: _load(config, flags))))


@main.command("exec", context_settings={"ignore_unknown_options": True})
@shared_options
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info", "never"]),
    default="error",
    show_default=True,
    help="Exit 1 from this severity on.",
)
@click.option("--min-calls", type=click.IntRange(0), default=0, metavar="N", help="Exit 3 where fewer calls were seen.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(config: str | None, command: tuple[str, ...], fail_on: str, min_calls: int, **flags: Any) -> None:
    """Run a command with its Customer.io traffic led through the proxy, and report what was found.

    The program need not be changed: its environment leads Customer.io's own hosts to the proxy, on free ports, and all
    else where it goes anyway. Upstream is an emulated Customer.io until you choose another. stdout is the command's
    own; the report goes to stderr. The command's own exit code is kept where it is not 0.

    \b
    cio-proxy exec -- npm test
    cio-proxy exec --fail-on warning --min-calls 1 -- pytest -q
    """
    try:
        code = asyncio.run(_execute(config, flags, command, None if fail_on == "never" else fail_on, min_calls))
    except KeyboardInterrupt:  # before there was a command to give it to
        code = 128 + signal.SIGINT
    sys.exit(code)


@main.command()
@click.option("--listen", default="127.0.0.1:8090", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--region", type=click.Choice(["us", "eu"]), default="us", show_default=True)
def sandbox(listen: str, region: Any) -> None:
    """Run an emulated Customer.io that keeps what it is sent.

    Read it at /_sandbox/people, events, deliveries, objects and requests.

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
            raise Refused(str(error)) from error
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


@main.command()
@click.argument("file")
@click.option("--from", "journals", multiple=True, metavar="JOURNAL", help="A journal to read; may be repeated.")
@click.option("--config", metavar="FILE", help="Configuration file, which names the journal without --from.")
@click.option("--prune", is_flag=True, help="Only take out what the journal does not show any more.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
def baseline(file: str, journals: tuple[str, ...], config: str | None, prune: bool, dry_run: bool) -> None:
    """Accept all that a journal holds, so that only new findings count.

    The baseline FILE gets a line for each kind of finding of the journal and of the files it was rotated to. It takes
    effect where the option `baseline` names it. What an exemption covers is left out.

    \b
    cio-proxy baseline cio-proxy.baseline --from findings.jsonl
    cio-proxy baseline cio-proxy.baseline --prune --dry-run
    """
    from cio_proxy.baseline import Baseline, BaselineError, read, write

    path = Path(file)
    try:
        old = read(path) if prune or path.exists() else Baseline()
    except BaselineError as error:
        raise Refused(str(error)) from error
    seen = _seen(journals or _configured_journal(config))
    shown = frozenset(each for each in old.entries if each.fingerprint in seen.fingerprints)
    new = replace(old, entries=shown if prune else old.entries | seen.entries)
    try:
        if not dry_run and not (path.exists() and path.read_text(encoding="utf-8") == new.text):
            write(path, new)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from error
    removed, added = old.entries - new.entries, new.entries - old.entries
    for sign, changed in (("-", removed), ("+", added)):
        for line in sorted(each.line for each in changed):
            click.echo(f"{sign} {line}")
    done = f"{len(removed)} removed" if prune else f"{len(added)} added"
    click.echo(f"{file}: {done}, {len(new.entries)} in all{' (nothing is written)' if dry_run else ''}")


def _configured_journal(config: str | None) -> tuple[str]:
    """The journal of the configuration. Raises Refused when there is none."""
    journal = _loaded(config, {}, baselined=False).settings.journal.path
    if journal is None:
        raise Refused("no journal is configured: name one, --from findings.jsonl")
    return (journal,)


def _seen(journals: Sequence[str]) -> Seen:
    """What journals show. Raises NothingToRead when one is not there, or all are without a finding."""
    from cio_proxy.baseline import seen
    from cio_proxy.sinks.rotated import lines

    try:
        found = seen(line for journal in journals for line in lines(Path(journal)))
    except FileNotFoundError as error:
        raise NothingToRead(f"{error.filename}: no such journal; nothing is changed") from error
    except (OSError, ValueError) as error:
        raise Refused(f"the journal cannot be read: {error}") from error
    if found.unread:
        click.echo(f"lines that are no findings, left out: {found.unread}", err=True)
    if found.untold:
        click.echo(
            "kinds of findings that cannot be told without their values, left out (run without show_values): "
            f"{found.untold}",
            err=True,
        )
    if not found.fingerprints:
        raise NothingToRead(f"{', '.join(journals)}: no finding in it; nothing is changed")
    return found


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
    """Check a configuration file, and the files it names: every mistake at once, each with its line.

    \b
    cio-proxy config check cio-proxy.yaml
    cio-proxy config check config/sidecar.yaml
    """
    from cio_proxy import state
    from cio_proxy.config import expired

    loaded = _loaded(file, {})
    wrong = []
    for option, named, read in (
        ("hash_key_file", loaded.settings.hash_key_file, state.given_key),
        ("extra_ca", loaded.settings.extra_ca, state.authorities),
    ):
        try:
            if named is not None:
                read(Path(named).expanduser())
        except ValueError as error:
            wrong.append(f"{option}: {error}")
    if wrong:
        raise Refused("\n".join(wrong))
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
@click.option(
    "--explicit",
    is_flag=False,
    flag_value="",
    metavar="[HOST:PORT]",
    help="Also what leads to the HTTP proxy for the app, there or where it is configured.",
)
def env(config: str | None, listen: str | None, explicit: str | None) -> None:
    """Print how to point each SDK at the proxy, and the variables to export.

    With --explicit no SDK needs to be told anything: the variables lead to the HTTP proxy, and make clients trust its
    certificates beside the usual ones.

    \b
    cio-proxy env
    eval "$(cio-proxy env --explicit 127.0.0.1:8888)"
    """
    from cio_proxy import state

    settings = _loaded(config, {"listen": listen, "explicit": explicit or None}).settings
    if explicit is not None and settings.explicit is None:
        raise Refused("--explicit: no HTTP proxy is configured; give its address, such as --explicit 127.0.0.1:8888")
    url = f"http://{settings.listen}"
    click.echo(f"export CIO_PROXY_URL={url}")
    folder = state.place(settings, os.environ)
    certificate = state.authority(folder)
    if explicit is not None:
        from cio_proxy.exec.surroundings import without_proxy

        bundle, direct = str(state.bundle(folder)), without_proxy(os.environ)
        for line in proxied(f"http://{settings.explicit}", str(certificate), bundle, direct):
            click.echo(line)
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
        f"  {certificate}",
    ):
        click.echo(f"# {line}")


def proxied(url: str, authority: str, bundle: str, direct: str) -> Iterator[str]:
    """What a shell exports to lead clients through an HTTP proxy, but for `direct`, and to trust its certificates."""
    for about, value, *names in (
        (
            "Most clients heed it: Python's requests and httpx, Go, Ruby, curl",
            url,
            "HTTPS_PROXY",
            "https_proxy",
        ),
        ("Node heeds it from version 24 on, and only with this", "1", "NODE_USE_ENV_PROXY"),
        ("Node trusts this beside its own authorities", authority, "NODE_EXTRA_CA_CERTS"),
        ("OpenSSL (Ruby, PHP, Python's ssl and httpx) and Go, for all that they trust", bundle, "SSL_CERT_FILE"),
        ("Python's requests, so also customerio and customerio-cdp-analytics", bundle, "REQUESTS_CA_BUNDLE"),
        ("curl", bundle, "CURL_CA_BUNDLE"),
        ("What goes to this machine itself stays direct", direct, "NO_PROXY", "no_proxy"),
    ):
        yield f"# {about}:"
        yield from (f"export {name}={shlex.quote(value)}" for name in names)


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
    token = state.place(settings, os.environ) / "admin.token"
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
        why = str(getattr(reason, "strerror", None) or reason).lower()
        raise Refused(f"no proxy at {settings.admin}: {why}; --admin names another") from error


@main.group()
def people() -> None:
    """Tell the proxy of the people that Customer.io has, and see what it knows.

    \b
    cio-proxy people import export.csv
    cio-proxy people status
    """


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads what the proxy remembers."""
    command = click.option("--facts", metavar="STORE", help="Where facts are kept: sqlite:PATH or redis://HOST.")(
        command
    )
    return click.option("--config", metavar="FILE", help="Configuration file (YAML).")(command)


def workspace_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Which workspace a command is about."""
    return click.option(
        "--workspace",
        metavar="NAME|SITE_ID",
        help=help,
        shell_complete=lambda context, option, start: workspaces_like(context.params.get("config"), start),
    )


@people.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@workspace_option("Whose people they are; else the only workspace there is.")
@click.option("--exported", metavar="TIME", help="When the export was made; else when the file was written.")
@store_options
def people_import(file: str, workspace: str | None, exported: str | None, **flags: Any) -> None:
    """Read an export of people from Customer.io, CSV or JSON lines, gzipped or not; - is standard input.

    With `people: complete`, whoever is neither in it nor seen since is unknown. Export everybody. Rows that cannot be
    read are told and skipped: the exit code is 1 then, and `complete` may not count before they are mended.

    \b
    cio-proxy people import export.csv --workspace production
    gunzip -c people.jsonl.gz | cio-proxy people import - --exported 2027-01-31T18:00:00Z
    """
    from cio_proxy import people
    from cio_proxy.exports import NotAnExport, rows

    settings, seal = _remembered(flags)
    now = time.time()

    async def tell(store: Store) -> people.Import:
        name = people.named(workspace, await people.workspaces(store, now), settings, seal)
        with _export(file) as (opened, size, written), _bar(opened, size) as progress:
            made = _when(exported) if exported else min(now, written)
            if made > now:
                raise Refused("--exported: a time to come: write when the export was made")
            return await people.told(store, rows(opened), name, seal, made=made, now=time.time, progress=progress)

    try:
        done = _with_store(settings, tell)
    except NotAnExport as error:
        raise Refused(f"{file}: {error}") from error
    except people.Unnamed as error:
        raise Refused(str(error)) from error
    for row in done.bad:
        click.echo(f"{file}:{row.line}: skipped: {row.reason}", err=True)
    if done.skipped > len(done.bad):
        click.echo(f"{file}: skipped {done.skipped - len(done.bad):,} more", err=True)
    if not done.people:
        click.echo(f"{file}: no row names a person", err=True)
        sys.exit(NOTHING)
    click.echo(f"{done.people:,} people with {done.identifiers:,} identifiers are known in workspace {done.workspace}")
    if done.unread:
        click.echo("somebody may be among the rows that were skipped: mend them and import again", err=True)
    elif not done.complete:
        click.echo("`people: complete` does not count: facts were lost since the export; import a newer one", err=True)
    sys.exit(FOUND if done.skipped else 0)


@people.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the text.")
@store_options
def people_status(as_json: bool, **flags: Any) -> None:
    """What is known of the people of each workspace, and whether `people: complete` counts.

    \b
    cio-proxy people status
    cio-proxy people status --facts sqlite:facts.db --json
    """
    from cio_proxy import people

    settings, _ = _remembered(flags, reads=True)
    now = time.time()
    found = _with_store(settings, lambda store: people.standings(store, now, settings.begins_empty))
    if as_json:
        workspaces = [each.record() for each in found]
        click.echo(json.dumps({"schema": 1, "people": settings.people, "workspaces": workspaces}, indent=2))
        return
    for each in found:
        click.echo("\n".join(each.lines(settings.people)))
    if not found:
        click.echo("nothing is known yet: no traffic was seen, and nothing was imported")


@main.group()
def plan() -> None:
    """Learn, check, import and export the tracking plan.

    \b
    cio-proxy plan learn -o tracking-plan.yaml
    cio-proxy plan check tracking-plan.yaml
    """


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a command that makes a file puts it."""
    command = click.option("--force", is_flag=True, help="Write over a file that is there.")(command)
    return click.option(
        "-o", "--output", type=click.Path(), metavar="FILE", help="Write to this file; else to stdout."
    )(command)


@plan.command("learn")
@workspace_option("Learn from this workspace alone.")
@click.option("--enough", type=click.IntRange(1), metavar="PEOPLE", help="From how many on what all send is required.")
@output_options
@store_options
def plan_learn(workspace: str | None, enough: int | None, output: str | None, force: bool, **flags: Any) -> None:
    """Write the plan of what was sent: events, their attributes, types, and what everybody sends.

    It says on top what it was learned from. Names that hold a value or something personal are never learned.

    \b
    cio-proxy plan learn -o tracking-plan.yaml
    cio-proxy plan learn --workspace production --enough 20
    """
    from cio_proxy import people, plan

    settings, seal = _remembered(flags, reads=True)
    now = time.time()

    async def learn(store: Store) -> plan.Learned:
        known = await people.workspaces(store, now)
        return await plan.learned(store, now, workspace and people.named(workspace, known, settings, seal))

    try:
        learned = _with_store(settings, learn)
    except people.Unnamed as error:
        raise Refused(str(error)) from error
    if not learned.events and not learned.person:
        click.echo("nothing to learn from: no event and no attribute was seen yet", err=True)
        sys.exit(NOTHING)
    enough = enough or plan.ENOUGH
    learned_plan = plan.plan_of(learned, enough)
    _write(plan.written(learned_plan, [*plan.about(learned, enough)], plan.notes(learned)), output, force)


@plan.command("check")
@click.argument("file", required=False, type=click.Path())
@store_options
def plan_check(file: str | None, **flags: Any) -> None:
    """Check a plan, else the configured one: every mistake at once, then what was sent beside it.

    The exit code is 1 where something was sent that is not in the plan, or not as the plan says.

    \b
    cio-proxy plan check tracking-plan.yaml
    cio-proxy plan check --config cio-proxy.yaml
    """
    from cio_proxy import plan

    chosen = _plan(file, flags)
    count = sum(len(fields.attributes) for fields in (chosen.events or {}).values())
    name = chosen.source or "the configured plan"
    click.echo(f"{name} can be used: {_many(len(chosen.events or ()), 'event')} with {_many(count, 'attribute')}")
    now = time.time()
    try:
        settings, _ = _remembered(flags, reads=True)
        learned = _with_store(settings, lambda store: plan.learned(store, now))
    except (NotLasting, NothingToRead) as error:
        click.echo(f"not compared with what was sent: {error.message}", err=True)
        return
    beside = False
    for wrong, line in plan.differences(chosen, learned):
        click.echo(line)
        beside = beside or wrong
    sys.exit(FOUND if beside else 0)


@plan.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@output_options
def plan_import(file: str, output: str | None, force: bool) -> None:
    """Make a plan of a JSON Schema whose properties, or $defs, are events by name.

    Keywords that a plan does not have are left out, and told.

    \b
    cio-proxy plan import schema.json -o tracking-plan.yaml
    cio-proxy plan import schema.json > tracking-plan.yaml
    """
    from cio_proxy import plan

    try:
        made, left_out = plan.from_schema(json.loads(Path(file).read_bytes()))
    except plan.PlanError as error:
        raise Refused(f"{file}: {error}") from error
    except OSError as error:
        raise Refused(f"{file}: {(error.strerror or 'cannot be read').lower()}; name a readable file") from error
    except json.JSONDecodeError as error:
        raise Refused(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg.lower()}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"{file}: not JSON that can be read") from error
    if left_out:
        click.echo(f"{file}: left out, since a plan has no such thing: {', '.join(left_out)}", err=True)
    _write(plan.written(made, [f"Tracking plan, imported from {Path(file).name}."]), output, force)


@plan.command("export")
@click.argument("file", required=False, type=click.Path())
@click.option("--config", metavar="FILE", help="Configuration file (YAML), for the plan that it names.")
@output_options
def plan_export(file: str | None, config: str | None, output: str | None, force: bool) -> None:
    """Write a plan, else the configured one, as a JSON Schema (draft 2020-12).

    \b
    cio-proxy plan export tracking-plan.yaml -o schema.json
    cio-proxy plan export --config cio-proxy.yaml
    """
    from cio_proxy import plan

    document = plan.schema(_plan(file, {"config": config}))
    _write(json.dumps(document, indent=2, ensure_ascii=False) + "\n", output, force)


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


def workspaces_like(config: str | None, start: str) -> list[str]:
    """The configured names of workspaces that begin so, for a shell to complete."""
    from cio_proxy.config import ConfigError

    try:
        return [name for name in _load(config, {}).settings.workspaces if name.startswith(start)]
    except ConfigError:
        return []


def _load(config: str | None, flags: dict[str, Any], baselined: bool = True, **options: Any) -> Loaded:
    """The configuration of a command. Raises ConfigError."""
    from cio_proxy import rules
    from cio_proxy.config import load

    named = config or os.environ.get("CIO_PROXY_CONFIG")
    given = {_KEYS.get(name, name): value for name, value in flags.items() if value is not None}
    infos = [rule.info for rule in rules.RULES]
    return load(Path(named) if named else None, os.environ, given, rules=infos, baselined=baselined, **options)


def _loaded(config: str | None, flags: dict[str, Any], baselined: bool = True) -> Loaded:
    """The same for a user: a mistake is one line each. Raises Refused."""
    from cio_proxy.config import ConfigError

    try:
        return _load(config, flags, baselined)
    except ConfigError as error:
        raise Refused(str(error)) from error


_KEYS = {"journal": "journal.path", "tls_certificate": "tls.certificate", "tls_key": "tls.key"}


def _remembered(flags: dict[str, Any], reads: bool = False) -> tuple[Settings, Seal]:
    """The configuration, with the store it means, and the keyed hash of what is remembered. Raises Refused.

    A command that only `reads` makes nothing: it raises NothingToRead where no store is.
    """
    from cio_proxy import state
    from cio_proxy.audit import sealed_with
    from cio_proxy.facts import stores

    settings = _loaded(flags["config"], {name: value for name, value in flags.items() if name != "config"}).settings
    facts = stores.chosen(settings, state.place(settings, os.environ))
    if reads and facts.kind == "sqlite" and not Path(facts.place).expanduser().exists():
        raise NothingToRead(f"facts: {facts.place} is not there: no proxy has kept facts in it yet")
    settings = replace(settings, facts=facts)
    try:
        folder = state.folder(settings, os.environ)
        return settings, sealed_with(state.hash_key(folder, settings.hash_key_file))
    except (OSError, ValueError) as error:
        raise _stateless(error) from error


def _plan(file: str | None, flags: Mapping[str, Any]) -> TrackingPlan:
    """A plan from its file, else the configured one. Raises Refused."""
    from cio_proxy import plan

    if file is None:
        configured = _loaded(flags["config"], {}).settings.plan
        if configured is None:
            raise Refused("no plan is configured; name its file, or set `plan:` in the configuration")
        return configured
    try:
        return plan.read(Path(file))
    except plan.PlanError as error:
        raise Refused(str(error)) from error


def _write(text: str, output: str | None, force: bool) -> None:
    """Put a text into a file that is not there yet, or on stdout. Raises Refused."""
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Refused(f"{output} is there already; --force writes over it") from error
    except OSError as error:
        raise Refused(f"{output}: {(error.strerror or 'cannot be written').lower()}") from error


def _with_store[T](settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    """What a piece of work finds in the store that is configured. Raises Refused where there is none to be had."""
    from cio_proxy.facts import Unusable, stores

    where = settings.facts
    if where is None or where.kind == "memory":
        raise NotLasting("facts: memory ends with the process that keeps it; set facts to sqlite:PATH or redis://HOST")

    async def worked() -> T:
        store = stores.opened(where, settings.facts_limit)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(worked())
    except Unusable as error:
        raise Refused(f"facts: {error}") from error
    except stores.failures(where) as error:
        raise Refused(f"facts: {where} cannot be used now: {error or type(error).__name__}") from error


@contextmanager
def _export(file: str) -> Iterator[tuple[BinaryIO, int | None, float]]:
    """An export to read, its size, and when it was written; - is standard input. Raises Refused."""
    if file == "-":
        yield sys.stdin.buffer, None, time.time()
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise Refused(f"{file}: {(error.strerror or 'cannot be read').lower()}; give a readable file") from error
        facts = os.fstat(opened.fileno())
        yield opened, facts.st_size, facts.st_mtime


@contextmanager
def _bar(file: BinaryIO, size: int | None) -> Iterator[Callable[[Import], None]]:
    """What shows how far an import is, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = BarColumn(), TextColumn("{task.fields[people]:,} people"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size, people=0)
        read = file.raw.tell if size is not None else lambda: 0  # type: ignore[attr-defined]
        yield lambda done: progress.update(task, completed=read(), people=done.people)


def _when(text: str) -> float:
    """A moment in RFC 3339, or the beginning of a day, as Unix seconds. Raises Refused."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused("--exported: not a time: write 2027-01-31T18:00:00Z or 2027-01-31") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _take_all_connections() -> None:
    """Raise the limit of open files to what is allowed: each request in flight needs two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(load: Callable[[], Loaded]) -> int:
    """Start everything, say so, wait for a signal, and stop in the order that loses nothing."""
    _take_all_connections()
    proxy = _proxy(load)
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


async def _execute(
    config: str | None, flags: dict[str, Any], command: Sequence[str], fail_on: Any, min_calls: int
) -> int:
    """Run a command behind the proxy, report, and give the exit code."""
    from cio_proxy.config import SHIPPED
    from cio_proxy.exec import NotStarted, behind, execute
    from cio_proxy.reports.text import report
    from cio_proxy.sinks.kinds import Kinds

    free = Address("127.0.0.1", 0)
    defaults = replace(SHIPPED, listen=free, admin=free, explicit=free)
    found = Kinds()
    try:
        with TemporaryDirectory(prefix="cio-proxy-") as folder:

            def load() -> Loaded:
                loaded = _load(config, flags, defaults=defaults)
                return loaded._replace(settings=behind(loaded.settings, os.environ, Path(folder)))

            proxy = _proxy(load, shown=found, token=secrets.token_urlsafe(24))
            run = await execute(proxy, command, os.environ, Path(folder))
    except NotStarted as error:
        click.echo(f"cio-proxy: {error}", err=True)
        return error.code
    except OSError as error:
        raise Refused(str(error)) from error
    with suppress(OSError):  # the exit code is the command's, whether or not anybody reads this
        report(found.kinds, sys.stderr)
        for line in farewell(run.summary):
            click.echo(f"cio-proxy: {line}", err=True)
        if not run.summary["calls"]:
            click.echo(f"cio-proxy: {NO_CALL}", err=True)
    if run.code:
        return run.code
    code, why = 0, ""
    if run.summary["calls"] < min_calls:
        code, why = NOTHING, f"fewer calls than --min-calls {min_calls}"
    elif fail_on and found.reaches(fail_on):
        worse = " or worse" if fail_on != SEVERITIES[0] else ""
        keeps = "`--fail-on never` keeps the command's own exit code"
        code, why = FOUND, f"findings of severity {fail_on}{worse} ({keeps})"
    if code:
        with suppress(OSError):
            click.echo(f"cio-proxy: exit code {code}: {why}", err=True)
    return code


NO_CALL = "the command sent nothing to Customer.io that the proxy could see"


def _proxy(load: Callable[[], Loaded], **parts: Any) -> Proxy:
    """The proxy that is configured. Raises Refused."""
    from cio_proxy.config import ConfigError
    from cio_proxy.run import Proxy

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="cio-proxy: %(message)s")
    try:
        return Proxy(load, os.environ, **parts)
    except ConfigError as error:
        raise Refused(str(error)) from error
    except (OSError, ValueError) as error:
        raise _stateless(error) from error


def _stateless(error: OSError | ValueError) -> Refused:
    """Why the state folder cannot be used, and what to do."""
    if isinstance(error, ValueError):
        return Refused(f"state folder: {error}")
    why = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"
    return Refused(f"state folder: {why}: give one of your own by the option `state`, or XDG_STATE_HOME")


def greeting(ready: dict[str, Any], settings: Settings) -> Iterator[str]:
    """What a person wants to know first: where to send traffic, where it goes, and what is done about findings."""
    yield f"send Customer.io traffic to {ready['outbound']}; metrics and findings are at {ready['admin']}"
    if ready["inbound"]:
        yield f"requests to {ready['inbound']} go to the app, {settings.app}"
    if ready["explicit"]:
        yield f"an HTTP proxy is at {ready['explicit']}: only Customer.io's hosts are looked into"
    if settings.upstream == "sandbox":
        what = "nothing for Customer.io" if ready["explicit"] else "nothing"
        yield f"upstream is the sandbox, {what} leaves this machine (--upstream live changes that)"
    else:
        yield f"upstream is {settings.upstream}"
    if settings.enforcement == "observe":
        yield "observing: findings are shown, nothing is refused (--enforcement enforce changes that)"
    else:
        yield "enforcing: what is certain to be lost is refused with 400"
    if settings.probe.share:
        probe = settings.probe
        yield f"the latency probe holds {100 * probe.share:g}% of Customer.io's answers back, for {probe.delay:g} s"
    if settings.baseline is not None:
        yield f"kinds of findings that the baseline {settings.baseline} accepts: {len(settings.baselined):,}"


def farewell(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the run came to."""
    found = ", ".join(f"{count:,} {rule}" for rule, count in sorted(summary["by_rule"].items(), key=lambda e: -e[1]))
    taken = {"exempt": summary["exempt"], "in the baseline": summary["baselined"]}
    accepted = ", ".join(f"{count:,} {how}" for how, count in taken.items() if count)
    paces = {"held": "held back", "passed": "passed all the same", "would": "would be held back in enforce"}
    too_fast = ", ".join(
        f"{summary['paced'][result]:,} {how}" for result, how in paces.items() if summary["paced"][result]
    )
    blocked = f", {summary['blocked']:,} blocked" if summary["blocked"] else ""
    seen = f"{_many(summary['requests'], 'request')}, {_many(summary['calls'], 'call')}{blocked}"
    yield f"{seen}; findings: {found or 'none'}"
    if too_fast:
        yield f"requests that came too fast: {too_fast}"
    if accepted:
        yield f"findings that are accepted: {accepted}"
    for exemption in summary["exemptions"]:
        if not exemption["used"]:
            yield f"the exemption '{exemption['exemption']}' was never used"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _stop_signal() -> asyncio.Event:
    """What SIGINT or SIGTERM sets from now on; ask for it before saying that all is ready."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
