from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.checksum import MODULUS, checksum, row_checksums

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
    types = [pa.int64(), pa.string(), pa.float64(), pa.bool_()]
    columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=list(NAMES))


@given(ROWS, st.randoms())
def test_order_and_batches_do_not_matter(rows, random):
    whole = checksum(batch(rows), NAMES)
    shuffled = random.sample(rows, len(rows))
    cut = random.randrange(len(rows) + 1)
    parts = [checksum(batch(half), NAMES) for half in (shuffled[:cut], shuffled[cut:]) if half]
    assert sum(parts) % MODULUS == whole
    assert 0 <= whole < MODULUS


@given(ROWS)
def test_each_row_counts(rows):
    assert checksum(batch(rows[:-1]), NAMES) != checksum(batch(rows), NAMES) if rows[:-1] else True


def test_zero_has_one_checksum():
    zeros = pa.record_batch({"a": [0.0, -0.0]})
    first, second = row_checksums(zeros, ("a",))
    assert first == second


def test_dates_have_checksums():
    days = pa.record_batch({"a": [date(2026, 1, 1), date(2026, 1, 2)]})
    assert len(np.unique(row_checksums(days, ("a",)))) == 2
