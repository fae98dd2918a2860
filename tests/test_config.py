"""Configuration: what may be written, what it becomes, and one line with a place for every mistake."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cio_proxy.config import (
    OPTIONS,
    ConfigError,
    Loaded,
    Mistake,
    address,
    duration,
    load,
    overlay,
    share,
    size,
    variable,
    written,
)
from cio_proxy.model import (
    Address,
    FactStore,
    Fields,
    JournalSettings,
    Param,
    Planned,
    ProbeSettings,
    RuleInfo,
    RuleSettings,
    Settings,
    SigningKeys,
    TlsSettings,
    TrackingPlan,
    UpstreamProxy,
    UpstreamSettings,
    WebhookSettings,
    WorkspaceSettings,
)
from cio_proxy.rules import RULES

STORES = "write memory:, sqlite:PATH, redis://HOST:PORT, rediss://HOST:PORT, redis+cluster://HOST:PORT or unix:///PATH"
HASH_KEY = (
    "facts: replicas that share a Redis need one hash key: make it with"
    " `(umask 077; head -c 32 /dev/urandom > hash.key)`, and name the file in hash_key_file"
)
SHIPPED = Path(__file__).parents[1] / "config" / "cio-proxy.yaml"
DIGEST = "sha256:" + "0a" * 32
KEY = "a13c95a0bc44d9f01e27"

BLOCKING = RuleInfo(
    id="oversized-payload",
    severity="error",
    category="contract",
    kinds=frozenset({"event"}),
    params={
        "window": Param(600.0, "a time", "duration"),
        "limit": Param(1024, "a size", "size"),
        "people": Param(20, "a count"),
        "field": Param("email", "a text", "text"),
        "fields": Param(("email",), "texts", "names"),
        "convention": Param("auto", "a choice", "text", ("auto", "snake_case")),
    },
)
LIKELY = RuleInfo(id="dynamic-event-name", severity="error", category="3", kinds=frozenset({"event"}), surest="likely")
LOGGING = RuleInfo(
    id="missing-email",
    severity="warning",
    category="4",
    kinds=frozenset({"identify"}),
    actions=("off", "log", "default"),
)
RULE_INFOS = (BLOCKING, LIKELY, LOGGING)


def loaded(
    content: str | bytes = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cio-proxy.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            return load(path, environ or {}, flags or {}, rules=RULE_INFOS)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/", "")) from None


def mistakes(
    content: str | bytes = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(content, environ, flags)
    return str(caught.value).split("\n")


# --- what it becomes ---------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "# nothing\n", "rules:\n", "journal:\n  path:\nlisten: ~\n", "rules: {}\n"])
def test_what_is_left_out_keeps_its_default(content: str) -> None:
    assert loaded(content) == (Settings(), ())


def test_every_option_reaches_its_setting() -> None:
    settings = loaded(f"""
listen: "[::1]:0"
admin: localhost:9000
inbound: 0.0.0.0:8000
app: http://127.0.0.1:3000/
explicit: 127.0.0.1:8888
tls: {{certificate: tls.crt, key: tls.key}}
upstream: https://customerio.internal:8443/
upstreams: {{track: "http://a:1", track_eu: "http://b:1/", pipelines: "http://c:1", pipelines_eu: "http://d:1",
             app: "http://e:1", app_eu: "https://f"}}
upstream_proxy: http://me:p%40ss@proxy.internal:3128
extra_ca: /etc/ssl/company.pem
enforcement: enforce
people: complete
on_error: block
thresholds: {{report: possible, block: likely}}
findings_header: false
show_values: true
max_audited_body: 64KB
state: /var/lib/cio-proxy
hash_key_file: /etc/cio-proxy/hash.key
facts: rediss://me:se%2Fcret@redis.internal:6380/3
facts_limit: 10
plan: {{person: {{}}, events: {{order_placed: {{attributes: {{total: number, id: {{required: true}}}}}}}}}}
journal: {{path: a.jsonl, max_size: 1MiB, keep: 2, queue: 3}}
timeouts: {{connect: 500ms, response: 1h30m, drain: 0}}
probe: {{share: 3%, delay: 1s, upstreams: [sandbox, "https://customerio.internal:8443/", "http://a:1", "http://b:1",
        "http://c:1", "http://d:1", "http://e:1", "https://f"]}}
