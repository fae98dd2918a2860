"""The baseline: a file of findings that are accepted as they are, so that only new ones count.

A line is one kind of finding, with all that makes it one: the rule, the path template, the pointer
without positions, the name without personal and variable parts, and last the fingerprint of these
four. What is accepted can be read in a review, and no line can be made to mean another finding unseen.
Lines are sorted by their characters and hold no time, count or value, and nothing of the machine:
equal findings give equal files, and two branches' files merge as the union of their lines.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple
from unicodedata import category

from cio_proxy.masking import masked
from cio_proxy.model import TAKEN
from cio_proxy.recognise import template

HEAD: Final = (
    "# Findings that cio-proxy accepts: they are counted as baselined, never block, and are not shown.",
    "# Rule, endpoint, pointer, name, fingerprint. `cio-proxy baseline` adds lines; with --prune it removes them.",
)
"""The comment of a new file."""
MISTAKES: Final = 5
"""How many mistakes of a file are told: one that is no baseline at all has one in every line."""
MODE: Final = 0o644
"""Who may read a new file: it is made to be shared."""

_COLUMN = r'("(?:[^"\\]|\\.)*"|[^ \t"][^ \t]*)'
_LINE = re.compile(r"[ \t]+".join((*[_COLUMN] * 4, r"([0-9a-f]{16})")))
_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})
"""Categories of what a reader could not see, or would see somewhere else."""


class BaselineError(Exception):
    """One line for each mistake: where it is, what is wrong, what to do. No line shows what the file holds."""


class Entry(NamedTuple):
    """A kind of finding. `pointer` and `name` are shapes, free of positions, personal values and variable parts."""

    rule: str
    endpoint: str
    pointer: str
    name: str

    @property
    def fingerprint(self) -> str:
        """What two findings of this kind have in common. It is no keyed hash, since baselines are shared."""
        return blake2b("\0".join(self).encode("utf-8", "replace"), digest_size=8).hexdigest()

    @property
    def line(self) -> str:
        """Its line in a file; a column that is empty or hard to read stands in quotes, as JSON writes it."""
        return " ".join((*map(_column, self), self.fingerprint))


def entry(rule: str, endpoint: str, pointer: str, name: str | None) -> Entry:
    """The kind of a finding, from its texts as they are published: masked."""
    shape = "/".join("*" if part.isdigit() else part for part in template(pointer).split("/"))
    return Entry(rule, endpoint, shape, template(name or ""))


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a file holds: the comments above its entries, and the entries."""

    head: tuple[str, ...] = HEAD
    entries: frozenset[Entry] = frozenset()

    @property
    def fingerprints(self) -> frozenset[str]:
        """Those of its entries."""
        return frozenset(each.fingerprint for each in self.entries)

    @property
    def text(self) -> str:
        """The file."""
        return "".join(f"{line}\n" for line in (*self.head, *sorted(each.line for each in self.entries)))


class Seen(NamedTuple):
    """What a journal shows."""

    entries: frozenset[Entry] = frozenset()
    """The kinds of findings that no exemption covers."""
    fingerprints: frozenset[str] = frozenset()
    """Those of all findings."""
    untold: int = 0
    """How many kinds are without an entry: their texts were published with values that cannot be masked now."""
    unread: int = 0
    """How many lines are no findings."""


# --- the file ----------------------------------------------------------------------------------


