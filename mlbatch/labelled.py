"""Training data: labelled rows of a snapshot, in the order of a stable hash of their key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlbatch.batches import read_part
from mlbatch.fitting import LabelledBatch
from mlbatch.judging import judge_input
from mlbatch.query import training_query

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.snapshot import Snapshot
    from mlbatch.storage import Storage

BATCH_ROWS = 1_024
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
        tombstone=view.tombstone,
        feature_columns=[column.name for column in view.columns if column.name in wanted],
        label=job.output.table.label,
    )


@dataclass(slots=True)
class LabelledRows:
    """Re-iterable training rows of one snapshot; counts what it leaves out."""

    job: type[Job]
    snapshot: Snapshot
    storage: Storage
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of one pass that cannot be learnt from, by reason."""

    def epoch(self, _: int) -> Iterator[LabelledBatch]:
        """The batches of one pass over all parts, the same in every epoch."""
        self.left_out.clear()
        schema = self._schema()
        for part in self.snapshot.parts:
            with self.storage.open(part.uri, etag=part.etag) as file:
                for batch in read_part(file, part, schema, batch_rows=BATCH_ROWS):
                    kept = self._learnable(batch)
                    if kept.num_rows:
                        yield self._labelled(kept)

    def _schema(self) -> pa.Schema:
        view, table = self.job.features.view, self.job.output.table
        inputs = [view.column(name).field for name in self.job.inputs]
        label = pa.field(table.label, table.column(table.label).type)
        return pa.schema([*inputs, label, pa.field(SPLIT, pa.string())])

    def _learnable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        view = self.job.features.view
        columns = [view.column(name) for name in self.job.inputs]
        faults = judge_input(batch, columns, (), self.job.limits.text_characters)
        reasons = {row: fault.reason for row, fault in faults.items()}
        labels = batch.column(self.job.output.table.label).to_pylist()
        known = set(self.job.classes())
        reasons |= {row: "unknown_label" for row, label in enumerate(labels) if label not in known}
        for reason in reasons.values():
            self.left_out[reason] = self.left_out.get(reason, 0) + 1
        kept = [row for row in range(batch.num_rows) if row not in reasons]
        return batch.take(pa.array(kept, pa.int64()))

    def _labelled(self, batch: pa.RecordBatch) -> LabelledBatch:
        labels = batch.column(self.job.output.table.label).to_pylist()
        return LabelledBatch(
            batch=batch.select(list(self.job.inputs)),
            labels=np.array(labels),
            split=np.array([fraction(text) for text in batch.column(SPLIT).to_pylist()]),
        )


def fraction(digest: str) -> float:
    """A hexadecimal hash as a number in [0, 1)."""
    return int(digest[:_HEX_DIGITS], 16) / 16**_HEX_DIGITS
