"""The statements of the MySQL sink. Identifiers are quoted as ANSI SQL does, see `address`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

from mlbatch.checksum import BOUND, SCALE
from mlbatch.sql import quote_identifier
from mlbatch.table import RUN_NO, OutputTable


class Way(StrEnum):
    """How rows travel into the output table; each is one transaction with the ledger."""

    LOAD = "LOAD DATA LOCAL"
    """Replaces whole rows, so it is only for a table with exactly the declared columns."""
    ROWS = "INSERT statements of many rows"
    """Where it has more, triggers or children, or where server or settings forbid LOAD DATA LOCAL."""


# First of the transaction: it takes the row's lock, and is fence and compare-and-set at once. The
# checksum wraps by hand, since MySQL refuses to overflow.
MOVE = """
UPDATE mlbatch_part
   SET done = %(high)s
     , written = written + %(written)s
     , deleted = deleted + %(deleted)s
     , quarantined = quarantined + %(quarantined)s
     , filtered = filtered + %(filtered)s
     , checksum = (CAST(checksum AS UNSIGNED) + %(checksum)s) %% 9223372036854775808
 WHERE run_id = %(run_id)s AND part_no = %(part_no)s AND epoch = %(epoch)s AND done = %(low)s
"""

QUARANTINE = (
    "INSERT INTO mlbatch_quarantine (run_id, part_no, row_offset, entity_key, reason, detail) VALUES "
    "(%s, %s, %s, %s, %s, %s)"
)

PART = "SELECT * FROM mlbatch_part WHERE run_id = %s AND part_no = %s FOR UPDATE"

THREADS_RUNNING = "SHOW GLOBAL STATUS LIKE 'Threads_running'"
# MariaDB tells the first to everybody, MySQL the second to who has the right PROCESS.
HISTORY_STATUS = "SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'"
HISTORY_METRIC = (
    'SELECT "COUNT" FROM information_schema.innodb_metrics'
    " WHERE name = 'trx_rseg_history_len' AND \"COUNT\" IS NOT NULL"
)

COLUMNS = (
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name = %s"
)
TRIGGERS = (
    "SELECT COUNT(*) FROM information_schema.triggers"
    " WHERE event_object_schema = DATABASE() AND event_object_table = %s"
)
# Replacing a row removes it first, and with it whatever refers to it.
CHILDREN = (
    "SELECT COUNT(*) FROM information_schema.key_column_usage"
    " WHERE referenced_table_schema = DATABASE() AND referenced_table_name = %s"
)


def create_like(name: str, like: str) -> tuple[str, str]:
    """An empty table with the columns and indexes of another one, and not its triggers."""
    new = quote_identifier(f"{name}_")
    return (
        f"CREATE TABLE IF NOT EXISTS {new} LIKE {quote_identifier(like)}",
        f"RENAME TABLE {new} TO {quote_identifier(name)}",
    )


def index_runs(name: str, index: str) -> str:
    """An index on the run; CREATE INDEX would ask for a right that the writer has no other use for."""
    column = quote_identifier(RUN_NO.name)
    return f"ALTER TABLE {quote_identifier(name)} ADD INDEX {quote_identifier(index)} ({column})"


def load(table: OutputTable) -> str:
    """LOAD DATA of every column; the file's name is ignored by our side of the connection."""
    return (
        f"LOAD DATA LOCAL INFILE 'mlbatch' REPLACE INTO TABLE {quote_identifier(table.name)}"
        f" CHARACTER SET utf8mb4 ({_names(table.schema.names)})"
    )


def upsert(table: OutputTable, values: str) -> str:
    """Many rows at once. VALUES() is the only form that MySQL and MariaDB both have."""
    names = _names(table.schema.names)
    changes = ", ".join(f"{n} = VALUES({n})" for n in _changing(table))
    target = f"INSERT INTO {quote_identifier(table.name)} ({names}) VALUES {values}"  # noqa: S608
    return f"{target} ON DUPLICATE KEY UPDATE {changes}"


def delete(table: OutputTable, values: str) -> str:
    """Rows by key; ``values`` is a list of parenthesised keys."""
    name, key = quote_identifier(table.name), _names(table.key)
    return f"DELETE FROM {name} WHERE ({key}) IN ({values})"  # noqa: S608


def select(table: OutputTable, *, of_run: bool) -> str:
    """Rows by key, all or of one run."""
    where = " WHERE run_no = %s" if of_run else ""
    name, names = quote_identifier(table.name), _names(table.schema.names)
    return f"SELECT {names} FROM {name}{where} ORDER BY {_names(table.key)}"  # noqa: S608


def count(table: str) -> str:
    """All rows of the table of this name."""
    return f"SELECT COUNT(*) FROM {quote_identifier(table)}"  # noqa: S608


def checksum(table: OutputTable) -> str:
    """Rows of a run, and `mlbatch.checksum.checksum` of them, computed where they are."""
    cells = ", ".join(_checked(table, name) for name in table.checked)
    total = f"COALESCE(SUM(CRC32(CONCAT_WS(',', {cells}))), 0)"
    return f"SELECT COUNT(*), {total} FROM {quote_identifier(table.name)} WHERE run_no = %s"  # noqa: S608


def _checked(table: OutputTable, name: str) -> str:
    quoted = quote_identifier(name)
    if not pa.types.is_floating(table.column(name).type):
        return quoted
    bounded = f"LEAST(GREATEST({quoted}, -{BOUND:.0f}), {BOUND:.0f})"
    return f"CAST(FLOOR({bounded} * {SCALE}) AS SIGNED)"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(quote_identifier(name) for name in columns)


def _changing(table: OutputTable) -> list[str]:
    return [quote_identifier(name) for name in table.schema.names if name not in table.key]
