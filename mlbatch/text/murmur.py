"""MurmurHash3, 32 bits, of many stretches of one buffer at once.

The function that scikit-learn hashes features with, so that columns are the same; see
https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp
"""

from __future__ import annotations

import numpy as np

_BLOCK = 4


def murmur3(data: bytes, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Signed hashes (n,) of ``data[start[i] : start[i] + length[i]]``, seed 0."""
    words = _words(data)
    blocks = length // _BLOCK
    hashes = np.zeros(len(start), np.uint32)
    left, block = np.flatnonzero(blocks > 0), 0
    while len(left):
        mixed = hashes[left] ^ _scrambled(words[start[left] + _BLOCK * block])
        hashes[left] = _rotated(mixed, 13) * np.uint32(5) + np.uint32(0xE6546B64)
        block += 1
        left = left[blocks[left] > block]
    tail_bits = (length % _BLOCK * 8).astype(np.uint32)
    tail = words[start + _BLOCK * blocks] & ((np.uint32(1) << tail_bits) - np.uint32(1))
    return _finished(hashes ^ _scrambled(tail) ^ length.astype(np.uint32)).view(np.int32)


def _words(data: bytes) -> np.ndarray:
    """The little-endian 32-bit number that begins at each byte, and at the end of ``data``."""
    unaligned = np.ndarray((len(data) + 1,), "<u4", data + bytes(_BLOCK), strides=(1,))
    return np.ascontiguousarray(unaligned)


def _rotated(numbers: np.ndarray, bits: int) -> np.ndarray:
    return (numbers << np.uint32(bits)) | (numbers >> np.uint32(32 - bits))


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    return _rotated(numbers * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _finished(hashes: np.ndarray) -> np.ndarray:
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))
