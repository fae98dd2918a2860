"""`cio-proxy people`: what an import teaches, and what the proxy says it knows; nobody is ever named."""

import asyncio
import gzip
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cio_proxy import people, state
from cio_proxy.audit import Engine, Sealer, sealed_with
from cio_proxy.cli import main
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.exports import Bad, Row
from cio_proxy.facts import workspace
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.people import told
from cio_proxy.facts.sqlite import SqliteStore
from cio_proxy.model import DELETED, HAS_EMAIL, IDENTIFIED, Exchange, Fact, Key, Settings, Span, WorkspaceSettings
from cio_proxy.rules import RULES

from .conftest import COMMAND, environment

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
BASIC = "Basic ZjgyYWQ3OGY2OTViZDMyZjlkOTk6YTEzYzk1YTBiYzQ0ZDlmMDFlMjc="
SEAL = sealed_with(b"k" * 32)
NOW = 1_750_000_000.0
EXPORT = "id,email,cio_id\n42,Ada@Example.com,a3000001\n43,,a3000002\n"


class Line:
    """A command line over one state folder and one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "facts"

    def __call__(self, *arguments: str, given: bytes = b"", code: int = 0, **variables: Any) -> tuple[str, str]:
        """What a command writes to stdout and stderr, in this process: starting one is most of the work."""
        environ = environment(self.folder) | {"CIO_PROXY_FACTS": f"sqlite:{self.store}"} | variables
        unset = dict.fromkeys(os.environ.keys() - environ.keys())
        done = CliRunner(env=unset | environ).invoke(main, arguments, given, prog_name="cio-proxy")
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        out, err = done.stdout, done.stderr
        return out, err

    def file(self, name: str, content: str | bytes, made: float | None = None) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if made is not None:
            os.utime(path, (made, made))
        return str(path)

    def teach(self, *facts: Fact) -> None:
        """Put facts about workspaces into the store."""

        async def taught() -> None:
            store = SqliteStore(self.store, 200_000)
            await store.join_many(facts, (), time.time())
            await store.close()

        asyncio.run(taught())

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self("people", "status", "--json")[0])
        return told


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def exchange(method: str, path: str, body: object, at: float = NOW) -> Exchange:
    return Exchange(
        id=f"{at}",
        at=at,
        method=method,
        target=path.encode(),
        host="track.customer.io",
        headers=((b"Authorization", BASIC.encode()),),
        body=json.dumps(body).encode(),
    )


async def found(store: MemoryStore, *exchanges: Exchange) -> list[str]:
    settings = Settings(people="complete", workspaces={"shop": WorkspaceSettings(site_ids=(SITE,))})
    sent = [(each, Recorded(each.at, 200, b"{}")) for each in exchanges]
    return [finding.rule for finding in await audit_recorded(sent, Engine(settings, RULES, SEAL), store=store)]


# --- what is taught ----------------------------------------------------------------------------


async def test_whoever_is_in_the_export_is_known_and_nobody_else() -> None:
    store = MemoryStore()
    exported = [Row(2, ("id:42", "email:ada@example.com", "cio_id:a3"), True)]
    await people.told(store, exported, "shop", SEAL, made=NOW - 60, now=lambda: NOW)
    event = {"name": "order_placed"}
    assert await found(store, exchange("POST", "/api/v1/customers/42/events", event)) == []
    assert await found(store, exchange("POST", "/api/v1/customers/Ada@Example.com/events", event)) == []
    fresh = {"created_at": int(NOW)}
    assert await found(store, exchange("PUT", "/api/v1/customers/42", fresh)) == []
    assert await found(store, exchange("POST", "/api/v1/customers/44/events", event)) == ["track-before-identify"]
    assert await found(store, exchange("PUT", "/api/v1/customers/45", fresh)) == ["missing-email"]


async def test_an_import_teaches_what_the_engine_would() -> None:
    imported, watched = MemoryStore(), MemoryStore()
    await people.told(imported, [Row(2, ("id:42", "email:a@b.c"), True)], "shop", SEAL, made=NOW, now=lambda: NOW)
    await found(watched, exchange("PUT", "/api/v1/customers/42", {"email": "A@b.c"}))
    for kind in (IDENTIFIED, HAS_EMAIL):
        keys = [{key async for key, _ in store.scan(kind)} for store in (imported, watched)]
        assert len(keys[0]) == 2
        assert keys[0] == keys[1]


async def test_after_a_loss_complete_counts_again_only_once_a_later_export_is_imported() -> None:
    store = MemoryStore()
    await store.join_many([workspace.seen("shop", NOW - 900), workspace.lost("shop", NOW - 600)], (), NOW)
    person: list[Row | Bad] = [Row(2, ("id:42",), False)]
    earlier = await people.told(store, person, "shop", SEAL, made=NOW - 700, now=lambda: NOW)
    assert not earlier.complete
    unread = await people.told(store, [*person, Bad(3, "not UTF-8")], "shop", SEAL, made=NOW - 500, now=lambda: NOW)
    assert not unread.complete
    nobody = await people.told(store, [Bad(3, "no identifier", lost=False)], "shop", SEAL, made=NOW, now=lambda: NOW)
    assert not nobody.complete
    harmless = [*person, Bad(3, "no identifier", lost=False)]
    assert (await people.told(store, harmless, "shop", SEAL, made=NOW - 500, now=lambda: NOW)).complete


async def test_what_is_evicted_by_its_own_import_is_not_called_complete() -> None:
    store = MemoryStore(limit=50)
    everybody = [Row(number, (f"id:{number}",), False) for number in range(5_000)]
    done = await people.told(store, everybody, "shop", SEAL, made=NOW - 1, now=lambda: NOW)
    assert done.people == 5_000
    assert not done.complete


async def test_importing_twice_changes_nothing() -> None:
    once, twice = MemoryStore(), MemoryStore()
    person = Row(2, ("id:42", "cio_id:a3"), True)
    for store, exports in ((once, [[person]]), (twice, [[person, person], [person]])):
        for export in exports:
            await people.told(store, export, "shop", SEAL, made=NOW, now=lambda: NOW)
    assert [each async for each in once.scan(IDENTIFIED)] == [each async for each in twice.scan(IDENTIFIED)]


async def test_the_deleted_do_not_count_as_known_unless_they_were_exported_later() -> None:
    store = MemoryStore()
    keys = [Sealer(SEAL).key(Key(DELETED, "shop", f"id:{number}")) for number in (1, 2)]
    await store.join_many([Fact(keys[0], Span(50, 50), 600), Fact(keys[1], Span(150, 150), 600)], (), 150)
    exported = [Row(number, (f"id:{number}",), False) for number in (1, 2, 3)]
    await people.told(store, exported, "shop", SEAL, made=100, now=lambda: 200)
    (standing,) = await people.standings(store, 300)
    assert standing.identifiers == 2


def test_a_facts_subject_is_as_it_is_sealed() -> None:
    assert [fact.key for fact in told("shop", ["0f"], True, NOW)] == [
        Key(IDENTIFIED, "shop", "0f"),
        Key(HAS_EMAIL, "shop", "0f"),
    ]


# --- whose people ------------------------------------------------------------------------------

SHOPS = Settings(workspaces={"shop": WorkspaceSettings(site_ids=(SITE,)), "lab": WorkspaceSettings()})


@pytest.mark.parametrize(
    ("name", "known", "settings", "wanted"),
    [
        ("lab", [], SHOPS, "lab"),
        (SITE, [], SHOPS, "shop"),
        (KEY, [], SHOPS, SEAL(f"site:{KEY}")),
        (SITE, [], Settings(), SEAL(f"site:{SITE}")),
        ("short", [SEAL("site:short")], Settings(), SEAL("site:short")),
        ("0123456789abcdef", ["0123456789abcdef"], Settings(), "0123456789abcdef"),
        (None, ["", "0123456789abcdef"], Settings(), "0123456789abcdef"),
        (None, ["x"], Settings(workspaces={"lab": WorkspaceSettings()}), "lab"),
    ],
)
def test_a_workspace_is_named_as_the_engine_names_it(
    name: str | None, known: list[str], settings: Settings, wanted: str
) -> None:
    assert people.named(name, known, settings, SEAL) == wanted


@pytest.mark.parametrize(
    ("name", "known", "settings", "message"),
    [
        ("shpo", [], SHOPS, "did you mean 'shop'?"),
        ("nothing", ["x"], Settings(), "known are: x"),
        (None, ["x"], SHOPS, "give --workspace a name or a Track site id; known are: shop, lab, x"),
        (None, [""], Settings(), "known are: none yet"),
    ],
)
def test_it_is_said_which_workspaces_there_are(
    name: str | None, known: list[str], settings: Settings, message: str
) -> None:
    with pytest.raises(people.Unnamed, match=re.escape(message)):
        people.named(name, known, settings, SEAL)


# --- the command line --------------------------------------------------------------------------


def test_an_import_and_its_status_name_nobody(line: Line) -> None:
    out, err = line("people", "import", line.file("people.csv", EXPORT, NOW), "--workspace", SITE)
    name = sealed_with(state.hash_key(line.folder / "cio-proxy"))(f"site:{SITE}")
    assert out == f"2 people with 5 identifiers are known in workspace {name}\n"
    assert err == ""
    written = line.store.read_bytes()
    told = out + line("people", "status")[0]
    for personal in ("Ada", "ada@", "a3000001", "id:42"):
        assert personal not in told
        assert personal.encode() not in written
    assert line.status() == {
        "schema": 1,
        "people": "partial",
        "workspaces": [
            {
                "workspace": name,
                "identifiers": 5,
                "since": None,
                "lost": None,
                "imported": "2025-06-15T15:06:40Z",
                "complete": True,
            }
        ],
    }


def test_status_says_since_when_what_was_lost_and_whether_complete_counts(line: Line) -> None:
    missing = f"facts: {line.store} is not there: no proxy has kept facts in it yet\n"
    assert line("people", "status", code=3) == ("", missing)
    assert not list(line.folder.iterdir()), "nothing is made by asking"
    line.teach()
    assert line("people", "status")[0] == "nothing is known yet: no traffic was seen, and nothing was imported\n"
    line.teach(workspace.seen("shop", NOW - 600))
    assert "does not count: its people were never imported" in line("people", "status", CIO_PROXY_UPSTREAM="live")[0]
    assert "would count" in line("people", "status")[0], "the sandbox begins with nobody"
    line.teach(workspace.imported("shop", NOW - 300), workspace.lost("shop", NOW - 60))
    status = line("people", "status")[0]
    assert "workspace shop\n" in status
    assert "since 2025-06-15T14:56:40Z" in status
    assert "last at 2025-06-15T15:05:40Z" in status
    assert "does not count: facts were lost after the last export" in status
    line("people", "import", line.file("people.csv", EXPORT, NOW))
    assert "would count, but the configuration says people: partial" in line("people", "status")[0]
    status = line("people", "status", CIO_PROXY_PEOPLE="complete")[0]
    assert "5 identifiers of people" in status
    assert "an export of 2025-06-15T15:06:40Z" in status
    assert "counts: who is unknown is a fault" in status


def test_an_export_older_than_the_last_loss_is_learned_and_said_to_be_too_old(line: Line) -> None:
    line.teach(workspace.seen("shop", NOW - 600), workspace.lost("shop", NOW - 60))
    _, err = line("people", "import", line.file("people.csv", EXPORT, NOW - 90))
    assert err == "`people: complete` does not count: facts were lost since the export; import a newer one\n"
    options = ("--exported", "2025-06-15T15:06:00Z")
    assert line("people", "import", str(line.folder / "people.csv"), *options)[1] == ""


def test_standard_input_compressed_lines_are_read_for_a_configured_workspace(line: Line) -> None:
    config = line.file("c.yaml", f"workspaces:\n  shop:\n    site_ids: [{SITE}]\n")
    lines = gzip.compress(b'{"id": 1}\n{"id": 2}\n')
    assert line("people", "import", "-", "--config", config, given=lines)[0] == (
        "2 people with 2 identifiers are known in workspace shop\n"
    )
    (standing,) = line.status()["workspaces"]
    assert (
        abs(time.time() - time.mktime(time.strptime(standing["imported"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60
    )


def test_bad_rows_are_told_by_their_line_then_counted(line: Line) -> None:
    file = line.file("people.csv", "id,email\n1,a@b.c\n" + "ada@example.com\n" * 30)
    out, err = line("people", "import", file, "--workspace", SITE, code=1)
    assert out.startswith("1 people with 2 identifiers")
    told = err.splitlines()
    assert told[0] == f"{file}:3: skipped: 1 fields where the header has 2"
    assert told[20:] == [
        f"{file}: skipped 10 more",
        "somebody may be among the rows that were skipped: mend them and import again",
    ]
    assert "ada@" not in err


def test_where_nobody_is_found_the_exit_code_is_3(line: Line) -> None:
    file = line.file("people.csv", "id,email\n,\n")
    assert line("people", "import", file, "--workspace", SITE, code=3)[1].splitlines() == [
        f"{file}:2: skipped: no identifier",
        f"{file}: no row names a person",
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "name,plan\nx,y\n",
            ("--workspace", SITE),
            "{file}: the columns are name, plan; wanted are id, email or cio_id",
        ),
        (None, ("--workspace", SITE), "{file}: no such file or directory; give a readable file"),
        (EXPORT, (), "give --workspace a name or a Track site id; known are: none yet"),
        (
            EXPORT,
            ("--workspace", SITE, "--exported", "soon"),
            "--exported: not a time: write 2027-01-31T18:00:00Z or 2027-01-31",
        ),
        (
            EXPORT,
            ("--workspace", SITE, "--exported", "2999-01-31"),
            "--exported: a time to come: write when the export was made",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(
    line: Line, content: str | None, options: tuple[str, ...], message: str
) -> None:
    file = str(line.folder / "none.csv") if content is None else line.file("people.csv", content)
    out, err = line("people", "import", file, *options, code=2)
    assert (out, err) == ("", message.format(file=file) + "\n")


def test_a_redis_that_cannot_be_reached_is_one_line_without_its_password(line: Line) -> None:
    key = line.folder / "hash.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    variables: dict[str, Any] = {"CIO_PROXY_FACTS": "redis://:hidden@127.0.0.1:1", "CIO_PROXY_HASH_KEY_FILE": str(key)}
    export = line.file("people.csv", EXPORT)
    for arguments in (["people", "status"], ["people", "import", export, "--workspace", SITE], ["plan", "learn"]):
        out, err = line(*arguments, code=2, **variables)
        assert out == ""
        assert err.startswith("facts: redis://***@127.0.0.1:1 cannot be used now: ")
        assert err.count("\n") == 1
        assert "hidden" not in err


def test_what_was_lost_of_all_workspaces_is_no_workspace(line: Line) -> None:
    line.teach(workspace.seen("shop", NOW), workspace.lost_everywhere(NOW))
    assert [each["workspace"] for each in line.status()["workspaces"]] == ["shop"]


def test_facts_that_end_with_the_process_are_refused(line: Line) -> None:
    for arguments in (["import", line.file("people.csv", EXPORT)], ["status"]):
        done = subprocess.run(
            [COMMAND, "people", *arguments], env=environment(line.folder), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert (
            done.stderr
            == "facts: memory ends with the process that keeps it; set facts to sqlite:PATH or redis://HOST\n"
        )


def test_a_terminal_sees_how_far_an_import_is(line: Line) -> None:
    file = line.file("people.csv", "id\n" + "".join(f"{number}\n" for number in range(3_000)))
    leader, follower = pty.openpty()
    arguments = [COMMAND, "people", "import", file, "--workspace", SITE, "--facts", f"sqlite:{line.store}"]
    environ = environment(line.folder) | {"TERM": "xterm"}
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=follower) as process:
        out, _ = process.communicate(timeout=60)
    os.close(follower)
    shown = b""
    while sys.platform != "win32":
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert b"3,000 people" in shown
    assert out.startswith(b"3,000 people with 3,000 identifiers")


@pytest.mark.parametrize("words", ["people import --workspace s", "plan learn --workspace s"])
def test_a_shell_completes_the_names_of_workspaces(line: Line, words: str) -> None:
    config = line.file("c.yaml", f"workspaces:\n  shop: {{site_ids: [{SITE}]}}\n  lab: {{site_ids: [{KEY}]}}\n")
    completion: dict[str, Any] = {
        "_CIO_PROXY_COMPLETE": "bash_complete",
        "COMP_WORDS": f"cio-proxy {words}",
        "COMP_CWORD": "4",
    }
    assert line(CIO_PROXY_CONFIG=config, **completion)[0] == "plain,shop\n"
    broken = line.file("c.yaml", "workspaces: 1\n")
    assert line(CIO_PROXY_CONFIG=broken, **completion)[0] == "\n"


async def test_what_was_lost_of_every_workspace_counts_for_each_until_a_later_export() -> None:
    store = MemoryStore()
    await store.join_many([workspace.seen("shop", NOW - 90), workspace.lost_everywhere(NOW)], (), NOW)
    (standing,) = await people.standings(store, NOW)
    assert (standing.since, standing.lost, standing.imported, standing.complete) == (NOW - 90, NOW, None, False)
    rows = [Row(2, ("id:42",), False)]
    assert not (await people.told(store, rows, "shop", SEAL, made=NOW - 1, now=lambda: NOW)).complete
    assert (await people.told(store, rows, "shop", SEAL, made=NOW + 1, now=lambda: NOW + 2)).complete
    (standing,) = await people.standings(store, NOW + 2)
    assert (standing.lost, standing.imported, standing.complete) == (NOW, NOW + 1, True)
