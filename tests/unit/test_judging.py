from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, QUARANTINED, bad_input
from hypothesis import given
from hypothesis import strategies as st
from toy.job import Mood

from mlbatch.declaration import Column
from mlbatch.judging import judge_duplicates, judge_input, judge_output

TEXT = Column("text", pa.string(), "x")
NUMBER = Column("n", pa.float64(), "x", nullable=True)


def reasons(faults):
    return {row: fault.reason for row, fault in faults.items()}


@bad_input(49, 54, outcome=QUARANTINED)
def test_inputs_that_must_not_reach_the_model():
    broken = pa.array([b"\xff\xfe", b"ok"]).view(pa.string())
    assert reasons(judge_input(pa.record_batch({"text": broken}), [TEXT], (), 10)) == {
        0: "not_utf8"
    }
    batch = pa.record_batch(
        {
            "id": pa.array([1, None, 3, 4, 5]),
            "text": pa.array(["ok", "ok", None, "too long here", "ok"]),
            "n": pa.array([1.0, None, 2.0, 3.0, float("inf")]),
        }
    )
    found = judge_input(batch, [TEXT, NUMBER], ("id",), 10)
    assert reasons(found) == {
        1: "missing_key", 2: "missing_value", 3: "too_long", 4: "not_finite",
    }  # fmt: skip


def test_a_text_that_is_not_utf8_hides_no_long_one_beside_it():
    texts = pa.array([b"\xff\xfe", None, b"x" * 11, b"ok"]).view(pa.string())
    text = replace(TEXT, nullable=True)
    found = judge_input(pa.record_batch({"text": texts}), [text], (), 10)
    assert reasons(found) == {0: "not_utf8", 2: "too_long"}


def test_a_key_that_is_none_comes_before_whatever_else_is_wrong_with_its_row():
    names = pa.array([b"\xff", b"\xff", b"a", None]).view(pa.string())
    numbers = pa.array([1, 1, 1, 1])
    at = pa.array([1, 1, -(2**62), -(2**62)], pa.int64()).view(pa.timestamp("us"))
    texts = pa.array([None, "too long here", "ok", "ok"])
    batch = pa.record_batch({"text": texts, "name": names, "number": numbers, "at": at})
    columns = [TEXT, Column("name", pa.string(), "x")]
    found = judge_input(batch, columns, ("name", "number"), 10)
    assert reasons(found) == {
        0: "key_not_utf8", 1: "key_not_utf8", 2: "out_of_range", 3: "missing_key",
    }  # fmt: skip


def test_characters_are_counted_not_bytes():
    batch = pa.record_batch({"text": pa.array(["あ" * 10, "あ" * 11])})
    assert reasons(judge_input(batch, [TEXT], (), 10)) == {1: "too_long"}


def test_predictions_that_break_the_contract():
    rows = pa.record_batch(
        {
            "note_id": pa.array([1, None, 3, 4, 5, 6]),
            "label": pa.array(["good", "good", "odd", "bad", "bad", None]),
            "score": pa.array([0.5, 0.5, 0.5, float("nan"), 1.5, -0.5]),
        }
    )
    assert reasons(judge_output(rows, Mood.table)) == {
        1: "missing_value", 2: "unknown_label", 3: "not_finite", 4: "out_of_range",
        5: "missing_value",
    }  # fmt: skip


@bad_input(82, outcome=QUARANTINED, says="too_long")
def test_a_text_longer_than_its_column():
    columns = (*Mood.table.columns, Column("remark", pa.string(), "x", max_length=3))
    rows = pa.record_batch({"note_id": [1], "label": ["good"], "score": [0.5], "remark": ["four"]})
    assert reasons(judge_output(rows, replace(Mood.table, columns=columns))) == {0: "too_long"}


@bad_input(100, outcome=ACCEPTED)
@pytest.mark.parametrize(
    ("keys", "minutes", "outdone"),
    [
        ([1, 2, 3], [1, 2, 3], [False, False, False]),
        ([1, 1, 2], [2, 1, 1], [False, True, False]),
        ([1, 1, 1], [1, 1, 1], [True, True, False]),
        ([1, 1, 2], [None, 1, None], [True, False, False]),
    ],
)
def test_100_the_newest_row_of_a_key_wins_then_the_last(keys, minutes, outdone):
    at = [None if m is None else datetime(2026, 1, 1, 0, m) for m in minutes]
    batch = pa.record_batch({"id": pa.array(keys), "at": pa.array(at, pa.timestamp("us"))})
    assert np.array_equal(judge_duplicates(batch, ("id",), "at"), outdone)


KEYED = st.tuples(st.sampled_from(["", "a", "A", "a/b"]), st.integers(0, 2), st.integers(0, 3))


@given(st.lists(KEYED, max_size=12))
def test_of_several_columns_only_the_whole_key_counts(rows):
    names, numbers, minutes = ([row[n] for row in rows] for n in range(3))
    at = [datetime(2026, 1, 1, 0, minute) for minute in minutes]
    batch = pa.record_batch(
        {
            "name": pa.array(names, pa.string()),
            "number": pa.array(numbers, pa.int64()),
            "at": pa.array(at, pa.timestamp("us")),
        }
    )
    outdone = [
        any(
            (other[2], place) > (row[2], here)
            for place, other in enumerate(rows)
            if other[:2] == row[:2]
        )
        for here, row in enumerate(rows)
    ]
    assert judge_duplicates(batch, ("name", "number"), "at").tolist() == outdone
