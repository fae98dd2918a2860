"""From a YAML file, the environment and flags to `Settings`: every mistake at once, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from cio_proxy.model import (
    CONFIDENCES,
    Action,
    Address,
    Param,
    RuleInfo,
    RuleSettings,
    Settings,
    WorkspaceSettings,
)

PREFIX = "CIO_PROXY_"
NOT_SETTINGS = frozenset({"CIO_PROXY_CONFIG", "CIO_PROXY_URL"})
ACTIONS: tuple[Action, ...] = ("off", "log", "block", "default")

_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)\s*([kmg]?i?b?)\Z", re.IGNORECASE)
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-fA-F]{64}\Z")


class ConfigError(Exception):
    """One line for each mistake: where it is, what is wrong, what to do."""


class Loaded(NamedTuple):
    """The settings, and lines about what is legal and yet cannot be meant."""

    settings: Settings
    warnings: tuple[str, ...]


class Mistake(ValueError):
    """A value that cannot be used; the caller knows its place."""


# --- values ------------------------------------------------------------------------------------


def duration(value: object) -> float:
    """`500ms`, `5s`, `1h30m`, or a number of seconds. Raises Mistake."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str) and value and not _TIME.sub("", value.strip()):
        return sum(float(number) * _TIME_UNITS[unit] for number, unit in _TIME.findall(value))
    raise Mistake("not a duration: write 500ms, 5s, 10m or 1h30m")


def size(value: object) -> int:
    """`64KB`, `10MiB`, or a number of bytes. Raises Mistake."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.match(value.strip())) and match[2].lower() in _SIZE_UNITS:
        return int(match[1]) * _SIZE_UNITS[match[2].lower()]
    raise Mistake("not a size: write 65536, 64KiB or 10MiB")


def address(value: object) -> Address:
    """`HOST:PORT`, `[::1]:8080`. Raises Mistake."""
    host, colon, port = str(value).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise Mistake("not an address: write HOST:PORT, such as 127.0.0.1:8080 (port 0 takes a free one)")
    return Address(host, int(port))


def count(value: object) -> int:
    """A whole number, 1 or more. Raises Mistake."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
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
    if isinstance(value, str) and value:
        return value
    raise Mistake("not a text")


def upstream(value: object) -> str:
    """`sandbox`, `live`, `live-eu` or a URL without a path. Raises Mistake."""
    if value in ("sandbox", "live", "live-eu"):
        return str(value)
    try:
        parts = urlsplit(str(value))
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and not parts.query
        _ = parts.port
    except ValueError:
        ok = False
    if not ok:
        raise Mistake("not an upstream: write sandbox, live, live-eu, or a URL such as http://127.0.0.1:9000")
    return str(value).rstrip("/")


def memory(value: object) -> str:
    """Where facts are kept. Raises Mistake."""
    if value == "memory:":
        return "memory:"
    raise Mistake("not a fact store: write memory:")


def one_of(*choices: str) -> Callable[[object], str]:
    """One of a few words."""

    def choose(value: object) -> str:
        if value in choices:
            return str(value)
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise Mistake(f"not one of {', '.join(choices)}{hint}")

    return choose


def names(value: object) -> tuple[str, ...]:
    """A list of texts. Raises Mistake."""
    members = value.split(",") if isinstance(value, str) else value
    if not isinstance(members, list | tuple):
        raise Mistake("not a list")
    return tuple(str(member).strip() for member in members)


def digests(value: object) -> tuple[str, ...]:
    """A list of SHA-256 digests. Raises Mistake."""
    members = names(value)
    if not all(_DIGEST.match(member) for member in members):
        raise Mistake("keys are given as sha256:<64 hexadecimal digits>, never in clear")
    return members


def clients(value: object) -> dict[str, str]:
    """Names by a part of the User-Agent. Raises Mistake."""
    if not isinstance(value, dict) or len(value) > 20:
        raise Mistake("not a mapping of at most 20 User-Agent texts to names")
    return {str(key): str(name) for key, name in value.items()}


class Option(NamedTuple):
    """One key of the file: its path in the file, in Settings, how it is read, and what it means."""

    key: str
    path: str
    read: Callable[[object], Any]
    about: str


