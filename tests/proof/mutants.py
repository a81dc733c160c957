"""Our own code with one thing broken, and whether its tests notice: ``python -m proof.mutants``.

Each mutant is a change of text in a copy of the project. The named tests pass on the copy as it is,
and must fail on the mutant; one that survives, or whose text is no longer there, makes the program
fail. ``python -m proof.mutants swapping "the watermark"`` tries those whose name, file or tests have
one of these words in them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from mlbatch.devstack.mariadb import private_mariadb
from proof.mutations import MUTANTS, Mutant

COPIES = 2
"""Mutants that are tried at once."""
ROOT = Path(__file__).parents[2]
COPIED = ("mlbatch", "tests", "jobs", "feature_store", "sample", "pyproject.toml", "mlbatch.toml")


def main() -> int:
    """Try the mutants that are asked for, all by default, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m proof.mutants")
    parser.add_argument(
        "words", nargs="*", help="of a name, a file or a test; default: all mutants"
    )
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="in this random order")
    given = parser.parse_args()
    mutants = chosen(given.words, given.shuffle)
    with tempfile.TemporaryDirectory() as place, server(Path(place)):
        outcomes = try_all(mutants, Path(place).resolve())
    print(f"\n{outcomes.count('caught')} of {len(mutants)} mutants are caught.")
    return int(not mutants or outcomes.count("caught") != len(mutants))


def chosen(words: Sequence[str], seed: int | None = None) -> list[Mutant]:
    """Mutants with one of ``words`` in their name, file or tests; all of them without words."""
    found = [
        mutant
        for mutant in MUTANTS
        if not words or any(w in f"{mutant.name}\n{mutant.file}\n{mutant.tests}" for w in words)
    ]
    if seed is not None:
        random.Random(seed).shuffle(found)
    return found


@contextmanager
def server(place: Path) -> Iterator[None]:
    """One MariaDB for all test processes, each of which would wait for its own otherwise."""
    if "MLBATCH_TEST_MYSQL" in os.environ:
        yield
        return
    with private_mariadb(place / "mysql") as running:
        told = (running.host, str(running.port), running.admin, running.admin_password)
        os.environ["MLBATCH_TEST_MYSQL"] = ":".join(told)
        try:
            yield
        finally:
            del os.environ["MLBATCH_TEST_MYSQL"]


def try_all(mutants: list[Mutant], place: Path) -> list[str]:
    """The mutants' outcomes, printed as they come."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(COPIES):
        copies.put(copy_project(place / str(number)))
    check_copy(place / "0", mutants)
    print("| broken | noticed by | outcome |")
    print("|---|---|---|")
    outcomes = []
    with ThreadPoolExecutor(COPIES) as pool:
        for mutant, outcome in zip(mutants, pool.map(partial(tried, copies), mutants), strict=True):
            outcomes.append(outcome)
            tests = mutant.tests.replace("tests/", "")
            print(f"| {mutant.name} | `{tests}` | {outcome} |", flush=True)
    return outcomes


def copy_project(copy: Path) -> Path:
    """Copy everything that the tests need."""
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    return copy


def check_copy(copy: Path, mutants: list[Mutant]) -> None:
    """The copy is what is imported, and its tests pass: else a failure would prove nothing."""
    imported = "import mlbatch, toy; print(mlbatch.__file__, toy.__file__)"
    told = python(copy, "-c", imported).stdout.split()
    if len(told) != 2 or not all(Path(file).is_relative_to(copy) for file in told):
        sys.exit(f"not the copy in {copy} is imported, but {told}")
    wanted = sorted({test for mutant in mutants for test in mutant.tests.split()})
    done = pytest(copy, wanted, seconds=1_800)
    if done.returncode or "skipped" in done.stdout:
        sys.exit(f"the tests must all run and pass without a mutant:\n{done.stdout[-3000:]}")


def tried(copies: SimpleQueue[Path], mutant: Mutant) -> str:
    """Take a copy that is whole, break it, run the tests, mend it."""
    copy = copies.get()
    try:
        return tried_in(copy, mutant)
    finally:
        copies.put(copy)


def tried_in(copy: Path, mutant: Mutant) -> str:
    """The outcome of ``mutant``, or what is wrong with its entry."""
    file = copy / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"its text occurs {text.count(mutant.old)} times"
    broken = text.replace(mutant.old, mutant.new)
    compile(broken, mutant.file, "exec")
    file.write_text(broken, encoding="utf-8")
    try:
        done = pytest(copy, mutant.tests.split())
    finally:
        file.write_text(text, encoding="utf-8")
    # 1: tests failed. Anything else is no verdict of theirs.
    return {0: "SURVIVED", 1: "caught"}.get(done.returncode, f"pytest ended with {done.returncode}")


def pytest(copy: Path, tests: list[str], *, seconds: int = 900) -> subprocess.CompletedProcess[str]:
    """Run ``tests`` of the copy up to the first failure."""
    # A test that hangs has noticed something, too.
    options = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=120")
    return python(copy, *options, *tests, seconds=seconds)


def python(copy: Path, *arguments: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in the copy, whose modules come before any that are installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": f"{copy}:{copy / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
