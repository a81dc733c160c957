"""Compares the source with what was really predicted. Pure: tables in, keys out.

A watermark cannot see a row that was loaded late with an old time, nor one that vanished without a
tombstone. This can, because it looks at every key.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

Keys = tuple[tuple[object, ...], ...]
_SOURCE_AT, _TABLE_AT, _VERSION = "mlbatch_source_at", "mlbatch_table_at", "mlbatch_version"


@dataclass(frozen=True, slots=True)
class Differences:
    """What is not as it should be, by key."""

    missing: Keys
    """In the source, without a prediction."""
    stale: Keys
    """Of another time in the source than they were predicted from."""
    outdated: Keys
    """Predicted by another version of the model."""
    gone: Keys
    """Predicted, and no longer in the source."""
    source_rows: int
    table_rows: int

    @property
    def wanting(self) -> Keys:
        """Rows to predict again, each once."""
        return tuple(dict.fromkeys((*self.missing, *self.stale, *self.outdated)))


def compare(
    source: pa.Table, table: pa.Table, key: tuple[str, ...], version: int | None
) -> Differences:
    """Find the differences.

    Args:
        source: Live rows: ``key`` and ``source_at``, when each last changed, naive UTC.
        table: Predictions: ``key``, ``src_updated_at`` and ``model_version``.
        key: Names of the key's columns, the same in both.
        version: The version that should have predicted every row; None asks nothing of it.
    """
    # A row without a key can have no prediction: runs set it aside, and nothing mends that here.
    left = _keyed(source.select([*key, "source_at"]), key).rename_columns([*key, _SOURCE_AT])
    right = table.select([*key, "src_updated_at", "model_version"])
    right = right.rename_columns([*key, _TABLE_AT, _VERSION])
    joined = left.join(right, list(key), join_type="full outer", use_threads=False)
    in_source = pc.is_valid(joined[_SOURCE_AT])
    in_table = pc.is_valid(joined[_VERSION])
    both = pc.and_(in_source, in_table)
    # Not only later: a source that was restored has older times than were predicted.
    changed = pc.fill_null(pc.not_equal(joined[_SOURCE_AT], joined[_TABLE_AT]), fill_value=False)
    other = pc.fill_null(pc.not_equal(joined[_VERSION], version or 0), fill_value=False)
    return Differences(
        missing=_keys(joined, pc.and_(in_source, pc.invert(in_table)), key),
        stale=_keys(joined, pc.and_(both, changed), key),
        outdated=_keys(joined, pc.and_(both, other), key) if version is not None else (),
        gone=_keys(joined, pc.and_(pc.invert(in_source), in_table), key),
        source_rows=source.num_rows,
        table_rows=table.num_rows,
    )


def _keyed(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    for name in key:
        rows = rows.filter(pc.is_valid(rows[name]))
    return rows


def _keys(joined: pa.Table, wanted: pa.ChunkedArray, key: tuple[str, ...]) -> Keys:
    found = joined.filter(wanted).select(list(key)).sort_by([(name, "ascending") for name in key])
    return tuple(tuple(row[name] for name in key) for row in found.to_pylist())