OPTIONS: tuple[Option, ...] = (
    Option("listen", "listen", address, "where the app sends its Customer.io traffic"),
    Option("admin", "admin", address, "where metrics and findings are served"),
    Option("upstream", "upstream", upstream, "sandbox, live, live-eu, or a URL"),
    Option("enforcement", "enforcement", one_of("observe", "enforce"), "log what would be blocked, or block it"),
    Option("people", "people", one_of("partial", "complete"), "whether every person is known to the proxy"),
    Option("on_error", "on_error", one_of("pass", "block"), "what happens to an exchange whose audit fails"),
    Option("thresholds.report", "report", one_of(*CONFIDENCES), "findings below this confidence are not reported"),
    Option("thresholds.block", "block", one_of(*CONFIDENCES), "findings below this confidence never block"),
    Option("findings_header", "findings_header", flag, "whether answers carry Cio-Proxy-Findings"),
    Option("show_values", "show_values", flag, "show values as sent; for local sessions only"),
    Option("max_audited_body", "max_audited_body", size, "larger bodies pass unread"),
    Option("state", "state", text, "the folder of the hash key and the certificates"),
    Option("facts", "facts", memory, "where facts are kept"),
    Option("facts_limit", "facts_limit", count, "how many facts are kept"),
    Option("journal.path", "journal.path", text, "the file that findings are written to, as JSON lines"),
    Option("journal.max_size", "journal.max_bytes", size, "the size at which it is rotated"),
    Option("journal.keep", "journal.keep", count, "how many rotated files are kept"),
    Option("journal.queue", "journal.queue", count, "how many findings may wait to be written"),
    Option("timeouts.connect", "timeouts.connect", duration, "the wait for an upstream connection"),
    Option("timeouts.response", "timeouts.response", duration, "the wait for an upstream answer"),
    Option("timeouts.drain", "timeouts.drain", duration, "the wait for requests in flight when stopping"),
    Option("clients", "clients", clients, "names of clients by a part of their User-Agent"),
)
BY_KEY = {option.key: option for option in OPTIONS}
SECTIONS = ("rules", "workspaces")
TOP = tuple(dict.fromkeys([option.key.partition(".")[0] for option in OPTIONS] + list(SECTIONS)))
WORKSPACE_READERS: Mapping[str, Callable[[object], Any]] = {
    "site_ids": names,
    "track_keys": digests,
    "app_keys": digests,
    "pipelines_keys": digests,
}


# --- the file ----------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML whose booleans are only true and false, so that `action: off` stays a word."""


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), ["t", "f"])


