"""Runs campaigns and writes ``docs/proof.md``: ``python -m proof.report short``, ``long`` or ``pairs``.

What each size found last stays on the page, with its date and commit, until it runs again: it is
kept in ``docs/proof.json``, line by line as campaigns end, so that one that is cut off is not lost.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proof.campaign import HEADER, Tally, campaign, last_words
from proof.model_checker import VARIANTS, check

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs" / "proof.md", ROOT / "docs" / "proof.json"
ALL = 1_000
"""Of failpoints and pairs there are fewer, and all of them are struck."""
SIZES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "short": (("kills", "mysql", 60), ("kills", "sqlite", 30), ("zombies", "mysql", 20),
              ("network", "mysql", 500), ("storage", "mysql", 20), ("warehouse", "mysql", 20),
              ("failpoints", "sqlite", ALL), ("failpoints", "mysql", ALL), ("workers", "mysql", 40),
              ("pairs", "mysql", 40)),
    "long": (("kills", "mysql", 1_000), ("kills", "sqlite", 500), ("failpoints", "mysql", ALL),
             ("failpoints", "sqlite", ALL), ("failpoints", "mysql", ALL), ("storage", "mysql", 300),
             ("warehouse", "mysql", 200), ("zombies", "mysql", 300), ("network", "mysql", 10_000),
             ("workers", "mysql", 300)),
    "pairs": (("pairs", "mysql", ALL), ("pairs", "sqlite", ALL)),
}  # fmt: skip
COMMANDS = {"short": "make prove", "long": "make prove-long", "pairs": "make prove-pairs"}
HEAD = """# Proof

Written by `make prove` (minutes), `make prove-long` (hours) and `make prove-pairs`, from what they found; nothing here is typed.

Every round changes the source and sometimes the model, starts the run in real processes, strikes at random moments, starts
it again until it is through, and compares the table with the source. A trigger beside the table witnesses every write: a
row that one run wrote twice is counted. `kills` end the run and its workers; `zombies` stop it, let another take over, and
wake it; `network` loses commits to MySQL and their replies; `storage` and `warehouse` reset, cut, delay or swallow the
connections to S3 and to Redshift's wire, which are local servers; `failpoints` kill at every named place, at its first, middle
and last hit; `pairs` kill at one place, and what resumes at another; `workers` end, stop or send away single processes of
a run that goes on, under the engine of real runs, and no row may be blamed for it. Three workers to a run, batches of ten rows;
odd seeds write by `LOAD DATA LOCAL`, even ones by `INSERT`. `again` repeats a line, with `PYTHONPATH=tests:.`; `code` is the
commit on which it ran last: a line stands until its campaign runs anew, so those of other commits say nothing about this one.

What the campaigns found in our own code: a sleeper that woke after its last batch read the run's row anew and took the
epoch of whoever had taken the run over for its own. Nothing was lost by it, but the fence was passed for the run's last steps.
It is mended, has a test of its own, and is one of the mutants.
"""


def main() -> int:
    """Run everything of a size; exit code 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m proof.report")
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).timestamp()))
    parser.add_argument("--only", help="one kind of campaign; the other lines stay as they were")
    parser.add_argument(
        "--sink", choices=["mysql", "sqlite"], help="only the lines of one database"
    )
    given = parser.parse_args()
    print(f"commit {commit()}, seed {given.seed}", flush=True)
    verdicts = [_ran(given.size, tally) for tally in _tallies(given)]
    is_clean = all(verdicts)
    if given.size == "pairs" or given.only or given.sink:
        return int(not is_clean)
    mutants = subprocess.run(
        [sys.executable, "-m", "proof.mutants"], capture_output=True, text=True, check=False
    )
    print(mutants.stdout)
    _keep("mutants", {"all": {"told": mutants.stdout.strip(), **_when()}})
    return int(mutants.returncode != 0 or not is_clean)


def _tallies(given: argparse.Namespace) -> Iterator[tuple[int, Tally]]:
    for number, (kind, sink, strikes) in enumerate(SIZES[given.size]):
        if given.only not in (None, kind) or given.sink not in (None, sink):
            continue
        with tempfile.TemporaryDirectory() as place:
            tally = campaign(kind, sink, given.seed + number, strikes, Path(place))
            print(last_words(tally, Path(place)), end="", flush=True)
            yield number, tally


def _ran(size: str, done: tuple[int, Tally]) -> bool:
    number, tally = done
    print(tally.row(), flush=True)
    line = {"row": tally.row(), "struck": dict(tally.struck), "clean": tally.is_clean, **_when()}
    _keep(size, {f"{number} {tally.kind} {tally.sink}": line})
    return tally.is_clean


def _when() -> dict[str, str]:
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "with": versions()}


def _keep(section: str, lines: dict[str, Any]) -> None:
    """Put ``lines`` in the place of those that they repeat, and write the page anew."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known.setdefault(section, {}).update(lines)
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(known), encoding="utf-8")


def page(known: dict[str, Any]) -> str:
    """The whole page."""
    lines = [HEAD]
    for size, command in COMMANDS.items():
        if size in known:
            lines += [f"## `{command}`", "", *_section(list(known[size].values())), ""]
    lines += [*bound(known), "## The model", ""]
    lines += ["| variant of the protocol | states | found |", "|---|---|---|", *model_lines(), ""]
    for mutants in known.get("mutants", {}).values():
        lines += ["## The testers, tested", ""]
        lines += [
            "Each line is our own code with one thing broken, and whether its tests notice.",
            "",
        ]
        lines += [f"On {mutants['date']} at commit {mutants['commit']}.", "", mutants["told"], ""]
    return "\n".join(lines)


def _section(lines: list[dict[str, Any]]) -> Iterator[str]:
    yield "; ".join(sorted({x["with"] for x in lines}))
    yield ""
    title, rule = HEADER.splitlines()
    yield from (f"{title} code |", f"{rule}---|")
    for line in lines:
        yield f"{line['row']} {line['commit']}, {line['date']} |"


def bound(known: dict[str, Any]) -> list[str]:
    """What so many kills without a fault say, at 95 %."""
    found = known.get("long", {}).values()
    kills = [x["struck"].get("kill -9", 0) for x in found if "| mysql" in x["row"] and x["clean"]]
    if not sum(kills):
        return []
    share = 300 / sum(kills)
    told = f"no fault in {sum(kills):,} kills bounds their rate below {share:.2f} % of kills"
    return [f"By the rule of three, {told} on MySQL, at 95 %.", ""]


def model_lines() -> Iterator[str]:
    """One line for each variant of the model."""
    for variant in VARIANTS:
        verdict = check(variant)
        yield f"| {variant.name} | {verdict.states:,} | {verdict.violation or 'nothing wrong'} |"


def versions() -> str:
    """What it ran on."""
    drivers = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "pymysql"))
    return f"Python {platform.python_version()}, {drivers}, MariaDB as MySQL"


@functools.cache
def commit() -> str:
    """The commit that was tested: asked before the page itself is changed."""
    found = _git("rev-parse", "--short", "HEAD") or "unknown"
    return found + ("-changed" if _git("status", "--porcelain", "mlbatch", "tests") else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
