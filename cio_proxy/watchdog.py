"""A limit for code that does not give the loop back: an exception is raised in it from another thread."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from types import TracebackType
from typing import Final

SECONDS: Final = 1.0
"""What all rules together may take of one exchange, before the one that runs is interrupted."""
LOOKS: Final = 4
"""How often the watchdog looks, in the time of one limit."""


class Overdue(BaseException):
    """What was running took too long. No `Exception`, so that no rule swallows it by the way."""


class Watchdog:
    """A context for code without `await`, in the thread that made the watchdog.

    Wrap it in `except Overdue` all the same: the exception may arrive while the context is left, but never later.
    It reaches Python code only; what runs in C is interrupted when it returns. Call functions in it: CPython does not
    cover the backward jump of a loop that stands in a `with` itself. Where Python would swallow the exception and show
    it, as in a callback of a weak reference, it is raised once more a little later.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._watched = ctypes.c_ulong(threading.get_ident())
        self._since: float | None = None
        self._raised = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._shown = sys.unraisablehook
        sys.unraisablehook = self._swallowed
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def __enter__(self) -> None:
        """Start counting."""
        self._since = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop counting, and take back an exception that has not arrived."""
        with self._lock:
            self._since = None
            if self._raised:
                self._raised = False
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, None)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        sys.unraisablehook = self._shown

    def _swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Overdue):
            self._shown(unraisable)
        elif self._since is not None:
            self._since = 0.0

    def _look(self) -> None:
        while not self._closed.wait(self._seconds / LOOKS):
            with self._lock:
                now = time.monotonic()
                if self._since is not None and now - self._since > self._seconds:
                    self._since = now
                    self._raised = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, ctypes.py_object(Overdue))
