"""COPY of Parquet files: types are not converted, and columns go by position."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlbatch.devstack.redshift.loading import Load, SourceFile, Target
from mlbatch.devstack.redshift.refusal import Refusal

_FITTING = {
    "BOOLEAN": (pa.bool_(),),
    "SMALLINT": (pa.int16(),),
    "INTEGER": (pa.int32(),),
    "BIGINT": (pa.int64(),),
    "FLOAT": (pa.float32(),),
    "DOUBLE": (pa.float64(),),
    "VARCHAR": (pa.string(), pa.large_string()),
    "JSON": (pa.string(), pa.large_string()),
    "BLOB": (pa.binary(), pa.large_binary()),
    "DATE": (pa.date32(),),
    "TIME": (pa.time64("us"),),
}
_NAMES = {"FLOAT": "REAL", "DOUBLE": "DOUBLE PRECISION", "BLOB": "VARBYTE", "JSON": "SUPER"}


def load_file(load: Load, file: SourceFile) -> int:
    """Append one file's rows."""
    try:
        source = pq.ParquetFile(pa.BufferReader(file.content))
    except pa.ArrowInvalid as error:
        message = f"Spectrum Scan Error. File '{file.uri}' is not a Parquet file: {error}"
        raise Refusal("XX000", message) from error
    schema = source.schema_arrow
    if len(schema) != len(load.targets):
        message = (
            "Spectrum Scan Error. Unmatched number of columns between table and file. "
            f"Table columns: {len(load.targets)}, Data columns: {len(schema)}, File name: {file.uri}"
        )
        raise Refusal("XX000", message)
    for field, target in zip(schema, load.targets, strict=True):
        _check(field, target, file)
    rows = source.read()
    _check_values(rows, load, file)
    return load.insert(rows)


def _check(field: pa.Field, target: Target, file: SourceFile) -> None:
    if not _fits(field.type, target.duckdb_type):
        declared = _NAMES.get(target.duckdb_type, target.duckdb_type)
        message = (
            f"Spectrum Scan Error. File '{file.uri}' has an incompatible Parquet schema for "
            f"column '{file.uri}.{target.name}'. Column type: {declared}, "
            f"Parquet schema: optional {field.type} {field.name}"
        )
        raise Refusal("XX000", message)


def _fits(found: pa.DataType, declared: str) -> bool:
    if declared.startswith("DECIMAL"):
        return (
            pa.types.is_decimal(found) and f"DECIMAL({found.precision},{found.scale})" == declared
        )
    if declared.startswith("TIMESTAMP"):
        return pa.types.is_timestamp(found) and found.unit != "s"
    return found in _FITTING.get(declared, ())


def _check_values(rows: pa.Table, load: Load, file: SourceFile) -> None:
    for column, target in zip(rows.columns, load.targets, strict=True):
        if column.null_count and not target.nullable:
            message = f"Missing data for not-null field: {target.name} in {file.uri}"
            raise Refusal("XX000", message)
        if target.length is not None:
            lengths = pc.binary_length(column)
            longest = pc.max(lengths).as_py() or 0
            if longest > target.length:
                message = (
                    f"Spectrum Scan Error. The length of the data column {target.name} is longer "
                    f"than the length defined in the table. Table: {target.length}, "
                    f"Data: {longest}, File name: {file.uri}"
                )
                raise Refusal("XX000", message)
