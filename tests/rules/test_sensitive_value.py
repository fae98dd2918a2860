"""What a finding about a sensitive value tells, and what it must not; and how often numbers pass by chance."""

import json
import random
import time
from collections import Counter

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.facts import Reading
from cio_proxy.model import Exchange, Finding, Json, RuleSettings, Settings
from cio_proxy.rules import RULES

RULE = "sensitive-value"
INFOS = tuple(rule for rule in RULES if rule.info.id == RULE)
CONTENT = "TUFERSBVUCBGT1IgVEhFIEVYQU1QTEUsIE5PIEtFWQ"


def found(attributes: dict[str, Json], **settings: object) -> tuple[Finding, ...]:
    body = json.dumps(attributes).encode()
    exchange = Exchange(
        id="1", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=body
    )
    said = {RULE: RuleSettings(report="possible")}
    engine = Engine(Settings(rules=said, **settings), INFOS, sealed_with(b"k" * 32))  # type: ignore[arg-type]
    return engine.judge(engine.open(exchange), Reading()).findings


@pytest.mark.parametrize("show_values", [False, True])
@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("4111 1111 1111 1111", "1111"),
        (4111111111111111, "1111"),
        ("paid with 3782-822463-10005 at the door", "822463"),
        ("GB29 NWBK 6016 1331 9268 19", "NWBK"),
        (f"-----BEGIN EC PRIVATE KEY-----\n{CONTENT}\n-----END EC PRIVATE KEY-----", CONTENT),
    ],
)
def test_no_text_of_a_finding_holds_the_value(value: Json, secret: str, show_values: bool) -> None:
    (finding,) = found({"card": value}, show_values=show_values)
    assert finding.confidence == "likely"
    assert secret not in repr(finding)


def test_a_number_of_many_digits_is_no_likely_card_without_a_name_that_says_so() -> None:
    rng = random.Random(7)
    numbers = [f"4{rng.randrange(10**15):015}" for _ in range(2_000)]
    names = ("order_id", "amount", "reference", "orderNumber")
    told = Counter(f.confidence for number in numbers for name in names for f in found({name: number}))
    assert told["likely"] == 0
    assert told["possible"] > 100, "the numbers do pass the check of a card"


@pytest.mark.parametrize(
    "value",
    [
        "4111 1111 1111 111 " * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 100_000,
        "AB12" * 500_000,
        ["DE89 3704 0044 0532 0130 01"] * 50_000,
        [4111111111111112] * 100_000,
    ],
    ids=["groups", "frames", "accounts in one", "accounts", "numbers"],
)
def test_hostile_values_cost_linear_time(value: Json) -> None:
    started = time.perf_counter()
    assert found({"pan": value}) == ()
    assert time.perf_counter() - started < 5
