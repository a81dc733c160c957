"""Features of labelled rows, made once by all workers and kept on disk for every epoch.

One Arrow file a part, with a record batch for each batch of rows; sparse features are its lists of
columns and of values. The folder has a bound: a part that would exceed its share is not kept, and its
features are made again in each epoch, which is slow but the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import ipc
from scipy.sparse import csr_matrix, issparse

from mlbatch.engine import PartOutcome, PartTask, WorkerDied
from mlbatch.errors import OutOfResources, RunFailed, out_of_resources
from mlbatch.fitting import LabelledBatch
from mlbatch.overlap import read_ahead

if TYPE_CHECKING:
    from mlbatch.engine import Engine
    from mlbatch.labelled import LabelledInputs, LabelledRows
    from mlbatch.snapshot import Part, Snapshot

_WIDTH = b"mlbatch.width"
"""How many columns the features have."""


@dataclass(slots=True)
class Extracted:
    """The features of a snapshot's rows, batch by batch."""

    rows: LabelledRows
    snapshot: Snapshot
    folder: Path
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that cannot be learnt from, by reason."""

    def epoch(self, _: int) -> Iterator[LabelledBatch]:
        """All batches, the same in every epoch, each read while the one before is learnt from."""
        return read_ahead(self._batches())

    def _batches(self) -> Iterator[LabelledBatch]:
        for part in self.snapshot.parts:
            path = _path(self.folder, part)
            yield from read_features(path) if path.exists() else self.rows.features(part, Counter())

    def read(self) -> Iterator[LabelledInputs]:
        """The same rows before their features were made."""
        return (rows for part in self.snapshot.parts for rows in self.rows.read(part, Counter()))

    @property
    def kept(self) -> int:
        """How many parts are on disk."""
        return sum(_path(self.folder, part).exists() for part in self.snapshot.parts)


def extract(
    rows: LabelledRows, snapshot: Snapshot, folder: Path, engine: Engine, limit_bytes: int
) -> Extracted:
    """Make the features of every part into ``folder``, which must exist; a worker, a part at a time.

    Raises RunFailed naming the part whose worker was killed, OutOfResources naming the part and the
    folder where the disk is full.
    """
    share = limit_bytes // max(snapshot.rows, 1)
    work = ExtractPart(rows, snapshot.parts, folder, share)
    tasks = [PartTask(index) for index in range(len(snapshot.parts))]
    for _ in engine.run(work, tasks, _give_up):
        pass
    found = Extracted(rows, snapshot, folder)
    for part in snapshot.parts:
        notes = json.loads(_notes(folder, part).read_text(encoding="utf-8"))
        found.left_out.update(notes)
    return found


def _give_up(death: WorkerDied) -> PartTask:
    message = f"a worker died at part {death.task.part_number} (exit {death.exit_code})"
    raise RunFailed(message, hint="a row's text kills the pipeline's features; infer names the row")


@dataclass(frozen=True, slots=True)
class ExtractPart:
    """What a worker process carries."""

    rows: LabelledRows
    parts: tuple[Part, ...]
    folder: Path
    bytes_per_row: int

    def __call__(self, task: PartTask) -> PartOutcome:
        """Extract the part with the task's number in the order of the snapshot."""
        part = self.parts[task.part_number]
        left_out: Counter[str] = Counter()
        batches = self.rows.features(part, left_out)
        with _room_for(part, self.folder):
            write_features(_path(self.folder, part), batches, self.bytes_per_row * part.rows)
            _notes(self.folder, part).write_text(json.dumps(left_out), encoding="utf-8")
        return PartOutcome(task.part_number, {})


@contextmanager
def _room_for(part: Part, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        shortage = out_of_resources(error)
        if shortage is None:
            raise
        message = f"the features of part {part.number} do not fit into {folder}: {shortage.message}"
        hint = "make room there, or lower the job's cache_megabytes; then train again"
        raise OutOfResources(message, hint=hint) from error


def _path(folder: Path, part: Part) -> Path:
    return folder / f"{part.number}.arrow"


def _notes(folder: Path, part: Part) -> Path:
    return folder / f"{part.number}.json"


def write_features(path: Path, batches: Iterator[LabelledBatch], limit_bytes: int) -> bool:
    """Write ``batches`` to ``path``; False, and no file, when they take more than ``limit_bytes``.

    ``batches`` are read to their end either way.
    """
    partial, fits = path.with_suffix(".partial"), True
    with pa.OSFile(str(partial), "wb") as file:
        writer = None
        for batch in batches:
            record = to_record(batch)
            if writer is None:
                options = ipc.IpcWriteOptions(compression="lz4")
                writer = ipc.new_file(file, record.schema, options=options)
            if fits:
                writer.write_batch(record)
                fits = file.tell() <= limit_bytes
        if writer is not None:
            writer.close()
    if fits and writer is not None:
        partial.replace(path)
    else:
        partial.unlink()
    return fits


def read_features(path: Path) -> Iterator[LabelledBatch]:
    """What `write_features` wrote, a batch in memory at a time."""
    with pa.memory_map(str(path)) as file, ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield from_record(reader.get_batch(number))


def to_record(batch: LabelledBatch) -> pa.RecordBatch:
    """A labelled batch as Arrow; features are a sparse matrix or a plain one."""
    columns: dict[str, pa.Array] = {"label": pa.array(batch.labels), "split": pa.array(batch.split)}
    if issparse(batch.features):
        sparse = csr_matrix(batch.features)
        begins = pa.array(sparse.indptr, pa.int32())
        columns["column"] = pa.ListArray.from_arrays(begins, pa.array(sparse.indices))
        columns["value"] = pa.ListArray.from_arrays(begins, pa.array(sparse.data))
    else:
        plain = np.asarray(batch.features)
        columns["value"] = pa.FixedSizeListArray.from_arrays(
            pa.array(plain.ravel()), plain.shape[1]
        )
    record = pa.record_batch(columns)
    return record.replace_schema_metadata({_WIDTH: str(batch.features.shape[1])})


def from_record(record: pa.RecordBatch) -> LabelledBatch:
    """The labelled batch that `to_record` was given."""
    value = record.column("value")
    shape = (record.num_rows, int(record.schema.metadata[_WIDTH]))
    if "column" in record.schema.names:
        column = record.column("column")
        parts = (value.values.to_numpy(), column.values.to_numpy(), column.offsets.to_numpy())
        features = csr_matrix(parts, shape=shape)
    else:
        features = value.values.to_numpy().reshape(shape)
    labels = np.array(record.column("label").to_pylist())
    return LabelledBatch(features, labels, record.column("split").to_numpy())
