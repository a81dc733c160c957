"""The step classifier: words, pairs of words and runs of characters into a linear model."""

from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from mlbatch.text import characters, words


def build() -> Pipeline:
    """A fresh, unfitted pipeline; the last step learns by partial_fit."""
    features = make_union(words("text"), characters("text"))
    return make_pipeline(features, SGDClassifier(loss="log_loss", alpha=1e-5, average=True))
