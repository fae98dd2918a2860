"""People whom the operator tells the proxy of, and what it knows of them altogether.

No function here gives or raises anything that names a person.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import batched
from typing import Final, NamedTuple

from cio_proxy.apis.credentials import Keyring
from cio_proxy.audit import Sealer
from cio_proxy.exports import Bad, Row
from cio_proxy.facts import Store, people, workspace
from cio_proxy.model import DELETED, IDENTIFIED, Fact, Kept, Key, People, Seal, Settings, Span

AT_ONCE: Final = 1_000
"""People whose facts are joined in one step."""
SHOWN: Final = 20
"""Bad rows that are kept to be told one by one; the others are counted."""
_SITE: Final = re.compile(r"[0-9A-Za-z]{20}\Z")
"""A Track site id (reference 1.3)."""


class Unnamed(Exception):
    """One line: why it is not clear which workspace is meant, and what to do."""


@dataclass(slots=True)
class Import:
    """What an import came to."""

    workspace: str
    people: int = 0
    identifiers: int = 0
    bad: list[Bad] = field(default_factory=list)
    """The first bad rows."""
    skipped: int = 0
    unread: bool = False
    """Whether somebody may be among the rows that were skipped."""
    complete: bool = False
    """Whether `people: complete` counts, where it is configured."""


async def told(
    store: Store,
    rows: Iterable[Row | Bad],
    workspace_name: str,
    seal: Seal,
    *,
    made: float,
    now: Callable[[], float],
    progress: Callable[[Import], None] = lambda done: None,
) -> Import:
    """Teach the store the people of an export that was made at `made`, and that these are all there are.

    The last is not taught where somebody may be among the rows that were skipped, or where there is nobody. What the
    proxy lost after `made` is not made up for: those people may be missing in the export.
    """
    sealer = Sealer(seal)
    done = Import(workspace_name)
    for batch in batched(rows, AT_ONCE):
        facts: list[Fact] = []
        for row in batch:
            if isinstance(row, Bad):
                done.unread |= row.lost
                done.skipped += 1
                if len(done.bad) < SHOWN:
                    done.bad.append(row)
                continue
            done.people += 1
            done.identifiers += len(row.identifiers)
            sealed = [sealer.subject((workspace_name, identifier, False)).sealed for identifier in row.identifiers]
            facts += people.told(workspace_name, sealed, row.email, made)
        if facts:
            await store.join_many(facts, (), now())
        progress(done)
    if done.people and not done.unread:
        await store.join_many([workspace.imported(workspace_name, made)], (), now())
    subject = workspace.subject(workspace_name)
    record = (await store.get_many([subject], (), now())).records.get(subject, {})
    done.complete = workspace.watch(record, now(), await _lost_everywhere(store, now())).whole
    return done


class Standing(NamedTuple):
    """What is known of a workspace. Times are Unix seconds."""

    workspace: str
    identifiers: int
    """Of people who exist: a person has one to four."""
    since: float | None
    """When its traffic was seen first."""
    lost: float | None
    """When something was forgotten, or passed unseen, last."""
    imported: float | None
    """When the export was made that was imported last."""
    complete: bool
    """Whether `people: complete` counts, where it is configured."""

    def record(self) -> dict[str, object]:
        """The same for a JSON document; times in RFC 3339."""
        times = {name: _time(getattr(self, name)) for name in ("since", "lost", "imported")}
        return {**self._asdict(), **times}

    def lines(self, configured: People) -> Iterator[str]:
        """The same for a reader."""
        yield f"workspace {self.workspace or '(without credentials)'}"
        yield f"  known      {self.identifiers:,} identifiers of people (a person has one to four)"
        yield f"  watched    {f'since {_time(self.since)}' if self.since else 'not yet'}"
        yield f"  lost       {f'facts, last at {_time(self.lost)}' if self.lost else 'nothing'}"
        yield f"  imported   {f'an export of {_time(self.imported)}' if self.imported else 'nothing'}"
        if not self.complete and self.imported is None:
            yield "  complete   does not count: its people were never imported; export everybody, and import it"
        elif not self.complete:
            yield "  complete   does not count: facts were lost after the last export; export again, and import it"
        elif configured == "complete":
            yield "  complete   counts: who is unknown is a fault"
        else:
            yield "  complete   would count, but the configuration says people: partial"


async def workspaces(store: Store, now: float) -> list[str]:
    """The names of the workspaces that the store knows."""
    kinds = (workspace.OBSERVED, workspace.IMPORTED)
    return sorted({key.workspace for kind in kinds async for key, _ in _living(store, kind, now)})


async def standings(store: Store, now: float, empty: bool = False) -> list[Standing]:
    """What is known of each workspace, by name. They began `empty` where nobody need be imported."""
    records: dict[str, dict[str, Kept]] = {}
    for kind in (workspace.OBSERVED, workspace.LOST, workspace.IMPORTED):
        async for key, kept in _living(store, kind, now):
            if key.of != workspace.EVERY:
                records.setdefault(key.workspace, {})[kind] = kept
    gone = {key.of: _last(kept) async for key, kept in _living(store, DELETED, now)}
    identifiers: Counter[str] = Counter()
    async for key, kept in _living(store, IDENTIFIED, now):
        if gone.get(key.of, float("-inf")) <= _last(kept):
            identifiers[key.workspace] += 1
    missed = await _lost_everywhere(store, now)
    names = sorted({*records, *identifiers})
    return [
        _standing(name, identifiers[name], record, workspace.watch(record, now, missed, empty), missed)
        for name in names
        for record in [records.get(name, {})]
    ]


def _standing(
    name: str, identifiers: int, record: Mapping[str, Kept], watch: workspace.Watch, missed: float | None
) -> Standing:
    observed, lost, imported = (
        workspace.span(record, kind) for kind in (workspace.OBSERVED, workspace.LOST, workspace.IMPORTED)
    )
    losses = [at for at in (lost and lost.last, missed) if at is not None]
    return Standing(
        workspace=name,
        identifiers=identifiers,
        since=observed and observed.first,
        lost=max(losses, default=None),
        imported=imported and imported.last,
        complete=watch.whole,
    )


async def _lost_everywhere(store: Store, now: float) -> float | None:
    """When something was lost last of which nobody knows the workspace."""
    record = (await store.get_many([workspace.EVERY], (), now)).records.get(workspace.EVERY, {})
    lost = workspace.span(record, workspace.LOST)
    return lost and lost.last


async def _living(store: Store, kind: str, now: float) -> AsyncIterator[tuple[Key, Kept]]:
    async for key, kept in store.scan(kind):
        if kept.expiry > now:
            yield key, kept


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _last(kept: Kept) -> float:
    return kept.value.last if isinstance(kept.value, Span) else float("-inf")


def named(name: str | None, known: Sequence[str], settings: Settings, seal: Seal) -> str:
    """The workspace of a configured name, of a site id, or of a name that the store knows. Raises Unnamed.

    Without a name it is the only one that is configured, or else known.
    """
    configured = tuple(settings.workspaces)
    others = [each for each in known if each]
    choices = ", ".join(dict.fromkeys([*configured, *others])) or "none yet"
    if name is None:
        candidates = configured or others
        if len(candidates) == 1:
            return candidates[0]
        raise Unnamed(f"give --workspace a name or a Track site id; known are: {choices}")
    if name in configured or name in others:
        return name
    site = Keyring(settings.workspaces, seal).site(name)
    if site in configured or site in others or _SITE.match(name):
        return site
    near = difflib.get_close_matches(name, configured, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are: {choices}"
    raise Unnamed(f"--workspace is neither a configured name nor a Track site id; {hint}")
