"""The seam to a warehouse: what mlbatch needs of Redshift, and of whatever stands in for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Unloaded:
    """How an unload ended."""

    rows: int
    """Rows that the engine itself reports."""
    manifest_uri: str | None
    """The verbose manifest; None only where ``rows`` is 0, since UNLOAD may then write nothing."""


class Warehouse(Protocol):
    """Statements are one SELECT each, in Redshift's dialect."""

    def about(self) -> str:
        """What answers there, in a few words, for `mlbatch doctor`."""
        ...

    def now(self) -> datetime:
        """The warehouse's own clock, in UTC."""
        ...

    def fetch(self, select: str) -> pa.Table:
        """A small result, such as counts or a schema. Never features."""
        ...

    def unload(self, select: str, prefix: str) -> Unloaded:
        """Write the result as Parquet parts and a manifest below ``prefix``, which nobody used yet."""
        ...

    def copy(self, table: str, rows: pa.Table, *, replace_by: tuple[str, ...]) -> int:
        """Load ``rows`` into ``table``, replacing rows of the same key; returns rows loaded.

        Columns go by their names, in whatever order either side has them. The table is made where
        there is none. Rows that repeat a key are all loaded: a warehouse's tables may. What
        `check_load` refuses raises UsageError, and nothing is loaded.
        """
        ...


def check_load(table: str, rows: pa.Table, known: Iterable[str]) -> None:
    """Raise UsageError unless ``rows`` have exactly the columns ``known``.

    Letters of either case are the same, as in the warehouses.
    """
    given, wanted = ({name.lower() for name in names} for names in (rows.column_names, known))
    for column in sorted(given ^ wanted):
        lacking = "the rows lack" if column in wanted else "the table lacks"
        message = f"{table}: {lacking} the column {column}"
        raise UsageError(message, hint=f"the table has {', '.join(sorted(wanted))}")
