"""The baseline: what it accepts never blocks, what is new does; and its file can be reviewed and merged."""

import json
import os
import stat
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.baseline import HEAD, MISTAKES, Baseline, BaselineError, Entry, entry, parsed, read, seen, write
from cio_proxy.cli import greeting, main
from cio_proxy.completing import SHOWN
from cio_proxy.config import ConfigError, load, overlay, written
from cio_proxy.examples import read as examples_in
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Exemption, Finding, RuleSettings, Settings
from cio_proxy.policy import accepted
from cio_proxy.rules import RULES, Rule
from cio_proxy.selftest import played
from cio_proxy.sinks.record import encode, record

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"
INFOS = [rule.info for rule in RULES]
BLOCK_ALL = Settings(
    enforcement="enforce",
    block="possible",
    rules={info.id: RuleSettings(action="block") for info in INFOS if "block" in info.actions},
)
LATE = ("PUT", "/api/v1/customers/42", {"email": "ada@example.com", "created_at": 1700000000000})
SPACED = ("POST", "/api/v1/customers/42/events", {"name": "Order placed"})


def found(
    *sent: tuple[str, str, Any], settings: Settings = BLOCK_ALL, key: bytes = b"k" * 32, pair: str = f"{SITE}:{KEY}"
) -> list[Finding]:
    """The findings of some requests, each judged alone."""
    engine = Engine(settings, RULES, sealed_with(key))
    findings: list[Finding] = []
    for method, path, body in sent:
        exchange = Exchange(
            id="e",
            at=1.75e9,
            method=method,
            target=path.encode(),
            host="track.customer.io",
            headers=((b"Authorization", b"Basic " + b64encode(pair.encode())),),
            body=json.dumps(body).encode(),
        )
        findings += engine.judge(engine.open(exchange), Reading()).findings
    return findings


def journal(findings: Iterable[Finding]) -> list[bytes]:
    return [encode(record(finding)) for finding in findings]


def of(*findings: Finding) -> Baseline:
    return Baseline(entries=seen(journal(findings)).entries)


def actions(findings: Iterable[Finding]) -> list[str]:
    return [finding.action for finding in findings]


# --- the policy --------------------------------------------------------------------------------


def test_what_is_in_the_baseline_never_blocks_and_what_is_new_still_does() -> None:
    known = found(LATE)
    assert actions(known) == ["blocked"]
    settings = replace(BLOCK_ALL, baselined=of(*known).fingerprints)
    assert actions(found(LATE, settings=settings)) == ["baselined"]
    assert actions(found(SPACED, settings=settings)) == ["blocked"]
    both = {**LATE[2], "deleted_at": 1700000000000}
    assert sorted(actions(found((*LATE[:2], both), settings=settings))) == ["baselined", "blocked"]


def test_an_exemption_goes_before_the_baseline() -> None:
    known = of(*found(LATE)).fingerprints
    exemption = Exemption(rule="millisecond-timestamp", reason="known", pointer="/created_at")
    settings = replace(BLOCK_ALL, baselined=known, exemptions=(exemption,))
    assert actions(found(LATE, settings=settings)) == ["exempt"]


@pytest.mark.parametrize("taken", ["logged", "would_block", "blocked", "baselined"])
def test_whatever_the_thresholds_say_the_baseline_has_the_word_after_the_exemptions(taken: Any) -> None:
    assert accepted(taken, "a", frozenset("a")) == "baselined"
    assert accepted(taken, "b", frozenset("a")) == taken
    assert accepted("exempt", "a", frozenset("a")) == "exempt"


def test_a_batch_is_cut_only_by_what_is_new() -> None:
    items = [
        {"type": "person", "identifiers": {"id": "1"}, "action": "identify", "attributes": {name: 1700000000000}}
        for name in ("created_at", "deleted_at")
    ]
    batch = ("POST", "/api/v2/batch", {"batch": items})
    known = [each for each in found(batch) if each.item == 0]
    settings = replace(BLOCK_ALL, baselined=of(*known).fingerprints)
    taken = {each.item: each.action for each in found(batch, settings=settings)}
    assert taken == {0: "baselined", 1: "blocked"}


