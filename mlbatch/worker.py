"""The worker: one part in, its batches committed in order. What every engine calls.

Each batch is scored before its transaction begins; the transaction then moves the part's position
and changes its rows, or does neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlbatch.allowance import Allowance, RepairMeasure, check_limit
from mlbatch.batches import read_part
from mlbatch.engine import PartOutcome, PartTask
from mlbatch.errors import RunFailed, SnapshotError
from mlbatch.failpoint import reach
from mlbatch.job import Job, required_schema
from mlbatch.ledger import BatchCommit, Run, RunKind
from mlbatch.overlap import WriteBehind, read_ahead
from mlbatch.quarantine import set_part_aside
from mlbatch.scoring import Predictor, Scorer
from mlbatch.snapshot import Part
from mlbatch.throttle import Limits, Pace, Throttle

if TYPE_CHECKING:
    import pyarrow as pa

    from mlbatch.sink import PartSession, Sink
    from mlbatch.storage import Storage
    from mlbatch.table import OutputTable

LEAST_BATCH_ROWS = 1_024
MOST_BATCH_ROWS = 8_192
BATCH_BYTES = 512 * 1024
"""Of the part's file in a batch: large enough that its fixed costs vanish, small enough that memory
does not grow with the length of texts."""
UNPROVEN_ROWS = 10
"""So many rows of a part may fail in the model before it predicts one: a delta may be one bad row."""


@dataclass(frozen=True, slots=True)
class PartWorker:
    """What a worker process carries: values only, so that it can be pickled."""

    job: type[Job]
    run: Run
    table: OutputTable
    """The run's generation, under the name that it has as long as the lease is held."""
    sink: Sink
    storage: Storage
    load: Callable[[], Predictor]
    limits: Limits

    def __call__(self, task: PartTask) -> PartOutcome:
        """Score one part, try a row of it, or set it aside."""
        with self.sink.session(self.table, self.run) as session:
            if task.surrender is not None:
                return set_part_aside(task, session, self.storage, self.job)
            new = self.run.new
            scorer = Scorer(self.job, self.load(), new.model, self.run.run_no)
            # In a repair, rows may be marked as gone.
            repairs = new.kind is RunKind.REPAIR
            schema = required_schema(self.job, repairs=repairs)
            if task.trial is not None:
                return try_a_row(task, session, self.storage, scorer, schema, task.trial)
            measure = RepairMeasure(self.run, self.table, self.sink) if repairs else None
            room = Allowance(self.run.rows_expected or 0, measure)
            return score_part(
                task, session, self.storage, scorer, schema, limits=self.limits, allowance=room
            )


def try_a_row(
    task: PartTask,
    session: PartSession,
    storage: Storage,
    scorer: Scorer,
    schema: pa.Schema,
    rows: tuple[int, int],
) -> PartOutcome:
    """Predict the first of ``rows`` that can be, and commit nothing: did the process survive it?

    Raises what `score_part` raises.
    """
    part, (start, stop) = session.position(task.part_number).part, rows
    with storage.open(part.file_uri, etag=part.etag) as file:
        batches = read_part(file, part, schema, start=start, stop=stop, batch_rows=1)
        # Rows that are judged bad, or deleted, never reach the model and prove nothing.
        commits = (
            scorer.score(batch, part.number, low) for low, batch in enumerate(batches, start)
        )
        return PartOutcome(part.number, {}, any(commit.upserts.num_rows for commit in commits))


def score_part(
    task: PartTask,
    session: PartSession,
    storage: Storage,
    scorer: Scorer,
    schema: pa.Schema,
    *,
    batch_rows: int | None = None,
    limits: Limits = Limits(),  # noqa: B008  a value
    allowance: Allowance | None = None,
) -> PartOutcome:
    """Bring one part from where its ledger row says it is to its end, in batches of ``batch_rows``.

    A batch is read while the one before is scored and the one before that is written; without
    ``batch_rows`` the part's bytes a row decide. ``limits`` say when to hold back. Raises Fenced when
    another process took the run over, SnapshotError when the part is no longer the adopted one,
    QuarantineLimitError before the part alone sets more aside than the job allows its run by
    ``allowance``, RunFailed before it does so for a model that predicts nothing.
    Whatever is raised, committed batches stay and the rest can be resumed.
    """
    state = session.position(task.part_number)
    part, done = state.part, state.done
    rows = batch_rows or suitable_rows(part)
    stages, polite = _Stages(), _Polite(session, limits, rows)
    with (
        storage.open(part.file_uri, etag=part.etag) as file,
        WriteBehind(stages.timing("write", polite.commit)) as writer,
    ):
        toll = _Toll(scorer, state.quarantined, allowance or Allowance(part.rows))
        ahead = _Ahead(task, scorer, stages, polite, writer, toll)
        while done < part.rows:
            stop, size = _next_stretch(task, done, part.rows, rows)
            batches = read_part(file, part, schema, start=done, stop=stop, batch_rows=size)
            begun, done = done, ahead.go(batches, done)
            if done == begun:
                raise _ends_early(part, done)
    return PartOutcome(task.part_number, stages.seconds)


