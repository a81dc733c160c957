"""Training data: labelled rows of a snapshot, in the order of a stable hash of their key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlbatch.batches import read_part
from mlbatch.fitting import LabelledBatch
from mlbatch.job import reading_inputs_only
from mlbatch.judging import judge_input
from mlbatch.query import training_query

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.snapshot import Part
    from mlbatch.storage import Storage

BATCH_ROWS = 4_096
"""Each call of `partial_fit` goes through all weights of a model once, however few rows it has."""
SPLIT = "mlbatch_split"
_HEX_DIGITS = 13
"""Digits of the hash that become a fraction: 52 bits, what a float holds exactly."""


def select_training_rows(job: type[Job]) -> str:
    """The SELECT that joins features and labels, ordered by a hash of the key."""
    view = job.features.view
    wanted = {*job.inputs, *view.key}
    return training_query(
        view.query,
        job.labels.view.query,
        key=view.key,
        split_by=job.split_key(),
        cursor=view.cursor,
        tombstone=view.tombstone,
        feature_columns=[column.name for column in view.columns if column.name in wanted],
        label=job.output.table.label,
    )


@dataclass(frozen=True, slots=True)
class LabelledInputs:
    """Rows as they were read."""

    batch: pa.RecordBatch
    """The job's input columns."""
    labels: np.ndarray
    """Shape (rows,)."""
    split: np.ndarray
    """A stable hash of each row's split key in [0, 1), shape (rows,)."""


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The training rows of a snapshot. Picklable: workers read parts of it."""

    job: type[Job]
    storage: Storage

    def features(self, part: Part, left_out: Counter[str]) -> Iterator[LabelledBatch]:
        """What the steps of the job's pipeline but the last make of `read`.

        Raises DeclarationError where they read a column that is not an input.
        """
        steps = self.job.model()[:-1]
        for rows in self.read(part, left_out):
            with reading_inputs_only(self.job):
                features = steps.transform(rows.batch)
            yield LabelledBatch(features, rows.labels, rows.split)

    def read(self, part: Part, left_out: Counter[str]) -> Iterator[LabelledInputs]:
        """One part's batches, the same at every reading; ``left_out`` counts others by reason."""
        with self.storage.open(part.file_uri, etag=part.etag) as file:
            for batch in read_part(file, part, self._schema(), batch_rows=BATCH_ROWS):
                kept = self._learnable(batch, left_out)
                if kept.num_rows:
                    yield self._labelled(kept)

    def _schema(self) -> pa.Schema:
        view, table = self.job.features.view, self.job.output.table
        inputs = [view.column(name).field for name in self.job.inputs]
        label = pa.field(table.label, table.column(table.label).type)
        return pa.schema([*inputs, label, pa.field(SPLIT, pa.string())])

    def _learnable(self, batch: pa.RecordBatch, left_out: Counter[str]) -> pa.RecordBatch:
        view = self.job.features.view
        columns = [view.column(name) for name in self.job.inputs]
        faults = judge_input(batch, columns, (), self.job.limits.text_characters)
        reasons = {row: fault.reason for row, fault in faults.items()}
        labels = batch.column(self.job.output.table.label).to_pylist()
        known = set(self.job.classes())
        reasons |= {row: "unknown_label" for row, label in enumerate(labels) if label not in known}
        # With the rows of no group on both sides of a split, the model would be judged on what it saw.
        splits = batch.column(SPLIT).to_pylist()
        reasons |= {row: "no_split_key" for row, split in enumerate(splits) if split is None}
        left_out.update(reasons.values())
        kept = [row for row in range(batch.num_rows) if row not in reasons]
        return batch.take(pa.array(kept, pa.int64()))

    def _labelled(self, batch: pa.RecordBatch) -> LabelledInputs:
        labels = batch.column(self.job.output.table.label).to_pylist()
        return LabelledInputs(
            batch=batch.select(list(self.job.inputs)),
            labels=np.array(labels),
            split=np.array([fraction(text) for text in batch.column(SPLIT).to_pylist()]),
        )


def fraction(digest: str) -> float:
    """A hexadecimal hash as a number in [0, 1)."""
    return int(digest[:_HEX_DIGITS], 16) / 16**_HEX_DIGITS
