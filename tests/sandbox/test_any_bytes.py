"""Bytes of any kind, to every route: an answer, and never a failure of the sandbox."""

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cio_proxy.sandbox import Sandbox, pipelines

from .conftest import APP, CDP, TRACK

ROUTES = [
    ("GET", b"/api/v1/accounts/region"),
    ("PUT", b"/api/v1/customers/%s"),
    ("DELETE", b"/api/v1/customers/%s"),
    ("PUT", b"/api/v1/customers/%s/devices"),
    ("DELETE", b"/api/v1/customers/%s/devices/%s"),
    ("POST", b"/api/v1/customers/%s/suppress"),
    ("POST", b"/api/v1/customers/%s/unsuppress"),
    ("POST", b"/api/v1/customers/%s/events"),
    ("POST", b"/api/v1/events"),
    ("POST", b"/api/v1/merge_customers"),
    ("POST", b"/api/v1/segments/%s/add_customers?id_type=%s"),
    ("POST", b"/api/v1/segments/%s/remove_customers"),
    ("POST", b"/api/v1/forms/%s/submit"),
    ("POST", b"/api/v1/metrics"),
    ("POST", b"/push/events"),
    ("POST", b"/unsubscribe/%s"),
    ("POST", b"/api/v2/entity"),
    ("POST", b"/api/v2/batch"),
    *(("POST", b"/v1/" + kind) for kind in b"identify track page screen group alias batch".split()),
    ("POST", b"/v1/send/email"),
    ("POST", b"/v1/send/push"),
    ("POST", b"/v1/campaigns/%s/triggers"),
    ("POST", b"/v1/esp/suppression/bounces/%s"),
    ("GET", b"/v1/customers/%s/messages"),
    ("GET", b"/_sandbox/people"),
    ("GET", b"/_sandbox/%s"),
    ("PATCH", b"/%s"),
]


def auth_for(path: bytes) -> str:
    if pipelines.PATH.match(path):
        return CDP
    return APP if path.startswith(b"/v1/") else TRACK


async def call(
    sandbox: Sandbox, method: str, target: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> int:
    """One request straight into the application, with bytes that no HTTP client would send."""
    path, _, query = target.partition(b"?")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    authorization = (b"authorization", auth_for(path).encode())
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path,
        "query_string": query,
        "headers": [authorization, *headers],
    }
    await sandbox.app(scope, receive, send)
    return int(sent[0]["status"])


NAMES = ["id", "email", "cio_id", "phone", "name", "data", "type", "action", "identifiers", "attributes", "device",
         "primary", "secondary", "ids", "batch", "userId", "anonymousId", "groupId", "previousId", "event", "traits",
         "properties", "timestamp", "anonymous_id", "_timestamp", "created_at", "createdAt", "cio_relationships",
         "relationships", "cio_subscription_preferences", "to", "delivery_id", "metric", "object_id", "unsubscribe",
         "send_at", "context", "per_user_data", "token", "platform", "topics", "_update", "messageId"]  # fmt: skip
WORDS = ["person", "object", "delivery", "identify", "event", "page", "track", "merge", "add_device", "ios", "opened",
         "add_relationships", "a@b.c", "ada", "2024-01-03T13:20:00Z", "0001-01-01T00:00:00+23:59", "",
         "\ud800"]  # fmt: skip
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.just(10**400)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=25,
)


VALID: Any = {
    "type": "person", "action": "identify", "identifiers": {"id": "ada"}, "attributes": {"plan": "pro"}, "name": "e",
    "data": {"email": "a@b.c"}, "primary": {"id": "ada"}, "secondary": {"id": "bob"}, "ids": ["ada"],
    "device": {"token": "t", "platform": "ios"}, "userId": "ada", "anonymousId": "a", "groupId": "g", "event": "paid",
    "previousId": "p", "cio_relationships": [{"identifiers": {"object_id": "1"}}], "to": "a@b.c", "unsubscribe": True,
    "transactional_message_id": 1, "delivery_id": "d", "metric": "opened",
}  # fmt: skip
"""One body that is right for every route, to be spoilt in a few places."""
ACTIONS = ["identify", "event", "page", "delete", "suppress", "merge", "add_relationships", "add_device", "fly"]
spoilt = st.builds(
    lambda wrong, action: VALID | {"action": action} | wrong,
    st.dictionaries(st.sampled_from(NAMES), values, max_size=3),
    st.sampled_from(ACTIONS),
)
bodies = st.binary(max_size=200) | st.builds(
    lambda value: json.dumps(value).encode(),
    values | spoilt | st.builds(lambda items: {"batch": items}, st.lists(values | spoilt, max_size=3)),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    route=st.sampled_from(ROUTES),
    part=st.binary(max_size=12),
    body=bodies,
    encoding=st.sampled_from([(), ((b"content-encoding", b"gzip"),), ((b"x-strict-mode", b"1"),)]),
)
def test_bytes_of_any_kind_never_break_a_route(
    route: tuple[str, bytes], part: bytes, body: bytes, encoding: tuple[tuple[bytes, bytes], ...]
) -> None:
    async def twice() -> list[int]:
        sandbox = Sandbox(clock=lambda: 1_800_000_000.0)
        method, target = route
        target = target.replace(b"%s", part)
        answers = [await call(sandbox, method, target, body, encoding) for _ in range(2)]
        reads = [await call(sandbox, "GET", b"/_sandbox/" + kind, b"") for kind in (b"people", b"events", b"requests")]
        return answers + reads

    assert all(status < 500 for status in asyncio.run(twice()))
