"""A checksum of rows that does not depend on their order, their batches or their worker.

Each row's key, label and score become one text, whose CRC-32 is added up. The sum kept in the ledger
while writing must equal the sum over what the table holds afterwards; it is made of what a database
can compute by itself, so that no row has to be read back.
"""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCALE = 2**30
"""Numbers with a fraction count in units of one over this: exact, and the same everywhere."""
BOUND = 2.0**32
"""Such numbers count as no larger than this."""


def checksum(batch: pa.RecordBatch, names: tuple[str, ...]) -> int:
    """The sum over the rows of ``batch`` of the CRC-32 of the columns ``names``, joined by commas."""
    if not batch.num_rows:
        return 0
    cells = [_text(batch.column(name)) for name in names]
    rows = pc.binary_join_element_wise(*cells, ",", null_handling="skip")
    return sum(map(zlib.crc32, rows.cast(pa.binary()).to_pylist()))


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        units = np.floor(np.clip(values, -BOUND, BOUND) * SCALE).astype(np.int64)
        column = pa.array(units, mask=np.asarray(column.is_null()))
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    return column.cast(pa.string())
