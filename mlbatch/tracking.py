"""The seam to the tracking server and model registry: what was trained, and which model serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CHAMPION = "champion"
TRAINING_TAG = "mlbatch.training_id"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: int
    digest: str
    """SHA-256 of the model's card; the card holds the digests of its files."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the training run that made it."""
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a training run leaves behind for people to read."""

    job: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: Sequence[Mapping[str, float]]
    """Metrics of each epoch, in order."""
    tags: Mapping[str, str]
    texts: Mapping[str, str]
    """File name to content: reports and pictures."""


class Tracking(Protocol):
    """Where training is recorded and models are registered."""

    def about(self) -> str:
        """What answers there, in a few words, for `mlbatch doctor`."""
        ...

    def ready(self, job: str) -> None:
        """Raise what a `record` of ``job`` would meet now: nobody fits for hours to hear it."""
        ...

    def record(self, training: TrainingRecord, model: Path, digest: str) -> ModelVersion:
        """Log a training run and register the files of ``model`` as a new version.

        Once, however often it is called for what has one ``TRAINING_TAG``: the answer may be lost.
        """
        ...

    def resolve(self, name: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """The version an alias or number stands for; None when there is none."""
        ...

    def fetch(self, version: ModelVersion, target: Path) -> Path:
        """Bring the files of a version into the folder ``target``; returns where the card is."""
        ...

    def promote(self, version: ModelVersion) -> None:
        """Make ``version`` the champion."""
        ...

    def record_inference(self, job: str, run_id: str, totals: Mapping[str, float]) -> str:
        """Log the totals of a finished run once, however often it is called; returns its id."""
        ...
