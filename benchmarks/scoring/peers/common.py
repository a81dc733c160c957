"""What all peers share: the model in plain scikit-learn calls, parts, the target, and the answer.

Peers run in an environment of their own, without mlbatch. Seconds are counted from when everything is
imported, started and loaded until the last row is committed.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import ipadic
import MeCab
import numpy as np
import pymysql
from scipy.special import softmax
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier

NAMES = ("id", "label", "score", "model_version", "updated_at")
UPSERT = (
    "INSERT INTO {table} (id, label, score, model_version, updated_at) VALUES (%s, %s, %s, %s, %s)"
    " ON DUPLICATE KEY UPDATE label = VALUES(label), score = VALUES(score),"
    " model_version = VALUES(model_version), updated_at = VALUES(updated_at)"
)
_taggers = {}


def settings():
    """The one argument: a JSON object with weights, parts, table and the server."""
    return json.loads(sys.argv[1])


def normalise(text):
    return unicodedata.normalize("NFKC", text).lower()


def tokenise(text):
    if "it" not in _taggers:
        _taggers["it"] = MeCab.Tagger(f"{ipadic.MECAB_ARGS} -Owakati")
    return _taggers["it"].parse(text).split()


class Model:
    """A vectoriser and a classifier, as a script would have them."""

    def __init__(self, weights):
        found = np.load(weights)
        self.vectoriser = HashingVectorizer(
            preprocessor=normalise, tokenizer=tokenise, token_pattern=None, lowercase=False,
            alternate_sign=False, binary=True, n_features=2**18,
        )  # fmt: skip
        self.classifier = SGDClassifier(loss="log_loss")
        self.classifier.coef_ = found["coef"]
        self.classifier.intercept_ = found["intercept"]
        self.classifier.classes_ = found["classes"]

    def predict(self, texts):
        """Labels and scores."""
        decisions = self.classifier.decision_function(self.vectoriser.transform(texts))
        scores = softmax(decisions, axis=1)
        return self.classifier.classes_[decisions.argmax(axis=1)], scores.max(axis=1)


def scored(model, frame):
    """The rows to write for a pandas frame of a part."""
    labels, scores = model.predict(frame["text"])
    return frame.assign(label=labels, score=scores, model_version=1)[list(NAMES)]


def connect(told):
    return pymysql.connect(
        host=told["host"], port=told["port"], user=told["user"], password=told["password"],
        database=told["database"], ssl_disabled=True, local_infile=True,
    )  # fmt: skip


def upsert(connection, table, frame, rows=5_000):
    """Many rows a statement, one commit each."""
    values = list(frame.astype(object).itertuples(index=False, name=None))
    with connection.cursor() as cursor:
        for low in range(0, len(values), rows):
            cursor.executemany(UPSERT.format(table=table), values[low : low + rows])
            connection.commit()


def files(told):
    return sorted(str(path) for path in Path(told["parts"]).glob("*.parquet"))


def done(seconds):
    """The last line of a peer's output."""
    print(json.dumps({"seconds": seconds}), flush=True)
