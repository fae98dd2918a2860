"""A person's id changes, or is an e-mail address, which will.

An identify with a new id and an e-mail address that Customer.io knows does not make a second person where
people are identified by e-mail as well, as they are in new workspaces: the one who has the address gets the
new id, without a word. Where they are identified by id alone, one person becomes two. An id that is an
e-mail address changes with the address: somebody new appears, and the history stays with the old one.

Certain is the second id of one e-mail address, and the second e-mail address in place of an id of one user,
whom `created_at` and a number of the app's own (`user_id`) tell to be the same. Nothing is said of an id
that was deleted, merged, suppressed or renamed by its `cio_id` in between, nor of one whose address changed;
of mailboxes whose name says that many share them (`info@`, `test@`); and from the fourth id on an address is
taken for one of those.

Likely are an e-mail address as `id` in a body, as `userId` or in v2's identifiers; ids that differ in case
only; and a body with another id than its path. An e-mail address in a v1 path is the person's address and no id.

Fix: use an id that never changes, such as the primary key of your users; to change one on purpose, identify
`cio_` and the person's cio_id with the new id, or merge the two people.

See https://docs.customer.io/integrations/api/track/ (identify)
See https://docs.customer.io/journeys/identifying-people/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cio_proxy.model import (
    DELETED,
    IDENTIFIED,
    Call,
    Confidence,
    Fact,
    Finding,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    pointer,
)
from cio_proxy.recognise import created, is_email

DAY = 86_400.0

RULE = RuleInfo(
    id="changing-user-id",
    severity="error",
    category="2",
    kinds=frozenset({"identify", "event", "delete", "suppress", "merge"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        "remember": Param(30 * DAY, "how long it is remembered which ids belong to a person", "duration"),
        "shared_by": Param(3, "so many ids on one e-mail address are people who share it, not one whose id changes"),
    },
)

MOST = 8
"""Ids of one address that are told apart: with more, somebody shares it."""
GONE = 1_000
"""People that are remembered to be gone; of others it is unknown once there are more."""
SOMEBODY = "?"
"""Somebody is gone, and nobody knows by which id they were known."""

OWN = frozenset({"userid", "useruuid", "uid", "memberid", "personid", "contactid"})
"""Attributes in which an app names a user by a number of its own."""
NOBODYS = frozenset({"0", "-1", "null", "nil", "none", "nan", "undefined", "unknown", "n/a"})
"""What stands there for no user."""
_SHARED = re.compile(
    r"(?:info|office|contact|kontakt|hello|hi|support|help|service|sales|admin|administrator|webmaster|postmaster|team"
    r"|family|familie|orders?|shop|store|mail|it|reception|booking|bookings|reservations?|buchhaltung|verkauf|newsletter"
    r"|billing|accounts|accounting|finance|hr|jobs|marketing|press|no|noreply|none|null|unknown|anonymous|guest"
    r"|nobody|nomail|noemail|deleted|tests?|tester|testing|qa|dev|demo|staging|dummy|fake|e2e|cypress|playwright|selenium)\d*(?:[._+-][^@]*)?@"
)
"""How mailboxes begin that many share, or nobody has."""

FIX = (
    "Use an id that never changes. To change one on purpose, identify `cio_` and the person's cio_id with the new id, "
    "or merge the two people."
)


def needs(call: Call, people: People) -> Iterable[Key]:
    """How else the id was written, and who is gone: a second id is none where the first one is there no more."""
    return (_spellings(call), _gone(call)) if call.kind == "identify" else ()


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """Which ids belong together, and who is gone."""
    return () if call.kind == "event" else _taught(call, outcome, params)


def _taught(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterator[Fact]:
    if gone := _leaving(call):
        yield Fact(_gone(call), Sample(GONE, plain=gone), params["remember"])
    if call.kind == "identify" and outcome.kind == "accepted" and not call.updates_only:
        for ids, name in _belonging(call):
            yield Fact(ids, Sample(MOST, plain=frozenset({name})), params["remember"])


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """How an id is written; and whose e-mail address changed: who has the old one next has not their id."""
    id = call.person.id
    if call.kind != "identify" or id is None or outcome.of(call) == "refused":
        return ()
    return _written(call, id, outcome, known)


def _written(call: Call, id: str, outcome: Outcome, known: Known) -> Iterator[Fact]:
    email = call.person.email
    ttl = known.params["remember"]
    if email is not None:
        addresses = known.sample(_addresses(call))
        if addresses is None or known.member(email) not in addresses.hashes:
            yield Fact(_addresses(call), Sample(MOST, plain=frozenset({email})), ttl)
            if addresses is not None:
                yield Fact(_gone(call), Sample(GONE, plain=frozenset({_name(id)})), ttl)
    if outcome.of(call) == "accepted" and not id.isdecimal():
        spellings = known.sample(_spellings(call))
        if spellings is None or known.member(id) not in spellings.hashes:
            yield Fact(_spellings(call), Sample(MOST, plain=frozenset({id})), ttl)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding at most: for an id that changed, else for one that will."""
    if call.kind == "event":
        found = _email_as_id(call)
    elif call.kind == "identify":
        found = None if call.updates_only else _changed(call, known) or _other_case(call, known)
        if found is None or found.confidence == "possible":
            found = _two_in_one(call) or _email_as_id(call) or found
    else:
        return ()
    return () if found is None else (found,)


