"""The real SDKs through the running proxy: quiet on clean sessions, each pitfall found, refusals readable and final."""

import json
import subprocess
import time
from collections.abc import Sequence

import pytest

from .conftest import APP_KEY, ROOT, Proxy, need
from .table import BAD, CDP, CLEAN, FIRST, NODE, PROGRAMS, TABLE, TRACK, UNSTOPPABLE, Pitfall


def programs(*, among: Sequence[tuple[str, str, Pitfall]] = PROGRAMS) -> pytest.MarkDecorator:
    """One case for each of these programs of the table."""
    return pytest.mark.parametrize(
        ("sdk", "rule", "pitfall"), [pytest.param(*row, id=f"{row[0]}-{row[2].name}") for row in among]
    )


def arguments(sdk: str, pitfall: Pitfall) -> list[str]:
    """An SDK that cannot send a misshapen key is given one that belongs to another API."""
    return [pitfall.name, APP_KEY] if (sdk, pitfall.name) == (CDP, "wrong-api-key") else [pitfall.name]


@pytest.mark.parametrize("sdk", CLEAN)
@pytest.mark.parametrize("proxy", ["observing", "enforcing"])
def test_a_clean_session_over_every_method_gives_no_finding(
    sdk: str, proxy: str, request: pytest.FixtureRequest
) -> None:
    need(sdk)
    running: Proxy = request.getfixturevalue(proxy)
    before = running.counted()
    steps = running.run(CLEAN[sdk])
    time.sleep(2)  # the deadline of missing-email, and a turn of the clock that fires it
    risen = running.rises(before, {"requests": 1})
    assert [step for step in steps if not step.ok] == []
    assert risen == {"requests": risen["requests"], "forwarded": risen["requests"]}


@pytest.mark.once
@programs()
def test_a_pitfall_is_found_through_each_sdk(sdk: str, rule: str, pitfall: Pitfall, observing: Proxy) -> None:
    need(sdk)
    before = observing.counted()
    sent = len(observing.play(BAD[sdk], *arguments(sdk, pitfall)))
    action = "would_block" if pitfall.refused else "logged"
    expected = {"requests": sent, "forwarded": sent, f"{rule} {action}": 1}
    assert observing.rises(before, expected) == expected


@programs(among=[row for row in PROGRAMS if row[2].refused])
def test_default_enforcement_refuses_once_and_gives_its_reason(
    sdk: str, rule: str, pitfall: Pitfall, enforcing: Proxy
) -> None:
    need(sdk)
    refuses_the_last_request(enforcing, sdk, rule, pitfall)


@pytest.mark.once
@programs(among=[row for row in FIRST if row[1] not in UNSTOPPABLE])
def test_what_the_configuration_blocks_is_refused_once_and_gives_its_reason(
    sdk: str, rule: str, pitfall: Pitfall, blocking: Proxy
) -> None:
    need(sdk)
    refuses_the_last_request(blocking, sdk, rule, pitfall)


def refuses_the_last_request(proxy: Proxy, sdk: str, rule: str, pitfall: Pitfall) -> None:
    """The SDK shows the reason, and has sent one request for each step: it did not try again."""
    before = proxy.counted()
    *others, last = steps = proxy.play(BAD[sdk], *arguments(sdk, pitfall))
    expected = {"requests": len(steps), "blocked": 1, f"{rule} blocked": 1}
    if others:
        expected["forwarded"] = len(others)
    assert proxy.rises(before, expected) == expected
    assert [step for step in others if not step.ok] == []
    assert not last.ok
    assert rule in last.error


def test_the_table_tells_for_each_of_its_rules_what_every_sdk_can_do() -> None:
    rules = {example.stem.replace("_", "-") for example in (ROOT / "cio_proxy/rules").glob("*.http")}
    assert set(TABLE) == rules
    assert all(set(reach) == {NODE, TRACK, CDP} for reach in TABLE.values())


def test_the_node_sdk_is_the_pinned_version() -> None:
    need(NODE)
    folder = ROOT / "tests/sdks/node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]["customerio-node"]
    installed = json.loads((folder / "node_modules/customerio-node/package.json").read_text())["version"]
    assert installed == wanted == "5.2.0"


@pytest.mark.parametrize(("sdk", "version"), [(TRACK, "3.2.0"), (CDP, "1.1.0")])
def test_the_python_sdks_are_the_pinned_versions(sdk: str, version: str) -> None:
    need(sdk)
    ask = f"import importlib.metadata as m; print(m.version({sdk!r}))"
    installed = subprocess.run([ROOT / CLEAN[sdk][0], "-c", ask], capture_output=True, text=True, check=True)
    assert installed.stdout.strip() == version


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((ROOT / "tests/sdks/node/package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
