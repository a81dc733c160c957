"""A row's key as text, as the quarantine keeps it and messages name it, and back again.

Columns are joined by '/'. Where there are several, a '/' and a '%' inside one of them are written as
in URLs, so that no two keys have one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

TEXT_CHARACTERS = 255
"""Longer texts are cut where they are kept."""
MISSING, BROKEN, UNREADABLE = "missing_key", "key_not_utf8", "part_unreadable"
_NO_KEY = (MISSING, BROKEN, UNREADABLE)
"""Reasons of a row that has no key. It is kept with the empty text, which may be a key as well."""


def texts(rows: pa.RecordBatch | pa.Table, key: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    """The key of each row; NULL where it has none that could be in a table."""
    cells = [_cells(rows.column(name)) for name in key]
    if len(cells) > 1:
        cells = [pc.replace_substring(cell, "%", "%25") for cell in cells]
        cells = [pc.replace_substring(cell, "/", "%2F") for cell in cells]
    return pc.binary_join_element_wise(*cells, "/")


def is_known(told: str, reason: str) -> bool:
    """Whether ``told`` is the text of a key, and not what stands for none in a row set aside for ``reason``."""
    return bool(told) or reason not in _NO_KEY


def text(values: Sequence[object]) -> str:
    """The text of one key, which has a value in every column."""
    names = [str(number) for number in range(len(values))]
    row = pa.RecordBatch.from_arrays([pa.array([value]) for value in values], names)
    return str(texts(row, names)[0].as_py())


def parsed(told: str, types: Sequence[pa.DataType]) -> tuple[object, ...] | None:
    """The key whose text is ``told``; None where that may have been cut, or is no key."""
    cells = told.split("/") if len(types) > 1 else [told]
    if len(told) >= TEXT_CHARACTERS or len(cells) != len(types):
        return None
    if len(types) > 1:
        cells = [cell.replace("%2F", "/").replace("%25", "%") for cell in cells]
    try:
        return tuple(_value(cell, kind) for cell, kind in zip(cells, types, strict=True))
    except (KeyError, ValueError):
        return None


_BOOLEANS = {"true": True, "false": False}
_READERS: dict[pa.DataType, Callable[[str], object]] = {
    pa.bool_(): lambda cell: _BOOLEANS[cell.lower()],
    pa.int64(): int,
    pa.date32(): date.fromisoformat,
    pa.timestamp("us"): datetime.fromisoformat,
}


def _value(cell: str, kind: pa.DataType) -> object:
    return _READERS.get(kind, str)(cell)


def _cells(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column.cast(pa.string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        column = pa.array([_decoded(v) for v in column.cast(pa.binary()).to_pylist()], pa.string())
    return column


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None
