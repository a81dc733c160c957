"""Rows that COPY cannot load: found, recorded in stl_load_errors, and forgiven up to MAXERROR."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mlbatch.devstack.redshift.cluster import SUPERUSER, Cluster
from mlbatch.devstack.redshift.refusal import Refusal

EXTRA_COLUMNS, TOO_LONG, BAD_DATE, BAD_TIMESTAMP, INVALID_DIGIT = 1202, 1204, 1205, 1206, 1207
BAD_FLOAT, BAD_DECIMAL, BAD_BOOLEAN, MISSING_VALUE, DELIMITER_MISSING = 1208, 1209, 1210, 1213, 1214
BAD_ENCODING, OVERFLOW, BAD_TYPE, BAD_JSON = 1220, 1222, 1223, 1224
"""Redshift's own numbers, from its load error reference."""
_REASONS = {
    EXTRA_COLUMNS: "Extra column(s) found",
    TOO_LONG: "String length exceeds DDL length",
    BAD_DATE: "Invalid date format or value [YYYY-MM-DD]",
    BAD_TIMESTAMP: "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]",
    INVALID_DIGIT: "Invalid digit, Value '{sign}', Pos {position}, Type: {type}",
    BAD_FLOAT: "Invalid float format or value, Type: {type}",
    BAD_DECIMAL: "Invalid decimal format or value, Type: {type}",
    BAD_BOOLEAN: "Unknown boolean format",
    MISSING_VALUE: "Missing data for not-null field",
    DELIMITER_MISSING: "Delimiter not found",
    BAD_ENCODING: "String contains invalid or unsupported UTF8 codepoints",
    OVERFLOW: "Integer value overflow, Type: {type}",
    BAD_TYPE: "Invalid data, Type: {type}",
    BAD_JSON: "Invalid JSON, Type: {type}",
}
_LONGEST = 1024
_SHORT = {
    "SMALLINT": ("int2", "Short"), "INTEGER": ("int4", "Integer"), "BIGINT": ("int8", "Long"),
    "FLOAT": ("float4", "Float"), "DOUBLE": ("float8", "Double"), "BOOLEAN": ("bool", "Boolean"),
    "VARCHAR": ("varchar", "Varchar"), "DATE": ("date", "Date"), "TIME": ("time", "Time"),
    "TIMESTAMP": ("timestamp", "Timestamp"), "JSON": ("super", "Super"),
    "TIMESTAMP WITH TIME ZONE": ("timestamptz", "Timestamptz"), "BLOB": ("varbyte", "Varbyte"),
    "": ("", ""),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadError:
    """One row that does not fit, and the first of its fields that does not."""

    file: str
    line: int
    raw_line: str
    code: int
    column: str = ""
    type: str = ""
    """DuckDB's name of the column's type."""
    length: int = 0
    """Most bytes of the column, where it has text."""
    value: str = ""
    position: int = 0
    """Where in the value."""

    @property
    def reason(self) -> str:
        """What the client reads."""
        sign = self.value[self.position : self.position + 1]
        return _REASONS[self.code].format(
            sign=sign, position=self.position, type=_short(self.type)[1]
        )


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """Where one COPY's errors are kept."""

    cluster: Cluster
    query: int
    pid: int
    table_id: int

    def record(self, error: LoadError) -> None:
        """A row of stl_load_errors, which outlives the transaction."""
        self.cluster.record("stl_load_errors", {
            "userid": SUPERUSER, "slice": 0, "tbl": self.table_id,
            "starttime": datetime.now(UTC).replace(tzinfo=None), "session": self.pid,
            "query": self.query, "filename": error.file, "line_number": error.line,
            "colname": error.column, "type": _short(error.type)[0],
            "col_length": str(error.length), "position": error.position,
            "raw_line": error.raw_line[:_LONGEST], "raw_field_value": error.value[:_LONGEST],
            "err_code": error.code, "err_reason": error.reason,
        })  # fmt: skip


def _short(duckdb_type: str) -> tuple[str, str]:
    """How stl_load_errors calls a type, in its column and in its reasons."""
    return _SHORT.get(duckdb_type, ("numeric", "Decimal"))


def failed(table: str) -> Refusal:
    """What the client reads when more rows failed than MAXERROR allows."""
    message = (
        f"Load into table '{table}' failed.  Check 'stl_load_errors' system table for details."
    )
    return Refusal("XX000", message)
