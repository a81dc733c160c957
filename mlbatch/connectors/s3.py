"""S3 as object store: small parts come whole, large ones by ranges, ahead of need.

A range is asked for with the tag of the adopted content, so an object that is replaced while it is
read is refused and never mixed. botocore repeats a request that fails, but not one whose answer is
cut short: every range is counted, and read again as a whole.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import pyarrow as pa
import stamina
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, ResponseStreamingError
from urllib3.exceptions import HTTPError

from mlbatch.connectors.aws import AwsAccess, aws_errors, code_of
from mlbatch.errors import SnapshotError, TemporaryError
from mlbatch.storage import Stored

WHOLE_BYTES = 64 << 20
"""Up to this size an object is one request: every further one costs a round trip."""
BLOCK_BYTES = 8 << 20
BLOCKS_AHEAD = 3
"""Blocks fetched before they are asked for: with the one being read, 32 MiB for each open part."""
PEEK_BYTES = 256 << 10
"""Fetched at once of an object of which little is wanted: more than most footers take."""
READERS = 8
TRIES = 4
Result = TypeVar("Result")
_UNLOAD_ANEW = "run again with --full to unload anew"


@dataclass(frozen=True, slots=True)
class S3Storage:
    """`mlbatch.storage.Storage` below ``s3://bucket/folder/``."""

    bucket: str
    folder: str = ""
    """Key prefix without slashes at its ends; may be empty."""
    access: AwsAccess = field(default_factory=AwsAccess)
    owner: str | None = None
    """Account that must own the bucket: a name that somebody else took over is refused."""
    kms_key: str | None = None
    """Key for what is written; the bucket's own default otherwise."""
    block_bytes: int = BLOCK_BYTES
    whole_bytes: int = WHOLE_BYTES

    @property
    def prefix(self) -> str:
        """See `mlbatch.storage.Storage.prefix`."""
        return f"s3://{self.bucket}/{self.folder}/" if self.folder else f"s3://{self.bucket}/"

    def about(self) -> str:
        """See `mlbatch.storage.Storage.about`."""
        where = {"ExpectedBucketOwner": self.owner} if self.owner else {}
        with aws_errors(f"looking at {self.prefix}"):
            self.access.client("s3").list_objects_v2(
                Bucket=self.bucket, Prefix=self.folder, MaxKeys=1, **where
            )
        return f"S3, {self.prefix}" + (
            f" at {self.access.endpoint}" if self.access.endpoint else ""
        )

    def stat(self, uri: str) -> Stored:
        """See `mlbatch.storage.Storage.stat`."""
        with self._explained(uri):
            found = self.access.client("s3").head_object(**self._place(uri))
        return Stored(found["ContentLength"], found["ETag"])

    @contextmanager
    def open(self, uri: str, *, etag: str) -> Iterator[pa.NativeFile]:
        """See `mlbatch.storage.Storage.open`."""
        size, data = self._begin(uri, etag)
        if data is not None:
            with pa.BufferReader(data) as file:
                yield file
            return
        with self._blocks(uri, Stored(size, etag), self.block_bytes, BLOCKS_AHEAD) as file:
            yield file

    def peek(self, uri: str, stored: Stored) -> pa.NativeFile:
        """See `mlbatch.storage.Storage.peek`."""
        return self._blocks(uri, stored, PEEK_BYTES, 0)

    def _blocks(self, uri: str, stored: Stored, block_bytes: int, ahead: int) -> pa.NativeFile:
        fetch = functools.partial(self._range, uri, stored.etag)
        blocks = ReadAhead(fetch, stored.bytes, _readers(os.getpid()), block_bytes, ahead)
        return pa.PythonFile(blocks, mode="r")

    def read(self, uri: str) -> bytes:
        """See `mlbatch.storage.Storage.read`."""

        def fetch() -> bytes:
            answer = self._get(uri)
            return _whole(answer["Body"], answer["ContentLength"])

        return self._patiently(uri, fetch)

    def put(self, uri: str, data: bytes) -> None:
        """See `mlbatch.storage.Storage.put`."""
        place = self._place(uri)
        encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key} if self.kms_key else {}
        )
        extra = encryption | {k: v for k, v in place.items() if k == "ExpectedBucketOwner"}
        with aws_errors(f"writing {uri}"):
            self.access.client("s3").upload_fileobj(
                io.BytesIO(data),
                place["Bucket"],
                place["Key"],
                ExtraArgs=extra or None,
                Config=TransferConfig(multipart_chunksize=self.block_bytes, max_concurrency=4),
            )

    def older(self, prefix: str, than: timedelta) -> tuple[str, ...]:  # noqa: ARG002
        """None: see `discard`."""
        return ()

    def discard(self, prefix: str) -> None:
        """Nothing: the bucket's lifecycle rule removes what is old, and the runner may delete nothing."""

    def _place(self, uri: str) -> dict[str, str]:
        if not uri.startswith(self.prefix):
            message = f"{uri} is outside {self.prefix}"
            raise SnapshotError(message)
        place = {"Bucket": self.bucket, "Key": uri.removeprefix(f"s3://{self.bucket}/")}
        return place | ({"ExpectedBucketOwner": self.owner} if self.owner else {})

    def _begin(self, uri: str, etag: str) -> tuple[int, bytes | None]:
        """The object's length, and its bytes unless it is a large one: one request in all."""

        def begin() -> tuple[int, bytes | None]:
            answer = self._get(uri, IfMatch=etag)
            size: int = answer["ContentLength"]
            if size > self.whole_bytes:
                answer["Body"].close()
                return size, None
            return size, _whole(answer["Body"], size)

        return self._patiently(uri, begin)

    def _range(self, uri: str, etag: str, start: int, end: int) -> bytes:
        """Bytes ``[start, end)`` of the very content called ``etag``."""

        def fetch() -> bytes:
            answer = self._get(uri, IfMatch=etag, Range=f"bytes={start}-{end - 1}")
            return _whole(answer["Body"], end - start)

        return self._patiently(uri, fetch)

    def _get(self, uri: str, **more: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.access.client("s3").get_object(**self._place(uri), **more)
        return answer

    def _patiently(self, uri: str, work: Callable[[], Result]) -> Result:
        try:
            for attempt in stamina.retry_context(
                on=_CutShortError, attempts=TRIES, timeout=None, wait_initial=0.2
            ):
                with attempt, self._explained(uri):
                    return work()
        except _CutShortError as error:
            message = f"{uri}: {error}, {TRIES} times"
            raise TemporaryError(message, hint="try again; nothing was lost") from error
        raise AssertionError  # the loop returns or raises

    @contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        with aws_errors(f"reading {uri}"):
            try:
                yield
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):
                    message = f"{uri} is missing"
                    raise SnapshotError(message, hint=_UNLOAD_ANEW) from error
                if code_of(error) in ("412", "PreconditionFailed", "416", "InvalidRange"):
                    raise self._replaced(uri) from error
                raise

    def _replaced(self, uri: str) -> SnapshotError:
        message = f"{uri} was replaced since the snapshot was taken"
        return SnapshotError(message, hint=_UNLOAD_ANEW)


