"""A job's model as files: written after training, verified and loaded by every worker.

A room of its own, so that a worker imports no warehouse and no settings.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mlbatch.connectors.skops_file import Expectations, load_model, save_model
from mlbatch.predicting import predictor
from mlbatch.text import TRUSTED, dictionary_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from mlbatch.job import Job
    from mlbatch.model import TrainedModel
    from mlbatch.scoring import Predictor


def save_job_model(model: TrainedModel, folder: Path) -> str:
    """Write a model's files; returns their digest."""
    return save_model(model, folder, dictionary=dictionary_fingerprint())


def load_job_model(job: type[Job], folder: Path, digest: str) -> Predictor:
    """Verify and load the model of ``job``; a worker process does so once."""
    return predictor(job, _load_once(job, folder, digest))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _load_once(job: type[Job], folder: Path, digest: str) -> TrainedModel:
    expected = Expectations(
        classes=job.classes(),
        inputs=job.inputs,
        dictionary=dictionary_fingerprint(),
        trusted=(*TRUSTED, *job.trusted_types),
    )
    return load_model(folder, digest=digest, expected=expected)
