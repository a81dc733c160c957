"""The recipe classifier: what the title says counts apart from what the whole recipe says."""

from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from mlbatch.text import characters, lemmas, words


def build() -> Pipeline:
    """A fresh, unfitted pipeline; the last step learns by partial_fit."""
    features = make_union(
        words("title", tokeniser=lemmas),
        characters("title"),
        words("ingredients", tokeniser=lemmas, pairs=False),
        words("steps", tokeniser=lemmas, pairs=False),
    )
    return make_pipeline(features, SGDClassifier(loss="log_loss", alpha=1e-5, average=True))