class _CutShortError(Exception):
    """An answer ended before its promised length."""


def _whole(body: Any, length: int) -> bytes:  # noqa: ANN401  botocore's StreamingBody
    try:
        data: bytes = body.read()
    except (ResponseStreamingError, HTTPError, OSError) as error:
        message = "the answer broke off"
        raise _CutShortError(message) from error
    if len(data) != length:
        message = f"the answer has {len(data)} of {length} bytes"
        raise _CutShortError(message)
    return data


@functools.lru_cache(maxsize=1)
def _readers(pid: int) -> ThreadPoolExecutor:  # noqa: ARG001  threads do not survive a fork
    return ThreadPoolExecutor(READERS, thread_name_prefix="mlbatch-s3")


class ReadAhead(io.RawIOBase):
    """A file of blocks, of which those that will be wanted next are fetched meanwhile."""

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        size: int,
        readers: ThreadPoolExecutor,
        block_bytes: int = BLOCK_BYTES,
        ahead: int = BLOCKS_AHEAD,
    ) -> None:
        """``fetch(start, end)`` gives these bytes; it is called by the threads of ``readers``."""
        super().__init__()
        self._fetch, self._size, self._readers = fetch, size, readers
        self._block_bytes, self._ahead = block_bytes, ahead
        self._place = 0
        self._blocks: dict[int, Future[bytes]] = {}

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: a Parquet file is read from its end."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, without fetching."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        wanted = self._size if size is None or size < 0 else self._place + size
        end = min(wanted, self._size)
        pieces = []
        while self._place < end:
            number, offset = divmod(self._place, self._block_bytes)
            block = self._block(number)
            piece = block[offset : offset + end - self._place]
            pieces.append(piece)
            self._place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Forget the blocks; a fetch under way ends by itself."""
        for waiting in self._blocks.values():
            waiting.cancel()
        self._blocks.clear()
        super().close()

    def _block(self, number: int) -> bytes:
        last = (self._size - 1) // self._block_bytes
        wanted = range(number, min(number + self._ahead, last) + 1)
        # The footer's block stays: it is read first, and may hold the last rows.
        for gone in [n for n in self._blocks if n not in wanted and n != last]:
            self._blocks.pop(gone).cancel()
        for n in wanted:
            if n not in self._blocks:
                start = n * self._block_bytes
                end = min(start + self._block_bytes, self._size)
                self._blocks[n] = self._readers.submit(self._fetch, start, end)
        return self._blocks[number].result()
