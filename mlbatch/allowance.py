"""How many rows a run may set aside one by one, by the limits of its job.

A repair is measured otherwise than other runs: its rows were chosen because they are wrong, so that a share
of them says nothing, and those that lack a prediction already have none to lose.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlbatch.errors import QuarantineLimitError
from mlbatch.keys import TEXT_CHARACTERS, UNREADABLE
from mlbatch.quarantine import KILLED

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.ledger import Run
    from mlbatch.sink import Sink
    from mlbatch.table import OutputTable


@dataclass(frozen=True, slots=True)
class RepairMeasure:
    """What the rows that a repair sets aside are held against; asked only where they are many."""

    run: Run
    table: OutputTable
    """The run's generation, under the name that it has as long as the lease is held."""
    sink: Sink

    def fresh(self, uncommitted: Collection[str] = ()) -> int:
        """Of the rows that the run set aside one by one, and ``uncommitted`` keys, those that no run before had."""
        ledger, new = self.sink.ledger(), self.run.new
        told = ledger.quarantined(self.run.run_id, self.run.rows_expected or 0)
        keys = {row.key for row in told if row.reason not in (KILLED, UNREADABLE)}
        keys |= {key[:TEXT_CHARACTERS] for key in uncommitted}
        before = ledger.keys_set_aside(new.output_table, new.generation, before=self.run.run_no)
        return len(keys.difference(key for key, _ in before))

    def rows(self, of_run: int) -> int:
        """Of which limits are shares: the table's, if the run has not more (``of_run``)."""
        return max(of_run, self.sink.count(self.table.name))


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of what a run's limits are shares."""

    rows: int
    """Those of the run."""
    repair: RepairMeasure | None = None
    """Where it is a repair: only rows count that were not set aside before, as a share of its table."""


def check_limit(
    job: type[Job], aside: int, allowance: Allowance, uncommitted: Collection[str] = ()
) -> None:
    """QuarantineLimitError where ``aside`` rows set aside one by one are too many.

    ``uncommitted`` are the keys of those that the ledger does not know yet, of a repair.
    """
    rows, repair = allowance.rows, allowance.repair
    if job.limits.allows(aside, rows):
        return
    message = f"{aside:,} of {rows:,} rows were quarantined"
    if repair is not None:
        fresh, all_rows = repair.fresh(uncommitted), repair.rows(rows)
        if job.limits.allows(fresh, all_rows):
            return
        message = (
            f"{fresh:,} rows that were not before were quarantined, in a table of {all_rows:,}"
        )
    raise QuarantineLimitError(message, hint=no_more(job))


def no_more(job: type[Job]) -> str:
    """The hint of a run that set too much aside."""
    return f"mlbatch show {job.name} names the reasons; nothing more is written by this run"
