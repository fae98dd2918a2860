"""Whose id changed, whose did not, and when the proxy cannot tell."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import (
    Call,
    Deadline,
    Exchange,
    Finding,
    Key,
    Kind,
    Outcome,
    OutcomeKind,
    People,
    Person,
    RuleSettings,
    Sample,
    Settings,
    Span,
)
from cio_proxy.rules import RULES
from cio_proxy.rules.changing_user_id import check, due, learn, review

from .alone import remembered

RULE = tuple(rule for rule in RULES if rule.info.id == "changing-user-id")
NOW = 1.75e9
DAY = 86_400.0
MAIL = {"email": "a@example.com"}
ADA = MAIL | {"created_at": 1_700_000_042, "first_name": "Ada"}

NO_PARAMS: Mapping[str, Any] = {}
Request = tuple[str, str, dict[str, Any]]


def v1(id: str, body: dict[str, Any] = MAIL) -> Request:
    return ("PUT", f"/api/v1/customers/{id}", body)


def v2(action: str = "identify", /, **identifiers: Any) -> Request:
    attributes = identifiers.pop("attributes", {})
    body = {"type": "person", "action": action, "identifiers": identifiers, "attributes": attributes}
    return ("POST", "/api/v2/entity", body)


def merge(primary: dict[str, str], secondary: dict[str, str]) -> Request:
    return ("POST", "/api/v1/merge_customers", {"primary": primary, "secondary": secondary})


def delete(id: str) -> Request:
    return ("DELETE", f"/api/v1/customers/{id}", {})


async def found(
    *sent: Request,
    every: float = 1.0,
    statuses: tuple[int, ...] = (),
    host: str = "track.customer.io",
    end: float = 0.0,
    params: Mapping[str, Any] = NO_PARAMS,
) -> list[Finding]:
    """All that is said of these requests until `end` seconds after the first, `possible` findings too."""
    recorded = [
        (
            Exchange(
                id=str(number),
                at=NOW + number * every,
                method=method,
                target=target.encode(),
                host=host,
                headers=(),
                body=b"" if method == "DELETE" else json.dumps(body).encode(),
            ),
            Recorded(NOW + number * every, dict(enumerate(statuses)).get(number, 200)),
        )
        for number, (method, target, body) in enumerate(sent)
    ]
    errors: list[object] = []
    settings = Settings(rules={"changing-user-id": RuleSettings(report="possible", params=params)})
    engine = Engine(settings, RULE, sealed_with(b"k" * 32), rule_error=lambda *error: errors.append(error))
    findings = await audit_recorded(recorded, engine, end=NOW + end)
    assert errors == []
    return findings


async def told(*sent: Request, **more: Any) -> list[tuple[str, str, str]]:
    return [(f.exchange, f.pointer, f.confidence) for f in await found(*sent, **more)]


async def test_a_second_id_of_an_address_is_possible_and_from_the_fourth_on_it_is_shared() -> None:
    findings = await found(*(v1(id) for id in ("11", "22", "22", "11", "33", "44", "55")))
    assert [(f.exchange, f.confidence) for f in findings] == [
        ("1", "possible"),
        ("4", "possible"),
        ("5", "possible"),
        ("6", "possible"),
    ]
    assert {(f.pointer, f.related) for f in findings} == {("path:", ("0",))}
    sent = [v1("11", ADA), v1("22", ADA), v1("22", ADA), v1("33", ADA)]
    assert await told(*sent, end=8 * DAY) == [("1", "path:", "likely")]
    assert await told(*sent, v1("44", ADA), end=8 * DAY) == [("4", "path:", "possible")]


async def test_an_address_that_is_the_id_stands_where_the_person_is_named() -> None:
    (finding,) = await found(v2(id="ada@example.com", attributes={"id": "ada@example.com"}))
    assert finding.pointer == "/identifiers/id"


async def test_it_is_remembered_for_thirty_days() -> None:
    assert len(await found(v1("11"), v1("22"), every=29 * 86_400.0)) == 1
    assert await found(v1("11"), v1("22"), every=31 * 86_400.0) == []


async def test_only_what_was_accepted_is_held_against_an_app() -> None:
    assert await told(v1("11"), v1("22"), statuses=(500,)) == []
    assert await told(v1("11"), v1("22"), statuses=(400,)) == []
    assert await told(v1("11", MAIL | {"_update": True}), v1("22")) == []
    assert await told(v1("11"), v1("22", MAIL | {"_update": True})) == []


async def test_an_address_that_is_the_key_and_gets_another_id() -> None:
    body = {"id": "22", "plan": "pro"}
    (finding,) = await found(*twice(v1("11"), v1("a%40example.com", body)), end=8 * DAY)
    assert (finding.pointer, finding.confidence) == ("/id", "likely")
    assert "keeps the first id" in finding.effect
    (finding,) = await found(*twice(v1("11"), v1("a@example.com?x=1", body)), end=8 * DAY)
    assert finding.pointer == "/id"
    (finding,) = await found(*twice(v1("11"), v2(email="a@example.com", attributes={"id": 22})), end=8 * DAY)
    assert finding.pointer == "/attributes/id"
    (finding,) = await found(v1("11"), v2(id="22", attributes=MAIL))
    assert (finding.pointer, "gets the new id" in finding.effect) == ("/identifiers", True)
    assert await told(v1("11"), v1("22?by=a@example.com")) == [("1", "path:", "possible")]


def twice(first: Request, second: Request) -> list[Request]:
    return [first, second, second]


async def test_the_id_of_one_person_changed_once_the_second_one_had_its_time() -> None:
    sent = twice(v1("11", ADA), v1("22", ADA))
    assert await told(*sent, end=7 * DAY) == []
    (finding,) = await found(*sent, end=7 * DAY + 2)
    assert (finding.exchange, finding.pointer, finding.confidence) == ("1", "path:", "likely")
    assert (finding.related, finding.time) == (("0",), NOW + 7 * DAY + 1)


async def test_a_first_id_that_is_used_again_belongs_to_somebody() -> None:
    first, second = v1("11", ADA), v1("22", ADA)
    assert await told(first, second, second, first, end=8 * DAY) == []
    assert await told(first, second, first, second, end=8 * DAY) == []
    assert await told(first, second, v1("11"), second, end=8 * DAY) == []
    assert await told(first, second, second, v1("11", MAIL | {"_update": True}), end=8 * DAY) == [SECOND]
    assert await told(first, second, second, first, statuses=(200, 200, 200, 400), end=8 * DAY) == [SECOND]
    assert await told(first, second, end=8 * DAY) == []  # nor is the second one used
    assert await told(first, second, second, statuses=(200, 200, 400), end=8 * DAY) == []
    assert await told(first, second, second, statuses=(200, 500), end=8 * DAY) == []
    third = v1("33", ADA)
    assert await told(first, second, third, third, end=8 * DAY) == [SECOND]
    assert await told(first, v1("22"), third, third, end=8 * DAY) == [
        ("1", "path:", "possible"),
        ("2", "path:", "likely"),
    ]
    assert await told(first, v1("22"), third, third, v1("22"), end=8 * DAY) == [("1", "path:", "possible")]


@pytest.mark.parametrize(
    ("body", "confidence"),
    [
        (ADA, "likely"),
        (ADA | {"logins": 7, "active": True, "seen": "2025-01-01T10:00:00Z", "anonymous_id": "x"}, "likely"),
        (ADA | {"email": "A@Example.com"}, "likely"),
        (ADA | {"user": "22"}, "likely"),  # it changes with the id
        (ADA | {"created_at": 1_700_000_043}, "possible"),
        (ADA | {"first_name": "Grace"}, "possible"),
        (ADA | {"user": "23"}, "possible"),
        (ADA | {"tenant": "south"}, "possible"),
        (MAIL | {"created_at": 1_700_000_042}, "possible"),
        (MAIL | {"created_at": 1_700_000_042, "last_name": "Ada"}, "possible"),
        (MAIL | {"first_name": "Ada"}, "possible"),
        (MAIL, "possible"),
    ],
    ids=str,
)
async def test_one_person_is_described_alike_and_created_at_the_same_second(body: Any, confidence: str) -> None:
    findings = await told(*twice(v1("11", ADA), v1("22", body)), end=8 * DAY)
    assert findings == [("1", "path:", confidence)]


async def test_a_date_without_a_time_is_the_same_for_many() -> None:
    for at in (1_699_920_000, "2023-11-14"):
        body = MAIL | {"created_at": at}
        assert await told(*twice(v1("11", body), v1("22", body)), end=8 * DAY) == [("1", "path:", "possible")], at
    body = MAIL | {"created_at": 1_699_920_001}
    assert await told(*twice(v1("11", body), v1("22", body)), end=8 * DAY) == [SECOND]


async def test_how_a_person_was_described_is_remembered_of_accepted_identifies() -> None:
    updates = v1("11", ADA | {"_update": True})
    told_of = await told(v1("11"), updates, v1("22", ADA), v1("22", ADA), end=8 * DAY)
    assert told_of == [("2", "path:", "possible")]
    told_of = await told(v1("11"), v1("11", ADA), v1("22", ADA), v1("22"), statuses=(200, 500), end=8 * DAY)
    assert told_of == [("2", "path:", "possible")]
    assert await told(v1("11"), v1("11", ADA), v1("22", ADA), v1("22"), end=8 * DAY) == [("2", "path:", "likely")]


async def test_a_second_id_that_is_merged_or_deleted_took_nobodys_place() -> None:
    sent = twice(v1("11", ADA), v1("22", ADA))
    for end in (merge({"id": "11"}, {"id": "22"}), delete("22"), v1("22", {"email": "b@example.com"})):
        assert await told(*sent, end, end=8 * DAY) == []


async def test_what_is_forgotten_by_the_end_of_the_wait_says_nothing() -> None:
    kinds = ("ids-of", "later-ids", "later-id-used", "first-id-used", "deleted", "gone")
    watch = tuple(Key(kind, "w", "s") for kind in kinds)
    seed = RULE[0].info.finding("", "", effect="", fix="", confidence="likely")

    class Left:
        params: Mapping[str, Any] = {"shared_by": 3}

        def __init__(self, *kinds: str) -> None:
            self._kinds = kinds

        def span(self, key: Key) -> Span | None:
            return Span(NOW, NOW) if key.kind in self._kinds else None

        def sample(self, key: Key) -> Sample | None:
            return Sample(8, (1, 2) if key.kind == "ids-of" else (2,)) if key.kind in self._kinds else None

    def said(*kinds: str) -> list[Finding]:
        return list(due(Deadline(NOW, "changing-user-id", watch, seed), Left(*kinds)))  # type: ignore[arg-type]

    assert said(*kinds[:3]) == [seed]
    for forgotten in range(3):
        assert said(*kinds[:forgotten], *kinds[forgotten + 1 : 3]) == []
    for known in kinds[3:5]:
        assert said(*kinds[:3], known) == []


async def test_one_wait_is_kept_for_an_address() -> None:
    url = "track.customer.io/api/v1/customers/"
    sent = [(float(number), "PUT", f"{url}{id}", ADA) for number, id in enumerate(("11", "22", "33"))]
    ((_, deadline),) = (await remembered("changing-user-id", *sent))["changing-user-id"]
    assert deadline.at == NOW + 1 + 7 * DAY


async def test_the_wait_and_the_number_of_ids_are_configured() -> None:
    sent = twice(v1("11", ADA), v1("22", ADA))
    assert await told(*sent, end=60, params={"settle": 50.0}) == [SECOND]
    assert await told(*sent, v1("33", ADA), end=8 * DAY, params={"shared_by": 2}) == [("3", "path:", "possible")]


SECOND = ("1", "path:", "likely")


@pytest.mark.parametrize(
    "between",
    [
        [delete("11")],
        [("POST", "/api/v1/customers/11/suppress", {})],
        [v2("delete", id="11")],
        [v2("delete", email="a@example.com")],
        [delete("a%40example.com")],
        [delete("cio_1")],
        [v2("suppress", phone="+4915112345678")],
        [merge({"id": "22"}, {"id": "11"})],
        [merge({"id": "22"}, {"email": "a@example.com"})],
        [merge({"id": "22"}, {"cio_id": "1"})],
        [v1("cio_1", {"id": "22"})],
        [v1("cio_1", {"email": "b@example.com"})],
        [v1("11", {"email": "b@example.com"})],
        [v1("11", {"email": "b@example.com", "_update": True})],
        [v1("11", {"email": ""})],
        [v1("11", {"email": None})],
        [v1("cio_1", {"email": ""})],
        [v2(phone="+4915112345678", attributes={"email": ""})],
    ],
)
async def test_an_address_whose_first_owner_is_gone_may_get_another_id(between: list[Request]) -> None:
    assert await told(v1("11"), *between, v1("22")) == []
    assert await told(v1("11", ADA), *between, v1("22", ADA), v1("22", ADA), end=8 * DAY) == []
    assert await told(v1("11", ADA), v1("22", ADA), v1("22", ADA), *between, end=8 * DAY) == []


@pytest.mark.parametrize(
    "between",
    [
        [delete("33")],
        [merge({"id": "11"}, {"id": "33"})],
        [v1("11", {"plan": "pro"})],
        [v1("11", {"email": "A@EXAMPLE.com"})],
        [v1("cio_1", {"plan": "pro"})],
        [v1("33", {"email": "b@example.com"})],
        [v1("33", {"email": ""})],
        [v2("event", id="11", attributes={"email": ""})],
    ],
)
async def test_an_owner_of_whom_nothing_of_that_is_known_is_still_there(between: list[Request]) -> None:
    assert [each[2] for each in await told(v1("11"), *between, v1("22"))] == ["possible"]
    if between[0][1] != "/api/v1/customers/11":  # which would be a use of the first id
        assert [c for *_, c in await told(*twice(v1("11", ADA), v1("22", ADA)), *between, end=8 * DAY)] == ["likely"]


async def test_a_refused_change_of_the_address_is_none() -> None:
    assert len(await told(v1("11"), v1("11", {"email": "b@example.com"}), v1("22"), statuses=(200, 400))) == 1
    assert await told(v1("11"), v1("11", {"email": "b@example.com"}), v1("22"), statuses=(200, 500)) == []


class Remembered:
    """Of the address one id with this hash; and of who is gone these."""

    since = 0.0
    lost = 0.0
    people: People = "partial"
    plan = None
    params: Mapping[str, Any] = {"shared_by": 3}

    def __init__(self, before: int, gone: Sample | None) -> None:
        self._samples = {"ids-of": Sample(8, (before,)), "gone": gone}

    def sample(self, key: Key) -> Sample | None:
        return self._samples.get(key.kind)

    def span(self, key: Key) -> None:
        return None

    groups = span

    def in_flight(self, key: Key) -> bool:
        return False

    def member(self, text: str) -> int:
        return -len(text)

    def label(self, name: str) -> str:
        return name


@pytest.mark.parametrize(
    ("gone", "asked", "count"),
    [
        (None, 5, 1),
        (Sample(3, (4, 9)), 5, 1),
        (Sample(3, (4, 9)), 10, 1),
        (Sample(3, (4, 5)), 5, 0),
        (Sample(2, (4, 9)), 5, 1),
        (Sample(3, (4, 6, 9)), 7, 1),
        (Sample(2, (4, 9)), 9, 0),
        (Sample(2, (4, 9)), 10, 0),  # too many are gone to remember this one
        (Sample(3, (-1, 9)), 5, 0),  # somebody
    ],
)
def test_who_is_gone_among_too_many_may_be_anybody(gone: Sample | None, asked: int, count: int) -> None:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/api/v1/customers/22", host="", headers=(), body=b"")
    person = Person(id="22", email="a@example.com")
    call = Call(exchange=exchange, api="track_v1", kind="identify", endpoint="", workspace="w", person=person)
    assert len(list(check(call, Remembered(asked, gone)))) == count


USER = {"user_id": 42, "created_at": 1_700_000_000}


async def test_one_user_under_two_addresses() -> None:
    (finding,) = await found(v1("a%40example.com", USER), v1("b%40example.com", USER))
    assert (finding.pointer, finding.confidence, finding.related) == ("path:", "certain", ())
    for name in ("userId", "User ID", "uid", "user_uuid", "member_id", "person-id", "contact.id", "user_id" + "_" * 13):
        body = {name: "u-1", "created_at": 1_700_000_000}
        assert len(await told(v1("a%40example.com", body), v1("b%40example.com", body))) == 1, name
    assert await told(v1("a%40example.com", USER), v1("A%40example.com", USER)) == []
    assert await told(v1("a%40example.com", USER), v1("info%40example.com", USER)) == []
    assert await told(v1("11", USER), v1("22", USER)) == []
    assert await told(v1("a%40example.com", USER), v1("cio_1", USER | {"email": "b@example.com"})) == []


async def test_what_does_not_tell_that_two_are_one_user() -> None:
    async def confidences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        return [each[2] for each in await told(v1("a%40example.com", one), v1("b%40example.com", other))]

    assert await confidences({"user_id": 42}, {"user_id": 42}) == ["possible"]
    assert await confidences(USER, USER | {"created_at": 1_700_000_001}) == []
    assert await confidences(USER, {"user_id": 42}) == []
    nobodys = ("", " ", "0", "-1", "null", "nil", "none", "nan", "Undefined", "unknown", "N/A", "a@example.com")
    for nobody in (0, -1, True, None, 4.2, ["u"], *nobodys):
        body = {"user_id": nobody, "created_at": 1_700_000_000}
        assert await confidences(body, body) == [], nobody
    for another in ("customer_id", "account_id", "team_id", "id_user", "user_id" + "_" * 14):
        body = {another: 42, "created_at": 1_700_000_000}
        assert await confidences(body, body) == [], another


async def test_an_address_whose_first_id_is_gone_may_still_be_the_second_of_its_user() -> None:
    sent = v1("b%40example.com", USER), v1("77"), delete("77"), v2(id="c@example.com", attributes=USER | MAIL)
    assert await told(*sent) == [("3", "/identifiers", "certain")]


async def test_an_id_in_other_case_is_a_second_one_of_its_address() -> None:
    assert await told(v1("abcdef"), v1("ABCDEF")) == [("1", "path:", "likely")]


async def test_only_the_numbers_of_the_app_tell_who_a_user_is() -> None:
    numbered = [v2(id=f"{each}@example.com", attributes={"id": 42, "created_at": NOW}) for each in "ab"]
    assert [c for *_, c in await told(*numbered)] == ["likely", "likely"]
    traits = {"plan": "pro", "createdAt": "2025-01-01T00:00:00Z"}
    sent = [("POST", "/v1/identify", {"userId": f"{each}@example.com", "traits": traits}) for each in "ab"]
    assert [c for *_, c in await told(*sent, host="cdp.customer.io")] == ["likely", "likely"]


async def test_an_address_that_is_new_to_itself_may_be_the_second_of_its_user() -> None:
    """Of what belongs together, the first that is known decides."""
    sent = [v2(id=f"{each}@example.com", attributes=USER | {"email": f"{each}@example.com"}) for each in "ab"]
    assert [c for *_, c in await told(*sent)] == ["likely", "certain"]
    again = v2(id="b@example.com", attributes=USER | {"email": "a@example.com"})
    assert [c for *_, c in await told(sent[0], delete("a%40example.com"), again)] == ["likely", "likely"]


async def test_what_is_surer_goes_before_what_is_possible() -> None:
    sent = [v2(id=f"{each}@example.com", attributes={"user_id": 42}) for each in "ab"]
    assert await told(*sent) == [("0", "/identifiers/id", "likely"), ("1", "/identifiers/id", "likely")]


async def test_an_address_that_was_given_up_in_the_body_is_gone() -> None:
    gives_up = v1("a%40example.com", USER | {"email": "b@example.com"})
    assert await told(v1("a%40example.com", USER), gives_up, v1("b%40example.com", USER)) == []


async def test_pipelines_names_a_user_by_the_id_of_the_traits() -> None:
    def identify(address: str) -> Request:
        return ("POST", "/v1/identify", {"userId": address, "traits": {"id": 42, "createdAt": "2025-01-01T00:00:00Z"}})

    sent = identify("a@example.com"), identify("b@example.com")
    assert [c for *_, c in await told(*sent, host="cdp.customer.io")] == ["likely", "certain"]


MAILBOXES = (
    *("info", "office", "contact", "kontakt", "hello", "hi", "support", "help", "service", "sales", "admin", "team"),
    *("administrator", "webmaster", "postmaster", "family", "billing", "accounts", "accounting", "finance", "hr"),
    *("jobs", "marketing", "press", "no", "noreply", "none", "null", "unknown", "anonymous", "guest", "nobody"),
    *("nomail", "noemail", "deleted", "test", "tests", "tester", "testing", "qa", "dev", "demo", "staging"),
    *("dummy", "fake", "e2e", "cypress", "playwright", "selenium", "familie", "order", "orders", "shop", "store"),
    *("mail", "it", "reception", "booking", "bookings", "reservation", "reservations", "buchhaltung", "verkauf"),
    "newsletter",
)


@pytest.mark.parametrize("word", MAILBOXES)
async def test_mailboxes_that_many_share(word: str) -> None:
    for box in (word, f"{word}1", f"{word}.de", f"{word}+x", f"{word}_eu", f"{word}-2", word.upper()):
        assert await told(v1("11", {"email": f"{box}@example.com"}), v1("22", {"email": f"{box}@example.com"})) == [], (
            box
        )
    own = f"{word}xy@example.com"
    assert len(await told(v1("11", {"email": own}), v1("22", {"email": own}))) == 1


async def test_what_is_no_address_tells_nothing() -> None:
    for text in ("n/a", "@", "a@b", "a b@example.com", "a" * 320 + "@example.com"):
        assert await told(v1("11", {"email": text}), v1("22", {"email": text})) == [], text


async def test_an_address_as_id() -> None:
    assert await told(v2(id="a@example.com")) == [("0", "/identifiers/id", "likely")]
    assert await told(v2("event", id="a@example.com")) == [("0", "/identifiers/id", "likely")]
    assert await told(v2("delete", id="a@example.com")) == []
    assert await told(v2(id="a" * 308 + "@example.com")) == [("0", "/identifiers/id", "likely")]
    assert await told(v2(id="a" * 309 + "@example.com")) == []  # 321 characters
    assert await told(v2(email="a@example.com", attributes={"id": "a@example.com"})) == [
        ("0", "/attributes/id", "likely")
    ]
    assert await told(v1("a%40example.com", {"id": "A@example.com"})) == [("0", "/id", "possible")]
    assert await told(v1("a%40example.com", {"id": "b@example.com"})) == [("0", "/id", "likely")]
    assert await told(v1("a%40example.com", {"id": "@"})) == []
    assert await told(v1("a%40example.com", {"_update": True, "id": "b@example.com"})) == [("0", "/id", "likely")]
    assert await told(v1("11", {})) == await told(v2(id="11")) == []
    track = ("POST", "/v1/track", {"userId": "a@example.com", "event": "a"})
    assert await told(track, host="cdp.customer.io") == [("0", "/userId", "likely")]


async def test_a_body_with_another_id() -> None:
    assert await told(v1("11", {"id": 11})) == await told(v1("11", {"id": "11"})) == []
    assert await told(v1("11", {"id": 22})) == await told(v1("11", {"id": "22"})) == [("0", "/id", "likely")]
    assert (
        await told(v1("11", {"id": None}))
        == await told(v1("11", {"id": True}))
        == await told(v1("11", {"id": ""}))
        == []
    )
    assert await told(v2(id="11", attributes={"id": "22"})) == [("0", "/attributes/id", "likely")]
    identify = ("POST", "/v1/identify", {"userId": "11", "traits": {"id": "22"}})
    assert await told(identify, host="cdp.customer.io") == []


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("abcdef", "ABCDEF", 1),
        ("ABCDEF", "abcdef", 1),
        ("AbCdEf", "abcdef", 1),
        ("abcdef", "AbCdEf", 1),
        ("ABCDEF", "AbCdEf", 1),
        ("AbCdEf", "ABCDEF", 1),
        ("abcdef", "ZZZZZZ", 0),
        ("AbCdEf", "aBcDeF", 0),
        ("abcde", "ABCDE", 0),
        ("abcdef", "abcdef", 0),
        ("123456", "123456", 0),
    ],
)
async def test_ids_of_other_case(one: str, other: str, count: int) -> None:
    assert await told(v1(one, {}), v1(other, {})) == [("1", "path:", "likely")] * count


async def test_an_id_of_other_case_in_a_body_and_after_the_first_is_gone() -> None:
    second = v1("a%40example.com", {"id": "ABCDEF"})
    assert await told(v1("abcdef", {}), second) == [("1", "/id", "likely")]
    assert await told(v1("abcdef", {}), delete("abcdef"), v1("ABCDEF", {})) == []
    assert await told(v1("abcdef", {}), v1("ABCDEF", {"_update": True})) == []
    assert await told(v2(id="aa@example.com"), v2(id="AA@EXAMPLE.COM")) == [
        ("0", "/identifiers/id", "likely"),
        ("1", "/identifiers/id", "likely"),
    ]


def taught(person: Person, kind: Kind = "identify", ending: OutcomeKind = "accepted", **attributes: Any) -> list[Any]:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"", connection="c")
    call = Call(
        exchange=exchange,
        api="track_v1",
        kind=kind,
        endpoint="",
        workspace="w",
        person=person,
        attributes=attributes,
    )
    facts = list(learn(call, Outcome(ending, NOW), {"remember": 9.0}))
    assert {fact.ttl for fact in facts} <= {9.0}
    for fact in facts:
        assert fact.value.limit == (1_000 if fact.key.kind == "gone" else 8)  # type: ignore[union-attr]
    return [(*fact.key[:3], getattr(fact.value, "plain", fact.value)) for fact in facts]


def test_what_belongs_together_is_taught_of_an_accepted_identify() -> None:
    ada = Person(id="abc", email="a@example.com")
    assert taught(ada) == [("ids-of", "w", "email:a@example.com", {"abc"})]
    ids, (kind, workspace, subject, portraits) = taught(ada, created_at=NOW, user_id=7)
    assert [ids] == taught(ada, user_id=7) == taught(ada)
    assert (kind, workspace, subject, len(portraits)) == ("portraits", "w", "email:a@example.com", 1)
    assert taught(Person(id="abc", email="info@example.com"), created_at=NOW) == []
    assert taught(Person(id="A@b.com"), created_at=NOW, user_id=7) == [("ids-of", "w", f"user:7\0{NOW}", {"a@b.com"})]
    assert taught(ada, ending="unknown") == taught(ada, _update=True) == []
    assert taught(ada, "event") == taught(Person(email="a@example.com")) == taught(Person(id="42")) == []


class Reviewed(Remembered):
    """Of each kind of fact one of these texts, which hash to their lengths."""

    params: Mapping[str, Any] = {"remember": 9.0}

    def __init__(self, **texts: str) -> None:
        self._samples = {kind: Sample(8, (-len(text),)) for kind, text in texts.items()}


def reviewed(person: Person, ending: OutcomeKind = "accepted", /, **texts: str) -> list[Any]:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"")
    call = Call(exchange=exchange, api="track_v1", kind="identify", endpoint="", workspace="w", person=person)
    facts = review(call, Outcome(ending, NOW), Reviewed(**texts))
    return [(*fact.key[:3], fact.value.plain, fact.value.limit, fact.ttl) for fact in facts]  # type: ignore[union-attr]


def test_what_is_not_known_of_an_id_is_taught() -> None:
    ada = Person(id="abC", email="a@b.de")
    spelling = ("spellings", "w", "id:abc", {"abC"}, 8, 9.0)
    assert reviewed(ada) == [spelling]
    assert reviewed(ada, "unknown") == reviewed(ada, "refused") == []
    assert reviewed(ada, addresses="b@b.de", spellings="Abc") == []
    changed = [("gone", "w", "who is gone", {"abC"}, 1_000, 9.0)]
    assert reviewed(ada, "refused", addresses="old@b.de") == []
    assert reviewed(ada, addresses="old@b.de", spellings="Abc") == changed
    assert reviewed(ada, addresses="b@b.de", spellings="longer") == [spelling]
    assert reviewed(Person(id="42")) == reviewed(Person(email="a@b.de")) == []


def test_which_ids_of_an_address_are_in_use_is_taught() -> None:
    ada = Person(id="abC", email="a@example.com")
    known = {"addresses": "a@example.com", "spellings": "abC", "ids-of": "abC"}
    assert reviewed(ada, **known) == []

    def used(**texts: str) -> list[tuple[Any, ...]]:
        exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"")
        call = Call(exchange=exchange, api="track_v1", kind="identify", endpoint="", workspace="w", person=ada)
        return [tuple(fact) for fact in review(call, Outcome("accepted", NOW), Reviewed(**known | texts))]

    at = Span(NOW, NOW)
    first, later = (Key(kind, "w", "email:a@example.com") for kind in ("first-id-used", "later-id-used"))
    assert used(**{"later-ids": "abC"}) == [(later, at, 9.0, False)]
    assert used(**{"later-ids": "longer"}) == [(first, at, 9.0, False)]


def test_who_is_gone_is_taught_whatever_the_answer() -> None:
    person = Person(id="abc", email="A@example.com")
    for kind in ("delete", "suppress"):
        assert taught(person, kind, "unknown") == [("gone", "w", "who is gone", {"abc", "A@example.com".lower()})]
    assert taught(Person(cio_id="1"), "delete") == [("gone", "w", "who is gone", {"?"})]
