"""Tracking plans: what may be written and what it means, to JSON Schema and back, and learned from what was sent."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy import plan as plans
from cio_proxy.audit import Sealer, sealed_with
from cio_proxy.cli import main
from cio_proxy.config import ConfigError, load, written
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.sqlite import SqliteStore
from cio_proxy.model import (
    JSON_TYPES,
    SENT,
    TYPES,
    Fact,
    Fields,
    Groups,
    Key,
    Planned,
    Sample,
    Settings,
    TrackingPlan,
)
from cio_proxy.plan import PlanError, from_schema, of, read, schema, types_of
from cio_proxy.rules import RULES

from .conftest import COMMAND, environment
from .rules.alone import told

SEALER = Sealer(sealed_with(b"k" * 32))
TRACK = "track.customer.io/api/v1/customers/42"

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: not name.isspace()
)
NAMES |= st.sampled_from(
    ["true", "null", "~", "1.5", "010", "y", "a: b", "# x", "- a", "'", '"', "é\n", "order placed", "%"]
)
KINDS = st.lists(st.sampled_from(JSON_TYPES)).map(types_of)
FIELDS = st.builds(Fields, st.dictionaries(NAMES, st.builds(Planned, KINDS, st.booleans()), max_size=4), st.booleans())
PERSON = st.builds(Fields, st.dictionaries(NAMES, st.builds(Planned, KINDS, st.just(False)), max_size=4), st.booleans())
EVENTS = st.dictionaries(NAMES, FIELDS, max_size=4)
PLANS = st.builds(TrackingPlan, events=EVENTS, others=st.booleans(), person=st.none() | PERSON)
PLANS |= st.builds(TrackingPlan, person=PERSON)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text(max_size=5), deeper, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.booleans() | JSON,
    lambda deeper: st.dictionaries(
        st.sampled_from(
            ["type", "properties", "required", "additionalProperties", "$ref", "$defs", "events", "person"]
        ),
        deeper | st.lists(st.sampled_from([*JSON_TYPES, "null", "#", "#/$defs/a"])) | st.sampled_from(["#", "string"]),
    ),
)


def plan(content: str, folder: Path) -> TrackingPlan:
    path = folder / "plan.yaml"
    path.write_text(content, encoding="utf-8")
    return read(path)


def mistakes(content: str | bytes, folder: Path) -> list[str]:
    path = folder / "plan.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PlanError) as caught:
        read(path)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


# --- what may be written -----------------------------------------------------------------------

WRITTEN = """
events:
  order_placed:
    attributes:
      total: number
      note:
      anything: any
      coupon: [number, string]
      order_id: {type: string, required: true}
      lines: {type: [integer, number], required: false}
    others: true
  signed_out:
  "1.5": {}
others: false
person:
  attributes: {plan: string}
"""


def test_what_is_written_is_the_plan(tmp_path: Path) -> None:
    order = Fields(
        {
            "total": Planned(("number",)),
            "note": Planned(),
            "anything": Planned(),
            "coupon": Planned(("string", "number")),
            "order_id": Planned(("string",), True),
            "lines": Planned(("number",)),
        },
        True,
    )
    assert plan(WRITTEN, tmp_path) == TrackingPlan(
        events={"order_placed": order, "signed_out": Fields(), "1.5": Fields()},
        person=Fields({"plan": Planned(("string",))}),
        source=str(tmp_path / "plan.yaml"),
    )


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    content = """\
evnts: {}
events:
  order_placed:
    attributes:
      total: numbr
      total: number
      coupon: {type: [string, decimal], requird: true}
      note: {required: sometimes}
      [a]: string
    other: true
  order_placed: {}
  "": {}
  signed_out: gone
person:
  attributes:
    plan: {type: string, required: true}
  others: 1
