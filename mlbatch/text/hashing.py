"""scikit-learn's hashed bag of words, made without a Python object per token.

The matrix is bit for bit that of `HashingVectorizer` with the same parameters; only the way there is
another. MeCab is called once a text, everything after it works on whole batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

from mlbatch.text.murmur import murmur3
from mlbatch.text.spans import Spans, character_spans, lemma_spans, word_spans
from mlbatch.text.tokeniser import (
    lemma_rows,
    lemmas,
    normalise,
    normalised,
    surface_lines,
    surfaces,
)

BLOCK_CHARACTERS = 160_000
"""Of texts whose tokens are hashed at once: what numpy makes of them stays in the processor's cache."""
_PAIRS = 2


class TextHasher(HashingVectorizer):  # type: ignore[misc]
    """A `HashingVectorizer` that is fast where tokens are mlbatch's words or runs of characters.

    With any other analyser, and with ``alternate_sign``, it goes scikit-learn's own way.
    """

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Rows of features for ``texts``, shape (texts, n_features)."""
        in_bulk = None if isinstance(texts, str) else self._in_bulk()
        if in_bulk is None:
            return super().transform(texts)
        blocks = [
            _counted(in_bulk(normalised(block)), len(block), self.n_features)
            for block in _blocks(texts)
        ]
        matrix = vstack(blocks, format="csr", dtype=self.dtype)
        if self.binary:
            matrix.data.fill(1)
        return matrix if self.norm is None else normalize(matrix, norm=self.norm, copy=False)

    def _in_bulk(self) -> Callable[[Sequence[str]], Spans] | None:
        """Finds the tokens of normalised texts; None where they cannot be had in bulk."""
        if self.preprocessor is not normalise or self.alternate_sign or self.stop_words:
            return None
        match self.analyzer, self.tokenizer, self.ngram_range:
            case "char_wb", _, (shortest, longest):
                return partial(character_spans, shortest=shortest, longest=longest)
            case "word", tokeniser, (1, 1 | 2 as words) if tokeniser is surfaces:
                return lambda texts: word_spans(surface_lines(texts), pairs=words == _PAIRS)
            case "word", tokeniser, (1, 1 | 2 as words) if tokeniser is lemmas:
                return lambda texts: lemma_spans(lemma_rows(texts), pairs=words == _PAIRS)
        return None


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """``texts`` in turn, at least one block, each of about `BLOCK_CHARACTERS`."""
    rows = 1 + BLOCK_CHARACTERS * len(texts) // (1 + sum(map(len, texts)))
    for start in range(0, max(len(texts), 1), rows):
        yield texts[start : start + rows]


def _counted(spans: Spans, rows: int, columns: int) -> csr_matrix:
    """How often each row has each hashed token, columns ascending within a row."""
    hashes = murmur3(spans.data, spans.start, spans.length)
    cells = spans.row * columns + np.abs(hashes.astype(np.int64)) % columns
    cells.sort()
    first = np.flatnonzero(np.append(True, cells[1:] != cells[:-1])) if len(cells) else cells
    counts = np.diff(np.append(first, len(cells)))
    cells = cells[first]
    begins = np.searchsorted(cells, np.arange(rows + 1) * columns)
    kind = np.int32 if len(cells) < np.iinfo(np.int32).max else np.int64
    indices, begins = (cells % columns).astype(kind), begins.astype(kind)
    return csr_matrix((counts, indices, begins), shape=(rows, columns))
