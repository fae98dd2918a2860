"""What is written about the product comes from the product."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cio_proxy.baseline import parsed
from cio_proxy.cli import main
from cio_proxy.config import OPTIONS
from cio_proxy.model import Settings
from cio_proxy.rules import RULES
from cio_proxy.sinks.metrics import Metrics

ROOT = Path(__file__).parents[1]


def test_readme_and_shipped_configuration_come_from_the_rules() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("rule", [rule.info.id for rule in RULES])
def test_explain_shows_what_happens_the_fix_and_an_example_of_each_kind(rule: str) -> None:
    result = CliRunner().invoke(main, ["explain", rule])
    assert result.exit_code == 0, result.output
    for part in (f"# {rule}", "Fix: ", "Bad: ", "Good: ", "See "):
        assert part in result.output


def test_the_readmes_example_of_a_baseline_is_one() -> None:
    lines = re.findall(r"^[a-z-]+ /.* [0-9a-f]{16}$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(parsed("\n".join(lines), "README.md").entries) == len(lines) == 2


def test_the_readme_tells_of_every_metric() -> None:
    metrics = Metrics([rule.info for rule in RULES], Settings(), "0")
    told = set(re.findall(r"`(cio_proxy_[a-z_]+)(?:\{[a-z,]+\})?`", (ROOT / "README.md").read_text()))
    for family in metrics.registry.collect():
        assert family.name in told or f"{family.name}_total" in told, family.name


def test_the_readme_names_the_options_that_need_a_restart_and_no_others() -> None:
    (told,) = re.findall(r"A reload takes all options but these.*?\.\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    restart: dict[str, set[bool]] = {}
    for option in OPTIONS:
        restart.setdefault(option.key.partition(".")[0], set()).add(option.restart)
    named = re.findall(r"`([a-z_]+)`", told)
    assert sorted(named) == sorted(name for name, which in restart.items() if which == {True})
    assert {True, False} not in restart.values(), "what is named needs a restart as a whole"


def test_explain_says_when_the_requests_of_an_example_come_and_what_they_meet() -> None:
    pages = {
        rule: CliRunner().invoke(main, ["explain", rule]).output for rule in ("ignored-bounce", "no-rate-limiting")
    }
    good = pages["ignored-bounce"].partition("Good: ")[2]
    assert re.findall(r"^    (then.*|and nothing.*)$", good, re.MULTILINE) == [
        *("then", "then"),
        "then, 1h after the first",
        "and nothing more until 3d after the first",
    ]
    for line in ("then, 100ms after the first", "# answered: +10ms 429"):
        assert f"    {line}\n" in pages["no-rate-limiting"]


def test_explain_lists_every_rule() -> None:
    result = CliRunner().invoke(main, ["explain"])
    assert [line.split()[0] for line in result.output.splitlines()] == [rule.info.id for rule in RULES]


def test_explain_suggests_the_rule_that_was_meant() -> None:
    result = CliRunner().invoke(main, ["explain", "milisecond-timestamp"])
    assert result.exit_code == 2
    assert result.output == "there is no rule 'milisecond-timestamp': did you mean 'millisecond-timestamp'?\n"


@pytest.mark.parametrize(
    "command",
    [
        *([], ["run"], ["sandbox"], ["explain"], ["baseline"]),
        *(["people"], ["people", "import"], ["people", "status"]),
        *(["plan"], ["plan", "learn"], ["plan", "check"], ["plan", "import"], ["plan", "export"]),
    ],
)
def test_help_fits_a_screen_and_ends_with_examples(command: list[str]) -> None:
    lines = CliRunner().invoke(main, [*command, "--help"]).output.splitlines()
    assert len(lines) <= 40
    assert sum("cio-proxy " in line and not line.startswith("Usage") for line in lines) >= 2
