"""Snapshots: what one unload left behind, as immutable parts.

The manifest is Redshift's ``MANIFEST VERBOSE`` document; the embedded warehouse writes the same one,
so that there is one reader. Nothing of a snapshot is believed until every part was found with the
promised length and its footer with the promised rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlbatch.errors import SnapshotError

MAX_MANIFEST_BYTES = 50_000_000
_NO_MANIFEST = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading any other JSON as a manifest may raise."""
_FROM_ROW = "#from-row="


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of a snapshot, or some row groups of a large one: the unit of parallelism."""

    number: int
    uri: str
    """Of the file; where the part is not the first of its file, with the row it begins at."""
    rows: int
    bytes: int
    etag: str
    """What the store calls this very content; a part that changes later is refused."""

    @property
    def file_uri(self) -> str:
        """What the object store is asked for."""
        return self.uri.partition(_FROM_ROW)[0]

    @property
    def from_row(self) -> int:
        """Rows of the file before this part."""
        return int(self.uri.partition(_FROM_ROW)[2] or 0)


def piece_uri(file_uri: str, from_row: int) -> str:
    """The URI of a part that begins at row ``from_row`` of a file."""
    return f"{file_uri}{_FROM_ROW}{from_row}" if from_row else file_uri


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The immutable result of one unload."""

    prefix: str
    parts: tuple[Part, ...]
    highest_cursor: datetime | None
    """Largest cursor value in UTC; None for an empty snapshot."""

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over part names below the prefix, lengths, rows and content tags."""
        lines = [
            f"{p.uri.removeprefix(self.prefix)} {p.bytes} {p.rows} {p.etag}" for p in self.parts
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What a manifest promises of one file."""

    uri: str
    bytes: int
    rows: int


def read_manifest(content: bytes, *, uri: str, prefix: str) -> tuple[ManifestEntry, ...]:
    """Parse a verbose manifest and refuse whatever is not below ``prefix``.

    Raises SnapshotError, naming ``uri``, for text that is not such a manifest, for files outside
    the unload's own path, and for totals that do not add up.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        message = f"{uri}: a manifest of {len(content)} bytes is refused"
        raise SnapshotError(message)
    try:
        document = json.loads(content)
        entries = tuple(_entry(entry) for entry in document["entries"])
        promised = document.get("meta", {}).get("record_count")
    except _NO_MANIFEST as error:
        message = f"{uri} is not a verbose manifest: {type(error).__name__}: {error}"
        raise SnapshotError(message, hint="unload again; the path is never reused") from error
    _check_places(entries, uri, prefix)
    counted = sum(entry.rows for entry in entries)
    if promised is not None and promised != counted:
        message = f"{uri} promises {promised} rows in all, its entries {counted}"
        raise SnapshotError(message)
    return entries


def _entry(entry: dict[str, Any]) -> ManifestEntry:
    meta = entry["meta"]
    size, rows = int(meta["content_length"]), int(meta["record_count"])
    if size < 0 or rows < 0:
        message = f"an entry of {size} bytes and {rows} rows"
        raise ValueError(message)
    return ManifestEntry(uri=str(entry["url"]), bytes=size, rows=rows)


def _check_places(entries: tuple[ManifestEntry, ...], uri: str, prefix: str) -> None:
    for entry in entries:
        strange = ".." in entry.uri.split("/") or _FROM_ROW in entry.uri
        if strange or not entry.uri.startswith(prefix):
            message = f"{uri} names {entry.uri}, which is outside {prefix}"
            raise SnapshotError(message, hint="somebody else wrote this manifest; unload again")
    if len({entry.uri for entry in entries}) != len(entries):
        message = f"{uri} names a file twice"
        raise SnapshotError(message)


def write_manifest(entries: tuple[ManifestEntry, ...]) -> bytes:
    """The verbose manifest of ``entries``, as UNLOAD writes it."""
    document = {
        "entries": [
            {"url": e.uri, "meta": {"content_length": e.bytes, "record_count": e.rows}}
            for e in entries
        ],
        "meta": {
            "content_length": sum(e.bytes for e in entries),
            "record_count": sum(e.rows for e in entries),
        },
    }
    return json.dumps(document, indent=1).encode()
