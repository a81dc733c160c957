from __future__ import annotations

import errno
import io
import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_inputs import ACCEPTED, FAILS, bad_input
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.batches import conform, read_part, rebatch
from mlbatch.connectors.folder import FolderStorage
from mlbatch.errors import OutOfResources, SnapshotError
from mlbatch.snapshot import ManifestEntry, Part, Snapshot, read_manifest, write_manifest
from mlbatch.unloading import highest_cursor, take_snapshot
from mlbatch.warehouse import Unloaded
from mlbatch.window import EARLIEST, LATEST

SCHEMA = pa.schema([("a", pa.int64())])


def test_manifests_round_trip():
    entries = (ManifestEntry("s3://b/p/0", 10, 2), ManifestEntry("s3://b/p/1", 20, 3))
    assert read_manifest(write_manifest(entries), uri="m", prefix="s3://b/p/") == entries


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a verbose manifest"),
        (b"[]", "not a verbose manifest"),
        (b'{"entries": [{"url": "s3://b/p/0"}]}', "not a verbose manifest"),
        (b" " * 50_000_001, "is refused"),
        (write_manifest((ManifestEntry("s3://other/p/0", 1, 1),)), "outside"),
        (write_manifest((ManifestEntry("s3://b/p/../0", 1, 1),)), "outside"),
        (write_manifest((ManifestEntry("s3://b/p/0#from-row=1", 1, 1),)), "outside"),
        (write_manifest((ManifestEntry("s3://b/p/0", 1, 1),) * 2), "twice"),
        (
            write_manifest((ManifestEntry("s3://b/p/0", 1, 1),)).replace(
                b'"record_count": 1\n }', b'"record_count": 9\n }'
            ),
            "promises 9 rows",
        ),
    ],
    ids=[
        "31-cut-off", "31-a-list", "31-no-meta", "31-too-long", "32-another-bucket", "32-dots",
        "32-a-piece", "31-a-file-twice", "31-wrong-sum",
    ],
)  # fmt: skip
@bad_input(outcome=FAILS)
def test_wrong_manifests_are_refused(content, message):
    with pytest.raises(SnapshotError, match=message):
        read_manifest(content, uri="m", prefix="s3://b/p/")


def test_rebatch_gives_even_batches():
    sizes = [256, 44, 256, 44, 1]
    batches = [pa.record_batch({"a": list(range(n))}) for n in sizes]
    assert [b.num_rows for b in rebatch(batches, 100)] == [100] * 6 + [1]
    assert list(rebatch([], 10)) == []


@pytest.fixture
def part(tmp_path):
    file = tmp_path / "part.parquet"
    pq.write_table(pa.table({"a": list(range(100)), "b": ["x"] * 100}), file, row_group_size=30)
    return Part(0, file.as_uri(), 100, file.stat().st_size, "e"), file


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (45, None), (60, 61), (99, 100), (100, None)]
)
def test_a_part_is_read_from_where_it_was_left(part, start, stop):
    promised, file = part
    with pa.OSFile(str(file)) as opened:
        batches = list(read_part(opened, promised, SCHEMA, start=start, stop=stop, batch_rows=7))
    values = [v for b in batches for v in b.column("a").to_pylist()]
    assert values == list(range(start, 100 if stop is None else stop))
    assert all(b.num_rows == 7 for b in batches[:-1])


def test_a_part_that_is_no_parquet_is_named(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"nonsense")
    with pa.OSFile(str(file)) as opened, pytest.raises(SnapshotError, match="part 3"):
        list(read_part(opened, Part(3, "u", 1, 8, "e"), SCHEMA, batch_rows=1))


def test_batches_conform_by_name_and_type():
    batch = pa.record_batch({"b": ["x"], "a": pa.array([1], pa.int32())})
    assert conform(batch, SCHEMA, where="w").schema.names == ["a"]
    with pytest.raises(SnapshotError, match="w lacks the column a"):
        conform(pa.record_batch({"b": ["x"]}), SCHEMA, where="w")
    with pytest.raises(SnapshotError, match="declared types"):
        conform(pa.record_batch({"a": ["x"]}), SCHEMA, where="w")


