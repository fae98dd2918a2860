"""Customer.io's reporting webhooks, on their way to the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

SIGNATURE: Final = b"x-cio-signature"


def looks_like(method: str, path: bytes, headers: Mapping[bytes, bytes], paths: Sequence[str]) -> bool:
    """True for a POST that carries a signature of Customer.io's, or whose path one of the globs matches.

    The names of `headers` are in lower case.
    """
    if method != "POST":
        return False
    text = path.decode("latin-1")
    return SIGNATURE in headers or any(fnmatchcase(text, glob) for glob in paths)
