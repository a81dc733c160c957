"""COPY of any bytes at all: every line is loaded or named, and nothing else happens."""

from __future__ import annotations

import re
from datetime import date
from decimal import ROUND_DOWN, Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift import copy_text, load_errors
from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.load_errors import LoadError
from mlbatch.devstack.redshift.loading import Load, SourceFile, Target
from mlbatch.devstack.redshift.refusal import Refusal

FILE = "s3://b/x"
TARGETS = (
    Target("n", "INTEGER", None, nullable=False),
    Target("t", "VARCHAR", 4, nullable=True),
    Target("d", "DATE", None, nullable=True),
)
CODES = {1202, 1204, 1205, 1207, 1213, 1214, 1220, 1222}


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as made:
        made.execute("CREATE TABLE t (n INTEGER NOT NULL, t VARCHAR, d DATE)")
        made.execute("CREATE TABLE p (a DECIMAL(18, 3))")
        yield made


def load(connection, content, targets=TARGETS, table="t", **options):
    """The rows that were loaded, and the errors that were reported; None for a failed COPY."""
    connection.execute(f"DELETE FROM {table}")
    reported: list[LoadError] = []
    command = CopyCommand(table, FILE, **{"max_errors": 1_000, **options})
    one = Load(connection, command, targets, reported.append)
    count = copy_text.load_file(one, SourceFile(FILE, content))
    found = connection.execute(f"SELECT * FROM {table}").fetchall()
    assert count == len(found)
    return found, reported


ANYTHING = st.lists(st.sampled_from([
    b"1", b"-7", b"2147483648", b"x", b"|", b"|", b"|", b"\n", b"\n", b"\xff", "日".encode(), b"abcd", b" ",
    b"2026-01-02", b"2026-02-30", b"\\N", b"'", b'"', b"\\", b"1.5", b"\r", b"\0",
]), max_size=25).map(b"".join)  # fmt: skip


@settings(max_examples=150)
@given(
    content=ANYTHING,
    options=st.fixed_dictionaries({}, optional={
        "escape": st.just(True), "remove_quotes": st.just(True), "fill_record": st.just(True),
        "empty_as_null": st.just(True), "blanks_as_null": st.just(True), "invalid_as": st.just("?"),
        "truncate_columns": st.just(True), "ignore_blank_lines": st.just(True),
        "accept_any_date": st.just(True), "trim_blanks": st.just(True),
        "ignore_header": st.integers(0, 2),
    }),
)  # fmt: skip
def test_every_line_is_loaded_or_named(connection, content, options):
    rows, errors = load(connection, content, **options)
    command = CopyCommand("t", FILE, **options)
    text = content.decode("utf-8", "surrogateescape")
    lines = list(copy_text.read_lines(command, text))
    assert len(rows) + len(errors) == len(lines)
    assert [error.line for error in errors] == sorted({error.line for error in errors})
    assert {error.code for error in errors} <= CODES
    for number, value, _ in rows:
        assert -(2**31) <= number < 2**31
        assert value is None or len(value.encode()) <= 4
    for error in errors:
        assert error.reason
        assert "{" not in error.reason
        assert error.column in ("", "n", "t", "d")


ROWS = st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1),
                          st.none() | st.text(st.sampled_from("ab日|\n\"'\\"), max_size=1),
                          st.none() | st.dates(date(1000, 1, 1))), max_size=6)  # fmt: skip


def escaped(value):
    if value is None:
        return "\\N"
    return re.sub(r"([\\|\n])", r"\\\1", str(value))


@settings(max_examples=60)
@given(ROWS)
def test_what_is_escaped_is_loaded_as_it_was(connection, rows):
    content = "".join("|".join(map(escaped, row)) + "\n" for row in rows).encode()
    assert load(connection, content, escape=True) == (rows, [])


