"""Redis joins as Python does, keeps every key of a workspace in one slot, and what it forgets is known to be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cio_proxy.facts.workspace import EVERY, LOST, seen
from cio_proxy.model import Deadline, Fact, Finding, Key, Span, Tally, Value

from . import servers
from .values import KINDS

pytestmark = pytest.mark.once

RedisStore = pytest.importorskip("cio_proxy.facts.redis", reason="the extra redis is not installed").RedisStore
SEED = Finding(rule="r", severity="error", confidence="likely", pointer="", message="", effect="", fix="")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    store = RedisStore(url, lambda: 5.0)
    try:
        yield store
    finally:
        await store.close()


async def read(store: Any, asked: Key, now: float = 10) -> Value | None:
    kept = (await store.get_many([asked.of], (), now)).records.get(asked.of, {}).get(asked.kind)
    return None if kept is None else kept.value


@pytest.fixture
def anew(redis: str) -> str:
    """The URL of an empty Redis."""
    servers.said(port_of(redis), "FLUSHALL")
    return redis


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("kind", KINDS)
def test_redis_joins_as_python_does(redis: str, kind: str, loop: asyncio.Runner) -> None:
    store = RedisStore(redis)
    numbers = count()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(KINDS[kind], min_size=2, max_size=3))
    def holds(values: list[Any]) -> None:
        key = Key(kind, "joins", str(next(numbers)))

        async def taught() -> Value | None:
            await store.join_many([Fact(key, value, 60) for value in values], (), now=0)
            return await read(store, key)

        assert loop.run(taught()) == reduce(lambda a, b: a.join(b), values)

    holds()
    loop.run(store.close())


async def test_a_value_of_another_kind_takes_the_place_of_the_old_one(anew: str) -> None:
    async with opened(anew) as store:
        key = Key("x", "ws", "s")
        await store.join_many([Fact(key, Deadline(5, "r", (), SEED), 60)], (), now=0)
        await store.join_many([Fact(key, Tally({"a": 1}), 60)], (), now=0)
        assert await read(store, key) == Tally({"a": 1})
        assert await store.due(9) == []


NAMES = ["production", "", "{a}b", "}", "a b%", "ü\ud800", "x" * 200]


@pytest.mark.parametrize("name", NAMES)
async def test_all_keys_of_a_workspace_share_a_slot_whatever_its_name(cluster: str, name: str) -> None:
    async with opened(cluster) as store:
        keys = [Key("x", name, subject) for subject in ("", "a", "b\0c", "{d}", "é\udc00")]
        await store.get_many([key.of for key in keys], keys, now=0)
        facts = [Fact(key, Deadline(5, "r", (key,), SEED), 60) for key in keys]
        await store.join_many(facts, keys, now=0)
        found = (await store.get_many([key.of for key in keys], (), 1)).records
        assert {key: found[key.of]["x"].value for key in keys} == {fact.key: fact.value for fact in facts}
        due = [each for each in await store.due(5) if each[0].workspace == name]
        assert sorted(due) == sorted((fact.key, fact.value) for fact in facts)
        await store.acknowledge(keys)
        assert not (await store.get_many([key.of for key in keys], (), 1)).records


async def test_everything_that_is_written_has_a_time_to_live(anew: str) -> None:
    async with opened(anew) as store:
        await store.get_many([], [Key("x", "ws", "marked")], now=0)
        await store.join_many([Fact(Key("d", "ws", "a"), Deadline(5, "r", (), SEED), 60), seen("ws", 0)], (), now=0)
    keys = servers.said(port_of(anew), "KEYS *").split()[2::2]
    assert {key for key in keys if key[0] == "c"} == {
        "cio-proxy:workspaces",
        "cio-proxy:{ws}:r:marked",
        "cio-proxy:{ws}:r:a",
        "cio-proxy:{ws}:r:",
        "cio-proxy:{ws}:due",
    }
    lives = {key: int(servers.said(port_of(anew), f"TTL {key}").split()[0][1:]) for key in keys if "{" in key}
    assert all(life > 0 for life in lives.values()), lives
    assert lives["cio-proxy:{ws}:r:marked"] <= 30
    assert lives["cio-proxy:{ws}:due"] <= 60


async def test_replicas_share_marks_leases_and_what_they_learn(anew: str) -> None:
    async with opened(anew) as mine, opened(anew) as theirs:
        key, deadline = Key("x", "ws", "a"), Key("d", "ws", "b")
        await mine.get_many([key.of], [key], now=0)
        assert (await theirs.get_many([key.of], [key], now=1)).in_flight == {key}
        await mine.join_many([Fact(key, Span(1, 1), 60)], [key], now=2)
        await theirs.join_many(
            [Fact(key, Span(0, 2), 60), Fact(deadline, Deadline(3, "r", (), SEED), 60)], [key], now=2
        )
        reading = await mine.get_many([key.of], [key], now=3)
        assert not reading.in_flight
        assert reading.records[key.of]["x"].value == Span(0, 2)
        assert len([*await mine.due(4), *await theirs.due(4)]) == 1


async def test_an_earlier_deadline_does_not_break_the_lease_of_the_one_in_hand(anew: str) -> None:
    async with opened(anew) as store:
        await store.join_many([Fact(Key("d", "ws", "a"), Deadline(3, "r", (), SEED), 600)], (), now=2)
        assert len(await store.due(4)) == 1
        for at in 3, 2:
            await store.join_many([Fact(Key("d", "ws", "a"), Deadline(at, "r", (), SEED), 600)], (), now=4)
            assert not await store.due(5)


async def test_scripts_that_redis_forgot_are_sent_again(anew: str) -> None:
    async with opened(anew) as store:
        for number in range(2):
            await store.join_many([Fact(Key("x", "ws", str(number)), Span(1, 1), 60)], (), now=0)
            assert await read(store, Key("x", "ws", str(number))) == Span(1, 1)
            servers.said(port_of(anew), "SCRIPT FLUSH")


async def test_what_redis_evicts_counts_as_lost(tmp_path: Path) -> None:
    options = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    with servers.redis(tmp_path, *options) as port:
        async with opened(f"redis://127.0.0.1:{port}") as store:
            await store.join_many([seen("ws", 0)], (), now=0)
            await store.tend(1)
            assert not (await store.get_many([EVERY], (), 1)).records
            for start in range(0, 20_000, 1_000):
                facts = [Fact(Key("x", "ws", f"{start + each}" + "y" * 100), Span(1, 1), 60) for each in range(1_000)]
                await store.join_many(facts, (), now=2)
            servers.said(port, "CONFIG SET maxmemory 0")
            await store.tend(3)
            assert (await store.get_many([EVERY], (), 4)).records[EVERY][LOST].value == Span(3, 3)
            await store.tend(5)
            found = (await store.get_many([EVERY], (), 6)).records[EVERY][LOST].value
            assert found == Span(3, 3), "told once"


async def test_a_redis_that_is_full_is_still_read(tmp_path: Path) -> None:
    with servers.redis(tmp_path, "--maxmemory-policy", "noeviction") as port:
        async with opened(f"redis://127.0.0.1:{port}") as store:
            await store.join_many([Fact(Key("x", "ws", "a"), Span(1, 1), 60)], (), now=0)
            servers.said(port, "CONFIG SET maxmemory 1")
            new = Key("x", "ws", "b")
            with pytest.raises(Exception, match="maxmemory"):
                await store.join_many([Fact(new, Span(1, 1), 60)], (), now=0)
            reading = await store.get_many([new.of, Key("x", "ws", "a").of], [new], now=1)
            assert list(reading.records) == [Key("x", "ws", "a").of]
            servers.said(port, "CONFIG SET maxmemory 0")
            await store.join_many([Fact(new, Span(1, 1), 60)], (), now=0)
            assert await read(store, new) == Span(1, 1)


async def test_a_password_a_database_and_a_socket_are_taken_from_the_url(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    with servers.redis(tmp_path, "--requirepass", "se/cret", "--unixsocket", str(socket)) as port:
        urls = (f"redis://:se%2Fcret@127.0.0.1:{port}/3", f"unix://:se%2Fcret@{socket}?db=3")
        for number, url in enumerate(urls):
            async with opened(url) as store:
                await store.join_many([Fact(Key("x", "ws", "a"), Span(number, number), 60)], (), now=0)
        async with opened(urls[0]) as store:
            assert await read(store, Key("x", "ws", "a")) == Span(0, 1)
        async with opened(f"redis://:se%2Fcret@127.0.0.1:{port}/4") as store:
            assert await read(store, Key("x", "ws", "a")) is None


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


async def test_over_tls_only_a_server_that_is_vouched_for_is_trusted(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    secure = servers.free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    with servers.redis(tmp_path, "--tls-port", str(secure), "--tls-auth-clients", "no", *files):
        async with opened(f"rediss://127.0.0.1:{secure}?ssl_ca_certs={certificate}") as store:
            await store.join_many([Fact(Key("x", "ws", "a"), Span(1, 1), 60)], (), now=0)
            assert await read(store, Key("x", "ws", "a")) == Span(1, 1)
        async with opened(f"rediss://127.0.0.1:{secure}") as store:
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                await read(store, Key("x", "ws", "a"))


async def test_a_cluster_may_also_be_named_as_one(cluster: str) -> None:
    async with opened(cluster.replace("redis:", "redis+cluster:")) as store:
        await store.join_many([Fact(Key("x", "named", "a"), Span(1, 1), 60)], (), now=0)
        await store.tend(1)
    async with opened(cluster) as store:
        assert await read(store, Key("x", "named", "a")) == Span(1, 1)
