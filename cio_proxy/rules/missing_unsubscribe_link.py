"""A marketing mail gives its reader no way to leave.

Customer.io sends what it is given. A mail of a campaign, a broadcast or a newsletter without an unsubscribe link is
against the law in most countries (CAN-SPAM, GDPR) and against the rules of Gmail and Yahoo for senders of many mails;
whoever cannot leave reports spam instead. Using one of Customer.io's own tags is also what makes it add the headers
for leaving with one click.

Looked at is mail content that is written or read through the App API, and what was really sent, where reporting
webhooks carry it. The link often stands in the layout: content that a layout may be put around is judged together
with that layout, when it is sent along or was seen before, and not at all otherwise. What comes from snippets and
components is not judged either. A word for it in some forty languages counts as a link, wherever it stands, so that
short links and images do; so does a `List-Unsubscribe` header.

Transactional mail needs no link. It is judged where `send_to_unsubscribed: false` says that it is for subscribers;
the parameter `transactional` says otherwise. A webhook tells by the origin that it names which mail is one; where it
names none, nothing is said.

A `List-Unsubscribe` that a transactional mail is sent with, or that a webhook shows, is of use to Gmail and Yahoo only
with an https address and `List-Unsubscribe-Post: List-Unsubscribe=One-Click` beside it.

Fix: put `{% unsubscribe_url %}` or `{% manage_subscription_preferences_url %}` into a link of the mail, or of its
layout.

See https://docs.customer.io/journeys/unsubscribes/
See https://docs.customer.io/messaging/liquid/tag-list/
See https://www.rfc-editor.org/rfc/rfc8058
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from cio_proxy.mail import (
    LIST_UNSUBSCRIBE,
    OneClick,
    has_nothing_to_follow,
    is_whole,
    one_click,
    way_out,
    without_content,
)
from cio_proxy.model import (
    Call,
    Confidence,
    Fact,
    Finding,
    Json,
    Key,
    Known,
    Outcome,
    Param,
    People,
    RuleInfo,
    Unavailable,
    pointer,
)

DAY = 86_400.0

RULE = RuleInfo(
    id="missing-unsubscribe-link",
    severity="error",
    category="5",
    kinds=frozenset({"content_write", "content_read", "send_message", "webhook_metric"}),
    apis=frozenset({"app", "webhooks"}),
    params={
        "transactional": Param(
            "marked",
            "which transactional mail needs a link: `never` any, `marked` with `send_to_unsubscribed: false`,"
            " `promotional` also one whose subject sounds like an offer, `all`",
            "text",
            choices=("never", "marked", "promotional", "all"),
        ),
        "remember": Param(
            DAY, "how long it is remembered whether a layout has a link: it may be changed unseen", "duration"
        ),
    },
)

MESSAGES: Final = ("/v1/campaigns/", "/v1/broadcasts/", "/v1/newsletters", "/v1/transactional")
MARKETING: Final = ("campaign_id", "broadcast_id", "newsletter_id")
"""What a webhook names as the origin of a mail that is no transactional one."""
MAIL_ONLY: Final = ("subject", "preheader_text", "body_amp", "from_id", "reply_to_id")
"""What no other kind of message has, where `type` does not say which kind it is."""
OBJECTS: Final = 100
"""Messages of one answer that are looked at."""
WITH_LINK, WITHOUT_LINK = "layout-with-link", "layout-without-link"
EFFECT = "Customer.io sends it as it is. Who cannot leave reports spam, and mail providers hold back the sender's mail."
FIX = (
    "Put a link with {% unsubscribe_url %} or {% manage_subscription_preferences_url %} into the mail, or into its"
    " layout."
)
_OFFER = re.compile(
    r"\d ?%|\b(?:sale|off|discounts?|newsletter|deals?|offers?|coupon|promo\w*|voucher|black friday|cyber monday"
    r"|free shipping|rabatt\w*|angebote?|gutschein|soldes?|reduction|ofertas?|descuentos?|desconto"
    r"|sconto|saldi|korting|aanbieding)\b",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\{\{\{?\s{0,9}unsubscribe_url\s{0,9}\}\}")


class Mail(NamedTuple):
    """The content of one mail, as far as it is known."""

    body: str
    at: str
    layout: str | None
    """The text that is put around it; empty for none, None where nobody says."""
    language: str
    headers: Mapping[str, str]
    known_by: tuple[str, ...]
    """What stands for its layout: the id, or the name, and the path of the message; nothing for what is sent."""


# --- what is written, and what was sent ----------------------------------------------------------


def needs(call: Call, people: People) -> Iterable[Key]:
    """What is known of the layout of content that is written without it."""
    mail = written(call)
    return () if mail is None else [key for each in mail.known_by for key in _keys(call, each)]


def learn(call: Call, outcome: Outcome, params: Mapping[str, Any]) -> Iterable[Fact]:
    """Whether the layout that was sent along has a link."""
    mail = written(call)
    return () if mail is None or not mail.layout else _of_layout(call, mail, params["remember"])


def check(call: Call, known: Known) -> Iterable[Finding | Unavailable]:
    """Content that is written, a message that is sent, and what a webhook says was sent."""
    if call.kind == "webhook_metric":
        return _sent(call, known.params["transactional"])
    if call.kind == "send_message":
        return _sending(call, known.params["transactional"])
    mail = written(call)
    if mail is None:
        return ()
    if call.endpoint.startswith("/v1/transactional") and known.params["transactional"] != "all":
        return ()
    return _judge(mail._replace(layout=_layout(call, mail, known)))


def _sending(call: Call, judged: str) -> Iterator[Finding | Unavailable]:
    if call.endpoint != "/v1/send/email":
        return
    body, headers = call.body, _headers(call.body.get("headers"))
    if fault := one_click(headers):
        yield _no_button("/headers", fault)
    subject = body.get("subject")
    is_meant = judged == "all" or (judged != "never" and body.get("send_to_unsubscribed") is False)
    if not is_meant and not (judged == "promotional" and isinstance(subject, str) and _OFFER.search(subject)):
        return
    at = "body" if body.get("body") else "body_plain"
    text = body.get(at)
    if isinstance(text, str) and text:
        layout = "" if body.get("transactional_message_id") is None else None
        yield from _judge(Mail(text, f"/{at}", layout, _language(call), headers, ()))


def _sent(call: Call, judged: str) -> Iterator[Finding | Unavailable]:
    """What was sent, as a webhook shows it where body content is switched on: the whole mail, and its headers.

    It says where the mail came from (reference 7.3). One that is of no campaign, broadcast or newsletter is a
    transactional one, of which `send_to_unsubscribed` is not told, or a test.
    """
    sent = call.data
    if call.name != "sent" or call.body.get("object_type") != "email":
        return
    content, subject = sent.get("content"), sent.get("subject")
    if not (isinstance(content, str) and content and isinstance(subject, str)):
        return
    if sent.get("transactional_message_id") is not None:
        if judged != "all" and not (judged == "promotional" and _OFFER.search(subject)):
            return
    elif all(sent.get(origin) is None for origin in MARKETING):
        return
    headers = _headers(sent.get("headers"))
    if fault := one_click(headers):
        yield _no_button(pointer(call.data_at, "headers"), fault)
    yield from _judge(Mail(content, pointer(call.data_at, "content"), "", "", headers, ()))


def written(call: Call) -> Mail | None:
    """The mail that a call writes, or None."""
    if call.kind != "content_write" or not call.endpoint.startswith(MESSAGES):
        return None
    return _mail(call.body, "", path_of(call), _language(call))


# --- what is read ----------------------------------------------------------------------------------


def review(call: Call, outcome: Outcome, known: Known) -> Iterable[Finding | Unavailable | Fact]:
    """The mails in an answer, each with the layout that stands beside it."""
    if call.kind != "content_read" or outcome.status != 200 or not outcome.body:
        return ()
    if not call.endpoint.startswith(MESSAGES) or b'"body"' not in outcome.body:
        return ()
    return _read(call, outcome.body, known.params)


def _read(call: Call, answer: bytes, params: Mapping[str, Any]) -> Iterator[Finding | Unavailable | Fact]:
    is_exempt = call.endpoint.startswith("/v1/transactional") and params["transactional"] != "all"
    for mail in mails(answer, path_of(call), _language(call)):
        yield from _of_layout(call, mail, params["remember"])
        if not is_exempt:
            for each in _judge(mail):
                yield each if isinstance(each, Unavailable) else _in_answer(each)


def _in_answer(finding: Finding) -> Finding:
    at = finding.pointer
    return RULE.finding(
        "path:",
        f"{finding.message}; it is {at} of the answer",
        effect=finding.effect,
        fix=finding.fix,
        confidence=finding.confidence,
    )


def mails(answer: bytes, path: str, language: str) -> Iterator[Mail]:
    """The mails in an answer of the App API: an object, or a list of them, under a name."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return
    for name, value in told.items() if isinstance(told, dict) else ():
        listed = isinstance(value, list)
        for index, each in enumerate(value[:OBJECTS] if listed else [value]):
            if isinstance(each, dict):
                where = f"{path}/{each.get('id')}" if listed else path
                mail = _mail(each, pointer("", name, index) if listed else pointer("", name), where, language)
                if mail is not None:
                    yield mail


