"""Errors as Redshift words them, and DuckDB's in these words."""

from __future__ import annotations

import errno
import re

import duckdb
from sqlglot.errors import SqlglotError

from mlbatch.errors import UsageError

CANCELLED = "57014"


class Refusal(Exception):
    """A statement that fails, with its SQLSTATE."""

    def __init__(self, sqlstate: str, message: str, detail: str | None = None) -> None:
        """``message`` is without the severity in front."""
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail


def unsupported(what: str) -> Refusal:
    """What this stand-in, or Redshift itself, does not do."""
    return Refusal("0A000", what)


_WORDINGS = [
    (r"(?:Table|View) with name \"?([\w.]+)\"? already", "42P07", 'Relation "{}" already exists'),
    (r"(?:Table|View) with name \"?([\w.]+)\"? does not", "42P01", 'relation "{}" does not exist'),
    (r"Referenced table \"(.+?)\" not found", "42P01", 'missing FROM-clause entry for "{}"'),
    (r"Schema with name \"?(\w+)\"? does not", "3F000", 'schema "{}" does not exist'),
    (r"Schema with name \"?(\w+)\"? already", "42P06", 'schema "{}" already exists'),
    (r"Column with name \"?(\w+)\"? already", "42701", 'column "{}" already exists'),
    (r"(?:Referenced column|Cannot extract field) ['\"](.+?)['\"]", "42703",
     'column "{}" does not exist'),
    (r"does not have a column (?:with name|named) \"(.+?)\"", "42703",
     'column "{}" does not exist'),
    (r"Function with name (\S+) does not", "42883", "function {}() does not exist"),
    (r"No function matches .+? '(.+)'\.", "42883", "function {} does not exist"),
    (r"Values were not provided for the following parameters: (\d+)", "42P02",
     "there is no parameter ${}"),
    (r"must appear in the GROUP BY clause", "42803", ""),
    (r"columns but \d+ values", "42601",
     "INSERT has more or fewer expressions than target columns"),
    (r"syntax error at or near \"(.*?)\"", "42601", 'syntax error at or near "{}"'),
    (r"CHECK constraint failed .*<= (\d+)", "22001", "value too long for type character varying({})"),
    (r"NOT NULL constraint failed: (?:\w+\.)*(\w+)", "23502",
     "Cannot insert a NULL value into column {}"),
    (r"[Dd]uplicate key", "23505", "duplicate key value violates unique constraint"),
    (r"Could not convert string '(.*?)' to (\w+)", "22P02",
     'invalid input syntax for type {1}: "{0}"'),
    (r"out of range for", "22003", ""),
    (r"field value out of range|invalid (?:date|time)", "22007", ""),
]  # fmt: skip
_KINDS: list[tuple[type[Exception], str]] = [
    (duckdb.ParserException, "42601"),
    (duckdb.ConversionException, "22P02"),
    (duckdb.OutOfRangeException, "22003"),
    (duckdb.NotImplementedException, "0A000"),
    (duckdb.BinderException, "42601"),
    (duckdb.CatalogException, "42601"),
    (duckdb.ConstraintException, "23514"),
    (duckdb.PermissionException, "42501"),
    (duckdb.OutOfMemoryException, "53200"),
]
_TYPES = {
    "INT16": "smallint", "INT32": "integer", "INT64": "bigint", "BOOL": "boolean",
    "FLOAT": "real", "DOUBLE": "double precision", "DATE": "date", "TIMESTAMP": "timestamp",
}  # fmt: skip


def translated(error: Exception) -> Refusal:
    """``error`` of DuckDB, sqlglot, the dialect or the disk, as Redshift would put it."""
    text = _first_line(error)
    if isinstance(error, UsageError):
        return unsupported(error.message)
    if isinstance(error, SqlglotError):
        return Refusal("42601", f"syntax error: {text}")
    if _is_full(error, text):
        return Refusal("53100", "Disk Full", detail=text)
    if isinstance(error, duckdb.TransactionException) or "onflict on" in text:
        return Refusal("XX000", "1023", detail=f"Serializable isolation violation on table: {text}")
    return _worded(text) or Refusal(_kind(error), text)


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^[\w ]+ Error: ", "", text)


def _is_full(error: Exception, text: str) -> bool:
    no_space = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return no_space or "No space left" in text


def _worded(text: str) -> Refusal | None:
    for pattern, sqlstate, wording in _WORDINGS:
        found = re.search(pattern, text)
        if found:
            groups = [_TYPES.get(group, group) for group in found.groups()]
            return Refusal(sqlstate, wording.format(*groups) or text)
    return None


def _kind(error: Exception) -> str:
    return next((state for kind, state in _KINDS if isinstance(error, kind)), "XX000")