class Scripted:
    """A warehouse whose unload does what a test says."""

    def __init__(self, unload):
        self._unload = unload

    def unload(self, select, prefix):
        return self._unload(prefix)


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path)


def unload_into(
    storage, tables, *, rows=None, group_rows=None, damage=lambda entries: entries, **form
):
    def unload(prefix):
        folder = storage.path(prefix + "x").parent
        folder.mkdir(parents=True)
        entries = []
        for number, table in enumerate(tables):
            file = folder / f"{number}.parquet"
            pq.write_table(table, file, row_group_size=group_rows, **form)
            entries.append(ManifestEntry(prefix + file.name, file.stat().st_size, table.num_rows))
        (folder / "manifest").write_bytes(write_manifest(tuple(damage(entries))))
        told = sum(t.num_rows for t in tables) if rows is None else rows
        return Unloaded(told, prefix + "manifest")

    return Scripted(unload)


AT = datetime(2026, 1, 1, 9)
ONE = pa.table({"at": pa.array([AT], pa.timestamp("us"))})
EMPTY = ONE.slice(0, 0)


def take(warehouse, storage, zone="UTC", clock=None):
    prefix = storage.prefix + "run/"
    select = "SELECT 1 AS a"
    return take_snapshot(warehouse, storage, select, prefix, cursor="at", zone=zone, clock=clock)


def test_a_part_is_not_called_damaged_where_the_process_may_open_no_more_files(
    storage, monkeypatch
):
    def no_more_files(_storage, uri, *, etag):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), uri)

    monkeypatch.setattr(FolderStorage, "open", no_more_files)
    with pytest.raises(OutOfResources, match="Too many open files"):
        take(unload_into(storage, [ONE]), storage)


@pytest.mark.parametrize(
    ("piece_bytes", "sizes"), [(1, [3, 3, 3, 1]), (10**6, [10])], ids=["large", "small"]
)
def test_a_large_file_becomes_parts_of_whole_row_groups(storage, monkeypatch, piece_bytes, sizes):
    monkeypatch.setattr("mlbatch.unloading.PIECE_BYTES", piece_bytes)
    values = pa.table({"at": [AT] * 11, "a": range(11)})
    warehouse = unload_into(storage, [values.slice(0, 10), values.slice(10)], group_rows=3)
    parts = take(warehouse, storage).parts
    assert [part.rows for part in parts] == [*sizes, 1]
    assert [part.number for part in parts] == list(range(len(parts)))
    read = []
    for part in parts:
        with storage.open(part.file_uri, etag=part.etag) as file:
            for batch in read_part(file, part, SCHEMA, batch_rows=2):
                read += batch.column("a").to_pylist()
    assert read == list(range(11))
    with storage.open(parts[0].file_uri, etag=parts[0].etag) as file:
        again = list(read_part(file, parts[0], SCHEMA, start=1, stop=2, batch_rows=2))
    assert [batch.column("a").to_pylist() for batch in again] == [[1]]


def test_a_snapshot_knows_its_parts_and_highest_cursor(storage):
    snapshot = take(unload_into(storage, [ONE, EMPTY, ONE]), storage, zone="Asia/Tokyo")
    assert (snapshot.rows, len(snapshot.parts)) == (2, 2)
    assert snapshot.highest_cursor == datetime(2026, 1, 1, 0, tzinfo=UTC)
    assert len(snapshot.fingerprint) == 64
    assert snapshot.bytes > 0


