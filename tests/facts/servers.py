"""Redis as a program, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[2] / ".venvs" / "redis" / "usr" / "bin"


def program() -> str:
    """The path of `redis-server`. Skips the test unless it is installed, or unpacked by the set-up."""
    path = shutil.which("redis-server") or shutil.which("redis-server", path=str(UNPACKED))
    if path is None:
        pytest.skip("redis-server is not installed: see what `make setup` says")
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def said(port: int, *commands: str) -> str:
    """What a server answers to commands on one line each."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
        with connection.makefile() as answers:
            return answers.read()


@contextlib.contextmanager
def redis(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """A Redis that keeps nothing on disk; its port."""
    port = port or free_port()
    path = Path(program())
    libraries = ":".join(map(str, path.parents[1].glob("lib/*-linux-gnu")))
    given = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder))
    with subprocess.Popen(
        [path, *given, *options],
        env=os.environ | {"LD_LIBRARY_PATH": libraries},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    assert said(port, "PING")
                    break
                except OSError:
                    assert process.poll() is None, process.stdout and process.stdout.read()
                    assert time.monotonic() < end, "Redis does not answer"
                    time.sleep(0.02)
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[int]:
    """A cluster of one node that has all slots; its port."""
    own = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis(folder, *own) as port:
        said(port, "CLUSTER ADDSLOTSRANGE 0 16383")
        end = time.monotonic() + 20
        while "cluster_state:ok" not in said(port, "CLUSTER INFO"):
            assert time.monotonic() < end, "the cluster does not come up"
            time.sleep(0.02)
        yield port


class Detour:
    """A way to a port that can be made slow, or be closed."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.seconds = 0.0
        """How long each answer takes longer."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        self._open |= {writer, back}
        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._copy(reader, back, lambda: 0.0))
                ways.create_task(self._copy(there, writer, lambda: self.seconds))
        self._open -= {writer, back}

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: Callable[[], float]) -> None:
        while content := await reader.read(65_536):
            if seconds():
                await asyncio.sleep(seconds())
            writer.write(content)
        writer.close()
