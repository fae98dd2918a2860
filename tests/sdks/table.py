"""Which pitfall each SDK can put on the wire: the programs that do, or the reason why it cannot."""

from typing import NamedTuple

NODE, TRACK, CDP = "customerio-node", "customerio", "customerio-cdp-analytics"

# The folder of an SDK's environment, and the programs of a clean and of a bad session.
INSTALLED = {NODE: "tests/sdks/node/node_modules", TRACK: ".venvs/sdk-track", CDP: ".venvs/sdk-cdp"}
CLEAN = {
    NODE: ("node", "tests/sdks/node/clean.mjs"),
    TRACK: (".venvs/sdk-track/bin/python", "tests/sdks/python/track_clean.py"),
    CDP: (".venvs/sdk-cdp/bin/python", "tests/sdks/python/cdp_clean.py"),
}
BAD = {
    NODE: ("node", "tests/sdks/node/bad.mjs"),
    TRACK: (".venvs/sdk-track/bin/python", "tests/sdks/python/track_bad.py"),
    CDP: (".venvs/sdk-cdp/bin/python", "tests/sdks/python/cdp_bad.py"),
}


class Pitfall(NamedTuple):
    """One program, by the name that it takes; a name is a rule id, and a variant after a colon."""

    name: str
    refused: bool = False
    """True where `enforce` with the shipped defaults refuses the last call (reference 9.19)."""


def found(name: str) -> Pitfall:
    return Pitfall(name)


def refused(name: str) -> Pitfall:
    return Pitfall(name, refused=True)


Reach = tuple[Pitfall, ...] | str

BY_THE_APP = "shows it only within an app behind the inbound listener, whose own answers come late"
TO_THE_APP = "begins with a webhook to the app, which no SDK sends"
BEHIND_A_BASE_URL = "is given the proxy as its base URL, so the region is the proxy's own setting"

