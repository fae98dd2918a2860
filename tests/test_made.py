"""A named tuple that is made without its constructor (`model.made`) has all its fields all the same."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import cio_proxy
from cio_proxy.audit import Engine, sealed_with
from cio_proxy.config import overlay
from cio_proxy.examples import read
from cio_proxy.model import Settings
from cio_proxy.rules import RULES
from cio_proxy.selftest import played

PACKAGE = Path(cio_proxy.__file__).parent


def uses() -> set[tuple[str, int]]:
    """File and line of every call of `made`."""
    return {
        (str(file), node.lineno)
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "made"
    }


async def test_each_use_gives_as_many_fields_as_its_class_has(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[str, int]] = set()
    wrong: set[tuple[str, int]] = set()

    def counted(kind: Any, fields: Iterable[object]) -> Any:
        caller = sys._getframe(1)
        use = caller.f_code.co_filename, caller.f_lineno
        seen.add(use)
        result = tuple.__new__(kind, fields)
        if len(result) != len(kind._fields):
            wrong.add(use)
        return result

    for name, module in list(sys.modules.items()):
        if name.startswith("cio_proxy.") and hasattr(module, "made"):
            monkeypatch.setattr(module, "made", counted)
    for example in (each for rule in RULES for each in read(rule.examples)):
        settings = overlay(Settings(), dict(example.config), rules=[rule.info for rule in RULES])
        await played(example, Engine(settings, RULES, sealed_with(b"k" * 32)))
    assert wrong == set()
    assert uses() - seen == set()