def _changed(call: Call, known: Known) -> Finding | None:
    """The second id of an e-mail address, or the second e-mail address of a user."""
    for ids, name in _belonging(call):
        before = known.sample(ids)
        if before is None or known.member(name) in before.hashes or known.span(ids._replace(kind=DELETED)):
            continue
        if _are_gone(before, call, known):
            continue
        shared = len(before.hashes) >= known.params["shared_by"]
        if ids.subject.startswith("user:"):
            return _moved(call, "possible" if shared or created(call.attributes) is None else "certain")
        first = known.span(ids._replace(kind=IDENTIFIED))
        return _second_id(call, "possible" if shared else "certain", () if first is None else (first.origin.exchange,))
    return None


def _second_id(call: Call, confidence: Confidence, related: tuple[str, ...]) -> Finding:
    if _is_keyed_by_id(call):
        where = call.person_at
        effect = (
            "Customer.io answers 200. Where e-mail addresses identify people too, the person who has this one gets the "
            "new id without a word; where they do not, one person is two now."
        )
    else:
        where = pointer(call.attributes_at, "id")
        effect = "Customer.io answers 200, and the person keeps the first id: once set, it only changes by cio_id."
    return RULE.finding(
        where,
        "the e-mail address was identified with another id before",
        effect=effect,
        fix=FIX,
        confidence=confidence,
        related=related,
    )


def _moved(call: Call, confidence: Confidence) -> Finding:
    return RULE.finding(
        call.person_at,
        "the same user was identified by another e-mail address before",
        effect="Customer.io answers 200 and makes a new person; attributes, events and segments stay with the old one.",
        fix="Use the number that names the user as id, and the e-mail address as an attribute.",
        confidence=confidence,
    )


def _other_case(call: Call, known: Known) -> Finding | None:
    """An id that was written in other letters; ids of mixed case may well be different people."""
    id = call.person.id
    if id is None or len(id) < 6 or "@" in id:
        return None
    spellings = known.sample(_spellings(call))
    if spellings is None or known.member(id) in spellings.hashes or _are_gone(spellings, call, known):
        return None
    plain = id in (id.lower(), id.upper())
    if not plain and not any(known.member(each) in spellings.hashes for each in (id.lower(), id.upper())):
        return None
    return RULE.finding(
        call.person_at if _is_keyed_by_id(call) else pointer(call.attributes_at, "id"),
        "the id was written in other upper and lower case before",
        effect="Customer.io tells ids apart by case: it answers 200, and one person is two.",
        fix="Write every id in the same case, as it is stored.",
        confidence="likely",
    )


def _two_in_one(call: Call) -> Finding | None:
    other = _id_in_body(call)
    if other is None or call.person.id is None or other == call.person.id:
        return None
    return RULE.finding(
        pointer(call.attributes_at, "id"),
        "the body gives the person another id",
        effect="Customer.io answers 200. An id that is set can only be changed by cio_id, and if this one is somebody "
        "else's, nothing of the update is kept.",
        fix=FIX,
        confidence="likely",
    )


