"""CONTRIBUTING, followed literally: a rule and its examples, two files and one line of the list."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def block(language: str) -> str:
    """The code block of a language in CONTRIBUTING, without its indentation."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(rf"^   ```{language}\n(.*?)^   ```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return re.sub(r"(?m)^   ", "", found[1])


def test_a_new_rule_is_explained_configurable_counted_and_found(tmp_path: Path) -> None:
    package = tmp_path / "cio_proxy"
    shutil.copytree(ROOT / "cio_proxy", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "rules" / "my_rule.py").write_text(block("python"))
    (package / "rules" / "my_rule.http").write_text(block("http"))
    listed = package / "rules" / "__init__.py"
    text = listed.read_text()
    text = text.replace("    missing_email,\n", "    missing_email,\n    my_rule,\n")
    assert text.count("my_rule") == 2, "one line of the import, one of the list"
    listed.write_text(text)
    code = """
import asyncio
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import load
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.examples import read
from cio_proxy.explain import find, page, table
from cio_proxy.model import Settings
from cio_proxy.rules import RULES
from cio_proxy.sinks.metrics import Metrics
rule = find("my-rule")
print(page(rule))
assert "my-rule" in table()
infos = [each.info for each in RULES]
load(None, {}, {"rules.my-rule.action": "block"}, rules=infos)
assert b'rule="my-rule"' in Metrics(infos, Settings(), "0").exposition()
(sent,) = read(rule.examples)[0].play(1.75e9)
recorded = [(sent.exchange, Recorded(sent.answered_at, sent.status, sent.response))]
findings = asyncio.run(audit_recorded(recorded, Engine(Settings(), RULES, sealed_with(b"k" * 32))))
assert [(f.rule, f.pointer) for f in findings] == [("my-rule", "/name")], findings
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Fix: give it a better name." in done.stdout
