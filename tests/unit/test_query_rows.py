"""What a wrapped SELECT means, against a plain reading of the same rows in Python."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.dialect import CONNECTION_SETTINGS, to_duckdb
from mlbatch.query import FeatureQuery, contradiction_query, training_query
from mlbatch.window import Window

CONNECTION = duckdb.connect()
for setting in CONNECTION_SETTINGS:
    CONNECTION.execute(setting)
QUERY = FeatureQuery.parse("SELECT a, b, n, seen FROM t")
SCHEMA = pa.schema(
    [("a", pa.int64()), ("b", pa.string()), ("n", pa.int64()), ("seen", pa.timestamp("us"))]
)
DAY = datetime(2026, 1, 1)
TIMES = st.integers(0, 8).map(lambda hours: DAY + timedelta(hours=hours))
ROWS = st.lists(
    st.tuples(st.none() | st.integers(1, 3), st.none() | st.sampled_from("xy'"), st.none() | TIMES),
    max_size=12,
).map(lambda rows: [(a, b, n, seen) for n, (a, b, seen) in enumerate(rows)])


in_duckdb = cache(to_duckdb)


def answer(sql, rows):
    columns = list(zip(*rows, strict=True)) or [[]] * len(SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    CONNECTION.register("t", pa.table(arrays, schema=SCHEMA))
    return CONNECTION.sql(in_duckdb(sql)).fetchall()


@st.composite
def windows(draw):
    since, until = draw(st.none() | TIMES), draw(st.none() | TIMES)
    if since and until and since >= until:
        until = since + timedelta(hours=1)
    ends = (end.replace(tzinfo=UTC) if end else None for end in (since, until))
    return Window(*ends)


def is_inside(seen, window, null_cursor):
    if window.is_everything:
        return True
    if seen is None:
        return null_cursor == "always"
    at = seen.replace(tzinfo=UTC)
    return (not window.since or at >= window.since) and (not window.until or at < window.until)


@given(ROWS, windows(), st.sampled_from(["always", "never"]))
def test_a_window_takes_exactly_its_rows(rows, window, null_cursor):
    sql = QUERY.windowed(window, cursor="seen", null_cursor=null_cursor)
    wanted = [row for row in rows if is_inside(row[3], window, null_cursor)]
    assert Counter(answer(sql, rows)) == Counter(wanted)


@given(ROWS, windows(), TIMES)
def test_two_windows_that_meet_miss_nothing_and_repeat_nothing(rows, window, cut):
    middle = cut.replace(tzinfo=UTC)
    if (window.since and middle <= window.since) or (window.until and middle >= window.until):
        return
    halves = [Window(window.since, middle), Window(middle, window.until)]
    found = Counter()
    for half in halves:
        found += Counter(answer(QUERY.windowed(half, cursor="seen", null_cursor="never"), rows))
    whole = [row for row in rows if row[3] and is_inside(row[3], window, "never")]
    assert found == Counter(whole)


@given(ROWS)
def test_of_a_repeated_key_the_newest_row_is_taken(rows):
    found = answer(QUERY.windowed(Window(), cursor="seen", newest_of=("a", "b")), rows)
    keyless = [row for row in rows if row[0] is None or row[1] is None]
    assert Counter(row for row in found if None in row[:2]) == Counter(keyless)
    taken = {row[:2]: row for row in found if None not in row[:2]}
    assert len(found) == len(taken) + len(keyless)
    for key in {row[:2] for row in rows} - {row[:2] for row in keyless}:
        times = [row[3] for row in rows if row[:2] == key]
        newest = max((at for at in times if at), default=None)
        assert taken[key][3] == newest


@given(ROWS, windows(), st.none() | TIMES, TIMES)
def test_a_probe_counts_what_the_window_takes(rows, window, mark, now):
    newer_than, clock = mark.replace(tzinfo=UTC) if mark else None, now.replace(tzinfo=UTC)
    sql = QUERY.probe(window, key=("a", "b"), cursor="seen", newer_than=newer_than, clock=clock)
    inside = [row for row in rows if is_inside(row[3], window, "always")]
    keyed = [row for row in inside if None not in row[:2]]
    newer = [row for row in inside if not mark or (row[3] and row[3] > mark)]
    future = [row for row in inside if row[3] and row[3] > now]
    counts = len(inside), len(keyed), len({row[:2] for row in keyed}), len(newer), len(future)
    assert answer(sql, rows) == [counts]


@given(ROWS, st.sets(st.tuples(st.integers(1, 4), st.sampled_from("xy'")), max_size=4))
def test_rows_are_found_by_composite_keys(rows, keys):
    wanted = [row for row in rows if row[:2] in keys]
    sql = QUERY.of_keys(sorted(keys), key=("a", "b"), columns=["a", "b", "n", "seen"])
    assert Counter(answer(sql, rows)) == Counter(wanted)


@settings(max_examples=30)
@given(ROWS, st.sets(st.integers(1, 2), max_size=2), st.sets(st.integers(3, 9), min_size=1))
def test_keys_that_are_gone_come_as_tombstones(rows, keys, gone):
    at = datetime(2026, 2, 1, tzinfo=UTC)
    sql = QUERY.of_keys(
        [(key,) for key in sorted(keys)],
        key=("a",),
        columns=["a", "n", "seen"],
        gone=[(key,) for key in sorted(gone)],
        marks={"seen": at},
    )
    # A key that has come back meanwhile gives its row.
    wanted = [(a, n, seen) for a, _, n, seen in rows if a in keys | gone]
    there = {row[0] for row in rows}
    wanted += [(key, None, at.replace(tzinfo=None)) for key in gone - there]
    assert Counter(answer(sql, rows)) == Counter(wanted)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    "window",
    [
        Window(datetime(1, 1, 1, tzinfo=UTC)),
        Window(until=datetime(9999, 12, 31, 23, 59, tzinfo=UTC)),
    ],
)
def test_the_ends_of_time_fit_every_zone(zone, window):
    rows = [(1, "x", 0, DAY)]
    assert answer(QUERY.windowed(window, cursor="seen", zone=zone), rows) == rows


LABELS = FeatureQuery.parse("SELECT a, b, label FROM labels")
LABEL_ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(1, 3), st.none() | st.sampled_from("xy'"), st.none() | st.booleans()
    ),
    max_size=12,
)


def with_labels(rows):
    columns = list(zip(*rows, strict=True)) or [[]] * 3
    kinds = [pa.int64(), pa.string(), pa.bool_()]
    arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
    CONNECTION.register("labels", pa.table(arrays, names=["a", "b", "label"]))


def told_labels(rows):
    """What was said of each key, apart from nothing."""
    told = {row[:2]: set() for row in rows if None not in row[:2]}
    for *key, label in rows:
        if tuple(key) in told and label is not None:
            told[tuple(key)].add(label)
    return told


# Rows of an odd number are deleted, and their tombstone stands for the rows before it.
TRAINING = training_query(
    FeatureQuery.parse("SELECT a, b, seen, NULLIF(n % 2, 0) AS gone FROM t"),
    LABELS,
    key=("a", "b"),
    split_by=("a",),
    cursor="seen",
    tombstone="gone",
    feature_columns=["a", "b", "seen"],
    label="label",
)


@given(ROWS, LABEL_ROWS)
def test_training_takes_each_key_once_with_its_one_label(rows, labels):
    # The newest is unknown where two are equally new.
    rows = list({(row[0], row[1], row[3]): row for row in rows}.values())
    with_labels(labels)
    newest = {}
    for row in sorted(rows, key=lambda row: row[3] or DAY - timedelta(1)):
        newest[row[:2]] = row
    told = told_labels(labels)
    wanted = [
        (*key, seen, next(iter(told[key]), None))
        for key, (_, _, n, seen) in newest.items()
        if n % 2 == 0 and len(told.get(key, "ab")) < 2
    ]
    assert Counter(row[:4] for row in answer(TRAINING, rows)) == Counter(wanted)


CONTRADICTIONS = to_duckdb(contradiction_query(LABELS, key=("a", "b"), label="label"))


@given(LABEL_ROWS)
def test_contradicting_labels_are_counted_with_an_example(labels):
    with_labels(labels)
    found = CONNECTION.sql(CONTRADICTIONS).fetchall()
    several = sorted(key for key, kinds in told_labels(labels).items() if len(kinds) > 1)
    assert found == [(*key, len(several)) for key in several[:1]]
