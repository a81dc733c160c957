"""What the sessions of one engine share, as a session sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mlbatch.devstack.redshift.faults import Faults
from mlbatch.devstack.redshift.object_store import ObjectStore

SUPERUSER = 100
"""The number of every user here."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What differs from cluster to cluster."""

    slices: int = 2
    """UNLOAD writes so many files at once, rows dealt in turn."""
    part_rows: int | None = None
    """Most rows of one unloaded file, to make several of few rows."""
    empty_unload: Literal["nothing", "schema_file"] = "nothing"
    """What UNLOAD of no rows to Parquet leaves behind."""


class Cluster(Protocol):
    """The engine behind a session."""

    store: ObjectStore
    faults: Faults
    options: EngineOptions

    def settings_of(self, user: str) -> dict[str, str]:
        """What ALTER USER ... SET says of ``user``; whoever changes it changes later sessions."""
        ...

    def next_query(self) -> int:
        """A number for one statement."""
        ...

    def record(self, table: str, row: dict[str, object]) -> None:
        """A row for a system table, kept whatever becomes of the statement's transaction."""
        ...

    def cancel(self, pid: int) -> bool:
        """End what session ``pid`` runs now; False when it runs nothing."""
        ...

    def forget(self, pid: int) -> None:
        """A session's own word that it is closed."""
        ...
