"""UNLOAD: rows of a query into files of several slices, and a manifest."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.cluster import SUPERUSER, Cluster
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.interruption import Interruption
from mlbatch.devstack.redshift.part_files import ParquetPart, PartFile, Slice, TextPart
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.result_types import type_name
from mlbatch.devstack.redshift.unload_command import UnloadCommand, parse_unload
from mlbatch.devstack.redshift.unload_text import header_line, lines_query

NOT_EMPTY = (
    "Specified unload destination on S3 is not empty. Consider using a different bucket / prefix,"
    " manually removing the target files in S3, or using the ALLOWOVERWRITE option."
)
LONGEST_TEXT = 65_535


class UnloadSession(Protocol):
    """What UNLOAD needs of the session that it runs in."""

    engine: Cluster
    query: int
    pid: int
    last_unload: int
    """The query of the last UNLOAD that began to write, or -1."""
    last_unloaded: int
    """The rows that it wrote."""

    @property
    def interruption(self) -> Interruption:
        """The run of the statement now under way."""
        ...

    def duckdb_query(self, select: str) -> str:
        """DuckDB's text of a query."""
        ...

    def schema(self, duckdb_sql: str) -> pa.Schema:
        """The columns of a query of DuckDB's."""
        ...

    def read(self, duckdb_sql: str) -> pa.RecordBatchReader:
        """The rows of a query of DuckDB's, as they come."""
        ...


@dataclass(frozen=True, slots=True)
class _Written:
    uri: str
    bytes: int
    rows: int


def unload(session: UnloadSession, sql: str) -> Answer:
    """Run one UNLOAD statement."""
    command = parse_unload(sql)
    query = session.duckdb_query(command.select)
    schema = session.schema(query)
    _prepare_target(session, command)
    session.last_unload, session.last_unloaded = session.query, 0
    with tempfile.TemporaryDirectory(prefix="mlbatch-unload-") as folder:
        abort = session.engine.faults.take("abort_unload_after_parts", sql)
        run = _Run(session, command, schema, Path(folder), abort)
        run.write(query)
    rows = session.last_unloaded = sum(file.rows for file in run.written)
    notice = f"UNLOAD completed, {rows} record(s) unloaded successfully."
    return Answer("UNLOAD", notices=(notice,), rows=rows)


def _prepare_target(session: UnloadSession, command: UnloadCommand) -> None:
    found = session.engine.store.list(command.target)
    if command.clean_path:
        for item in found:
            session.engine.store.delete(item.uri)
    elif found and not command.allow_overwrite:
        raise Refusal("XX000", NOT_EMPTY)


class _Run:
    """One UNLOAD under way."""

    def __init__(
        self,
        session: UnloadSession,
        command: UnloadCommand,
        schema: pa.Schema,
        folder: Path,
        abort: Fault | None,
    ) -> None:
        self.written: list[_Written] = []
        self._session, self._command, self._schema = session, command, schema
        self._folder, self._abort = folder, abort
        self._options = session.engine.options

    def write(self, query: str) -> None:
        """All rows, then the manifest."""
        is_text = self._command.format != "parquet"
        reader = self._session.read(
            lines_query(self._command, query, self._schema) if is_text else query
        )
        count = self._options.slices if self._command.parallel else 1
        slices = [self._slice(number) for number in range(count)]
        self._deal(reader, slices)
        if not self.written and (is_text or self._options.empty_unload == "schema_file"):
            self._write_empty()
        if self._command.manifest and self.written:
            self._write_manifest()

    def _deal(self, batches: Iterable[pa.RecordBatch], slices: list[Slice]) -> None:
        turn = 0
        for batch in batches:
            self._session.interruption.check()
            share = -(-batch.num_rows // len(slices))
            for start in range(0, batch.num_rows, max(share, 1)):
                slices[turn % len(slices)].write(batch.slice(start, share))
                turn += 1
        for one in slices:
            one.finish()

    def _slice(self, number: int) -> Slice:
        return Slice(
            lambda part: self._open(number, part),
            lambda part, file: self._upload(number, part, file),
            self._command,
            self._options.part_rows,
        )

    def _name(self, slice_number: int, part: int) -> str:
        command = self._command
        suffix = {"gzip": ".gz", "zstd": ".zst", "": ""}[command.compression]
        if command.format == "parquet":
            suffix = ".parquet"
        if command.extension is not None:
            suffix = "." + command.extension.removeprefix(".")
        serial = f"{slice_number:04d}_part_{part:02d}" if command.parallel else f"{part:03d}"
        return serial + suffix

    def _open(self, slice_number: int, part: int) -> PartFile:
        path = self._folder / self._name(slice_number, part)
        if self._command.format == "parquet":
            return ParquetPart(path, self._schema, self._command)
        header = header_line(self._command, self._schema) if self._command.header else ""
        return TextPart(path, header, self._command)

    def _upload(self, slice_number: int, part: int, file: PartFile) -> None:
        self._session.interruption.check()
        if self._abort is not None and len(self.written) >= self._abort.parts:
            raise Refusal(self._abort.sqlstate, self._abort.message)
        name = self._name(slice_number, part)
        path = self._folder / name
        uri = self._command.target + name
        began = datetime.now(UTC)
        self._session.engine.store.put_file(uri, path)
        self.written.append(_Written(uri, path.stat().st_size, file.rows))
        path.unlink()
        self._log(slice_number, self.written[-1], began)

    def _log(self, slice_number: int, file: _Written, began: datetime) -> None:
        """A row of stl_unload_log."""
        self._session.engine.record("stl_unload_log", {
            "userid": SUPERUSER, "query": self._session.query, "slice": slice_number,
            "pid": self._session.pid, "path": file.uri,
            "start_time": began.replace(tzinfo=None),
            "end_time": datetime.now(UTC).replace(tzinfo=None), "line_count": file.rows,
            "transfer_size": file.bytes, "file_format": self._command.format,
        })  # fmt: skip

    def _write_empty(self) -> None:
        part = self._open(0, 0)
        part.close()
        self._upload(0, 0, part)

    def _write_manifest(self) -> None:
        self.written.sort(key=lambda file: file.uri)
        # Redshift counts the header as a row.
        more = int(self._command.header)
        files = [replace(file, rows=file.rows + more) for file in self.written]
        document = _manifest(files, self._schema, verbose=self._command.verbose)
        content = json.dumps(document, ensure_ascii=False, indent=2).encode()
        self._session.engine.store.put(self._command.target + "manifest", content)


def _manifest(files: list[_Written], schema: pa.Schema, *, verbose: bool) -> dict[str, Any]:
    if not verbose:
        return {"entries": [{"url": file.uri} for file in files]}
    return {
        "entries": [{"url": file.uri, "meta": _counts([file])} for file in files],
        "schema": {
            "elements": [{"name": field.name, "type": _type(field.type)} for field in schema]
        },
        "meta": _counts(files),
        "author": {"name": "Amazon Redshift", "version": "1.0.0"},
    }


def _counts(files: list[_Written]) -> dict[str, int]:
    return {
        "content_length": sum(file.bytes for file in files),
        "record_count": sum(file.rows for file in files),
    }


def _type(kind: pa.DataType) -> dict[str, Any]:
    base: dict[str, Any] = {"base": type_name(kind)}
    if pa.types.is_decimal(kind):
        return base | {"precision": kind.precision, "scale": kind.scale}
    if pa.types.is_string(kind):
        return base | {"max_length": LONGEST_TEXT}
    return base