# --- mails and layouts ---------------------------------------------------------------------------


def _mail(content: Mapping[str, Json], at: str, message: str, language: str) -> Mail | None:
    """The mail in an object of the App API, or None for another kind of message, or for nothing to judge."""
    kind, body, layout = content.get("type"), content.get("body"), content.get("layout")
    if kind not in (None, "email") or not isinstance(body, str) or not body.strip():
        return None
    if kind is None and not any(content.get(name) for name in MAIL_ONLY):
        return None
    is_named = isinstance(layout, str) and layout and "<" not in layout and "{" not in layout
    told = content.get("language")
    return Mail(
        body,
        f"{at}/body",
        layout if isinstance(layout, str) and not is_named else None if "layout" not in content or is_named else "",
        told if isinstance(told, str) and told else language,
        _headers(content.get("headers")),
        tuple(_layouts(message, content.get("layout_id") or (layout if is_named else ""))),
    )


def _judge(mail: Mail) -> Iterator[Finding | Unavailable]:
    """What is to be said of a mail in its layout."""
    own = "there" if LIST_UNSUBSCRIBE in mail.headers else way_out(mail.body, mail.language)
    if own == "there":
        if _VARIABLE.search(mail.body) and "{%" not in mail.body:
            yield _unfilled(mail)
        return
    around = way_out(without_content(mail.layout or ""))
    if around == "there":
        return
    if "elsewhere" in (own, around):
        yield Unavailable("part of the mail is a snippet, a component or a variable")
    elif "unreadable" in (own, around):
        yield Unavailable("the mail is too long, or in a language that is not known")
    elif mail.layout is None and not is_whole(mail.body):
        yield Unavailable("the layout of the mail is not known")
    else:
        yield _finding(mail)


