"""DuckDB's results in Redshift's types."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.devstack.redshift.result_types import (
    recast,
    redshift_schema,
    redshift_type,
    type_name,
)


def results(query):
    """The rows of a query of DuckDB's, in Redshift's types."""
    relation = duckdb.sql(query)
    schema = redshift_schema(relation.limit(0).to_arrow_table().schema)
    batches = recast(iter(relation.to_arrow_reader(100)), schema)
    return pa.Table.from_batches(list(batches), schema)


@pytest.mark.parametrize(
    ("expression", "kind", "name", "value"),
    [
        ("5::TINYINT", pa.int16(), "smallint", 5),
        ("200::UTINYINT", pa.int16(), "smallint", 200),
        ("60000::USMALLINT", pa.int32(), "integer", 60_000),
        ("4000000000::UINTEGER", pa.int64(), "bigint", 4_000_000_000),
        ("true", pa.bool_(), "boolean", True),
        ("1::SMALLINT", pa.int16(), "smallint", 1),
        ("1::INT", pa.int32(), "integer", 1),
        ("1::BIGINT", pa.int64(), "bigint", 1),
        ("1.5::FLOAT", pa.float32(), "real", 1.5),
        ("1.5::DOUBLE", pa.float64(), "double precision", 1.5),
        ("'日'", pa.string(), "character varying", "日"),
        ("NULL", pa.string(), "character varying", None),
        ("NULL::VARCHAR", pa.string(), "character varying", None),
        ("'\\xFF'::BLOB", pa.binary(), "binary varying", b"\xff"),
        ("[1, 2]", pa.string(), "character varying", "[1, 2]"),
        ("{'a': 1, 'b': '日'}", pa.string(), "character varying", '{"a": 1, "b": "日"}'),
        ("[DATE '2026-01-02']", pa.string(), "character varying", '["2026-01-02"]'),
        ("NULL::INT[]", pa.string(), "character varying", None),
        ("'a'::ENUM ('a', 'b')", pa.string(), "character varying", "a"),
    ],
)
def test_each_of_duckdbs_types_goes_out_as_one_of_redshifts(expression, kind, name, value):
    table = results(f"SELECT {expression} AS a")
    assert table.schema.field("a").type == kind
    assert type_name(kind) == name
    assert table.to_pylist() == [{"a": value}]


@pytest.mark.parametrize(
    ("found", "sent"),
    [
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us", "UTC")),
        (pa.decimal128(9, 2), pa.decimal128(9, 2)),
        (pa.decimal256(30, 5), pa.decimal128(30, 5)),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.large_binary(), pa.binary()),
        (pa.binary_view(), pa.binary()),
        (pa.null(), pa.string()),
        (pa.list_(pa.int64()), pa.string()),
        (pa.struct([("a", pa.int64())]), pa.string()),
        (pa.duration("us"), pa.string()),
    ],
    ids=str,
)
def test_types_that_redshift_does_not_have(found, sent):
    assert redshift_type(found) == sent
    assert redshift_type(sent) == sent
    assert type_name(sent)


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=5))
def test_unsigned_numbers_keep_every_digit(values):
    schema = pa.schema([("a", pa.uint64())])
    batch = pa.record_batch([pa.array(values, pa.uint64())], schema=schema)
    (sent,) = recast(iter([batch]), redshift_schema(schema))
    assert [None if v is None else int(v) for v in sent.column(0).to_pylist()] == values


def test_nullability_and_names_stay():
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False), pa.field("B b", pa.null())])
    assert redshift_schema(schema) == pa.schema(
        [pa.field("a", pa.int16(), nullable=False), pa.field("B b", pa.string())]
    )
