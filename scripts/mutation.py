"""Changes the rules, and what they read texts with, in many small ways, and asks their tests to notice each of them.

A rule has the cases of its `.http` file, played to that rule alone and compared word for word with what it told
before, and `tests/rules/test_<rule>.py` where there is one; `recognise.py` has `tests/test_recognise.py`, and the
other modules of texts alike. Tests that draw their input by chance are left out: they would make the score one of
chance.

The mutations are mutmut's; three more take an entry out of a table, a word out of a list of words and a choice out of
a pattern. Prose (a text in a function that has a space in it) is not mutated: it is pinned by `tests/rules/told/`.

mutmut's own runner starts pytest anew for each mutant. Here pytest collects once, and each mutant lives in a fork of
it: the mutated module is compiled, and its code and constants take the place of the live ones.

A mutant that no test can notice, since nothing changes for anybody, is listed in `tests/mutants.txt` with the
reason. Any other survivor fails the run; a listed one that is noticed by now is told of.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import os
import re
import resource
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT: Final = Path(__file__).parents[1]
TEXTS: Final = ("recognise.py", "mail.py", "bounces.py", "heartbeats.py")
"""What rules read texts with."""
LISTED: Final = ROOT / "tests" / "mutants.txt"
SECONDS: Final = 10
"""How many seconds of processor time the tests may take of a mutant, which counts as noticed then."""
WAITING: Final = 10 * SECONDS
"""How many seconds of any kind: for a mutant that waits for something that never comes."""
SLOW: Final = 1.0
"""Tests that take more seconds of processor time, being about very much input, are left out, and named.

