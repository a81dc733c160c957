"""Scoring: a batch is judged, predicted and judged again, which says what to commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null
from mlbatch.checksum import checksum
from mlbatch.errors import MlbatchError, OutOfResources, PredictionError, causes, out_of_resources
from mlbatch.job import Job
from mlbatch.judging import (
    Fault,
    Faults,
    condemn,
    judge_duplicates,
    judge_input,
    judge_keys,
    judge_output,
)
from mlbatch.keys import texts
from mlbatch.ledger import BatchCommit, ModelPin, QuarantinedRow
from mlbatch.query import GONE
from mlbatch.table import MODEL_VERSION, RUN_NO, SOURCE_UPDATED_AT
from mlbatch.time_limit import time_limit
from mlbatch.window import EARLIEST, LATEST

if TYPE_CHECKING:
    from mlbatch.model import Prediction


class Predictor(Protocol):
    """What scoring needs of a model."""

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        """A label and a score for each row of the job's input columns."""
        ...


_SHOWN_CHARACTERS = 200


@dataclass(slots=True)
class Answers:
    """How the model has done so far: who commits can tell a bad row from a model that does not work."""

    good: int = 0
    failed: int = 0
    first_fault: str = ""

    def count(self, rows: int, failed: Faults) -> None:
        """The model was asked for ``rows``, and these of them ``failed``."""
        self.good += rows - len(failed)
        self.failed += len(failed)
        if failed:
            self.note(failed[min(failed)].detail)

    def note(self, fault: str) -> None:
        """Remember ``fault`` if it is the first."""
        self.first_fault = self.first_fault or fault[:_SHOWN_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turns batches of one run into commits."""

    job: type[Job]
    model: Predictor
    pin: ModelPin
    run_no: int
    answers: Answers = field(default_factory=Answers)

    def score(self, batch: pa.RecordBatch, part_number: int, low: int) -> BatchCommit:
        """Predict ``batch``, which starts at row ``low`` of its part, and say what to commit."""
        found = self._judge(batch)
        keyless = judge_keys(batch, self.job.features.view.key)
        duplicates = self._duplicates(batch, keyless)
        # Whatever an outdone row says, the newer row of its key says otherwise: also that it is gone.
        dead = self._tombstones(batch) & ~duplicates
        faults = {row: fault for row, fault in found.items() if not (dead | duplicates)[row]}
        alive = _rows_except(dead | duplicates, faults)
        what = f"{self.job.name}: a batch of {batch.num_rows:,} rows"
        with time_limit(self.job.limits.batch_seconds, what):
            rows, failed = self._predict(_taken(batch, alive))
        self.answers.count(rows.num_rows, failed)
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
        killed = Fault("killed_worker", "the worker died on it")
        faults = condemn(batch, self.job.output.table.key, killed)
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
        column = self.job.features.view.tombstone or GONE
        if column not in batch.schema.names:
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

    def _duplicates(self, batch: pa.RecordBatch, keyless: Faults) -> np.ndarray:
        view = self.job.features.view
        outdone = np.zeros(batch.num_rows, dtype=bool)
        keyed = _rows_except(outdone, keyless)
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
            self._check_machine(batch, error)
            self.answers.note(f"{type(error).__name__}: {error}")
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

    def _check_machine(self, batch: pa.RecordBatch, error: Exception) -> None:
        """Raise OutOfResources where it is this machine that failed, which no row is to blame for.

        Where memory is short, a smaller batch may fit; one row cannot be cut. Only the system's own
        errors count: the text of another may quote a row, and rows may say anything.
        """
        system = next((c for c in causes(error) if isinstance(c, OSError | MemoryError)), None)
        short = out_of_resources(system) if system is not None else None
        if short is None or (isinstance(system, MemoryError) and batch.num_rows > 1):
            return
        key = self.job.output.table.key
        first = texts(batch.slice(0, 1).select(list(key)), key)[0].as_py()
        message = f"{self.job.name}: in predict, at the row {first}: {short.message}"
        hint = short.hint
        if isinstance(system, MemoryError):
            hint = f"{hint}. If it is always this row, change it in the source, then --supersede"
        raise OutOfResources(message, hint=hint) from error

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
        gone[list(judge_keys(batch, key))] = False
        return sorted_by(_taken(batch.select(list(key)), np.flatnonzero(gone)), key)

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
