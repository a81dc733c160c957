"""Takes a snapshot: unloads a SELECT and believes nothing that was not looked at.

Every part that the manifest promises must be there with its length, and its Parquet footer must
count the promised rows; the whole must be as many rows as the warehouse says it unloaded. A large file
becomes several parts, so that no worker is left alone with it at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlbatch.batches import INT96_UNIT
from mlbatch.errors import SnapshotError, out_of_resources
from mlbatch.snapshot import ManifestEntry, Part, Snapshot, piece_uri, read_manifest
from mlbatch.window import EARLIEST, LATEST, in_zone

PIECE_BYTES = 16 << 20
"""Of a part that is cut out of a larger file: some 50,000 long texts, a few seconds of one core."""

PARTS_KEPT = timedelta(days=14)
"""How long one may look at a row that was set aside; the bucket's rule in ``deploy`` has the same."""

LOOKERS = 8
"""Threads that look at files: what it takes is mostly the store's answers."""

if TYPE_CHECKING:
    from mlbatch.storage import Storage
    from mlbatch.warehouse import Warehouse


def take_snapshot(
    warehouse: Warehouse,
    storage: Storage,
    select: str,
    prefix: str,
    *,
    cursor: str | None = None,
    zone: str = "UTC",
    clock: datetime | None = None,
) -> Snapshot:
    """Unload ``select`` below ``prefix``, which nobody may have used before.

    ``cursor`` names the column whose highest value up to ``clock`` the snapshot reports, in ``zone``.
    Raises SnapshotError where manifest, objects, footers and the warehouse's own count disagree.
    """
    unloaded = warehouse.unload(select, prefix)
    if unloaded.manifest_uri is None:
        if unloaded.rows:
            message = f"{prefix}: {unloaded.rows} rows were unloaded, but there is no manifest"
            raise SnapshotError(message, hint="run again; the unload was cut short")
        return Snapshot(prefix, (), None)
    content = storage.read(unloaded.manifest_uri)
    entries = read_manifest(content, uri=unloaded.manifest_uri, prefix=prefix)
    promised = sum(entry.rows for entry in entries)
    if promised != unloaded.rows:
        message = f"{prefix}: the manifest has {promised} rows, the warehouse {unloaded.rows}"
        raise SnapshotError(message, hint="run again; the unload was cut short")
    full = [entry for entry in entries if entry.rows or entry.bytes]
    with ThreadPoolExecutor(LOOKERS, "mlbatch-look") as threads:
        looked_at = list(
            threads.map(lambda entry: _look(storage, entry, cursor, zone, clock), full)
        )
    cursors = [highest for _, highest, _ in looked_at if highest is not None]
    _check_schemas(prefix, [schema for _, _, schema in looked_at])
    pieces = (piece for pieces, _, _ in looked_at for piece in pieces if piece.rows)
    parts = tuple(replace(piece, number=number) for number, piece in enumerate(pieces))
    return Snapshot(prefix, parts, max(cursors, default=None))


def discard_old(storage: Storage, prefix: str, is_over: Callable[[str], bool]) -> None:
    """Let go of what lies below ``prefix`` since `PARTS_KEPT`, if what its folder is named after is over."""
    for old in storage.older(prefix, PARTS_KEPT):
        if is_over(old.removeprefix(prefix).removesuffix("/")):
            storage.discard(old)


def _look(
    storage: Storage, entry: ManifestEntry, cursor: str | None, zone: str, clock: datetime | None
) -> tuple[list[Part], datetime | None, pa.Schema]:
    stored = storage.stat(entry.uri)
    if stored.bytes != entry.bytes:
        message = f"{entry.uri} has {stored.bytes} bytes, the manifest says {entry.bytes}"
        raise SnapshotError(message, hint="run again with --full to unload anew")
    try:
        with storage.peek(entry.uri, stored) as file:
            parquet = pq.ParquetFile(file, coerce_int96_timestamp_unit=INT96_UNIT)
            rows = parquet.metadata.num_rows
            highest = highest_cursor(parquet, cursor, zone, clock) if cursor else None
            pieces = list(
                _pieces(parquet.metadata, Part(0, entry.uri, rows, entry.bytes, stored.etag))
            )
            schema = parquet.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"{entry.uri} is not a Parquet file: {error}"
        damaged = SnapshotError(message, hint="run again with --full to unload anew")
        raise out_of_resources(error) or damaged from error
    _check_rows(parquet.metadata, entry)
    return pieces, highest, schema


