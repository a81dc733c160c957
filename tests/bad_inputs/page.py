"""Collects the marks of all tests and writes the page about them. Run with ``make bad-inputs``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bad_inputs import Outcome
from bad_inputs.catalogue import CHAPTERS, LATER

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bad-inputs.md"
HEAD = """# Bad inputs and their outcomes

Made from the tests by `make bad-inputs`; a test fails where it is out of date. The words are those that a test waits for. A
wrong input is refused with what, where and what to do next; a wrong row is set aside with its key and a reason, and the run
goes on up to the job's limit.
"""
TAIL = "## Not yet: copying tables from MySQL to the warehouse\n\nTheir chapter is not built.\n"
_WORDS = ("reason", "message")


@dataclass(frozen=True, slots=True)
class Witness:
    """One test of one bad input."""

    outcome: Outcome
    says: str
    file: Path


class Collector:
    """A pytest plugin that reads the marks of what was collected."""

    def __init__(self) -> None:
        self.witnesses: defaultdict[int, list[Witness]] = defaultdict(list)
        self.faults: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        for item in items:
            for mark in item.iter_markers("bad_input"):
                self._note(item, mark)

    def _note(self, item: pytest.Function, mark: pytest.Mark) -> None:
        says = mark.kwargs["says"] or _expected(item)
        if says and says not in _texts(item):
            self.faults.append(f"{item.nodeid}: no such words in the test: {says!r}")
        for number in mark.args or _numbers_of_id(item):
            witness = Witness(mark.kwargs["outcome"], says, item.path.relative_to(ROOT))
            self.witnesses[number].append(witness)


def _parameters(item: pytest.Function) -> dict[str, object]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _expected(item: pytest.Function) -> str:
    given = _parameters(item)
    return next((_plain(str(given[name])) for name in _WORDS if name in given), "")


def _plain(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern)


def _texts(item: pytest.Function) -> str:
    """All texts in the test's body and parameters, without those of its decorators."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item.function))).body[0]
    nodes = [node for statement in tree.body for node in ast.walk(statement)]
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    given = [v for v in _parameters(item).values() if isinstance(v, str)]
    return "\n".join(_plain(text) for text in [*texts, *given])


def _numbers_of_id(item: pytest.Function) -> Iterator[int]:
    found = re.search(r"[\[-](\d+)-", item.nodeid[item.nodeid.find("[") :])
    if found is not None:
        yield int(found[1])


def collect() -> Collector:
    """Read all tests without running any."""
    collector = Collector()
    quiet = ["--collect-only", "-q", "-q", "--no-summary", "-p", "no:cacheprovider"]
    code = pytest.main([*quiet, "--rootdir", str(ROOT), str(ROOT / "tests")], plugins=[collector])
    if code != pytest.ExitCode.OK:
        collector.faults.append(f"the tests could not be collected (exit {code})")
    return collector


def faults(collector: Collector) -> list[str]:
    """What keeps the page from being complete."""
    known = {number for chapter in CHAPTERS.values() for number in chapter}
    lacking = [f"no test is about number {n}" for n in sorted(known - set(collector.witnesses))]
    unknown = [f"there is no number {n}" for n in sorted(set(collector.witnesses) - known)]
    return [*collector.faults, *lacking, *unknown]


def render(collector: Collector) -> str:
    """The page."""
    lines = [HEAD]
    for chapter, numbers in CHAPTERS.items():
        lines += [f"## {chapter}\n", "| no. | input | outcome | it says | tests |"]
        lines.append("|---|---|---|---|---|")
        for number, given in numbers.items():
            lines += _rows(number, given, collector.witnesses[number])
        lines.append("")
    later = [f"| {number} | {given} |" for number, given in LATER.items()]
    return "\n".join([*lines, TAIL, "| no. | input |", "|---|---|", *later]) + "\n"


def _rows(number: int, given: str, witnesses: list[Witness]) -> Iterator[str]:
    """One line for each outcome, in the order in which `Outcome` has them."""
    for outcome in Outcome:
        of_it = [w for w in witnesses if w.outcome is outcome]
        if not of_it:
            continue
        says = ", ".join(dict.fromkeys(f"“{w.says}”" for w in of_it if w.says)).replace("|", r"\|")
        files = sorted({w.file for w in of_it}, key=lambda file: file.name)
        tests = ", ".join(f"[{file.stem}](../{file.as_posix()})" for file in files)
        yield f"| {number} | {given} | {outcome} | {says} | {tests} |"


def main() -> int:
    """Write the page, or with ``--check`` say whether it is what the tests make it."""
    collector = collect()
    wrong = faults(collector)
    text = render(collector)
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        wrong.append(f"{PAGE.relative_to(ROOT)} is out of date: run `make bad-inputs`")
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
