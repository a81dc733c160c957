"""Our own code with one thing broken, and whether its tests notice: ``python -m proof.mutants``.

Each mutant is a change of text in a copy of the project. The named tests must fail on it; a mutant
that survives, or whose text is no longer there, makes the program fail.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("mlbatch", "tests", "jobs", "feature_store", "sample", "pyproject.toml", "mlbatch.toml")
SINK = "tests/seams/test_sink.py"
MYSQL = "tests/seams/test_mysql.py"
RESUME = "tests/flows/test_resume.py"
INFER = "tests/flows/test_inference.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One thing broken."""

    name: str
    file: str
    old: str
    new: str
    tests: str


SQLITE = "mlbatch/connectors/sqlite.py"
SESSION = "mlbatch/connectors/mysql/session.py"
STATEMENTS = "mlbatch/connectors/mysql/statements.py"
STORE = "mlbatch/connectors/database/ledger_store.py"
FENCE = "AND part_no = :part_no AND epoch = :epoch AND done = :low"
MUTANTS = (
    Mutant("no epoch in the compare, SQLite", SQLITE, FENCE,
           "AND part_no = :part_no AND done = :low", SINK),
    Mutant("no position in the compare, SQLite", SQLITE, FENCE,
           "AND part_no = :part_no AND epoch = :epoch", SINK),
    Mutant("no epoch in the compare, MySQL", STATEMENTS,
           "AND epoch = %(epoch)s AND done = %(low)s", "AND done = %(low)s", SINK),
    Mutant("no position in the compare, MySQL", STATEMENTS,
           "AND epoch = %(epoch)s AND done = %(low)s", "AND epoch = %(epoch)s", SINK),
    Mutant("an unknown commit is repeated blindly", SESSION,
           "if attempt > 1 and", "if attempt > 99 and", MYSQL),
    Mutant("an unknown commit is believed", SESSION,
           '["done"] >= batch.high', '["done"] >= batch.low', MYSQL),
    Mutant("warnings of LOAD DATA are passed over", SESSION,
           "if not cursor.warning_count:", "if True:", MYSQL),
    Mutant("a lost connection ends the run", SESSION,
           "if is_passing(error):", "if False:", MYSQL),
    Mutant("rows are loaded although a trigger is there", "mlbatch/connectors/mysql/sink.py",
           "and not triggers", "", MYSQL),
    Mutant("keys are padded", "mlbatch/connectors/database/tables.py",
           "utf8mb4_nopad_bin", "utf8mb4_bin", MYSQL),
    Mutant("take-over fences nothing", STORE,
           "            _fence(connection, output_table, epoch)\n        return lease",
           "        return lease", SINK),
    Mutant("release fences nothing", STORE,
           "                _fence(connection, lease.output_table, epoch)\n\n    def create",
           "                pass\n\n    def create", SINK),
    Mutant("a run's state is not compared", STORE,
           ", RUN.c.state == run.state.value", "", SINK),
    Mutant("a run's epoch is not compared", STORE,
           ", RUN.c.epoch == run.epoch", "", SINK),
    Mutant("a live owner is disturbed", STORE,
           '> self._database.now():\n            message = f"{lease.output_table} is being',
           '< self._database.now():\n            message = f"{lease.output_table} is being', RESUME),
    Mutant("any heartbeat counts", STORE,
           ", LEASE.c.epoch == lease.epoch)\n                .values(heartbeat_at",
           ")\n                .values(heartbeat_at", SINK),
    Mutant("the lease stays after the end", STORE,
           "_free(connection, new.output_table, run.epoch, epoch)\n            return",
           "return", SINK),
    Mutant("conservation is not checked", "mlbatch/ledger.py",
           "if not part.is_complete or accounted != part.rows_expected:", "if False:",
           "tests/unit/test_ledger.py"),
    Mutant("a batch may lose rows", "mlbatch/ledger.py",
           "if accounted != self.high - self.low:", "if False:", "tests/unit/test_ledger.py"),
    Mutant("the table is not compared with the ledger", "mlbatch/inference.py",
           "if rows != totals.written or found != totals.checksum:", "if False:", INFER),
    Mutant("the watermark passes the frozen instant", "mlbatch/inference.py",
           "moved = advance(mark, run.new.watermark_high, run.highest_cursor)",
           "moved = advance(mark, run.highest_cursor or run.new.watermark_high,"
           " run.highest_cursor)", f"{INFER} tests/unit/test_window.py"),
    Mutant("a sleeper takes another's epoch for its own", "mlbatch/inference.py",
           "if found.epoch != run.epoch:", "if False:", RESUME),
    Mutant("a repair moves the watermark", "mlbatch/inference.py",
           "if run.new.kind is not RunKind.REPAIR:", "if True:", "tests/flows/test_repair.py"),
    Mutant("the window leaves its first instant out", "mlbatch/query.py",
           "exp.GTE(this=_column(cursor)", "exp.GT(this=_column(cursor)",
           "tests/unit/test_query.py"),
    Mutant("a replaced part is read", "mlbatch/connectors/folder.py",
           "if self.stat(uri).etag != etag:", "if False:", "tests/seams/test_storage.py"),
    Mutant("a replaced object is read", "mlbatch/connectors/s3.py",
           "**self._place(uri), IfMatch=etag, **more", "**self._place(uri), **more",
           "tests/seams/test_storage.py"),
    Mutant("manifest and warehouse may differ", "mlbatch/unloading.py",
           "if promised != unloaded.rows:", "if False:", "tests/unit/test_snapshot.py"),
    Mutant("footers are believed", "mlbatch/unloading.py",
           "if rows != entry.rows:", "if False:", "tests/unit/test_snapshot.py"),
    Mutant("quarantined rows keep their prediction", "mlbatch/scoring.py",
           "gone[list(faults)] = True", "pass", INFER),
    Mutant("a done slot is done again", "mlbatch/planner.py",
           "    if request.slot is None:\n        return None\n    return next(",
           "    if True:\n        return None\n    return next(",
           f"{INFER} tests/unit/test_planner.py"),
    Mutant("model files are believed", "mlbatch/connectors/skops_file.py",
           "or _sha256(file) != registered", "", "tests/unit/test_learning.py"),
    Mutant("reconcile removes any number of rows", "mlbatch/repair.py",
           "if len(found.gone) > limit:", "if False:", "tests/flows/test_repair.py"),
)  # fmt: skip


def main() -> int:
    """Try every mutant and print the table."""
    print("| broken | noticed by | outcome |")
    print("|---|---|---|")
    survivors = 0
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "project"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for mutant in MUTANTS:
            outcome = tried(mutant, copy)
            survivors += outcome != "caught"
            tests = mutant.tests.replace("tests/", "")
            print(f"| {mutant.name} | `{tests}` | {outcome} |", flush=True)
    print(f"\n{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants are caught.")
    return int(survivors > 0)


def tried(mutant: Mutant, copy: Path) -> str:
    """Break the copy, run the tests, mend it."""
    file = copy / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"its text occurs {text.count(mutant.old)} times"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *mutant.tests.split()],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    finally:
        file.write_text(text, encoding="utf-8")
    # 1: tests failed. Anything else is no verdict of theirs.
    return {0: "SURVIVED", 1: "caught"}.get(done.returncode, f"pytest ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
