"""Ready-made text features: stateless, so that they are the same in training and everywhere else.

Each starts at a column of a batch and ends in a sparse matrix, ready for scikit-learn's unions::

    make_pipeline(make_union(words("title"), characters("title")), SGDClassifier(loss="log_loss"))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline, make_pipeline

from mlbatch.text.hashing import TextHasher
from mlbatch.text.tokeniser import lemmas, normalise, surfaces

FEATURES = 2**18
"""Columns of the hash: more gain nothing on recipes."""

TRUSTED = (
    "mlbatch.text.features.Pick",
    "mlbatch.text.hashing.TextHasher",
    "mlbatch.text.tokeniser.lemmas",
    "mlbatch.text.tokeniser.normalise",
    "mlbatch.text.tokeniser.surfaces",
)
"""What a saved pipeline made of these features may contain beside scikit-learn's own types."""


class Pick(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A column of a batch as a list of texts; a missing text is an empty one."""

    def __init__(self, column: str) -> None:
        """``column`` is one of the job's inputs."""
        self.column = column

    def __sklearn_is_fitted__(self) -> bool:
        """There is nothing to fit."""
        return True

    def fit(self, batch: pa.RecordBatch, labels: object = None) -> Pick:  # noqa: ARG002
        """Nothing to learn."""
        return self

    def transform(self, batch: pa.RecordBatch) -> list[str]:
        """The texts of ``batch``, shape (rows,)."""
        return [text or "" for text in batch.column(self.column).to_pylist()]


def words(
    column: str,
    *,
    n_features: int = FEATURES,
    pairs: bool = True,
    tokeniser: Callable[[str], list[str]] = surfaces,
) -> Pipeline:
    """Words of ``column``, and pairs of neighbours, hashed; ``tokeniser`` may be `lemmas`."""
    return _hashed(
        column,
        n_features=n_features,
        tokenizer=tokeniser,
        token_pattern=None,
        ngram_range=(1, 2 if pairs else 1),
    )


def characters(
    column: str, *, n_features: int = FEATURES, shortest: int = 2, longest: int = 4
) -> Pipeline:
    """Runs of ``shortest`` to ``longest`` characters of ``column``, hashed.

    They carry what no dictionary knows: new words, endings, emoji.
    """
    return _hashed(
        column, n_features=n_features, analyzer="char_wb", ngram_range=(shortest, longest)
    )


def _hashed(column: str, **options: Any) -> Pipeline:  # noqa: ANN401  scikit-learn's own options
    # That a word is there says more of a short text than how often.
    vectoriser = TextHasher(
        preprocessor=normalise, lowercase=False, alternate_sign=False, binary=True, **options
    )
    return make_pipeline(Pick(column), vectoriser)


__all__ = ["FEATURES", "TRUSTED", "Pick", "characters", "lemmas", "words"]