@pytest.mark.parametrize("rule", RULES, ids=[rule.info.id for rule in RULES])
async def test_the_same_traffic_again_is_baselined_whole(rule: Rule) -> None:
    """Findings of a call, of its answer and of a deadline, in a file that was written and read."""
    for example in examples_in(rule.examples):
        settings = overlay(replace(BLOCK_ALL, report="possible"), dict(example.config), rules=INFOS)
        first = await played(example, Engine(settings, RULES, sealed_with(b"k" * 32)))
        known = parsed(of(*first).text, "f")
        assert known.fingerprints == {each.fingerprint for each in first}
        again = await played(example, Engine(replace(settings, baselined=known.fingerprints), RULES, sealed_with(b"k")))
        # An item that is not refused any more may show what its refusal hid, and teach what a refused one does not.
        assert {each.action for each in again if each.fingerprint in known.fingerprints} <= {"baselined"}
        if not any(each.action == "blocked" for each in first):
            assert actions(again) == ["baselined"] * len(first)


# --- what is in it -----------------------------------------------------------------------------


def test_an_entry_can_be_read_and_has_neither_position_nor_variable_part() -> None:
    body = {"batch": [{}, {"type": "person", "identifiers": {"id": "1"}, "action": "event", "name": "Paid 47114 now"}]}
    lines = {each.line for each in of(*found(("POST", "/api/v2/batch", body))).entries}
    shape = 'inconsistent-event-name /api/v2/batch /batch/*/name "Paid <number> now" '
    assert sum(line.startswith(shape) for line in lines) == 1, lines


def test_no_personal_value_no_secret_and_no_keyed_hash_is_in_it() -> None:
    mail, phone = "ada.lovelace@example.com", "+4915112345678"
    sent: Sequence[tuple[str, str, Any]] = [
        ("PUT", f"/api/v1/customers/{mail}", {"email": mail, f"seen_{phone}_at": 1700000000000, f"by_{mail}": KEY}),
        ("POST", f"/api/v1/customers/{mail}/events", {"name": f"Mailed {mail}"}),
        ("POST", "/api/v1/customers/42/events", {"name": f"Called {phone}", "data": {mail: {KEY: 1700000000000}}}),
        ("POST", f"/api/v1/{mail}", {}),
    ]
    one, other = (found(*sent, key=key * 32) for key in (b"a", b"b"))
    assert {each.person for each in one}.isdisjoint(each.person for each in other if each.person)
    text = of(*one).text
    assert text == of(*other).text, "another hash key is another machine"
    assert len(text.splitlines()) >= len(HEAD) + 5
    for value in (mail, "ada", phone, phone[3:], KEY, SITE):
        assert value not in text
    for finding in one:
        for sealed in (finding.person, finding.workspace):
            assert sealed is None or sealed not in text


def test_a_journal_with_values_gives_the_same_file_without_them() -> None:
    names = ("Mailed ada@example.com", "Called (555) 123-4567")
    sent = [LATE, *(("POST", "/api/v1/customers/42/events", {"name": name}) for name in names)]
    shown = found(*sent, settings=replace(BLOCK_ALL, show_values=True))
    assert all(name.encode() in b"".join(journal(shown)) for name in names)
    assert of(*shown) == of(*found(*sent))
    assert not any(name in of(*shown).text for name in names)


def test_what_only_a_value_tells_apart_is_left_out_and_counted() -> None:
    """A password is masked where it is the request's own, which a journal with values does not say."""
    sent = ("POST", "/api/v1/customers/42/events", {"name": "Sent by correcthorsebattery"})
    told = seen(journal(found(sent, settings=replace(BLOCK_ALL, show_values=True), pair=f"{SITE}:correcthorsebattery")))
    assert told.untold == len(told.fingerprints - {each.fingerprint for each in told.entries}) == 1
    assert all("correct" not in each.line for each in told.entries)


def test_a_long_pointer_is_in_it_as_far_as_it_is_shown() -> None:
    findings = found(("PUT", "/api/v1/customers/42", {"email": "ada@example.com", "a" * 400 + "_at": 1700000000000}))
    late = next(each for each in findings if each.rule == "millisecond-timestamp")
    (kind,) = of(late).entries
    assert kind.fingerprint == late.fingerprint
    assert len(kind.pointer) == SHOWN + 1


