"""A folder as object store, for the embedded default and for tests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa

from mlbatch.errors import SnapshotError, barred, out_of_resources
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
        # Whether it may be written to cannot be seen but by writing.
        with _translated(), TemporaryFile(dir=self.made(self.prefix)):
            return f"the folder {self.root}"

    def path(self, uri: str) -> Path:
        """Where the object is; a URI that leads out of the folder raises SnapshotError."""
        path = Path(unquote(urlsplit(uri).path)).resolve()
        if not uri.startswith(self.prefix) or not path.is_relative_to(self.root.resolve()):
            message = f"{uri} is outside {self.prefix}"
            raise SnapshotError(message)
        return path

    def made(self, prefix: str) -> Path:
        """The folder of all objects below ``prefix``, made where it is not there."""
        folder = self.path(prefix)
        with _translated():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stat(self, uri: str) -> Stored:
        """See `mlbatch.storage.Storage.stat`."""
        try:
            found = self.path(uri).stat()
        except OSError as error:
            message = f"{uri} is missing: {error.strerror}"
            missing = SnapshotError(message, hint="run again with --full to unload anew")
            raise out_of_resources(error) or barred(error) or missing from error
        return Stored(found.st_size, f"{found.st_size:x}-{found.st_mtime_ns:x}")

    @contextmanager
    def open(self, uri: str, *, etag: str) -> Iterator[pa.NativeFile]:
        """See `mlbatch.storage.Storage.open`."""
        if self.stat(uri).etag != etag:
            message = f"{uri} was replaced since the snapshot was taken"
            raise SnapshotError(message, hint="run again with --full to unload anew")
        with _translated():
            file = pa.OSFile(str(self.path(uri)), "rb")
        with file:
            yield file

    def peek(self, uri: str, stored: Stored) -> AbstractContextManager[pa.NativeFile]:
        """See `mlbatch.storage.Storage.peek`."""
        return self.open(uri, etag=stored.etag)

    def read(self, uri: str) -> bytes:
        """See `mlbatch.storage.Storage.read`."""
        self.stat(uri)
        with _translated():
            return self.path(uri).read_bytes()

    def put(self, uri: str, data: bytes) -> None:
        """See `mlbatch.storage.Storage.put`."""
        path = self.path(uri)
        self.made(f"{uri.rpartition('/')[0]}/")
        with _translated():
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


@contextmanager
def _translated() -> Iterator[None]:
    """The one place where a file that is not ours to use becomes an error of ours."""
    try:
        yield
    except OSError as error:
        told = barred(error)
        if told is None:
            raise
        raise told from error
