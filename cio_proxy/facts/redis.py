"""Facts in Redis or Valkey, shared by replicas, alone or as a cluster.

An exchange has one workspace, and every key of a workspace carries it as its hash tag, so that one script reads and
marks, and another joins and takes marks back, in one round trip each. A record is a hash with a field for each kind:
eight bytes of expiry, then the value. Joining is done by Redis, so that no replica loses what another one taught.

`cio-proxy:{WORKSPACE}:r:SUBJECT` is a record; a field `?KIND` in it counts who is about to teach that kind.
`cio-proxy:{WORKSPACE}:due` sorts deadlines by when to look at them, and `cio-proxy:{WORKSPACE}:planned:KIND:SUBJECT` is
until when the slots of a schedule are taken. `cio-proxy:workspaces` sorts the workspaces by when they were seen,
`cio-proxy:evicted` is how many keys Redis had evicted when that was looked at last.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote, unquote

import redis.asyncio as client
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError

from cio_proxy.facts import EXACT, LEASE_SECONDS, MARK_SECONDS, Rate, Reading, Slots, workspace
from cio_proxy.facts.encoding import decode, encode, packed
from cio_proxy.model import Deadline, Fact, Kept, Key, Record, Subject

PREFIX: Final = "cio-proxy:"
WORKSPACES: Final = f"{PREFIX}workspaces"
EVICTED: Final = f"{PREFIX}evicted"
MARK: Final = b"?"
CONNECTIONS: Final = 32
CONNECT_SECONDS: Final = 2.0
CHUNK: Final = 100
"""How many keys are looked at in one round trip."""
COUNTED: Final = 2_000
"""How many records are counted each time the store is tended."""
EXPIRY: Final = struct.Struct(">d")
FAILURES: Final = (RedisError, TimeoutError)
"""What a store raises whose Redis cannot be reached, or refuses."""


class _Script:
    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


READ: Final = _Script("""
local now, expiry, stay = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
for place, key in ipairs(KEYS) do
  local fields, living = redis.call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    local kept = fields[at + 1]
    if #kept > 8 and struct.unpack('>d', kept) > now then
      living[#living + 1] = fields[at]
      living[#living + 1] = kept
    else
      redis.call('HDEL', key, fields[at])
    end
  end
  found[place] = living
end
for at = 4, #ARGV, 2 do
  local key, field = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
  if redis.call('HEXISTS', key, field) == 0 then
    local mark, learners = redis.call('HGET', key, '?' .. field), 0
    if mark then learners = tonumber(string.sub(mark, 9)) end
    -- Redis may have no room for it: then the mark is missing, and what is known is still told.
    redis.pcall('HSET', key, '?' .. field, struct.pack('>d', expiry) .. (learners + 1))
    if redis.call('PTTL', key) < stay then redis.call('PEXPIRE', key, stay) end
  end
end
return found
""")

JOIN: Final = _Script("""
local now = tonumber(ARGV[1])

-- Byte by byte, since the order of Lua's strings depends on the locale of the server.
local function less(a, b)
  for at = 1, math.min(#a, #b) do
    local mine, theirs = string.byte(a, at), string.byte(b, at)
    if mine ~= theirs then return mine < theirs end
  end
  return #a < #b
end

local function smallest(limit, mine, theirs)
  local all, count, i, j = {}, 0, 1, 1
  while count < limit and (mine[i] or theirs[j]) do
    local a, b = mine[i], theirs[j]
    count = count + 1
    if not b or (a and a <= b) then
      all[count] = a
      i = i + 1
      if a == b then j = j + 1 end
    else
      all[count] = b
      j = j + 1
    end
  end
  return all
end

local function by_name(flat, size)
  local parts = {}
  for at = 1, #flat, size do parts[flat[at]] = {flat[at + 1], flat[at + 2]} end
  return parts
end

local function names(mine, theirs)
  local all = {}
  for name in pairs(mine) do all[#all + 1] = name end
  for name in pairs(theirs) do
    if not mine[name] then all[#all + 1] = name end
  end
  table.sort(all, less)
  return all
end

local function sample(a, b)
  local limit = math.min(a[1], b[1])
  return {limit, smallest(limit, a[2], b[2])}
end

local joined = {}

function joined.s(a, b)
  local from = a
  if b[2] < a[2] or (b[2] == a[2] and (less(b[4], a[4]) or (b[4] == a[4] and less(b[5], a[5])))) then from = b end
  return {'s', from[2], math.max(a[3], b[3]), from[4], from[5]}
end

function joined.b(a, b)
  local both = sample({a[2], a[3]}, {b[2], b[3]})
  return {'b', both[1], both[2]}
end

function joined.g(a, b)
  local limit, mine, theirs, flat = math.min(a[2], b[2]), by_name(a[3], 3), by_name(b[3], 3), {}
  for at, label in ipairs(names(mine, theirs)) do
    if at > limit then break end
    local both = mine[label] or theirs[label]
    if mine[label] and theirs[label] then both = sample(mine[label], theirs[label]) end
    flat[#flat + 1], flat[#flat + 2], flat[#flat + 3] = label, both[1], both[2]
  end
  return {'g', limit, flat}
end

function joined.t(a, b)
  local mine, theirs, flat = by_name(a[2], 2), by_name(b[2], 2), {}
  for _, slot in ipairs(names(mine, theirs)) do
    local count = math.max((mine[slot] or {0})[1], (theirs[slot] or {0})[1])
    flat[#flat + 1], flat[#flat + 2] = slot, count
  end
  return {'t', flat}
end

function joined.d(a, b)
  if b[2] < a[2] or (b[2] == a[2] and (less(b[3], a[3]) or (b[3] == a[3] and b[4] < a[4]))) then return b end
  return a
end

local function living(kept, form)
  if not kept or #kept <= 8 or struct.unpack('>d', kept) <= now then return nil end
  local readable, old = pcall(cmsgpack.unpack, string.sub(kept, 9))
  if readable and type(old) == 'table' and old[1] == form then return old end
end

local function stays(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

local function schedule(member, old, new, stay)
  local look = tonumber(redis.call('ZSCORE', KEYS[1], member) or nil)
  if not old or not look or (new[2] < old[2] and look <= old[2]) then -- else it is leased, or nothing has changed
    redis.call('ZADD', KEYS[1], string.format('%.17g', new[2]), member)
  end
  stays(KEYS[1], stay)
end

for _, fact in ipairs(cmsgpack.unpack(ARGV[2])) do
  local key, field, expiry, stay, encoded = KEYS[fact[1]], fact[2], fact[3], fact[4], fact[5]
  local value, kept = cmsgpack.unpack(encoded), redis.call('HGET', key, field)
  local old = living(kept, value[1])
  if old then
    local fits, both = pcall(joined[value[1]], old, value)
    if fits then
      value, encoded, expiry = both, cmsgpack.pack(both), math.max(expiry, struct.unpack('>d', kept))
    else
      old = nil
    end
  end
  redis.call('HSET', key, field, struct.pack('>d', expiry) .. encoded)
  stays(key, stay)
  if value[1] == 'd' then schedule(field .. '\\0' .. key, old, value, stay) end
end
for _, mark in ipairs(cmsgpack.unpack(ARGV[3])) do
  local key, field = KEYS[mark[1]], '?' .. mark[2]
  local kept = redis.call('HGET', key, field)
  local learners = kept and tonumber(string.sub(kept, 9)) or 0
  if learners > 1 then
    redis.call('HSET', key, field, string.sub(kept, 1, 8) .. (learners - 1))
  else
    redis.call('HDEL', key, field)
  end
end
""")

LEASE: Final = _Script("""
local taken = {}
for at = 2, #KEYS do
  local key, field = KEYS[at], ARGV[at + 1]
  local member = field .. '\\0' .. key
  local look, kept = redis.call('ZSCORE', KEYS[1], member), redis.call('HGET', key, field)
  if not kept then
    redis.call('ZREM', KEYS[1], member)
  elseif look and tonumber(look) <= tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], ARGV[2], member)
    taken[#taken + 1] = at - 2
    taken[#taken + 1] = kept
  end
end
return taken
""")

DROP: Final = _Script("""
for at = 2, #KEYS do
  redis.call('HDEL', KEYS[at], ARGV[at - 1])
  redis.call('ZREM', KEYS[1], ARGV[at - 1] .. '\\0' .. KEYS[at])
end
""")


RESERVE: Final = _Script("""
-- Rate.slots of facts/__init__.py, on the clock of the server.
local each, burst, ahead, number = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local step = 1 / each
local at_once = (math.max(1, burst) - 1) * step
local planned = tonumber(redis.call('GET', KEYS[1]) or nil)
local begin = now
if planned and planned <= now + at_once + ahead + 2 * step then begin = math.max(planned, now) end
local first = begin - at_once - now
local count = math.min(number, math.max(0, math.floor((ahead - first) / step + tonumber(ARGV[5])) + 1))
if count > 0 then
  local until_ = begin + count * step
  redis.call('SET', KEYS[1], string.format('%.17g', until_), 'PX', math.ceil((until_ - now) * 1000) + 1)
end
return {string.format('%.17g', first), count}
""")


class RedisStore:
    """A store in the Redis that `url` names: `redis://`, `rediss://`, `unix://`, or a cluster's `redis+cluster://`.

    Redis bounds it (`maxmemory`): what it evicts counts as lost.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._clock = clock
        self._redis: client.Redis | None = None
        self._connecting: asyncio.Task[client.Redis] | None = None
        self._seen: set[str] = set()
        """The workspaces that Redis was told of by this process."""
        self._known: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self._counting: AsyncIterator[str] | None = None

    async def get_many(self, subjects: Collection[Subject], announced: Collection[Key], now: float) -> Reading:
        """Read the records of `subjects`; mark those of `announced` that are unknown."""
        asked: dict[str, dict[Subject, int]] = {}
        for subject in subjects:
            _place(asked, subject)
        marks: dict[str, list[object]] = {}
        for key in announced:
            marks.setdefault(key.workspace, []).extend((_place(asked, key.of), _text(key.kind)))
        times = (repr(float(now)), repr(now + MARK_SECONDS), int(MARK_SECONDS * 1_000))
        records: dict[Subject, Record] = {}
        in_flight: set[Key] = set()
        answers = await _all(
            self._run(READ, [_record_key(*each) for each in places], (*times, *marks.get(name, ())))
            for name, places in asked.items()
        )
        for places, found in zip(asked.values(), answers, strict=True):
            for subject, fields in zip(places, found, strict=True):
                record: dict[str, Kept] = {}
                for field, kept in zip(fields[::2], fields[1::2], strict=True):
                    if field[:1] == MARK:
                        in_flight.add(Key(_read(field[1:]), *subject))
                    elif (value := decode(kept[EXPIRY.size :])) is not None:
                        record[_read(field)] = Kept(value, *EXPIRY.unpack_from(kept))
                if record:
                    records[subject] = record
        return Reading(records, frozenset(in_flight))

    async def join_many(self, facts: Sequence[Fact], settled: Collection[Key], now: float) -> None:
        """Join facts; take back one mark of each key of `settled`."""
        places: dict[str, dict[Subject, int]] = {}
        joins: dict[str, list[object]] = {}
        marks: dict[str, list[object]] = {}
        for key, value, ttl, _ in facts:
            place = _place(places, key.of, first=2)
            told = (place, key.kind, float(now + ttl), max(1, math.ceil(ttl * 1_000)), encode(value))
            joins.setdefault(key.workspace, []).append(told)
        for key in settled:
            marks.setdefault(key.workspace, []).append((_place(places, key.of, first=2), key.kind))
        await _all(
            [
                *(
                    self._run(
                        JOIN,
                        [_due_key(name), *(_record_key(*each) for each in subjects)],
                        (repr(float(now)), packed(joins.get(name, ())), packed(marks.get(name, ()))),
                    )
                    for name, subjects in places.items()
                ),
                *([self._tell(joins.keys() - self._seen)] if joins.keys() - self._seen else []),
            ]
        )

    async def due(self, before: float) -> Sequence[tuple[Key, Deadline]]:
        """Deadlines at or before a moment, each leased to one caller of one replica."""
        names = await self._workspaces()
        redis = await self._connected()
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.zrangebyscore(_due_key(name), "-inf", repr(float(before)), start=0, num=1_000)
        waiting = [(name, members) for name, members in zip(names, await pipeline.execute(), strict=True) if members]
        found: list[tuple[Key, Deadline]] = []
        for name, members in waiting:
            rows = [member.partition(b"\0")[::2] for member in members]
            times = (repr(float(before)), repr(before + LEASE_SECONDS))
            keys = [_due_key(name), *(key for _, key in rows)]
            taken = await self._run(LEASE, keys, (*times, *(field for field, _ in rows)))
            for number, kept in zip(taken[::2], taken[1::2], strict=True):
                field, key = rows[number]
                if isinstance(deadline := decode(kept[EXPIRY.size :]), Deadline):
                    found.append((Key(_read(field), *_subject(_read(key))), deadline))
        return found

    async def acknowledge(self, keys: Collection[Key]) -> None:
        """Forget leased deadlines."""
        for name in {key.workspace for key in keys}:
            of_it = [key for key in keys if key.workspace == name]
            await self._run(
                DROP, [_due_key(name), *(_record_key(*key.of) for key in of_it)], [_text(key.kind) for key in of_it]
            )

    async def scan(self, kind: str) -> AsyncIterator[tuple[Key, Kept]]:
        """Every fact of a kind, in no order; one that is moved meanwhile may come twice."""
        redis = await self._connected()
        async for keys in _chunks(self._keys(f"{PREFIX}{{*}}:r:*")):
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(key, cast(str, _text(kind)))
            for key, kept in zip(keys, await pipeline.execute(), strict=True):
                if kept is not None and (value := decode(kept[EXPIRY.size :])) is not None:
                    yield Key(kind, *_subject(_read(key))), Kept(value, *EXPIRY.unpack_from(kept))

    async def reserve(self, key: Key, number: int, rate: Rate) -> Slots:
        """Take slots in a schedule that all replicas share, on the clock of Redis."""
        arguments = (*map(repr, rate), number, repr(EXACT))
        first, granted = await self._run(RESERVE, [_planned_key(key)], arguments)
        return Slots(float(first), granted)

    async def clear(self) -> None:
        """Forget everything, for all replicas."""
        redis = await self._connected()
        async for keys in _chunks(self._keys(f"{PREFIX}*")):
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.execute_command("UNLINK", key)
            await pipeline.execute()
        self._seen.clear()
        self._known, self._counting = {}, None

    def known(self) -> Mapping[str, int]:
        """How many facts of each kind are kept, as of the last count: a large store takes many `tend`s to count."""
        return self._known

    async def tend(self, now: float) -> None:
        """Look whether Redis evicted anything, and count on."""
        redis = await self._connected()
        if self._seen:
            await self._tell(self._seen)
        await redis.zremrangebyscore(WORKSPACES, "-inf", self._clock() - workspace.LIFE)
        evicted = await self._evicted()
        before = await redis.getset(EVICTED, evicted)
        if evicted > int(before or 0):
            await self.join_many([workspace.lost_everywhere(now)], (), now)
        await self._count(redis)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._connecting is not None:
            self._connecting.cancel()
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    async def _run(self, script: _Script, keys: Sequence[str | bytes], arguments: Iterable[Any]) -> Any:
        redis = self._redis or await self._connected()
        try:
            return await cast(Any, redis.evalsha(script.sha, len(keys), *keys, *arguments))
        except NoScriptError:
            return await cast(Any, redis.eval(script.source, len(keys), *keys, *arguments))

    async def _connected(self) -> client.Redis:
        """The client. Who stops waiting for it does not stop it from being made."""
        if self._redis is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(_connect(self._url))
            self._redis = await asyncio.shield(self._connecting)
        return self._redis

    async def _tell(self, names: Collection[str]) -> None:
        """Let all replicas know of workspaces."""
        redis = await self._connected()
        now = self._clock()
        await redis.zadd(WORKSPACES, dict.fromkeys(map(_text, names), now))
        self._seen.update(names)

    async def _workspaces(self) -> list[str]:
        redis = await self._connected()
        names: list[Any] = await redis.zrange(WORKSPACES, 0, -1)
        return [_read(name) for name in names]

    async def _evicted(self) -> int:
        redis: Any = await self._connected()
        if isinstance(redis, RedisCluster):
            nodes = await redis.info("stats", target_nodes=RedisCluster.PRIMARIES)
            told = [nodes] if "evicted_keys" in nodes else nodes.values()
        else:
            told = [await redis.info("stats")]
        return sum(int(each["evicted_keys"]) for each in told)

    async def _count(self, redis: client.Redis) -> None:
        if self._counting is None:
            self._counting, self._counts = self._keys(f"{PREFIX}{{*}}:r:*"), Counter()
        looked = 0
        async for keys in _chunks(self._counting):
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hkeys(key)
            for fields in await pipeline.execute():
                self._counts.update(_read(field) for field in fields if field[:1] != MARK)
            looked += len(keys)
            if looked >= COUNTED:
                return
        self._known, self._counting = dict(self._counts), None

    def _keys(self, pattern: str) -> AsyncIterator[Any]:
        if self._redis is None:
            raise Disconnected("not connected")
        found: AsyncIterator[Any] = self._redis.scan_iter(match=pattern, count=CHUNK)
        return found


async def _connect(url: str) -> client.Redis:
    """A client of a Redis that answers, as a cluster if it is one."""
    scheme, separator, rest = url.partition("://")
    plain = scheme.replace("+cluster", "") + separator + rest
    common = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": None, "protocol": 2}
    if plain == url:
        retry = Retry(NoBackoff(), 1)
        pool = client.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, retry=retry, **common)
        alone = client.Redis.from_pool(pool)
        info = await alone.info("cluster")
        if not info.get("cluster_enabled"):
            return alone
        await alone.aclose()
    clustered = RedisCluster.from_url(plain, max_connections=CONNECTIONS, **common)
    await clustered.initialize()
    return cast(client.Redis, clustered)


async def _all(waiting: Iterable[Any]) -> Sequence[Any]:
    """What all of these give; mostly it is one."""
    several = list(waiting)
    return [await several[0]] if len(several) == 1 else await asyncio.gather(*several)


async def _chunks(keys: AsyncIterator[Any]) -> AsyncIterator[list[Any]]:
    chunk: list[Any] = []
    async for key in keys:
        chunk.append(key)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _place(places: dict[str, dict[Subject, int]], subject: Subject, first: int = 1) -> int:
    """Which of the keys of its workspace's script the record of a subject is."""
    of_it = places.setdefault(subject.workspace, {})
    return of_it.setdefault(subject, len(of_it) + first)


def _record_key(name: str, sealed: str) -> bytes:
    return b"%b{%b}:r:%b" % (PREFIX.encode(), _tag(name), _text(sealed))


def _planned_key(key: Key) -> bytes:
    return b"%b{%b}:planned:%b:%b" % (PREFIX.encode(), _tag(key.workspace), _text(key.kind), _text(key.subject))


def _due_key(name: str) -> bytes:
    return b"%b{%b}:due" % (PREFIX.encode(), _tag(name))


def _tag(name: str) -> bytes:
    """A workspace as a hash tag, which holds no braces and is never empty."""
    return quote(name, safe="", errors="surrogatepass").encode() or b"%"


def _subject(key: str) -> Subject:
    """The subject of a record's key."""
    tag, _, sealed = key.removeprefix(f"{PREFIX}{{").partition("}:r:")
    return Subject("" if tag == "%" else unquote(tag, errors="surrogatepass"), sealed)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _read(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogatepass")
