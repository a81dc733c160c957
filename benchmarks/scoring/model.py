"""The model that everybody scores with: a linear one over hashed words, learnt from labels by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.scoring.declared import JOBS, build
from mlbatch.calibration import Temperature
from mlbatch.model import TrainedModel

ROWS = 3_000


def made(kind: str, part: Path) -> TrainedModel:
    """A model that was taught the first rows of ``part``."""
    batch = pq.read_table(part).slice(0, ROWS).combine_chunks().to_batches()[0].select(["text"])
    classes = JOBS[kind].classes()
    labels = np.random.default_rng(0).choice(classes, batch.num_rows)
    pipeline = build()
    pipeline[-1].set_params(random_state=0)
    features = pipeline[:-1].transform(batch)
    pipeline[-1].partial_fit(features, labels, np.array(classes))
    return TrainedModel(pipeline, classes, Temperature(1.0), None, ("text",))


def weights(model: TrainedModel, file: Path) -> Path:
    """What peers load: weights (classes, columns), intercepts and labels."""
    classifier = model.pipeline[-1]
    np.savez(
        file,
        coef=np.ascontiguousarray(classifier.coef_),
        intercept=classifier.intercept_,
        classes=classifier.classes_,
    )
    return file
