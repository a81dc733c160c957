from __future__ import annotations

import zlib
from datetime import date, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.checksum import checksum

ROWS = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(codec="utf-8"), max_size=5),
        st.floats(allow_nan=False),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)
NAMES = ("a", "b", "c", "d")


def batch(rows):
    if not rows:
        return pa.record_batch({name: [] for name in NAMES})
    types = [pa.int64(), pa.string(), pa.float64(), pa.bool_()]
    columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=list(NAMES))


def one(*values, kind):
    return checksum(pa.record_batch({"a": pa.array(values, kind)}), ("a",))


@given(ROWS, st.randoms())
def test_order_and_batches_do_not_matter(rows, random):
    whole = checksum(batch(rows), NAMES)
    shuffled = random.sample(rows, len(rows))
    cut = random.randrange(len(rows) + 1)
    assert sum(checksum(batch(half), NAMES) for half in (shuffled[:cut], shuffled[cut:])) == whole


@given(ROWS)
def test_each_row_counts(rows):
    assert checksum(batch(rows[:-1]), NAMES) < checksum(batch(rows), NAMES)


def test_it_is_the_crc_of_the_columns_texts():
    row = batch([(-5, "豚汁", 0.75, True)])
    assert checksum(row, NAMES) == zlib.crc32(f"-5,豚汁,{3 * 2**28},1".encode())


def test_zero_has_one_checksum():
    assert one(0.0, kind=pa.float64()) == one(-0.0, kind=pa.float64())


def test_numbers_count_in_units_and_up_to_a_bound():
    assert one(0.5, kind=pa.float64()) == one(0.5 + 2**-31, kind=pa.float64())
    assert one(0.5, kind=pa.float64()) != one(0.5 + 2**-30, kind=pa.float64())
    assert one(1e300, kind=pa.float64()) == one(float("inf"), kind=pa.float64())


def test_dates_and_instants_have_checksums():
    day = one(date(2026, 1, 1), kind=pa.date32())
    assert day == zlib.crc32(b"2026-01-01")
    noon = one(datetime(2026, 1, 1, 12), kind=pa.timestamp("us"))
    assert noon == zlib.crc32(b"2026-01-01 12:00:00.000000")
