"""The ledger: runs, parts, lease and watermark, as values and rules. No SQL, no clock, no driver.

The promise it carries: of each row of a snapshot exactly one effect is committed, whatever is
killed. It rests on four rules.

1. Runs of one output table are totally ordered; an unfinished one is finished or superseded first.
2. A batch of predictions and the new position of its part commit in one transaction.
3. The fence is in the part's row: every commit compares the run's epoch and the old position.
4. Whoever takes the table over gives a fresh random epoch to the lease and to every unfinished run
   and part of that table, in one transaction; sleepers then fail at rule 3.

Each generation of a table is a table in this sense, with runs, lease and watermark of its own; run
numbers alone are counted over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import pyarrow as pa

from mlbatch.errors import ConservationError, Fenced, MlbatchError, TemporaryError
from mlbatch.generation import FIRST
from mlbatch.snapshot import Part


class RunKind(StrEnum):
    """What a run reads."""

    BACKFILL = "backfill"
    """Everything, because the table has never been finished."""
    DELTA = "delta"
    """What changed since the watermark."""
    FULL = "full"
    """Everything again, because somebody asked."""
    REPAIR = "repair"
    """Certain rows only, which were found wanting. The watermark stays."""


class RunState(StrEnum):
    """How far a run has come. The last three are terminal."""

    CREATED = "created"
    UNLOADING = "unloading"
    PLANNED = "planned"
    WRITING = "writing"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self in (RunState.DONE, RunState.FAILED, RunState.SUPERSEDED)


_FORWARD = {
    RunState.CREATED: {RunState.UNLOADING},
    RunState.UNLOADING: {RunState.UNLOADING, RunState.PLANNED},
    RunState.PLANNED: {RunState.WRITING},
    RunState.WRITING: {RunState.WRITING, RunState.VERIFYING},
    RunState.VERIFYING: {RunState.VERIFYING, RunState.DONE},
}


def check_transition(current: RunState, to: RunState) -> None:
    """Refuse a step that the protocol does not have."""
    if not current.is_terminal and to in {RunState.FAILED, RunState.SUPERSEDED}:
        return
    if to not in _FORWARD.get(current, set()):
        message = f"a run cannot go from {current} to {to}"
        raise MlbatchError(message)


@dataclass(frozen=True, slots=True)
class ModelPin:
    """The model a run was created with; never resolved again, whatever the alias does."""

    name: str
    version: int
    digest: str
    """SHA-256 of the model's card, which holds the digests of its files."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """Everything that is pinned when a run is created."""

    run_id: str
    job: str
    output_table: str
    """The declared name, whichever generation is written."""
    generation: str
    kind: RunKind
    slot: str
    """Logical date given by the scheduler; without one, the run id."""
    model: ModelPin
    query_digest: str
    query: str
    """The exact SELECT to unload, window and literals included."""
    job_code_digest: str
    code_version: str
    watermark_low: datetime | None
    watermark_high: datetime
    """Frozen from the warehouse's clock; the watermark never passes it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the run table."""

    new: NewRun
    run_no: int
    """Counts the runs of one output table, over all its generations, from 1."""
    state: RunState
    epoch: int
    attempts: int
    created_at: datetime
    finished_at: datetime | None
    unload_attempt: str | None
    highest_cursor: datetime | None
    rows_expected: int | None
    error: str | None
    tracking_run_id: str | None

    @property
    def run_id(self) -> str:
        """The run's own id, as people type it."""
        return self.new.run_id


@dataclass(frozen=True, slots=True)
class PartState:
    """One row of the part table: how far a part has come, and what became of its rows."""

    number: int
    uri: str
    etag: str
    bytes: int
    rows_expected: int
    done: int = 0
    """Rows of the file, in file order, that are accounted for."""
    written: int = 0
    deleted: int = 0
    quarantined: int = 0
    filtered: int = 0
    checksum: int = 0
    """Sum of the row checksums of what was written, modulo 2**63."""

    @property
    def is_complete(self) -> bool:
        """Whether every row is accounted for."""
        return self.done == self.rows_expected

    @property
    def part(self) -> Part:
        """What storage is asked for."""
        return Part(self.number, self.uri, self.rows_expected, self.bytes, self.etag)