def test_rows_that_lie_in_the_future_are_not_the_highest(storage):
    times = [AT, AT + timedelta(hours=2), datetime(2099, 1, 1)]
    table = pa.table({"at": pa.array(times, pa.timestamp("us"))})
    clock = datetime(2026, 1, 1, 1, tzinfo=UTC)
    taken = take(unload_into(storage, [table]), storage, zone="Asia/Tokyo", clock=clock)
    assert (taken.rows, taken.highest_cursor) == (3, datetime(2026, 1, 1, 0, tzinfo=UTC))


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20], ids=["streamed", "whole"])
def test_timestamps_of_the_old_form_may_be_of_any_year(storage, monkeypatch, whole_bytes):
    monkeypatch.setattr("mlbatch.batches.WHOLE_GROUP_BYTES", whole_bytes)
    times = [AT, datetime(9999, 12, 31, 1, 2, 3, 4), datetime(1, 1, 1), None]
    table = pa.table({"at": pa.array(times, pa.timestamp("us"))})
    old_form = unload_into(storage, [table], use_deprecated_int96_timestamps=True)
    taken = take(old_form, storage, clock=datetime(2026, 2, 1, tzinfo=UTC))
    assert taken.highest_cursor == AT.replace(tzinfo=UTC)
    (part,) = taken.parts
    with storage.open(part.uri, etag=part.etag) as file:
        read = pa.Table.from_batches(read_part(file, part, table.schema, batch_rows=9))
    assert read["at"].to_pylist() == times


TIMES = st.integers(-(2**62), 2**62) | st.integers(0, 2**51)


