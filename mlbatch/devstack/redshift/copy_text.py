"""COPY of text and CSV files: every field is converted, and every row that cannot be is named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from mlbatch.devstack.redshift import load_errors
from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.load_errors import LoadError
from mlbatch.devstack.redshift.loading import Load, SourceFile, Target
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.text_format import Line, read_lines

_MARKS = {"utf-16": (b"\xff\xfe", b"\xfe\xff")}
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are no UTF-8."""
_WHOLE = r"\s*[+-]?[0-9]+\s*"
_BOOLEANS = "'t', 'true', 'y', 'yes', '1', 'f', 'false', 'n', 'no', '0'"


def load_file(load: Load, file: SourceFile) -> int:
    """Append one file's rows."""
    shaped, wrong = _shaped(load, file)
    good, more = _converted(load, file, shaped)
    _report(load, sorted([*wrong, *more], key=lambda error: error.line))
    return load.insert(good)


def _text(command: CopyCommand, file: SourceFile) -> str:
    """The file's text; with bytes that are no UTF-8 as Python notes them, unless they go."""
    marks = _MARKS.get(command.encoding)
    is_utf8 = command.encoding == "utf-8"
    try:
        if marks and not file.content.startswith(marks):
            raise ValueError("no byte order mark")  # noqa: TRY301
        errors = "surrogateescape" if is_utf8 else "strict"
        text = file.content.decode(command.encoding, errors)
    except ValueError as error:
        message = f"Encoding of the file {file.uri} is not the one of the COPY command: {error}"
        raise Refusal("XX000", message) from error
    replacement = command.invalid_as
    return text if replacement is None else _NOT_UTF8.sub(lambda _: replacement, text)


def _shaped(load: Load, file: SourceFile) -> tuple[list[Line], list[LoadError]]:
    """The lines that have a field for every column, ready to be converted, and the others."""
    width, kept, wrong = len(load.targets), [], []
    for line in read_lines(load.command, _text(load.command, file)):
        fields = line.fields
        if load.command.fill_record and len(fields) < width:
            fields = [*fields, *[""] * (width - len(fields))]
        code = _misshapen(line, fields, width)
        if code is None:
            kept.append(replace(line, fields=_prepared(load, fields)))
        else:
            wrong.append(LoadError(file.uri, line.number, _printable(line.raw), code))
    return kept, wrong


def _misshapen(line: Line, fields: list[str | None], width: int) -> int | None:
    if _NOT_UTF8.search(line.raw):
        return load_errors.BAD_ENCODING
    if line.is_open or len(fields) < width:
        return load_errors.DELIMITER_MISSING
    return load_errors.EXTRA_COLUMNS if len(fields) > width else None


def _printable(raw: str) -> str:
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _prepared(load: Load, fields: list[str | None]) -> list[str | None]:
    return [
        _value(load.command, target, field)
        for target, field in zip(load.targets, fields, strict=True)
    ]


def _value(command: CopyCommand, target: Target, field: str | None) -> str | None:
    if field is None:
        return None
    if not target.is_text:
        # A blank is NULL in every other type, whatever the options say.
        return _cut_scale(command, target, field) if field.strip() else None
    if (field == "" and command.empty_as_null) or (command.blanks_as_null and not field.strip()):
        return None
    if command.trim_blanks:
        field = field.rstrip(" ")
    if command.truncate_columns and target.length is not None:
        field = field.encode()[: target.length].decode(errors="ignore")
    return field


def _cut_scale(command: CopyCommand, target: Target, field: str) -> str:
    """Digits beyond the column's scale are cut off, not rounded, unless ROUNDEC is given."""
    scale = re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", target.duckdb_type)
    if scale is None or command.round_decimals:
        return field
    found = re.fullmatch(rf"(\s*[+-]?[0-9]*\.[0-9]{{{scale.group(1)}}})[0-9]+\s*", field)
    return found.group(1).removesuffix(".") if found else field


