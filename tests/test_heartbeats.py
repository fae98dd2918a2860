"""What an identify says that only says that somebody is there."""

import pytest

from cio_proxy.heartbeats import IDENTIFYING, NAMES, is_heartbeat


@pytest.mark.parametrize(
    "attributes",
    [
        *(
            {name: 7}
            for name in ("heartbeat", "is_online", "online", "presence", "lastSeen", "last_active", "inactive")
        ),
        *({f"app {word}": "x"} for word in ("offline", "idle", "away", "available", "busy", "present", "ping")),
        *({f"{word}At": "x"} for word in ("alive", "connected", "presence", "heartbeat")),
        *(
            {"status": word}
            for word in ("online", "offline", "active", "inactive", "idle", "away", "available", "BUSY")
        ),
        {"x" * 90 + "_online": 1},
        {"in_app": True, "in_store": False},
        *({name: 1, "plan": "pro"} for name in ("heartbeat", "is_online", "online", "presence")),
        *({"active": True, name: "x"} for name in sorted(IDENTIFYING)),
    ],
    ids=str,
)
def test_what_says_only_that_somebody_is_there_is_a_heartbeat(attributes: dict[str, object]) -> None:
    assert is_heartbeat(attributes, NAMES)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"email": "ada@example.com"},
        {"plan": "pro", "active": True},
        {"status": "trial"},
        {"seats": 1},
        {"activeplan": "pro"},
        {"x" * 94 + "_online": 1},
        {"state": ["online"]},
    ],
    ids=str,
)
def test_what_says_more_is_none(attributes: dict[str, object]) -> None:
    assert not is_heartbeat(attributes, NAMES)


def test_names_of_heartbeats_are_the_operators() -> None:
    assert is_heartbeat({"beat": 1, "plan": "pro"}, ("beat",))
    assert not is_heartbeat({"presence": 1, "plan": "pro"}, ("beat",))


def test_what_identifies_is_named() -> None:
    assert sorted(IDENTIFYING) == [
        "_timestamp",
        "_update",
        "anonymous_id",
        "createdAt",
        "created_at",
        "email",
        "id",
        "phone",
    ]
