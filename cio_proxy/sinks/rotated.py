"""A file of lines that is rotated by size: `path`, then `path.1`, `path.2`, the oldest last."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file and of those it was rotated to. Raises OSError when one cannot be read.

    The newest file comes first, so that nothing is missed if they are rotated meanwhile.
    """
    with path.open("rb") as file:
        yield from file
    for number in count(1):
        try:
            with path.with_name(f"{path.name}.{number}").open("rb") as file:
                yield from file
        except FileNotFoundError:
            return


class RotatedFile:
    """Appends whole lines. Opened when first needed, so that what cannot be written now may be later."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd: int | None = None
        self._regular = True
        """False for a device or a pipe, which is neither rotated nor repaired."""

    def append(self, line: bytes) -> None:
        """Write one line, all of it or nothing. Raises OSError when it cannot be written."""
        try:
            fd = self._open()
            size = os.fstat(fd).st_size
            if self._regular and size and size + len(line) > self._max_bytes:
                self._rotate()
                fd, size = self._open(), 0
            if os.write(fd, line) != len(line):
                if self._regular:
                    os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        """The descriptor of the file that `path` names now, also after somebody moved it away."""
        if self._fd is not None and self._regular and not self._is_current(self._fd):
            self.close()
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            status = os.fstat(self._fd)
            self._regular = stat.S_ISREG(status.st_mode)
            if self._regular:
                os.fchmod(self._fd, PRIVATE)
                if status.st_size and os.pread(self._fd, 1, status.st_size - 1) != b"\n":
                    os.write(self._fd, b"\n")  # a crash left half a line
        return self._fd

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        self.close()
        if not self._keep:
            os.remove(self.path)
            return
        for number in range(self._keep - 1, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.replace(self.path, f"{self.path}.1")
