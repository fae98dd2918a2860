"""Mails that webhooks show, layouts that are known, and what is a mail at all."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cio_proxy.apis.parts import Envelope
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import EMPTY_DOCUMENT, NO_CREDENTIALS, Exchange, Finding, RuleSettings, Settings
from cio_proxy.rules import RULES
from cio_proxy.rules.missing_unsubscribe_link import MAIL_ONLY, MARKETING, OBJECTS, RULE, mails, path_of

from .alone import NOW, findings, remembered, told

ID = RULE.id
ACTION = "api.customer.io/v1/campaigns/7/actions/96"
PAGE = "<html><body><a href='https://shop.example'>Shop</a></body></html>"
BARE = "<p>Hi</p>"
LINKED = "{{content}}<a href='{% unsubscribe_url %}'>Leave</a>"
UNLINKED = "<b>{{content}}</b>"


# --- what was sent ---------------------------------------------------------------------------------

SENT = {
    "recipient": "ada@example.com",
    "subject": "Spring",
    "campaign_id": 9,
    "content": "<html><body>All tulips: <a href='https://shop.example'>here</a></body></html>",
}


def webhook(metric: str = "sent", object_type: str = "email", **more: Any) -> tuple[str, str, Any]:
    """A webhook of what was sent; of `more`, None stands for nothing."""
    told = {name: value for name, value in (SENT | more).items() if value is not None}
    return "POST", "app/hooks", {"event_id": "1", "object_type": object_type, "metric": metric, "data": told}


def said(*, transactional: str = "marked", **sent: Any) -> list[tuple[str, str]]:
    return [(each.pointer, each.confidence) for each in of_sent(params={"transactional": transactional}, **sent)]


def of_sent(*, params: Mapping[str, Any] | None = None, unable: list[str] | None = None, **sent: Any) -> list[Finding]:
    """What is said of a webhook."""
    signed = {"X-CIO-Signature": "00"}
    return findings(ID, *webhook(**sent), headers=signed, params=params, unable=unable, listener="inbound")


def test_a_mail_that_was_sent_without_a_link() -> None:
    assert said() == [("/data/content", "likely")]
    assert said(content="<p>Hi</p>") == [("/data/content", "certain")]


@pytest.mark.parametrize(
    "sent",
    [
        {"content": f"{SENT['content']} Unsubscribe"},
        {"headers": {"List-Unsubscribe": "<mailto:leave@shop.example>"}},
        {"headers": [{"name": "LIST-UNSUBSCRIBE", "value": "<mailto:leave@shop.example>"}]},
        {"headers": {"List-Unsubscribe": ["<mailto:leave@shop.example>"]}},
        {"metric": "delivered"},
        {"object_type": "sms"},
        {"content": None},
        {"content": ""},
        {"subject": None},
        {"campaign_id": None},
        {"transactional_message_id": 3},
        {"transactional_message_id": 3, "campaign_id": None, "subject": "20% off"},
    ],
)
def test_what_was_sent_and_is_right_or_no_marketing_mail(sent: dict[str, Any]) -> None:
    assert said(**sent) == []


@pytest.mark.parametrize("origin", MARKETING)
def test_every_origin_of_marketing_mail(origin: str) -> None:
    sent: dict[str, Any] = {"campaign_id": None, origin: 4}
    assert said(**sent) == [("/data/content", "likely")]


@pytest.mark.parametrize(
    ("transactional", "subject", "found"),
    [
        ("never", "20% off", 0),
        ("marked", "20% off", 0),
        ("promotional", "Your receipt", 0),
        ("promotional", "20% off", 1),
        ("all", "Your receipt", 1),
    ],
)
def test_transactional_mail_that_was_sent_needs_a_link_where_the_configuration_says_so(
    transactional: str, subject: str, found: int
) -> None:
    sent = {"campaign_id": None, "transactional_message_id": 3, "subject": subject}
    assert len(said(transactional=transactional, **sent)) == found
    assert len(said(transactional=transactional)) == 1


def test_headers_of_what_was_sent_that_give_no_button() -> None:
    assert said(headers={"List-Unsubscribe": "<https://shop.example/u>"}) == [("/data/headers", "likely")]
    told = {"List-Unsubscribe": ["<https://shop.example/u>"], "List-Unsubscribe-Post": ["yes", 7]}
    assert said(headers=told) == [("/data/headers", "certain")]
    assert said(headers=told | {"List-Unsubscribe-Post": ["List-Unsubscribe=One-Click"]}) == []


# --- what is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAIL_ONLY)
def test_what_only_mails_have_makes_a_mail(name: str) -> None:
    assert told(ID, "PUT", ACTION, {"body": PAGE, name: "1"}) == [("/body", "likely")]
    assert told(ID, "PUT", ACTION, {"body": PAGE, name: ""}) == []
    assert told(ID, "PUT", ACTION, {"body": PAGE, name: "1", "type": "push"}) == []


ROUTES = ["campaigns/7/actions/96", "broadcasts/7/actions/96", "newsletters", "newsletters/7/contents/2"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_of_marketing_mail(route: str) -> None:
    assert told(ID, "PUT", f"api.customer.io/v1/{route}", {"type": "email", "body": PAGE}) == [("/body", "likely")]
    for other in ("design_studio/emails/7", "snippets/a", "segments"):
        assert told(ID, "PUT", f"api.customer.io/v1/{other}", {"type": "email", "body": PAGE}) == []


@pytest.mark.parametrize(
    ("layout", "body", "found"),
    [
        ("", BARE, ["certain"]),
        (None, BARE, []),
        ("Standard", BARE, []),
        ("Standard", PAGE, ["likely"]),
        (UNLINKED, BARE, ["certain"]),
        ("<a href='x'>{{content}}</a>", BARE, ["likely"]),
        ("{{content}}", PAGE, ["likely"]),
        (LINKED, BARE, []),
        ("{{content}}{{snippets.outro}}", BARE, []),
        ("{{ event.content }}{{content}}", BARE, []),
        (UNLINKED, "{{snippets.outro}}", []),
        ("<b>Unsubscribe</b>", PAGE, []),
        ("{% unsubscribe %}", PAGE, []),
        ("Unsubscribe", PAGE, ["likely"]),
        ("<html lang='ka'>{{content}}</html>", BARE, []),
        ("", " \n", []),
        (7, BARE, ["certain"]),
    ],
)
def test_a_mail_and_its_layout(layout: object, body: str, found: list[str]) -> None:
    written = {"type": "email", "body": body} | ({} if layout is None else {"layout": layout})
    assert [sure for _, sure in told(ID, "PUT", ACTION, written)] == found


def test_a_tag_that_is_written_as_a_variable_is_a_possible_fault() -> None:
    written = {"type": "email", "layout": "", "body": "<a href='{{ unsubscribe_url }}'>Unsubscribe</a>"}
    assert told(ID, "PUT", ACTION, written) == [("/body", "possible")]
    written["body"] += "{% unsubscribe_url %}"
    assert told(ID, "PUT", ACTION, written) == []


# --- transactional ---------------------------------------------------------------------------------

SEND = "api.customer.io/v1/send/email"
MESSAGE = {"to": "a@example.com", "from": "b@example.com", "identifiers": {"id": "1"}, "body": BARE}


@pytest.mark.parametrize(
    ("judged", "more", "found"),
    [
        ("marked", {}, []),
        ("marked", {"send_to_unsubscribed": True}, []),
        ("marked", {"send_to_unsubscribed": False}, [("/body", "certain")]),
        ("marked", {"subject": "20% off"}, []),
        ("never", {"send_to_unsubscribed": False}, []),
        ("never", {"subject": "20% off"}, []),
        ("promotional", {"send_to_unsubscribed": False}, [("/body", "certain")]),
        ("promotional", {"subject": "20% off"}, [("/body", "certain")]),
        ("promotional", {"subject": "Your receipt"}, []),
        ("promotional", {"subject": 20}, []),
        ("all", {}, [("/body", "certain")]),
        ("all", {"body": "", "body_plain": "Hi"}, [("/body_plain", "certain")]),
        ("all", {"body": None}, []),
        ("all", {"body": ["Hi"]}, []),
        ("all", {"transactional_message_id": 3}, []),
        ("all", {"transactional_message_id": 3, "body": PAGE}, [("/body", "likely")]),
        ("all", {"transactional_message_id": None}, [("/body", "certain")]),
        ("all", {"language": "ka"}, []),
    ],
)
async def test_transactional_mail(judged: str, more: dict[str, Any], found: list[tuple[str, str]]) -> None:
    results = await audited(("POST", SEND, MESSAGE | more, None), transactional=judged)
    assert [(each.pointer, each.confidence) for each in results] == found
    assert await audited(("POST", SEND.replace("email", "push"), MESSAGE | more, None), transactional=judged) == []


@pytest.mark.parametrize(
    "subject",
    [
        *(
            "Summer sale",
            "10 %",
            "5%",
            "Money off",
            "Discount",
            "Discounts",
            "Deal",
            "Deals",
            "Offer",
            "Offers",
            "Coupon",
        ),
        *("The newsletter", "Promo-Code", "PROMOS", "Voucher", "Black Friday", "Cyber Monday", "Free shipping"),
        *("Rabattaktion", "Angebot", "Angebote", "Gutschein", "Solde", "Les soldes", "Promotion", "Promotions"),
        *("Reduction", "Oferta", "Ofertas", "Descuento", "Descuentos", "Desconto", "Sconto", "Saldi", "Korting"),
        "Aanbieding",
    ],
)
async def test_subjects_that_sound_like_an_offer(subject: str) -> None:
    sent = MESSAGE | {"subject": subject}
    assert len(await audited(("POST", SEND, sent, None), transactional="promotional")) == 1


@pytest.mark.parametrize(
    "subject", ["Your order", "Wholesale prices", "Office", "Verify it is you", "5 of 10", "X", ""]
)
async def test_subjects_that_do_not(subject: str) -> None:
    sent = MESSAGE | {"subject": subject}
    assert await audited(("POST", SEND, sent, None), transactional="promotional") == []


# --- what is read, and what it says of what is written later ----------------------------------------


async def audited(*sent: tuple[str, str, Any, Any], **params: Any) -> list[Finding]:
    """What is said of requests and their answers; an answer of None is an empty one."""
    recorded = []
    for number, (method, url, body, answer) in enumerate(sent):
        host, slash, path = url.partition("/")
        request = Exchange(
            id=f"{number:08x}",
            at=NOW + number,
            method=method,
            target=(slash + path).encode(),
            host=host,
            headers=((b"Authorization", b"Bearer x"),),
            body=b"" if body is None else json.dumps(body).encode(),
        )
        recorded.append((request, Recorded(NOW + number, 200, json.dumps(answer or {}).encode())))
    errors: list[object] = []
    settings = Settings(rules={ID: RuleSettings(report="possible", params=params)})
    rules = tuple(each for each in RULES if each.info.id == ID)
    engine = Engine(settings, rules, sealed_with(b"k" * 32), rule_error=lambda *error: errors.append(error))
    found = await audit_recorded(recorded, engine)
    assert errors == []
    return found


def read(layout: object, id: int = 96, **more: object) -> dict[str, Any]:
    return {"actions": [{"id": id, "type": "email", "body": BARE, "layout": layout, **more}]}


ACTIONS = ("GET", "api.customer.io/v1/campaigns/7/actions", None)
WRITE = ("PUT", ACTION, {"type": "email", "body": BARE}, None)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([read(UNLINKED)], 1),
        ([read("")], 1),
        ([read(LINKED)], 0),
        ([read("Standard")], 0),
        ([read(UNLINKED, id=97)], 0),
        ([read(UNLINKED), read(LINKED)], 0),
        ([read("{{content}}{{snippets.a}}")], 0),
    ],
)
async def test_the_layout_that_was_read_of_a_message_is_the_one_it_has(answers: list[Any], found: int) -> None:
    results = await audited(*[(*ACTIONS, answer) for answer in answers], WRITE)
    assert [each.pointer for each in results if each.method == "PUT"] == ["/body"] * found


async def test_a_layout_that_was_changed_since_counts_as_it_is_now() -> None:
    later = ("GET", "api.customer.io/v1/campaigns/7/actions", None, read(LINKED))
    results = await audited((*ACTIONS, read(UNLINKED)), *[later] * 70, WRITE)
    assert [each for each in results if each.method == "PUT"] == []


@pytest.mark.parametrize("none", ["", None])
async def test_that_a_message_has_no_layout_is_known_of_it_alone_whatever_its_language(none: str | None) -> None:
    (finding,) = await audited(("PUT", ACTION, {"type": "email", "body": BARE, "layout": none}, None))
    assert finding.message == "the mail has no link to unsubscribe"
    seen = (*ACTIONS, read(none, language="ka"))
    assert [each.pointer for each in await audited(seen, WRITE)] == ["/body"]
    other = "api.customer.io/v1/campaigns/8/actions/1"
    assert await audited(seen, ("PUT", other, {"type": "email", "body": BARE}, None)) == []


async def test_a_layout_is_known_by_its_id_for_other_messages() -> None:
    other = "api.customer.io/v1/campaigns/8/actions/1"
    written = {"type": "email", "body": PAGE, "layout_id": 5}
    assert len(await audited((*ACTIONS, read(LINKED, layout_id=4)), ("PUT", other, written, None))) == 1
    assert await audited((*ACTIONS, read(LINKED, layout_id=5)), ("PUT", other, written, None)) == []
    taught = ("PUT", ACTION, {"type": "email", "body": BARE, "layout": LINKED, "layout_id": 5}, None)
    assert await audited(taught, ("PUT", other, written, None)) == []


async def test_another_language_has_the_layout_of_its_message() -> None:
    written = {"type": "email", "body": BARE}
    results = await audited((*ACTIONS, read(UNLINKED)), ("PUT", f"{ACTION}/language/de", written, None))
    assert [each.pointer for each in results] == ["path:", "/body"]
    assert results[1].message == "the mail has no link to unsubscribe, and neither does its layout"


async def test_a_mail_that_is_read_is_told_of_where_it_is() -> None:
    (finding,) = await audited((*ACTIONS, read("")))
    assert finding.message == "the mail has no link to unsubscribe; it is /actions/0/body of the answer"
    assert finding.confidence == "certain"
    (finding,) = await audited(("GET", ACTION, None, {"action": read("")["actions"][0]}))
    assert finding.message.endswith("it is /action/body of the answer")


@pytest.mark.parametrize(
    "answer", [{"content": {"type": "email", "body": PAGE}}, {"contents": [{"type": "email", "body": PAGE}]}]
)
async def test_a_transactional_template_that_is_read(answer: Any) -> None:
    asked = ("GET", "api.customer.io/v1/transactional/3/contents", None, answer)
    assert await audited(asked) == []
    assert await audited(asked, transactional="promotional") == []
    assert len(await audited(asked, transactional="all")) == 1
    written = ("PUT", "api.customer.io/v1/transactional/3/content/1", {"type": "email", "body": PAGE}, None)
    assert await audited(written) == []
    assert len(await audited(written, transactional="all")) == 1


def test_the_mails_of_an_answer() -> None:
    many = json.dumps({"a": [{"type": "email", "body": "x", "id": n} for n in range(OBJECTS + 5)]}).encode()
    found = list(mails(many, "/v1/x", "de"))
    assert len(found) == OBJECTS == 100
    assert (found[1].known_by, found[1].at, found[1].language) == (("message\0/v1/x/1",), "/a/1/body", "de")
    (one,) = mails(b'{"a": {"type": "email", "body": "x", "language": "fr"}}', "/v1/x", "de")
    assert (one.known_by, one.at, one.language) == (("message\0/v1/x",), "/a/body", "fr")
    (one,) = mails(b'{"a": {"type": "email", "body": "x", "language": ""}}', "/v1/x", "de")
    assert one.language == "de"
    for answer in (b"", b"{", b"[]", b"[" * 100_000, b'{"a": 1}', b'{"a": [1]}', b'{"a": {"type": "email"}}'):
        assert list(mails(answer, "/v1/x", "")) == []


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/campaigns/7/actions/96", "/v1/campaigns/7/actions/96"),
        ("/v1/campaigns/7/actions/96/?a=/language/b", "/v1/campaigns/7/actions/96"),
        ("/v1/api/campaigns/7/actions/96/language/de", "/v1/campaigns/7/actions/96"),
        ("https://api.customer.io/v1/newsletters", "/v1/newsletters"),
        ("/v1/newsletters/X/", "/v1/newsletters/X"),
        ("/v1/newsletters/v1/contents/2", "/v1/newsletters/v1/contents/2"),
    ],
)
def test_the_path_of_a_message(target: str, path: str) -> None:
    exchange = Exchange(id="1", at=NOW, method="PUT", target=target.encode(), host="x", headers=(), body=b"{}")
    endpoint = "/v1/campaigns/{id}/actions/{id}" + ("/language/{language}" if target.endswith("de") else "")
    envelope = Envelope(exchange, "app", "w", "w", NO_CREDENTIALS, EMPTY_DOCUMENT)
    assert path_of(envelope.call("content_write", endpoint)) == path


def test_what_is_not_judged_says_why() -> None:
    reasons: list[str] = []
    for content in ("{{snippets.a}}", "a" * 200_000):
        assert of_sent(unable=reasons, content=content) == []
    assert told(ID, "PUT", ACTION, {"type": "email", "body": BARE}, unable=reasons) == []
    assert reasons == [
        "part of the mail is a snippet, a component or a variable",
        "the mail is too long, or in a language that is not known",
        "the layout of the mail is not known",
    ]


@pytest.mark.parametrize(
    "headers", ["{", "[" * 100_000, "[1, {}]", "7", [{"name": 1, "value": "a"}], {"List-Unsubscribe": 1}]
)
def test_headers_that_are_none(headers: object) -> None:
    written = {"type": "email", "layout": "", "body": BARE, "headers": headers}
    assert told(ID, "PUT", ACTION, written) == [("/body", "certain")]


@pytest.mark.parametrize("headers", ['{"List-Unsubscribe": "<x>"}', '[{"name": "list-unsubscribe", "value": "<x>"}]'])
def test_headers_in_a_text(headers: str) -> None:
    assert told(ID, "PUT", ACTION, {"type": "email", "layout": "", "body": BARE, "headers": headers}) == []


async def test_of_two_layouts_at_one_moment_the_one_with_the_link_counts() -> None:
    both = {"actions": [*read(UNLINKED)["actions"], *read(LINKED)["actions"]]}
    assert [each for each in await audited((*ACTIONS, both), WRITE) if each.method == "PUT"] == []


async def test_a_layout_in_a_language_that_is_not_known_is_not_known_either() -> None:
    other = ("PUT", "api.customer.io/v1/campaigns/8/actions/1", {"type": "email", "body": BARE, "layout_id": 5}, None)
    assert len(await audited((*ACTIONS, read(UNLINKED, layout_id=5, language="en")), other)) == 2
    assert await audited((*ACTIONS, read(UNLINKED, layout_id=5, language="ka")), other) == []


async def test_a_layout_is_known_by_its_name() -> None:
    read_by_name = {"action": {"id": 1, "type": "email", "body": BARE, "layout": LINKED, "layout_id": "Standard"}}
    other = (
        "PUT",
        "api.customer.io/v1/campaigns/8/actions/1",
        {"type": "email", "body": PAGE, "layout": "Standard"},
        None,
    )
    assert await audited(("GET", ACTION, None, read_by_name), other) == []


async def test_the_facts_of_a_layout_are_of_its_workspace_and_kind() -> None:
    taught = (0.0, "PUT", ACTION, {"type": "email", "body": BARE, "layout": LINKED, "layout_id": 5})
    kept = await remembered(ID, taught)
    assert kept.keys() == {"layout-with-link"}
    assert [(span.first, span.last) for _, span in kept["layout-with-link"]] == [(NOW, NOW)] * 2
    kept = await remembered(ID, (0.0, "PUT", ACTION, {"type": "email", "body": BARE, "layout": UNLINKED}))
    assert kept.keys() == {"layout-without-link"}
    assert len(kept["layout-without-link"]) == 1
    assert await remembered(ID, (0.0, "PUT", ACTION, {"type": "email", "body": BARE, "layout": ""})) == {}


async def test_segments_and_snippets_that_are_read_hold_no_mail() -> None:
    answer = {"segment": {"type": "email", "body": PAGE}}
    assert await audited(("GET", "api.customer.io/v1/segments", None, answer)) == []
    assert await audited(("GET", "api.customer.io/v1/campaigns/7/actions/96/language/ka", None, answer)) == []
