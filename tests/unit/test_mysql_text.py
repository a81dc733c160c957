"""Rows as MySQL's text, read back by the rules of MySQL's manual: every cell is the one that went."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.connectors.mysql.text import STATEMENT_BYTES, load_text, value_lists

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\\\t\n\0'\"N,()"), max_size=6)
SCHEMA = pa.schema(
    [("n", pa.int64()), ("s", pa.string()), ("b", pa.bool_()), ("t", pa.timestamp("us"))]
)
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | TEXT,
        st.none() | st.booleans(),
        st.none() | st.datetimes(datetime(1000, 1, 1)),
    ),
    max_size=8,
)
ESCAPES = {"n": "\n", "t": "\t", "0": "\0"}


def batch(rows):
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def as_text(row):
    """What MySQL shall see of a row, cell by cell; None is NULL."""
    n, s, b, t = row
    moment = t and f"{t:%Y-%m-%d %H:%M:%S}.{t.microsecond:06}".rjust(26, "0")
    return [None if n is None else str(n), s, None if b is None else str(int(b)), moment]


def loaded(data):
    """LOAD DATA with the defaults: tabs between fields, line feeds behind rows, backslash escapes."""
    rows, row, cell, characters = [], [], "", iter(data)
    is_null = False
    for c in characters:
        if c == "\\":
            escaped = next(characters)
            is_null = is_null or (escaped == "N" and cell == "")
            cell += ESCAPES.get(escaped, escaped)
        elif c in "\t\n":
            row.append(None if is_null and cell == "N" else cell)
            cell, is_null = "", False
            if c == "\n":
                rows.append(row)
                row = []
        else:
            cell += c
    return rows


def listed(text):
    """The cells of ``(1,'a'),(2,NULL)``."""
    rows, place = [], 0
    while place < len(text):
        assert text[place] in "(,"
        place += text[place] == ","
        row, place = [], place + 1
        while text[place - 1] != ")":
            cell, place = one_cell(text, place)
            row.append(cell)
            place += 1
        rows.append(row)
    return rows


def one_cell(text, place):
    if text[place] != "'":
        end = min(e for e in (text.find(",", place), text.find(")", place)) if e >= 0)
        raw = text[place:end]
        return (None if raw == "NULL" else raw), end
    cell, place = "", place + 1
    while text[place] != "'":
        if text[place] == "\\":
            place += 1
            cell += ESCAPES.get(text[place], text[place])
        else:
            cell += text[place]
        place += 1
    return cell, place + 1


@given(ROWS)
def test_load_data_reads_every_cell(rows):
    data = load_text(batch(rows)).decode()
    assert loaded(data + "\n" if rows else "") == [as_text(row) for row in rows]


@given(ROWS, st.integers(1, 200))
def test_lists_of_values_hold_every_row_once_and_no_list_is_too_long(rows, longest):
    lists = list(value_lists(batch(rows), longest))
    assert [row for text in lists for row in listed(text)] == [as_text(row) for row in rows]
    for text in lists:
        assert len(text.encode()) <= longest or len(listed(text)) == 1


def test_no_rows_are_no_text():
    assert load_text(batch([])) == b""
    assert list(value_lists(batch([]))) == []


@pytest.mark.parametrize(
    ("values", "kind", "cell"),
    [
        ([1.5], pa.float64(), "1.5"),
        ([1e300], pa.float64(), "1e+300"),
        ([date(2026, 1, 2)], pa.date32(), "2026-01-02"),
        ([datetime(2026, 1, 2)], pa.timestamp("s"), "2026-01-02 00:00:00.000000"),
    ],
)
def test_other_types_have_a_text_as_well(values, kind, cell):
    one = pa.record_batch({"a": pa.array(values, kind)})
    assert load_text(one).decode() == cell
    (text,) = value_lists(one)
    assert text.strip("()").strip("'") == cell


def test_a_full_list_fits_the_smallest_packet_that_servers_have():
    rows = [(n, "あ" * 100, True, None) for n in range(5_000)]
    lists = list(value_lists(batch(rows)))
    assert len(lists) > 1
    assert all(len(text.encode()) <= STATEMENT_BYTES < 1_000_000 for text in lists)
