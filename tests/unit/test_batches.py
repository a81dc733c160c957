"""Batches: whatever a part looks like, its rows come once, in order, in even slices."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.batches import MOST_BYTES, conform, read_part, rebatch
from mlbatch.errors import SnapshotError
from mlbatch.snapshot import Part

SCHEMA = pa.schema([("a", pa.int64())])


def numbered(sizes):
    """Batches of these sizes that count on from each other."""
    start = 0
    for size in sizes:
        yield pa.record_batch({"a": pa.array(range(start, start + size), pa.int64())})
        start += size


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 30))
def test_rebatching_keeps_every_row_and_evens_the_sizes(sizes, rows):
    out = list(rebatch(numbered(sizes), rows))
    assert [n for batch in out for n in batch["a"].to_pylist()] == list(range(sum(sizes)))
    assert all(batch.num_rows == rows for batch in out[:-1])
    assert all(0 < batch.num_rows <= rows for batch in out)


@given(st.data(), st.integers(1, 60), st.integers(1, 25), st.integers(1, 25))
def test_any_stretch_of_a_part_is_read_exactly(data, rows, group, batch_rows):
    file = io.BytesIO()
    pq.write_table(pa.table({"b": ["x"] * rows, "a": range(rows)}), file, row_group_size=group)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.none() | st.integers(start, rows))
    part = Part(0, "u", rows, len(file.getvalue()), "e")
    source = pa.BufferReader(file.getvalue())
    batches = list(read_part(source, part, SCHEMA, start=start, stop=stop, batch_rows=batch_rows))
    found = [n for batch in batches for n in batch["a"].to_pylist()]
    assert found == list(range(start, rows if stop is None else stop))
    assert all(batch.num_rows == batch_rows for batch in batches[:-1])


class WatchedFile(io.BytesIO):
    """Knows how much was read of it."""

    bytes_read = 0

    def read(self, size=-1):
        """As a file does."""
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def written(table, **options):
    """The table as an open file, and as a part."""
    file = WatchedFile()
    pq.write_table(table, file, use_dictionary=False, compression="none", **options)
    size = file.tell()
    file.seek(0)
    return file, Part(0, "u", len(table), size, "e")


@pytest.mark.parametrize("stop", [1, 1_000, 1_001])
def test_row_groups_beyond_the_wanted_rows_are_not_read(stop):
    file, part = written(pa.table({"a": range(100_000)}), row_group_size=1_000)
    batches = read_part(file, part, SCHEMA, stop=stop, batch_rows=500)
    assert sum(batch.num_rows for batch in batches) == stop
    # Two groups at most, and the footer, of which Arrow guesses 64 KiB.
    assert file.bytes_read < 2 * 8_200 + 100_000


def test_a_part_is_read_as_its_batches_are_wanted():
    file, part = written(pa.table({"a": range(1_000_000)}), row_group_size=100_000)
    batches = read_part(file, part, SCHEMA, batch_rows=500)
    next(batches)
    assert file.bytes_read < part.bytes / 4


def test_a_large_row_group_is_read_piece_by_piece():
    rows = 10_000_000
    file, part = written(pa.table({"a": pa.array(range(rows), pa.int64())}), row_group_size=rows)
    batches = read_part(file, part, SCHEMA, batch_rows=8_192)
    next(batches)
    assert file.bytes_read < part.bytes / 4
    assert sum(batch.num_rows for batch in batches) == rows - 8_192


@pytest.mark.parametrize("dictionary", [False, True])
def test_long_texts_make_short_batches(dictionary):
    rows = 300
    texts = pa.table({"a": [f"{n % 3} " + "x" * 60_000 for n in range(rows)]})
    file = io.BytesIO()
    pq.write_table(texts, file, use_dictionary=dictionary)
    part = Part(0, "u", rows, len(file.getvalue()), "e")
    schema = pa.schema([("a", pa.string())])
    source = pa.BufferReader(file.getvalue())
    batches = list(read_part(source, part, schema, batch_rows=1_024))
    assert pa.Table.from_batches(batches).to_pylist() == texts.to_pylist()
    assert max(batch.nbytes for batch in batches) <= MOST_BYTES
    assert len(batches) < 10


@given(st.data())
def test_a_damaged_part_is_told_and_never_half_believed(data):
    """A flipped byte gives either an error that names the part, or all rows of the footer.

    Of the pages, that is: some footers that were tampered with end Arrow, and the process with it.
    """
    file = io.BytesIO()
    pq.write_table(pa.table({"a": range(40)}), file, row_group_size=20, compression="zstd")
    content = bytearray(file.getvalue())
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    place = data.draw(st.integers(0, len(content) - footer - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    part = Part(7, "u", 40, len(content), "e")
    try:
        source = pa.BufferReader(bytes(content))
        batches = list(read_part(source, part, SCHEMA, batch_rows=16))
    except SnapshotError as error:
        assert "part 7" in error.message  # noqa: PT017  a harmless place is no error
    else:
        assert all(batch.schema.names == ["a"] for batch in batches)


def test_a_footer_with_a_name_that_is_no_text_is_told():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": range(40)}), file)
    content = file.getvalue().replace(b"\x01a", b"\x01\xe1")
    with pytest.raises(SnapshotError, match="part 7"):
        list(read_part(pa.BufferReader(content), Part(7, "u", 40, 1, "e"), SCHEMA, batch_rows=16))


def test_a_part_with_fewer_rows_than_promised_ends_early():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": range(3)}), file)
    part = Part(0, "u", 10, 1, "e")
    batches = list(read_part(pa.BufferReader(file.getvalue()), part, SCHEMA, batch_rows=2))
    assert sum(batch.num_rows for batch in batches) == 3


@pytest.mark.parametrize(
    ("have", "declared"),
    [
        (pa.array([2**40], pa.int64()), pa.int32()),
        (pa.array([1.5], pa.float64()), pa.int64()),
        (pa.array(["x"]), pa.timestamp("us")),
        (pa.array([b"\xff"], pa.binary()), pa.string()),
        (pa.array([[1]]), pa.string()),
    ],
    ids=["too-large", "a-fraction", "no-date", "not-utf-8", "nested"],
)
def test_values_that_do_not_fit_are_refused_rather_than_bent(have, declared):
    batch = pa.record_batch({"a": have})
    with pytest.raises(SnapshotError, match="w does not have the declared types"):
        conform(batch, pa.schema([("a", declared)]), where="w")


def test_several_missing_columns_are_all_named():
    wanted = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.int64())])
    with pytest.raises(SnapshotError, match="w lacks the column b, c"):
        conform(pa.record_batch({"a": [1]}), wanted, where="w")
