"""Whatever of ours breaks, under load and as a whole process: nothing is lost, and the counters say what happened.

Each request is counted once: what was sent is what was forwarded, partial, blocked, failed and unaudited.
"""

import asyncio
import json
import random
import resource
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import pytest

from ..conftest import COMMAND, counted, environment, running  # noqa: TID252 (tests are no package)
from ..test_operation import eventually, metric  # noqa: TID252
from ..test_run import fetched  # noqa: TID252
from .conftest import SITE, read_message, request
from .test_gateway import serving
from .test_reconciliation import REQUESTS, Answers, client, identify, upstream

pytestmark = pytest.mark.once

CLIENTS = 20
KINDS = ("ok", "html", "reset", "cut off", "garbage", "malformed", "refused", "cut", "large")
JUDGED = {"ok": 1, "html": 1, "reset": 1, "cut off": 1, "garbage": 1, "refused": 1, "cut": 2}
"""How many calls a rule for identifies sees in each."""
CONFIG = "enforcement: enforce\nmax_audited_body: 2000\n"

PATCHED = """
import os
from dataclasses import replace
from pathlib import Path
from cio_proxy import audit, rules
from cio_proxy.facts.sqlite import SqliteStore

armed = Path(os.environ["XDG_STATE_HOME"], "armed").exists

def broken(works):
    def breaks(*args):
        if armed():
            raise RuntimeError("ada@example.com")
        return works(*args)
    return works and breaks

%s
from cio_proxy.cli import main
main()
"""
RULES_THAT_RAISE = """
parts = ("check", "needs", "learn", "review", "due")
rules.RULES = tuple(replace(rule, **{each: broken(getattr(rule, each)) for each in parts}) for rule in rules.RULES)
"""
A_RULE_THAT_DOES_NOT_RETURN = """
def endless(works):
    def check(call, known):
        while call.name == "stuck":
            pass
        return works(call, known)
    return check

changed = {"inconsistent-event-name": endless, "dynamic-event-name": lambda works: lambda call, known: ()}
rules.RULES = tuple(
    replace(rule, check=changed[rule.info.id](rule.check)) if rule.info.id in changed else rule for rule in rules.RULES
)
"""
A_DEAD_STORE = """
SqliteStore.get_many = broken(SqliteStore.get_many)
SqliteStore.join_many = broken(SqliteStore.join_many)
"""
A_BROKEN_ENGINE = "audit.Engine.open = broken(audit.Engine.open)"


class Loaded(NamedTuple):
    """A running proxy that clients send to."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.ready["outbound"].removeprefix("http://").partition(":")
        return host, int(port)

    def arm(self, on: bool = True) -> None:
        """From now on what is patched breaks, or works again."""
        flag = self.folder / "armed"
        flag.touch() if on else flag.unlink()

    async def send(self, kinds: Iterable[str] = KINDS) -> Answers:
        """Every client sends each kind once, in an order of its own."""
        orders = [random.Random(number).sample([*kinds], len([*kinds])) for number in range(CLIENTS)]
        async with asyncio.timeout(60):
            return sum(await asyncio.gather(*(client(*self.address, order) for order in orders)), Counter())

    def metrics(self) -> str:
        return fetched(self.ready["admin"], "/metrics")

    def outcomes(self, sent: int) -> Counter[str]:
        """What became of all that was sent. A failure may be counted just after its answer is out."""

        def so_far() -> Counter[str]:
            return counted(self.metrics(), "cio_proxy_requests_total", "outcome")

        eventually(lambda: so_far().total() >= sent)
        return so_far()

    def degraded(self) -> list[str]:
        parts: list[str] = json.loads(fetched(self.ready["admin"], "/readyz"))["degraded"]
        return parts

    def stop(self) -> str:
        """Stop it as its user does; what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        assert "ada@example.com" not in err
        return err


