"""Rows of a driver as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def to_arrow(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Tuples of plain values, as both databases give them, in the types of ``schema``."""
    arrays = []
    for values, field in zip(zip(*rows, strict=True), schema, strict=True):
        plain = pa.array(values)
        if pa.types.is_boolean(field.type):
            plain = plain.cast(pa.int8())
        arrays.append(plain.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