@dataclass(slots=True)
class _Source:
    """Where values come from, and the mistakes that were found in them."""

    rules: Mapping[str, RuleInfo]
    mistakes: list[str] = field(default_factory=list)
    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Dotted key to value and place."""

    def wrong(self, place: str, message: str) -> None:
        self.mistakes.append(f"{place}: {message}")

    def unknown(self, place: str, key: str, choices: Sequence[str]) -> None:
        near = difflib.get_close_matches(key, choices, 1)
        hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(choices)}"
        self.wrong(place, f"unknown key '{key[:60]}'{hint}")


def load(
    path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], *, rules: Sequence[RuleInfo]
) -> Loaded:
    """Settings from the file, overridden by `CIO_PROXY_*`, overridden by flags (dotted keys). Raises ConfigError."""
    source = _Source({rule.id: rule for rule in rules})
    if path is not None:
        _read_file(path, source)
    _read_environment(environ, source)
    for key, value in flags.items():
        if value is not None:
            source.values[key] = (value, f"--{key.partition('.')[0].replace('_', '-')}")
    return _settled(Settings(), source)


def overlay(settings: Settings, changes: Mapping[str, object], *, rules: Sequence[RuleInfo]) -> Settings:
    """Settings with some dotted keys changed. Raises ConfigError."""
    source = _Source({rule.id: rule for rule in rules})
    source.values = {key: (value, key) for key, value in changes.items()}
    return _settled(settings, source).settings


def _read_file(path: Path, source: _Source) -> None:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: {(error.strerror or 'cannot be read').lower()}; give --config a readable file"
        ) from None
    try:
        root = yaml.compose(content, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: not a mapping: write `key: value` lines")
    _flatten(root, "", path, source)
    if source.mistakes:
        source.mistakes.sort(
            key=lambda line: (
                [int(n) for n in re.findall(r":(\d+):(\d+):", line)[0]] if re.search(r":\d+:\d+:", line) else [0]
            )
        )


def _flatten(node: yaml.MappingNode, prefix: str, path: Path, source: _Source) -> None:
    loader = _Loader("")
    seen: set[str] = set()
    for key_node, value_node in node.value:
        place = f"{path}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            source.wrong(place, "a key is a word")
            continue
        name = str(key_node.value)
        if name in seen:
            source.wrong(place, f"the key '{name[:60]}' stands here twice")
            continue
        seen.add(name)
        key = f"{prefix}{name}"
        top = key.partition(".")[0]
        nested = key in ("thresholds", "journal", "timeouts", *SECTIONS) or (top in SECTIONS and prefix.count(".") == 1)
        if nested:
            if isinstance(value_node, yaml.MappingNode):
                if top == "rules" and prefix and name not in source.rules:
                    source.unknown(place, name, tuple(source.rules))
                    continue
                _flatten(value_node, f"{key}.", path, source)
            elif value_node.tag != "tag:yaml.org,2002:null":
                source.wrong(place, f"'{name[:60]}' holds `key: value` lines")
            continue
        where = f"{path}:{value_node.start_mark.line + 1}:{value_node.start_mark.column + 1}"
        if not prefix and name not in TOP:
            source.unknown(place, name, TOP)
            continue
        if value_node.tag == "tag:yaml.org,2002:null":
            continue
        try:
            source.values[key] = (loader.construct_object(value_node, deep=True), where)
        except yaml.YAMLError:
            source.wrong(where, "a value that cannot be read")


def _read_environment(environ: Mapping[str, str], source: _Source) -> None:
    known = {PREFIX + option.key.upper().replace(".", "_"): option.key for option in OPTIONS if option.key != "clients"}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if name in known:
            source.values[known[name]] = (value, name)
        else:
            source.unknown(name, name, tuple(known))


# --- settings ----------------------------------------------------------------------------------


def _settled(settings: Settings, source: _Source) -> Loaded:
    changes: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {"journal": {}, "timeouts": {}}
    rules: dict[str, dict[str, Any]] = {}
    workspaces: dict[str, dict[str, Any]] = {}
    for key, (value, place) in source.values.items():
        try:
            if key.startswith("rules."):
                _rule_value(key, value, place, source, rules)
            elif key.startswith("workspaces."):
                _, name, item = (*key.split(".", 2), "")[:3]
                if item not in WORKSPACE_READERS:
                    source.unknown(place, item, tuple(WORKSPACE_READERS))
                else:
                    workspaces.setdefault(name, {})[item] = WORKSPACE_READERS[item](value)
            elif key not in BY_KEY:
                source.unknown(place, key.rpartition(".")[2], tuple(BY_KEY))
            else:
                option = BY_KEY[key]
                head, _, rest = option.path.partition(".")
                (nested[head] if rest else changes)[rest or head] = option.read(value)
        except Mistake as mistake:
            source.wrong(place, f"{key}: {mistake}")
    if source.mistakes:
        raise ConfigError("\n".join(source.mistakes))
    merged = dict(settings.rules)
    for id, said in rules.items():
        old = merged.get(id, RuleSettings())
        plain = {f.name for f in fields(RuleSettings)} & said.keys()
        params = {**old.params, **{name: value for name, value in said.items() if name not in plain}}
        merged[id] = replace(old, **{name: said[name] for name in plain}, params=params)
    result = replace(
        settings,
        **changes,
        journal=replace(settings.journal, **nested["journal"]) if nested["journal"] else settings.journal,
        timeouts=replace(settings.timeouts, **nested["timeouts"]) if nested["timeouts"] else settings.timeouts,
        rules=merged or settings.rules,
        workspaces={**settings.workspaces, **{name: WorkspaceSettings(**w) for name, w in workspaces.items()}}
        or settings.workspaces,
    )
    return Loaded(result, tuple(_warnings(result, source)))


def _rule_value(key: str, value: Any, place: str, source: _Source, rules: dict[str, dict[str, Any]]) -> None:
    _, id, name = (*key.split(".", 2), "")[:3]
    info = source.rules.get(id)
    if info is None:
        source.unknown(place, id, tuple(source.rules))
        return
    said = rules.setdefault(id, {})
    if name == "action":
        said["action"] = one_of(*ACTIONS)(value)
        if said["action"] not in info.actions:
            raise Mistake(f"this rule cannot {said['action']}: its actions are {', '.join(info.actions)}")
    elif name in ("report", "block"):
        said[name] = one_of(*CONFIDENCES)(value)
    elif name in info.params:
        said[name] = _param(info.params[name], value)
    else:
        source.unknown(place, name, ("action", "report", "block", *info.params))


def _param(param: Param, value: object) -> Any:
    if param.choices:
        return one_of(*param.choices)(value)
    readers: Mapping[str, Callable[[object], Any]] = {
        "duration": duration,
        "size": size,
        "count": count,
        "text": text,
        "names": names,
    }
    return readers[param.unit](value)


def _warnings(settings: Settings, source: _Source) -> list[str]:
    lines = []
    for id, said in settings.rules.items():
        block, report = said.block or settings.block, said.report or settings.report
        if said.action == "block" and CONFIDENCES.index(block) > CONFIDENCES.index(report):
            lines.append(f"rules.{id}: it blocks from '{block}', but what is below '{report}' is not even reported")
    return lines
