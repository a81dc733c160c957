"""Batches: a part read from where it was left, in even slices, with its schema checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mlbatch.errors import SnapshotError, out_of_resources

if TYPE_CHECKING:
    from mlbatch.snapshot import Part


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

    Whole row groups before ``start`` are not read. A file that is not the promised Parquet raises
    SnapshotError naming the part.
    """
    end = part.rows if stop is None else stop
    try:
        parquet = pq.ParquetFile(file)
        groups, skip = _groups_from(parquet, part.from_row + start)
        scan = parquet.iter_batches(
            batch_rows, row_groups=groups, columns=_present(parquet, schema)
        )
        wanted = _head(_without_head(scan, skip), end - start)
        for batch in rebatch(wanted, batch_rows):
            yield conform(batch, schema, where=f"part {part.number} ({part.uri})")
    except (pa.ArrowException, OSError) as error:
        message = f"part {part.number} ({part.uri}) cannot be read: {error}"
        damaged = SnapshotError(message, hint="run again with --full to unload anew")
        # A machine that is short of memory or files says nothing about the part.
        raise out_of_resources(error) or damaged from error


def _present(parquet: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    have = set(parquet.schema_arrow.names)
    return [name for name in schema.names if name in have]


def _groups_from(parquet: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    first, skip = 0, start
    while first < parquet.num_row_groups and skip >= parquet.metadata.row_group(first).num_rows:
        skip -= parquet.metadata.row_group(first).num_rows
        first += 1
    return list(range(first, parquet.num_row_groups)), skip


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
