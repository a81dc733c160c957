"""A warehouse whose unload hands over parts that are there already, those that everybody is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.snapshot import ManifestEntry, write_manifest
from mlbatch.warehouse import Unloaded

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class GivenParts(DuckdbWarehouse):
    """Counts like DuckDB; making parts is the warehouse's work, and nobody else's clock holds it."""

    parts: Path = Path()

    def unload(self, select: str, prefix: str) -> Unloaded:  # noqa: ARG002
        """See `mlbatch.warehouse.Warehouse.unload`."""
        manifest = self.storage.path(prefix + "manifest")
        manifest.parent.mkdir(parents=True)
        entries = tuple(self._linked(manifest.parent, prefix))
        manifest.write_bytes(write_manifest(entries))
        return Unloaded(sum(entry.rows for entry in entries), prefix + "manifest")

    def _linked(self, folder: Path, prefix: str) -> Iterator[ManifestEntry]:
        for part in sorted(self.parts.glob("*.parquet")):
            (folder / part.name).hardlink_to(part)
            rows = pq.read_metadata(part).num_rows
            yield ManifestEntry(prefix + part.name, part.stat().st_size, rows)
