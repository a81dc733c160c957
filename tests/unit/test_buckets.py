"""However small the buckets are, rows of one key meet, and the answer is the same."""

from __future__ import annotations

import resource
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch import buckets
from mlbatch.buckets import together
from mlbatch.distance import distance
from mlbatch.errors import OutOfResources
from mlbatch.keys import TEXT_CHARACTERS, text
from mlbatch.reconciliation import Excuses, as_aside, compare, compare_all

DAY = datetime(2026, 1, 1)
KEY = ("number", "book")
KEYS = st.tuples(
    st.integers(0, 5), st.sampled_from(["", "a", "A", "a ", "é", "日", "a/b", "\U0001f600"])
)
TIMES = st.integers(0, 3).map(lambda hours: DAY + timedelta(hours=hours))
SOURCE = st.dictionaries(
    KEYS | st.tuples(st.none(), st.just("a")), st.tuples(TIMES, st.booleans()), max_size=40
)
TABLE = st.dictionaries(KEYS, st.tuples(TIMES, st.integers(1, 2)), max_size=40)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 5))
EXCUSES = st.builds(
    Excuses,
    st.none() | TIMES,
    st.lists(
        st.tuples(
            KEYS.map(lambda k: f"{k[0]}/{k[1]}".replace("a/b", "a%2Fb")),
            st.none() | TIMES.map(lambda at: at.replace(tzinfo=UTC)),
        )
    ),
)


def as_table(rows, **columns):
    """Keys of two columns, and of each row's value so many more."""
    told = {
        "number": pa.array([key[0] for key in rows], pa.int64()),
        "book": pa.array([key[1] for key in rows], pa.string()),
    }
    for place, (name, kind) in enumerate(columns.items()):
        told[name] = pa.array([value[place] for value in rows.values()], kind)
    return pa.table(told)


def streamed(table, rows=3):
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(rows))


class sized:  # noqa: N801  reads as a phrase
    """Buckets of this size, for a while."""

    def __init__(self, bucket_rows, deal_rows, fan_out):
        self._sizes = {"BUCKET_ROWS": bucket_rows, "DEAL_ROWS": deal_rows, "FAN_OUT": fan_out}

    def __enter__(self):
        self._patch = pytest.MonkeyPatch()
        for name, value in self._sizes.items():
            self._patch.setattr(buckets, name, value)

    def __exit__(self, *_):
        self._patch.undo()


@given(SOURCE, TABLE, st.none() | st.integers(1, 2), EXCUSES, SIZES)
def test_differences_do_not_depend_on_the_size_of_the_buckets(
    source, table, version, excuses, size
):
    at = pa.timestamp("us")
    left = as_table(source, source_at=at, alive=pa.bool_())
    right = as_table(table, src_updated_at=at, model_version=pa.int64())
    with sized(*size):
        found = compare_all(streamed(left), streamed(right), KEY, version, excuses)
    since = excuses.changed_after
    late = {key: row for key, row in source.items() if since is not None and row[0] > since}
    whole = compare(
        left.filter(left["alive"]),
        right,
        KEY,
        version,
        recent=as_table(late),
        aside=pa.Table.from_batches([as_aside(excuses.set_aside)]),
    )
    assert found == whole


@given(SOURCE, TABLE, EXCUSES)
def test_differences_with_excuses_are_those_of_a_plain_comparison(source, table, excuses):
    at = pa.timestamp("us")
    left = as_table(source, source_at=at, alive=pa.bool_())
    right = as_table(table, src_updated_at=at, model_version=pa.int64())
    found = compare_all(streamed(left), streamed(right), KEY, 1, excuses)
    since = excuses.changed_after
    late = {key for key, row in source.items() if since is not None and row[0] > since}
    live = {key: at for key, (at, alive) in source.items() if alive and None not in key}
    told = {key: f"{key[0]}/{key[1]}".replace("a/b", "a%2Fb") for key in live}
    missing = live.keys() - table.keys() - late
    last = dict(excuses.set_aside)
    until = {key: last.get(told[key]) for key in missing}
    aside = {key for key in missing if until[key] and live[key] <= until[key].replace(tzinfo=None)}
    assert found.missing.first == tuple(sorted(missing - aside))
    assert found.set_aside.first == tuple(sorted(aside))
    assert found.gone.first == tuple(sorted(table.keys() - live.keys() - late))
    both = live.keys() & table.keys() - late
    stale = {key for key in both if live[key] != table[key][0]}
    outdated = {key for key in both if table[key][1] != 1}
    assert (found.stale.first, found.outdated.first) == (
        tuple(sorted(stale)),
        tuple(sorted(outdated)),
    )
    assert found.wanting.first == tuple(sorted(stale | outdated | missing - aside))
    assert found.wanting.count == len(found.wanting.first)


@given(TABLE, TABLE, SIZES)
def test_a_distance_does_not_depend_on_the_size_of_the_buckets(before, after, size):
    one, other = (
        as_table(side, at=pa.timestamp("us"), label=pa.int64()).append_column(
            "score", pa.array([key[0] / 7 for key in side], pa.float64())
        )
        for side in (before, after)
    )
    told = (KEY, "label", "score")
    whole = distance(streamed(one), streamed(other), *told)
    with sized(*size):
        found = distance(streamed(one), streamed(other), *told)
    assert (found.labels, found.scores, found.changed) == pytest.approx(
        (whole.labels, whole.scores, whole.changed)
    )


