"""A folder as object store, for the embedded default and for tests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa

from mlbatch.errors import SnapshotError, out_of_resources
from mlbatch.storage import Stored


@dataclass(frozen=True, slots=True)
class FolderStorage:
    """`mlbatch.storage.Storage` below the folder ``root``, an absolute path."""

    root: Path

    @property
    def prefix(self) -> str:
        """``file:///.../``."""
        return self.root.as_uri() + "/"

    def about(self) -> str:
        """See `mlbatch.storage.Storage.about`."""
        return f"the folder {self.root}"

    def path(self, uri: str) -> Path:
        """Where the object is; a URI that leads out of the folder raises SnapshotError."""
        path = Path(unquote(urlsplit(uri).path)).resolve()
        if not uri.startswith(self.prefix) or not path.is_relative_to(self.root.resolve()):
            message = f"{uri} is outside {self.prefix}"
            raise SnapshotError(message)
        return path

    def stat(self, uri: str) -> Stored:
        """See `mlbatch.storage.Storage.stat`."""
        try:
            found = self.path(uri).stat()
        except OSError as error:
            message = f"{uri} is missing: {error.strerror}"
            missing = SnapshotError(message, hint="run again with --full to unload anew")
            raise out_of_resources(error) or missing from error
        return Stored(found.st_size, f"{found.st_size:x}-{found.st_mtime_ns:x}")

    @contextmanager
    def open(self, uri: str, *, etag: str) -> Iterator[pa.NativeFile]:
        """See `mlbatch.storage.Storage.open`."""
        if self.stat(uri).etag != etag:
            message = f"{uri} was replaced since the snapshot was taken"
            raise SnapshotError(message, hint="run again with --full to unload anew")
        with pa.OSFile(str(self.path(uri)), "rb") as file:
            yield file

    def peek(self, uri: str, stored: Stored) -> AbstractContextManager[pa.NativeFile]:
        """See `mlbatch.storage.Storage.peek`."""
        return self.open(uri, etag=stored.etag)

    def read(self, uri: str) -> bytes:
        """See `mlbatch.storage.Storage.read`."""
        self.stat(uri)
        return self.path(uri).read_bytes()

    def put(self, uri: str, data: bytes) -> None:
        """See `mlbatch.storage.Storage.put`."""
        path = self.path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def older(self, prefix: str, than: timedelta) -> tuple[str, ...]:
        """See `mlbatch.storage.Storage.older`."""
        limit = time.time() - than.total_seconds()
        with suppress(OSError):
            folders = [child for child in self.path(prefix).iterdir() if child.is_dir()]
            old = sorted(child.name for child in folders if child.stat().st_mtime < limit)
            return tuple(f"{prefix}{quote(name)}/" for name in old)
        return ()

    def discard(self, prefix: str) -> None:
        """See `mlbatch.storage.Storage.discard`."""
        folder = self.path(prefix)
        if folder == self.root.resolve():
            message = f"{prefix} is all of {self.prefix}"
            raise SnapshotError(message)
        shutil.rmtree(folder, ignore_errors=True)
