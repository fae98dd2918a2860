"""What goes wrong, in words: upstreams that cannot be reached are told once, and once when that is over."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("cio_proxy")

_NUMBERED = re.compile(r"\[Errno (-?\d+)\] ?")
_ITSELF = "Request destination unknown"
"""What mitmproxy says of a connection to one of its own listeners."""
LONGEST = 200


class Trouble:
    """Which upstreams cannot be reached now. `tell` hears when there is a first one, and when there is none left.

    `what` they are, for people.
    """

    def __init__(self, tell: Callable[[bool], None], what: str = "upstream") -> None:
        self._tell = tell
        self._what = what
        self._unreachable: set[str] = set()

    @property
    def on(self) -> bool:
        """True while there is any."""
        return bool(self._unreachable)

    def began(self, upstream: str, why: str) -> None:
        """An upstream could not be reached, with the reason as mitmproxy gives it."""
        if upstream in self._unreachable:
            return
        self._unreachable.add(upstream)
        why = in_words(why)
        log.warning("%s %s cannot be reached: %s; requests are answered with 502", self._what, upstream, why)
        self._tell(True)

    def over(self, upstream: str) -> None:
        """An upstream was reached."""
        if upstream not in self._unreachable:
            return
        self._unreachable.discard(upstream)
        log.warning("%s %s can be reached again", self._what, upstream)
        self._tell(self.on)


def in_words(why: str) -> str:
    """The reason in a few plain words: asyncio puts numbers, addresses and several attempts into one text."""
    if _ITSELF in why:
        return "that is this proxy itself, which is better named in NO_PROXY"
    for match in _NUMBERED.finditer(why):
        number = int(match[1])
        if number > 0:
            return os.strerror(number).lower()
    plain = " ".join(_NUMBERED.sub("", why).removeprefix("the upstream ").split())
    return "".join(c if c.isprintable() else "?" for c in plain[:LONGEST]).rstrip(".")


def placed(error: BaseException) -> str:
    """What an error is and where it came from, without its text, which may hold values as sent."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
