"""Japanese text for scikit-learn: MeCab analysers and ready-made features.

Knows nothing of the rest of mlbatch. Every function that a saved model refers to stands in a module
of its own name, and a tagger never lives inside a model: it is made on first use, one per thread and
process.
"""

from mlbatch.text.features import TRUSTED, Pick, characters, words
from mlbatch.text.tokeniser import (
    dictionary_fingerprint,
    dictionary_name,
    lemmas,
    normalise,
    surfaces,
)

__all__ = [
    "TRUSTED",
    "Pick",
    "characters",
    "dictionary_fingerprint",
    "dictionary_name",
    "lemmas",
    "normalise",
    "surfaces",
    "words",
]
