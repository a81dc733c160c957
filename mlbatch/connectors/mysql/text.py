"""Rows as text that MySQL reads, made by Arrow a column at a time: no Python object per cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

STATEMENT_BYTES = 1 << 19
"""Longest list of rows: with its statement below any max_allowed_packet, whose excess ends the connection."""

_LOAD_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\0", "\\0"))
_LITERAL_ESCAPES = (("\\", "\\\\"), ("'", "\\'"), ("\0", "\\0"))


def load_text(batch: pa.RecordBatch) -> bytes:
    """``batch`` for LOAD DATA with its default FIELDS and LINES."""
    cells = [_text(column, _LOAD_ESCAPES) for column in batch.columns]
    lines = _joined(cells, "\t", missing="\\N")
    return _concatenated(lines, "\n")


def value_lists(batch: pa.RecordBatch, longest: int = STATEMENT_BYTES) -> Iterator[str]:
    """``(1, 'a'), (2, 'b')`` for the rows of ``batch``, cut where a list would exceed ``longest``.

    A row longer than that is a list of its own.
    """
    cells = [_literal(column) for column in batch.columns]
    rows = _wrapped(_joined(cells, ",", missing="NULL"), "(", ")")
    start, size = 0, 0
    for end, length in enumerate(pc.binary_length(rows).to_pylist()):
        if size + length > longest and end > start:
            yield _concatenated(rows.slice(start, end - start), ",").decode()
            start, size = end, 0
        size += length + 1
    if start < len(rows):
        yield _concatenated(rows.slice(start), ",").decode()


def _literal(column: pa.Array) -> pa.StringArray:
    text = _text(column, _LITERAL_ESCAPES)
    return text if _is_number(column.type) else _wrapped(text, "'", "'")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _text(column: pa.Array, escapes: Sequence[tuple[str, str]]) -> pa.StringArray:
    if pa.types.is_string(column.type):
        for character, escaped in escapes:
            column = pc.replace_substring(column, character, escaped)
        return column
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    return column.cast(pa.string())


def _wrapped(texts: pa.StringArray, before: str, after: str) -> pa.StringArray:
    return pc.binary_join_element_wise(before, texts, after, "")


def _joined(cells: Sequence[pa.StringArray], separator: str, *, missing: str) -> pa.StringArray:
    return pc.binary_join_element_wise(
        *cells, separator, null_handling="replace", null_replacement=missing
    )


def _concatenated(lines: pa.StringArray, separator: str) -> bytes:
    if not len(lines):
        return b""
    everything = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    return pc.binary_join(everything, separator)[0].as_buffer().to_pybytes()
