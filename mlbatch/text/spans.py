"""Where the tokens of many texts lie in one buffer of bytes: words, pairs of words, runs of characters.

Three numbers a token, in numpy, stand for what would be a Python string each: with some 200 tokens a
text, making those strings costs more than finding them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mlbatch.text.tokeniser import CONTENT, NO_LEMMA, NUMERAL

_TAB, _LINE_END, _SPACE = 0x09, 0x0A, 0x20


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokens as stretches of ``data``, in no particular order."""

    data: bytes
    """UTF-8."""
    start: np.ndarray
    """First byte of each token, shape (tokens,)."""
    length: np.ndarray
    """Bytes of each token, shape (tokens,)."""
    row: np.ndarray
    """Number of the text that each token is of, shape (tokens,)."""


def word_spans(lines: bytes, *, pairs: bool = False) -> Spans:
    r"""The words of ``lines``: a line a text, a space behind each word, as in ``b"a b \nc \n"``.

    With ``pairs`` also each two neighbours, as they stand there: ``a b``.
    """
    data = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero((data == _SPACE) | (data == _LINE_END))
    is_word = data[ends] == _SPACE
    start = np.append(0, ends[:-1] + 1)[is_word] if len(ends) else ends
    words = Spans(lines, start, ends[is_word] - start, np.cumsum(~is_word)[is_word])
    return _with_pairs(words) if pairs else words


def _with_pairs(words: Spans) -> Spans:
    """``words``, which stand in order with a space between, and each two neighbours of a text."""
    end, row = words.start + words.length, words.row
    left = np.flatnonzero(row[1:] == row[:-1])
    start = np.concatenate([words.start, words.start[left]])
    end = np.concatenate([end, end[left + 1]])
    return Spans(words.data, start, end - start, np.concatenate([row, row[left]]))


def lemma_spans(rows: bytes, *, pairs: bool = False) -> Spans:
    """The content words' base forms in MeCab's ``rows``: kind, word and base form, tab-separated.

    Behind the lines of each text stands an empty one. Where there is no base form, the word is it. With
    ``pairs`` also each two neighbours, a space between.
    """
    data = np.frombuffer(rows, np.uint8)
    ends = np.flatnonzero(data == _LINE_END)
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    is_word = ends > starts
    kind, end, row = starts[is_word], ends[is_word], np.cumsum(~is_word)[is_word]
    after_kind, after_word = np.flatnonzero(data == _TAB).reshape(-1, 2).T
    without = (end - after_word == 1 + len(NO_LEMMA)) & (data[after_word + 1] == ord(NO_LEMMA))
    start = np.where(without, after_kind, after_word) + 1
    end = np.where(without, after_word, end)
    wanted = ~_begins(data, kind, f"{NUMERAL}\t")
    wanted &= np.logical_or.reduce([_begins(data, kind, f"{word},") for word in sorted(CONTENT)])
    lemmas = Spans(rows, start[wanted], (end - start)[wanted], row[wanted])
    return _with_pairs(_side_by_side(lemmas)) if pairs else lemmas


def _side_by_side(tokens: Spans) -> Spans:
    """The same tokens moved together, with a space behind each; behind each stands another byte now."""
    size = tokens.length + 1
    after = np.cumsum(size)
    start = after - size
    data = np.frombuffer(tokens.data, np.uint8)
    moved = data[np.arange(size.sum()) + np.repeat(tokens.start - start, size)]
    moved[after - 1] = _SPACE
    return Spans(moved.tobytes(), start, tokens.length, tokens.row)


def _begins(data: np.ndarray, at: np.ndarray, text: str) -> np.ndarray:
    """Whether ``text`` stands at each of the places ``at``, each of which begins a line."""
    found = np.ones(len(at), dtype=bool)
    for offset, byte in enumerate(text.encode()):
        # No line is shorter than its kind, a word and two tabs, and the next line only differs.
        found &= data[np.minimum(at + offset, len(data) - 1)] == byte
    return found


def character_spans(texts: Sequence[str], shortest: int, longest: int) -> Spans:
    """Runs of ``shortest`` to ``longest`` characters of each word with a space on either side.

    The same as scikit-learn's ``char_wb``: a padded word that is shorter than that is one token.
    """
    words = [text.split() for text in texts]
    padded = [f" {word} " for word in chain.from_iterable(words)]
    data = "".join(padded).encode()
    # Where characters begin, in bytes: all but the continuation bytes of UTF-8.
    at = np.append(np.flatnonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80), len(data))  # noqa: PLR2004
    sizes = np.fromiter(map(len, padded), np.int64, len(padded))
    word_end = np.cumsum(sizes)
    first, after = _runs(sizes, word_end, shortest, longest)
    row_of_word = np.repeat(np.arange(len(words)), [len(found) for found in words])
    row = np.repeat(row_of_word, sizes)[first]
    return Spans(data, at[first], at[after] - at[first], row)


def _runs(
    sizes: np.ndarray, word_end: np.ndarray, shortest: int, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """First character of each run, and the one behind its last, numbered through all words."""
    end_of = np.repeat(word_end, sizes)
    places = np.arange(len(end_of))
    short = sizes < shortest
    first, after = [(word_end - sizes)[short]], [word_end[short]]
    for size in range(shortest, longest + 1):
        places = places[places + size <= end_of[places]]
        first.append(places)
        after.append(places + size)
    return np.concatenate(first), np.concatenate(after)