clients: {{billing-worker: billing}}
rules:
  oversized-payload: {{action: block, report: likely, block: possible, window: 1m, limit: 2KiB, people: 3,
                       field: phone, fields: [a, b], convention: snake_case}}
  missing-email: {{action: off}}
workspaces:
  shop.eu: {{site_ids: [{KEY}, 0123, 123], track_keys: ["{DIGEST}"], app_keys: ["{DIGEST}"],
            pipelines_keys: ["{DIGEST}"]}}
""").settings
    timeouts = settings.timeouts
    assert settings == Settings(
        listen=Address("::1", 0),
        admin=Address("localhost", 9000),
        inbound=Address("0.0.0.0", 8000),
        app="http://127.0.0.1:3000",
        explicit=Address("127.0.0.1", 8888),
        tls=TlsSettings(certificate="tls.crt", key="tls.key"),
        upstream="https://customerio.internal:8443",
        upstreams=UpstreamSettings(
            track="http://a:1",
            track_eu="http://b:1",
            pipelines="http://c:1",
            pipelines_eu="http://d:1",
            app="http://e:1",
            app_eu="https://f",
        ),
        upstream_proxy=UpstreamProxy("proxy.internal", 3128, "me", "p@ss"),
        extra_ca="/etc/ssl/company.pem",
        enforcement="enforce",
        people="complete",
        on_error="block",
        report="possible",
        block="likely",
        findings_header=False,
        show_values=True,
        max_audited_body=64_000,
        state="/var/lib/cio-proxy",
        hash_key_file="/etc/cio-proxy/hash.key",
        facts=FactStore("redis", "rediss://me:se%2Fcret@redis.internal:6380/3"),
        facts_limit=10,
        plan=TrackingPlan(
            events={"order_placed": Fields({"total": Planned(("number",)), "id": Planned((), True)})},
            person=Fields(),
        ),
        journal=JournalSettings(path="a.jsonl", max_bytes=1 << 20, keep=2, queue=3),
        timeouts=timeouts,
        probe=ProbeSettings(
            share=0.03,
            delay=1.0,
            upstreams=(
                *("sandbox", "https://customerio.internal:8443"),
                *("http://a:1", "http://b:1", "http://c:1", "http://d:1", "http://e:1", "https://f"),
            ),
        ),
        clients={"billing-worker": "billing"},
        rules={
            "oversized-payload": RuleSettings(
                action="block",
                report="likely",
                block="possible",
                params={
                    "window": 60.0,
                    "limit": 2048,
                    "people": 3,
                    "field": "phone",
                    "fields": ("a", "b"),
                    "convention": "snake_case",
                },
            ),
            "missing-email": RuleSettings(action="off"),
        },
        workspaces={
            "shop.eu": WorkspaceSettings(
                site_ids=(KEY, "0123", "123"), track_keys=(DIGEST,), app_keys=(DIGEST,), pipelines_keys=(DIGEST,)
            )
        },
    )
    assert (timeouts.connect, timeouts.response, timeouts.drain) == (0.5, 5400.0, 0.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("1h30m", 5400), ("30d", 2_592_000), ("7", 7), (1.5, 1.5), (0, 0)],
)
def test_durations(written: object, seconds: float) -> None:
    assert duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "amount"), [("10MiB", 10 << 20), ("64KB", 64_000), ("1 gib", 1 << 30), ("12", 12), (12, 12), ("5b", 5)]
)
def test_sizes(written: object, amount: int) -> None:
    assert size(written) == amount


@pytest.mark.parametrize("written", ["127.0.0.1:8080", "[::1]:0", "localhost:65535", "[fe80::1%eth0]:80"])
def test_an_address_reads_back_as_it_was_written(written: str) -> None:
    assert str(address(written)) == written


@pytest.mark.parametrize(
    "written",
    ["", "8080", ":8080", "::1:8080", "host:", "host:65536", "http://h:80", "a b:80", "h:²", "[]:80", 8080, None],
)
def test_what_is_no_address_is_refused(written: object) -> None:
    with pytest.raises(Mistake, match="not an address: write HOST:PORT"):
        address(written)


@pytest.mark.parametrize("written", ["", "5 s", "s", "5w", "-5s", "1e3s", "9" * 400 + "s", True, -1, float("inf"), [5]])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(Mistake, match="not a duration: write 500ms, 5s, 10m or 1h30m"):
        duration(written)


@pytest.mark.parametrize("written", ["", "MiB", "10XB", "-1", "1.5MiB", "9" * 5000, True, -1, None, {}])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(Mistake, match="not a size: write 65536, 64KiB or 10MiB"):
        size(written)


def test_off_stays_a_word_and_numbers_are_plain_decimals() -> None:
    settings = loaded(
        "rules: {missing-email: {action: off}}\nworkspaces: {a: {site_ids: [010, 1_0, 0x1f, 1:30]}}"
    ).settings
    assert settings.rule("missing-email").action == "off"
    assert settings.workspaces["a"].site_ids == ("010", "1_0", "0x1f", "1:30")


# --- which source wins -------------------------------------------------------------------------


def test_flags_override_the_environment_which_overrides_the_file() -> None:
    content = "journal: {path: file, keep: 2}\npeople: complete\n"
    environ = {"CIO_PROXY_JOURNAL_PATH": "environment", "CIO_PROXY_JOURNAL_QUEUE": "7", "HOME": "/"}
    settings = loaded(content, environ, {"journal.path": "flag", "listen": None}).settings
    assert settings == Settings(people="complete", journal=JournalSettings(path="flag", keep=2, queue=7))
    assert loaded(content, environ).settings.journal.path == "environment"


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.key != "clients"], ids=lambda o: o.key)
def test_every_option_but_clients_has_a_variable(option: Any) -> None:
    samples = (
        "http://h:7",
        "true",
        "false",
        "7",
        "7s",
        "70ms",
        "[::1]:7",
        "live",
        "enforce",
        "complete",
        "block",
        "possible",
        "word",
        "/dev/null",
        "7%",
    )
    name = variable(option)
    refused = f"{name}: (not .*|write true or false|.*no such file.*|/dev/null may .*)"
    refused += "|baseline .*: (no such file|not a directory); .*|(app|inbound|tls.key|probe.share): .*"
    changed = []
    for value in samples:
        try:
            changed.append(loaded("", {name: value}).settings != Settings())
        except ConfigError as error:
            message = str(error)
            assert re.fullmatch(refused, message)
    needs_more = ("facts", "plan", "webhooks.signing_key_file", "inbound", "app", "tls.key", "probe.share")
    assert any(changed) or option.key in needs_more


def test_variables_that_are_no_settings_are_left_alone() -> None:
    assert loaded("", {"CIO_PROXY_CONFIG": "x", "CIO_PROXY_URL": "y", "OTHER": "z"}).settings == Settings()


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {}, {}, rules=RULE_INFOS) == (Settings(), ())


def test_an_overlay_changes_only_what_it_names() -> None:
    before = loaded("rules: {oversized-payload: {window: 1h, people: 3}, missing-email: {action: log}}").settings
    after = overlay(before, {"rules.oversized-payload.window": "10m", "people": "complete"}, rules=RULE_INFOS)
    assert after.rule("oversized-payload").params == {"window": 600.0, "people": 3}
    assert after.rule("missing-email") == before.rule("missing-email")
    assert (before.people, after.people) == ("partial", "complete")
    assert before.rule("oversized-payload").params["window"] == 3600


def test_an_overlay_names_the_key_of_a_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        overlay(Settings(), {"rules.missing-emial.window": "10m", "people": "all", "rules": "x"}, rules=RULE_INFOS)
    assert str(caught.value).split("\n") == [
        "rules.missing-emial.window: unknown key 'missing-emial', did you mean 'missing-email'?",
        "people: not one of partial, complete",
        "rules: a section: set one of oversized-payload, dynamic-event-name, missing-email in it",
    ]


# --- mistakes ----------------------------------------------------------------------------------


def test_every_mistake_of_every_source_is_told_at_once_in_order() -> None:
    content = """\
