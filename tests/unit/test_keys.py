"""A key's text tells the key again, whatever it is made of."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.keys import TEXT_CHARACTERS, parsed, text, texts

VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])) | st.text("/%25F\\", max_size=6),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
}
TYPES = st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3)
TYPED = TYPES.flatmap(
    lambda kinds: st.tuples(st.just(kinds), st.lists(st.tuples(*[VALUES[k] for k in kinds])))
)


@given(TYPED)
def test_a_key_is_read_back_from_its_text(typed):
    kinds, keys = typed
    names = [f"k{number}" for number in range(len(kinds))]
    columns = [pa.array([key[n] for key in keys], kind) for n, kind in enumerate(kinds)]
    told = texts(pa.RecordBatch.from_arrays(columns, names), names).to_pylist()
    assert told == [text(key) for key in keys]
    for one, key in zip(told, keys, strict=True):
        assert parsed(one, kinds) == (key if len(one) < TEXT_CHARACTERS else None)


def test_keys_of_one_column_are_their_own_text():
    assert [text((value,)) for value in (12, "a/b%", date(2026, 1, 2), True)] == [
        "12", "a/b%", "2026-01-02", "true",
    ]  # fmt: skip
    assert text((1, "a/b%")) == "1/a%2Fb%25"
    assert text((datetime(2026, 1, 2, 3),)) == "2026-01-02 03:00:00.000000"


def test_a_key_that_no_table_can_hold_has_no_text():
    bytes_ = pa.array([b"\xff", b"x", None], pa.binary()).view(pa.string())
    rows = pa.table({"a": bytes_, "b": [1, 2, 3]})
    assert texts(rows, ["a", "b"]).to_pylist() == [None, "x/2", None]
    assert texts(rows.to_batches()[0], ["a"]).to_pylist() == [None, "x", None]


@pytest.mark.parametrize("told", ["", "1", "1/2/3", "x/2", "1/" + "y" * 253])
def test_what_is_no_key_tells_none(told):
    assert parsed(told, [pa.int64(), pa.string()]) is None


def test_the_empty_text_is_a_key_of_one_text_column_alone():
    assert parsed("", [pa.string()]) == ("",)
    for kind in (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("us")):
        assert parsed("", [kind]) is None


def test_what_older_versions_wrote_is_read_too():
    assert parsed("True", [pa.bool_()]) == (True,)
    assert parsed("2026-01-02 03:00:00", [pa.timestamp("us")]) == (datetime(2026, 1, 2, 3),)
