"""The files that UNLOAD writes, one slice's after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mlbatch.devstack.redshift.unload_command import GROUP_BYTES, UnloadCommand

PIECES_OF_A_FILE = 8
"""A file's limit is looked at after every such share of it."""


class PartFile(Protocol):
    """One file under way."""

    rows: int

    def bytes(self) -> int:
        """Its size so far, or a little more."""
        ...

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class ParquetPart:
    """Row groups as large as ROWGROUPSIZE says."""

    def __init__(self, path: Path, schema: pa.Schema, command: UnloadCommand) -> None:
        """Opens ``path``."""
        self.rows = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, compression="snappy")
        self._group_bytes = min(command.group_bytes or GROUP_BYTES, command.max_file_bytes)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def bytes(self) -> int:
        """See `PartFile.bytes`."""
        return int(self._sink.tell()) + self._waiting_bytes

    def write(self, batch: pa.RecordBatch) -> None:
        """See `PartFile.write`."""
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= self._group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._waiting_bytes = [], 0

    def close(self) -> None:
        """See `PartFile.close`."""
        self._flush()
        self._writer.close()
        self._sink.close()


class TextPart:
    """Lines; the batches have one column, the line."""

    def __init__(self, path: Path, header: str, command: UnloadCommand) -> None:
        """Opens ``path``."""
        self.rows = 0
        self._file = pa.OSFile(str(path), "wb")
        kind = command.compression
        self._sink = pa.CompressedOutputStream(self._file, kind) if kind else self._file
        if header:
            self._sink.write(f"{header}\n".encode())

    def bytes(self) -> int:
        """See `PartFile.bytes`."""
        return int(self._file.tell())

    def write(self, batch: pa.RecordBatch) -> None:
        """See `PartFile.write`."""
        self.rows += batch.num_rows
        lines = batch.column(0).to_pylist()
        self._sink.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        """See `PartFile.close`."""
        self._sink.close()
        self._file.close()


class Slice:
    """One slice's files: the next begins when one is full."""

    def __init__(
        self,
        open_part: Callable[[int], PartFile],
        finish: Callable[[int, PartFile], None],
        command: UnloadCommand,
        part_rows: int | None,
    ) -> None:
        """``open_part(number)`` begins a file, ``finish(number, part)`` takes it when closed."""
        self._open, self._finish = open_part, finish
        self._max_bytes, self._part_rows = command.max_file_bytes, part_rows
        self._number = 0
        self._part: PartFile | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, over as many files as they need."""
        for piece in self._pieces(batch):
            if self._part is not None and self._is_full(self._part, piece):
                self.finish()
            if self._part is None:
                self._part = self._open(self._number)
            self._part.write(piece)

    def _is_full(self, part: PartFile, piece: pa.RecordBatch) -> bool:
        too_long = self._part_rows is not None and part.rows >= self._part_rows
        return too_long or part.bytes() + piece.nbytes > self._max_bytes

    def _pieces(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        quota = self._max_bytes // PIECES_OF_A_FILE
        most = max(1, batch.num_rows * quota // max(batch.nbytes, 1))
        start = 0
        while start < batch.num_rows:
            length = min(most, self._room())
            yield batch.slice(start, length)
            start += length

    def _room(self) -> int:
        if self._part_rows is None:
            return 1 << 62
        rows = self._part.rows if self._part is not None else 0
        return self._part_rows - rows if rows < self._part_rows else self._part_rows

    def finish(self) -> None:
        """Close the file under way, if there is one."""
        if self._part is not None:
            part, self._part = self._part, None
            part.close()
            self._finish(self._number, part)
            self._number += 1
