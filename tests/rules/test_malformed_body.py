"""Bodies that nobody could read are no finding but a reason, and forms are possible ones."""

from typing import Any

import pytest

from cio_proxy.model import Call, Document, Exchange, Fault, FaultKind, Finding, Unavailable
from cio_proxy.rules.malformed_body import check

from .alone import told

RULE = "malformed-body"
EVENTS = ("POST", "track.customer.io/api/v1/customers/42/events")
REASONS: dict[FaultKind, str] = {
    "too-deep": "the body is nested too deep to be read",
    "too-large": "the body is too large to be read",
    "bad-encoding": "the content coding of the body is not read",
    "unread": "the body was streamed past unread",
}


def judged(*faults: Fault, **call: Any) -> list[Finding | Unavailable]:
    exchange = Exchange(id="1", at=0.0, method="POST", target=b"/", host="", headers=(), body=b"")
    parts = {"api": "track_v1", "kind": "event", "endpoint": "", "workspace": "", **call}
    known: Any = None
    return list(check(Call(exchange=exchange, document=Document(b"x", None, faults), **parts), known))


@pytest.mark.parametrize(("kind", "reason"), REASONS.items())
def test_why_a_body_was_not_read(kind: FaultKind, reason: str) -> None:
    assert judged(Fault(kind, "", "")) == [Unavailable(reason)]
    assert judged(Fault(kind, "", ""), kind="unreadable") == [Unavailable(reason)]


def test_the_first_of_each_kind_is_told_in_order_by_the_leading_call_alone() -> None:
    faults = (
        Fault("nan", "/a", "1"),
        Fault("nan", "/b", "2"),
        Fault("duplicate-key", "/c", "3"),
        Fault("unread", "", ""),
    )
    told_of = [(each.pointer if isinstance(each, Finding) else each.reason) for each in judged(*faults)]
    assert told_of == ["/a", "/c", REASONS["unread"]]
    assert judged(*faults, item=1) == []
    assert len(judged(*faults, item=0)) == 3
    assert judged() == []


@pytest.mark.parametrize(
    ("form", "sure"),
    [
        ("application/x-www-form-urlencoded", "possible"),
        ("application/x-www-form-urlencoded; charset=utf-8", "possible"),
        ("application/json", "certain"),
        ("text/plain; application/x-www-form-urlencoded", "certain"),
    ],
)
def test_a_form_is_perhaps_taken(form: str, sure: str) -> None:
    assert told(RULE, *EVENTS, b"name=a", headers={"Content-Type": form}) == [("", sure)]


def test_another_fault_of_a_form_is_certain() -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert told(RULE, *EVENTS, b'{"name": NaN}', headers=form) == [("/name", "certain")]
    assert told(RULE, *EVENTS, b"[1]") == [("", "certain")]
    assert told(RULE, *EVENTS, b"[]") == [("", "possible")]
    assert told(RULE, *EVENTS, b"null") == [("", "possible")]
    assert told(RULE, *EVENTS, b"\xff", headers={"Content-Type": "x"}) == [("", "certain")]
    assert told(RULE, *EVENTS, b"  ") == [("", "likely")]
