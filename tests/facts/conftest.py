"""Every kind of store, empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cio_proxy.facts import Store
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.sqlite import SqliteStore

from . import servers


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis."""
    with servers.redis(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster, as of one that is found out to be one."""
    with servers.cluster(tmp_path_factory.mktemp("cluster")) as port:
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = SqliteStore(tmp_path / "facts.sqlite")
        case _:
            pytest.importorskip("redis")
            from cio_proxy.facts.redis import RedisStore

            made = RedisStore(request.getfixturevalue(request.param))
            await made.clear()
    yield made
    await made.close()
