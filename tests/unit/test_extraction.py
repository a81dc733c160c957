"""Extracted features come back as they were, and no more of them is kept than may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import random_array

from mlbatch.extraction import from_record, read_features, to_record, write_features
from mlbatch.fitting import LabelledBatch

LABELS = {"texts": ["豚汁", "茶"], "yes or no": [True, False], "numbers": [3, -1]}


def batch(rows, columns, *, labels=("a", "b"), seed=0, dtype=np.float64):
    random = np.random.default_rng(seed)
    features = random_array((rows, columns), density=0.2, rng=random, dtype=dtype).tocsr()
    return LabelledBatch(features, random.choice(list(labels), rows), random.random(rows))


def assert_same(found, wanted):
    assert np.array_equal(found.labels, wanted.labels)
    assert found.labels.dtype == wanted.labels.dtype
    assert np.array_equal(found.split, wanted.split)
    assert found.features.shape == wanted.features.shape
    assert found.features.dtype == wanted.features.dtype


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 9), st.sampled_from(["f4", "f8"]))
def test_sparse_features_come_back_bit_by_bit(rows, columns, seed, dtype):
    wanted = batch(rows, columns, seed=seed, dtype=dtype)
    found = from_record(to_record(wanted))
    assert_same(found, wanted)
    for part in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(found.features, part), getattr(wanted.features, part))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back_as_what_they_were(labels):
    wanted = batch(20, 5, labels=labels)
    assert_same(from_record(to_record(wanted)), wanted)


def test_plain_features_come_back(tmp_path):
    sparse = batch(7, 3)
    wanted = LabelledBatch(sparse.features.toarray(), sparse.labels, sparse.split)
    assert write_features(tmp_path / "0.arrow", iter([wanted]), 10_000)
    (found,) = read_features(tmp_path / "0.arrow")
    assert_same(found, wanted)
    assert np.array_equal(found.features, wanted.features)


def test_batches_come_back_in_their_order(tmp_path):
    wanted = [batch(rows, 9, seed=rows) for rows in (5, 1, 8)]
    assert write_features(tmp_path / "0.arrow", iter(wanted), 100_000)
    found = list(read_features(tmp_path / "0.arrow"))
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ["0.arrow"]


def test_what_exceeds_the_bound_is_not_kept_but_read_to_its_end(tmp_path):
    batches = iter([batch(100, 100, seed=n) for n in range(5)])
    assert not write_features(tmp_path / "0.arrow", batches, 5_000)
    assert next(batches, None) is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_keep_leaves_no_file(tmp_path):
    write_features(tmp_path / "0.arrow", iter(()), 5_000)
    assert list(tmp_path.iterdir()) == []
