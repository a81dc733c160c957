"""A checksum of rows that does not depend on their order, their batches or their worker.

Each row's key, label and score are mixed into 63 bits; rows add up modulo 2**63. The sum kept in the
ledger while writing must equal the sum over what the table holds afterwards.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MODULUS = 2**63


def row_checksums(batch: pa.RecordBatch, names: tuple[str, ...]) -> np.ndarray:
    """One uint64 below 2**63 per row over the columns ``names``, which hold no NULL."""
    mixed = np.full(batch.num_rows, len(names), dtype=np.uint64)
    for name in names:
        mixed = _mix(mixed ^ _numbers(batch.column(name)))
    return mixed >> np.uint64(1)


def checksum(batch: pa.RecordBatch, names: tuple[str, ...]) -> int:
    """The sum of the row checksums modulo 2**63."""
    values = row_checksums(batch, names)
    # Halves are added apart: a sum of more than two 63-bit numbers does not fit 64 bits.
    low = int((values & np.uint64(0xFFFFFFFF)).sum(dtype=np.uint64))
    high = int((values >> np.uint64(32)).sum(dtype=np.uint64))
    return (low + (high << 32)) % MODULUS


def _numbers(column: pa.Array) -> np.ndarray:
    if pa.types.is_floating(column.type):
        # Adding zero makes -0.0 and 0.0, which databases do not tell apart, the same bits.
        return (column.to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).to_numpy().view(np.uint64)
    encoded = column.cast(pa.string()).dictionary_encode()
    codes = [_text_number(text) for text in encoded.dictionary.to_pylist()]
    return np.array(codes, dtype=np.uint64)[pc.cast(encoded.indices, pa.int64()).to_numpy()]


def _text_number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