@asynccontextmanager
async def loaded(folder: Path, *options: str, patch: str | None = None, config: str = CONFIG) -> AsyncIterator[Loaded]:
    """The proxy in front of an upstream that does what the paths say."""
    file = folder / "cio-proxy.yaml"
    file.write_text(config)
    program = None if patch is None else PATCHED % patch
    async with serving(partial(upstream, b"here", b"there")) as port:
        url = ("--upstream", f"http://127.0.0.1:{port}")
        with running(folder, "--config", str(file), *url, *options, program=program) as (process, ready):
            yield Loaded(process, ready, folder)


def each(**statuses: int) -> Answers:
    """Every kind once from every client, with the usual status or the one given."""
    return Counter({(kind, statuses.get(kind, REQUESTS[kind][1])): CLIENTS for kind in KINDS})


def ended(**kinds: str) -> Counter[str]:
    """How these requests are counted: as usual, or as given."""
    endings: Counter[str] = Counter()
    for kind in KINDS:
        endings[kinds.get(kind, REQUESTS[kind][2])] += CLIENTS
    return endings


def reconciled(proxy: Loaded, outcomes: Counter[str]) -> None:
    """What was sent is what was counted, each request once."""
    assert proxy.outcomes(outcomes.total()) == outcomes


async def test_rules_that_raise_are_counted_and_everything_passes(tmp_path: Path) -> None:
    async with loaded(tmp_path, patch=RULES_THAT_RAISE) as proxy:
        proxy.arm()
        assert await proxy.send() == each(refused=200, cut=200)
        reconciled(proxy, ended(refused="forwarded", cut="forwarded"))
        errors = counted(proxy.metrics(), "cio_proxy_rule_errors_total", "rule")
        assert errors["millisecond-timestamp"] == CLIENTS * sum(JUDGED.values())
        assert errors["track-before-identify"] > errors["millisecond-timestamp"], "it has more than one function"
        proxy.arm(on=False)
        assert await proxy.send() == each(), "a rule that works again is heard again"
        assert counted(proxy.metrics(), "cio_proxy_rule_errors_total", "rule") == errors
        err = proxy.stop()
    assert err.count("rule millisecond-timestamp failed: RuntimeError; traffic goes on") == 1


async def test_a_rule_that_does_not_return_is_switched_off_and_everything_passes(tmp_path: Path) -> None:
    stuck = request("POST", "/api/v1/customers/ok/events", b'{"name": "stuck"}')

    async def event() -> bytes:
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(stuck)
        try:
            return (await asyncio.wait_for(read_message(reader), 60))[:12]
        finally:
            writer.close()

    async with loaded(tmp_path, patch=A_RULE_THAT_DOES_NOT_RETURN) as proxy:
        others, *events = await asyncio.gather(proxy.send(), *(event() for _ in range(CLIENTS)))
        assert others == each()
        assert events == [b"HTTP/1.1 200"] * CLIENTS
        reconciled(proxy, ended() + Counter(forwarded=CLIENTS))
        errors = counted(proxy.metrics(), "cio_proxy_rule_errors_total", "rule")
        assert errors == {"inconsistent-event-name": 3, "dynamic-event-name": 1}
        assert proxy.degraded() == ["dynamic-event-name", "inconsistent-event-name"]
        err = proxy.stop()
    assert "rule dynamic-event-name is switched off: it finds nothing" in err
    assert "rule inconsistent-event-name is switched off: it took too long 3 times" in err


