"""DuckDB as the embedded warehouse: Redshift's dialect in, Parquet parts and a manifest out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlbatch.batches import rebatch
from mlbatch.connectors.folder import FolderStorage
from mlbatch.dialect import CONNECTION_SETTINGS, to_duckdb
from mlbatch.errors import (
    DeclarationError,
    MlbatchError,
    OutOfResources,
    RunFailed,
    SnapshotError,
    TemporaryError,
    barred,
    out_of_resources,
)
from mlbatch.snapshot import ManifestEntry, write_manifest
from mlbatch.sql import quote_identifier
from mlbatch.warehouse import Unloaded, check_load

PART_ROWS = 20_000
GROUP_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class DuckdbWarehouse:
    """`mlbatch.warehouse.Warehouse` in the file ``path``, unloading into ``storage``."""

    path: Path
    storage: FolderStorage
    part_rows: int = PART_ROWS

    def about(self) -> str:
        """See `mlbatch.warehouse.Warehouse.about`."""
        self.fetch("SELECT 1 AS one")
        return f"DuckDB {duckdb.__version__} in {self.path}"

    def now(self) -> datetime:
        """See `mlbatch.warehouse.Warehouse.now`."""
        return datetime.now(UTC)

    def fetch(self, select: str) -> pa.Table:
        """See `mlbatch.warehouse.Warehouse.fetch`."""
        with self._connected() as connection:
            return connection.sql(to_duckdb(select)).to_arrow_table()

    def unload(self, select: str, prefix: str) -> Unloaded:
        """See `mlbatch.warehouse.Warehouse.unload`."""
        folder = self.storage.made(prefix)
        if any(folder.iterdir()):
            message = f"{prefix} is not empty"
            raise SnapshotError(message, hint="every unload needs a path of its own")
        with self._connected() as connection:
            reader = connection.sql(to_duckdb(select)).to_arrow_reader(GROUP_ROWS)
            entries = tuple(self._write(reader, folder, prefix))
        # Arrow keeps what is free for later use; the workers, who come next, have more use for it.
        pa.default_memory_pool().release_unused()
        if not entries:
            return Unloaded(rows=0, manifest_uri=None)
        self.storage.put(prefix + "manifest", write_manifest(entries))
        return Unloaded(sum(entry.rows for entry in entries), prefix + "manifest")

    def _write(
        self, reader: pa.RecordBatchReader, folder: Path, prefix: str
    ) -> Iterator[ManifestEntry]:
        for number, batch in enumerate(rebatch(reader, self.part_rows)):
            name = f"{number:04d}_part_00.parquet"
            file = folder / name
            with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
                writer.write_batch(batch, row_group_size=GROUP_ROWS)
            yield ManifestEntry(prefix + name, file.stat().st_size, batch.num_rows)

    def copy(self, table: str, rows: pa.Table, *, replace_by: tuple[str, ...]) -> int:
        """See `mlbatch.warehouse.Warehouse.copy`."""
        name = quote_identifier(table)
        match = " AND ".join(
            f"t.{quote_identifier(k)} = s.{quote_identifier(k)}" for k in replace_by
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connected(self.path) as connection:
            connection.register("staged", rows)
            connection.execute("BEGIN")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS FROM staged LIMIT 0")
            check_load(table, rows, connection.table(name).columns)
            connection.execute(f"DELETE FROM {name} t USING staged s WHERE {match}")  # noqa: S608
            connection.execute(f"INSERT INTO {name} BY NAME FROM staged")
            connection.execute("COMMIT")
        return rows.num_rows

    @contextmanager
    def _connected(self, file: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        # Whoever only reads makes no file: without one, the warehouse is empty.
        file = file or (self.path if self.path.exists() else Path(":memory:"))
        with _translated(self.path), duckdb.connect(str(file)) as connection:
            for setting in CONNECTION_SETTINGS:
                connection.execute(setting)
            yield connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where DuckDB's errors become ours."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise OutOfResources(f"{path}: {error}", hint="give the process more memory") from error
    except duckdb.IOException as error:
        short = out_of_resources(error)
        if short is not None:
            raise short from error
        if "lock" not in str(error):
            raise RunFailed(f"{path}: {error}") from error
        message = f"{path} is in use by another process"
        raise TemporaryError(message, hint="a DuckDB file has one user at a time") from error
    except duckdb.Error as error:
        raise _refused(error) from error
    except OSError as error:
        told = barred(error)
        if told is None:
            raise
        raise told from error


def _refused(error: duckdb.Error) -> MlbatchError:
    first = str(error).splitlines()[0]
    if isinstance(error, (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException)):
        hint = "check the tables and columns that the .sql file names"
        return DeclarationError(f"the warehouse refuses the query: {first}", hint=hint)
    return RunFailed(f"the warehouse stopped the query: {first}")
