"""Rows as lines of text, the way UNLOAD writes them; DuckDB glues, so that it is fast."""

from __future__ import annotations

import pyarrow as pa

from mlbatch.devstack.redshift.unload_command import UnloadCommand
from mlbatch.sql import quote_identifier

DELIMITERS = {"text": "|", "csv": ","}


def delimiter_of(command: UnloadCommand) -> str:
    """What stands between two fields."""
    return command.delimiter or DELIMITERS[command.format]


def header_line(command: UnloadCommand, schema: pa.Schema) -> str:
    """The columns' names, as HEADER writes them."""
    return delimiter_of(command).join(schema.names)


def lines_query(command: UnloadCommand, duckdb_select: str, schema: pa.Schema) -> str:
    """A query of DuckDB's with one column: each row as a line, without the line's end."""
    names = [f"c{number}" for number in range(len(schema))]
    fields = [_field(command, n, f.type) for n, f in zip(names, schema, strict=True)]
    glued = f" || {_literal(delimiter_of(command))} || ".join(fields)
    columns = ", ".join(quote_identifier(name) for name in names)
    return f"SELECT {glued} AS line FROM ({duckdb_select}) AS unloaded({columns})"  # noqa: S608


def _field(command: UnloadCommand, name: str, kind: pa.DataType) -> str:
    null = _literal(command.null_as)
    if command.format == "csv":
        return f"coalesce({_csv(command, _shown(name, kind))}, {null})"
    value = _shown(name, kind)
    if command.escape:
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
    # Quotes are escaped only where quotes stand around the field.
    special = "\\\n\r" + delimiter_of(command) + ("\"'" if command.add_quotes else "")
    among = "[" + "".join(f"\\x{{{ord(sign):x}}}" for sign in special) + "]"
    return f"regexp_replace({value}, '({among})', '\\\\\\1', 'g')"


def _csv(command: UnloadCommand, value: str) -> str:
    special = '"\n\r' + delimiter_of(command)
    among = "[" + "".join(f"\\x{{{ord(sign):x}}}" for sign in special) + "]|^$"
    quoted = f"""'"' || replace({value}, '"', '""') || '"'"""
    return f"CASE WHEN regexp_matches({value}, '{among}') THEN {quoted} ELSE {value} END"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