def many(rows, step=1):
    """So many rows, made as they are read."""
    schema = pa.schema([("number", pa.int64()), ("book", pa.string())])

    def batches():
        for low in range(0, rows, 1_000):
            numbers = [number * step for number in range(low, min(low + 1_000, rows))]
            books = [f"book {number % 1_000}" for number in numbers]
            yield pa.RecordBatch.from_pydict({"number": numbers, "book": books}, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def test_no_row_is_lost_and_buckets_stay_small():
    with sized(200, 500, 8):
        found = list(together((many(9_000), many(3_000, step=5)), KEY))
    assert max(sum(side.num_rows for side in sides) for sides in found) <= 200
    for side, expected in enumerate((range(9_000), range(0, 15_000, 5))):
        told = Counter(n for sides in found for n in sides[side]["number"].to_pylist())
        assert told == Counter(expected)
    at = [{*one["number"].to_pylist(), *two["number"].to_pylist()} for one, two in found]
    assert sum(map(len, at)) == len(set().union(*at))


def test_rows_without_a_key_are_dealt_out_no_deeper_than_others():
    without = as_table(dict.fromkeys([(None, f"{n}") for n in range(50)]))
    with sized(1, 7, 2):
        ((one, other),) = together((streamed(without), streamed(without.slice(0, 0))), KEY)
    assert (one.num_rows, other.num_rows) == (50, 0)
    assert list(together((streamed(without.slice(0, 0)),), KEY)) == []


def test_memory_does_not_grow_with_the_rows():
    with sized(500, 500, 4):
        small, large = (peak_of(rows) for rows in (2_000, 12_000))
    assert large < 1.5 * small


def peak_of(rows):
    """The most bytes that Arrow held at once while so many rows were compared, none of them alike."""
    at = {"source_at": pa.timestamp("us"), "alive": pa.bool_()}
    of_table = {"src_updated_at": pa.timestamp("us"), "model_version": pa.int64()}
    pool = pa.proxy_memory_pool(pa.system_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        found = compare_all(
            widened(many(rows), at, DAY), widened(many(rows, step=-1), of_table, DAY), KEY, 1
        )
    finally:
        pa.set_memory_pool(before)
    assert (found.missing.count, found.gone.count) == (rows - 1, rows - 1)
    assert found.missing.first[0] == (1, "book 1")
    return pool.max_memory()


def test_memory_does_not_grow_with_the_rows_that_are_excused(monkeypatch):
    # So many keys are kept, and the others counted.
    monkeypatch.setattr("mlbatch.reconciliation.NAMED", 250)
    with sized(500, 500, 4):
        small, large = (excused_peak_of(rows) for rows in (2_000, 12_000))
    assert large < 1.5 * small


def excused_peak_of(rows):
    """The most bytes that Arrow and Python held while so many missing rows were excused."""
    at = {"source_at": pa.timestamp("us"), "alive": pa.bool_()}
    nothing = as_table({}, src_updated_at=pa.timestamp("us"), model_version=pa.int64())
    noon = DAY.replace(tzinfo=UTC)
    excuses = Excuses(set_aside=((f"{n}/book {n % 1_000}", noon) for n in range(rows)))
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        source = widened(many(rows), at, DAY)
        found = compare_all(source, streamed(nothing), KEY, 1, excuses)
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert (found.missing.count, found.set_aside.count) == (0, rows)
    return peak


def test_keys_that_were_kept_in_part_are_excused_too():
    keys = [(1, "b" * length) for length in (252, 253, 254, 300)]
    source = as_table(
        dict.fromkeys(keys, (DAY, True)), source_at=pa.timestamp("us"), alive=pa.bool_()
    )
    table = as_table({}, src_updated_at=pa.timestamp("us"), model_version=pa.int64())
    noon = DAY.replace(tzinfo=UTC)
    aside = Excuses(set_aside=[(text(key)[:TEXT_CHARACTERS], noon) for key in keys[1:]])
    with sized(1, 1, 5):
        found = compare_all(streamed(source), streamed(table), KEY, 1, aside)
    assert (found.missing.first, found.set_aside.count) == ((keys[0],), 3)


def widened(reader, columns, at):
    """The rows with a time and a one, or a yes, in each."""
    schema = pa.schema([*reader.schema, *columns.items()])
    told = [*zip((at, 1), columns.values(), strict=True)]

    def batches():
        for batch in reader:
            more = [pa.repeat(pa.scalar(value).cast(kind), len(batch)) for value, kind in told]
            yield pa.RecordBatch.from_arrays([*batch.columns, *more], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def test_nothing_stays_open_where_reading_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_before = set(Path("/proc/self/fd").iterdir())
    reading = together((many(3_000),), KEY)
    next(reading)
    reading.close()
    assert len(set(Path("/proc/self/fd").iterdir())) == len(open_before)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_up_to(size):
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@pytest.mark.parametrize("size", [1, 200, 1_000, 2_500, 9_000])
def test_a_shortage_is_told_as_one_wherever_it_strikes(size, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_before = set(Path("/proc/self/fd").iterdir())
    with (
        pytest.raises(OutOfResources, match="larger than this process may write"),
        sized(200, 500, 8),
        files_up_to(size),
    ):
        list(together((many(4_000),), KEY))
    assert len(set(Path("/proc/self/fd").iterdir())) == len(open_before)


def test_no_room_for_any_temporary_file_is_a_shortage(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    shortage = pytest.raises(OutOfResources, match="No usable temporary directory")
    with shortage as caught, files_up_to(0):
        list(together((many(4_000),), KEY))
    assert "TMPDIR" in caught.value.hint
