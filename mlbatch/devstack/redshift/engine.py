"""The engine behind every face: one DuckDB database, and its sessions."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import duckdb

from mlbatch.devstack.redshift import catalog
from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.cluster import EngineOptions
from mlbatch.devstack.redshift.faults import Faults
from mlbatch.devstack.redshift.object_store import ObjectStore
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.session import Session

__all__ = ["Answer", "Engine", "EngineOptions", "Refusal", "Session"]


class Engine:
    """The database ``database`` (None: in memory), unloading to and copying from ``store``."""

    def __init__(
        self,
        database: Path | None,
        store: ObjectStore,
        faults: Faults | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        """Opens the database; a file has one engine at a time."""
        self.store = store
        self.faults = faults if faults is not None else Faults()
        self.options = options if options is not None else EngineOptions()
        self._connection = duckdb.connect(":memory:" if database is None else str(database))
        self._sessions: dict[int, Session] = {}
        self._users: dict[str, dict[str, str]] = {}
        self._pids = itertools.count(1_073_741_824)
        self._queries = itertools.count(1)
        self._lock = threading.Lock()
        # In one transaction: a file would be made to last after each.
        for statement in ("BEGIN", *catalog.definitions(), "COMMIT"):
            self._connection.execute(statement)

    def session(self, user: str = "awsuser", *, may_drop: bool = True) -> Session:
        """A new session; with ``may_drop`` off the face looks after lost connections itself."""
        with self._lock:
            pid = next(self._pids)
            made = Session(self, self._connection.cursor(), pid, user, may_drop=may_drop)
            self._sessions[pid] = made
        return made

    def cancel(self, pid: int) -> bool:
        """End what session ``pid`` runs now; False when it runs nothing."""
        session = self._sessions.get(pid)
        return session is not None and session.interrupt()

    def forget(self, pid: int) -> None:
        """A session's own word that it is closed."""
        with self._lock:
            self._sessions.pop(pid, None)

    def settings_of(self, user: str) -> dict[str, str]:
        """What ALTER USER ... SET says of ``user``; whoever changes it changes later sessions."""
        return self._users.setdefault(user, {})

    def next_query(self) -> int:
        """A number for one statement."""
        return next(self._queries)

    def record(self, table: str, row: dict[str, object]) -> None:
        """A row for a system table, kept whatever becomes of the statement's transaction."""
        with self._connection.cursor() as cursor:
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            statement = f"INSERT INTO {catalog.SCHEMA}.{table} ({names}) VALUES ({marks})"  # noqa: S608
            cursor.execute(statement, list(row.values()))

    def close(self) -> None:
        """Cancel what runs, roll back, and close the database."""
        for pid, session in list(self._sessions.items()):
            self.cancel(pid)
            session.close()
        self._connection.close()
