"""Which attributes are judged and how they are called, from how many people on, for how long, and in which words."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.model import SENT, Call, Exchange, Finding, Sample, Settings, WorkspaceSettings, shape
from cio_proxy.rules.inconsistent_attribute_type import LONGEST, _is_shared, needs, types_of

from .alone import NOW, history, lifetimes, remembered

RULE = "inconsistent-attribute-type"
PEOPLE = "track.customer.io/api/v1/customers/"
WEEK = 7 * 86_400.0


async def found(*sent: tuple[int, Any, float], settings: Settings | None = None, **params: Any) -> list[Finding]:
    """What is said of identifies: how many people, what they have, and when."""
    calls = []
    for group, (count, attributes, at) in enumerate(sent):
        calls += [(at, "PUT", f"{PEOPLE}{group}-{person}", attributes) for person in range(count)]
    return await history(RULE, *calls, settings=settings, params=params)


def said(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.message, finding.confidence) for finding in findings]


@pytest.mark.parametrize(
    ("usual", "odd", "message"),
    [
        (5, "5", "`a` is a number in quotes here and for one person in all, and a number for 20 people"),
        (5, "-5.25", "`a` is a number in quotes here and for one person in all, and a number for 20 people"),
        (5, "2026-11-24", "`a` is a date in quotes here and for one person in all, and a number for 20 people"),
        (
            5,
            "2026-11-24T10:00:00Z",
            "`a` is a date in quotes here and for one person in all, and a number for 20 people",
        ),
        (5, "five", "`a` is a text here and for one person in all, and a number for 20 people"),
        (True, "true", "`a` is a boolean in quotes here and for one person in all, and a boolean for 20 people"),
        (True, "FALSE", "`a` is a boolean in quotes here and for one person in all, and a boolean for 20 people"),
        (True, 1, "`a` is a number here and for one person in all, and a boolean for 20 people"),
        (False, 0, "`a` is a number here and for one person in all, and a boolean for 20 people"),
        ("x", 0.0, "`a` is a number here and for one person in all, and a text for 20 people"),
        ("x", ["y"], "`a` is a list here and for one person in all, and a text for 20 people"),
        (["x"], {"y": 1}, "`a` is an object here and for one person in all, and a list for 20 people"),
    ],
)
async def test_both_types_are_named_and_what_a_text_holds(usual: Any, odd: Any, message: str) -> None:
    findings = await found((20, {"a": usual}, 0), (1, {"a": odd}, 1))
    assert said(findings) == [(message, "certain")]
    assert findings[0].name == "a"


async def test_the_limits_are_twenty_people_and_95_of_100() -> None:
    assert said(await found((19, {"a": 5}, 0), (1, {"a": "x"}, 1))) == []
    assert len(await found((20, {"a": 5}, 0), (1, {"a": "x"}, 1))) == 1
    assert len(await found((20, {"a": 5}, 0), (2, {"a": "x"}, 1))) == 1
    assert len(await found((38, {"a": 5}, 0), (2, {"a": "x"}, 1))) == 2
    assert len(await found((37, {"a": 5}, 0), (2, {"a": "x"}, 1))) == 1
    assert len(await found((4, {"a": 5}, 0), (1, {"a": "x"}, 1), people=4, majority=80)) == 1
    assert await found((4, {"a": 5}, 0), (1, {"a": "x"}, 1), people=4, majority=81) == []
    assert await found((2, {"a": 5}, 0), (1, {"a": "x"}, 1), people=2, majority=67) == []


async def test_of_two_common_types_the_rarer_is_likely() -> None:
    said_of_texts = said(await found((5, {"a": 5}, 0), (5, {"a": "x"}, 1), people=4, majority=100))
    assert said_of_texts == [("`a` is a text here and for 4 people in all, and a number for 5 people", "likely")]
    alike = await found((5, {"a": 5}, 0), (6, {"a": "x"}, 1), (1, {"a": 7}, 2), people=4, majority=100)
    assert [finding.confidence for finding in alike] == ["likely"]


async def test_one_person_is_counted_once_in_each_type() -> None:
    one = [(1, "PUT", PEOPLE + "x", {"a": "x"})] * 3
    calls = [(0, "PUT", f"{PEOPLE}{person}", {"a": 5}) for person in range(20)]
    assert [c for _, c in said(await history(RULE, *calls, *one))] == ["certain"] * 3


async def test_many_people_are_estimated() -> None:
    (message, _), *_ = said(await found((60, {"a": 5}, 0), (1, {"a": "x"}, 1)))
    assert " a number for about " in message
    (message, _), *_ = said(await found((39, {"a": 5}, 0), (1, {"a": "x"}, 1)))
    assert message.endswith(" for 39 people")
    messages = [message for message, _ in said(await found((39, {"a": 5}, 0), (2, {"a": "x"}, 1)))]
    own = [message.partition(" and for ")[2].partition(" in all")[0] for message in messages]
    assert own == ["one person", "2 people"]


async def test_more_odd_people_than_are_counted_are_estimated() -> None:
    findings = said(await found((300, {"a": 5}, 0), (45, {"a": "x"}, 1), majority=70))
    assert len(findings) == 45
    assert "for about " in findings[-1][0].partition(" and a number")[0]


async def test_types_are_known_over_this_week_and_the_last() -> None:
    start = WEEK - 1.75e9 % WEEK  # of the next week
    assert len(await found((20, {"a": 5}, start - 1), (1, {"a": "x"}, start))) == 1
    assert len(await found((20, {"a": 5}, start), (1, {"a": "x"}, start + 2 * WEEK - 1))) == 1
    assert await found((20, {"a": 5}, start), (1, {"a": "x"}, start + 2 * WEEK)) == []
    assert len(await found((20, {"a": 5}, start + WEEK), (1, {"a": "x"}, start + 3 * WEEK - 1))) == 1
    assert await found((20, {"a": 5}, start + WEEK), (1, {"a": "x"}, start + 3 * WEEK)) == []
    assert len(await found((10, {"a": 5}, start - 1), (10, {"a": 5}, start), (1, {"a": "x"}, start))) == 1


SITE = "f82ad78f695bd32f9d99"
SHOP = WorkspaceSettings(site_ids=(SITE,), pipelines_keys=(hashlib.sha256(SITE.encode()).hexdigest(),))
TRACKED = (PEOPLE + "{}/events", {"name": "n", "data": {"a": 5}})
IDENTIFIED = (PEOPLE + "{}", {"a": 5})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (IDENTIFIED, ("cdp.customer.io/v1/identify", {"userId": "1", "traits": {"a": "x"}})),
        (TRACKED, ("cdp.customer.io/v1/track", {"userId": "1", "event": "n", "properties": {"a": "x"}})),
    ],
)
async def test_pipelines_and_track_are_apart_in_one_workspace(first: tuple[str, Any], second: tuple[str, Any]) -> None:
    url, body = first
    many = [(0.0, "PUT" if url.endswith("}") else "POST", url.format(n), body) for n in range(20)]
    settings = Settings(workspaces={"shop": SHOP})
    assert await history(RULE, *many, (1, "POST", *second), settings=settings) == []
    cdp = (1, "POST", "cdp.customer.io/v1/track", {"userId": "1", "event": "aB"})
    spellings = ((0, "POST", PEOPLE + "1/events", {"name": "a_b"}), cdp)
    assert [f.workspace for f in await history("inconsistent-event-name", *spellings, settings=settings)] == ["shop"]


OTHERS = ("cio_subscription_preferences.topics.topic_1", "a\0", "x100", "x" * 151)
EXEMPT = "id email phone cio_id anonymous_id created_at createdAt unsubscribed recipient from_address reply_to _x cio_x"


@pytest.mark.parametrize(
    "name", [*EXEMPT.split(), "cio_subscription_preferences.topics.topic_1", "a\0", "x100", "x" * 151]
)
def test_names_that_are_not_judged(name: str) -> None:
    assert types_of(shape({name: 5})).kinds == {}


@pytest.mark.parametrize("name", ["a", "ID", "emails", "x10", "größe", "x" * 150, "ids", "a.b", "my name"])
def test_names_that_are(name: str) -> None:
    assert types_of(shape({name: 5})).kinds == {name: "number"}


def test_what_a_call_holds_by_name_and_type() -> None:
    held: Any = {
        "a": {"b": {"c": {"d": {"e": 1}}}, "t": True},
        "l": [{"x": 1}, {"x": 2, "y": "z"}, {"y": None}],
        "m": [1, "x"],
        "n": [[1], [2]],
        "e": {},
        "f": [],
        "g": "",
        "h": None,
        "i": 0,
        "j": False,
        "": 1,
    }
    assert types_of(shape(held)).kinds == {
        "a": "object",
        "a.b": "object",
        "a.b.c": "object",
        "a.b.c.d": "object",
        "a.t": "boolean",
        "l": "array",
        "l[]": "object",
        "l[].x": "number",
        "l[].y": "string",
        "m": "array",
        "n": "array",
        "n[]": "array",
        "n[][]": "number",
        "i": "number",
        "j": "boolean",
    }


def test_no_more_of_a_call_is_looked_at_than_is_bounded() -> None:
    def name(number: int) -> str:
        return f"k{chr(97 + number // 26)}{chr(97 + number % 26)}"

    assert len(types_of(shape({name(n): 1 for n in range(60)})).kinds) == 50
    wide: Any = {name(n): {name(m): 1 for m in range(60)} for n in range(60)}
    assert len(types_of(shape(wide)).kinds) == 100
    assert types_of(shape({"a": [{name(n): 1} for n in range(60)]})).kinds.keys() >= {"a[].kaa", "a[].kbx"}
    assert "a[].kby" not in types_of(shape({"a": [{name(n): 1} for n in range(60)]})).kinds


async def test_the_first_value_of_the_odd_type_is_pointed_at() -> None:
    usual, odd = {"a": [{"b": 1}]}, {"a": [{"b": None}, {"b": ""}, {"c": 2}, {"b": "x"}]}
    (finding,) = await found((20, usual, 0), (1, odd, 1))
    assert (finding.pointer, finding.name) == ("/a/3/b", "a[].b")


async def test_types_are_forgotten_after_two_weeks() -> None:
    assert (await lifetimes(RULE, (0, "PUT", PEOPLE + "42", {"plan": "pro"})))["attribute-types"] == 2 * WEEK


def test_an_identify_without_attributes_asks_for_nothing() -> None:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=b"/", host="", headers=(), body=b"")
    call = Call(exchange=exchange, api="track_v1", kind="identify", endpoint="", workspace="w", attributes={"a": 1})
    assert len(list(needs(call, "partial"))) == 1
    assert list(needs(replace(call, attributes={}), "partial")) == []


async def test_what_is_remembered_is_readable_but_for_the_people() -> None:
    event = {"name": "order_placed", "data": {"total": 5, "items": [{"sku": "A"}]}}
    varied = {"name": "order_84123", "data": {"total": 5}}
    calls = [
        (0, "PUT", PEOPLE + "42", {"plan": "pro"}),
        (0, "POST", PEOPLE + "42/events", event),
        (0, "POST", PEOPLE + "42/events", varied),
        (0, "POST", PEOPLE + "42/events", {"name": "order_seen"}),
        (0, "PUT", PEOPLE + "42", {}),
        (0, "POST", "cdp.customer.io/v1/identify", {"userId": "42", "traits": {"plan": "pro"}}),
    ]
    kept = await remembered(RULE, *calls)
    scopes = {subject.partition("\0")[2]: value for subject, value in kept.pop("attribute-types")}
    assert kept == {}
    assert {scope: sorted(value.samples) for scope, value in scopes.items()} == {
        "track": ["plan\0string"],
        "track\0order_placed": [SENT, "items\0array", "items[]\0object", "items[].sku\0string", "total\0number"],
        "track\0order_seen": [SENT],
        "pipelines": ["plan\0string"],
    }
    assert {value.limit for value in scopes.values()} == {400}
    assert {sample.limit for value in scopes.values() for sample in value.samples.values()} == {40}


async def test_two_common_types_of_the_same_people_are_only_possible() -> None:
    def calls(both: int) -> list[Any]:
        many = [(0, "PUT", f"{PEOPLE}n{person}", {"a": 5}) for person in range(40)]
        some = [(1, "PUT", f"{PEOPLE}{'n' if person < both else 't'}{person}", {"a": "x"}) for person in range(20)]
        return [*many, *some, (2, "PUT", PEOPLE + "z", {"a": "x"})]

    assert [f.confidence for f in (await history(RULE, *calls(0)))][-1] == "likely"
    assert [f.confidence for f in (await history(RULE, *calls(4)))][-1] == "likely"
    assert [f.confidence for f in (await history(RULE, *calls(5)))][-1] == "possible"


def people(*hashes: int) -> Sample:
    return Sample(40, hashes)


FORTY = tuple(range(0, 400, 10))


@pytest.mark.parametrize(
    ("rarer", "usual", "shared"),
    [
        (people(1, 2, 3, 4), people(4), True),
        (people(1, 2, 3, 4, 5), people(5), False),
        (people(1, 2, 3, 4, 1_000), people(*FORTY), False),
        (people(10, 2, 3, 4, 1_000), people(*FORTY), True),
        (people(390, 2, 3, 4), people(*FORTY), True),
        (people(2, 3, 4, *range(1_000, 1_030)), people(10, *range(1, 392, 10)[:39]), False),
        (people(1_000), people(*FORTY), True),
        (people(*FORTY), people(0, 10, 20, 30, *range(401, 420)), False),
        (people(*FORTY), people(*FORTY[:10], *range(401, 420)), True),
        (people(*FORTY), people(*FORTY[:9], *range(401, 420)), False),
    ],
)
def test_whether_people_are_the_same_is_asked_of_those_that_both_samples_reach(
    rarer: Sample, usual: Sample, shared: bool
) -> None:
    assert _is_shared(rarer, usual) == shared


OLD = [f"{when}{sep}value" for when in ("old", "new", "previous", "current") for sep in ("", "_")]
TOLD = ["value", "answer", "from", "to", "before", "after", "old", "new", "previous", "current"]
THINGS = [
    "attribute",
    "feature",
    "field",
    "metric",
    "option",
    "parameter",
    "preference",
    "property",
    "question",
    "setting",
]


@pytest.mark.parametrize("name", [*OLD, "oldValue", "NEW_VALUE"])
def test_what_a_change_is_may_be_of_any_type(name: str) -> None:
    assert types_of(shape({name: 5})).free == {name}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("beside", ["name", "key", "field", "settingKey", "question_id", "featureName"])
def test_what_is_told_beside_a_name_may_be_of_any_type(name: str, beside: str) -> None:
    held: Any = {name: 5, beside: "x"}
    assert types_of(shape(held)).free == {name}
    assert types_of(shape({name: 5})).free == set()
    assert types_of(shape({"a": [held], name: 7})).free == {f"a[].{name}"}


@pytest.mark.parametrize("thing", THINGS)
def test_what_names_a_thing(thing: str) -> None:
    for naming in (thing, f"{thing}_id", f"{thing}Key", f"{thing}_name"):
        assert types_of(shape({"value": 5, naming: "x"})).free == {"value"}


@pytest.mark.parametrize("other", ["title", "field_x", "my_field", "names", "id", "my_key"])
def test_what_names_none(other: str) -> None:
    assert types_of(shape({"value": 5, other: "x"})).free == set()
    assert types_of(shape({"values": 5, "oldvalues": 5, "my_old_value": 5, "name": "x"})).free == set()


def test_a_free_type_has_no_rivals() -> None:
    held = types_of(shape({"name": "x", "value": 5}))
    assert held.kinds == {"name": "string", "value": "number"}
    assert {label.partition("\0")[0] for label in held.rivals} == {"name"}


async def test_a_free_type_is_never_odd_beside_another_that_is() -> None:
    usual, odd = {"name": "x", "value": 5, "a": 1}, {"name": "x", "value": "y", "a": "z"}
    assert [finding.pointer for finding in await found((20, usual, 0), (1, odd, 1))] == ["/a"]


async def test_an_event_is_known_by_its_name_and_only_if_it_has_one() -> None:
    url = PEOPLE + "1/events"
    assert await remembered(RULE, (0, "POST", url, {"data": {"a": 1}})) == {}
    assert await remembered(RULE, (0, "POST", url, {"name": " ", "data": {"a": 1}})) == {}
    assert await remembered(RULE, (0, "POST", url, {"name": "a" * LONGEST, "data": {"a": 1}})) != {}
    assert await remembered(RULE, (0, "POST", url, {"name": "a" * (LONGEST + 1), "data": {"a": 1}})) == {}
