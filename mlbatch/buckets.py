"""Brings rows of several streams together by key, in memory that does not grow with the streams.

Each stream is dealt out to files by a checksum of its keys, which is the same whatever order a
database or a warehouse has for texts; then one bucket after another is read back. A bucket that is
still too large is dealt out once more. The files have no names, so that nothing is left of them
however the process ends.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from mlbatch.batches import rebatch
from mlbatch.errors import OutOfResources, RunFailed, out_of_resources
from mlbatch.keys import TEXT_CHARACTERS, texts

BUCKET_ROWS = 200_000
"""Of all streams together, in memory at once."""
FAN_OUT = 64
"""Buckets a dealing, each with an open file a stream: 12 million rows are dealt out once."""
DEALINGS = 3
TOLD = "mlbatch_told"
"""Column of a stream that has no keys but their texts, as the quarantine keeps them."""
DEAL_ROWS = 50_000


def together(
    streams: Sequence[pa.RecordBatchReader], key: Sequence[str]
) -> Iterator[tuple[pa.Table, ...]]:
    """The rows of all ``streams``, bucket by bucket: what has one ``key`` is in one bucket.

    A stream with a column `TOLD` is dealt out by that: it meets the rows whose key has this text.
    The streams are read one after another. Their files are in the folder for temporary files, some 20
    bytes a row of numbers; OutOfResources where there is no room for them.
    """
    return _together(streams, key, 0)


def _together(
    streams: Sequence[pa.RecordBatchReader], key: Sequence[str], dealing: int
) -> Iterator[tuple[pa.Table, ...]]:
    with ExitStack() as files:
        dealt = [_dealt(stream, key, dealing, files) for stream in streams]
        for number in sorted({number for buckets in dealt for number in buckets}):
            mine = [buckets.get(number) for buckets in dealt]
            rows = sum(bucket.rows for bucket in mine if bucket)
            with ExitStack() as reading:
                readers = [
                    reading.enter_context(bucket.reading())
                    if bucket
                    else pa.RecordBatchReader.from_batches(stream.schema, ())
                    for bucket, stream in zip(mine, streams, strict=True)
                ]
                if rows > BUCKET_ROWS and dealing + 1 < DEALINGS:
                    yield from _together(readers, key, dealing + 1)
                else:
                    yield tuple(reader.read_all() for reader in readers)


@dataclass(slots=True)
class _Bucket:
    """Rows of one stream in a file."""

    file: IO[bytes]
    writer: ipc.RecordBatchStreamWriter
    rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.writer.write_batch(batch)
        self.rows += batch.num_rows

    @contextmanager
    def reading(self) -> Iterator[pa.RecordBatchReader]:
        """All of them, once."""
        self.file.seek(0)
        with self.file, ipc.open_stream(self.file) as reader:
            yield reader


def _dealt(
    stream: pa.RecordBatchReader, key: Sequence[str], dealing: int, files: ExitStack
) -> dict[int, _Bucket]:
    buckets: dict[int, _Bucket] = {}
    for batch in rebatch(stream, DEAL_ROWS):
        numbers = _numbers(batch, key, dealing)
        order = np.argsort(numbers, kind="stable")
        sorted_rows = batch.take(pa.array(order))
        found, starts = np.unique(numbers[order], return_index=True)
        ends = [*starts[1:].tolist(), batch.num_rows]
        with _on_disk():
            for number, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
                if number not in buckets:
                    buckets[number] = _new(batch.schema, files)
                buckets[number].add(sorted_rows.slice(start, end - start))
    with _on_disk():
        for bucket in buckets.values():
            bucket.writer.close()
            bucket.file.flush()
    return buckets


def _numbers(batch: pa.RecordBatch, key: Sequence[str], dealing: int) -> np.ndarray:
    told = batch[TOLD] if TOLD in batch.schema.names else texts(batch, key).fill_null("")
    told = pc.utf8_slice_codeunits(told, 0, TEXT_CHARACTERS).cast(pa.binary()).to_pylist()
    sums = np.fromiter(map(zlib.crc32, told), np.int64, len(told))
    return sums // FAN_OUT**dealing % FAN_OUT


def _new(schema: pa.Schema, files: ExitStack) -> _Bucket:
    file: Any = tempfile.TemporaryFile(prefix="mlbatch-")  # noqa: SIM115
    files.callback(_let_go, file)
    return _Bucket(file, ipc.new_stream(file, schema, options=_OPTIONS))


def _let_go(file: IO[bytes]) -> None:
    # What could not be written is tried once more here. Its error was told, and nobody reads it now.
    with suppress(OSError):
        file.close()


_OPTIONS = ipc.IpcWriteOptions(compression="lz4")


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if tempfile.tempdir is None:
            # Each folder was tried with a small file, whose own error is not told.
            message = f"rows cannot be put aside: {error}"
            hint = "make room in one of them, or name another in the variable TMPDIR"
            raise OutOfResources(message, hint=hint) from error
        failed = RunFailed(f"rows cannot be put aside in {tempfile.tempdir}: {error}")
        raise out_of_resources(error) or failed from error