def _ends_early(part: Part, done: int) -> SnapshotError:
    message = f"part {part.number} ({part.uri}) ends after {done:,} of its {part.rows:,} rows"
    return SnapshotError(message, hint="run again with --full to unload anew")


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Scores one batch while the next is read and the last is written."""

    task: PartTask
    scorer: Scorer
    stages: _Stages
    polite: _Polite
    writer: WriteBehind[BatchCommit]
    toll: _Toll

    def go(self, batches: Iterator[pa.RecordBatch], done: int) -> int:
        """Score ``batches``, the first of which begins at row ``done``; returns where they end."""
        with closing(read_ahead(batches)) as coming:
            for batch in self.polite.pieces(self.stages.waiting("read", coming)):
                reach("before_score")
                with self.stages.timed("score"):
                    commit = _score(self.scorer, self.task, batch, done)
                self.toll.take(commit)
                reach("after_score")
                self.polite.wait(self.writer)
                self.writer.put(commit)
                if done < self.task.careful_until:
                    # The position tells which row killed a worker: no write may lag behind.
                    self.writer.wait()
                done = commit.high
        return done


class _Toll:
    """What a part sets aside, held against what the job allows before any of it is committed.

    A row that is set aside loses the prediction that it had. Other parts' are not known here: the
    nurse adds them up after each.
    """

    def __init__(self, scorer: Scorer, aside: int, allowance: Allowance) -> None:
        self._job, self._answers = scorer.job, scorer.answers
        self._aside, self._allowance = aside, allowance
        self._keys: set[str] = set()

    def take(self, commit: BatchCommit) -> None:
        """Count ``commit``; raises QuarantineLimitError or RunFailed where it must not be."""
        answers, job = self._answers, self._job
        self._aside += len(commit.quarantined)
        if self._allowance.repair is not None:
            # Few: a repair names its rows.
            self._keys.update(row.key for row in commit.quarantined)
        if not answers.good and self._loses(max(job.limits.quarantined_rows, UNPROVEN_ROWS)):
            message = (
                f"{job.name}: the model predicts no row of part {commit.part_number}, "
                f"{answers.failed:,} were tried; the first fault: {answers.first_fault}"
            )
            hint = "no row is to blame, and these keep what the table has of them: mend the model or predict"
            raise RunFailed(message, hint=hint)
        check_limit(job, self._aside, self._allowance, self._keys)

    def _loses(self, limit: int) -> bool:
        """Whether more rows than ``limit`` would lose the prediction that they have, if the model is to blame."""
        if self._answers.failed <= limit:
            return False
        repair = self._allowance.repair
        return repair is None or repair.fresh(self._keys) > limit


class _Polite:
    """A session whose commits hold back for others."""

    def __init__(self, session: PartSession, limits: Limits, rows: int) -> None:
        self._session = session
        self._throttle = Throttle(limits, session.pressure)
        self._pace = Pace(rows, limits.transaction_seconds)

    def pieces(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from self._pace.pieces(batch)

    def wait(self, writer: WriteBehind[BatchCommit]) -> None:
        """Pause outside any transaction, where a signal can end the wait."""
        if self._throttle.reason is not None:
            writer.wait()
            self._throttle.wait()

    def commit(self, batch: BatchCommit) -> None:
        self._throttle.look()
        started = time.perf_counter()
        self._session.commit(batch)
        self._pace.took(time.perf_counter() - started, batch.high - batch.low)


def suitable_rows(part: Part) -> int:
    """How many rows of ``part`` make a batch, by their mean size in the file."""
    rows = BATCH_BYTES * part.rows // max(part.bytes, 1)
    return min(max(rows, LEAST_BATCH_ROWS), MOST_BATCH_ROWS)


def _next_stretch(task: PartTask, done: int, end: int, batch_rows: int) -> tuple[int, int]:
    """Up to which row to go on, and in batches of how many rows."""
    if done < task.careful_until:
        return min(task.careful_until, end), task.careful_rows
    return end, batch_rows


def _score(scorer: Scorer, task: PartTask, batch: pa.RecordBatch, low: int) -> BatchCommit:
    if task.set_aside is not None and low == task.set_aside and batch.num_rows == 1:
        return scorer.set_aside(batch, task.part_number, low)
    return scorer.score(batch, task.part_number, low)


class _Stages:
    """Seconds per stage of one part; stages overlap, so they add up to more than the part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def timing(
        self, stage: str, work: Callable[[BatchCommit], None]
    ) -> Callable[[BatchCommit], None]:
        def timed(commit: BatchCommit) -> None:
            with self.timed(stage):
                work(commit)

        return timed

    def waiting(self, stage: str, items: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same items; what is counted is only the time that they let us wait."""
        while True:
            with self.timed(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