@given(
    st.lists(st.none() | TIMES, max_size=20),
    st.integers(1, 5),
    st.sampled_from(
        [
            {},
            {"write_statistics": False},
            {"coerce_timestamps": "ms", "allow_truncated_timestamps": True},
        ]
    ),
    st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_the_highest_cursor_is_the_same_with_and_without_the_footers_figures(
    times, group, options, clock
):
    file = io.BytesIO()
    column = pa.array(times, pa.int64()).view(pa.timestamp("us"))
    pq.write_table(pa.table({"a": range(len(times)), "at": column}), file, group, **options)
    parquet = pq.ParquetFile(pa.BufferReader(file.getvalue()))
    stored = parquet.read(["at"])["at"].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    edges = [pa.scalar(edge, pa.timestamp("us")).value for edge in (EARLIEST, LATEST)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    if clock is not None:
        edges[1] = (clock - epoch) // timedelta(microseconds=1)
    known = [time for time in stored if time is not None and edges[0] <= time <= edges[1]]
    found = highest_cursor(parquet, "at", "UTC", clock)
    assert found == (epoch + timedelta(microseconds=max(known)) if known else None)


@bad_input(23, outcome=ACCEPTED)
def test_23_zero_rows_without_a_manifest(storage):
    snapshot = take(Scripted(lambda _: Unloaded(0, None)), storage)
    assert snapshot == Snapshot(storage.prefix + "run/", (), None)


@bad_input(24, outcome=ACCEPTED)
def test_24_zero_rows_with_an_empty_file(storage):
    assert take(unload_into(storage, [EMPTY]), storage).parts == ()


@bad_input(28, outcome=ACCEPTED)
def test_28_a_file_that_the_manifest_does_not_name_is_ignored(storage):
    def stray(entries):
        pq.write_table(ONE, storage.path(storage.prefix + "run/stray.parquet"))
        return entries

    assert take(unload_into(storage, [ONE], damage=stray), storage).rows == 1


@bad_input(36, outcome=FAILS, says="not a Parquet file")
def test_36_a_part_of_no_bytes_has_no_rows(storage):
    def empty(rows):
        def damage(entries):
            uri = storage.prefix + f"run/empty{rows}.parquet"
            storage.path(uri).touch()
            return [*entries, ManifestEntry(uri, 0, rows)]

        return damage

    assert take(unload_into(storage, [ONE], damage=empty(0)), storage).rows == 1
    other = FolderStorage(storage.root / "other")
    with pytest.raises(SnapshotError, match="not a Parquet file"):
        take(unload_into(other, [ONE], rows=2, damage=_promising(other)), other)


def _promising(storage):
    def damage(entries):
        uri = storage.prefix + "run/empty.parquet"
        storage.path(uri).touch()
        return [*entries, ManifestEntry(uri, 0, 1)]

    return damage


@bad_input(26, outcome=FAILS, says="there is no manifest")
def test_26_a_missing_manifest_is_never_empty(storage):
    with pytest.raises(SnapshotError, match="there is no manifest"):
        take(Scripted(lambda _: Unloaded(3, None)), storage)


@bad_input(27, outcome=FAILS, says="is missing")
def test_27_a_missing_file(storage):
    def extra(entries):
        return [*entries, ManifestEntry(storage.prefix + "run/9.parquet", 1, 0)]

    with pytest.raises(SnapshotError, match="is missing"):
        take(unload_into(storage, [ONE], damage=extra), storage)


@bad_input(outcome=FAILS)
@pytest.mark.parametrize(
    ("bytes_more", "rows_more", "told", "message"),
    [
        (1, 0, 1, "the manifest says"),
        (0, 1, 2, "rows, the manifest says 2"),
        (0, 0, 5, "the warehouse 5"),
    ],
    ids=["29-length", "30-footer", "count"],
)
def test_promises_that_are_not_kept(storage, bytes_more, rows_more, told, message):
    def wrong(entries):
        (e,) = entries
        return [ManifestEntry(e.uri, e.bytes + bytes_more, e.rows + rows_more)]

    with pytest.raises(SnapshotError, match=message):
        take(unload_into(storage, [ONE], rows=told, damage=wrong), storage)


@bad_input(30, outcome=FAILS, says="rows in its row groups, its footer says 301")
def test_30_a_footer_that_counts_more_rows_than_its_row_groups(storage):
    """Nobody would ever come to the end of such a part."""

    def count_one_more(entries):
        (e,) = entries
        file = storage.path(e.uri)
        content = bytearray(file.read_bytes())
        begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        # 300 and 301 as Thrift writes them; the file's own figure is before those of its groups.
        at = content.index(b"\xd8\x04", begin)
        content[at : at + 2] = b"\xda\x04"
        file.write_bytes(content)
        assert pq.ParquetFile(file).metadata.num_rows == 301
        return [ManifestEntry(e.uri, e.bytes, 301)]

    rows = pa.table({"at": [AT] * 300})
    with pytest.raises(SnapshotError, match="300 rows in its row groups, its footer says 301"):
        take(unload_into(storage, [rows], rows=301, damage=count_one_more), storage)


@bad_input(33, outcome=FAILS, says="not a Parquet file")
def test_33_a_truncated_file(storage):
    def truncate(entries):
        (e,) = entries
        file = storage.path(e.uri)
        file.write_bytes(file.read_bytes()[:-9])
        return [ManifestEntry(e.uri, e.bytes - 9, e.rows)]

    with pytest.raises(SnapshotError, match="not a Parquet file"):
        take(unload_into(storage, [ONE], damage=truncate), storage)


@bad_input(45, outcome=FAILS, says="has other columns")
def test_45_parts_of_different_types(storage):
    other = pa.table({"at": pa.array([AT], pa.timestamp("us")), "more": [1]})
    with pytest.raises(SnapshotError, match="part 1 has other columns"):
        take(unload_into(storage, [ONE, other]), storage)


@bad_input(37, outcome=FAILS, says="was replaced")
def test_37_a_part_that_was_replaced_is_refused(storage, part):
    _, file = part
    uri = storage.prefix + "part.parquet"
    with (
        pytest.raises(SnapshotError, match="was replaced"),
        storage.open(uri, etag="another") as _opened,
    ):
        pass
    with storage.open(uri, etag=storage.stat(uri).etag) as opened:
        assert opened.size() == file.stat().st_size


@bad_input(32, outcome=FAILS, says="outside")
@pytest.mark.parametrize("uri", ["file:///etc/passwd", "s3://x/y"])
def test_32_objects_outside_the_store_are_refused(storage, uri):
    with pytest.raises(SnapshotError, match="outside"):
        storage.path(uri)
    with pytest.raises(SnapshotError, match="outside"):
        storage.read(storage.prefix + "../x")