@settings(max_examples=80)
@given(st.decimals(-(10**9), 10**9, places=6))
def test_a_scale_is_cut_or_rounded(connection, value):
    """Cut towards zero, as the documentation's example says; rounded with ROUNDEC."""
    target = (Target("a", "DECIMAL(18,3)", None, nullable=True),)
    content = f"{value:f}\n".encode()
    assert load(connection, content, target, "p") == (
        [(value.quantize(Decimal("0.001"), ROUND_DOWN),)], [],
    )  # fmt: skip
    ((rounded,),), _ = load(connection, content, target, "p", round_decimals=True)
    assert abs(rounded - value) <= Decimal("0.0005")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@given(rows=ROWS.filter(bool))
@settings(max_examples=15)
def test_sixteen_bits_are_read_like_eight(connection, encoding, rows):
    text = "".join("|".join(map(escaped, row)) + "\n" for row in rows)
    assert load(connection, text.encode(encoding), escape=True, encoding=encoding) == (rows, [])


@pytest.mark.parametrize(("most", "wrong"), [(0, 1), (1, 1), (2, 2), (5, 7)])
def test_all_errors_of_a_file_are_reported_before_it_fails(connection, most, wrong):
    reported = []
    command = CopyCommand("t", FILE, max_errors=most)
    one = Load(connection, command, TARGETS, reported.append)
    with pytest.raises(Refusal, match="Load into table 't' failed"):
        copy_text.load_file(one, SourceFile(FILE, b"x|a|\n" * wrong))
    assert [error.line for error in reported] == list(range(1, wrong + 1))
    assert one.errors == reported


def test_the_table_is_untouched_where_nothing_shall_be_loaded(connection):
    rows, errors = load(connection, b"1|a|\n2|toolong|\n", no_load=True)
    assert (rows, [error.code for error in errors]) == ([], [1204])


@pytest.mark.parametrize(("table", "quoted"), [("t", '"t"'), ("a.b", '"a"."b"'), ('x"y', '"x""y"')])
def test_the_table_s_name_is_quoted(connection, table, quoted):
    assert Load(connection, CopyCommand(table, FILE), (), lambda _: None).table == quoted


@pytest.mark.parametrize(
    ("kind", "is_text", "is_date"),
    [("VARCHAR", True, False), ("DATE", False, True), ("TIMESTAMP", False, True),
     ("TIMESTAMP WITH TIME ZONE", False, True), ("TIME", False, False), ("INTEGER", False, False),
     ("DECIMAL(5,2)", False, False)],
)  # fmt: skip
def test_a_target_knows_its_kind(kind, is_text, is_date):
    target = Target("a", kind, None, nullable=True)
    assert (target.is_text, target.is_date) == (is_text, is_date)


@pytest.mark.parametrize("code", [value for name, value in vars(load_errors).items()
                                  if name.isupper() and isinstance(value, int) and value > 1_199])  # fmt: skip
def test_every_code_has_a_reason_that_can_be_told(code):
    error = LoadError(FILE, 1, "raw", code, "a", "INTEGER", 0, "1x", 1)
    assert error.reason
    assert "{" not in error.reason


def test_long_lines_and_values_are_cut_in_the_log():
    engine = Engine(None, store=None)
    log = load_errors.ErrorLog(engine, 1, 2, 3)
    log.record(LoadError(FILE, 1, "r" * 5_000, 1204, "a", "VARCHAR", 4, "v" * 5_000))
    query = (
        "SELECT LEN(raw_line) AS a, LEN(raw_field_value) AS b, query, session, tbl, col_length"
        " FROM stl_load_errors"
    )
    (found,) = engine.session().execute(query).table.to_pylist()
    assert tuple(found.values()) == (1_024, 1_024, 1, 2, 3, "4")
    engine.close()


def test_a_parquet_like_table_goes_in_by_position(connection):
    connection.execute("DELETE FROM t")
    one = Load(connection, CopyCommand("t", FILE), TARGETS[:2], lambda _: None)
    assert one.insert(pa.table({"odd": [5], "names": ["v"]})) == 1
    assert connection.execute("SELECT * FROM t").fetchall() == [(5, "v", None)]
