"""DuckDB's results in the types that Redshift has."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

_WIDER = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.null(): pa.string(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
_NAMES = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "character varying",
    pa.date32(): "date",
    pa.time64("us"): "time without time zone",
    pa.timestamp("us"): "timestamp without time zone",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
    pa.binary(): "binary varying",
}


def redshift_type(found: pa.DataType) -> pa.DataType:
    """The type in which a result column of DuckDB's type goes out."""
    if pa.types.is_timestamp(found):
        return pa.timestamp("us", tz="UTC" if found.tz else None)
    if pa.types.is_decimal(found):
        return pa.decimal128(found.precision, found.scale)
    if found in _NAMES:
        return found
    return _WIDER.get(found, pa.string())


def redshift_schema(found: pa.Schema) -> pa.Schema:
    """`redshift_type` of every column."""
    return pa.schema([pa.field(f.name, redshift_type(f.type), f.nullable) for f in found])


def type_name(known: pa.DataType) -> str:
    """Redshift's name of one of its types, without length."""
    return "numeric" if pa.types.is_decimal(known) else _NAMES[known]


def recast(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """``batches`` with the columns in the types of ``schema``."""
    for batch in batches:
        columns = [_cast(c, f.type) for c, f in zip(batch.columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if column.type == wanted:
        return column
    if pa.types.is_string(wanted) and not pa.types.is_null(column.type):
        return _texts(column)
    return column.cast(wanted, safe=False)


def _texts(column: pa.Array) -> pa.Array:
    values = [None if v is None else _text(v) for v in column.to_pylist()]
    return pa.array(values, pa.string())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
