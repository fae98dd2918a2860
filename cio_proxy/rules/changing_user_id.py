"""A person's id changes, or is an e-mail address, which will.

An identify with a new id and an e-mail address that Customer.io knows does not make a second person where
people are identified by e-mail as well, as they are in new workspaces: the one who has the address gets the
new id, without a word. Where they are identified by id alone, one person becomes two. An id that is an
e-mail address changes with the address: somebody new appears, and the history stays with the old one.

A second id of one address is no proof: couples, families and teams share a mailbox, and one person may have an id
in each of two tenants of the app. It is likely that the id changed where the second identify says in every text what
one with the first id said, and in `created_at` to the second, or where it names the person by the address itself; and
where the second id is used again within `settle`, while the first one is not, and neither is merged into the other,
deleted, suppressed, renamed by its `cio_id` or given another address, before or after. From the fourth id on an
address is taken for shared, and so are mailboxes whose name says so (`info@`, `test@`).

Certain is the second e-mail address in place of an id of one user, whom `created_at` and a number of the app's own
(`user_id`) tell to be the same. Likely are also an e-mail address as `id` in a body, as `userId` or in v2's
identifiers; ids that differ in case only; and a body with another id than its path. An e-mail address in a v1 path is
the person's address and no id.

Fix: use an id that never changes, such as the primary key of your users; to change one on purpose, identify
`cio_` and the person's cio_id with the new id, or merge the two people.

See https://docs.customer.io/integrations/api/track/ (identify)
See https://docs.customer.io/journeys/identifying-people/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from cio_proxy.model import (
    ADDRESSES,
    DELETED,
    IDENTIFIED,
    Call,
    Confidence,
    Deadline,
    Fact,
    Finding,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Sample,
    Span,
    pointer,
    recalled,
)
from cio_proxy.recognise import created, is_email, moment

DAY = 86_400.0

RULE = RuleInfo(
    id="changing-user-id",
    severity="error",
    category="2",
    kinds=frozenset({"identify", "event", "delete", "suppress", "merge"}),
    apis=frozenset({"track_v1", "track_v2", "pipelines"}),
    params={
        "remember": Param(30 * DAY, "how long it is remembered which ids belong to a person", "duration"),
        "settle": Param(
            7 * DAY,
            "how long the first id of an address may come back, or be merged: who has both uses both in a week",
            "duration",
        ),
        "shared_by": Param(3, "so many ids on one e-mail address are people who share it, not one whose id changes"),
    },
)

MOST = 8
"""Ids of one address that are told apart: with more, somebody shares it."""
GONE = 1_000
"""People that are remembered to be gone; of others it is unknown once there are more."""
SOMEBODY = "?"
"""Somebody is gone, and nobody knows by which id they were known."""

LATER = "later-ids"
"""The kind of the fact of which ids of an address came after the first one, of the same person."""
LATER_USED, FIRST_USED = "later-id-used", "first-id-used"
"""The kinds of the facts that one of them, or the first one, was used after that."""
IDENTIFYING = frozenset({"email", "anonymous_id"})

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
        if (ids_of := _ids_of(call)) and (portrait := _portrait(call)):
            portraits = call.key("portraits", ids_of.subject)
            yield Fact(portraits, Sample(MOST, plain=frozenset({portrait})), params["remember"])


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Fact]:
    """How an id is written; whose address changed: who has it next has not their id; which ids it is used with."""
    id = call.person.id
    if call.kind != "identify" or id is None or outcome.kind == "refused":
        return ()
    return _written(call, id, outcome, known)


def _written(call: Call, id: str, outcome: Outcome, known: Known) -> Iterator[Fact]:
    email = call.person.email
    ttl = known.params["remember"]
    if email is not None:
        addresses = known.sample(call.key(ADDRESSES, f"id:{id}"))
        if addresses is not None and known.member(email) not in addresses.hashes:
            yield Fact(_gone(call), Sample(GONE, plain=frozenset({_name(id)})), ttl)
    if outcome.kind == "accepted" and not id.isdecimal():
        spellings = known.sample(_spellings(call))
        if spellings is None or known.member(id) not in spellings.hashes:
            yield Fact(_spellings(call), Sample(MOST, plain=frozenset({id})), ttl)
    ids_of = _ids_of(call)
    if ids_of is not None and outcome.kind == "accepted" and not call.updates_only:
        yield from _followed(call, id, ids_of, known)


def _followed(call: Call, id: str, ids_of: Key, known: Known) -> Iterator[Fact]:
    """A deadline for the second id of one person; then, which of both is used."""
    ids, later = known.sample(ids_of), known.sample(call.key(LATER, ids_of.subject))
    if ids is None:
        return
    ttl, name = known.params["remember"], _name(id)
    if known.member(name) not in ids.hashes:
        if not _is_free(ids_of, ids, call, known) and _is_same_person(call, ids_of, known):
            yield Fact(ids_of._replace(kind=LATER), Sample(MOST, plain=frozenset({name})), ttl)
            yield _deadline(call, ids_of, known)
    elif later is not None:
        used = ids_of._replace(kind=LATER_USED if known.member(name) in later.hashes else FIRST_USED)
        if known.span(used) is None:
            yield Fact(used, Span(call.at, call.at), ttl)


def _deadline(call: Call, ids_of: Key, known: Known) -> Fact:
    settle = known.params["settle"]
    kinds = (ids_of.kind, LATER, LATER_USED, FIRST_USED, DELETED)
    watch = (*(ids_of._replace(kind=kind) for kind in kinds), _gone(call))
    seed = _second_id(call, ids_of, "likely", known)
    return Fact(ids_of._replace(kind=RULE.id), Deadline(call.at + settle, RULE.id, watch, seed), settle + DAY)


def due(deadline: Deadline, known: Known) -> Iterable[Finding]:
    """The second id had its time: a finding if it took the place of the first one."""
    ids_of, later_ids, later_used, first_used, deleted, leavers = deadline.watch
    ids, later, gone = known.sample(ids_of), known.sample(later_ids), known.sample(leavers)
    if ids is None or later is None or known.span(later_used) is None:
        return ()
    if known.span(first_used) or known.span(deleted) or len(ids.hashes) > known.params["shared_by"]:
        return ()
    first = [each for each in ids.hashes if each not in later.hashes]
    return () if _are_gone(first, gone, known) or _are_gone(later.hashes, gone, known) else (deadline.seed,)


def check(call: Call, known: Known) -> Iterable[Finding]:
    """One finding at most: for an id that changed, else for one that will."""
    if call.kind == "event":
        found = _email_as_id(call)
    elif call.kind == "identify":
        found = None if call.updates_only else _changed(call, known)
        if found is None or found.confidence == "possible":
            other_case = None if call.updates_only else _other_case(call, known)
            found = other_case or _two_in_one(call) or _email_as_id(call) or found
    else:
        return ()
    return () if found is None else (found,)


def _changed(call: Call, known: Known) -> Finding | None:
    """The second id of an e-mail address, or the second e-mail address of a user."""
    for ids, name in _belonging(call):
        before = known.sample(ids)
        if before is None or known.member(name) in before.hashes or _is_free(ids, before, call, known):
            continue
        shared = len(before.hashes) >= known.params["shared_by"]
        if ids.subject.startswith("user:"):
            return _moved(call, "possible" if shared or created(call.attributes) is None else "certain")
        if shared or not _is_same_person(call, ids, known):
            return _second_id(call, ids, "possible", known)
    return None


def _is_free(ids_of: Key, before: Sample, call: Call, known: Known) -> bool:
    """Whether those who had the ids before are gone."""
    deleted = known.span(ids_of._replace(kind=DELETED))
    return deleted is not None or _are_gone(before.hashes, known.sample(_gone(call)), known)


def _second_id(call: Call, ids_of: Key, confidence: Confidence, known: Known) -> Finding:
    first = known.span(ids_of._replace(kind=IDENTIFIED))
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
        related=() if first is None else (first.origin.exchange,),
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
    if spellings is None or known.member(id) in spellings.hashes:
        return None
    if _are_gone(spellings.hashes, known.sample(_gone(call)), known):
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
    if person.id and (ids_of := _ids_of(call)):
        yield ids_of, _name(person.id)
    key = person.id or person.email
    if key and "@" in key and (own := _own(call)) and _is_own_mailbox(key.lower()):
        yield call.key("ids-of", f"user:{own}\0{created(call.attributes)}"), _name(key)


def _ids_of(call: Call) -> Key | None:
    """The ids of somebody's own e-mail address, where a call gives both."""
    person = call.person
    if person.id and person.email and person.cio_id is None and _is_own_mailbox(person.email):
        return call.key("ids-of", f"email:{person.email}")
    return None


