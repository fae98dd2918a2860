"""How a rule file is taken apart, and the list of them."""

from pathlib import Path
from types import ModuleType

import pytest

from cio_proxy.rules import MODULES, RULES, rule_of

FOLDER = Path(__file__).parents[2] / "cio_proxy" / "rules"
PARTS = {
    "title": "A title\n    over two lines.",
    "prose": "What happens.\n\n    And what else.",
    "fix": "Fix: do\n    this.",
    "see": "See https://one\n    and nothing else\n    See https://two",
}


def rule_file(**functions: object) -> ModuleType:
    module = ModuleType("cio_proxy.rules.a_rule", "\n\n    ".join(PARTS.values()))
    module.__dict__.update(functions, RULE=RULES[0].info, __file__="/somewhere/a_rule.py")
    return module


def test_the_docstring_has_four_parts() -> None:
    rule = rule_of(rule_file())
    assert rule.info is RULES[0].info
    assert rule.title == "A title over two lines"
    assert rule.prose == "What happens.\n\nAnd what else."
    assert rule.fix == "do this."
    assert rule.see == ("https://one", "https://two")
    assert rule.examples == Path("/somewhere/a_rule.http")


@pytest.mark.parametrize("missing", ["prose", "fix", "see"])
def test_a_docstring_without_one_of_its_parts_is_refused(missing: str) -> None:
    module = rule_file()
    module.__doc__ = "\n\n".join(text for part, text in PARTS.items() if part != missing)
    with pytest.raises(ValueError, match=r"^cio_proxy\.rules\.a_rule: the docstring needs a title, prose"):
        rule_of(module)


@pytest.mark.parametrize(
    "function", ["applies", "concerns", "check", "needs", "learn", "review", "due", "limit", "excess"]
)
def test_functions_that_a_rule_does_not_have_are_none(function: str) -> None:
    assert getattr(rule_of(rule_file()), function) is None
    assert getattr(rule_of(rule_file(**{function: print})), function) is print


def test_a_rule_without_any_docstring_is_refused() -> None:
    module = rule_file()
    module.__doc__ = None
    with pytest.raises(ValueError, match=r"^cio_proxy\.rules\.a_rule: the docstring needs a title, prose"):
        rule_of(module)


def test_a_fix_may_begin_right_after_its_colon_and_a_title_may_end_in_a_letter() -> None:
    module = rule_file()
    module.__doc__ = str(module.__doc__).replace("Fix: do", "Fix:do").replace("two lines.", "two LinesX")
    assert rule_of(module).fix == "do this."
    assert rule_of(module).title == "A title over two LinesX"


def test_every_rule_file_is_listed_once_under_its_own_name() -> None:
    names = [module.__name__.rpartition(".")[2] for module in MODULES]
    assert sorted(names) == sorted(file.stem for file in FOLDER.glob("[!_]*.py"))
    assert [rule.info.id for rule in RULES] == [name.replace("_", "-") for name in names]