enforcment: enforce
listen: 8080
thresholds:
  report: likley
  blok: certain
rules:
  oversize-payload: {action: log}
  missing-email:
    action: block
  dynamic-event-name:
    window: 10m
journal: findings.jsonl
timeouts:
  connect: 0s
"""
    environ = {"CIO_PROXY_LISTN": "127.0.0.1:1", "CIO_PROXY_PEOPLE": "complet"}
    assert mistakes(content, environ, {"upstream": "prod", "journal.path": ""}) == [
        "cio-proxy.yaml:1:1: unknown key 'enforcment', did you mean 'enforcement'?",
        "cio-proxy.yaml:2:9: listen: not an address: write HOST:PORT, such as 127.0.0.1:8080 (port 0 takes a free one)",
        "cio-proxy.yaml:4:11: thresholds.report: not one of certain, likely, possible, did you mean 'likely'?",
        "cio-proxy.yaml:5:3: unknown key 'blok', did you mean 'block'?",
        "cio-proxy.yaml:7:3: unknown key 'oversize-payload', did you mean 'oversized-payload'?",
        "cio-proxy.yaml:9:13: rules.missing-email.action: this rule does not offer 'block': choose from off, log, default",  # noqa: E501
        "cio-proxy.yaml:11:5: unknown key 'window'; known are action, report, block",
        "cio-proxy.yaml:12:10: journal: a section; write `key: value` lines below it",
        "cio-proxy.yaml:14:12: timeouts.connect: nothing can be done in no time: write a duration such as 5s",
        "CIO_PROXY_LISTN: unknown variable, did you mean 'CIO_PROXY_LISTEN'?",
        "CIO_PROXY_PEOPLE: not one of partial, complete, did you mean 'complete'?",
        "--upstream: not an upstream: write sandbox, live, live-eu, or a URL without a path, such as http://127.0.0.1:9000",
        "--journal: not a text: write one, in quotes if it is a number",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("people: partial\npeople: complete\n", "cio-proxy.yaml:2:1: the key 'people' stands here twice; keep one"),
        ("clients:\n  a: b\n  a: c\n", "cio-proxy.yaml:3:3: the key 'a' stands here twice; keep one"),
        ("- people\n", "cio-proxy.yaml: not a mapping; write `key: value` lines"),
        ("just text\n", "cio-proxy.yaml: not a mapping; write `key: value` lines"),
        ("people: [\n", "cio-proxy.yaml:2:1: not YAML: expected the node content, but found '<stream end>'"),
        (
            "journal:\n\tkeep: 1\n",
            "cio-proxy.yaml:2:1: not YAML: found character '\\t' that cannot start any token",
        ),
        ("--- {}\n--- {}\n", "cio-proxy.yaml:2:1: not YAML: but found another document"),
        ("a: \x01\n", "cio-proxy.yaml: not YAML: special characters are not allowed"),
        (b"people: \xff\n", "cio-proxy.yaml: not UTF-8 text; save it as UTF-8"),
        ("? [a]\n: b\n", "cio-proxy.yaml:1:3: not a key; write `key: value` lines"),
        ("[" * 3000, "cio-proxy.yaml: nested too deeply; no option is deeper than three levels"),
        ("facts_limit: !!int x\n", "cio-proxy.yaml:1:14: facts_limit: not a value; leave out tags (!) and aliases (*)"),
        (
            "state: !!python/name:os.system x\n",
            "cio-proxy.yaml:1:8: state: not a value; leave out tags (!) and aliases (*)",
        ),
        ("clients: &a {b: *a}\n", "cio-proxy.yaml:1:10: clients: not a value; leave out tags (!) and aliases (*)"),
        ("findings_header: yes\n", "cio-proxy.yaml:1:18: findings_header: write true or false"),
        *(
            (f"facts: {wrong}\n", f"cio-proxy.yaml:1:8: facts: not a fact store: {STORES}")
            for wrong in (
                "memory",
                '"sqlite:"',
                "redis://",
                "redis://:se/cret@h",
                "redis://h/x",
                "redis+cluster://h/1",
                "unix://h",
                "mysql://h",
                "7",
            )
        ),
        ("facts: redis://:secret@h\n", HASH_KEY),
        ("facts_limit: 0\n", "cio-proxy.yaml:1:14: facts_limit: not a whole number of 1 or more"),
        ("clients: [a]\n", "cio-proxy.yaml:1:10: clients: not a mapping of at most 20 User-Agent texts to names"),
        ("clients: {a: {}}\n", "cio-proxy.yaml:1:10: clients: not a text: write one, in quotes if it is a number"),
        ("state: 7\n", "cio-proxy.yaml:1:8: state: not a text: write one, in quotes if it is a number"),
        (
            "upstream: https://h/path\n",
            "cio-proxy.yaml:1:11: upstream: not an upstream: write sandbox, live, live-eu, or",
        ),
        (
            "upstream: https://user@h\n",
            "cio-proxy.yaml:1:11: upstream: not an upstream: write sandbox, live, live-eu, or",
        ),
        ('"a\\nb\\e[31m": x\n', "cio-proxy.yaml:1:1: unknown key 'a?b?[31m'; known are listen, admin,"),
        ("upstreams:\n  track: sandbox\n", "cio-proxy.yaml:2:10: upstreams.track: not a URL without a path"),
        ("upstreams:\n  track: https://u:p@h\n", "cio-proxy.yaml:2:10: upstreams.track: not a URL without a path"),
        ("upstreams:\n  tracks: https://h\n", "cio-proxy.yaml:2:3: unknown key 'tracks', did you mean 'track'?"),
        ("upstream_proxy: https://h:1\n", "cio-proxy.yaml:1:17: upstream_proxy: not an HTTP proxy: write http://HOST"),
        ("upstream_proxy: http://h\n", "cio-proxy.yaml:1:17: upstream_proxy: not an HTTP proxy: write http://HOST"),
        ("upstream: https://h:x\n", "cio-proxy.yaml:1:11: upstream: not an upstream: write sandbox, live, live-eu, or"),
        ("workspaces: {a: {site_ids: [[b]]}}\n", "cio-proxy.yaml:1:28: workspaces.a.site_ids: not a list of texts"),
        ("workspaces: {a: {sites: [b]}}\n", "cio-proxy.yaml:1:18: unknown key 'sites', did you mean 'site_ids'?"),
        ("workspaces: {'': {}}\n", "cio-proxy.yaml:1:14: unknown key ''"),
        (
            "rules: {oversized-payload: {convention: snake-case}}\n",
            "cio-proxy.yaml:1:41: rules.oversized-payload.convention",
        ),
    ],
)
def test_a_mistake_has_its_place_and_what_to_do(content: str | bytes, message: str) -> None:
    (line,) = mistakes(content)
    assert line.startswith(message)


def test_a_file_that_cannot_be_read_is_one_line_beside_the_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        load(tmp_path / "none.yaml", {"CIO_PROXY_PEOPLE": "x"}, {}, rules=[])
    assert str(missing.value).split("\n") == [
        f"{tmp_path}/none.yaml: no such file or directory; give --config a readable file",
        "CIO_PROXY_PEOPLE: not one of partial, complete",
    ]
    with pytest.raises(ConfigError, match="is a directory; give --config a readable file"):
        load(tmp_path, {}, {}, rules=[])


def test_no_message_shows_what_looks_like_a_secret_or_a_person() -> None:
    token = "sk_live_51Hq9ZsJ4"
    content = f"""\
{KEY}: x
{token}: x
ada@example.com: x
people: {KEY}
listen: {KEY}
upstream: https://user:{token}@h
max_audited_body: {token}
workspaces:
  a:
    track_keys: [{KEY}]
    {KEY}: [x]
