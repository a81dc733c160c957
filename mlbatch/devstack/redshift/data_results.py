"""Results as the Data API types them."""

from __future__ import annotations

import base64
import json
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from mlbatch.devstack.redshift.result_types import type_name

_NAMES = {
    "boolean": "bool", "smallint": "int2", "integer": "int4", "bigint": "int8", "real": "float4",
    "double precision": "float8", "character varying": "varchar", "numeric": "numeric",
    "time without time zone": "time", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz", "binary varying": "varbyte", "date": "date",
}  # fmt: skip
_PRECISIONS = {"int2": 5, "int4": 10, "int8": 19, "float4": 8, "float8": 17, "bool": 1}
LONGEST_TEXT = 65_535


def column_metadata(schema: pa.Schema) -> list[dict[str, Any]]:
    """One ColumnMetadata for each column."""
    return [_metadata(field) for field in schema]


def _metadata(field: pa.Field) -> dict[str, Any]:
    name = _NAMES[type_name(field.type)]
    is_text, is_decimal = name == "varchar", pa.types.is_decimal(field.type)
    precision = field.type.precision if is_decimal else _PRECISIONS.get(name, 0)
    return {
        "isCaseSensitive": is_text,
        "isCurrency": False,
        "isSigned": name in ("int2", "int4", "int8", "float4", "float8", "numeric"),
        "label": field.name,
        "length": LONGEST_TEXT if is_text else 0,
        "name": field.name,
        "nullable": 1,
        "precision": LONGEST_TEXT if is_text else precision,
        "scale": field.type.scale if is_decimal else 0,
        "schemaName": "",
        "tableName": "",
        "typeName": name,
    }


def records(table: pa.Table) -> list[list[dict[str, Any]]]:
    """The rows, each value as a typed Field."""
    columns = [[_field(value) for value in column.to_pylist()] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def size(table: pa.Table) -> int:
    """The bytes that these rows have as text."""
    return len(json.dumps(records(table.slice(0, 1000)))) if table.num_rows else 0


def _field(value: object) -> dict[str, Any]:
    if value is None:
        return {"isNull": True}
    if isinstance(value, bool):
        return {"booleanValue": value}
    if isinstance(value, int):
        return {"longValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"blobValue": base64.b64encode(value).decode()}
    return {"stringValue": text_of(value)}


def text_of(value: object) -> str:
    """A value as Redshift prints it."""
    if isinstance(value, datetime):
        zone = "" if value.tzinfo is None else "+00"
        plain = value.replace(tzinfo=None).isoformat(sep=" ")
        return (plain.rstrip("0") if "." in plain else plain) + zone
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value)
