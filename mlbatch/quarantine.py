"""Sets the rest of a part aside whole, because it kills whoever scores it.

Its rows are counted as quarantined, each with its key where the keys can be read; by the keys the
predictions that they had are removed, in the same transactions that move the part's position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from mlbatch.batches import allowing_null, read_part
from mlbatch.engine import PartOutcome, PartTask, Surrender
from mlbatch.job import Job, required_schema
from mlbatch.judging import Fault, condemn, judge_keys
from mlbatch.keys import UNREADABLE, texts
from mlbatch.ledger import BatchCommit, QuarantinedRow
from mlbatch.scoring import sorted_by

if TYPE_CHECKING:
    from mlbatch.sink import PartSession
    from mlbatch.snapshot import Part
    from mlbatch.storage import Storage

BATCH_ROWS = 1_024
KILLED = "part_killed_worker"
"""Reason of a row whose key is known; it is `UNREADABLE` where nothing is known but its place."""


def set_part_aside(
    task: PartTask, session: PartSession, storage: Storage, job: type[Job]
) -> PartOutcome:
    """Quarantine what is left of a part without scoring it; no model is needed.

    Raises Fenced when another process took the run over, SnapshotError when the part is no longer
    the adopted one.
    """
    state = session.position(task.part_number)
    part = state.part
    keys = pa.schema([required_schema(job).field(name) for name in job.output.table.key])
    is_read = task.surrender is Surrender.KEYS
    batches = _read(part, keys, storage, state.done) if is_read else _blank(part, keys, state.done)
    low = state.done
    for batch in batches:
        session.commit(_commit(batch, part, low, job, KILLED if is_read else UNREADABLE))
        low += batch.num_rows
    return PartOutcome(task.part_number, {})


def _read(part: Part, keys: pa.Schema, storage: Storage, start: int) -> Iterator[pa.RecordBatch]:
    with storage.open(part.file_uri, etag=part.etag) as file:
        yield from read_part(file, part, keys, start=start, batch_rows=BATCH_ROWS)


def _blank(part: Part, keys: pa.Schema, start: int) -> Iterator[pa.RecordBatch]:
    for low in range(start, part.rows, BATCH_ROWS):
        rows = min(BATCH_ROWS, part.rows - low)
        arrays = [pa.nulls(rows, field.type) for field in keys]
        yield pa.RecordBatch.from_arrays(arrays, schema=allowing_null(keys))


def _commit(
    batch: pa.RecordBatch, part: Part, low: int, job: type[Job], reason: str
) -> BatchCommit:
    table = job.output.table
    told, keyless = texts(batch, table.key), judge_keys(batch, table.key)
    known = [row for row in range(batch.num_rows) if row not in keyless]
    whole = Fault(reason, f"part {part.number} killed its workers and was set aside whole")
    is_read = reason != UNREADABLE
    faults = (
        condemn(batch, table.key, whole) if is_read else dict.fromkeys(range(len(batch)), whole)
    )
    return BatchCommit(
        part_number=part.number,
        low=low,
        high=low + batch.num_rows,
        upserts=pa.RecordBatch.from_pylist([], schema=allowing_null(table.schema)),
        deletes=sorted_by(batch.take(pa.array(known, pa.int64())), table.key),
        deleted=0,
        filtered=0,
        quarantined=tuple(
            QuarantinedRow(low + row, text, faults[row].reason, faults[row].detail)
            for row, text in enumerate(told.fill_null("").to_pylist())
        ),
        checksum=0,
    )