def read(path: Path) -> Baseline:
    """The baseline in a file. Raises BaselineError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BaselineError(f"baseline {path}: no such file; `cio-proxy baseline {path}` makes it") from None
    except UnicodeDecodeError:
        raise BaselineError(f"baseline {path}: not UTF-8 text; name a file that `cio-proxy baseline` wrote") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "cannot be read").lower()
        raise BaselineError(f"baseline {path}: {reason}; name a readable file") from None
    return parsed(text, str(path))


def parsed(text: str, file: str) -> Baseline:
    """The baseline in a text, in any order. Comments below the first entry move up to the others.

    Raises BaselineError, which calls the text `file`.
    """
    head: list[str] = []
    entries: set[Entry] = set()
    mistakes: list[str] = []
    for number, line in enumerate(map(str.strip, text.removesuffix("\n").split("\n")), 1):
        if line.startswith("#") or (not line and head and not entries):
            head.append(line)
        elif line:
            try:
                entries.add(_parsed(line))
            except ValueError as mistake:
                mistakes.append(f"{file}:{number}: {mistake}")
    if len(mistakes) > MISTAKES:
        mistakes[MISTAKES:] = [f"{file}: {len(mistakes) - MISTAKES} more lines are wrong; is this a baseline?"]
    if mistakes:
        raise BaselineError("\n".join(mistakes))
    return Baseline(tuple(head), frozenset(entries))


def write(path: Path, baseline: Baseline) -> None:
    """Put a baseline in the place of what the file held, all of it or nothing. Raises OSError."""
    target = path.resolve()  # a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else MODE
    descriptor, new = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(baseline.text)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise


def _parsed(line: str) -> Entry:
    """The entry of a line. Raises ValueError with what is wrong and what to do."""
    if line.startswith(_CONFLICT):
        raise ValueError("a merge conflict; keep the lines of both sides and take out the markers")
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not an entry (rule, endpoint, pointer, name, fingerprint); take it out, or put # before it")
    *columns, fingerprint = match.groups()
    try:
        found = Entry(*(json.loads(each) if each[0] == '"' else each for each in columns))
    except ValueError:
        raise ValueError("what is in quotes is not written as in JSON; take the line out") from None
    if found.fingerprint != fingerprint:
        raise ValueError(
            "the fingerprint is not that of the other columns; entries are not edited: take the line out, "
            "and `cio-proxy baseline` writes it anew from a journal"
        )
    return found


def _column(text: str) -> str:
    written = "".join(c if _is_seen(c) else json.dumps(c)[1:-1] for c in text)
    bare = written == text and " " not in text and text[:1] not in ("", "#")
    return written if bare else f'"{written}"'


def _is_seen(c: str) -> bool:
    return c == " " or (c not in '"\\' and category(c) not in _HIDDEN)


# --- from a journal ----------------------------------------------------------------------------


def seen(lines: Iterable[bytes]) -> Seen:
    """What the lines of a journal show. Those that are no findings, such as half a line, are counted."""
    published: set[_Published] = set()
    unread = 0
    for line in lines:
        if (found := _published(line)) is not None:
            published.add(found)
        else:
            unread += bool(line.strip())
    kinds = {each.fingerprint: kind for each in published if not each.exempt and (kind := _kind(each))}
    untold = {each.fingerprint for each in published if not each.exempt} - kinds.keys()
    fingerprints = frozenset(each.fingerprint for each in published)
    return Seen(frozenset(kinds.values()), fingerprints, len(untold), unread)


class _Published(NamedTuple):
    """What a line of a journal says that matters here."""

    rule: str
    endpoint: str
    pointer: str
    name: str | None
    fingerprint: str
    exempt: bool


def _published(line: bytes) -> _Published | None:
    try:
        finding: dict[str, Any] = json.loads(line)
        texts = [finding[key] for key in ("rule", "endpoint", "pointer", "fingerprint")]
        name, action = finding["name"], finding["action"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in texts) or not isinstance(name, str | None) or action not in TAKEN:
        return None
    rule, endpoint, pointer, fingerprint = texts
    return _Published(rule, endpoint, pointer, name, fingerprint, action == "exempt")


def _kind(finding: _Published) -> Entry | None:
    """The entry that has the finding's fingerprint: of its texts, or of what masking leaves of texts shown as sent."""
    rule, endpoint, pointer, name, fingerprint, _ = finding
    as_published = entry(rule, endpoint, pointer, name)
    if as_published.fingerprint == fingerprint:
        return as_published
    of_masked = entry(rule, endpoint, masked(pointer), masked(name or ""))
    return of_masked if of_masked.fingerprint == fingerprint else None
