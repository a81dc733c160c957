"""One COPY under way: where its rows go, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.load_errors import LoadError
from mlbatch.sql import quote_identifier


@dataclass(frozen=True, slots=True)
class Target:
    """A column that COPY fills."""

    name: str
    duckdb_type: str
    length: int | None
    """Most bytes of a text."""
    nullable: bool

    @property
    def is_text(self) -> bool:
        """Whether it is CHAR or VARCHAR."""
        return self.duckdb_type == "VARCHAR"

    @property
    def is_date(self) -> bool:
        """Whether it is DATE, TIMESTAMP or TIMESTAMPTZ."""
        return self.duckdb_type.startswith(("DATE", "TIMESTAMP"))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file's content, decompressed."""

    uri: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """One COPY under way."""

    cursor: duckdb.DuckDBPyConnection
    """The session's own, in its transaction."""
    command: CopyCommand
    targets: tuple[Target, ...]
    report: Callable[[LoadError], None]
    """Keeps what did not fit where the client can read it."""
    errors: list[LoadError] = field(default_factory=list)
    """Rows that did not fit, of all files."""

    @property
    def table(self) -> str:
        """The table's name, quoted."""
        return ".".join(quote_identifier(part) for part in self.command.table.split("."))

    def insert(self, rows: pa.Table) -> int:
        """Append rows, whose columns stand in the order of the targets; how many are in then."""
        if self.command.no_load:
            return 0
        names = ", ".join(quote_identifier(target.name) for target in self.targets)
        values = ", ".join(
            f"{self._cast(target)}(c{n} AS {target.duckdb_type})"
            for n, target in enumerate(self.targets)
        )
        renamed = rows.rename_columns([f"c{n}" for n in range(rows.num_columns)])
        self.cursor.register("copy_source", renamed)
        try:
            statement = f"INSERT INTO {self.table} ({names}) SELECT {values} FROM copy_source"  # noqa: S608
            self.cursor.execute(statement)
        finally:
            self.cursor.unregister("copy_source")
        return int(rows.num_rows)

    def _cast(self, target: Target) -> str:
        return "TRY_CAST" if self.command.accept_any_date and target.is_date else "CAST"
