"""Compares the source with what was really predicted. Pure: rows in, keys out.

A watermark cannot see a row that was loaded late with an old time, nor one that vanished without a
tombstone. This can, because it looks at every key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.buckets import TOLD, together
from mlbatch.keys import TEXT_CHARACTERS, texts

Keys = tuple[tuple[object, ...], ...]
TOLD_ROWS = 1_000
NAMED = 20_000
"""Keys of a kind that are kept; the others are counted."""
_UNTIL = "mlbatch_until"
ASIDE = pa.schema([(TOLD, pa.string()), (_UNTIL, pa.timestamp("us"))])
_SOURCE_AT, _TABLE_AT, _VERSION = "mlbatch_source_at", "mlbatch_table_at", "mlbatch_version"


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one kind: how many they are, and the lowest of their keys."""

    count: int = 0
    first: Keys = ()
    """Ascending; all of them where they are no more than `NAMED`."""

    def __add__(self, other: Found) -> Found:
        """Both, of which no row is in the other."""
        first = sorted((*self.first, *other.first))[:NAMED]
        return Found(self.count + other.count, tuple(first))


@dataclass(frozen=True, slots=True)
class Differences:
    """What is not as it should be, by key."""

    missing: Found = Found()
    """In the source, without a prediction."""
    stale: Found = Found()
    """Of another time in the source than they were predicted from."""
    outdated: Found = Found()
    """Predicted by another version of the model."""
    gone: Found = Found()
    """Predicted, and no longer in the source."""
    wanting: Found = Found()
    """Missing, stale or outdated, each once: rows to predict again."""
    set_aside: Found = Found()
    """Rows without a prediction that are excused, and no other is."""
    source_rows: int = 0
    table_rows: int = 0

    def __add__(self, other: Differences) -> Differences:
        """Those of two comparisons that have no key in common."""
        return Differences(
            self.missing + other.missing,
            self.stale + other.stale,
            self.outdated + other.outdated,
            self.gone + other.gone,
            self.wanting + other.wanting,
            self.set_aside + other.set_aside,
            self.source_rows + other.source_rows,
            self.table_rows + other.table_rows,
        )


@dataclass(frozen=True, slots=True)
class Excuses:
    """What is no difference, although it looks like one."""

    changed_after: datetime | None = None
    """Rows that changed or went later than this, naive UTC, are the next delta's."""
    set_aside: Iterable[tuple[str, datetime | None]] = ()
    """Keys, as the quarantine has them, and until when a row of this key may have changed and still lack
    a prediction (UTC); None, it may not. Read once; of a key that comes again the last counts."""


def compare_all(
    source: pa.RecordBatchReader,
    table: pa.RecordBatchReader,
    key: tuple[str, ...],
    version: int | None,
    excuses: Excuses = Excuses(),
) -> Differences:
    """Find the differences of any number of rows, in memory that does not grow with them.

    Args:
        source: All rows: ``key``, ``source_at``, when each last changed, naive UTC, and ``alive``.
        table: Predictions: ``key``, ``src_updated_at`` and ``model_version``.
        key: Names of the key's columns, the same in both.
        version: The version that should have predicted every row; None asks nothing of it.
        excuses: What counts as no difference.
    """
    found = Differences()
    for rows, predictions, told in together((source, table, _told(excuses.set_aside)), key):
        live = rows.filter(rows["alive"])
        recent = None
        if excuses.changed_after is not None:
            at = pa.scalar(excuses.changed_after, rows["source_at"].type)
            recent = rows.filter(pc.greater(rows["source_at"], at))
        found += compare(live, predictions, key, version, recent=recent, aside=told)
    return found


def _told(keys: Iterable[tuple[str, datetime | None]]) -> pa.RecordBatchReader:
    """``keys`` as a stream for `together`, which keeps their order."""
    left = iter(keys)
    pages = iter(lambda: list(itertools.islice(left, TOLD_ROWS)), [])
    return pa.RecordBatchReader.from_batches(ASIDE, map(as_aside, pages))