rules:
  {token}: {{}}
"""
    environ = {f"CIO_PROXY_{KEY.upper()}": "x", "CIO_PROXY_LISTEN": KEY}
    lines = "\n".join(mistakes(content, environ, {"admin": token}) + mistakes(f"a: {{'{KEY}: x"))
    for secret in (KEY, KEY.upper(), token, "ada@"):
        assert secret not in lines
    assert "keys are given as sha256:<64 hexadecimal digits>, never in clear" in lines


@hypothesis_settings(deadline=None)
@given(st.text(max_size=80) | st.binary(max_size=80))
def test_any_file_is_read_or_refused_in_plain_lines(content: str | bytes) -> None:
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    for start in (b"", b"clients: ", b"rules:\n  oversized-payload:\n    fields: ", b"workspaces: {a: {site_ids: "):
        try:
            settings, warnings = loaded(start + content)
        except ConfigError as error:
            lines = str(error).split("\n")
            assert all(re.match(r"cio-proxy\.yaml(:\d+:\d+)?: \S", line) for line in lines)
            assert all(line.isprintable() for line in lines)
        else:
            assert isinstance(settings, Settings)
            assert warnings == ()


# --- what is legal and cannot be meant ---------------------------------------------------------


def test_a_block_that_can_never_be_reached_is_a_warning() -> None:
    (warning,) = loaded("rules: {dynamic-event-name: {action: block}}").warnings
    assert warning == (
        "rules.dynamic-event-name: never blocks, because it blocks from 'certain' and its findings are at most "
        "'likely'; set rules.dynamic-event-name.block: likely"
    )
    assert loaded("rules: {dynamic-event-name: {action: block, block: likely}}").warnings == ()
    assert loaded("rules: {dynamic-event-name: {action: block}}\nthresholds: {block: likely}").warnings == ()
    assert loaded("rules: {oversized-payload: {action: block}}").warnings == ()


@pytest.mark.parametrize("rule", ["missing-email: {block: likely}", "oversized-payload: {action: log, block: likely}"])
def test_a_block_threshold_where_nothing_blocks_is_a_warning(rule: str) -> None:
    (warning,) = loaded(f"rules: {{{rule}}}").warnings
    assert (
        warning
        == f"rules.{rule.partition(':')[0]}.block: never reached, because this rule blocks nothing; leave it out"
    )


def test_a_block_of_what_is_not_reported_is_a_warning() -> None:
    (warning,) = loaded("rules: {oversized-payload: {action: block, block: possible}}").warnings
    assert warning == (
        "rules.oversized-payload: blocks from 'possible', but what is below 'likely' is not even reported; "
        "set rules.oversized-payload.report: possible"
    )


# --- where facts are kept ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_as", "shown"),
    [
        ("memory:", "memory:"),
        ("sqlite:/var/lib/facts.sqlite", "sqlite:/var/lib/facts.sqlite"),
        ("redis://h", "redis://h"),
        ("redis://:se%40cret@h:1/3?ssl_password=secret", "redis://***@h:1/3"),
        ("rediss+cluster://me:secret@[::1]:7000", "rediss+cluster://***@[::1]:7000"),
        ("unix://:secret@/run/redis.sock?db=3&password=s@cret", "unix://***@/run/redis.sock"),
    ],
)
def test_a_store_is_shown_without_its_password(written_as: str, shown: str) -> None:
    infos = [rule.info for rule in RULES]
    settings = load(None, {"CIO_PROXY_FACTS": written_as, "CIO_PROXY_HASH_KEY_FILE": "k"}, {}, rules=infos).settings
    assert str(settings.facts) == shown
    text = written(settings, infos)
    assert f"facts: {shown}\n" in text.replace("'", "")
    assert "cret" not in text + repr(settings)


# --- the shipped file --------------------------------------------------------------------------


def test_the_shipped_file_is_exactly_the_defaults() -> None:
    assert load(SHIPPED, {}, {}, rules=[rule.info for rule in RULES]) == (Settings(), ())


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_the_shipped_file_names_every_option_in_its_section(option: Any) -> None:
    section, _, name = option.key.rpartition(".")
    text = SHIPPED.read_text()
    block = text[re.search(rf"^{section}:\n", text, re.MULTILINE).end() :].split("\n\n")[0] if section else text  # type: ignore[union-attr]
    assert re.search(rf"^{'  ' if section else ''}(?:# )?{name}:", block, re.MULTILINE)


def test_the_shipped_files_comments_are_a_configuration_with_the_defaults_of_every_rule(tmp_path: Path) -> None:
    infos = [rule.info for rule in RULES]
    path = tmp_path / "cio-proxy.yaml"
    _, _, commented = SHIPPED.read_text().partition("\n# rules:\n")
    path.write_text("rules:\n" + re.sub(r"^# ", "", commented, flags=re.MULTILINE))
    settings, warnings = load(path, {}, {}, rules=infos)
    assert warnings == ()
    assert settings.rules == {
        info.id: RuleSettings(params={name: param.default for name, param in info.params.items()}) for info in infos
    }


def test_the_shipped_files_example_of_a_workspace_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "cio-proxy.yaml"
    sections = re.findall(r"^# ((?:clients|workspaces|exemptions):\n(?:#   .*\n)+)", SHIPPED.read_text(), re.MULTILINE)
    (key := tmp_path / "production.signing").write_text("key")
    key.chmod(0o600)
    text = "".join(re.sub(r"^# ", "", each, flags=re.MULTILINE) for each in sections).replace("sha256:…", DIGEST)
    path.write_text(text.replace("/etc/cio-proxy/production.signing", str(key)))
    settings = load(path, {}, {}, rules=[rule.info for rule in RULES]).settings
    assert settings.clients
    assert settings.exemptions[0].client == "billing"
    assert all(workspace.track_keys == (DIGEST,) for workspace in settings.workspaces.values())
    assert settings.workspaces


def test_a_proxys_password_is_never_shown() -> None:
    settings = load(None, {"CIO_PROXY_UPSTREAM_PROXY": "http://me:s3cret@proxy.internal:3128"}, {}, rules=[]).settings
    assert str(settings.upstream_proxy) == "http://***@proxy.internal:3128"
    assert "s3cret" not in repr(settings)
    assert str(UpstreamProxy("::1", 3128)) == "http://[::1]:3128"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("inbound: 127.0.0.1:8000\n", "inbound: there is no app behind it; give --app (or `app:`) the app's URL"),
        ("tls: {key: a.pem}\n", "tls.key: there is no certificate to it; name its file in tls.certificate"),
        ("app: http://127.0.0.1:3000\n", "app: nothing leads to it; give --inbound (or `inbound:`) the address"),
    ],
)
def test_what_is_half_configured_is_told_of(content: str, told: str) -> None:
    (line,) = mistakes(content)
    assert line.startswith(told)


IN_FRONT = "inbound: 127.0.0.1:8000\napp: http://127.0.0.1:3000\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("probe: {share: 3%}\n", "the latency probe sees nothing without the inbound listener"),
        (IN_FRONT + "upstream: live\nprobe: {share: 3%}\n", "the latency probe is not allowed before live; add"),
        (
            IN_FRONT + "probe: {share: 3%}\nupstreams: {app_eu: https://api-eu.customer.io}\n",
            "the latency probe is not allowed before https://api-eu.customer.io; add",
        ),
        (
            IN_FRONT + "upstream: live\nprobe: {share: 3%, upstreams: [live-eu]}\n",
            "the latency probe is not allowed before live; add",
        ),
    ],
)
def test_a_probe_is_refused_where_it_is_blind_or_not_allowed(content: str, told: str) -> None:
    (line,) = mistakes(content)
    assert line.startswith(f"probe.share: {told}")


@pytest.mark.parametrize("upstream", ["sandbox", "live", "http://127.0.0.1:9000"])
def test_a_probe_runs_before_what_is_named_for_it(upstream: str) -> None:
    content = IN_FRONT + f'upstream: "{upstream}/"\n'.replace("sandbox/", "sandbox").replace("live/", "live")
    settings = loaded(content + f'probe: {{share: 0.03, upstreams: ["{upstream}"]}}\n').settings
    assert settings.probe == ProbeSettings(share=0.03, upstreams=(upstream,))


def test_without_a_share_any_upstream_will_do() -> None:
    assert loaded("upstream: live\nprobe: {share: 0, upstreams: [sandbox]}\n").settings.probe == ProbeSettings()


@pytest.mark.parametrize(
    ("written", "part"), [("3%", 0.03), ("0.5 %", 0.005), (0.2, 0.2), ("20%", 0.2), (0, 0.0), ("0.03", 0.03)]
)
def test_shares(written: object, part: float) -> None:
    assert share(written) == pytest.approx(part)


@pytest.mark.parametrize("written", [3, "3", "21%", 0.21, "-1%", "%", "", None, True, "1e-3", float("nan")])
def test_what_is_no_share_is_refused(written: object) -> None:
    with pytest.raises(Mistake, match="not a share of at most 20%: write 3% or "):
        share(written)


@pytest.mark.parametrize("written", ["49ms", "0", "2001ms", "1h"])
def test_a_delay_that_is_too_short_or_too_long_is_refused(written: str) -> None:
    (line,) = mistakes(f"probe: {{delay: {written}}}\n")
    assert line.endswith("probe.delay: not a delay that can be told and borne: write a duration from 50ms to 2s")


def test_a_probe_reads_back_as_it_was_written() -> None:
    before = loaded(IN_FRONT + "probe: {share: 0.001, delay: 50ms, upstreams: [sandbox, live-eu]}\n").settings
    shown = written(before, RULE_INFOS)
    assert "share: 0.1%" in shown
    assert loaded(shown).settings == before


@pytest.mark.parametrize(("host", "open_to_others"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
def test_an_explicit_proxy_that_others_can_reach_is_told_of(host: str, open_to_others: bool) -> None:
    told = [line for line in loaded(f"explicit: {host}:8888\n").warnings if line.startswith("explicit: ")]
    assert len(told) == open_to_others
    assert all(f"whoever reaches {host}:8888 can connect to anything" in line for line in told)


def test_the_keys_of_webhooks_come_from_files_and_a_variable_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "signing"
    file.write_text("first-key\n\n  second-key\n")
    file.chmod(0o600)
    text = (
        f"webhooks: {{paths: [/hooks/*], signing_key_file: {file}}}\nworkspaces: {{shop: {{signing_key_file: {file}}}}}"
    )
    settings = loaded(text, {"CIO_PROXY_WEBHOOK_SIGNING_KEY": "third-key"}).settings
    assert settings.webhooks == WebhookSettings(
        paths=("/hooks/*",),
        signing_key_file=SigningKeys(str(file), ("first-key", "second-key")),
        signing_key="third-key",
    )
    assert settings.workspaces["shop"].signing_key_file == settings.webhooks.signing_key_file
    shown = repr(settings) + written(settings, RULE_INFOS)
    assert "-key" not in shown
    assert written(settings, RULE_INFOS).count(f"signing_key_file: {file}") == 2


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"key", 0o644, "may be read by others, or changed by its group: chmod 600"),
        (b"\n \n", 0o600, "there is no key in the file"),
        (b"\xff\xfe", 0o600, "a file of signing keys holds text, one key a line"),
        (None, 0, "no such file or directory"),
    ],
)
def test_a_file_of_signing_keys_that_cannot_be_used_is_a_mistake(
    content: bytes | None, mode: int, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "signing"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        loaded(f"webhooks: {{signing_key_file: {file}}}")
    assert reason in str(caught.value)
