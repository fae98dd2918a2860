"""A skip is allowed on a workstation and not in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SKIPPING = """
import pytest

def test_that_skips():
    pytest.skip("no Node here")

@pytest.mark.xfail(strict=True)
def test_that_is_known_to_fail():
    assert False
"""
SKIPPING_WHILE_COLLECTED = "import pytest\npytest.importorskip('no_such_module')\n"


def run_under_our_conftest(tests: str, folder: Path, *, ci: str) -> str:
    (folder / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (folder / "test_skipping.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        env=os.environ | {"CI": ci, "PYTEST_ADDOPTS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped, 1 xfailed"), ("true", "1 failed, 1 xfailed")])
def test_a_skip_fails_only_in_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    shown = run_under_our_conftest(SKIPPING, tmp_path, ci=ci)
    assert outcome in shown
    assert ("no Node here (with CI=true a skip is a failure)" in shown) == (ci == "true")


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_a_module_skipped_while_collected_fails_only_in_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    assert outcome in run_under_our_conftest(SKIPPING_WHILE_COLLECTED, tmp_path, ci=ci)