@dataclass(frozen=True, slots=True)
class Strikes:
    """What a part has done to its workers. It is in the ledger, so that no restart forgets it."""

    part_number: int
    deaths: int = 0
    """Workers that died on the part, in all."""
    died_at: int | None = None
    """How far the part was at the last death."""
    set_aside: int | None = None
    """Offset of the row that was found to kill, and goes unseen."""
    given_up_from: int | None = None
    """First row of those that were set aside because the whole part was; None where it was not."""


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that was set aside. Never its text: only where it is and why."""

    row_offset: int
    """Row number in the part's file, from 0."""
    key: str
    """The entity key, columns joined by '/'; empty where the key itself is missing."""
    reason: str
    """A short code, such as ``missing_value``."""
    detail: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.key or 'row ' + str(self.row_offset)}: {self.reason}, {self.detail}"


@dataclass(frozen=True, slots=True)
class BatchCommit:
    """What one transaction does: the position moves and these rows change, or neither."""

    part_number: int
    low: int
    high: int
    upserts: pa.RecordBatch
    """Rows to write, ascending by key."""
    deletes: pa.RecordBatch
    """Keys whose prediction is removed: tombstones, quarantined and filtered rows, ascending."""
    deleted: int
    filtered: int
    quarantined: tuple[QuarantinedRow, ...]
    checksum: int

    def __post_init__(self) -> None:
        """The law of conservation, for one batch."""
        accounted = self.upserts.num_rows + self.deleted + self.filtered + len(self.quarantined)
        if accounted != self.high - self.low:
            message = (
                f"part {self.part_number}, rows {self.low} to {self.high}: "
                f"{self.high - self.low} rows read, {accounted} accounted for"
            )
            raise ConservationError(message)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds, or wants, a lease."""

    owner_id: str
    """Random, one per process."""
    host: str
    pid: int
    started_at: str
    """When the process started, as the system tells it; ids of dead processes are used again."""

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one generation of an output table."""

    output_table: str
    """The declared name."""
    job: str
    epoch: int
    owner: Owner
    generation: str = FIRST
    beside: str | None = None
    """The table's own name, where the generation does not serve under the declared one."""

    @property
    def table(self) -> str:
        """The table that the lease is for, and the lease's own name."""
        return self.beside or self.output_table


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, added up by the database: asked for after every part."""

    parts: int = 0
    expected: int = 0
    done: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What became of the rows of a run."""

    expected: int
    done: int
    written: int
    deleted: int
    quarantined: int
    filtered: int
    checksum: int

    @classmethod
    def of(cls, parts: tuple[PartState, ...]) -> Totals:
        """Add the parts up."""
        return cls(
            expected=sum(p.rows_expected for p in parts),
            done=sum(p.done for p in parts),
            written=sum(p.written for p in parts),
            deleted=sum(p.deleted for p in parts),
            quarantined=sum(p.quarantined for p in parts),
            filtered=sum(p.filtered for p in parts),
            checksum=sum(p.checksum for p in parts) % 2**63,
        )


def check_conservation(parts: tuple[PartState, ...]) -> Totals:
    """Rows of the snapshot = written + deleted + quarantined + filtered, for each part."""
    for part in parts:
        accounted = part.written + part.deleted + part.quarantined + part.filtered
        if not part.is_complete or accounted != part.rows_expected:
            message = (
                f"part {part.number}: {part.rows_expected} rows in the snapshot, {part.done} read, "
                f"{accounted} accounted for"
            )
            raise ConservationError(message, hint="this is a defect of mlbatch; keep the ledger")
    return Totals.of(parts)


def taken_over(what: str) -> Fenced:
    """The error of whoever finds that ``what`` carries an epoch which is not its own."""
    message = f"{what} was taken over by another process"
    return Fenced(message, hint="nothing of it is lost; the other process finishes it")


def moved(run: Run, batch: BatchCommit, done: int) -> Fenced:
    """The error of a worker whose part is elsewhere, ``done``, though nobody took the run over."""
    message = (
        f"part {batch.part_number} of run {run.run_id} is at row {done}, not at row {batch.low}: "
        "its database lost commits in a fail-over, or another worker goes on with it"
    )
    return Fenced(message, hint="run again, it goes on from there")


def check_through(run: Run, parts: tuple[PartState, ...]) -> None:
    """Raise TemporaryError where a run whose workers came to their end is not there any more."""
    back = [
        f"part {part.number} is at row {part.done} of {part.rows_expected} again"
        for part in parts
        if not part.is_complete
    ]
    if run.state not in (RunState.WRITING, RunState.VERIFYING):
        back = [f"run {run.run_id} is {run.state} again"]
    if back:
        message = f"{back[0]}: the database lost commits in a fail-over"
        raise TemporaryError(message, hint="run again, it goes on from there")


def served(runs: tuple[Run, ...]) -> ModelPin | None:
    """The model of the last finished run of ``runs``, newest first: what their table was made by."""
    return next((run.new.model for run in runs if run.state is RunState.DONE), None)
