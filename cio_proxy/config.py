"""From a YAML file, the environment and flags to `Settings`: every mistake at once, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import yaml

from cio_proxy import baseline, state
from cio_proxy import plan as plans
from cio_proxy.masking import named
from cio_proxy.model import (
    ACTIONS,
    CONFIDENCES,
    DEFAULT_RULE,
    Address,
    Exemption,
    FactStore,
    Param,
    RuleInfo,
    Settings,
    SigningKeys,
    TrackingPlan,
    UpstreamProxy,
    WorkspaceSettings,
)

PREFIX: Final = "CIO_PROXY_"
VARIABLES: Final = {"webhooks.signing_key": "CIO_PROXY_WEBHOOK_SIGNING_KEY"}
"""Names of variables that do not follow from their key."""
NOT_SETTINGS: Final = frozenset({"CIO_PROXY_CONFIG", "CIO_PROXY_URL", "CIO_PROXY_HOSTS"})
SHIPPED: Final = Settings()
REDIS: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "unix")

_TIME_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_TIME: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?(%?)\Z")
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([a-z]{0,3})\Z", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[0-9A-Za-z]+)?)\]|([0-9A-Za-z._-]+)):([0-9]{1,5})\Z")
_DIGEST: Final = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")
_SECRET: Final = re.compile(r"(?=[^\s:]*[0-9])[^\s:]{16,}")
APP_MISSING: Final = (
    "inbound: there is no app behind it; give --app (or `app:`) the app's URL, such as http://127.0.0.1:3000"
)
INBOUND_MISSING: Final = (
    "app: nothing leads to it; give --inbound (or `inbound:`) the address where its clients come in"
)
PROBE_BLIND: Final = (
    "probe.share: the latency probe sees nothing without the inbound listener; give --inbound and --app"
)
PROBE_FORBIDDEN: Final = (
    "probe.share: the latency probe is not allowed before {}; add that to probe.upstreams, or leave probe.share out"
)
MOST_PROBED: Final = 0.2
"""The largest share of answers that the latency probe may hold back."""
CERTIFICATE_MISSING: Final = "tls.key: there is no certificate to it; name its file in tls.certificate"
HASH_KEY_MISSING: Final = (
    "replicas that share a Redis need one hash key: make it with `(umask 077; head -c 32 /dev/urandom > hash.key)`, and"
    " name the file in hash_key_file"
)


class ConfigError(Exception):
    """One line for each mistake: where it is, what is wrong, what to do."""


class Loaded(NamedTuple):
    """The settings, and lines about what is legal and yet cannot be meant."""

    settings: Settings
    warnings: tuple[str, ...]


class Mistake(ValueError):
    """A value that cannot be used; the caller knows its place. The message never shows the value."""


# --- values ------------------------------------------------------------------------------------
# The environment and flags give text, so every reader takes its value as text too.


def duration(value: object) -> float:
    """`500ms`, `5s`, `1h30m`, or a number of seconds. Raises Mistake."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,12}", value):
            return float(value)
        if value and not _TIME.sub("", value):
            return sum(float(number) * _TIME_UNITS[unit] for number, unit in _TIME.findall(value))
    raise Mistake("not a duration: write 500ms, 5s, 10m or 1h30m")


def wait(value: object) -> float:
    """A duration that is not zero. Raises Mistake."""
    if seconds := duration(value):
        return seconds
    raise Mistake("nothing can be done in no time: write a duration such as 5s")


def share(value: object) -> float:
    """`3%` or 0.03: a part of all that is small enough for the probe. Raises Mistake."""
    part = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(value, str) and (match := _SHARE.match(value)):
        part = float(match[1]) / (100 if match[2] else 1)
    if part is None or not 0 <= part <= MOST_PROBED:
        raise Mistake(f"not a share of at most {MOST_PROBED:.0%}: write 3% or 0.03, and 0 for none")
    return float(part)


