"""Two calls of an app that does not wait in between go over two connections, and either may be read first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, Proxy, need
from .table import NODE

pytestmark = pytest.mark.once

SITE, KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27"


def test_no_event_is_refused_that_the_sdk_sends_along_with_its_identify(tmp_path: Path) -> None:
    need(NODE)
    facts = f"sqlite:{tmp_path / 'facts.sqlite'}"  # to mark an identify there takes longer than to read
    config = {"facts": facts, "people": "complete", "rules": {"track-before-identify": {"action": "block"}}}
    proxy = Proxy(tmp_path, "--enforcement", "enforce", config=config)
    command = ("node", "tests/sdks/node/race.mjs", proxy.url, SITE, KEY, "200")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    proxy.stop()
    said = json.loads(done.stdout)
    assert said["races"] == 0
    (reason,) = said["refused"]
    assert "an event for a person who was never identified" in reason