def test_what_is_exempt_is_left_out_and_yet_shown() -> None:
    (late,) = found(LATE)
    told = seen(journal([replace(late, action="exempt")]))
    assert told.entries == frozenset()
    assert told.fingerprints == {late.fingerprint}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"rule": "a',
        b"\xff",
        b"[" * 100_000,
        b'{"rule":"a","endpoint":"","pointer":"","name":[],"fingerprint":"b","action":"logged"}',
        b'{"rule":1,"endpoint":"","pointer":"","name":null,"fingerprint":"b","action":"logged"}',
        b'{"rule":"a","endpoint":"","pointer":"","name":null,"fingerprint":"b","action":["x"]}',
    ],
    ids=lambda line: line[:20].decode("latin-1"),
)
def test_a_line_that_is_no_finding_is_counted_and_the_others_are_read(line: bytes) -> None:
    told = seen([line, *journal(found(LATE)), line])
    assert len(told.entries) == 1
    assert told.unread == (2 if line else 0)


# --- the file ----------------------------------------------------------------------------------

texts = st.text(st.characters(codec=None), max_size=12) | st.text(
    '"\\# \t\r\n\0…é\u202e\u2028\ufeff🙂/*<>=', max_size=8
)
entries = st.builds(Entry, st.from_regex(r"[a-z]{1,8}(-[a-z]{1,8}){0,2}", fullmatch=True), texts, texts, texts)
comments = st.lists(st.text("ab #é", max_size=8).map(lambda text: f"#{text}".rstrip()), max_size=3)
baselines = st.builds(Baseline, comments.map(tuple), st.frozensets(entries, max_size=6))


@given(baselines)
def test_what_is_written_is_read_back(one: Baseline) -> None:
    text = one.text
    assert parsed(text, "f") == one
    assert parsed(text.encode("utf-8").decode("utf-8"), "f").text == text


@given(baselines, baselines, st.randoms())
def test_two_files_merge_as_the_union_of_their_lines(one: Baseline, other: Baseline, random: Any) -> None:
    lines = (one.text + other.text).splitlines(keepends=True)
    random.shuffle(lines)
    merged = parsed("".join(lines), "f")
    assert merged.entries == one.entries | other.entries
    union = sorted({line for line in lines if not line.startswith("#")})
    assert replace(merged, head=()).text == "".join(union)
    assert [line.encode() for line in union] == sorted(line.encode() for line in union), "as `sort` would have them"


@given(entries, st.integers(0, 3), texts)
def test_no_column_can_be_changed_unseen(one: Entry, column: int, text: str) -> None:
    changed = one._replace(**{Entry._fields[column]: text})
    line = changed.line.rpartition(" ")[0] + f" {one.fingerprint}\n"
    if changed.fingerprint != one.fingerprint:
        with pytest.raises(BaselineError):
            parsed(line, "f")


@given(entries)
def test_a_line_is_one_line_without_hidden_characters(one: Entry) -> None:
    line = one.line
    assert line.splitlines() == [line]
    assert not {"\0", "\x1b", "\u202e", "\u200b", "\ufeff", "\u00a0"}.intersection(line)
    line.encode()


@given(st.text(max_size=60))
def test_any_file_is_read_or_refused_in_plain_lines(text: str) -> None:
    try:
        again = parsed(parsed(text, "f").text, "f")
    except BaselineError as error:
        lines = str(error).split("\n")
    else:
        lines = []
        assert again == parsed(text, "f")
    assert all(line.isprintable() and line.startswith("f:") for line in lines)


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_line_end_are_read(tmp_path: Path) -> None:
    known, file = of(*found(LATE, SPACED)), tmp_path / "b"
    file.write_bytes(b"\xef\xbb\xbf" + known.text.rstrip().replace("\n", "\r\n").encode())
    assert read(file) == known


