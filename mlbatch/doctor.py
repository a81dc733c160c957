"""Looks at everything a run needs, one thing after the other, and says what to do about each.

Nothing is changed but a file that comes and goes in a storage that is a folder, and one small object
below the storage's prefix.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from mlbatch.errors import ExitCode, MlbatchError, RunFailed, barred, out_of_resources
from mlbatch.job import Job
from mlbatch.rehearsal import rehearse
from mlbatch.reporting import counted
from mlbatch.tools import Tools
from mlbatch.unloading import take_snapshot

PACKAGES = ("scikit-learn", "pyarrow", "mlflow", "sqlglot", "mecab-python3")
CLOCK_SECONDS = 5.0


Check = tuple[str, tuple[str, ...], Callable[[], str]]
"""Its name, the checks without which it can only repeat what they said, and what looks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check came out."""

    name: str
    exit_code: ExitCode
    """What a run would end with because of it; DONE where all is well, or nobody looked."""
    detail: str
    hint: str | None = None
    looked: bool = True
    """False where it was not looked at, because of what it needs."""

    @property
    def is_well(self) -> bool:
        """Whether nothing needs to be done."""
        return self.looked and self.exit_code is ExitCode.DONE


def examine(tools: Tools, jobs: list[type[Job]]) -> Iterator[Finding]:
    """All checks, in the order in which a run would need the things they are about."""
    checks: list[Check] = [
        ("versions", (), _versions),
        ("dictionary", (), lambda: f"fingerprint {tools.dictionary[:12]}"),
        ("warehouse", (), tools.warehouse.about),
        ("clock", ("warehouse",), lambda: _clock(tools)),
        ("storage", (), tools.storage.about),
        ("unload", ("warehouse", "storage"), lambda: _unload(tools)),
        ("sink", (), tools.sink.about),
        ("ledger", ("sink",), lambda: _ledger(tools)),
        ("tracking", (), tools.tracking.about),
    ]
    needed = ("warehouse", "tracking")
    checks += [(f"job {job.name}", needed, partial(_job, job, tools)) for job in jobs]
    ill: set[str] = set()
    for name, needs, check in checks:
        missing = [need for need in needs if need in ill]
        finding = _unseen(name, missing) if missing else _finding(name, check)
        if not finding.is_well:
            ill.add(name)
        yield finding


def _unseen(name: str, missing: list[str]) -> Finding:
    detail = f"not looked at: it needs the {' and the '.join(missing)}"
    return Finding(name, ExitCode.DONE, detail, looked=False)


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ExitCode.DONE, check())
    except MlbatchError as error:
        return Finding(name, error.exit_code, str(error), error.hint)
    except OSError as error:
        # What nobody foresaw of one thing must not keep the others from being looked at.
        told = out_of_resources(error) or barred(error)
        known = told or RunFailed(str(error), hint="a run would meet the same")
        return Finding(name, known.exit_code, str(known), known.hint)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    return ", ".join(found)


def _clock(tools: Tools) -> str:
    apart = abs((tools.warehouse.now() - datetime.now(UTC)).total_seconds())
    if apart < CLOCK_SECONDS:
        return "the warehouse's and this machine's agree"
    return f"the warehouse's is {apart:.0f} s off this machine's; only the warehouse's is used"


def _unload(tools: Tools) -> str:
    """The whole way of features: the warehouse writes a row to the storage, we read it there."""
    prefix = f"{tools.storage.prefix}mlbatch/_doctor/{tools.new_id()}/"
    snapshot = take_snapshot(tools.warehouse, tools.storage, "SELECT 1 AS one", prefix)
    return f"{counted(snapshot.rows, 'row')} through {prefix}"


def _ledger(tools: Tools) -> str:
    runs, unfinished = tools.sink.ledger().count()
    return f"{counted(runs, 'run')}, {unfinished} unfinished"


def _job(job: type[Job], tools: Tools) -> str:
    rehearse(job)
    view = job.features.view
    view.check_source(tools.warehouse.fetch(view.query.empty()).schema)
    champion = tools.tracking.resolve(job.name)
    model = f"model v{champion.version}" if champion else "no model yet"
    return f"{view.name} gives the declared columns; {model}"