def as_aside(keys: Sequence[tuple[str, datetime | None]]) -> pa.RecordBatch:
    """Keys that were set aside as `compare` takes them."""
    told, until = [key for key, _ in keys], [at and at.replace(tzinfo=None) for _, at in keys]
    arrays = [pa.array(told, pa.string()), pa.array(until, ASIDE.field(_UNTIL).type)]
    return pa.RecordBatch.from_arrays(arrays, schema=ASIDE)


def compare(
    source: pa.Table,
    table: pa.Table,
    key: tuple[str, ...],
    version: int | None,
    *,
    recent: pa.Table | None = None,
    aside: pa.Table | None = None,
) -> Differences:
    """Find the differences of rows in memory; see `compare_all`.

    ``source`` has live rows only; the keys of ``recent`` are in no difference, and rows that have not
    changed since ``aside`` says their key's text last may be missing.
    """
    joined = _joined(source, table, key)
    if recent is not None:
        late = _keyed(recent.select(list(key)), key)
        joined = joined.join(late, list(key), join_type="left anti", use_threads=False)
    in_source, in_table = pc.is_valid(joined[_SOURCE_AT]), pc.is_valid(joined[_VERSION])
    missing = joined.filter(pc.and_(in_source, pc.invert(in_table)))
    both = joined.filter(pc.and_(in_source, in_table))
    # Not only later: a source that was restored has older times than were predicted.
    changed = pc.fill_null(pc.not_equal(both[_SOURCE_AT], both[_TABLE_AT]), fill_value=False)
    other = pc.not_equal(both[_VERSION], both[_VERSION] if version is None else version)
    is_aside = pa.repeat(False, len(missing)) if aside is None else _excused(missing, key, aside)  # noqa: FBT003
    left, aside_now = missing.filter(pc.invert(is_aside)), missing.filter(is_aside)
    return Differences(
        missing=_found([left], key),
        stale=_found([both.filter(changed)], key),
        outdated=_found([both.filter(other)], key),
        gone=_found([joined.filter(pc.and_(pc.invert(in_source), in_table))], key),
        wanting=_found([left, both.filter(pc.or_(changed, other))], key),
        set_aside=_found([aside_now], key),
        source_rows=source.num_rows,
        table_rows=table.num_rows,
    )


def _joined(source: pa.Table, table: pa.Table, key: tuple[str, ...]) -> pa.Table:
    # A row without a key can have no prediction: runs set it aside, and nothing mends that here.
    left = _keyed(source.select([*key, "source_at"]), key).rename_columns([*key, _SOURCE_AT])
    right = table.select([*key, "src_updated_at", "model_version"])
    right = right.rename_columns([*key, _TABLE_AT, _VERSION])
    return left.join(right, list(key), join_type="full outer", use_threads=False)


def _keyed(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    return rows.filter(pc.is_valid(texts(rows, key)))


def _excused(rows: pa.Table, key: tuple[str, ...], aside: pa.Table) -> pa.ChunkedArray:
    """Whether each row is as it was when it was set aside, and that was the last that befell it."""
    newest_first = aside.take(pa.array(range(aside.num_rows - 1, -1, -1), pa.int64()))
    cut = pc.utf8_slice_codeunits(texts(rows, key), 0, TEXT_CHARACTERS)
    place = pc.index_in(cut, value_set=newest_first[TOLD].combine_chunks())
    until = newest_first[_UNTIL].take(place)
    return pc.fill_null(pc.less_equal(rows[_SOURCE_AT], until), fill_value=False)


def _found(parts: Iterable[pa.Table], key: tuple[str, ...]) -> Found:
    rows = pa.concat_tables([part.select(list(key)) for part in parts])
    first = rows.sort_by([(name, "ascending") for name in key]).slice(0, NAMED).to_pylist()
    return Found(rows.num_rows, tuple(tuple(row[name] for name in key) for row in first))