async def test_a_store_that_fails_is_counted_shown_and_heals_while_everything_passes(tmp_path: Path) -> None:
    export, facts = tmp_path / "people.csv", f"sqlite:{tmp_path / 'facts.db'}"
    export.write_text("id\nada\n")
    importing = [COMMAND, "people", "import", str(export), "--workspace", SITE, "--facts", facts]
    await asyncio.to_thread(subprocess.run, importing, env=environment(tmp_path), check=True, capture_output=True)
    config = CONFIG + f"facts: {facts}\npeople: complete\nrules:\n  track-before-identify:\n    action: block\n"
    event = request("POST", "/api/v1/customers/somebody/events", b'{"name": "order_placed"}')
    async with loaded(tmp_path, patch=A_DEAD_STORE, config=config) as proxy:
        assert await status(proxy, event) == 400, "everybody is known, but not somebody"
        proxy.arm()
        assert await proxy.send() == each(), "what needs no memory is refused as before"
        assert await status(proxy, event) == 200
        reconciled(proxy, ended() + Counter(blocked=1, forwarded=1))
        errors = metric(proxy.ready, 'cio_proxy_store_errors_total{store="sqlite"}')
        assert errors >= CLIENTS * len(JUDGED)
        assert proxy.degraded() == ["people", "store"]
        proxy.arm(on=False)
        assert await proxy.send() == each()
        async with asyncio.timeout(20):  # what failed is left alone for a second
            while proxy.degraded() != ["people"]:  # the store works again, but may not know everybody
                assert await status(proxy, event) == 200
                await asyncio.sleep(0.2)
        errors = metric(proxy.ready, 'cio_proxy_store_errors_total{store="sqlite"}')
        assert await proxy.send() == each()
        assert metric(proxy.ready, 'cio_proxy_store_errors_total{store="sqlite"}') == errors
        assert await status(proxy, event) == 200, "an identify may have been lost"
        err = proxy.stop()
    assert err.count("store failed, traffic goes on: RuntimeError") == 1


async def status(proxy: Loaded, sent: bytes) -> int:
    """What one request more is answered with."""
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(sent)
    try:
        return int((await asyncio.wait_for(read_message(reader), 20)).split(b" ")[1])
    finally:
        writer.close()


async def test_an_engine_that_fails_lets_everything_pass(tmp_path: Path) -> None:
    async with loaded(tmp_path, patch=A_BROKEN_ENGINE) as proxy:
        proxy.arm()
        assert await proxy.send() == each(refused=200, cut=200)
        passed = dict.fromkeys(("ok", "html", "refused", "cut"), "unaudited")
        reconciled(proxy, ended(**passed))
        assert proxy.degraded() == ["audit"]
        err = proxy.stop()
    assert err.count("audit failed, traffic goes on: RuntimeError") == 1


async def test_an_engine_that_fails_blocks_what_it_should_have_judged_if_that_is_wanted(tmp_path: Path) -> None:
    async with loaded(tmp_path, patch=A_BROKEN_ENGINE, config=CONFIG + "on_error: block\n") as proxy:
        proxy.arm()
        judged = [kind for kind in KINDS if kind in JUDGED]
        assert await proxy.send() == each(**dict.fromkeys(judged, 400))
        reconciled(proxy, ended(**dict.fromkeys(judged, "blocked")))
        assert proxy.degraded() == ["audit"]
        err = proxy.stop()
    assert err.count("audit failed, what it concerns is refused: RuntimeError") == 1


def lines(journal: Path) -> list[dict[str, Any]]:
    """What is in the journal; every line is whole."""
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits the files of another process")
async def test_a_full_disk_drops_lines_that_are_counted_and_heals_while_everything_passes(tmp_path: Path) -> None:
    names = iter([f"{a}{b}{c}_at" for a, b, c in product(ascii_lowercase, repeat=3)])
    journal = tmp_path / "findings.jsonl"
    dropped = 'cio_proxy_dropped_records_total{sink="journal"}'

    async def findings(count: int) -> None:
        """So many findings from each client, each of a kind of its own: that many lines."""

        async def one() -> None:
            reader, writer = await asyncio.open_connection(*proxy.address)
            for _ in range(count):
                late = b'{"email": "a@example.com", "%s": 1700000000000}' % next(names).encode()
                writer.write(identify("ok", late))
                assert (await asyncio.wait_for(read_message(reader), 20)).startswith(b"HTTP/1.1 200")
            writer.close()

        await asyncio.gather(*(one() for _ in range(CLIENTS)))

    def written(sent: int) -> bool:
        """Whether every finding is in the file or counted as missing."""
        return len(lines(journal)) + metric(proxy.ready, dropped) == sent

    async with loaded(tmp_path, "--journal", str(journal)) as proxy:
        _, most = resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, (10_000, most))
        await findings(3)
        await asyncio.to_thread(eventually, lambda: written(3 * CLIENTS))
        before = len(lines(journal))
        assert 0 < before < 3 * CLIENTS
        assert proxy.degraded() == ["journal"]
        resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, (most, most))
        await findings(2)
        await asyncio.to_thread(eventually, lambda: written(5 * CLIENTS))
        assert len(lines(journal)) == before + 2 * CLIENTS
        assert proxy.degraded() == []
        assert counted(proxy.metrics(), "cio_proxy_violations_total", "rule") == {"millisecond-timestamp": 5 * CLIENTS}
        reconciled(proxy, Counter(forwarded=5 * CLIENTS))
        err = proxy.stop()
    assert err.count("traffic goes on, missing lines are counted") == 1


