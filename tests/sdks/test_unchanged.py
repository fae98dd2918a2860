"""What an SDK sends is what Customer.io gets: recorded on the wire before and behind the proxy, and compared."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Proxy, need
from .table import CDP, CLEAN, NODE

pytestmark = pytest.mark.once

HOST = re.compile(rb"(?im)^(host: )[^\r]*")


class Relay:
    """Passes a TCP port on to another one and keeps what clients send, by connection."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.sent: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            record = bytearray()
            self.sent.append(record)
            threading.Thread(target=self._pass, args=(client, server, record), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, bytearray()), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, to: socket.socket, record: bytearray) -> None:
        try:
            while chunk := source.recv(65536):
                record += chunk
                to.sendall(chunk)
        except OSError:
            pass
        finally:
            for end in (source, to):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def requests(self) -> Counter[bytes]:
        """Every request as it was sent, with only the value of `Host` taken out."""
        found: Counter[bytes] = Counter()
        for record in self.sent:
            rest = bytes(record)
            while rest:
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body, rest = (rest[: int(length[1])], rest[int(length[1]) :]) if length else (b"", rest)
                found[HOST.sub(rb"\1", head) + b"\r\n\r\n" + body] += 1
        return found

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def emulation() -> Iterator[str]:
    command = [Path(sys.executable).with_name("cio-proxy"), "sandbox", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["sandbox"]
        process.terminate()


@pytest.mark.parametrize("sdk", [NODE, CDP])
def test_a_clean_session_reaches_the_upstream_as_it_was_sent(sdk: str, emulation: str, tmp_path: Path) -> None:
    need(sdk)
    behind = Relay(emulation)
    proxy = Proxy(tmp_path, "--upstream", behind.url)
    try:
        before = Relay(proxy.url)
        proxy.url = before.url
        steps = proxy.run(CLEAN[sdk])
        assert all(step.ok for step in steps)
        assert set(+proxy.counted()) == {"requests", "forwarded"}, "no findings"
    finally:
        proxy.stop()
    assert sum(before.requests().values()) >= len(steps) / 2
    assert behind.requests() == before.requests()
    before.close()
    behind.close()
