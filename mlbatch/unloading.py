"""Takes a snapshot: unloads a SELECT and believes nothing that was not looked at.

Every part that the manifest promises must be there with its length, and its Parquet footer must
count the promised rows; the whole must be as many rows as the warehouse says it unloaded.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlbatch.errors import SnapshotError
from mlbatch.snapshot import ManifestEntry, Part, Snapshot, read_manifest
from mlbatch.window import EARLIEST, LATEST

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
) -> Snapshot:
    """Unload ``select`` below ``prefix``, which nobody may have used before.

    ``cursor`` names the column whose highest value the snapshot reports, in ``zone``. Raises
    SnapshotError where manifest, objects, footers and the warehouse's own count disagree.
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
    looked_at = [_look(storage, number, e, cursor, zone) for number, e in enumerate(full)]
    cursors = [highest for _, highest, _ in looked_at if highest is not None]
    _check_schemas(prefix, [schema for _, _, schema in looked_at])
    parts = tuple(part for part, _, _ in looked_at if part.rows)
    return Snapshot(prefix, parts, max(cursors, default=None))


def _look(
    storage: Storage, number: int, entry: ManifestEntry, cursor: str | None, zone: str
) -> tuple[Part, datetime | None, pa.Schema]:
    stored = storage.stat(entry.uri)
    if stored.bytes != entry.bytes:
        message = f"{entry.uri} has {stored.bytes} bytes, the manifest says {entry.bytes}"
        raise SnapshotError(message, hint="run again with --full to unload anew")
    try:
        with storage.open(entry.uri, etag=stored.etag) as file:
            parquet = pq.ParquetFile(file)
            rows = parquet.metadata.num_rows
            highest = _highest(parquet, cursor, zone) if cursor else None
            schema = parquet.schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        message = f"{entry.uri} is not a Parquet file: {error}"
        raise SnapshotError(message, hint="run again with --full to unload anew") from error
    if rows != entry.rows:
        message = f"{entry.uri} has {rows} rows, the manifest says {entry.rows}"
        raise SnapshotError(message, hint="run again with --full to unload anew")
    return Part(number, entry.uri, rows, entry.bytes, stored.etag), highest, schema


def _highest(parquet: pq.ParquetFile, cursor: str, zone: str) -> datetime | None:
    values = parquet.read([cursor]).column(cursor).cast(pa.timestamp("us"))
    # Rows beyond the years of a datetime are quarantined; they move no watermark.
    first, last = (pa.scalar(edge, values.type) for edge in (EARLIEST, LATEST))
    known = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
    value = pc.max(values.filter(known)).as_py()
    return None if value is None else to_utc(value, zone)


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
