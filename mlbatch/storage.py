"""The seam to the store that holds a snapshot's parts: a folder, or S3."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import timedelta

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store says of one object."""

    bytes: int
    etag: str


class Storage(Protocol):
    """Objects are named by full URIs below the store's own prefix."""

    @property
    def prefix(self) -> str:
        """URI that every object's begins with, ending in a slash."""
        ...

    def about(self) -> str:
        """What answers there, in a few words, for `mlbatch doctor`."""
        ...

    def stat(self, uri: str) -> Stored:
        """Size and content tag; a missing object raises SnapshotError."""
        ...

    def open(self, uri: str, *, etag: str) -> AbstractContextManager[pa.NativeFile]:
        """The object for reading, refused when its content is no longer the one called ``etag``."""
        ...

    def peek(self, uri: str, stored: Stored) -> AbstractContextManager[pa.NativeFile]:
        """The object that was found as ``stored``, of which little is wanted: its end, or a column."""
        ...

    def read(self, uri: str) -> bytes:
        """A small object whole."""
        ...

    def put(self, uri: str, data: bytes) -> None:
        """Write an object whole."""
        ...

    def older(self, prefix: str, than: timedelta) -> tuple[str, ...]:
        """Prefixes right below ``prefix`` to which nothing came for so long.

        None where a rule of the store removes old objects.
        """
        ...

    def discard(self, prefix: str) -> None:
        """Let go of all objects below ``prefix``, which ends in a slash and is not the store's own.

        Best effort. Where a rule of the store removes old objects, that does it, and this nothing.
        """
        ...
