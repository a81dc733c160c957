"""Rows are sampled at even distances while they pass by, however many there are."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch import inspection
from mlbatch.inspection import _Sampler

ROWS = 10


@given(st.lists(st.integers(0, 40), max_size=12))
def test_a_sample_is_even_and_what_passes_is_unchanged(sizes):
    numbers = pa.table({"id": pa.array(range(sum(sizes)), pa.int64())})
    bounds = [sum(sizes[:n]) for n in range(len(sizes))]
    batches = [
        batch
        for low, size in zip(bounds, sizes, strict=True)
        for batch in numbers.slice(low, size).to_batches()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "SAMPLE_ROWS", ROWS)
        sampler = _Sampler(pa.RecordBatchReader.from_batches(numbers.schema, batches))
        assert sampler.through().read_all() == numbers
        sample = sampler.sample()["id"].to_pylist()
    assert sampler.rows == sum(sizes)
    assert len(sample) == min(ROWS, sum(sizes))
    apart = [after - before for before, after in pairwise(sample)]
    assert all(distance > 0 for distance in apart)
    assert max(apart, default=0) <= 2 * min(apart, default=1)
