"""The warehouse: what mlbatch asks of Redshift, by either transport."""

from __future__ import annotations

import io
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from mlbatch.connectors.redshift import statements
from mlbatch.connectors.redshift.statements import UnloadOptions
from mlbatch.connectors.redshift.transport import Transport
from mlbatch.errors import RunFailed, SnapshotError
from mlbatch.storage import Storage
from mlbatch.warehouse import Unloaded, check_load


@dataclass(frozen=True, slots=True)
class RedshiftWarehouse:
    """`mlbatch.warehouse.Warehouse` behind ``transport``, unloading into ``storage``."""

    transport: Transport
    storage: Storage
    options: UnloadOptions = field(default_factory=UnloadOptions)

    def about(self) -> str:
        """See `mlbatch.warehouse.Warehouse.about`."""
        (row,) = self.fetch("SELECT version() AS version").to_pylist()
        return f"{row['version']}, {self.transport}"

    def now(self) -> datetime:
        """See `mlbatch.warehouse.Warehouse.now`."""
        (row,) = self.fetch("SELECT GETDATE() AS now").to_pylist()
        moment: datetime = row["now"]
        return moment.replace(tzinfo=UTC)

    def fetch(self, select: str) -> pa.Table:
        """See `mlbatch.warehouse.Warehouse.fetch`."""
        found = self.transport.run([select])
        if found is None:
            message = f"{self.transport} gave no rows for a SELECT"
            raise RunFailed(message)
        return found

    def unload(self, select: str, prefix: str) -> Unloaded:
        """See `mlbatch.warehouse.Warehouse.unload`."""
        if not prefix.startswith(self.storage.prefix):
            message = f"{prefix} is outside {self.storage.prefix}"
            raise SnapshotError(message)
        rows = self._count(
            statements.unload(select, prefix, self.options),
            "SELECT pg_last_unload_count() AS rows",
        )
        return Unloaded(rows, prefix + "manifest" if rows else None)

    def copy(self, table: str, rows: pa.Table, *, replace_by: tuple[str, ...]) -> int:
        """See `mlbatch.warehouse.Warehouse.copy`."""
        self.transport.run([statements.create_table(table, rows.schema)])
        known = self.fetch(statements.no_rows_of(table)).column_names
        check_load(table, rows, known)
        if not rows.num_rows:
            return 0
        manifest = self._staged(rows)
        staged = f"mlbatch_staged_{table}"
        loaded = self._count(
            statements.stage_table(staged, rows.schema),
            statements.copy(staged, manifest, self.options),
            *statements.replace_rows(table, staged, rows.column_names, replace_by),
            "SELECT pg_last_copy_count() AS rows",
        )
        if loaded != rows.num_rows:
            message = f"{table}: {loaded} rows were loaded of {rows.num_rows}"
            raise RunFailed(message)
        return loaded

    def _staged(self, rows: pa.Table) -> str:
        """Write ``rows`` where COPY finds them; returns the manifest's URI."""
        prefix = f"{self.storage.prefix}mlbatch/_copy/{secrets.token_hex(8)}/"
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        data = buffer.getvalue()
        self.storage.put(prefix + "rows.parquet", data)
        # Without "mandatory" a file that is missing would be skipped silently.
        entry = {
            "url": prefix + "rows.parquet",
            "mandatory": True,
            "meta": {"content_length": len(data)},
        }
        self.storage.put(prefix + "manifest", json.dumps({"entries": [entry]}).encode())
        return prefix + "manifest"

    def _count(self, *batch: str) -> int:
        found = self.transport.run(batch)
        if found is None or found.num_rows != 1:
            message = f"{self.transport} does not say how many rows it moved"
            raise RunFailed(message)
        return int(found.column(0)[0].as_py())