"""
    assert mistakes(content, tmp_path) == [
        "plan.yaml:1:1: unknown key 'evnts' in the plan; did you mean 'events'?",
        "plan.yaml:5:14: not a type; did you mean 'number'?",
        "plan.yaml:6:7: the name 'total' stands here twice; keep one",
        "plan.yaml:7:31: not a type; choose from string, number, integer, boolean, object, array, any",
        "plan.yaml:7:41: unknown key 'requird' in the attribute; did you mean 'required'?",
        "plan.yaml:8:24: required: write true or false",
        "plan.yaml:9:7: not a key; write `key: value` lines",
        "plan.yaml:10:5: unknown key 'other' in order_placed; did you mean 'others'?",
        "plan.yaml:11:3: the name 'order_placed' stands here twice; keep one",
        "plan.yaml:12:3: not a name: it has 1 to 150 characters of Unicode",
        "plan.yaml:13:15: signed_out: a section; write `key: value` lines below it",
        "plan.yaml:16:36: an identify may bring only some attributes: `required` is for events",
        "plan.yaml:17:11: others: write true or false",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "plan.yaml: neither `events` nor `person` stands here: nothing is planned"),
        ("others: true", "plan.yaml:1:1: neither `events` nor `person` stands here: nothing is planned"),
        ("- a", "plan.yaml:1:1: the plan: a section; write `key: value` lines below it"),
        ("events: {a", "plan.yaml:1:11: not YAML: expected ',' or '}', but got '<stream end>'"),
        (b"\xff\xfee", "plan.yaml: not UTF-8 text; save it as UTF-8"),
        ("[" * 5_000, "plan.yaml: nested too deeply; no plan is deeper than five levels"),
    ],
)
def test_a_file_that_is_no_plan_is_one_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    assert mistakes(content, tmp_path) == [message]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.yaml: no such file or directory; name a readable file"):
        read(tmp_path / "none.yaml")


@given(st.text(max_size=80))
def test_any_text_is_a_plan_or_refused_in_plain_lines(content: str) -> None:
    for start in ("", "events: {a: ", "events:\n  a:\n    attributes:\n      b: "):
        reading = plans._Reading("plan.yaml")
        try:
            reading.done(reading.composed(start + content))
        except PlanError as error:
            assert all(line.isprintable() and line.startswith("plan.yaml:") for line in str(error).split("\n"))  # noqa: PT017


@given(PLANS)
def test_a_plan_reads_back_as_it_was_written(plan: TrackingPlan) -> None:
    reading = plans._Reading("")
    text = plans.written(plan, ["about", ""], dict.fromkeys(plan.events or (), "2 people"))
    assert reading.done(reading.composed(text)) == plan
    assert of(plans.tree(plan)) == plan


def test_a_plan_is_an_option_of_the_configuration(tmp_path: Path) -> None:
    infos = [rule.info for rule in RULES]
    file = tmp_path / "plan.yaml"
    file.write_text(WRITTEN)
    settings = load(None, {"CIO_PROXY_PLAN": str(file)}, {}, rules=infos).settings
    assert settings.plan == read(file)
    again = tmp_path / "again.yaml"
    for named in (settings, replace(settings, plan=of({"events": {"signed_out": {}}}))):
        again.write_text(written(named, infos))
        assert load(again, {}, {}, rules=infos).settings == named
    file.write_text("events:\n  a: {attribute: {}}\n  b: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(None, {"CIO_PROXY_PLAN": str(file)}, {}, rules=infos)
    assert str(caught.value).split("\n") == [
        f"CIO_PROXY_PLAN: not a plan: {file}:2:7: unknown key 'attribute' in a; did you mean 'attributes'?",
        f"{file}:3:6: b: a section; write `key: value` lines below it",
    ]


# --- JSON Schema -------------------------------------------------------------------------------


@given(PLANS)
def test_a_plan_comes_back_from_its_schema(plan: TrackingPlan) -> None:
    document = json.loads(json.dumps(schema(plan)))
    jsonschema.Draft202012Validator.check_schema(document)
    assert from_schema(document) == (plan, ())


@given(FIELDS, st.data())
def test_a_schema_takes_what_the_rule_takes(fields: Fields, drawn: st.DataObject) -> None:
    fields = Fields({f"a{number}": each for number, each in enumerate(fields.attributes.values())}, fields.others)
    names = st.sampled_from([*fields.attributes, "more"])
    event = drawn.draw(st.dictionaries(names, JSON))
    plan = TrackingPlan(events={"order_placed": fields})
    sent = {"name": "order_placed", "data": event}
    said = told("unplanned-event", "POST", f"{TRACK}/events", sent, settings=Settings(plan=plan))
    if event.get("more", True) is None:  # null is no value: nothing is sent beside the plan
        del event["more"]
    assert (said == []) is jsonschema.Draft202012Validator(schema(plan)).is_valid({"events": {"order_placed": event}})


def test_a_schema_of_another_hand_is_read_as_far_as_a_plan_goes() -> None:
    document = {
        "$defs": {
            "order_placed": {
                "type": "object",
                "title": "An order",
                "required": ["id", "at", "note"],
                "properties": {
                    "id": {"type": "string", "minLength": 1},
                    "at": {"$ref": "#/components/time"},
                    "note": {"type": ["string", "null"]},
                    "lines": {"type": "array", "items": {"type": "string"}},
                },
            },
            "signed_out": {"additionalProperties": False},
        },
        "components": {"time": {"type": "integer"}},
    }
    order = Fields(
        {
            "id": Planned(("string",), True),
            "at": Planned(("integer",), True),
            "note": Planned(("string",)),
            "lines": Planned(("array",)),
        },
        others=True,
    )
    expected = TrackingPlan(events={"order_placed": order, "signed_out": Fields()})
    assert from_schema(document) == (expected, ("items", "minLength"))
    assert from_schema({"properties": document["$defs"]}).plan.events.keys() == {"order_placed", "signed_out"}  # type: ignore[union-attr]


def test_references_that_lead_nowhere_leave_everything_open() -> None:
    document = {"$defs": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "https://example.com/b.json"}}}
    nothing = Fields(others=True)
    assert from_schema(document) == (TrackingPlan(events={"a": nothing, "b": nothing}), ("$ref",))


@given(SCHEMAS)
def test_any_document_gives_a_plan_or_is_refused(document: object) -> None:
    try:
        plan = from_schema(document).plan
    except PlanError as error:
        assert str(error).isprintable()  # noqa: PT017 (most documents raise nothing)
    else:
        assert of(plans.tree(plan)) == plan


# --- learned -----------------------------------------------------------------------------------


UUID = "6f1c2a34-9a51-4c7e-8f3f-0d3b0f4f9c11"


def typed(scope: str, types: Mapping[str, Iterable[str]], workspace: str = "shop") -> Fact:
    """What `inconsistent-attribute-type` teaches of one scope: people by attribute and type."""
    groups = Groups(400, {label: Sample(40, plain=frozenset(people)) for label, people in types.items()})
    return Fact(SEALER.key(Key(TYPES, workspace, f"2900\0{scope}", named=True)), groups.sealed(SEALER), 600)


def person(workspace: str = "shop", **types: str) -> Fact:
    """What is taught when somebody is identified with attributes of these types."""
    return typed("track", {f"{name}\0{kind}": ["id:1"] for name, kind in types.items()}, workspace)


def sent(event: str, attributes: Mapping[str, Mapping[str, int]], people: int, workspace: str = "shop") -> list[Fact]:
    """What is taught when so many people send an event, and so many of them each type of an attribute."""
    everybody = [f"id:{number}" for number in range(people)]
    types = {
        f"{name}\0{kind}": everybody[:count] for name, kinds in attributes.items() for kind, count in kinds.items()
    }
    return [typed(f"track\0{event}", {SENT: everybody, **types}, workspace)]


async def learned(*facts: Fact, workspace: str | None = None) -> plans.Learned:
    store = MemoryStore()
    await store.join_many(facts, (), 0)
    return await plans.learned(store, 1, workspace)


async def test_a_plan_is_learned_of_names_types_and_what_everybody_sends() -> None:
    facts = [
        *sent("order_placed", {"total": {"number": 7}, "coupon": {"string": 2, "number": 3}, "odd": {"": 1}}, 7),
        *sent("rare", {"id": {"string": 4}}, 4),
        *sent("signed_out", {}, 3),
        person(plan="string"),
        person(plan="boolean"),
    ]
    found = await learned(*facts)
    assert plans.plan_of(found) == TrackingPlan(
        events={
            "order_placed": Fields(
                {
                    "coupon": Planned(("string", "number")),
                    "odd": Planned(),
                    "total": Planned(("number",), True),
                }
            ),
            "rare": Fields({"id": Planned(("string",))}),
            "signed_out": Fields(),
        },
        person=Fields({"plan": Planned(("string", "boolean"))}),
    )
    assert plans.plan_of(found, enough=4).events["rare"] == Fields({"id": Planned(("string",), True)})  # type: ignore[index]
    assert plans.notes(found) == {"order_placed": "7 people", "rare": "4 people", "signed_out": "3 people"}


async def test_what_more_people_send_than_are_counted_exactly_is_still_told_apart() -> None:
    facts = sent("order_placed", {"total": {"number": 500}, "coupon": {"string": 250}}, 500)
    attributes = plans.plan_of(await learned(*facts)).events["order_placed"].attributes  # type: ignore[index]
    assert attributes == {"coupon": Planned(("string",)), "total": Planned(("number",), True)}


async def test_workspaces_are_learned_together_or_one_alone() -> None:
    facts = [*sent("a", {"x": {"number": 1}}, 1), *sent("a", {"x": {"string": 1}}, 1, "lab"), *sent("b", {}, 1, "lab")]
    both = plans.plan_of(await learned(*facts)).events
    assert both == {"a": Fields({"x": Planned(("string", "number"))}), "b": Fields()}
    assert plans.plan_of(await learned(*facts, workspace="shop")).events == {"a": Fields({"x": Planned(("number",))})}


async def test_names_that_hold_something_personal_or_a_value_are_never_learned() -> None:
    facts = [
        *sent(
            "order_placed",
            {"ada@example.com": {"string": 1}, f"page_{UUID}": {"string": 1}},
            1,
        ),
        *sent("mailed ada@example.com", {"x": {"string": 1}}, 1),
        *sent("order_8374651928", {}, 1),
        person(**{"+49 170 1234567": "string"}),
    ]
    found = await learned(*facts)
    assert set(found.events) == {"order_placed"}
    assert set(found.events["order_placed"]) == {""}
    assert found.person == {}
    assert not any("ft out" in line for line in plans.about(found))


async def test_what_is_sent_beside_a_plan_is_told_line_by_line(tmp_path: Path) -> None:
    facts = [
        *sent("order_placed", {"total": {"number": 7, "string": 1}, "lines": {"number": 2}, "gift": {"boolean": 1}}, 7),
        *sent("order_plcaed", {}, 2),
        person(plan="number", pln="string"),
    ]
    content = """
