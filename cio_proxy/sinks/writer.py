"""A bounded queue and the one thread that empties it, so that a sink never waits for what it writes to."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable


class Writer[T]:
    """Calls `write` for each item, in order, in a thread of its own, and `finish` at the end. Neither may raise."""

    def __init__(
        self, write: Callable[[T], None], *, finish: Callable[[], None] = lambda: None, size: int, name: str
    ) -> None:
        self._write = write
        self._finish = finish
        self._queue: queue.Queue[T | None] = queue.Queue(max(1, size))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Hand over an item without waiting; False when the queue is full."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def close(self, last: Iterable[T] = (), *, seconds: float) -> list[T]:
        """Write what waits and the `last` items, for so long at most; give back what was not begun by then."""
        until = time.monotonic() + seconds
        undone: list[T] = []
        for item in last:
            try:
                self._queue.put(item, timeout=max(0.0, until - time.monotonic()))
            except queue.Full:
                undone.append(item)
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=max(0.0, until - time.monotonic()))
            self._thread.join(max(0.0, until - time.monotonic()))
        if not self._thread.is_alive():
            return undone
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    undone.append(waiting)
        return undone

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._write(item)
        self._finish()