def _finding(mail: Mail) -> Finding:
    sure: Confidence = "likely"
    if mail.layout is not None and all(map(has_nothing_to_follow, (mail.body, without_content(mail.layout)))):
        sure = "certain"
    around = ", and neither does its layout" if mail.layout else ""
    return RULE.finding(
        mail.at, f"the mail has no link to unsubscribe{around}", effect=EFFECT, fix=FIX, confidence=sure
    )


def _no_button(at: str, fault: OneClick) -> Finding:
    return RULE.finding(
        at,
        fault.fault,
        effect="Gmail and Yahoo show no button to leave with one click, which they ask of marketing mail.",
        fix="Send both headers: `List-Unsubscribe: <https://…>` and `List-Unsubscribe-Post:"
        " List-Unsubscribe=One-Click`.",
        confidence="certain" if fault.proven else "likely",
    )


def _unfilled(mail: Mail) -> Finding:
    return RULE.finding(
        mail.at,
        "`unsubscribe_url` is written as a variable; at Customer.io it is a tag",
        effect="Users report that the variable is empty, and the link leads nowhere.",
        fix="Write {% unsubscribe_url %}.",
        corrected="{% unsubscribe_url %}",
        confidence="possible",
    )


def _layout(call: Call, mail: Mail, known: Known) -> str | None:
    """The layout that goes around a mail; one that was seen before is as good as its word for it."""
    if mail.layout is not None:
        return mail.layout
    for each in mail.known_by:
        with_link, without = (known.span(key) for key in _keys(call, each))
        if with_link is not None and (without is None or with_link.last >= without.last):
            return "{{content}} unsubscribe"
        if without is not None:
            return "{{content}}"
    return None


def _layouts(message: str, layout: Json) -> Iterator[str]:
    if layout:
        yield f"layout\0{layout}"
    yield f"message\0{message}"


def _keys(call: Call, of: str) -> tuple[Key, Key]:
    return call.joined_key(WITH_LINK, of), call.joined_key(WITHOUT_LINK, of)


def _of_layout(call: Call, mail: Mail, remember: float) -> Iterator[Fact]:
    """Whether the layout has a link; an empty one has none. What it includes may have one, and is not known."""
    if mail.layout is None:
        return
    found = way_out(without_content(mail.layout), mail.language) if mail.layout else "none"
    if found in ("there", "none"):
        for each in mail.known_by:
            yield Fact(_keys(call, each)[found == "none"], call.seen, remember)


# --- the parts of a call -------------------------------------------------------------------------


def path_of(call: Call) -> str:
    """The path of the message, without the language that a variant of it is in."""
    path = _path(call)
    return path.rsplit("/", 2)[0] if call.endpoint.endswith("/{language}") else path


def _language(call: Call) -> str:
    """The language that a mail says it is in, or its path."""
    told = call.body.get("language")
    if isinstance(told, str):
        return told
    return _path(call).rpartition("/")[2] if call.endpoint.endswith("/{language}") else ""


def _path(call: Call) -> str:
    path = call.exchange.target.decode("latin-1").partition("?")[0].rstrip("/")
    return path[max(0, path.find("/v1/")) :].replace("/v1/api/", "/v1/")


def _headers(sent: Json) -> dict[str, str]:
    """The headers of a mail by their names in lower case: as an object, a list of pairs, or the JSON of it."""
    if isinstance(sent, str):
        try:
            sent = json.loads(sent)
        except (ValueError, RecursionError):
            return {}
    if isinstance(sent, dict):
        pairs: Iterable[tuple[Json, Json]] = sent.items()
    elif isinstance(sent, list):
        pairs = [(each.get("name"), each.get("value")) for each in sent if isinstance(each, dict)]
    else:
        return {}
    texts = ((name, _value(told)) for name, told in pairs if isinstance(name, str))
    return {name.lower(): value for name, value in texts if value is not None}


def _value(told: Json) -> str | None:
    """The value of a header, or the several that it has."""
    if isinstance(told, list):
        return ", ".join(each for each in told if isinstance(each, str))
    return told if isinstance(told, str) else None
