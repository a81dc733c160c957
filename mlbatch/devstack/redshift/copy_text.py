"""COPY of text and CSV files: every field is converted, and every one that cannot be is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from mlbatch.devstack.redshift import load_errors
from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.load_errors import LoadError
from mlbatch.devstack.redshift.loading import Load, SourceFile, Target
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.text_format import Line, read_lines


def load_file(load: Load, file: SourceFile) -> int:
    """Append one file's rows."""
    try:
        text = file.content.decode()
    except UnicodeDecodeError as error:
        message = f"Missing newline or invalid UTF-8 in {file.uri}: {error}"
        raise Refusal("XX000", message) from error
    lines = list(read_lines(load.command, text))
    good = _converted(load, file, _shaped(load, file, lines))
    return load.insert(good)


def _shaped(load: Load, file: SourceFile, lines: list[Line]) -> list[Line]:
    """The lines that have a field for every column, with NULL where nothing is given."""
    width, kept, wrong = len(load.targets), [], []
    for line in lines:
        fields = line.fields
        if load.command.fill_record and len(fields) < width:
            fields = [*fields, *[None] * (width - len(fields))]
        if len(fields) == width:
            kept.append(replace(line, fields=_prepared(load, fields)))
        else:
            short = len(fields) < width
            code = load_errors.DELIMITER_MISSING if short else load_errors.EXTRA_COLUMNS
            wrong.append(LoadError(file.uri, line.number, "", "", "", code))
    _report(load, wrong)
    return kept


def _prepared(load: Load, fields: list[str | None]) -> list[str | None]:
    return [
        _value(load.command, target, field)
        for target, field in zip(load.targets, fields, strict=True)
    ]


def _value(command: CopyCommand, target: Target, field: str | None) -> str | None:
    is_text = target.duckdb_type == "VARCHAR"
    if field is None or (field == "" and (command.empty_as_null or not is_text)):
        return None
    if command.blanks_as_null and not field.strip():
        return None
    if is_text and command.trim_blanks:
        field = field.rstrip(" ")
    if is_text and command.truncate_columns and target.length is not None:
        field = field.encode()[: target.length].decode(errors="ignore")
    return field


def _converted(load: Load, file: SourceFile, lines: list[Line]) -> pa.Table:
    """The lines whose fields fit their columns, as columns of text."""
    columns = [pa.array([line.fields[n] for line in lines], pa.string())
               for n in range(len(load.targets))]  # fmt: skip
    numbers = pa.array([line.number for line in lines], pa.int64())
    names = [f"c{n}" for n in range(len(columns))]
    table = pa.table([*columns, numbers], names=[*names, "line"])
    wrong = [error for n in range(len(columns)) for error in _misfits(load, file, table, n)]
    _report(load, sorted(wrong, key=lambda error: error.line))
    bad = {error.line for error in wrong}
    keep = pa.array([line.number not in bad for line in lines], pa.bool_())
    return table.filter(keep).select(names)


def _misfits(load: Load, file: SourceFile, table: pa.Table, number: int) -> list[LoadError]:
    target, name = load.targets[number], f"c{number}"
    found: list[LoadError] = []
    for condition, code in _conditions(target, name):
        cursor = load.cursor
        cursor.register("copy_text", table)
        try:
            query = f"SELECT line, {name} FROM copy_text WHERE {condition} ORDER BY line"  # noqa: S608
            rows: Sequence[tuple[int, str | None]] = cursor.execute(query).fetchall()
        finally:
            cursor.unregister("copy_text")
        found += [
            LoadError(file.uri, line, target.name, target.duckdb_type.lower(), value or "", code)
            for line, value in rows
        ]
    return found


def _conditions(target: Target, name: str) -> list[tuple[str, int]]:
    conditions = []
    if target.duckdb_type != "VARCHAR":
        test = f"{name} IS NOT NULL AND TRY_CAST({name} AS {target.duckdb_type}) IS NULL"
        conditions.append((test, load_errors.INVALID_DIGIT))
    if target.length is not None:
        conditions.append((f"strlen({name}) > {target.length}", load_errors.TOO_LONG))
    if not target.nullable:
        conditions.append((f"{name} IS NULL", load_errors.MISSING_VALUE))
    return conditions


def _report(load: Load, wrong: list[LoadError]) -> None:
    for error in wrong:
        load.report(error)
    load.errors.extend(wrong)
    if len(load.errors) > load.command.max_errors:
        raise load_errors.failed(load.command.table)
