"""Scoring: one part in, its batches committed in order. The function that every engine calls.

Each batch is judged, predicted and judged again before its transaction begins; the transaction then
moves the part's position and changes its rows, or does neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null, read_part
from mlbatch.checksum import checksum
from mlbatch.engine import PartOutcome, PartTask
from mlbatch.errors import MlbatchError, PredictionError
from mlbatch.failpoint import reach
from mlbatch.job import Job, required_schema
from mlbatch.judging import Fault, Faults, judge_duplicates, judge_input, judge_output
from mlbatch.keys import texts
from mlbatch.ledger import BatchCommit, ModelPin, QuarantinedRow
from mlbatch.overlap import WriteBehind, read_ahead
from mlbatch.snapshot import Part
from mlbatch.table import MODEL_VERSION, RUN_NO, SOURCE_UPDATED_AT
from mlbatch.throttle import Limits, Pace, Throttle
from mlbatch.window import EARLIEST, LATEST

if TYPE_CHECKING:
    from mlbatch.model import Prediction
    from mlbatch.sink import PartSession
    from mlbatch.storage import Storage

LEAST_BATCH_ROWS = 1_024
MOST_BATCH_ROWS = 8_192
BATCH_BYTES = 256 * 1024
"""Of the part's file in a batch: large enough that its fixed costs vanish, small enough that memory
does not grow with the length of texts."""


_INCOMPARABLE = frozenset({"missing_key", "not_utf8", "out_of_range"})
"""Faults of an input whose key or time cannot be compared with other rows'."""


