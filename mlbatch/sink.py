"""The seam to the database that holds the predictions, and beside them the ledger.

Both live in one database, because a batch of predictions and the position of its part must commit
together. A sink is a value that workers carry along; each opens sessions of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from mlbatch.generation import Active, Generation
    from mlbatch.ledger import (
        BatchCommit,
        Lease,
        NewRun,
        Owner,
        PartState,
        Progress,
        QuarantinedRow,
        Run,
        RunState,
        Strikes,
    )
    from mlbatch.snapshot import Snapshot
    from mlbatch.table import OutputTable
    from mlbatch.throttle import Pressure
    from mlbatch.window import Watermark


class PartSession(Protocol):
    """One worker's connection for the parts of one run."""

    def position(self, part_number: int) -> PartState:
        """How far the part is; raises Fenced when the run's epoch is no longer ours."""
        ...

    def commit(self, batch: BatchCommit) -> None:
        """Move the position and change the rows in one transaction.

        Raises Fenced, and changes nothing, when the epoch or the position is not the expected one.
        """
        ...

    def pressure(self) -> Pressure:
        """How busy the database is, and how far its replicas are behind."""
        ...


class Ledger(Protocol):
    """Runs and leases of one sink."""

    def acquire(
        self, output_table: str, job: str, owner: Owner, epoch: int, generation: str | None = None
    ) -> Lease:
        """Take the lease of a generation, or of the one that serves, and fence its unfinished runs.

        ``epoch`` is fresh and random. Raises Busy while a live owner holds the lease, UsageError
        when another job owns the table, TemporaryError while a switch is half done.
        """
        ...

    def heartbeat(self, lease: Lease) -> bool:
        """Say that the owner lives; False when the lease is no longer ours."""
        ...

    def release(self, lease: Lease, epoch: int) -> None:
        """Give the lease back, and fence what is unfinished with a fresh ``epoch``."""
        ...

    def create(self, lease: Lease, new: NewRun) -> Run:
        """Insert a run under the lease, with the next run number of its table's generations."""
        ...

    def advance(self, run: Run, to: RunState) -> Run:
        """Move a run's state, fenced by its epoch."""
        ...

    def attempt(self, run: Run, unload_attempt: str) -> Run:
        """Note that an unload into the path of ``unload_attempt`` begins."""
        ...

    def adopt(self, run: Run, snapshot: Snapshot) -> Run:
        """Insert the snapshot's parts and go to PLANNED: all of it, once."""
        ...

    def verify(self, run: Run) -> tuple[Run, tuple[PartState, ...]]:
        """Go to VERIFYING, and tell the parts as they are then, in one transaction.

        Raises TemporaryError where one of them is not through: commits were lost in a fail-over.
        """
        ...

    def finish(self, run: Run, watermark: Watermark | None, epoch: int) -> Run:
        """Go to DONE, move the watermark, and free the lease, in one transaction.

        In the generation that serves, the run's model is the one that serves from now on.
        """
        ...

    def give_up(self, run: Run, state: RunState, reason: str, epoch: int) -> Run:
        """Go to FAILED or SUPERSEDED and fence the run's workers with a fresh ``epoch``."""
        ...

    def tracked(self, run: Run, tracking_run_id: str) -> Run:
        """Remember which tracking run tells about this run."""
        ...

    def run(self, run_id: str) -> Run | None:
        """The run as it is now; None where there is none of this id."""
        ...

    def runs(
        self,
        output_table: str | None = None,
        generation: str | None = None,
        limit: int | None = None,
    ) -> tuple[Run, ...]:
        """All runs, or those of a table, or of a generation of it, newest first.

        Without a ``limit`` that is years of them, each with the text of its query.
        """
        ...

    def latest(self, output_table: str, generation: str) -> tuple[Run, ...]:
        """The last run of a generation that finished, repairs left out, and all since then, newest first.

        An unfinished run is among them: none begins, let alone finishes, before it has ended.
        """
        ...

    def done(self, job: str, generation: str, slot: str) -> Run | None:
        """The last run that did a slot; None where none has."""
        ...

    def untracked(self, output_table: str) -> tuple[Run, ...]:
        """Finished runs of a table that no tracking run tells about yet, oldest first."""
        ...

    def count(self) -> tuple[int, int]:
        """How many runs there are, and how many of them are unfinished."""
        ...

    def parts(self, run_id: str) -> tuple[PartState, ...]:
        """The parts of a run, by number."""
        ...

    def progress(self, run_id: str) -> Progress:
        """How far a run is, parts under way included; no part is read."""
        ...

    def strike(self, run: Run, strikes: Strikes) -> None:
        """Remember what a part has done to its workers; raises Fenced when the run is not ours."""
        ...

    def strikes(self, run_id: str) -> tuple[Strikes, ...]:
        """The parts of a run on which workers died, by number."""
        ...

    def quarantined(self, run_id: str, limit: int) -> tuple[QuarantinedRow, ...]:
        """The first rows that a run set aside."""
        ...

    def keys_set_aside(
        self, output_table: str, generation: str, *, before: int | None = None
    ) -> Iterator[tuple[str, datetime | None]]:
        """The keys of rows that runs of a generation set aside, and the frozen clock of each run.

        Oldest run first, from the last one on that read everything and was finished: a row that was set
        aside before it was looked at anew. None instead of the clock of a run that is not DONE. Keys
        are as `keys.texts` tells them, cut to `keys.TEXT_CHARACTERS`, a page of them in memory at once.
        ``before``, those of runs with a lower number only.
        """
        ...

    def watermark(self, job: str, generation: str) -> Watermark | None:
        """The job's watermark; None before the first backfill is done."""
        ...

    def holder(self, output_table: str) -> Owner | None:
        """Who holds the table's lease now."""
        ...

    def active(self, output_table: str) -> Active | None:
        """What serves under the declared name; None before a run was ever finished."""
        ...

    def serving(self, output_table: str) -> str:
        """The generation that serves, or that will do so first."""
        ...

    def generations(self, output_table: str) -> tuple[Generation, ...]:
        """The generations that switches made of a table, oldest first."""
        ...

    def build(self, lease: Lease, model_version: int) -> None:
        """Note that a switch fills the lease's generation; noted before, nothing changes."""
        ...

    def abandon(self, lease: Lease) -> None:
        """Note that the lease's generation will never serve."""
        ...