def _converted(load: Load, file: SourceFile, lines: list[Line]) -> tuple[pa.Table, list[LoadError]]:
    """The lines whose fields fit their columns, as columns of text, and the others."""
    columns = [pa.array([line.fields[n] for line in lines], pa.string())
               for n in range(len(load.targets))]  # fmt: skip
    places = pa.array(range(len(lines)), pa.int64())
    names = [f"c{n}" for n in range(len(columns))]
    table = pa.table([*columns, places], names=[*names, "place"])
    wrong: dict[int, LoadError] = {}
    for number, target in enumerate(load.targets):
        for condition, code in _conditions(load.command, target, f"c{number}"):
            for place, value in _found(load, table, f"c{number}", condition):
                line = lines[place]
                wrong.setdefault(place, _misfit(file, line, target, value or "", code))
    keep = pa.array([place not in wrong for place in range(len(lines))], pa.bool_())
    return table.filter(keep).select(names), list(wrong.values())


def _found(
    load: Load, table: pa.Table, name: str, condition: str
) -> Sequence[tuple[int, str | None]]:
    cursor = load.cursor
    cursor.register("copy_text", table)
    try:
        query = f"SELECT place, {name} FROM copy_text WHERE {condition}"  # noqa: S608
        found: Sequence[tuple[int, str | None]] = cursor.execute(query).fetchall()
    finally:
        cursor.unregister("copy_text")
    return found


def _misfit(file: SourceFile, line: Line, target: Target, value: str, code: int) -> LoadError:
    digits = re.match(r"\s*[+-]?[0-9]*", value) if code == load_errors.INVALID_DIGIT else None
    position = digits.end() if digits else 0
    return LoadError(
        file.uri, line.number, line.raw, code, target.name, target.duckdb_type,
        target.length or 0, value, position,
    )  # fmt: skip


_CODES = {
    "DATE": load_errors.BAD_DATE, "TIMESTAMP": load_errors.BAD_TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": load_errors.BAD_TIMESTAMP, "FLOAT": load_errors.BAD_FLOAT,
    "DOUBLE": load_errors.BAD_FLOAT, "JSON": load_errors.BAD_JSON,
    "SMALLINT": load_errors.OVERFLOW, "INTEGER": load_errors.OVERFLOW,
    "BIGINT": load_errors.OVERFLOW, "BOOLEAN": load_errors.BAD_BOOLEAN,
}  # fmt: skip


def _conditions(command: CopyCommand, target: Target, name: str) -> Iterator[tuple[str, int]]:
    """When a field does not fit, and what that is called; the first that holds counts."""
    kind = target.duckdb_type
    if kind in ("SMALLINT", "INTEGER", "BIGINT"):
        # DuckDB would round a fraction.
        yield f"NOT regexp_full_match({name}, '{_WHOLE}')", load_errors.INVALID_DIGIT
    if kind == "BOOLEAN":
        yield f"lower(trim({name})) NOT IN ({_BOOLEANS})", load_errors.BAD_BOOLEAN
    if not target.is_text and not (target.is_date and command.accept_any_date):
        decimal = load_errors.BAD_DECIMAL if kind.startswith("DECIMAL") else load_errors.BAD_TYPE
        test = f"{name} IS NOT NULL AND TRY_CAST({name} AS {kind}) IS NULL"
        yield test, _CODES.get(kind, decimal)
    if target.length is not None:
        yield f"strlen({name}) > {target.length}", load_errors.TOO_LONG
    if not target.nullable:
        yield f"{name} IS NULL", load_errors.MISSING_VALUE


def _report(load: Load, wrong: list[LoadError]) -> None:
    for error in wrong:
        load.report(error)
    load.errors.extend(wrong)
    # MAXERROR is the number that is one too many; 0 means the first, as 1 does.
    if len(load.errors) >= max(load.command.max_errors, 1):
        raise load_errors.failed(load.command.table)
