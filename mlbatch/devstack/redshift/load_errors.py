"""Rows that COPY cannot load: found, recorded in stl_load_errors, and forgiven up to MAXERROR."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mlbatch.devstack.redshift.cluster import Cluster
from mlbatch.devstack.redshift.refusal import Refusal

INVALID_DIGIT = 1207
TOO_LONG = 1204
DELIMITER_MISSING = 1214
EXTRA_COLUMNS = 1202
MISSING_VALUE = 1213
_REASONS = {
    INVALID_DIGIT: "Invalid value for the column's type",
    TOO_LONG: "String length exceeds DDL length",
    DELIMITER_MISSING: "Delimiter not found",
    EXTRA_COLUMNS: "Extra column(s) found",
    MISSING_VALUE: "Missing data for not-null field",
}


@dataclass(frozen=True, slots=True)
class LoadError:
    """One field that does not fit."""

    file: str
    line: int
    column: str
    type: str
    value: str
    code: int


def record(cluster: Cluster, query: int, error: LoadError) -> None:
    """A row of stl_load_errors, which outlives the transaction."""
    cluster.record("stl_load_errors", {
        "query": query, "starttime": datetime.now(UTC).replace(tzinfo=None),
        "filename": error.file, "line_number": error.line, "colname": error.column,
        "type": error.type, "raw_line": "", "raw_field_value": error.value[:1024],
        "err_code": error.code, "err_reason": _REASONS[error.code],
    })  # fmt: skip


def failed(table: str) -> Refusal:
    """What the client reads when more rows failed than MAXERROR allows."""
    message = (
        f"Load into table '{table}' failed.  Check 'stl_load_errors' system table for details."
    )
    return Refusal("XX000", message)
