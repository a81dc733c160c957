"""A trained model as inference sees it: a pipeline, its labels, and what its scores mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlbatch.calibration import Calibration, Sigmoid
from mlbatch.errors import ModelIncompatible

if TYPE_CHECKING:
    import pyarrow as pa

Label = str | int | bool
_LEAST = 1e-12
"""Probability below which an estimator's own is not told apart from zero."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer per row."""

    labels: list[Label]
    scores: np.ndarray
    """Probability of the label, shape (rows,); for two classes that of the second one."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted pipeline with calibration and, for two classes, a threshold.

    The last step of ``pipeline`` has decision values or probabilities; the steps before it are
    stateless.
    """

    pipeline: Any
    classes: tuple[Label, ...]
    """Labels in declared order, whatever order the classifier keeps them in."""
    calibration: Calibration
    threshold: float | None
    """From this probability of ``classes[1]`` on, the label is ``classes[1]``."""
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a classifier that learnt other labels than the declared ones."""
        learnt = [plain(label) for label in self.pipeline[-1].classes_]
        if sorted(map(repr, learnt)) != sorted(map(repr, self.classes)):
            message = f"the model learnt the labels {learnt}, the job declares {list(self.classes)}"
            raise ModelIncompatible(message, hint="train again on rows of every declared label")

    @property
    def _order(self) -> list[int]:
        learnt = [plain(label) for label in self.pipeline[-1].classes_]
        return [learnt.index(label) for label in self.classes]

    def decide(self, batch: pa.RecordBatch) -> np.ndarray:
        """Decision values: (rows,) for two classes, else (rows, classes) in declared order."""
        return declared_order(decision_values(self.pipeline, batch), self._order)

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        """A label and its probability for each row of ``batch``, which holds the inputs."""
        return self.answer(self.decide(batch))

    def answer(self, decisions: np.ndarray) -> Prediction:
        """Labels and probabilities of decision values."""
        probabilities = self.calibration.probabilities(decisions)
        if isinstance(self.calibration, Sigmoid):
            second = probabilities[:, 1]
            is_second = second >= (0.5 if self.threshold is None else self.threshold)
            return Prediction([self.classes[int(yes)] for yes in is_second], second)
        best = probabilities.argmax(axis=1)
        return Prediction([self.classes[i] for i in best], probabilities.max(axis=1))


def declared_order(decisions: np.ndarray, order: list[int]) -> np.ndarray:
    """Decision values with the classifier's classes brought into declared order."""
    if decisions.ndim == 1:
        return decisions if order == [0, 1] else -decisions
    return decisions[:, order]


def decision_values(estimator: Any, rows: Any) -> np.ndarray:  # noqa: ANN401  any classifier
    """Decision values, or for an estimator that has none the logarithms of its probabilities.

    Shape (rows,) for two classes, as the log odds of the second, else (rows, classes).
    """
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(rows)
    logs = np.log(np.clip(estimator.predict_proba(rows), _LEAST, 1.0))
    return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs  # noqa: PLR2004


def plain(label: Any) -> Any:  # noqa: ANN401  numpy's scalars as Python's
    """A label as Python has it, whatever an array made of it."""
    return label.item() if isinstance(label, np.generic) else label
