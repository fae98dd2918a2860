"""What is published: the wheel, installed with nothing else around it."""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.once


def output(*command: str | Path) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `cio-proxy` of a new environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    output(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("cio_proxy-*.whl")
    venv.create(folder / "venv")
    output(sys.executable, "-m", "pip", "--python", folder / "venv", "install", "--no-compile", wheel)
    return folder / "venv/bin/cio-proxy"


def test_the_wheel_tells_its_version(installed: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in output(installed, "--version")


def test_the_wheel_explains_the_rules(installed: Path) -> None:
    assert "millisecond-timestamp" in output(installed, "explain")
    assert "Fix" in output(installed, "explain", "millisecond-timestamp")