async def switched(proxy: Loaded, turns: Callable[[], None]) -> Counter[str]:
    """Run `turns` in a thread while clients send what is refused or not; then everything adds up. The outcomes."""
    over = asyncio.Event()

    def kinds(number: int) -> Iterator[str]:
        chance = random.Random(number)
        while not over.is_set():
            yield chance.choice(["refused", "cut"])

    async with asyncio.timeout(90):
        clients = [asyncio.create_task(client(*proxy.address, kinds(number))) for number in range(CLIENTS)]
        await asyncio.to_thread(turns)
        over.set()
        answers: Answers = sum(await asyncio.gather(*clients), Counter())
    outcomes = proxy.outcomes(answers.total())
    actions = counted(proxy.metrics(), "cio_proxy_violations_total", "action")
    assert outcomes["blocked"] == answers["refused", 400] > 0
    assert outcomes["partial"] == answers["cut", 207] > 0
    assert outcomes["forwarded"] + outcomes["unaudited"] == answers["refused", 200] + answers["cut", 200] > 0
    assert outcomes.total() == answers.total()
    assert actions == +Counter(blocked=outcomes["blocked"] + outcomes["partial"], would_block=outcomes["forwarded"]), (
        "each of these has one finding, unless nobody looked at it"
    )
    return outcomes


async def test_reloads_lose_nothing_and_broken_ones_change_nothing(tmp_path: Path) -> None:
    async with loaded(tmp_path) as proxy:

        def read(fine: bool) -> bool:
            return metric(proxy.ready, "cio_proxy_config_last_reload_successful") == fine

        def turns() -> None:
            for turn in range(6):
                fine = turn % 2 == 1
                wanted = ("observe", "enforce", "observe")[turn // 2]
                (tmp_path / "cio-proxy.yaml").write_text(f"enforcement: {wanted}\n" if fine else "enforcement: [\n")
                proxy.process.send_signal(signal.SIGHUP)
                eventually(partial(read, fine))
                if fine:
                    acts(proxy, {"observe": "would_block", "enforce": "blocked"}[wanted])

        outcomes = await switched(proxy, turns)
        assert outcomes["unaudited"] == 0
        err = proxy.stop()
    assert err.count("configuration reloaded") == 3
    assert err.count("not reloaded, the configuration in force stays: ") == 3


async def test_the_kill_switch_loses_nothing(tmp_path: Path) -> None:
    async with loaded(tmp_path) as proxy:
        token = (tmp_path / "cio-proxy" / "admin.token").read_text().strip()

        def turns() -> None:
            for turn in range(6):
                wanted = ("bypass", "observe", "enforce")[turn % 3]
                change = urllib.request.Request(
                    proxy.ready["admin"] + "/api/enforcement",
                    json.dumps({"enforcement": wanted}).encode(),
                    {"Authorization": f"Bearer {token}"},
                )
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(change, timeout=20).close()
                acts(proxy, {"bypass": "unaudited", "observe": "would_block", "enforce": "blocked"}[wanted])

        outcomes = await switched(proxy, turns)
        assert outcomes["unaudited"] > 0
        proxy.stop()


def acts(proxy: Loaded, what: str) -> None:
    """Wait until more requests were treated so."""

    def so_far() -> int:
        exposition = proxy.metrics()
        actions = counted(exposition, "cio_proxy_violations_total", "action")
        return (actions + counted(exposition, "cio_proxy_requests_total", "outcome"))[what]

    before = so_far()
    eventually(lambda: so_far() > before)
