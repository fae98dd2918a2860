"""A rule that does not return is interrupted, blamed and in the end switched off; a broken one never starts."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from cio_proxy import selftest
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.model import Call, Exchange, Finding, Known, Settings
from cio_proxy.rules import RULES
from cio_proxy.watchdog import Overdue, Watchdog

EXCHANGE = Exchange(
    id="e", at=1.75e9, method="PUT", target=b"/api/v1/customers/42", host="track.customer.io", headers=(), body=b"{}"
)


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog(0.1)
    yield made
    made.close()


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_code_that_does_not_end_is_interrupted(watchdog: Watchdog) -> None:
    with pytest.raises(Overdue), watchdog:
        busy(60)


def test_nothing_arrives_once_the_context_is_left(watchdog: Watchdog) -> None:
    for _ in range(40):
        with suppress(Overdue), watchdog:
            busy(0.11)  # about when the exception comes
        busy(0.01)


def test_what_python_swallows_is_raised_again_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def __del__(self) -> None:
            busy(60)

    class Broken:
        def __del__(self) -> None:
            raise RuntimeError

    def careless() -> None:
        Busy()
        busy(60)

    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    before = sys.unraisablehook
    watchdog = Watchdog(0.1)
    with pytest.raises(Overdue), watchdog:
        careless()
    Broken()
    watchdog.close()
    assert shown == [RuntimeError]
    assert sys.unraisablehook is before


def test_waiting_outside_is_not_counted(watchdog: Watchdog) -> None:
    with watchdog:
        pass
    threading.Event().wait(0.4)


async def test_the_rule_that_runs_is_blamed_and_the_others_are_heard(watchdog: Watchdog) -> None:
    def endless(call: Call, known: Known) -> Iterator[Finding]:
        with suppress(Exception):  # as a careless rule may
            busy(60)
        yield from ()

    def good(call: Call, known: Known) -> Iterator[Finding]:
        yield RULES[1].info.finding("/a", "m", effect="e", fix="f", confidence="certain")

    blamed: list[str] = []
    engine = Engine(
        Settings(),
        [replace(RULES[0], check=endless), replace(RULES[1], check=good)],
        sealed_with(b"k" * 32),
        rule_error=lambda rule, error: blamed.append(f"{rule} {type(error).__name__}"),
    )
    auditor = Auditor(engine, MemoryStore(), (), watchdog=watchdog)
    audit = await auditor.begin(EXCHANGE)
    assert [finding.pointer for finding in audit.verdict.findings] == ["/a"]
    assert blamed == [f"{RULES[0].info.id} Overdue"]


async def test_every_shipped_rule_passes_the_self_test() -> None:
    assert await selftest.failing() == {}


async def test_a_rule_that_finds_nothing_or_raises_fails_the_self_test() -> None:
    def broken(call: Call, known: Known) -> Iterator[Finding]:
        yield from ()
        raise RuntimeError

    silent, raising, *others = RULES
    reasons = await selftest.failing(
        [replace(silent, check=lambda call, known: ()), replace(raising, check=broken), *others]
    )
    assert reasons.keys() == {silent.info.id, raising.info.id}
    assert "finds nothing" in reasons[silent.info.id]
    assert "RuntimeError" in reasons[raising.info.id]