def _check_rows(metadata: pq.FileMetaData, entry: ManifestEntry) -> None:
    rows = metadata.num_rows
    in_groups = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    message = None
    if rows != entry.rows:
        message = f"{entry.uri} has {rows} rows, the manifest says {entry.rows}"
    elif rows != in_groups:
        message = f"{entry.uri} has {in_groups} rows in its row groups, its footer says {rows}"
    if message is not None:
        raise SnapshotError(message, hint="run again with --full to unload anew")


def _pieces(metadata: pq.FileMetaData, whole: Part) -> Iterator[Part]:
    """The file as it is, or a large one by row groups that together have `PIECE_BYTES` or more."""
    if whole.bytes < 2 * PIECE_BYTES:
        yield whole
        return
    begin = rows = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        size += sum(group.column(n).total_compressed_size for n in range(group.num_columns))
        if size >= PIECE_BYTES or number == metadata.num_row_groups - 1:
            uri = piece_uri(whole.uri, begin)
            yield replace(whole, uri=uri, rows=rows, bytes=size)
            begin, rows, size = begin + rows, 0, 0


def highest_cursor(
    parquet: pq.ParquetFile, cursor: str, zone: str, clock: datetime | None = None
) -> datetime | None:
    """Largest value of the column ``cursor``, which is in ``zone``, in UTC; None where there is none.

    Rows beyond the years of a datetime are quarantined, and do not count: they move no watermark. Nor
    do rows later than ``clock``: one of a wrong year would carry it over all that is loaded late.
    """
    last = LATEST if clock is None else in_zone(clock, zone)
    of_groups = (_highest_of(parquet, n, cursor, last) for n in range(parquet.num_row_groups))
    value = max((value for value in of_groups if value is not None), default=None)
    return None if value is None else to_utc(value, zone)


def _highest_of(
    parquet: pq.ParquetFile, group: int, cursor: str, latest: datetime
) -> datetime | None:
    kind = pa.timestamp("us")
    first, last = pa.scalar(EARLIEST, kind), pa.scalar(latest, kind)
    stated = _stated(parquet.metadata.row_group(group), cursor)
    if stated is not None and first.value <= stated <= last.value:
        return pa.scalar(stated, kind).as_py()
    values = parquet.read_row_group(group, [cursor]).column(cursor).cast(kind)
    known = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
    return pc.max(values.filter(known)).as_py()


def _stated(group: pq.RowGroupMetaData, cursor: str) -> int | None:
    """Microseconds of the highest value by the footer, where it says so plainly."""
    columns = (group.column(n) for n in range(group.num_columns))
    found = next((column for column in columns if column.path_in_schema == cursor), None)
    figures = None if found is None else found.statistics
    if figures is None or not figures.has_min_max:
        return None
    plain = "timeUnit=microseconds" in str(figures.logical_type)
    return int(figures.max_raw) if plain and figures.physical_type == "INT64" else None


def to_utc(naive: datetime, zone: str) -> datetime:
    """A cursor value without a zone, as the view's ``zone`` means it."""
    try:
        return naive.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    except OverflowError:
        return naive.replace(tzinfo=UTC)


def _check_schemas(prefix: str, schemas: list[pa.Schema]) -> None:
    for number, schema in enumerate(schemas[1:], start=1):
        if not schema.equals(schemas[0]):
            message = f"{prefix}: part {number} has other columns or types than part 0"
            raise SnapshotError(message, hint="cast the column in the SELECT, then run again")
