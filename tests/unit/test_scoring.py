"""One batch, whatever it holds: every row has one fate, and the table's row is the newest one's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from bad_inputs import QUARANTINED, bad_input
from hypothesis import given
from hypothesis import strategies as st
from toy.job import Toy
from toy.lines import LineJob

from mlbatch.job import required_schema
from mlbatch.judging import judge_keys
from mlbatch.ledger import ModelPin
from mlbatch.model import Prediction
from mlbatch.scoring import Scorer

DAY = datetime(2026, 1, 1)
SCHEMA = pa.schema(
    [("note_id", pa.int64()), ("text", pa.string()), ("updated_at", pa.timestamp("us")),
     ("deleted_at", pa.timestamp("us"))]
)  # fmt: skip
TEXTS = st.sampled_from(["good", "bad", "odd", "crash", "nan", "", "x" * 10_001]) | st.none()
TIMES = st.integers(0, 3).map(lambda hours: DAY + timedelta(hours=hours))
ROWS = st.lists(
    st.tuples(st.none() | st.integers(1, 4), TEXTS, st.none() | TIMES, st.none() | TIMES),
    max_size=9,
)


class Whimsical:
    """Answers by the text: well, with an unknown label, with no number, or not at all."""

    def predict(self, batch):
        texts = batch["text"].to_pylist()
        if "crash" in texts:
            raise ZeroDivisionError
        labels = [text if text in ("good", "odd") else "bad" for text in texts]
        return Prediction(labels, np.array([np.nan if text == "nan" else 0.5 for text in texts]))


SCORER = Scorer(Toy, Whimsical(), ModelPin("toy", 1, "d"), 7)


def batch(rows):
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def fate(row):
    key, text, _, deleted = row
    if key is None:
        return "missing_key"
    if deleted is not None:
        return "deleted"
    if text is None:
        return "missing_value"
    if len(text) > 10_000:
        return "too_long"
    return {"odd": "unknown_label", "crash": "prediction_failed", "nan": "not_finite"}.get(
        text, "written"
    )


def newest(rows):
    """Of each key the row number that counts: the highest time, then the last."""
    best = {}
    for number, (key, _, at, _) in enumerate(rows):
        if key is not None:
            order = (at or datetime(1, 1, 1), number)
            best[key] = max(best.get(key, order), order)
    return {number for _, number in best.values()}


@given(ROWS, st.integers(0, 1000))
def test_every_row_has_one_fate(rows, low):
    commit = SCORER.score(batch(rows), 3, low)
    counts = newest(rows)
    fates = {n: fate(row) for n, row in enumerate(rows) if row[0] is None or n in counts}
    expected = Counter(fates.values())
    assert (commit.low, commit.high, commit.part_number) == (low, low + len(rows), 3)
    assert commit.filtered == len(rows) - len(fates)
    assert commit.deleted == expected.pop("deleted", 0)
    assert commit.upserts.num_rows == expected.pop("written", 0)
    assert Counter(row.reason for row in commit.quarantined) == expected
    told = {row.row_offset - low: row.reason for row in commit.quarantined}
    assert told.items() <= fates.items()


@given(ROWS)
def test_no_key_is_both_written_and_removed(rows):
    commit = SCORER.score(batch(rows), 0, 0)
    written = commit.upserts["note_id"].to_pylist()
    removed = commit.deletes["note_id"].to_pylist()
    assert written == sorted(set(written))
    assert removed == sorted(set(removed))
    assert not set(written) & set(removed)
    assert set(written) | set(removed) == {row[0] for row in rows if row[0] is not None}


@given(ROWS)
def test_what_is_written_is_of_the_newest_row(rows):
    commit = SCORER.score(batch(rows), 0, 0)
    rows_of = {row[0]: row for n, row in enumerate(rows) if n in newest(rows)}
    for row in commit.upserts.to_pylist():
        _, text, at, deleted = rows_of[row["note_id"]]
        assert deleted is None
        assert row["label"] == ("good" if text == "good" else "bad")
        assert row["src_updated_at"] == (at or datetime(1970, 1, 1))
        assert (row["run_no"], row["model_version"]) == (7, 1)


@given(ROWS)
def test_quarantined_rows_never_tell_their_text(rows):
    for row in SCORER.score(batch(rows), 0, 0).quarantined:
        assert "xxx" not in f"{row.key} {row.detail}"
        assert row.key == ("" if row.reason == "missing_key" else row.key)


def test_a_row_that_kills_is_set_aside_unseen():
    rows = [(5, "good", DAY, None)]
    commit = replace(SCORER, model=None).set_aside(batch(rows), 2, 40)
    assert (commit.low, commit.high, commit.upserts.num_rows) == (40, 41, 0)
    assert commit.deletes["note_id"].to_pylist() == [5]
    assert [str(row) for row in commit.quarantined] == ["5: killed_worker, the worker died on it"]
    # Nothing but its reason tells that the empty text is no key.
    commit = replace(SCORER, model=None).set_aside(batch([(None, "good", DAY, None)]), 2, 40)
    told = "row 40: missing_key, note_id is NULL; the worker died on it"
    assert [str(row) for row in commit.quarantined] == [told]


def lines(books, texts, at, *, number=None):
    """Rows of the job whose key has two columns, as Redshift may unload them."""
    schema = required_schema(LineJob)
    values = {
        "book": pa.array(books, pa.binary()).view(pa.string()),
        "number": number if number is not None else pa.array([1] * len(books), pa.int64()),
        "text": pa.array(texts, pa.binary()).view(pa.string()),
        "updated_at": pa.array(at, pa.timestamp("us")),
        "deleted_at": pa.nulls(len(books), pa.timestamp("us")),
    }
    arrays = [values[name] for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, names=schema.names)


def scored(rows):
    return replace(SCORER, job=LineJob).score(rows, 0, 0)


@bad_input(49, outcome=QUARANTINED, says="key_not_utf8")
def test_49_a_key_that_is_not_utf8_costs_its_own_row_alone():
    late = DAY + timedelta(hours=1)
    commit = scored(lines([b"\xff", b"a", b"a"], [None, b"good", b"odd"], [DAY, late, DAY]))
    assert [(row.row_offset, row.reason) for row in commit.quarantined] == [(0, "key_not_utf8")]
    assert (commit.upserts["book"].to_pylist(), commit.filtered) == (["a"], 1)
    assert commit.deletes.num_rows == 0


def test_of_one_key_the_newest_row_counts_although_its_text_is_not_utf8():
    late = DAY + timedelta(hours=1)
    commit = scored(lines([b"a", b"a"], [b"good", b"\xff"], [DAY, late]))
    assert [row.reason for row in commit.quarantined] == ["not_utf8"]
    assert (commit.upserts.num_rows, commit.filtered) == (0, 1)
    assert commit.deletes["book"].to_pylist() == ["a"]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us")])
def test_a_key_beyond_the_years_that_there_are_is_in_no_table(kind):
    days = pa.array([10**7, 1], pa.int32()).view(pa.date32())
    rows = pa.record_batch({"day": days.cast(kind), "note": pa.array(["x", "x"])})
    assert {row: fault.reason for row, fault in judge_keys(rows, ("day",)).items()} == {
        0: "out_of_range"
    }