class Sink(Protocol):
    """A database for outputs and ledger. Picklable."""

    def about(self) -> str:
        """What answers there, in a few words, for `mlbatch doctor`."""
        ...

    def prepare(self, table: OutputTable, like: str | None = None) -> str:
        """Make the output table, or check that the one there fits its declaration.

        One that is made gets the indexes of the table ``like``, which people may have added for
        its readers. Returns in a few words how rows will be written.
        """
        ...

    def ledger(self) -> Ledger:
        """The ledger beside the outputs; the first lease makes its tables, reading makes nothing."""
        ...

    def session(self, table: OutputTable, run: Run) -> AbstractContextManager[PartSession]:
        """A private connection for one worker."""
        ...

    def settle(self, output_table: str) -> None:
        """End a switch that was cut short, as the names of the tables tell how far it came.

        Does nothing where none was. Raises Busy while another process is at it.
        """
        ...

    def swap(self, old: Lease, new: Lease) -> None:
        """Let the generation of ``new`` serve instead of that of ``old``: names and ledger.

        Readers of the declared name see the one table or the other. Raises Fenced, and changes
        nothing, unless both leases are held; TemporaryError where readers do not let go.
        """
        ...

    def holds(self, table: str) -> bool:
        """Whether there is a table of this name."""
        ...

    def count(self, table: str) -> int:
        """How many rows the table of this name has."""
        ...

    def drop(self, lease: Lease) -> None:
        """Remove the table of a generation that does not serve."""
        ...

    def checksum(self, table: OutputTable, run_no: int) -> tuple[int, int]:
        """How many rows of a run the table holds, and their `mlbatch.checksum.checksum`."""
        ...

    def rows(self, table: OutputTable, *, run_no: int | None = None) -> pa.RecordBatchReader:
        """Rows of the output table in key order, of one run or all."""
        ...