def held(value: object) -> float:
    """How long an answer may be held back: a duration from 50ms to 2s. Raises Mistake."""
    if 0.05 <= (seconds := duration(value)) <= 2.0:
        return seconds
    raise Mistake("not a delay that can be told and borne: write a duration from 50ms to 2s")


def size(value: object) -> int:
    """`64KB`, `10MiB`, or a number of bytes. Raises Mistake."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    if isinstance(value, str) and (match := _SIZE.match(value)) and match[2].lower() in _SIZE_UNITS:
        return int(match[1]) * _SIZE_UNITS[match[2].lower()]
    raise Mistake("not a size: write 65536, 64KiB or 10MiB")


def address(value: object) -> Address:
    """`HOST:PORT`, `[::1]:8080`. Raises Mistake."""
    match = _ADDRESS.match(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65_535:
        raise Mistake("not an address: write HOST:PORT, such as 127.0.0.1:8080 (port 0 takes a free one)")
    return Address(match[1] or match[2], int(match[3]))


def count(value: object) -> int:
    """A whole number, 1 or more. Raises Mistake."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 10**15:
        return value
    raise Mistake("not a whole number of 1 or more")


def flag(value: object) -> bool:
    """`true` or `false`. Raises Mistake."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise Mistake("write true or false")


def text(value: object) -> str:
    """A text. Raises Mistake."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise Mistake("not a text: write one, in quotes if it is a number")


def upstream(value: object) -> str:
    """`sandbox`, `live`, `live-eu` or a URL without a path. Raises Mistake."""
    if value in ("sandbox", "live", "live-eu"):
        return str(value)
    try:
        return url(value)
    except Mistake:
        raise Mistake(
            "not an upstream: write sandbox, live, live-eu, or a URL without a path, such as http://127.0.0.1:9000"
        ) from None


def url(value: object) -> str:
    """An http or https URL of a host alone. Raises Mistake."""
    parts = _bare_url(value, "http", "https")
    if parts is None or parts.username is not None:
        raise Mistake("not a URL without a path: write one such as https://track.customer.io or http://127.0.0.1:9000")
    return str(value).rstrip("/")


