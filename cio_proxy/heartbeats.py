"""Whether an identify is a heartbeat: it is sent again and again to say that somebody is there, and says little else.

A heartbeat is legitimate (reference 9.14). Pure functions over the attributes of an identify.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

NAMES: Final = ("heartbeat", "is_online", "online", "presence")
"""Attributes that are sent to say that a person is there, where the configuration names no others."""
IDENTIFYING: Final = frozenset(
    {"id", "email", "phone", "anonymous_id", "created_at", "createdAt", "_timestamp", "_update"}
)
"""What every identify may say, a heartbeat too."""
_PRESENT: Final = frozenset({"online", "offline", "active", "inactive", "idle", "away", "available", "busy"})
"""Values that say whether somebody is there."""
_PRESENCE: Final = _PRESENT | {"presence", "present", "heartbeat", "ping", "alive", "connected", "seen"}
"""Words in the name of an attribute that does."""
_WORD = re.compile(r"[A-Za-z][a-z]*")


def is_heartbeat(attributes: Mapping[str, object], names: Collection[str]) -> bool:
    """Whether one of the attributes has one of these names; or all are states, beside what identifies the person."""
    if not attributes.keys().isdisjoint(names):
        return True
    states = [each for each in attributes.items() if each[0] not in IDENTIFYING]
    return bool(states) and all(_is_state(*each) for each in states)


def _is_state(name: str, value: object) -> bool:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in _PRESENT):
        return True
    return not _PRESENCE.isdisjoint(map(str.lower, _WORD.findall(name[:100])))