events:
  order_placed: {attributes: {total: number, lines: integer, order_id: {required: true}}}
  checkout:
person: {attributes: {plan: string}}
"""
    found = await learned(*facts)
    assert list(plans.differences(plan(content, tmp_path), found)) == [
        (True, "order_placed.gift: not in the plan"),
        (True, "order_placed.total: number in the plan, and string was sent"),
        (True, "order_placed.order_id: required, and not everybody sent it"),
        (True, "order_plcaed: not in the plan; 2 people sent it"),
        (True, "person.plan: string in the plan, and number was sent"),
        (True, "person.pln: not in the plan"),
        (False, "checkout: in the plan, and never sent so far"),
    ]
    assert list(plans.differences(plans.plan_of(found), found)) == []
    assert list(plans.differences(plan("events: {}\nothers: true", tmp_path), found)) == []


# --- the command line --------------------------------------------------------------------------


def run(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    environ = environment(folder) | {"CIO_PROXY_FACTS": f"sqlite:{folder / 'facts'}"}
    unset = dict.fromkeys(os.environ.keys() - environ.keys())
    with chdir(folder):
        done = CliRunner(env=unset | environ).invoke(main, ["plan", *arguments], prog_name="cio-proxy")
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.stdout, done.stderr


def teach(folder: Path, *facts: Fact) -> None:
    async def taught() -> None:
        store = SqliteStore(folder / "facts", 200_000)
        await store.join_many(facts, (), time.time())
        await store.close()

    asyncio.run(taught())


def test_a_plan_is_learned_checked_exported_and_imported(tmp_path: Path) -> None:
    missing = f"facts: {tmp_path / 'facts'} is not there: no proxy has kept facts in it yet\n"
    assert run(tmp_path, "learn", code=3) == ("", missing)
    assert not list(tmp_path.iterdir()), "nothing is made by asking"
    teach(tmp_path)
    assert run(tmp_path, "learn", code=3)[1] == "nothing to learn from: no event and no attribute was seen yet\n"
    teach(tmp_path, *sent("order_placed", {"total": {"number": 7}}, 7), person(plan="string"))
    assert run(tmp_path, "learn", "-o", "plan.yaml") == ("", "")
    text = (tmp_path / "plan.yaml").read_text()
    assert text == run(tmp_path, "learn")[0]
    assert "# Learned from 1 event with 1 attribute, and 1 attribute of people, in 1 workspace.\n" in text
    assert text.endswith("""\
