"""Rows as lines of text, the way UNLOAD writes them; DuckDB glues, so that it is fast."""

from __future__ import annotations

import re

import pyarrow as pa

from mlbatch.devstack.redshift.unload_command import UnloadCommand
from mlbatch.sql import quote_identifier

DELIMITERS = {"text": "|", "csv": ","}


def delimiter_of(command: UnloadCommand) -> str:
    """What stands between two fields."""
    return command.delimiter or DELIMITERS[command.format]


def header_line(command: UnloadCommand, schema: pa.Schema) -> str:
    """The columns' names, as HEADER writes them: quoted and escaped like the rows below."""
    return delimiter_of(command).join(_label(command, name) for name in schema.names)


def _label(command: UnloadCommand, name: str) -> str:
    if command.format == "csv":
        doubled = name.replace('"', '""')
        return f'"{doubled}"' if re.search(_among_csv(command), name) else name
    if command.escape:
        name = re.sub(f"({_among_escaped(command)})", r"\\\1", name)
    return f'"{name}"' if command.add_quotes else name


def lines_query(command: UnloadCommand, duckdb_select: str, schema: pa.Schema) -> str:
    """A query of DuckDB's with one column: each row as a line, without the line's end."""
    names = [f"c{number}" for number in range(len(schema))]
    fields = [_field(command, n, f.type) for n, f in zip(names, schema, strict=True)]
    glued = f" || {_literal(delimiter_of(command))} || ".join(fields)
    columns = ", ".join(quote_identifier(name) for name in names)
    return f"SELECT {glued} AS line FROM ({duckdb_select}) AS unloaded({columns})"  # noqa: S608


def _field(command: UnloadCommand, name: str, kind: pa.DataType) -> str:
    null = _literal(command.null_as or "")
    if command.format == "csv":
        return f"coalesce({_csv(command, _shown(name, kind))}, {null})"
    value = _shown(name, kind)
    if command.escape and pa.types.is_string(kind):
        value = _escaped(command, value)
    if command.add_quotes:
        return f"""('"' || coalesce({value}, {null}) || '"')"""
    return f"coalesce({value}, {null})"


def _shown(name: str, kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return f"CASE WHEN {name} THEN 't' WHEN NOT {name} THEN 'f' END"
    if pa.types.is_binary(kind):
        return f"lower(hex({name}))"
    if pa.types.is_floating(kind):
        return f"regexp_replace(CAST({name} AS VARCHAR), '\\.0$', '')"
    return f"CAST({name} AS VARCHAR)"


def _escaped(command: UnloadCommand, value: str) -> str:
    return f"regexp_replace({value}, '({_among_escaped(command)})', '\\\\\\1', 'g')"


def _csv(command: UnloadCommand, value: str) -> str:
    quoted = f"""'"' || replace({value}, '"', '""') || '"'"""
    return f"CASE WHEN regexp_matches({value}, '{_among_csv(command)}|^$') THEN {quoted} ELSE {value} END"


def _among_escaped(command: UnloadCommand) -> str:
    # Quotes are escaped only where quotes stand around the field.
    return _one_of("\\\n\r" + delimiter_of(command) + ("\"'" if command.add_quotes else ""))


def _among_csv(command: UnloadCommand) -> str:
    return _one_of('"\n\r' + delimiter_of(command))


def _one_of(signs: str) -> str:
    """A pattern that Python and DuckDB read alike; none of the signs is outside of ASCII."""
    return "[" + "".join(f"\\x{ord(sign):02x}" for sign in signs) + "]"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
