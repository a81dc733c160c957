"""The text of UNLOAD and COPY. What they name comes from settings and declarations, never from rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mlbatch.errors import DeclarationError, UsageError
from mlbatch.sql import MAX_BYTES, quote_identifier

TYPES = {
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR(65535)",
    pa.timestamp("us"): "TIMESTAMP",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE PRECISION",
    pa.date32(): "DATE",
}


@dataclass(frozen=True, slots=True)
class UnloadOptions:
    """What settings say about unloading."""

    iam_role: str = "default"
    part_megabytes: int = 64
    kms_key: str | None = None
    region: str | None = None
    """Of the bucket, where it is not the cluster's."""


def unload(
    select: str,
    prefix: str,
    options: UnloadOptions,
    *,
    tag: Callable[[], str] = lambda: f"t{secrets.token_hex(8)}",
) -> str:
    """UNLOAD of ``select`` to Parquet parts and a verbose manifest, refusing to overwrite.

    The query stands between dollar quotes whose tag it does not hold, so nothing in it is escaped.
    """
    quoted = _dollar_quoted(select.strip().removesuffix(";"), tag)
    clauses = [
        f"UNLOAD ({quoted})",
        f"TO {_text(prefix)}",
        f"IAM_ROLE {_role(options.iam_role)}",
        "FORMAT AS PARQUET",
        "MANIFEST VERBOSE",
        f"MAXFILESIZE AS {options.part_megabytes} MB",
    ]
    if options.kms_key:
        clauses.append(f"KMS_KEY_ID {_text(options.kms_key)} ENCRYPTED")
    if options.region:
        clauses.append(f"REGION AS {_text(options.region)}")
    return _short_enough("\n".join(clauses))


def _dollar_quoted(text: str, tag: Callable[[], str]) -> str:
    if "\0" in text:
        message = "the query holds a NUL character"
        raise DeclarationError(message, hint="remove it from the .sql file")
    name = tag()
    while f"${name}$" in text:
        name = tag()
    return f"${name}$\n{text}\n${name}$"


def copy(table: str, manifest: str, options: UnloadOptions) -> str:
    """COPY of the Parquet files that ``manifest`` names."""
    clauses = [
        f"COPY {quote_identifier(table)}",
        f"FROM {_text(manifest)}",
        f"IAM_ROLE {_role(options.iam_role)}",
        "FORMAT AS PARQUET",
        "MANIFEST",
    ]
    return _short_enough("\n".join(clauses))


def create_table(table: str, schema: pa.Schema) -> str:
    """A table for rows of ``schema``, unless there is one."""
    return f"CREATE TABLE IF NOT EXISTS {quote_identifier(table)} {_columns(table, schema)}"


def stage_table(staged: str, schema: pa.Schema) -> str:
    """A temporary table whose columns are those of ``schema``, in its order.

    COPY fills columns by position: whatever the order of the table that the rows are meant for.
    """
    return f"CREATE TEMPORARY TABLE {quote_identifier(staged)} {_columns(staged, schema)}"


def _columns(table: str, schema: pa.Schema) -> str:
    unknown = [field.name for field in schema if field.type not in TYPES]
    if unknown:
        message = f"{table}: {unknown[0]} is of type {schema.field(unknown[0]).type}"
        raise UsageError(message, hint=f"cast it to one of {', '.join(map(str, TYPES))}")
    return f"({', '.join(f'{quote_identifier(f.name)} {TYPES[f.type]}' for f in schema)})"


def no_rows_of(table: str) -> str:
    """A SELECT that gives the table's columns and nothing else."""
    return f"SELECT * FROM {quote_identifier(table)} LIMIT 0"  # noqa: S608


def replace_rows(
    table: str, staged: str, columns: Sequence[str], key: Sequence[str]
) -> tuple[str, str]:
    """Delete what ``staged`` replaces, then insert it: Redshift enforces no key of its own."""
    target, source = quote_identifier(table), quote_identifier(staged)
    named = ", ".join(map(quote_identifier, columns))
    match = " AND ".join(
        f"{target}.{quote_identifier(k)} = {source}.{quote_identifier(k)}" for k in key
    )
    return (
        f"DELETE FROM {target} USING {source} WHERE {match}",  # noqa: S608
        f"INSERT INTO {target} ({named}) SELECT {named} FROM {source}",  # noqa: S608
    )


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _role(role: str) -> str:
    return "default" if role == "default" else _text(role)


def _short_enough(statement: str) -> str:
    size = len(statement.encode())
    if size > MAX_BYTES:
        message = f"the statement has {size:,} bytes, Redshift's Data API takes {MAX_BYTES:,}"
        raise DeclarationError(message, hint="make the view a table or view of the warehouse")
    return statement