events:
  order_placed:  # 7 people
    attributes:
      total: {type: number, required: true}
person:
  attributes:
    plan: string
""")
    assert (
        run(tmp_path, "learn", "-o", "plan.yaml", code=2)[1] == "plan.yaml is there already; --force writes over it\n"
    )
    assert run(tmp_path, "learn", "-o", "plan.yaml", "--force", "--enough", "8") == ("", "")
    assert "total: number\n" in (tmp_path / "plan.yaml").read_text()
    assert run(tmp_path, "check", "plan.yaml") == ("plan.yaml can be used: 1 event with 1 attribute\n", "")
    run(tmp_path, "export", "plan.yaml", "-o", "schema.json")
    again, err = run(tmp_path, "import", "schema.json")
    assert (again.partition("\n")[0], err) == ("# Tracking plan, imported from schema.json.", "")
    (tmp_path / "again.yaml").write_text(again)
    assert replace(read(tmp_path / "again.yaml"), source="") == replace(read(tmp_path / "plan.yaml"), source="")


def test_what_was_sent_beside_the_configured_plan_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("events: {checkout: }\n")
    (tmp_path / "c.yaml").write_text("plan: plan.yaml\n")
    out, err = run(tmp_path, "check", "--config", "c.yaml")
    assert out == "plan.yaml can be used: 1 event with 0 attributes\n"
    assert err.startswith("not compared with what was sent: facts: ")
    assert not (tmp_path / "facts").exists()
    teach(tmp_path)
    assert run(tmp_path, "check", "--config", "c.yaml")[0].splitlines()[1:] == [
        "checkout: in the plan, and never sent so far"
    ]
    teach(tmp_path, *sent("order_placed", {}, 2))
    out, _ = run(tmp_path, "check", "--config", "c.yaml", code=1)
    assert "order_placed: not in the plan; 2 people sent it\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "no plan is configured; name its file, or set `plan:` in the configuration\n"),
        (["check", "none.yaml"], "none.yaml: no such file or directory; name a readable file\n"),
        (
            ["export", "bad.yaml"],
            "bad.yaml:2:6: a: a section; write `key: value` lines below it\nbad.yaml:3:1: unknown",
        ),
        (["import", "none.json"], "none.json: no such file or directory; name a readable file\n"),
        (["import", "bad.yaml"], "bad.yaml:1:1: not JSON: expecting value\n"),
        (
            ["import", "bad.json"],
            "bad.json: no events are in it: neither `properties` nor `$defs` holds schemas by name\n",
        ),
        (
            ["learn", "--workspace", "shop"],
            "--workspace is neither a configured name nor a Track site id; known are: none",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_plain_lines(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("events:\n  a: 1\nx: 1\n")
    (tmp_path / "bad.json").write_text("[]")
    teach(tmp_path)
    out, err = run(tmp_path, *arguments, code=2)
    assert out == ""
    assert err.startswith(message)


def test_keywords_that_are_left_out_are_told(tmp_path: Path) -> None:
    document = {"$defs": {"a": {"properties": {"x": {"enum": [1]}}, "additionalProperties": False}}}
    (tmp_path / "schema.json").write_text(json.dumps(document))
    out, err = run(tmp_path, "import", "schema.json")
    assert out.endswith("events:\n  a:\n    attributes:\n      x: any\n")
    assert err == "schema.json: left out, since a plan has no such thing: enum\n"


def test_a_plan_is_checked_also_where_facts_end_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("events: {checkout: }\n")
    done = subprocess.run(
        [COMMAND, "plan", "check", "plan.yaml"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == "plan.yaml can be used: 1 event with 0 attributes\n"
    assert done.stderr.startswith("not compared with what was sent: facts: memory ends with the process")


def test_the_rules_that_compare_with_a_plan_know_it_and_those_without_one_do_not_run() -> None:
    event: dict[str, Any] = {"name": "signed_out", "data": {"x": 1}}
    planned = Settings(plan=of({"events": {"signed_out": {}}}))
    assert told("unplanned-event", "POST", f"{TRACK}/events", event, settings=planned) == [("/data/x", "certain")]
    assert told("unplanned-event", "POST", f"{TRACK}/events", event) == []
