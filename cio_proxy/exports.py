"""Customer.io's exports of people, as CSV or as JSON lines: row by row, in bounded memory.

The columns are those of an export from the People page (`id`, `email`, `cio_id`, and one for each attribute) or of the
people files of a data warehouse (`customer_id`, `email_addr`, `internal_customer_id`); all others are passed over. A
JSON line may also be what the App API answers: an object with `identifiers` and `attributes`.

What cannot be read is a `Bad` row, never an exception; only a file that is no export at all raises `NotAnExport`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import quote

from cio_proxy.apis.parts import lower, mapping, person_in_path, text
from cio_proxy.masking import masked
from cio_proxy.model import Person

LONGEST: Final = 1 << 20
"""Bytes of the longest line that is read; a person of Customer.io has at most 100 KB of attributes."""
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "id": ("id", "customer_id"),
    "email": ("email", "e_mail", "email_address", "email_addr"),
    "phone": ("phone",),
    "cio_id": ("cio_id", "internal_customer_id"),
}
"""The identifiers of a person, and what their columns are called, the usual name first."""
WANTED: Final = "id, email or cio_id"
_COLUMN = re.compile(r"(?=.*[A-Za-z])[\w .$/-]{1,60}\Z")


class NotAnExport(Exception):
    """One line: why nothing can be read from a file, and what to do."""


class Row(NamedTuple):
    """A person, by everything that traffic may call them, as `kind:value`; and whether they have an e-mail address."""

    line: int
    identifiers: tuple[str, ...]
    email: bool


class Bad(NamedTuple):
    """A row that tells of nobody. `lost` says that it may have been somebody."""

    line: int
    reason: str
    lost: bool = True


type Cells = Mapping[str, Any]


def rows(file: BinaryIO) -> Iterator[Row | Bad]:
    """Every row of an export, gzipped or not. Raises NotAnExport, at once or where compressed data breaks off."""
    source: io.BufferedReader[Any] = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
    if source.peek(2)[:2] == b"\x1f\x8b":
        source = io.BufferedReader(gzip.GzipFile(fileobj=source))
    lines = _Lines(source)
    try:
        start = source.peek(4)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise NotAnExport("the file is UTF-16; save it as UTF-8")
        if start.startswith(b"PK\x03\x04"):
            raise NotAnExport("the file is a ZIP archive; unpack it first")
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            yield from lines.bad()
            return
        lines.back([(lines.number, first)])
        if first.lstrip().startswith("["):
            raise NotAnExport("the file is a JSON array; write one object a line: jq -c '.[]'")
        yield from _json(lines) if first.lstrip().startswith("{") else _csv(lines, first)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise NotAnExport(f"the compressed data breaks off after line {lines.number}; get the file again") from error


class _Lines:
    """The lines of a file as text, each with its end. Those that are none are skipped, and stand in `bad`."""

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self.number = 0
        """Of the line given last."""
        self._read = 0
        self._file = file
        self._back: deque[tuple[int, str]] = deque()
        self._bad: list[Bad] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._back:
            self.number, text = self._back.popleft()
            return text
        while line := self._file.readline(LONGEST):
            self._read += 1
            if len(line) == LONGEST and not line.endswith(b"\n"):
                while (rest := self._file.readline(LONGEST)) and not rest.endswith(b"\n"):
                    pass
                self._bad.append(Bad(self._read, f"a line of more than {LONGEST >> 20} MiB"))
                continue
            try:
                text = line.decode("utf-8-sig" if self._read == 1 else "utf-8")
            except UnicodeDecodeError:
                self._bad.append(Bad(self._read, "not UTF-8"))
            else:
                self.number = self._read
                return text
        self.number = self._read
        raise StopIteration

    def back(self, lines: Sequence[tuple[int, str]]) -> None:
        """Give these lines again, each with its number, before all others."""
        self._back.extendleft(reversed(lines))

    def bad(self) -> list[Bad]:
        """What was skipped since this was asked last."""
        bad, self._bad = self._bad, []
        return bad


# --- CSV ---------------------------------------------------------------------------------------


def _csv(lines: _Lines, first: str) -> Iterator[Row | Bad]:
    delimiter = next((each for each in ",;\t" if _columns(next(csv.reader([first], delimiter=each), []))), ",")
    header: list[str] | None = None
    columns: Mapping[str, int] = {}
    for line, cells in _records(lines, delimiter):
        yield from lines.bad()
        if isinstance(cells, Bad):
            yield cells
        elif header is None:
            header, columns = cells, _columns(cells)
            if not columns:
                raise NotAnExport(_wrong(header))
        elif len(cells) != len(header):
            if cells:
                yield Bad(line, f"{len(cells)} fields where the header has {len(header)}")
        else:
            yield _row(line, {name: cells[index].strip() for name, index in columns.items()})
    yield from lines.bad()


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Bad]]:
    """The records, each with the line that it starts in; after a broken one the next line is a new beginning."""
    held: list[tuple[int, str]] = []

    def noted() -> Iterator[str]:
        for line in lines:
            held.append((lines.number, line))
            yield line

    reader = csv.reader(noted(), delimiter=delimiter, strict=True)
    while True:
        held.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            start = held[0][0]
            yield start, Bad(start, "a quote that is not closed, or stands in the middle of a field")
            lines.back(held[1:])
            reader = csv.reader(noted(), delimiter=delimiter, strict=True)
        else:
            yield held[0][0], record


def _columns(header: Sequence[str]) -> Mapping[str, int]:
    """Where each identifier stands: under the name as it is written here, else in whatever case it is."""
    plain = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    found: dict[str, int] = {}
    for identifier, names in COLUMNS.items():
        for spelled, name in ((header, name) for name in names):
            if name in spelled or name in plain:
                found[identifier] = spelled.index(name) if name in spelled else plain.index(name)
                break
    return found if found.keys() - {"phone"} else {}


def _wrong(names: Sequence[str]) -> str:
    """What to say of other columns; nothing of what they hold, where the first line is a row like all others."""
    if not all(_COLUMN.match(name.strip()) and masked(name) == name for name in names):
        return f"the first line is no header; the columns wanted are {WANTED}"
    shown = ", ".join(name.strip() for name in names[:12]) + (", …" if len(names) > 12 else "")
    return f"the columns are {shown}; wanted are {WANTED}"


# --- JSON lines --------------------------------------------------------------------------------


def _json(lines: _Lines) -> Iterator[Row | Bad]:
    found: dict[str, None] = {}
    any_row = False
    for line in lines:
        yield from lines.bad()
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Bad(lines.number, "not JSON")
            continue
        if not isinstance(value, dict):
            yield Bad(lines.number, "not a JSON object")
            continue
        row = _row(lines.number, _cells(value))
        if not any_row and isinstance(row, Bad) and len(found) < 12:
            found |= dict.fromkeys(value)
        any_row = any_row or isinstance(row, Row)
        yield row
    yield from lines.bad()
    if not any_row and found:
        raise NotAnExport(_wrong(list(found)))


def _cells(value: dict[str, Any]) -> Cells:
    """The identifiers of an object, wherever they stand in it."""
    places = (value, mapping(value.get("identifiers")), mapping(value.get("attributes")))
    return {
        identifier: next(filter(None, (text(place.get(name)) for place in places for name in names)), None)
        for identifier, names in COLUMNS.items()
    }


# --- a person ----------------------------------------------------------------------------------


def _row(line: int, cells: Cells) -> Row | Bad:
    person = Person(*(cells.get(name) or None for name in COLUMNS))
    person = person._replace(email=lower(person.email))
    identifiers = tuple(person.identifiers())
    if person.id is None and person.email is None and person.cio_id is None:
        return Bad(line, "no identifier", lost=False)
    for name in (person.id, person.cio_id):
        if name is not None and ("@" in name or name.startswith("cio_")):  # a path that has it means something else
            identifiers += tuple(person_in_path(quote(name, safe="", errors="replace").encode()).identifiers())
    return Row(line, identifiers, any(each.startswith("email:") for each in identifiers))
