"""The toy's learner, and a predictor that misbehaves as its texts say."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from mlbatch.model import Prediction
from mlbatch.text import words


def build() -> Pipeline:
    return make_pipeline(words("text", n_features=2**10), SGDClassifier(loss="log_loss"))


@dataclass(frozen=True)
class Obedient:
    """Good when the text says so; does what texts like "!raise" order."""

    log: Path | None = None

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        texts = batch.column("text").to_pylist()
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{len(texts)}\n")
        if "!raise" in texts:
            message = "as ordered"
            raise ValueError(message)
        if "!exit" in texts:
            os._exit(7)
        if "!short" in texts:
            texts = texts[1:]
        labels = ["odd" if t == "!odd" else "good" if "good" in t else "bad" for t in texts]
        scores = np.array([_score(text) for text in texts])
        return Prediction(labels, scores)


def _score(text: str) -> float:
    ordered = {"!nan": float("nan"), "!inf": float("inf"), "!two": 2.0}
    return ordered.get(text, (len(text) % 10) / 10)