TABLE: dict[str, dict[str, Reach]] = {
    "wrong-api-key": {
        NODE: (refused("wrong-api-key"), found("wrong-api-key: App key")),
        TRACK: (refused("wrong-api-key"), found("wrong-api-key: App key")),
        CDP: (found("wrong-api-key"),),
    },
    "millisecond-timestamp": {
        NODE: (refused("millisecond-timestamp"), refused("millisecond-timestamp: Pipelines")),
        TRACK: (refused("millisecond-timestamp"),),
        CDP: (refused("millisecond-timestamp"),),
    },
    "hardcoded-credentials": {
        NODE: (found("hardcoded-credentials"),),
        TRACK: (found("hardcoded-credentials"),),
        CDP: (found("hardcoded-credentials"),),
    },
    "inconsistent-event-name": {
        NODE: (found("inconsistent-event-name"), found("inconsistent-event-name: two spellings")),
        TRACK: (found("inconsistent-event-name"), found("inconsistent-event-name: two spellings")),
        CDP: (found("inconsistent-event-name: two spellings"),),
    },
    "dynamic-event-name": {
        NODE: (found("dynamic-event-name"), found("dynamic-event-name: one of many")),
        TRACK: (found("dynamic-event-name"), found("dynamic-event-name: one of many")),
        CDP: (found("dynamic-event-name"), found("dynamic-event-name: one of many")),
    },
    "pii-in-name": {
        NODE: (found("pii-in-name"), refused("pii-in-name: event")),
        TRACK: (found("pii-in-name"), refused("pii-in-name: event")),
        CDP: (
            found("pii-in-name"),
            refused("pii-in-name: event"),
            refused("pii-in-name: queued event"),
        ),
    },
    "malformed-body": {
        NODE: (found("malformed-body"),),
        TRACK: (found("malformed-body"),),
        CDP: (found("malformed-body"),),
    },
    "invalid-field": {
        NODE: (found("invalid-field"),),
        TRACK: (found("invalid-field"),),
        CDP: (found("invalid-field"),),
    },
    "reserved-name": {
        NODE: (found("reserved-name"),),
        TRACK: (found("reserved-name"),),
        CDP: (found("reserved-name"),),
    },
    "unknown-endpoint": {
        NODE: (found("unknown-endpoint"),),
        TRACK: (found("unknown-endpoint"),),
        CDP: "posts to one path under its host, and outside of the Track API an unknown path is only possible",
    },
    "wrong-region": dict.fromkeys((NODE, TRACK, CDP), BEHIND_A_BASE_URL),
    "placeholder-identifier": {
        NODE: (found("placeholder-identifier"),),
        TRACK: (found("placeholder-identifier"),),
        CDP: (found("placeholder-identifier"),),
    },
    "ambiguous-identifier": {
        NODE: "encodes every identifier, and has no method for a path of one's own",
        TRACK: (found("ambiguous-identifier"),),
        CDP: "puts no identifier into a path",
    },
    "stale-timestamp": {
        NODE: (found("stale-timestamp"),),
        TRACK: (found("stale-timestamp"),),
        CDP: "posts every call in a batch, where an old event may well be a backfill",
    },
    "invalid-event-id": {
        NODE: (found("invalid-event-id"), found("invalid-event-id: of another event")),
        TRACK: (found("invalid-event-id"), found("invalid-event-id: of another event")),
        CDP: "has no id of an event but the messageId that it makes itself",
    },
    "redirected-recipient": {
        NODE: (found("redirected-recipient"),),
        TRACK: (found("redirected-recipient"),),
        CDP: "sends Pipelines calls only, where no property is documented to redirect mail",
    },
    "sensitive-value": {
        NODE: (found("sensitive-value"),),
        TRACK: (found("sensitive-value"),),
        CDP: (found("sensitive-value"),),
    },
    "duplicate-event": {
        NODE: (found("duplicate-event"),),
        TRACK: (found("duplicate-event"),),
        CDP: "gives every call a messageId of its own, which makes two events of them",
    },
    "shared-anonymous-id": {
        NODE: (found("shared-anonymous-id"),),
        TRACK: (found("shared-anonymous-id"),),
        CDP: (found("shared-anonymous-id"),),
    },
    "oversized-payload": {
        NODE: (refused("oversized-payload"),),
        TRACK: (refused("oversized-payload"),),
        CDP: (refused("oversized-payload"),),
    },
    "track-before-identify": {
        NODE: (found("track-before-identify"),),
        TRACK: (found("track-before-identify"),),
        CDP: (found("track-before-identify"),),
    },
    "changing-user-id": {
        NODE: (found("changing-user-id"),),
        TRACK: (found("changing-user-id"),),
        CDP: (found("changing-user-id"),),
    },
    "anonymous-id-not-merged": {
        NODE: (found("anonymous-id-not-merged"),),
        TRACK: (found("anonymous-id-not-merged"),),
        CDP: (found("anonymous-id-not-merged"),),
    },
    "split-identity": {
        NODE: (found("split-identity"),),
        TRACK: (found("split-identity"),),
        CDP: (found("split-identity"),),
    },
    "inconsistent-attribute-type": {
        NODE: (found("inconsistent-attribute-type"),),
        TRACK: (found("inconsistent-attribute-type"),),
        CDP: (found("inconsistent-attribute-type"),),
    },
    "redundant-identify": {
        NODE: (found("redundant-identify"),),
        TRACK: (found("redundant-identify"),),
        CDP: (found("redundant-identify"),),
    },
    "missing-unsubscribe-link": {
        NODE: (found("missing-unsubscribe-link"),),
        TRACK: (found("missing-unsubscribe-link"),),
        CDP: "sends Pipelines calls only, and no mail",
    },
    "trigger-on-every-update": {
        NODE: (found("trigger-on-every-update"),),
        TRACK: (found("trigger-on-every-update"),),
        CDP: (found("trigger-on-every-update"),),
    },
    "unplanned-event": {
        NODE: (found("unplanned-event"),),
        TRACK: (found("unplanned-event"),),
        CDP: (found("unplanned-event"),),
    },
    "blocking-on-analytics": dict.fromkeys((NODE, TRACK, CDP), BY_THE_APP),
    "invalid-webhook-signature": dict.fromkeys((NODE, TRACK, CDP), TO_THE_APP),
    "ignored-bounce": dict.fromkeys((NODE, TRACK, CDP), TO_THE_APP),
    "unmonitored-complaints": dict.fromkeys((NODE, TRACK, CDP), TO_THE_APP),
    "no-connection-pooling": {
        NODE: "sends through fetch, whose pool no option of its own turns off",
        TRACK: (found("no-connection-pooling"),),
        CDP: "has one session for all its clients",
    },
    "no-rate-limiting": {
        NODE: (found("no-rate-limiting"), found("no-rate-limiting: triggers")),
        TRACK: (found("no-rate-limiting"),),
        CDP: (found("no-rate-limiting"),),
    },
    "missing-email": {
        NODE: (found("missing-email"),),
        TRACK: (found("missing-email"),),
        CDP: (found("missing-email"),),
    },
}

UNSTOPPABLE = {
    "missing-email",
    "anonymous-id-not-merged",
    "stale-timestamp",
    "duplicate-event",
    "shared-anonymous-id",
    "split-identity",
    "redundant-identify",
    "trigger-on-every-update",
    "no-connection-pooling",
    "no-rate-limiting",
    "blocking-on-analytics",
    "ignored-bounce",
    "unmonitored-complaints",
    "changing-user-id",
}
"""Rules that refuse no call of theirs: they find their fault too late, or nothing is wrong with the call itself."""

PROGRAMS = [
    (sdk, rule, pitfall)
    for rule, reach in TABLE.items()
    for sdk, pitfalls in reach.items()
    if not isinstance(pitfalls, str)
    for pitfall in pitfalls
]

FIRST = list({row[1]: row for row in reversed(PROGRAMS) if not row[2].refused}.values())
"""For each rule one program that shows it: what refuses it is the same for all."""
