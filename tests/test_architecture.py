"""The layout holds: dependencies point one way, and offline commands never pay for mitmproxy."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_import_follows_the_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_explain_starts_without_mitmproxy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cio_proxy.cli import main\n"
        "result = CliRunner().invoke(main, ['explain', 'missing-email']); assert result.exit_code == 0, result.output\n"
        "sys.exit('mitmproxy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