LINE = entry("millisecond-timestamp", "/v1/x", "/created_at", None).line


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("<<<<<<< HEAD", "a merge conflict; keep the lines of both sides and take out the markers"),
        (">>>>>>> other", "a merge conflict; keep the lines of both sides and take out the markers"),
        ("=======", "a merge conflict; keep the lines of both sides and take out the markers"),
        ("later", "not an entry (rule, endpoint, pointer, name, fingerprint); take it out, or put # before it"),
        (LINE + " x", "not an entry (rule, endpoint, pointer, name, fingerprint); take it out, or put # before it"),
        (LINE[:-1], "not an entry (rule, endpoint, pointer, name, fingerprint); take it out, or put # before it"),
        (LINE.replace('""', r'"\x"'), "what is in quotes is not written as in JSON; take the line out"),
        (
            LINE.replace("/created_at", "/*"),
            "the fingerprint is not that of the other columns; entries are not edited:",
        ),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_what_to_do(line: str, mistake: str) -> None:
    with pytest.raises(BaselineError) as caught:
        parsed(f"# mine\n\n{LINE}\n{line}\n{LINE}\n", "f")
    assert str(caught.value).startswith(f"f:4: {mistake}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_a_few_lines_not_thousands() -> None:
    with pytest.raises(BaselineError) as caught:
        parsed("ada@example.com\n" * 1000, "f")
    lines = str(caught.value).split("\n")
    assert lines[MISTAKES:] == ["f: 995 more lines are wrong; is this a baseline?"]
    assert "ada@" not in str(caught.value)


def test_a_file_is_replaced_whole_or_stays_and_keeps_who_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    write(link, Baseline())
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    real.chmod(0o600)
    write(link, of(*found(LATE)))
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    before = real.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(link, of(*found(SPACED)))
    assert real.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


# --- the configuration -------------------------------------------------------------------------


def test_the_configuration_names_the_file_and_holds_its_fingerprints(tmp_path: Path) -> None:
    file, config = tmp_path / "accepted", tmp_path / "c.yaml"
    write(file, known := of(*found(LATE)))
    config.write_text(f"baseline: {file}\n")
    settings = load(config, {}, {}, rules=INFOS).settings
    assert (settings.baseline, settings.baselined) == (str(file), known.fingerprints)
    assert f"baseline: {file}\n" in written(settings, INFOS)
    assert load(None, {"CIO_PROXY_BASELINE": str(file)}, {}, rules=INFOS).settings == settings
    assert load(config, {}, {}, rules=INFOS, baselined=False).settings == replace(settings, baselined=frozenset())


def test_the_operator_is_told_of_it_at_the_start() -> None:
    ready = {"outbound": "http://127.0.0.1:8080", "inbound": None, "explicit": None, "admin": "http://127.0.0.1:9180"}
    lines = list(greeting(ready, Settings(baseline="accepted", baselined=frozenset({"a", "b"}))))
    assert lines[-1] == "kinds of findings that the baseline accepted accepts: 2"
    assert len(list(greeting(ready, Settings()))) == len(lines) - 1


def test_a_mistake_in_the_file_is_one_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "accepted"
    environ = {"CIO_PROXY_BASELINE": str(file), "CIO_PROXY_PEOPLE": "x"}
    for content, mistake in (
        (None, f"baseline {file}: no such file; `cio-proxy baseline {file}` makes it"),
        (b"\xff", f"baseline {file}: not UTF-8 text; name a file that `cio-proxy baseline` wrote"),
        (
            b"x\n",
            f"{file}:1: not an entry (rule, endpoint, pointer, name, fingerprint); take it out, or put # before it",
        ),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(None, environ, {}, rules=INFOS)
        assert str(caught.value).split("\n") == ["CIO_PROXY_PEOPLE: not one of partial, complete", mistake]
    with pytest.raises(ConfigError, match="is a directory; name a readable file"):
        load(None, {"CIO_PROXY_BASELINE": str(tmp_path)}, {}, rules=INFOS)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command in a folder of its own, with `findings.jsonl` to read from unless told otherwise."""
    for name in list(os.environ):
        if name.startswith("CIO_PROXY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["baseline", *arguments], catch_exceptions=False)

    return invoke


FROM = ("accepted", "--from", "findings.jsonl")


def test_a_journal_and_what_it_was_rotated_to_is_added(run: Any) -> None:
    late, spaced = found(LATE), found(SPACED)
    Path("findings.jsonl").write_bytes(b"".join(journal(late)))
    Path("findings.jsonl.1").write_bytes(b"".join(journal(late)) + b'{"half')
    Path("findings.jsonl.2").write_bytes(b"".join(journal(spaced)))
    done = run(*FROM)
    assert done.exit_code == 0
    known = of(*late, *spaced)
    assert Path("accepted").read_text() == known.text
    added = [f"+ {line}" for line in known.text.splitlines()[len(HEAD) :]]
    assert done.stdout.splitlines() == [*added, f"accepted: {len(added)} added, {len(added)} in all"]
    assert done.stderr == "lines that are no findings, left out: 1\n"
    before = Path("accepted").stat()
    assert run(*FROM).stdout == f"accepted: 0 added, {len(added)} in all\n"
    assert Path("accepted").stat() == before, "nothing changed, so nothing was written"


def test_comments_stay_and_nothing_is_taken_out_by_adding(run: Any) -> None:
    Path("findings.jsonl").write_bytes(b"".join(journal(found(LATE))))
    old = of(*found(SPACED)).text.splitlines()[len(HEAD) :]
    Path("accepted").write_text("\n".join(["# ours", "", "# until spring", *old, "# the shop", ""]))
    assert run(*FROM).exit_code == 0
    lines = Path("accepted").read_text().splitlines()
    assert lines[:4] == ["# ours", "", "# until spring", "# the shop"]
    assert set(old) < set(lines)
    assert lines[4:] == sorted(lines[4:])
    assert len(lines[4:]) == len(old) + 1


def test_prune_takes_out_what_is_gone_adds_nothing_and_can_be_tried(run: Any) -> None:
    late, spaced = found(LATE), found(SPACED)
    Path("accepted").write_text(of(*spaced).text)
    Path("findings.jsonl").write_bytes(b"".join(journal([*late, *spaced])))
    assert run(*FROM, "--prune").stdout == f"accepted: 0 removed, {len(spaced)} in all\n"
    Path("findings.jsonl").write_bytes(b"".join(journal([*late, *spaced[1:]])))
    tried = run(*FROM, "--prune", "--dry-run")
    gone = entry(spaced[0].rule, spaced[0].endpoint, spaced[0].pointer, spaced[0].name).line
    left = len(spaced) - 1
    assert tried.stdout.splitlines() == [f"- {gone}", f"accepted: 1 removed, {left} in all (nothing is written)"]
    assert Path("accepted").read_text() == of(*spaced).text
    assert run(*FROM, "--prune").exit_code == 0
    assert Path("accepted").read_text() == of(*spaced[1:]).text


def test_prune_keeps_what_an_exemption_covers_meanwhile(run: Any) -> None:
    late = found(LATE)
    Path("accepted").write_text(of(*late).text)
    Path("findings.jsonl").write_bytes(b"".join(journal(replace(each, action="exempt") for each in late)))
    assert run(*FROM, "--prune").stdout == "accepted: 0 removed, 1 in all\n"


def test_the_journals_of_several_proxies_count_together(run: Any) -> None:
    late, spaced = found(LATE), found(SPACED)
    Path("a").write_bytes(b"".join(journal(late)))
    Path("b").write_bytes(b"".join(journal(spaced)))
    assert run("accepted", "--from", "a", "--from", "b").exit_code == 0
    assert Path("accepted").read_text() == of(*late, *spaced).text


def test_the_configured_journal_is_read_although_the_baseline_is_not_there_yet(run: Any) -> None:
    Path("c.yaml").write_text("baseline: accepted\njournal: {path: findings.jsonl}\n")
    Path("findings.jsonl").write_bytes(b"".join(journal(found(LATE))))
    assert run("accepted", "--config", "c.yaml").exit_code == 0
    assert Path("accepted").read_text() == of(*found(LATE)).text


def test_nothing_to_read_is_exit_3_and_changes_nothing(run: Any) -> None:
    Path("accepted").write_text(of(*found(LATE)).text)
    for content in (None, b"", b"no finding\n"):
        if content is not None:
            Path("findings.jsonl").write_bytes(content)
        for options in ((), ("--prune",)):
            done = run(*FROM, *options)
            assert done.exit_code == 3
            assert done.stderr.splitlines()[-1].endswith("; nothing is changed")
            assert Path("accepted").read_text() == of(*found(LATE)).text


def test_a_mistake_is_one_line_and_exit_2(run: Any) -> None:
    Path("findings.jsonl").write_bytes(b"".join(journal(found(LATE))))
    done = run("accepted")
    assert (done.exit_code, done.stderr) == (2, "no journal is configured: name one, --from findings.jsonl\n")
    done = run(*FROM, "--prune")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert not Path("accepted").exists()
    done = run("none/accepted", *FROM[1:])
    assert (done.exit_code, done.stderr) == (2, "none/accepted: No such file or directory\n")
    Path("accepted").write_text("<<<<<<< HEAD\n")
    done = run(*FROM)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert Path("accepted").read_text() == "<<<<<<< HEAD\n"
