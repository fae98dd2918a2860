"""The real SDKs through the running proxy: quiet on clean sessions, each pitfall found, refusals readable and final."""

import json
import subprocess
import time

import pytest

from .conftest import APP_KEY, ROOT, Proxy, need
from .table import BAD, CDP, CLEAN, NODE, PROGRAMS, TABLE, TRACK, UNSTOPPABLE, Pitfall


def programs(*, refused: bool | None = None) -> pytest.MarkDecorator:
    """Every program of the table, or those whose last call default enforcement refuses or lets pass."""
    rows = [row for row in PROGRAMS if refused in {None, row[2].refused}]
    return pytest.mark.parametrize(
        ("sdk", "rule", "pitfall"), [pytest.param(*row, id=f"{row[0]}-{row[2].name}") for row in rows]
    )


def arguments(sdk: str, pitfall: Pitfall) -> list[str]:
    """An SDK that cannot send a misshapen key is given one that belongs to another API."""
    return [pitfall.name, APP_KEY] if (sdk, pitfall.name) == (CDP, "wrong-api-key") else [pitfall.name]


@pytest.mark.parametrize("sdk", CLEAN)
@pytest.mark.parametrize("proxy", ["observing", "enforcing", "knowing"])
def test_a_clean_session_over_every_method_gives_no_finding(
    sdk: str, proxy: str, request: pytest.FixtureRequest
) -> None:
    need(sdk)
    running: Proxy = request.getfixturevalue(proxy)
    before = running.summary()
    steps = running.run(CLEAN[sdk])
    time.sleep(2)  # the deadline of missing-email, and a turn of the clock that fires it
    risen = running.rises(before, requests=1, until=set())
    assert [step for step in steps if not step.ok] == []
    assert risen.keys() == {"requests"}, running.get("/api/findings")["findings"][-5:]


@programs()
def test_a_pitfall_is_found_through_each_sdk(sdk: str, rule: str, pitfall: Pitfall, observing: Proxy) -> None:
    need(sdk)
    before = observing.summary()
    steps = observing.run(BAD[sdk], *arguments(sdk, pitfall))
    risen = observing.rises(before, len(steps), until={rule})
    assert risen.keys() == {"requests", rule}


@programs(refused=True)
def test_default_enforcement_refuses_once_and_gives_its_reason(
    sdk: str, rule: str, pitfall: Pitfall, enforcing: Proxy
) -> None:
    need(sdk)
    before = enforcing.summary()
    *others, last = steps = enforcing.run(BAD[sdk], *arguments(sdk, pitfall))
    risen = enforcing.rises(before, len(steps), until={rule, "blocked"})
    assert [step for step in others if not step.ok] == []
    assert not last.ok
    assert rule in last.error
    assert risen["blocked"] == 1
    assert risen["requests"] == len(steps), "an SDK that retries sends more requests than it takes steps"


@programs(refused=False)
def test_default_enforcement_refuses_nothing_else(sdk: str, rule: str, pitfall: Pitfall, enforcing: Proxy) -> None:
    need(sdk)
    before = enforcing.summary()
    steps = enforcing.run(BAD[sdk], *arguments(sdk, pitfall))
    assert enforcing.rises(before, len(steps), until={rule})["blocked"] == 0


@programs()
def test_what_the_configuration_blocks_is_refused_once_and_gives_its_reason(
    sdk: str, rule: str, pitfall: Pitfall, blocking: Proxy
) -> None:
    need(sdk)
    before = blocking.summary()
    *_, last = steps = blocking.run(BAD[sdk], *arguments(sdk, pitfall))
    risen = blocking.rises(before, len(steps), until={rule})
    assert risen["requests"] == len(steps)
    assert risen["blocked"] == (rule not in UNSTOPPABLE)
    assert last.ok == (rule in UNSTOPPABLE)
    assert rule in last.error or rule in UNSTOPPABLE


def test_the_table_has_every_rule_and_sdk() -> None:
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
    assert "://" not in (ROOT / "tests/sdks/node/package-lock.json").read_text()
