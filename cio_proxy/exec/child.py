"""A command as a child process: it gets the signals that are meant for it, and nothing of it is left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
BY_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""What a terminal sends to everything in its foreground by itself."""
LEFT_SECONDS: Final = 2.0
"""How long processes that a command leaves behind may take to end when they are asked to."""
ENDED: Final = "ZX"
"""The states of a process that has ended."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class NotStarted(Exception):
    """A command that cannot be started: why, and the exit code that a shell has for it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


async def finished(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end, with our own standard streams. Returns its exit code. Raises NotStarted.

    On a terminal it stays in the foreground with us, so that its job control works as ever. Elsewhere it gets a process
    group of its own: signals go to all of it, and what is left of it at the end is ended too.
    """
    grouped = not in_foreground()
    process: asyncio.subprocess.Process | None = None
    early: list[signal.Signals] = []

    def forward(number: signal.Signals) -> None:
        if process is None:
            early.append(number)
        elif grouped:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        elif number not in BY_TERMINAL:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    with forwarding(forward):
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env=dict(environment), process_group=0 if grouped else None
            )
        except FileNotFoundError as error:
            raise NotStarted(f"{command[0]}: command not found", NOT_FOUND) from error
        except OSError as error:
            reason = (error.strerror or "cannot be run").lower()
            raise NotStarted(f"{command[0]}: {reason}", NOT_EXECUTABLE) from error
        for number in early:
            forward(number)
        code = await process.wait()
        if grouped:
            await ended(process.pid)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def forwarding(forward: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Hand on the signals that we are sent; what we were started to ignore, the command ignores too.

    Once the command has ended so do we, when all is stopped and told: only the keys of a terminal break that off.
    """
    loop = asyncio.get_running_loop()
    heard = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, forward, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
            if number not in BY_TERMINAL:
                loop.add_signal_handler(number, lambda: None)


def in_foreground() -> bool:
    """Whether a terminal sends us the signals of its keys."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


async def ended(group: int) -> None:
    """End what is left of a process group: first by asking, then for good."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_left(group):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        until = loop.time() + LEFT_SECONDS
        while is_left(group) and loop.time() < until:
            await asyncio.sleep(0.02)


def is_left(group: int) -> bool:
    """Whether anything of a process group still runs.

    Where the first process of a container collects no others, one that has ended stays for ever and takes signals, too.
    """
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # nobody is left, or (macOS) only those that have ended
        return False
    states = [stat for stat in map(stat_of, Path("/proc").glob("[0-9]*")) if stat[2:3] == [str(group)]]
    return not states or any(state[0] not in ENDED for state in states)


def stat_of(process: Path) -> list[str]:
    """The state of a process, its parent, its group, and more; nothing of one that is gone."""
    try:
        return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