def _email_as_id(call: Call) -> Finding | None:
    if call.person.id is None or "@" not in call.person.id or not _is_address(call.person.id):
        return None
    confidence: Confidence = "likely"
    where = call.person_at if call.api == "pipelines" else pointer(call.person_at, "id")
    if (other := _id_in_body(call)) is not None and not _is_keyed_by_id(call):
        where = pointer(call.attributes_at, "id")
        if call.api == "track_v1" and other.lower() == call.person.email:
            confidence = "possible"  # Ruby's library repeats what stands in the path
    return RULE.finding(
        where,
        "the id is an e-mail address",
        effect="Customer.io takes it. When the address changes, so does the id: the history stays with the old one.",
        fix="Use an id that never changes, and give the address as the e-mail.",
        confidence=confidence,
    )


# --- what belongs together ---------------------------------------------------------------------


def _belonging(call: Call) -> Iterator[tuple[Key, str]]:
    """Of what somebody may have one id only, and the id that this call gives them."""
    person = call.person
    if person.cio_id is not None:  # the way to change an id
        return
    if person.id and person.email and _is_own_mailbox(person.email):
        yield call.key("ids-of", f"email:{person.email}"), _name(person.id)
    key = person.id or person.email
    if key and "@" in key and (own := _own(call)) and _is_own_mailbox(key.lower()):
        yield call.key("ids-of", f"user:{own}\0{created(call.attributes)}"), _name(key)


def _leaving(call: Call) -> frozenset[str]:
    """By which ids and addresses somebody is known no more."""
    person = call.person
    if call.kind == "identify":
        if person.cio_id:
            return frozenset({SOMEBODY}) if person.id or "email" in call.attributes else frozenset()
        if "email" not in call.attributes or not call.identifiers:
            return frozenset()
        if person.email is None:  # the address was taken away
            return frozenset({_name(person.id) if person.id else SOMEBODY})
        address = call.attributes["email"]
        return (
            frozenset() if isinstance(address, str) and address.lower() == person.email else frozenset({person.email})
        )
    left = call.merged if call.kind == "merge" else person
    return frozenset({_name(name) for name in (left.id, left.email) if name}) or frozenset({SOMEBODY})


def _are_gone(people: Sample, call: Call, known: Known) -> bool:
    """Whether all of these are known no more, as far as anybody can tell."""
    gone = known.sample(_gone(call))
    if gone is None:
        return False
    if known.member(SOMEBODY) in gone.hashes:
        return True
    beyond = gone.hashes[-1] if len(gone.hashes) >= gone.limit else None
    return all(each in gone.hashes or (beyond is not None and each > beyond) for each in people.hashes)


def _name(id: str) -> str:
    return id.lower() if "@" in id else id


def _own(call: Call) -> str | None:
    """The number by which the app names the user, beside the identifiers."""
    for name, value in call.attributes.items():
        if _is_own(name) or (name == "id" and call.api == "pipelines"):
            number = str(value).strip() if type(value) is int or isinstance(value, str) else ""
            if number and number.lower() not in NOBODYS and "@" not in number:
                return number
    return None


@lru_cache(1_000)
def _is_own(name: str) -> bool:
    return re.sub(r"[_ .-]", "", name[:20]).lower() in OWN


@lru_cache(10_000)
def _is_own_mailbox(address: str) -> bool:
    """Whether an address, in lower case, is likely somebody's own."""
    return _SHARED.match(address) is None and _is_address(address)


@lru_cache(10_000)
def _is_address(text: str) -> bool:
    return len(text) <= 320 and is_email(text)


def _id_in_body(call: Call) -> str | None:
    """The `id` among the attributes, which Track takes for the person's."""
    value = None if call.api == "pipelines" else call.attributes.get("id")
    return str(value) if type(value) is int or (isinstance(value, str) and value) else None


def _is_keyed_by_id(call: Call) -> bool:
    """Whether path or identifiers name the person by id, rather than the attributes alone."""
    if call.api == "track_v1":
        path = call.exchange.target.partition(b"?")[0]
        return call.person.cio_id is None and b"@" not in path and b"%40" not in path
    identifiers = call.body.get("identifiers")
    return call.api == "pipelines" or (isinstance(identifiers, dict) and identifiers.get("id") is not None)


def _gone(call: Call) -> Key:
    return call.key("gone", "who is gone")


def _addresses(call: Call) -> Key:
    return call.key("addresses", f"id:{call.person.id}")


def _spellings(call: Call) -> Key:
    return call.key("spellings", f"id:{call.person.id}".lower())
