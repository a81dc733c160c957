"""A job's own ``predict`` around its learnt model: called, checked, and judged on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlbatch.errors import PredictionError
from mlbatch.evaluation import Evaluation, evaluate
from mlbatch.job import Job, reading_inputs_only
from mlbatch.model import Label, Prediction, plain

if TYPE_CHECKING:
    import pyarrow as pa

    from mlbatch.labelled import LabelledInputs

_SHOWN_CHARACTERS = 60


class Model(Protocol):
    """What a job's own ``predict`` is given: the model as it was learnt."""

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        """A label and a score for each row of the job's input columns."""
        ...


@dataclass(frozen=True, slots=True)
class OwnPredictor:
    """`mlbatch.scoring.Predictor` that asks the job's ``predict``."""

    job: type[Job]
    model: Model

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        """What the job answers; PredictionError names job and row where it is no answer.

        Raises DeclarationError where the job's code reads a column that is not an input.
        """
        with reading_inputs_only(self.job):
            answer = self.job.predict(self.model, batch) if self.job.predict else None
        if not isinstance(answer, Prediction):
            message = f"{self.job.name}: predict returned {type(answer).__name__}, not a Prediction"
            raise PredictionError(message, hint=_HINT)
        labels = [plain(label) for label in answer.labels]
        scores = np.asarray(answer.scores, dtype=float)
        if len(labels) != batch.num_rows or scores.shape != (batch.num_rows,):
            message = (
                f"{self.job.name}: for {batch.num_rows} rows predict gave {len(labels)} labels and "
                f"scores of shape {scores.shape}"
            )
            raise PredictionError(message, hint=_HINT)
        self._check_types(batch, labels)
        return Prediction(labels, scores)

    def _check_types(self, batch: pa.RecordBatch, labels: list[Label]) -> None:
        """A label that is not declared costs its row; one of another type is the code's mistake."""
        kinds = {type(label) for label in self.job.classes()}
        for row, label in enumerate(labels):
            if type(label) not in kinds:
                inputs = str(batch.slice(row, 1).to_pylist()[0])[:_SHOWN_CHARACTERS]
                declared = ", ".join(map(repr, self.job.classes()))
                message = (
                    f"{self.job.name}: predict answered {label!r} for row {row} of its batch, "
                    f"{inputs}; declared are {declared}"
                )
                raise PredictionError(message, hint=_HINT)


_HINT = "predict(model, batch) returns a Prediction with one label and one score for each row"


def predictor(job: type[Job], model: Model) -> Model:
    """``model``, behind the job's own ``predict`` where it has one."""
    return model if job.predict is None else OwnPredictor(job, model)


def judged(
    job: type[Job],
    model: Model,
    batches: Iterable[LabelledInputs],
    holdout: float,
    tell: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Figures of the job's own ``predict`` on the rows that were held out.

    Rows that inference would set aside for their answer count as wrong, and ``tell`` is told of them.
    """
    asked = OwnPredictor(job, model)
    truths: list[Label] = []
    labels: list[Label] = []
    scores: list[np.ndarray] = []
    for batch in batches:
        rows = np.flatnonzero(batch.split < holdout)
        if len(rows):
            answer = asked.predict(batch.batch.take(rows))
            truths += [plain(label) for label in batch.labels[rows]]
            labels += answer.labels
            scores.append(answer.scores)
    return _figures(job.classes(), truths, Prediction(labels, np.concatenate(scores)), tell)


def _figures(
    classes: tuple[Label, ...],
    truths: list[Label],
    answer: Prediction,
    tell: Callable[[str], None],
) -> Evaluation:
    labels, scores = answer.labels, answer.scores
    # What is no number lies between no bounds.
    valid = np.array([label in classes for label in labels]) & (scores >= 0) & (scores <= 1)
    wrong = np.flatnonzero(~valid)
    if len(wrong):
        example = f"{labels[wrong[0]]!r} with the score {scores[wrong[0]]:g}"
        count = f"{len(wrong):,} of {len(valid):,} held-out rows"
        tell(f"predict gave no valid answer for {count}, as {example}; counted as wrong")
    known = [label if is_valid else None for label, is_valid in zip(labels, valid, strict=True)]
    return evaluate(classes, truths, known, _spread(classes, known, scores))


def _spread(
    classes: tuple[Label, ...], labels: list[Label | None], scores: np.ndarray
) -> np.ndarray:
    """Probabilities (rows, classes) that have these scores; what is left goes to the others alike.

    Of a row without an answer nothing is known: its classes are all as likely.
    """
    if len(classes) == 2:  # noqa: PLR2004  the score is the second class's
        spread = np.column_stack([1 - scores, scores])
    else:
        spread = np.repeat((1 - scores)[:, None] / (len(classes) - 1), len(classes), axis=1)
        for row, label in enumerate(labels):
            if label is not None:
                spread[row, classes.index(label)] = scores[row]
    spread[[label is None for label in labels]] = 1 / len(classes)
    return spread