def _is_same_person(call: Call, ids_of: Key, known: Known) -> bool:
    """Whether a call with a second id of an address names by it, or describes, who had the first one."""
    if not _is_keyed_by_id(call):
        return True
    portrait, portraits = _portrait(call), known.sample(ids_of._replace(kind="portraits"))
    return portrait is not None and portraits is not None and known.member(portrait) in portraits.hashes


def _portrait(call: Call) -> str | None:
    """When somebody was created, to the second, and every text about them but their ids: two people have two."""
    at = created(call.attributes)
    if at is None or not at % DAY:  # a date alone is the same for all of a day
        return None
    texts = sorted(
        (name, value)
        for name, value in call.attributes.items()
        if isinstance(value, str) and value != call.person.id and name not in IDENTIFYING and moment(value) is None
    )
    return blake2b(repr((at, texts)).encode(), digest_size=16).hexdigest()


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


def _are_gone(people: Iterable[int], gone: Sample | None, known: Known) -> bool:
    """Whether all of these are known no more, as far as anybody can tell."""
    if gone is None:
        return False
    if known.member(SOMEBODY) in gone.hashes:
        return True
    beyond = gone.hashes[-1] if len(gone.hashes) >= gone.limit else None
    return all(each in gone.hashes or (beyond is not None and each > beyond) for each in people)


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


@recalled(1_000)
def _is_own(name: str) -> bool:
    return len(name) <= 20 and re.sub(r"[_ .-]", "", name).lower() in OWN


@recalled(10_000)
def _is_own_mailbox(address: str) -> bool:
    """Whether an address, in lower case, is likely somebody's own."""
    return _SHARED.match(address) is None and _is_address(address)


@recalled(10_000)
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


def _spellings(call: Call) -> Key:
    return call.key("spellings", f"id:{call.person.id}".lower())
