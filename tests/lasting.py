"""A store of the tests that outlives a process: facts in memory, written to a file when they are let go."""

import pickle
import sys
from pathlib import Path

from cio_proxy.facts.memory import MemoryStore

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from lasting import FileStore
from cio_proxy.facts import opening
opening.opened = lambda settings: FileStore({file!r})
from cio_proxy.cli import main
main(prog_name="cio-proxy")
"""


class FileStore(MemoryStore):
    """Facts in a file."""

    def __init__(self, file: str, limit: int = 200_000) -> None:
        super().__init__(limit)
        self.file = Path(file)
        if self.file.exists():
            self.__dict__.update(pickle.loads(self.file.read_bytes()))

    async def close(self) -> None:
        """Write everything down."""
        self.file.write_bytes(pickle.dumps(self.__dict__))


def command(file: Path, *arguments: str) -> list[str]:
    """The command line, over such a store in place of the one that is configured."""
    program = PROGRAM.format(tests=str(Path(__file__).parent), file=str(file))
    return [sys.executable, "-c", program, *arguments]
