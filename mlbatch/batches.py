"""Batches: a part read from where it was left, in even slices, with its schema checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mlbatch.errors import SnapshotError, out_of_resources

if TYPE_CHECKING:
    from mlbatch.snapshot import Part

MOST_BYTES = 4 << 20
"""Of a batch in memory: where texts are long it has fewer rows than were asked for."""
WHOLE_GROUP_BYTES = 64 << 20
"""Up to this size a row group's columns are read each at once, in the order of the file."""
STREAM_BYTES = 4 << 20
"""Of each column at a time, where row groups are larger than that."""
INT96_UNIT = "us"
"""Of timestamps in Parquet's old form: Arrow's nanoseconds end in 2262, and begin anew in 1677."""


def rebatch(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut and join ``batches`` so that each but the last has exactly ``rows`` rows.

    A Parquet scan gives 256, 44, 256, 44 ... where row groups end; a commit should not.
    """
    waiting: list[pa.RecordBatch] = []
    have = 0
    for batch in batches:
        waiting.append(batch)
        have += batch.num_rows
        while have >= rows:
            joined = pa.concat_batches(waiting)
            yield joined.slice(0, rows)
            waiting, have = [joined.slice(rows)], have - rows
    if have:
        yield pa.concat_batches(waiting)


def read_part(
    file: pa.NativeFile,
    part: Part,
    schema: pa.Schema,
    *,
    start: int = 0,
    stop: int | None = None,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    """Batches of the rows ``[start, stop)`` of ``part``, in file order, cast to ``schema`` by name.

    Each but the last has ``batch_rows`` rows, or fewer where these would exceed `MOST_BYTES`. Row groups
    without any wanted row are not read, and memory depends neither on their size nor on the file's. A
    file that is not the promised Parquet raises SnapshotError naming the part.
    """
    end = part.rows if stop is None else stop
    try:
        parquet = _streaming(file)
        groups, skip = _groups_of(parquet.metadata, part.from_row + start, part.from_row + end)
        rows = min(batch_rows, _fitting_rows(parquet.metadata, groups))
        scan = parquet.iter_batches(rows, row_groups=groups, columns=_present(parquet, schema))
        wanted = _head(_without_head(scan, skip), end - start)
        for batch in rebatch(wanted, rows):
            conformed = conform(batch, schema, where=f"part {part.number} ({part.uri})")
            yield from _light(conformed)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"part {part.number} ({part.uri}) cannot be read: {error}"
        damaged = SnapshotError(message, hint="run again with --full to unload anew")
        # A machine that is short of memory or files says nothing about the part.
        raise out_of_resources(error) or damaged from error


def _streaming(file: pa.NativeFile) -> pq.ParquetFile:
    # By default Arrow reads ahead up to the last row group, and keeps everything.
    parquet = pq.ParquetFile(file, pre_buffer=False, coerce_int96_timestamp_unit=INT96_UNIT)
    metadata = parquet.metadata
    if all(
        _stored(metadata.row_group(n)) <= WHOLE_GROUP_BYTES for n in range(metadata.num_row_groups)
    ):
        return parquet
    return pq.ParquetFile(
        file,
        metadata=metadata,
        pre_buffer=False,
        buffer_size=STREAM_BYTES,
        coerce_int96_timestamp_unit=INT96_UNIT,
    )


def _stored(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(n).total_compressed_size for n in range(group.num_columns))


def _fitting_rows(metadata: pq.FileMetaData, groups: list[int]) -> int:
    """Rows of the densest of ``groups`` that take `MOST_BYTES`, one at least."""
    found = [metadata.row_group(number) for number in groups]
    sizes = [group.total_byte_size // max(group.num_rows, 1) for group in found]
    return max(MOST_BYTES // max(*sizes, 1, 1), 1)


def _light(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """``batch`` in even slices of some `MOST_BYTES`: texts that repeat take less in the file."""
    slices = min(-(-batch.nbytes // MOST_BYTES), batch.num_rows)
    rows = -(-batch.num_rows // max(slices, 1))
    for start in range(0, batch.num_rows, max(rows, 1)):
        yield batch.slice(start, rows)


def _present(parquet: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    have = set(parquet.schema_arrow.names)
    return [name for name in schema.names if name in have]


def _groups_of(metadata: pq.FileMetaData, start: int, end: int) -> tuple[list[int], int]:
    """Row groups with any of the rows ``[start, end)``, and how many rows to skip in the first."""
    groups: list[int] = []
    skip = begin = 0
    for number in range(metadata.num_row_groups):
        after = begin + metadata.row_group(number).num_rows
        if begin < end and start < after:
            skip = skip if groups else start - begin
            groups.append(number)
        begin = after
    return groups, skip


def _without_head(batches: Iterable[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        yield batch.slice(skip) if skip else batch
        skip = 0


def _head(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if rows <= 0:
            return
        yield batch.slice(0, rows)
        rows -= batch.num_rows


def conform(batch: pa.RecordBatch, schema: pa.Schema, *, where: str) -> pa.RecordBatch:
    """Order and cast the columns of ``batch`` to ``schema``; surplus columns are dropped.

    Nullability is the caller's business: one NULL row is quarantined, not the whole batch. Values
    that do not fit the declared type raise SnapshotError.
    """
    missing = [name for name in schema.names if name not in batch.schema.names]
    if missing:
        message = f"{where} lacks the column {', '.join(missing)}"
        raise SnapshotError(message, hint="the view and its query changed since the unload")
    try:
        arrays = [batch.column(field.name).cast(field.type) for field in schema]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"{where} does not have the declared types: {error}"
        raise SnapshotError(message, hint="mend the view's declaration or its SELECT") from error
    return pa.RecordBatch.from_arrays(arrays, schema=allowing_null(schema))


def allowing_null(schema: pa.Schema) -> pa.Schema:
    """``schema`` with every field nullable: what is missing is judged row by row."""
    return pa.schema([pa.field(field.name, field.type) for field in schema])
