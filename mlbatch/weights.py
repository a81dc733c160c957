"""How a linear model's weights lie in memory: narrow while it learns, by columns when it decides.

Hashed features have 2^18 columns, of which the rows of a training have some thousands. A linear model
goes through all its weights in each call of `partial_fit`, and jumps about in them from row to row,
which is quick as long as they stay in the processor's cache. So it learns on the columns that occur.
The weights come out the same, to the bit; averaged ones but for the last bit of some, which BLAS rounds
by their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse
from sklearn.linear_model import Perceptron, SGDClassifier

from mlbatch.errors import DeclarationError

_LINEAR = (SGDClassifier, Perceptron)
"""Their weights begin at zero, and those of a column without values stay there, whatever the loss and
the penalty. A class made from them may do otherwise, and learns on all columns."""


class Occurring:
    """The columns of sparse features that occur in any row."""

    def __init__(self) -> None:
        """None is known yet."""
        self._columns: np.ndarray | None = None

    def note(self, features: Any) -> None:  # noqa: ANN401  sparse or plain
        """Remember the columns of ``features``, shape (rows, columns); of plain ones nothing."""
        if issparse(features):
            if self._columns is None:
                self._columns = np.zeros(features.shape[1], bool)
            self._columns[features.tocsr().indices] = True

    def narrowing(self, classifier: Any) -> Narrowing:  # noqa: ANN401  any classifier
        """To these columns, or to all if ``classifier`` may learn from a column without values."""
        columns = self._columns
        if columns is None or not columns.any() or type(classifier) not in _LINEAR:
            return Narrowing(None, np.empty(0, np.int32))
        places = np.cumsum(columns, dtype=np.int32) - 1
        return Narrowing(columns, np.where(columns, places, np.int32(-1)))


@dataclass(frozen=True, slots=True)
class Narrowing:
    """From all columns to those that occur, in their order, and back."""

    occurring: np.ndarray | None
    """Whether each column occurs, shape (columns,); None where all of them stay."""
    places: np.ndarray
    """Of each column among those that occur, or -1, shape (columns,)."""

    def narrow(self, features: Any) -> Any:  # noqa: ANN401  sparse or plain
        """The same values, shape (rows, columns that occur).

        Raises DeclarationError for a column that does not: scikit-learn would write beside its
        weights.
        """
        if self.occurring is None:
            return features
        wide = features.tocsr()
        indices = self.places[wide.indices]
        if (indices < 0).any():
            message = "a row has other features than it had before"
            raise DeclarationError(message, hint="a pipeline's steps but the last keep no state")
        shape = (wide.shape[0], int(self.occurring.sum()))
        return csr_matrix((wide.data, indices, wide.indptr), shape=shape)

    def widen(self, classifier: Any) -> None:  # noqa: ANN401  what learnt from narrow features
        """Give a ``classifier`` that has learnt weights for all columns."""
        if self.occurring is None:
            return
        narrow, width = classifier.coef_, len(self.occurring)
        classifier.coef_ = np.zeros((len(narrow), width), narrow.dtype, order="F")
        classifier.coef_[:, self.occurring] = narrow
        classifier.n_features_in_ = width


def quicken(classifier: Any) -> None:  # noqa: ANN401  any classifier
    """Lay a linear model's weights out as its decisions read them, or each batch copies them all."""
    if hasattr(classifier, "coef_"):
        classifier.coef_ = np.asfortranarray(classifier.coef_)


def slim(classifier: Any) -> None:  # noqa: ANN401  any classifier
    """Drop what only further learning needs: an averaged model keeps its weights three times."""
    for name in ("_standard_coef", "_standard_intercept", "_average_coef", "_average_intercept"):
        if hasattr(classifier, name):
            delattr(classifier, name)
