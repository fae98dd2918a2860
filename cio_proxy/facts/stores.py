"""From where the configuration wants facts to be kept to the store that keeps them."""

from __future__ import annotations

from pathlib import Path

from cio_proxy.facts import Store, Unusable
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.patient import Lost, Patient
from cio_proxy.model import FactStore, Settings


def chosen(settings: Settings, folder: Path) -> FactStore:
    """The configured store; else a file in the state folder for what goes to Customer.io, and memory for all else.

    What was sent to an emulation must not be known of the people of a live workspace.
    """
    if settings.facts is not None:
        return settings.facts
    if settings.upstream in ("live", "live-eu"):
        return FactStore("sqlite", str(folder / "facts.sqlite"))
    return FactStore("memory")


def failures(where: FactStore) -> tuple[type[Exception], ...]:
    """What an opened store raises, when it cannot be reached, read or written now."""
    match where.kind:
        case "memory":
            return (OSError,)
        case "sqlite":
            from cio_proxy.facts import sqlite

            return (OSError, *sqlite.FAILURES)
        case "redis":
            from cio_proxy.facts import redis

            return (OSError, *redis.FAILURES)


def opened(where: FactStore, limit: int, lost: Lost | None = None) -> Store:
    """The store; `limit` is a number of facts where Redis does not keep a limit itself. Raises Unusable.

    `lost` is told of what was lost behind the answers: when, in which workspace, and why. Without it nothing waits for
    an answer, so that every step takes the time it needs, and fails aloud.
    """
    match where.kind:
        case "memory":
            return MemoryStore(limit)
        case "sqlite":
            from cio_proxy.facts.sqlite import SqliteStore

            store: Store = SqliteStore(Path(where.place), limit)
        case "redis":
            try:
                from cio_proxy.facts.redis import RedisStore
            except ImportError:
                raise Unusable("Redis needs the extra: pip install 'cio-proxy[redis]'") from None

            store = RedisStore(where.place)
    return store if lost is None else Patient(store, lost)
