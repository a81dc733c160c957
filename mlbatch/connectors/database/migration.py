"""Makes an output table, or brings the one that is there up to its declaration.

Only additions are carried out, and texts made longer. Everything else would change what readers see,
and is refused with the difference spelled out.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import VARCHAR, MetaData, String, Table, inspect

from mlbatch.connectors.database.generation_store import check_held
from mlbatch.connectors.database.tables import output_table
from mlbatch.table import RUN_NO

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mlbatch.ledger import Lease
    from mlbatch.table import OutputTable


def migrate(connection: Connection, declared: OutputTable) -> None:
    """Create the table, add missing columns, widen too short ones, refuse every other difference."""
    metadata = MetaData()
    table = output_table(declared, metadata)
    if not inspect(connection).has_table(declared.name):
        metadata.create_all(connection)
        return
    _check_key(connection, declared)
    context = MigrationContext.configure(
        connection,
        opts={"include_name": lambda name, kind, _: kind != "table" or name == table.name},
    )
    differences = list(_flat(compare_metadata(context, metadata)))
    refused = [d for d in differences if not (_is_addition(d) or _is_length(d) or _is_harmless(d))]
    if refused:
        message = f"the table {declared.name} differs from its declaration: " + "; ".join(
            _describe(d) for d in refused
        )
        hint = "undo the change, or declare a new table name and backfill it"
        raise declared.place.error(message, hint=hint)
    _widen(context, [d for d in differences if _is_length(d)])
    _add(context, [d for d in differences if _is_addition(d)])


def index_runs(connection: Connection, table: str, statement: str | None) -> str:
    """Let an index lead to the rows of each run, made by ``statement`` where the table is new.

    Returns what to add to the way of writing: nothing, or how people give one to a table they have.
    """
    if _finds_runs(connection, table):
        return ""
    if statement is None:
        advice = f"CREATE INDEX {index_of_runs(table)} ON {table} ({RUN_NO.name})"
        return f"; each run reads the whole table at its end, without this: {advice}"
    connection.exec_driver_sql(statement)
    return ""


def index_of_runs(table: str) -> str:
    """Its name. The table's is part of it, since SQLite's indexes are named in the whole file."""
    return f"{table}_{RUN_NO.name}"


def _finds_runs(connection: Connection, table: str) -> bool:
    indexes = inspect(connection).get_indexes(table)
    return any(index["column_names"][:1] == [RUN_NO.name] for index in indexes)


def drop_beside(connection: Connection, lease: Lease) -> None:
    """Drop the table of a generation that does not serve; nothing where there is none."""
    check_held(connection, lease)
    if lease.beside is not None:
        Table(lease.beside, MetaData()).drop(connection, checkfirst=True)


_HARMLESS = ("modify_comment", "add_table_comment", "remove_table_comment")


def _is_harmless(difference: tuple[Any, ...]) -> bool:
    # A column that was added to existing rows allows NULL although its declaration does not.
    was_added = difference[0] == "modify_nullable" and bool(difference[5])
    # An index changes no answer, unless it is unique and refuses rows.
    is_for_readers = difference[0] == "remove_index" and not difference[1].unique
    return was_added or is_for_readers or difference[0] in _HARMLESS


def _is_addition(difference: tuple[Any, ...]) -> bool:
    return bool(difference[0] == "add_column")


def _is_length(difference: tuple[Any, ...]) -> bool:
    """Whether two columns of texts differ in nothing but how long these may be."""
    if difference[0] != "modify_type":
        return False
    there, declared = difference[5:7]
    return isinstance(there, VARCHAR) and type(declared) is String and there.length is not None


def _flat(differences: list[Any]) -> Any:  # noqa: ANN401  alembic nests column changes in lists
    for difference in differences:
        if isinstance(difference, list):
            yield from difference
        else:
            yield difference


def _check_key(connection: Connection, declared: OutputTable) -> None:
    found = tuple(inspect(connection).get_pk_constraint(declared.name)["constrained_columns"])
    if set(found) != set(declared.key):
        message = (
            f"the table {declared.name} is keyed by {found}, its declaration by {declared.key}"
        )
        hint = "declare a new table name and backfill it"
        raise declared.place.error(message, hint=hint)


def _add(context: MigrationContext, additions: list[Any]) -> None:
    operations = Operations(context)
    for _, _, name, column in additions:
        added = copy.copy(column)
        # Rows that are already there have no value for it until they are predicted again.
        added.nullable = True
        operations.add_column(name, added)


def _widen(context: MigrationContext, lengths: list[Any]) -> None:
    """Let columns hold what is declared. One that holds more may: rows are judged by the declaration."""
    if context.dialect.name == "sqlite":
        # Its columns hold texts of any length, whatever their type says.
        return
    for _, _, table, column, kept, there, declared in lengths:
        if there.length < declared.length:
            wider = copy.copy(there)
            wider.length = declared.length
            Operations(context).alter_column(
                table, column, type_=wider, existing_type=there, **kept
            )


def _describe(difference: tuple[Any, ...]) -> str:
    kind = difference[0]
    if kind == "remove_column":
        return f"column {difference[3].name} is no longer declared"
    if kind.startswith("modify_"):
        return f"column {difference[3]}: {kind[7:]} {difference[5]} became {difference[6]}"
    return kind.replace("_", " ")
