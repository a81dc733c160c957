"""The recipe classifier: what the title says counts apart from what the whole recipe says."""

from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from mlbatch.text import characters, lemmas, words

FEATURES = 2**16


def build() -> Pipeline:
    """A fresh, unfitted pipeline; the last step learns one category against the rest at a time."""
    features = make_union(
        words("title", tokeniser=lemmas, pairs=False, n_features=FEATURES),
        characters("title", n_features=FEATURES),
        words("ingredients", tokeniser=lemmas, pairs=False, n_features=FEATURES),
        characters("ingredients", longest=3, n_features=FEATURES),
        words("steps", tokeniser=lemmas, pairs=False, n_features=FEATURES),
    )
    classifier = SGDClassifier(loss="log_loss", alpha=1e-5, learning_rate="constant", eta0=1.0)
    return make_pipeline(features, classifier)
