"""Runs the campaigns and writes ``docs/proof.md``: ``python -m proof.report short`` or ``long``."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from proof.campaign import HEADER, Tally, campaign
from proof.model_checker import VARIANTS, check

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof.md"
SIZES = {
    "short": (("kills", "mysql", 60), ("kills", "sqlite", 30), ("zombies", "mysql", 20),
              ("network", "mysql", 500)),
    "long": (("kills", "mysql", 1_000), ("kills", "sqlite", 500), ("zombies", "mysql", 300),
             ("network", "mysql", 10_000)),
}  # fmt: skip


def main() -> int:
    """Run everything; exit code 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m proof.report")
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).timestamp()))
    given = parser.parse_args()
    tallies = []
    with tempfile.TemporaryDirectory() as place:
        for number, (kind, sink, strikes) in enumerate(SIZES[given.size]):
            folder = Path(place) / str(number)
            tallies.append(campaign(kind, sink, given.seed + number, strikes, folder))
            print(tallies[-1].row(), flush=True)
    mutants = subprocess.run(
        [sys.executable, "-m", "proof.mutants"], capture_output=True, text=True, check=False
    )
    print(mutants.stdout)
    PAGE.write_text(page(given.size, tallies, mutants.stdout), encoding="utf-8")
    return int(mutants.returncode != 0 or not all(tally.is_clean for tally in tallies))


def page(size: str, tallies: list[Tally], mutants: str) -> str:
    """The whole page."""
    lines = [
        "# Proof",
        "",
        f"Written by `make prove{'-long' if size == 'long' else ''}` on "
        f"{datetime.now(UTC):%Y-%m-%d} at commit {commit()}, Python {platform.python_version()}, "
        f"DuckDB {version('duckdb')}, PyMySQL {version('pymysql')}, MariaDB as MySQL.",
        "",
        "Every round changes the source and sometimes the model, starts the run in real processes,",
        "strikes at random moments, starts it again until it is through, and compares the table with",
        "the source. A trigger beside the table witnesses every write: a row that one run wrote twice",
        "is counted. Each line is replayed by `python -m proof.campaign KIND --sink SINK --seed SEED`",
        "with `PYTHONPATH=tests:.`",
        "",
        HEADER,
        *(tally.row() for tally in tallies),
        "",
        "## The model",
        "",
        "| variant of the protocol | states | found |",
        "|---|---|---|",
        *model_lines(),
        "",
        "## The testers, tested",
        "",
        "Each line is our own code with one thing broken, and whether its tests notice.",
        "",
        mutants.strip(),
        "",
    ]
    return "\n".join(lines)


def model_lines() -> Iterator[str]:
    """One line for each variant of the model."""
    for variant in VARIANTS:
        verdict = check(variant)
        yield f"| {variant.name} | {verdict.states:,} | {verdict.violation or 'nothing wrong'} |"


def commit() -> str:
    """The commit that was tested."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
