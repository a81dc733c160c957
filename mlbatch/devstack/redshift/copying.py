"""COPY: files into a table, by position of the columns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import duckdb
import pyarrow as pa

from mlbatch.devstack.redshift import copy_parquet, copy_text
from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.cluster import Cluster
from mlbatch.devstack.redshift.copy_command import CopyCommand, parse_copy
from mlbatch.devstack.redshift.interruption import Interruption
from mlbatch.devstack.redshift.load_errors import ErrorLog
from mlbatch.devstack.redshift.loading import Load, SourceFile, Target
from mlbatch.devstack.redshift.object_store import ObjectStore
from mlbatch.devstack.redshift.refusal import Refusal


class CopySession(Protocol):
    """What COPY needs of the session that it runs in."""

    engine: Cluster
    cursor: duckdb.DuckDBPyConnection
    query: int
    pid: int
    last_copy: int
    """The query of the last COPY that began to load, or -1."""
    last_copied: int
    """The rows that it loaded."""

    @property
    def interruption(self) -> Interruption:
        """The run of the statement now under way."""
        ...

    def atomically(self) -> AbstractContextManager[None]:
        """A transaction around several steps, unless the client has one open."""
        ...

    def create_table_sql(self, schema: str, table: str) -> str:
        """The table's definition. Raises Refusal when there is no such table."""
        ...


def copy(session: CopySession, sql: str) -> Answer:
    """Run one COPY statement; all of its rows or none."""
    command = parse_copy(sql)
    table_id, targets = _targets(session, command)
    log = ErrorLog(session.engine, session.query, session.pid, table_id)
    load = Load(session.cursor, command, targets, log.record)
    session.last_copy, session.last_copied = session.query, 0
    loader = copy_parquet.load_file if command.format == "parquet" else copy_text.load_file
    with session.atomically():
        rows = sum(loader(load, file) for file in _files(session, command))
    session.last_copied = rows
    return Answer("COPY", notices=tuple(_notices(load, rows)), rows=rows)


def _notices(load: Load, rows: int) -> Iterator[str]:
    completed = f"Load into table '{load.command.table}' completed, "
    if load.errors:
        failed = f"{completed}{len(load.errors)} record(s) could not be loaded.  "
        yield f"{failed}Check 'stl_load_errors' system table for details."
    yield f"{completed}{rows} record(s) loaded successfully."


def _targets(session: CopySession, command: CopyCommand) -> tuple[int, tuple[Target, ...]]:
    *schema, table = command.table.split(".")
    session.create_table_sql(schema[0] if schema else "", table)
    found = session.cursor.execute(_COLUMNS, [table, schema[0] if schema else ""]).fetchall()
    known = {name: Target(name, *rest) for name, *rest, _ in found}
    wanted = command.columns or tuple(known)
    for name in wanted:
        if name not in known:
            message = f'column "{name}" of relation "{table}" does not exist'
            raise Refusal("42703", message)
    return int(found[0][-1]), tuple(known[name] for name in wanted)


# A temporary table hides one of the same name, as in a query.
_COLUMNS = r"""
SELECT column_name, c.data_type, CAST(regexp_extract(k.expression, '<= (\d+)', 1) AS INTEGER),
       is_nullable, c.table_oid
  FROM duckdb_columns() c
  LEFT JOIN duckdb_constraints() k ON k.table_oid = c.table_oid
       AND k.database_oid = c.database_oid AND k.constraint_type = 'CHECK'
       AND k.constraint_column_names[1] = c.column_name
 WHERE (c.database_oid, c.table_oid) = (
       SELECT (database_oid, table_oid) FROM duckdb_tables()
        WHERE lower(table_name) = lower($1) AND $2 IN ('', schema_name)
        ORDER BY temporary DESC LIMIT 1)
 ORDER BY column_index
"""


def _files(session: CopySession, command: CopyCommand) -> Iterator[SourceFile]:
    store = session.engine.store
    for uri in _manifest(store, command) if command.manifest else _prefixed(store, command.source):
        session.interruption.check()
        yield SourceFile(uri, _decompressed(store.get(uri), command))


def _prefixed(store: ObjectStore, prefix: str) -> list[str]:
    found = store.list(prefix)
    if not found:
        message = f"The specified S3 prefix '{prefix}' does not exist"
        raise Refusal("XX000", message)
    return [item.uri for item in found]


def _manifest(store: ObjectStore, command: CopyCommand) -> list[str]:
    uri = command.source
    try:
        entries = json.loads(store.get(uri))["entries"]
        wanted = [(str(e["url"]), bool(e.get("mandatory", False)), e.get("meta")) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal("XX000", f"Manifest file is not in correct json format: {uri}") from error
    files = []
    for url, mandatory, meta in wanted:
        _check_entry(command, url, meta)
        if any(item.uri == url for item in store.list(url)):
            files.append(url)
        elif mandatory:
            raise Refusal("XX000", f"File in the manifest does not exist: {url}")
    return files


def _check_entry(command: CopyCommand, url: str, meta: object) -> None:
    has_length = isinstance(meta, dict) and isinstance(meta.get("content_length"), int)
    if command.format == "parquet" and not has_length:
        message = f"Manifest entry {url} needs meta.content_length to copy from PARQUET"
        raise Refusal("XX000", message)


def _decompressed(content: bytes, command: CopyCommand) -> bytes:
    if not command.compression:
        return content
    try:
        if command.compression == "gzip":
            return gzip.decompress(content)
        with pa.CompressedInputStream(pa.BufferReader(content), command.compression) as stream:
            data: bytes = stream.read()
    except (OSError, EOFError) as error:
        raise Refusal("XX000", f"Cannot decompress the file: {error}") from error
    return data