Processor time, since what else the machine does must not decide which tests there are.
"""
MEMORY: Final = 4 * 1024**3


# --- mutants -----------------------------------------------------------------------------------


class Mutant(NamedTuple):
    """One small change of a file."""

    line: int
    before: str
    after: str
    """What the changed lines were and are, without indentation and line breaks."""
    code: str
    """The whole text of the changed file."""

    @property
    def change(self) -> tuple[str, str]:
        """What tells it from other mutants of its file, wherever in it the line is."""
        return self.before, self.after


def without_one(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """A table with one entry less."""
    if isinstance(node, cst.Set | cst.List | cst.Tuple | cst.Dict) and len(node.elements) > 1:
        for at in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:at], *node.elements[at + 1 :]])


def without_word(node: cst.Call) -> Iterator[cst.BaseExpression]:
    """A list of words that is written as one text, as in `"a b".split()`, with one of them less."""
    if not (isinstance(node.func, cst.Attribute) and node.func.attr.value in ("split", "findall")):
        return
    for text in below(node):
        if isinstance(text, cst.SimpleString) and text.raw_value.count(" ") > 1:
            for word in re.finditer(r"\S+", text.raw_value):
                shorter = text.raw_value[: word.start()] + text.raw_value[word.end() :]
                yield cst.ensure_type(
                    deep_replace(node, text, text.with_changes(value=f'{text.prefix}"{shorter}"')), cst.Call
                )


def without_choice(node: cst.SimpleString) -> Iterator[cst.SimpleString]:
    """A pattern with one of its choices less."""
    if "r" in node.prefix and node.quote == '"':
        for start, end in choices(node.raw_value):
            yield node.with_changes(value=f'{node.prefix}"{node.raw_value[:start]}{node.raw_value[end:]}"')


def choices(pattern: str) -> Iterator[tuple[int, int]]:
    """Where in a regular expression a choice stands, with one of the bars beside it."""
    bars: list[list[int]] = [[-1]]
    in_set = False
    at = 0
    ends: list[list[int]] = []
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            at += 1
        elif in_set:
            in_set = sign != "]"
        elif sign == "[":
            in_set = True
            at += pattern[at + 1 : at + 2] == "^"
        elif sign == "(":
            opening = re.findall(r"\((?:\?(?:[:=!>]|<[=!]|P<\w+>))?", pattern[at:])[0]
            at += len(opening) - 1
            bars.append([at])
        elif sign == ")" and len(bars) > 1:
            ends.append([*bars.pop(), at])
        elif sign == "|":
            bars[-1].append(at)
        at += 1
    ends.append([*bars.pop(), len(pattern)])
    for edges in ends:
        for number, (left, right) in enumerate(pairwise(edges)):
            if len(edges) > 2:
                yield (left, right) if number else (left + 1, right + 1)


OPERATORS: Final = [
    *mutation_operators,
    *((table, without_one) for table in (cst.Set, cst.List, cst.Tuple, cst.Dict)),
    (cst.Call, without_word),
    (cst.SimpleString, without_choice),
]


class Visitor(MutationVisitor):
    """mutmut's own leaves decorated functions out; a function that remembers its answers is one like any other."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        decorated = isinstance(node, cst.FunctionDef) and bool(node.decorators)
        return not decorated and super()._skip_node_and_children(node)


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    text = file.read_text()
    wrapper = MetadataWrapper(cst.parse_module(text))
    module = wrapper.module
    lines = text.splitlines()
    positions = wrapper.resolve(PositionProvider)
    visitor = Visitor(OPERATORS, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    holders = {id(node): statement for statement in module.body for node in below(statement)}
    pieces = [module.code_for_node(statement) for statement in module.body]
    head = text[: text.index("".join(pieces))]
    for mutation in visitor.mutations:
        statement = holders.get(id(mutation.original_node))
        if statement is None or is_of_no_effect(statement) or is_prose(mutation.original_node, statement):
            continue
        if is_same_number(mutation.original_node, mutation.mutated_node):
            continue
        changed = deep_replace(statement, mutation.original_node, mutation.mutated_node)
        at = next(n for n, each in enumerate(module.body) if each is statement)
        code = head + "".join([*pieces[:at], module.code_for_node(changed), *pieces[at + 1 :]])  # type: ignore[arg-type]
        new = code.splitlines()
        first = next((n for n, (one, other) in enumerate(zip(lines, new, strict=False)) if one != other), None)
        if first is None:
            continue
        back = next(n for n, (a, b) in enumerate(zip(reversed(lines), reversed(new), strict=False)) if a != b)
        back = min(back, len(lines) - first - 1, len(new) - first - 1)
        before, after = (" ".join(map(str.strip, each[first : len(each) - back])) for each in (lines, new))
        yield Mutant(positions[mutation.original_node].start.line, before, after, code)


def below(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A node and all within it."""
    yield node
    for child in node.children:
        yield from below(child)


def is_of_no_effect(statement: cst.CSTNode) -> bool:
    """Imports, docstrings and types, which are nothing at run time."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return False
    (small,) = statement.body[:1]
    if isinstance(small, cst.Assign) and isinstance(small.value, cst.Subscript):
        return True
    return isinstance(small, cst.Import | cst.ImportFrom | cst.TypeAlias | cst.Expr)


def is_same_number(one: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether one was added to a number so large that it stays the same."""
    return isinstance(one, cst.Float) and isinstance(other, cst.Float) and one.evaluated_value == other.evaluated_value


def is_prose(node: cst.CSTNode, statement: cst.CSTNode) -> bool:
    """A text for people, or the name of a codec, which may be written in any case."""
    if not isinstance(node, cst.SimpleString):
        return False
    return node.raw_value in ("utf-8", "latin-1") or (isinstance(statement, cst.FunctionDef) and " " in node.raw_value)


# --- a mutant in place of the module -----------------------------------------------------------


def put_in_place(live: ModuleType, code: str) -> None:
    """Give a module, and whoever imported from it, the code and the constants of its changed text."""
    new = ModuleType(live.__name__)
    new.__file__ = live.__file__
    exec(compile(code, str(live.__file__), "exec"), new.__dict__)  # noqa: S102 (our own module, changed by us)
    importers = [m for name, m in list(sys.modules.items()) if name.startswith(("cio_proxy", "tests")) and m]
    for name, value in list(vars(new).items()):
        old = getattr(live, name, None)
        if isinstance(value, FunctionType) and isinstance(old, FunctionType):
            take_code(old, value)
        elif isinstance(value, type) and isinstance(old, type) and value.__module__ == live.__name__:
            for method, held in vars(value).items():
                if isinstance(theirs := getattr(held, "__func__", held), FunctionType):
                    mine = vars(old)[method]
                    take_code(getattr(mine, "__func__", mine), theirs)
        elif not name.startswith("__") and not isinstance(value, ModuleType) and differs(value, old):
            for importer in importers:
                if getattr(importer, name, None) is old:
                    setattr(importer, name, value)
            if name == "RULE":
                renew_rule(old, value)


def take_code(old: FunctionType, new: FunctionType) -> None:
    """Whoever holds the old function then calls what the new one does."""
    if old.__module__ == new.__module__:
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def differs(value: object, old: object) -> bool:
    """Whether a constant is another; patterns are compared by what is written in them."""
    if isinstance(value, re.Pattern) and isinstance(old, re.Pattern):
        return (value.pattern, value.flags) != (old.pattern, old.flags)
    return value is not old and value != old


def renew_rule(old: Any, new: Any) -> None:
    """The list of rules was made from the old information."""
    from cio_proxy.rules import RULES

    for rule in RULES:
        if rule.info is old:
            object.__setattr__(rule, "info", new)


# --- running the tests -------------------------------------------------------------------------


@dataclass
class Tally:
    """How the mutants of one file fared."""

    file: str
    noticed: int
    listed: int
    survivors: list[Mutant]
    seconds: float

    @property
    def score(self) -> float:
        """Percent noticed of those that could be."""
        return 100 * self.noticed / max(1, self.noticed + len(self.survivors))


class Mutation:
    """A pytest plugin that runs the tests of each file once for each of its mutants."""

    def __init__(
        self, files: Sequence[Path], lines: range | None, jobs: int, known: dict[str, dict[tuple[str, str], str]]
    ) -> None:
        self.files = files
        self.lines = lines
        self.jobs = jobs
        self.known = known
        self.tallies: list[Tally] = []
        self.gone: list[tuple[str, tuple[str, str]]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of one run of all tests, one of some of them for each mutant."""
        if session.testsfailed:
            sys.exit("the tests cannot be collected")
        gc.freeze()
        for file in self.files:
            items = [
                item
                for item in session.items
                if isinstance(item, pytest.Function) and belongs(item, file) and not is_by_chance(item)
            ]
            if items:
                self.tallies.append(self.judged(file, items))
                show(self.tallies[-1])
            else:
                sys.exit(f"no tests for {file}")
        return True

    def judged(self, file: Path, items: list[pytest.Function]) -> Tally:
        """All mutants of one file."""
        started = time.monotonic()
        name = file.relative_to(ROOT).as_posix()
        live = sys.modules[name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")]
        text = file.read_text()
        took = {item: self.seconds_of(live, text, item) for item in items}
        if slow := [item.name for item in items if took[item] > SLOW]:
            print(f"{name}: {len(slow)} of {len(items)} tests are left out as slow: {', '.join(slow)}", flush=True)
        items = sorted((item for item in items if took[item] <= SLOW), key=lambda item: took[item])
        if failed := self.outcome_of(live, text, items):
            sys.exit(f"{failed} fails without a mutant ({name})")
        tally = Tally(name, 0, 0, [], 0.0)
        listed = dict(self.known.get(name, {}))
        mutants = [m for m in mutants_of(file) if self.lines is None or m.line in self.lines]
        for mutant, failed in self.outcomes(live, mutants, items):
            if failed:
                tally.noticed += 1
            elif mutant.change in listed:
                tally.listed += 1
                listed[mutant.change] = ""
            else:
                tally.survivors.append(mutant)
        if self.lines is None:
            self.gone += [(name, change) for change, reason in listed.items() if reason]
        tally.survivors.sort(key=lambda mutant: mutant.line)
        tally.seconds = time.monotonic() - started
        return tally

    def seconds_of(self, live: ModuleType, text: str, item: pytest.Function) -> float:
        """How much processor time a test takes."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.outcome_of(live, text, [item])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def outcome_of(self, live: ModuleType, code: str, items: list[pytest.Function]) -> str:
        """The test that fails with this text of the module, or nothing."""
        ((_, failed),) = self.outcomes(live, [Mutant(0, "", "", code)], items)
        return failed

    def outcomes(
        self, live: ModuleType, mutants: Iterable[Mutant], items: list[pytest.Function]
    ) -> Iterator[tuple[Mutant, str]]:
        """Each mutant with the test that notices it, or with nothing. Those that noticed last go first."""
        waiting, running = iter(mutants), selectors.DefaultSelector()
        order = {item.nodeid: at for at, item in enumerate(items)}
        while True:
            while len(running.get_map()) < self.jobs and (mutant := next(waiting, None)) is not None:
                items = sorted(items, key=lambda item: order[item.nodeid])
                reading, pid = self.forked(live, mutant, items)
                running.register(reading, selectors.EVENT_READ, (mutant, pid, time.monotonic() + WAITING))
            if not running.get_map():
                return
            ready = [key for key, _ in running.select(timeout=0.5)]
            for key in list(running.get_map().values()):
                mutant, pid, until = key.data
                if key not in ready and time.monotonic() < until:
                    continue
                running.unregister(key.fileobj)
                if key not in ready:
                    os.kill(pid, signal.SIGKILL)
                failed = os.read(key.fd, 4096).decode() if key in ready else "time"
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                order[failed] = min(order.values()) - 1
                yield mutant, failed if os.waitstatus_to_exitcode(status) == 0 else failed or "crash"

    def forked(self, live: ModuleType, mutant: Mutant, items: list[pytest.Function]) -> tuple[int, int]:
        """A process that tests one mutant, and where to read what noticed it."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return reading, pid
        try:
            gc.disable()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.close(reading)
            try:
                put_in_place(live, mutant.code)
            except Exception:  # a module that cannot be loaded is noticed by every test
                os.write(writing, b"import")
                os._exit(0)
            failed = next((item.nodeid for item in items if fails(item)), "")
            os.write(writing, failed.encode()[:4096])
            os._exit(0)
        finally:
            os._exit(1)


def belongs(item: pytest.Function, file: Path) -> bool:
    """Whether a test is one of a file's own."""
    if file.name == "__init__.py":
        return item.path.name == "test_rule_files.py"
    if file.parent.name != "rules":
        return item.path.name == f"test_{file.stem}.py"
    rule = getattr(item, "callspec", None) and item.callspec.params.get("rule")  # type: ignore[attr-defined]
    alone = item.path.name == "test_told.py" and rule.info.id == file.stem.replace("_", "-")
    return alone or item.path.name == f"test_{file.stem}.py"


def fails(item: pytest.Function) -> bool:
    """Call a test without pytest's rounds about it, which take longer than the test."""
    arguments = item.callspec.params if hasattr(item, "callspec") else {}
    try:
        result = item.obj(**arguments)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except BaseException:  # whatever it is, it was noticed
        return True
    return False


def is_by_chance(item: pytest.Function) -> bool:
    """Whether its input is drawn by Hypothesis."""
    return hasattr(getattr(item, "obj", None), "hypothesis")


# --- what is listed, and what is said ----------------------------------------------------------


def read_listed() -> dict[str, dict[tuple[str, str], str]]:
    """The listed mutants of each file, each with its reason.

    `# file`, then blocks of one or more pairs of lines, `- before` and `+ after`, with the reason below them.
    """
    listed: dict[str, dict[tuple[str, str], str]] = {}
    if not LISTED.exists():
        return listed
    of_file: dict[tuple[str, str], str] = {}
    for block in re.split(r"\n\s*\n", LISTED.read_text().strip()):
        lines = block.splitlines()
        if lines[0].startswith("# "):
            of_file = listed.setdefault(lines.pop(0)[2:], {})
        changes = list(takewhile(lambda pair: pair[0].startswith("- "), zip(lines[::2], lines[1::2], strict=False)))
        reason = " ".join(lines[2 * len(changes) :])
        if not (changes and reason and all(after.startswith("+") for _, after in changes)):
            sys.exit(f"{LISTED.name}: not `- before`, `+ after` and a reason:\n{block}")
        of_file.update({(before[2:], after[1:].strip()): reason for before, after in changes})
    return listed


def show(tally: Tally) -> None:
    """One line for a file, and the survivors below it."""
    print(
        f"{tally.score:6.1f} %  {tally.file}: {tally.noticed} noticed, {len(tally.survivors)} survive,"
        f" {tally.listed} listed, {tally.seconds:.0f} s",
        flush=True,
    )
    for mutant in tally.survivors:
        print(f"    line {mutant.line}\n- {mutant.before}\n+ {mutant.after}", flush=True)


def main() -> None:
    """Run, and say what survives."""
    parser = argparse.ArgumentParser(description=f"Mutation tests of the rules, {', '.join(TEXTS)}.")
    parser.add_argument("files", nargs="*", type=Path, help="only these files")
    parser.add_argument("--lines", type=int, nargs=2, metavar=("FROM", "TO"), help="only mutants of these lines")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    every = [*sorted((ROOT / "cio_proxy" / "rules").glob("*.py")), *(ROOT / "cio_proxy" / name for name in TEXTS)]
    files = [file.resolve() for file in asked.files] or every
    lines = range(asked.lines[0], asked.lines[1] + 1) if asked.lines else None
    os.environ["TZ"] = "Asia/Kolkata"  # so that a time without its zone is another
    time.tzset()
    started = time.monotonic()
    plugin = Mutation(files, lines, asked.jobs, read_listed())
    options = ["--override-ini=addopts=", "--import-mode=importlib", "-p", "no:terminal", "-p", "no:cacheprovider"]
    options += ["-p", "no:xdist", "-p", "no:randomly", "-W", "ignore"]
    tests = [str(ROOT / "tests" / name) for name in ("rules", *(f"test_{name}" for name in TEXTS))]
    code = pytest.main([*options, *tests], plugins=[plugin])
    noticed = sum(tally.noticed for tally in plugin.tallies)
    survivors = sum(len(tally.survivors) for tally in plugin.tallies)
    score, seconds = 100 * noticed / max(1, noticed + survivors), time.monotonic() - started
    print(f"{score:6.1f} %  of {noticed + survivors} mutants, {seconds:.0f} s")
    for name, (before, after) in plugin.gone:
        print(f"{LISTED.name}: take out what does not survive any more, of {name}\n- {before}\n+ {after}")
    sys.exit(code != 0 or survivors > 0)


if __name__ == "__main__":
    main()