class Predictor(Protocol):
    """What scoring needs of a model."""

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        """A label and a score for each row of the job's input columns."""
        ...


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turns batches of one run into commits."""

    job: type[Job]
    model: Predictor
    pin: ModelPin
    run_no: int

    def score(self, batch: pa.RecordBatch, part_number: int, low: int) -> BatchCommit:
        """Predict ``batch``, which starts at row ``low`` of its part, and say what to commit."""
        found = self._judge(batch)
        duplicates = self._duplicates(batch, found)
        # Whatever an outdone row says, the newer row of its key says otherwise: also that it is gone.
        dead = self._tombstones(batch) & ~duplicates
        faults = {row: fault for row, fault in found.items() if not (dead | duplicates)[row]}
        alive = _rows_except(dead | duplicates, faults)
        rows, failed = self._predict(_taken(batch, alive))
        faults |= {int(alive[row]): fault for row, fault in failed.items()}
        kept = np.setdiff1d(np.arange(rows.num_rows), list(failed))
        upserts = sorted_by(_taken(rows, kept), self.job.output.table.key)
        return BatchCommit(
            part_number=part_number,
            low=low,
            high=low + batch.num_rows,
            upserts=upserts,
            deletes=self._deletes(batch, dead, faults),
            deleted=int(dead.sum()),
            filtered=int(duplicates.sum()),
            quarantined=tuple(self._quarantined(batch, low, faults)),
            checksum=checksum(upserts, self.job.output.table.checked),
        )

    def set_aside(self, batch: pa.RecordBatch, part_number: int, low: int) -> BatchCommit:
        """Commit a batch unseen, because its row killed a worker again and again."""
        faults = {row: Fault("killed_worker", "the worker died on it") for row in range(len(batch))}
        nobody = np.zeros(len(batch), dtype=bool)
        return BatchCommit(
            part_number=part_number,
            low=low,
            high=low + batch.num_rows,
            upserts=self._rows(batch.slice(0, 0), [], np.array([], dtype=float)),
            deletes=self._deletes(batch, nobody, faults),
            deleted=0,
            filtered=0,
            quarantined=tuple(self._quarantined(batch, low, faults)),
            checksum=0,
        )

    def _tombstones(self, batch: pa.RecordBatch) -> np.ndarray:
        column = self.job.features.view.tombstone
        if column is None:
            return np.zeros(batch.num_rows, dtype=bool)
        gone = pc.is_valid(batch.column(column))
        for name in self.job.features.view.key:
            gone = pc.and_(gone, pc.is_valid(batch.column(name)))
        return np.asarray(gone.to_numpy(zero_copy_only=False))

    def _judge(self, batch: pa.RecordBatch) -> Faults:
        view, table = self.job.features.view, self.job.output.table
        read = {*self.job.inputs, *table.passed_through}
        columns = [column for column in view.columns if column.name in read]
        return judge_input(batch, columns, view.key, self.job.limits.text_characters)

    def _duplicates(self, batch: pa.RecordBatch, faults: Faults) -> np.ndarray:
        view = self.job.features.view
        outdone = np.zeros(batch.num_rows, dtype=bool)
        incomparable = {
            row: fault for row, fault in faults.items() if fault.reason in _INCOMPARABLE
        }
        keyed = _rows_except(outdone, incomparable)
        told = _taken(batch.select(list(dict.fromkeys((*view.key, str(view.cursor))))), keyed)
        outdone[keyed] = judge_duplicates(told, view.key, str(view.cursor))
        return outdone

    def _predict(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Faults]:
        """Rows to write for ``batch``, and the faults of those that must not be written."""
        if not batch.num_rows:
            return self._rows(batch, [], np.array([], dtype=float)), {}
        try:
            answer = self.model.predict(batch.select(list(self.job.inputs)))
        except MlbatchError:
            raise
        except Exception as error:  # noqa: BLE001  a job's own code may raise anything
            return self._bisect(batch, error)
        labels, scores = list(answer.labels), np.asarray(answer.scores, dtype=float)
        if len(labels) != batch.num_rows or scores.shape != (batch.num_rows,):
            message = (
                f"{self.job.name}: for {batch.num_rows} rows the model gave {len(labels)} labels "
                f"and scores of shape {scores.shape}"
            )
            raise PredictionError(message, hint="predict must answer every row, in order")
        rows = self._rows(batch, labels, scores)
        return rows, judge_output(rows, self.job.output.table)

    def _bisect(self, batch: pa.RecordBatch, error: Exception) -> tuple[pa.RecordBatch, Faults]:
        if batch.num_rows == 1:
            fault = Fault("prediction_failed", f"{type(error).__name__} in predict")
            # Keeps the rows in step with the batch; the fault takes it out again.
            filler = self._rows(batch, [self.job.classes()[0]], np.array([0.0]))
            return filler, {0: fault}
        middle = batch.num_rows // 2
        left, left_faults = self._predict(batch.slice(0, middle))
        right, right_faults = self._predict(batch.slice(middle))
        shifted = {row + middle: fault for row, fault in right_faults.items()}
        return pa.concat_batches([left, right]), left_faults | shifted

    def _rows(
        self, batch: pa.RecordBatch, labels: Sequence[object], scores: np.ndarray
    ) -> pa.RecordBatch:
        table, view = self.job.output.table, self.job.features.view
        values: dict[str, pa.Array] = {name: batch.column(name) for name in table.passed_through}
        values[table.label] = _labels(labels, table.column(table.label).type)
        values[table.score] = pa.array(scores, pa.float64())
        values[MODEL_VERSION.name] = pa.repeat(self.pin.version, batch.num_rows)
        values[SOURCE_UPDATED_AT.name] = cursor_in_utc(batch.column(str(view.cursor)), view.zone)
        values[RUN_NO.name] = pa.repeat(self.run_no, batch.num_rows)
        schema = allowing_null(table.schema)
        arrays = [values[field.name].cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _deletes(self, batch: pa.RecordBatch, dead: np.ndarray, faults: Faults) -> pa.RecordBatch:
        key = self.job.output.table.key
        gone = dead.copy()
        gone[list(faults)] = True
        rows = _taken(batch.select(list(key)), np.flatnonzero(gone))
        return sorted_by(rows.filter(pc.is_valid(texts(rows, key))), key)

    def _quarantined(
        self, batch: pa.RecordBatch, low: int, faults: Faults
    ) -> Iterator[QuarantinedRow]:
        key = self.job.output.table.key
        rows = np.array(sorted(faults), dtype=int)
        told = texts(_taken(batch.select(list(key)), rows), key).fill_null("")
        for row, text in zip(rows.tolist(), told.to_pylist(), strict=True):
            yield QuarantinedRow(low + row, text, faults[row].reason, faults[row].detail)


def _rows_except(out: np.ndarray, faults: Faults) -> np.ndarray:
    kept = ~out
    kept[list(faults)] = False
    return np.flatnonzero(kept)


def _taken(batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    """The ``rows`` of ``batch``, ascending and each once; all of them are no copy."""
    return batch if len(rows) == batch.num_rows else batch.take(pa.array(rows, pa.int64()))


def _labels(labels: Sequence[object], kind: pa.DataType) -> pa.Array:
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    try:
        return pa.array(plain, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        message = f"the model's labels are not of the declared type {kind}: {error}"
        raise PredictionError(message) from error


def sorted_by(batch: pa.RecordBatch, key: tuple[str, ...]) -> pa.RecordBatch:
    """``batch`` in the ascending order of ``key``, in which every transaction writes."""
    return batch.sort_by([(name, "ascending") for name in key])


def cursor_in_utc(values: pa.Array, zone: str) -> pa.Array:
    """Cursor values as naive UTC; a missing one is the epoch, older than any real change."""
    naive = values.cast(pa.timestamp("us"))
    if zone != "UTC":
        aware = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="earliest")
        naive = aware.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
        # The first and last hours of what a datetime can be leave it in other zones.
        naive = pc.max_element_wise(naive, pa.scalar(EARLIEST, naive.type), skip_nulls=False)
        naive = pc.min_element_wise(naive, pa.scalar(LATEST, naive.type), skip_nulls=False)
    return naive.fill_null(pa.scalar(0, pa.timestamp("us")))


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


def score_part(
    task: PartTask,
    session: PartSession,
    storage: Storage,
    scorer: Scorer,
    *,
    batch_rows: int | None = None,
    limits: Limits = Limits(),  # noqa: B008  a value
) -> PartOutcome:
    """Bring one part from where its ledger row says it is to its end, in batches of ``batch_rows``.

    A batch is read while the one before is scored and the one before that is written; without
    ``batch_rows`` the part's bytes a row decide. ``limits`` say when to hold back. Raises Fenced when
    another process took the run over, SnapshotError when the part is no longer the adopted one.
    Whatever is raised, committed batches stay and the rest can be resumed.
    """
    state = session.position(task.part_number)
    part, done = state.part, state.done
    rows = batch_rows or suitable_rows(part)
    stages, polite = _Stages(), _Polite(session, limits, rows)
    schema = required_schema(scorer.job)
    with (
        storage.open(part.file_uri, etag=part.etag) as file,
        WriteBehind(stages.timing("write", polite.commit)) as writer,
    ):
        ahead = _Ahead(task, scorer, stages, polite, writer)
        while done < part.rows:
            stop, size = _next_stretch(task, done, part.rows, rows)
            batches = read_part(file, part, schema, start=done, stop=stop, batch_rows=size)
            done = ahead.go(batches, done)
    return PartOutcome(task.part_number, stages.seconds)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Scores one batch while the next is read and the last is written."""

    task: PartTask
    scorer: Scorer
    stages: _Stages
    polite: _Polite
    writer: WriteBehind[BatchCommit]

    def go(self, batches: Iterator[pa.RecordBatch], done: int) -> int:
        """Score ``batches``, the first of which begins at row ``done``; returns where they end."""
        for batch in self.polite.pieces(self.stages.waiting("read", read_ahead(batches))):
            reach("before_score")
            with self.stages.timed("score"):
                commit = _score(self.scorer, self.task, batch, done)
            reach("after_score")
            self.polite.wait(self.writer)
            self.writer.put(commit)
            if done < self.task.careful_until:
                # The position tells which row killed a worker: no write may lag behind.
                self.writer.wait()
            done = commit.high
        return done


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
