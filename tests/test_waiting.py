"""Who waits for Customer.io is told from who does not: a Node app behind a real proxy, under load."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "waiting.py"


@pytest.mark.once
def test_the_version_of_a_route_that_awaits_is_found_and_the_other_one_is_not() -> None:
    command = [sys.executable, str(BENCH), "1", "300"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("calls held") == 4