def proxy(value: object) -> UpstreamProxy:
    """`http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`, percent-encoded. Raises Mistake."""
    parts = _bare_url(value, "http")
    if parts is None or not parts.port:
        raise Mistake("not an HTTP proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    return UpstreamProxy(parts.hostname or "", parts.port, unquote(parts.username or ""), unquote(parts.password or ""))


def _bare_url(value: object, *schemes: str) -> SplitResult | None:
    """The parts of a URL that names a host and nothing on it."""
    try:
        parts = urlsplit(value) if isinstance(value, str) and value.isprintable() else None
        if parts and parts.scheme in schemes and parts.hostname and parts.port != 0:
            return None if parts.path.strip("/") or parts.query or parts.fragment else parts
    except ValueError:
        pass
    return None


def moment(value: object) -> float:
    """The end of a day, `2027-01-31` in UTC, or a moment in RFC 3339. Raises Mistake."""
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            day = timedelta(days=1) if len(value) <= len("2027-01-31") else timedelta()
            return ((read if read.tzinfo else read.replace(tzinfo=UTC)) + day).timestamp()
    raise Mistake("not a date: write 2027-01-31 (to the end of that day, UTC) or 2027-01-31T18:00:00Z")


def facts(value: object) -> FactStore:
    """Where facts are kept: `memory:`, `sqlite:PATH`, or the URL of a Redis. Raises Mistake."""
    if value == "memory:":
        return FactStore("memory")
    if isinstance(value, str) and value.isprintable():
        scheme, _, rest = value.partition(":")
        if scheme == "sqlite" and rest.strip():
            return FactStore("sqlite", rest)
        if scheme in REDIS and _is_redis(value):
            return FactStore("redis", value)
    raise Mistake(
        "not a fact store: write memory:, sqlite:PATH, redis://HOST:PORT, rediss://HOST:PORT, redis+cluster://HOST:PORT"
        " or unix:///PATH"
    )


def _is_redis(url: str) -> bool:
    """Whether this names a Redis: a host and perhaps a database, or a socket."""
    try:
        parts = urlsplit(url)
        if parts.fragment or parts.port == 0:
            return False
    except ValueError:
        return False
    if parts.scheme == "unix":
        return parts.path.startswith("/") and len(parts.path) > 1
    database = parts.path.strip("/")
    return bool(parts.hostname) and (not database or (database.isdecimal() and not parts.scheme.endswith("+cluster")))


def plan(value: object) -> TrackingPlan:
    """A tracking plan: its file, or the plan itself. Raises Mistake."""
    try:
        return plans.of(value) if isinstance(value, dict) else plans.read(Path(text(value)))
    except plans.PlanError as error:
        raise Mistake(f"not a plan: {error}") from error


def one_of(*choices: str) -> Callable[[object], str]:
    """One of a few words."""

    def choose(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise Mistake(f"not one of {', '.join(choices)}{hint}")

    return choose


def names(value: object) -> tuple[str, ...]:
    """A list of texts; on one line of text, with commas between them. Raises Mistake."""
    members = value.split(",") if isinstance(value, str) else value
    if not isinstance(members, list | tuple):
        raise Mistake("not a list: write [one, two]")
    texts = tuple(str(each).strip() for each in members if isinstance(each, str | int) and not isinstance(each, bool))
    if len(texts) != len(members) or not all(texts):
        raise Mistake("not a list of texts: write [one, two]")
    return texts


def upstreams(value: object) -> tuple[str, ...]:
    """A list of upstreams. Raises Mistake."""
    return tuple(map(upstream, names(value)))


def digests(value: object) -> tuple[str, ...]:
    """A list of SHA-256 digests. Raises Mistake."""
    members = names(value)
    if not all(_DIGEST.match(member) for member in members):
        raise Mistake("keys are given as sha256:<64 hexadecimal digits>, never in clear")
    return members


def signing_keys(value: object) -> SigningKeys:
    """The file of the keys that webhooks are signed with, one a line. Raises Mistake."""
    file = text(value)
    try:
        lines = state.secret(Path(file).expanduser()).decode().split("\n")
    except UnicodeDecodeError:
        raise Mistake("a file of signing keys holds text, one key a line") from None
    except ValueError as error:
        raise Mistake(str(error)) from None
    if keys := tuple(key for line in lines if (key := line.strip())):
        return SigningKeys(file, keys)
    raise Mistake("there is no key in the file: copy the signing key of the webhook in Customer.io into it")


def clients(value: object) -> dict[str, str]:
    """Names by a part of the User-Agent. Raises Mistake."""
    if not isinstance(value, dict) or len(value) > 20:
        raise Mistake("not a mapping of at most 20 User-Agent texts to names")
    return {text(key): text(name) for key, name in value.items()}


# --- the table ---------------------------------------------------------------------------------

type Reader = Callable[[object], Any]


class Option(NamedTuple):
    """One key: its path in the file, its path in Settings, how it is read, what it means, and when it takes effect."""

    key: str
    path: str
    read: Reader
    about: str
    restart: bool = False
    """True where a reload keeps the old value."""


OPTIONS: tuple[Option, ...] = (
    Option("listen", "listen", address, "where the app sends its Customer.io traffic", restart=True),
    Option("admin", "admin", address, "where metrics and findings are served", restart=True),
    Option("inbound", "inbound", address, "where the app's own clients come in", restart=True),
    Option("app", "app", url, "the URL of the app behind the inbound listener", restart=True),
    Option("explicit", "explicit", address, "an HTTP proxy for the app, as in HTTPS_PROXY", restart=True),
    Option("tls.certificate", "tls.certificate", text, "the outbound listener's own certificate", restart=True),
    Option("tls.key", "tls.key", text, "the file of its key, if that is another", restart=True),
    Option("upstream", "upstream", upstream, "sandbox, live, live-eu, or a URL", restart=True),
    Option("upstreams.track", "upstreams.track", url, "the Track API's URL, before what upstream says", restart=True),
    Option("upstreams.track_eu", "upstreams.track_eu", url, "the same in the EU", restart=True),
    Option("upstreams.pipelines", "upstreams.pipelines", url, "the Pipelines API's URL", restart=True),
    Option("upstreams.pipelines_eu", "upstreams.pipelines_eu", url, "the same in the EU", restart=True),
    Option("upstreams.app", "upstreams.app", url, "the App API's URL", restart=True),
    Option("upstreams.app_eu", "upstreams.app_eu", url, "the same in the EU", restart=True),
    Option("upstream_proxy", "upstream_proxy", proxy, "an HTTP proxy on the way to upstreams", restart=True),
    Option("extra_ca", "extra_ca", text, "a file of further certificate authorities for upstreams", restart=True),
    Option("enforcement", "enforcement", one_of("observe", "enforce"), "log what would be blocked, or block it"),
    Option("people", "people", one_of("partial", "complete"), "whether every person is known to the proxy"),
    Option("on_error", "on_error", one_of("pass", "block"), "what happens to an exchange whose audit fails"),
    Option("thresholds.report", "report", one_of(*CONFIDENCES), "findings below this confidence are not reported"),
    Option("thresholds.block", "block", one_of(*CONFIDENCES), "findings below this confidence never block"),
    Option("findings_header", "findings_header", flag, "whether answers carry Cio-Proxy-Findings"),
    Option("show_values", "show_values", flag, "show values as sent; for local sessions only"),
    Option("max_audited_body", "max_audited_body", size, "larger bodies pass unread", restart=True),
    Option("state", "state", text, "the folder of the hash key and the certificates", restart=True),
    Option("hash_key_file", "hash_key_file", text, "the file of the hash key, for replicas to share", restart=True),
    Option("facts", "facts", facts, "where facts are kept", restart=True),
    Option("facts_limit", "facts_limit", count, "how many facts are kept", restart=True),
    Option("plan", "plan", plan, "the file of the tracking plan that events are compared with"),
    Option("journal.path", "journal.path", text, "the file that findings are written to, as JSON lines", restart=True),
    Option("journal.max_size", "journal.max_bytes", size, "the size at which it is rotated", restart=True),
    Option("journal.keep", "journal.keep", count, "how many rotated files are kept", restart=True),
    Option("journal.queue", "journal.queue", count, "how many findings may wait to be written", restart=True),
    Option("timeouts.connect", "timeouts.connect", wait, "the wait for an upstream connection", restart=True),
    Option("timeouts.response", "timeouts.response", wait, "the wait for an upstream answer", restart=True),
    Option("timeouts.drain", "timeouts.drain", duration, "the wait for requests in flight when stopping", restart=True),
    Option("webhooks.paths", "webhooks.paths", names, "globs of the paths where the app takes Customer.io's webhooks"),
    Option("webhooks.signing_key_file", "webhooks.signing_key_file", signing_keys, "the file of their signing keys"),
    Option("webhooks.signing_key", "webhooks.signing_key", text, "one such key, best given as a variable"),
    Option("probe.share", "probe.share", share, "the share of answers that the latency probe holds back", restart=True),
    Option("probe.delay", "probe.delay", held, "for how long it does", restart=True),
    Option("probe.upstreams", "probe.upstreams", upstreams, "what `upstream` may be while it does", restart=True),
    Option("baseline", "baseline", text, "a file of findings that are accepted; `cio-proxy baseline` writes it"),
    Option("clients", "clients", clients, "names of clients by a part of their User-Agent"),
)
WORKSPACE: Final[Mapping[str, Reader]] = {
    "site_ids": names,
    "track_keys": digests,
    "app_keys": digests,
    "pipelines_keys": digests,
    "signing_key_file": signing_keys,
}
MATCHERS: Final = ("endpoint", "pointer", "name", "client")
EXEMPTION: Final[Mapping[str, Reader]] = {
    **dict.fromkeys((*MATCHERS, "reason", "owner"), text),
    "expires": moment,
}
UNITS: Final[Mapping[str, Reader]] = {
    "duration": duration,
    "size": size,
    "count": count,
    "text": text,
    "names": names,
}


type Section = Mapping[str, Reader | Section]


class EachName(dict[str, Section]):
    """A section whose keys are names that the operator gives; what stands below each is the same."""

    def __init__(self, below: Section) -> None:
        super().__init__()
        self._below = below

    def __contains__(self, name: object) -> bool:
        return bool(name)

    def __missing__(self, name: str) -> Section:
        return self._below


class EachItem(dict[str, Reader]):
    """A list of sections that are all alike."""


def _sections(rules: Sequence[RuleInfo]) -> Section:
    """Everything that the file may hold, as nested sections with a reader at each leaf."""
    tree: dict[str, Any] = {}
    for option in OPTIONS:
        top, _, name = option.key.partition(".")
        if name:
            tree.setdefault(top, {})[name] = option.read
        else:
            tree[top] = option.read
    tree["rules"] = {rule.id: _rule_section(rule) for rule in rules}
    tree["workspaces"] = EachName(WORKSPACE)
    tree["exemptions"] = EachItem({"rule": one_of(*(rule.id for rule in rules)), **EXEMPTION})
    return tree


def _rule_section(rule: RuleInfo) -> Section:
    def action(value: object) -> str:
        word = one_of(*ACTIONS)(value)
        if word not in rule.actions:
            raise Mistake(f"this rule does not offer '{word}': choose from {', '.join(rule.actions)}")
        return word

    params = {name: _param(param) for name, param in rule.params.items()}
    return {"action": action, "report": one_of(*CONFIDENCES), "block": one_of(*CONFIDENCES), **params}


def _param(param: Param) -> Reader:
    return one_of(*param.choices) if param.choices else UNITS[param.unit]


# --- from the sources --------------------------------------------------------------------------


def load(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    rules: Sequence[RuleInfo],
    baselined: bool = True,
    defaults: Settings = SHIPPED,
) -> Loaded:
    """Settings from the file, overridden by `CIO_PROXY_*`, overridden by flags (dotted keys). Raises ConfigError.

    Without `baselined` the baseline is named and not read: it may be about to be made.
    """
    reading = _Reading(rules)
    if path is not None:
        reading.file(path)
    reading.environment(environ)
    for key, value in flags.items():
        if value is not None:
            reading.dotted(key, value, f"--{key.partition('.')[0].replace('_', '-')}")
    if baselined:
        reading.read_baseline()
    settings = reading.applied(defaults)
    return Loaded(settings, tuple(_warnings(settings, rules)))


def kept(new: Settings, old: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The new settings with the old value of each option that needs a restart, and the keys of those that differ."""
    names = []
    for option in OPTIONS:
        before = attrgetter(option.path)(old)
        if option.restart and attrgetter(option.path)(new) != before:
            names.append(option.key)
            new = _changed(new, option.path, before)
    return new, tuple(names)


def expired(settings: Settings, now: float) -> tuple[str, ...]:
    """A line for each exemption that holds no more."""
    return tuple(
        f"the exemption '{each.label}' expired on {datetime.fromtimestamp(each.expires, UTC):%Y-%m-%d %H:%M} UTC: "
        "its findings count again; renew it or take it out"
        for each in settings.exemptions
        if each.expires is not None and not each.holds(now)
    )


def overlay(settings: Settings, changes: Mapping[str, object], *, rules: Sequence[RuleInfo]) -> Settings:
    """Settings with some dotted keys changed, such as `rules.missing-email.window`. Raises ConfigError."""
    reading = _Reading(rules)
    for key, value in changes.items():
        reading.dotted(key, value, named(key))
    return reading.applied(settings)


def variable(option: Option) -> str:
    """The name of the variable that overrides an option."""
    return VARIABLES.get(option.key) or PREFIX + option.key.upper().replace(".", "_")


class _Reading:
    """The values read so far, later sources over earlier ones, and every mistake on the way."""

    def __init__(self, rules: Sequence[RuleInfo]) -> None:
        self._sections = _sections(rules)
        self._values: dict[tuple[str, ...], Any] = {}
        self._items: dict[tuple[str, ...], str] = {}
        """The items of lists, and where each stands."""
        self._baselined: frozenset[str] = frozenset()
        self._mistakes: list[str] = []

    def file(self, path: Path) -> None:
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
        except UnicodeDecodeError:
            self._wrong(str(path), "not UTF-8 text; save it as UTF-8")
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "cannot be read").lower()
            self._wrong(str(path), f"{reason}; give --config a readable file")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
            self._wrong(
                f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path), f"not YAML: {named(reason)}"
            )
        except RecursionError:
            self._wrong(str(path), "nested too deeply; no option is deeper than three levels")
        else:
            if isinstance(root, yaml.MappingNode):
                self._section(root, self._sections, (), str(path))
            elif root is not None:
                self._wrong(str(path), "not a mapping; write `key: value` lines")

    def environment(self, environ: Mapping[str, str]) -> None:
        keys = {variable(each): each.key for each in OPTIONS if each.read is not clients}
        for name, value in environ.items():
            if name in keys:
                self.dotted(keys[name], value, name)
            elif name.startswith(PREFIX) and name not in NOT_SETTINGS:
                self._unknown(named(name), "variable", name, tuple(keys))

    def dotted(self, key: str, value: object, place: str) -> None:
        at: Reader | Section = self._sections
        path = tuple(key.split("."))
        for name in path:
            if not isinstance(at, Mapping):
                return self._wrong(place, "goes too deep: there is nothing below this key")
            if name not in at:
                return self._unknown(place, f"key '{named(name)}'", name, tuple(at))
            at = at[name]
        if isinstance(at, EachItem):
            return self._wrong(place, "a list: it can only be given in a file")
        if isinstance(at, Mapping):
            return self._wrong(place, f"a section: set one of {', '.join(at)} in it")
        return self._take(path, at, value, place)

    def read_baseline(self) -> None:
        """Read the file that was named last."""
        if (named := self._values.get(("baseline",))) is not None:
            try:
                self._baselined = baseline.read(Path(named)).fingerprints
            except baseline.BaselineError as error:
                self._mistakes.append(str(error))

    def applied(self, settings: Settings) -> Settings:
        """The settings with what was read. Raises ConfigError."""
        exemptions = tuple(filter(None, map(self._exemption, self._items)))
        if self._mistakes:
            raise ConfigError("\n".join(self._mistakes))
        for option in OPTIONS:
            if (path := tuple(option.key.split("."))) in self._values:
                settings = _changed(settings, option.path, self._values[path])
        rules, workspaces = dict(settings.rules), dict(settings.workspaces)
        for path, value in self._values.items():
            match path:
                case "rules", id, "action" | "report" | "block" as name:
                    rules[id] = replace(rules.get(id, DEFAULT_RULE), **{name: value})
                case "rules", id, name:
                    old = rules.get(id, DEFAULT_RULE)
                    rules[id] = replace(old, params={**old.params, name: value})
                case "workspaces", id, name:
                    workspaces[id] = replace(workspaces.get(id, WorkspaceSettings()), **{name: value})
        if settings.facts is not None and settings.facts.kind == "redis" and settings.hash_key_file is None:
            raise ConfigError(f"facts: {HASH_KEY_MISSING}")
        if settings.tls.key is not None and settings.tls.certificate is None:
            raise ConfigError(CERTIFICATE_MISSING)
        if (settings.inbound is None) is not (settings.app is None):
            raise ConfigError(APP_MISSING if settings.app is None else INBOUND_MISSING)
        if settings.probe.share and settings.inbound is None:
            raise ConfigError(PROBE_BLIND)
        if settings.probe.share and (forbidden := settings.not_probed):
            raise ConfigError(PROBE_FORBIDDEN.format(", ".join(forbidden)))
        return replace(
            settings,
            rules=rules,
            workspaces=workspaces,
            exemptions=settings.exemptions + exemptions,
            baselined=settings.baselined | self._baselined,
        )

    def _exemption(self, item: tuple[str, ...]) -> Exemption | None:
        given = {path[-1]: value for path, value in self._values.items() if path[:-1] == item}
        missing = [key for key in ("rule", "reason") if key not in given]
        if not any(key in given for key in MATCHERS):
            missing.append(f"one of {', '.join(MATCHERS)}")
        if missing:
            self._wrong(self._items[item], f"an exemption needs {' and '.join(missing)}")
            return None
        return Exemption(**given)

    def _section(self, node: yaml.MappingNode, section: Section, path: tuple[str, ...], file: str) -> None:
        seen: set[str] = set()
        for key, value in node.value:
            place, name = _place(file, key), str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(place, "not a key; write `key: value` lines")
            elif name in seen:
                self._wrong(place, f"the key '{named(name)}' stands here twice; keep one")
            elif name not in section:
                self._unknown(place, f"key '{named(name)}'", name, tuple(section))
            elif value.tag != "tag:yaml.org,2002:null":
                self._below(value, section[name], (*path, name), file)
            seen.add(name)

    def _below(self, node: yaml.Node, at: Reader | Section, path: tuple[str, ...], file: str) -> None:
        place, key = _place(file, node), ".".join(map(named, path))
        if not isinstance(at, Mapping):
            try:
                value = _Loader("").construct_object(node, deep=True)
            except _Twice as twice:
                self._wrong(
                    _place(file, twice.node), f"the key '{named(twice.node.value)}' stands here twice; keep one"
                )
            except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
                self._wrong(place, f"{key}: not a value; leave out tags (!) and aliases (*)")
            else:
                self._take(path, at, value, f"{place}: {key}")
        elif isinstance(at, EachItem):
            self._list(node, at, path, file)
        elif isinstance(node, yaml.MappingNode):
            self._section(node, at, path, file)
        else:
            self._wrong(place, f"{key}: a section; write `key: value` lines below it")

    def _list(self, node: yaml.Node, section: Section, path: tuple[str, ...], file: str) -> None:
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        if not all(isinstance(item, yaml.MappingNode) for item in items) or not isinstance(node, yaml.SequenceNode):
            self._wrong(_place(file, node), f"{'.'.join(path)}: a list; write `- key: value` lines below it")
            return
        for index, item in enumerate(items):
            self._items[*path, str(index)] = _place(file, item)
            self._section(item, section, (*path, str(index)), file)

    def _take(self, path: tuple[str, ...], read: Reader, value: object, place: str) -> None:
        try:
            self._values[path] = read(value)
        except Mistake as mistake:
            self._wrong(place, str(mistake))

    def _unknown(self, place: str, what: str, name: str, choices: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, choices, 1)
        hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(choices)}"
        self._wrong(place, f"unknown {what}{hint}")

    def _wrong(self, place: str, message: str) -> None:
        self._mistakes.append(f"{place}: {message}")


class _Twice(yaml.YAMLError):
    """A key that stands twice in one mapping."""

    def __init__(self, node: yaml.ScalarNode) -> None:
        super().__init__()
        self.node = node


class _Loader(yaml.SafeLoader):
    """YAML that means what it says.

    Only true and false are booleans, so that `action: off` stays a word; only plain decimals are numbers (YAML 1.1
    reads 010 as 8 and 1:30 as 90); and no key stands twice.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _Twice(key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


for tag, pattern, first in (
    ("null", r"(?:~|null|)\Z", ["~", "n", ""]),
    ("bool", r"(?:true|false)\Z", ["t", "f"]),
    ("int", r"-?(?:0|[1-9][0-9]{0,17})\Z", list("-0123456789")),
    ("float", r"-?[0-9]{1,17}\.[0-9]{1,17}\Z", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _changed(settings: Settings, path: str, value: Any) -> Settings:
    top, _, name = path.partition(".")
    if name:
        value = replace(getattr(settings, top), **{name: value})
    return replace(settings, **{top: value})


def _warnings(settings: Settings, rules: Sequence[RuleInfo]) -> list[str]:
    lines = []
    if settings.explicit is not None and not settings.explicit.is_loopback:
        lines.append(
            f"explicit: whoever reaches {settings.explicit} can connect to anything through it, and nobody is asked "
            "for a password; bind it to 127.0.0.1 or keep others away"
        )
    for rule in rules:
        said = settings.rule(rule.id)
        block, report = said.block or settings.block, said.report or settings.report
        if said.action == "block" and rule.caution:
            lines.append(f"rules.{rule.id}: {rule.caution}")
        if said.block and ("block" not in rule.actions or said.action in ("off", "log", "pace")):
            lines.append(f"rules.{rule.id}.block: never reached, because this rule blocks nothing; leave it out")
        elif (said.block or said.action == "block") and CONFIDENCES.index(rule.surest) > CONFIDENCES.index(block):
            lines.append(
                f"rules.{rule.id}: never blocks, because it blocks from '{block}' and its findings are at most "
                f"'{rule.surest}'; set rules.{rule.id}.block: {rule.surest}"
            )
        elif said.action == "block" and CONFIDENCES.index(block) > CONFIDENCES.index(report):
            lines.append(
                f"rules.{rule.id}: blocks from '{block}', but what is below '{report}' is not even reported; "
                f"set rules.{rule.id}.report: {block}"
            )
    return lines


# --- and back ----------------------------------------------------------------------------------


def written(settings: Settings, rules: Sequence[RuleInfo]) -> str:
    """The settings as a file that gives the same, but for a signing key in clear."""
    tree: dict[str, Any] = {}
    for option in OPTIONS:
        value = attrgetter(option.path)(settings)
        if value is not None and option.key not in VARIABLES:
            top, _, name = option.key.partition(".")
            section = tree.setdefault(top, {}) if name else tree
            section[name or top] = value_written(value, option.read)
    readers = {rule.id: {name: _param(param) for name, param in rule.params.items()} for rule in rules}
    tree["rules"] = {
        id: {
            **_given({"action": said.action, "report": said.report, "block": said.block}),
            **{name: value_written(value, readers[id][name]) for name, value in said.params.items()},
        }
        for id, said in settings.rules.items()
    }
    tree["workspaces"] = {
        name: {key: value_written(getattr(each, key), read) for key, read in WORKSPACE.items() if getattr(each, key)}
        for name, each in settings.workspaces.items()
    }
    tree["exemptions"] = [
        {
            key: value_written(value, moment if key == "expires" else text)
            for key in ("rule", *EXEMPTION)
            if (value := getattr(each, key)) is not None
        }
        for each in settings.exemptions
    ]
    shown = {key: value for key, value in tree.items() if value not in ({}, [])}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)


def value_written(value: Any, read: Reader) -> Any:
    """A value as a file has it: `5s`, `64MiB`, `127.0.0.1:8080`."""
    if read is share:
        return f"{100 * value:.9g}%"
    if read in (duration, wait, held):
        return _in_units(value, {"d": 86_400, "h": 3_600, "m": 60}) or (
            f"{value:g}s" if value >= 1 else f"{1000 * value:g}ms"
        )
    if read is size:
        return _in_units(value, {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}) or value
    if read is moment:
        return datetime.fromtimestamp(value, UTC).isoformat()
    if isinstance(value, Address | UpstreamProxy | FactStore):
        return str(value)
    if isinstance(value, SigningKeys):
        return value.file
    if isinstance(value, TrackingPlan):
        return value.source or plans.tree(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _in_units(value: float, units: Mapping[str, int]) -> str | None:
    return next((f"{value // size:.0f}{unit}" for unit, size in units.items() if value and value % size == 0), None)


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}
