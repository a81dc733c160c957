"""Learning from a stream of batches: several epochs, cross-fitted scores, an honest evaluation.

Rows are told apart by ``split``, a stable hash of their split key in [0, 1): below ``holdout`` they
are never learnt from; the others fall into ``folds`` folds. Each batch is taught
to the final model, which sees all folds, and to one model per fold, which does not see its own. The
fold models' decisions on rows they never saw calibrate the final model and place its threshold; no
row has to be given up for that. With many rows that is dear: one fold means that the final model is
the only one, and a slice of the rows that it never sees calibrates it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from mlbatch.calibration import Sigmoid, Temperature, choose_threshold
from mlbatch.errors import UsageError
from mlbatch.evaluation import Evaluation, evaluate
from mlbatch.model import Label, TrainedModel, decision_values, declared_order
from mlbatch.seeds import learning_with, seeded
from mlbatch.weights import Occurring, quicken, slim

_SLICE = 0.2
"""Share of the rows that calibrate where there is one fold."""
_NO_FOLD = -1
"""Of a row that every model may learn from."""


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Rows to learn from."""

    features: Any
    """What the pipeline's steps before the last make of them, shape (rows, columns), mostly sparse."""
    labels: np.ndarray
    """Shape (rows,)."""
    split: np.ndarray
    """A stable hash of each row's split key in [0, 1), shape (rows,)."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one pass came to, measured on the rows it taught, before teaching them."""

    epoch: int
    rows: int
    accuracy: float
    seconds: float

    def metrics(self) -> dict[str, float]:
        """For tracking."""
        return {
            "rows": float(self.rows),
            "progressive_accuracy": self.accuracy,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class FitResult:
    """A model and what is known of it."""

    model: TrainedModel
    evaluation: Evaluation
    """On the held-out rows, by the final model with its threshold."""
    rows_taught: int
    rows_held_out: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to learn."""

    classes: tuple[Label, ...]
    inputs: tuple[str, ...]
    epochs: int = 5
    folds: int = 5
    """Models that give scores for calibration; with 1 the final model gives them, on a slice."""
    holdout: float = 0.2
    seed: int = 0
    threshold_recall: float | None = None

    def __post_init__(self) -> None:
        """Refuse to calibrate on nothing, before the first epoch rather than after the last."""
        if self.folds < 1:
            message = f"{self.folds} folds leave no row to calibrate on"
            raise UsageError(message, hint="1 keeps a slice apart, 5 cross-fits")

    def fold_of(self, split: np.ndarray) -> np.ndarray:
        """Number of each row's fold; held-out rows are in the final model's, after the others."""
        place = (split - self.holdout) / (1 - self.holdout)
        fold = np.minimum((place * self.folds).astype(int), self.folds - 1)
        if self.folds == 1:
            fold = np.where(place < _SLICE, 0, _NO_FOLD)
        return np.where(place < 0, self.folds, fold)


Batches = Callable[[int], Iterable[LabelledBatch]]


def fit(
    build: Callable[[], Pipeline],
    batches: Batches,
    plan: Plan,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
) -> FitResult:
    """Learn from ``batches(epoch)``, which yields the same rows in every epoch.

    Their features are made by a pipeline of ``build``: its steps but the last are stateless. Raises
    UsageError, before anything is taught, when a model would have no row of a declared label to
    learn from, or there is none to calibrate or to be judged on.
    """
    occurring = Occurring()
    learner = _Learner(build, plan, _count(batches(0), occurring, plan))
    narrowing = occurring.narrowing(learner.final)

    def narrowed(epoch: int) -> Iterator[LabelledBatch]:
        return (replace(b, features=narrowing.narrow(b.features)) for b in batches(epoch))

    # The models are side by side already: a BLAS with threads of its own only waits for them.
    with closing(learner), threadpool_limits(1, user_api="blas"):
        for epoch in range(1, plan.epochs + 1):
            on_epoch(learner.teach(narrowed(epoch), epoch))
    unseen, held_out = learner.decisions(narrowed(plan.epochs + 1))
    model = learner.calibrated(unseen)
    narrowing.widen(model.pipeline[-1])
    answers = model.answer(held_out.values())
    probabilities = model.calibration.probabilities(held_out.values())
    evaluation = evaluate(plan.classes, held_out.truths(), answers.labels, probabilities)
    return FitResult(model, evaluation, learner.rows_taught, len(held_out.truths()))


@dataclass(frozen=True, slots=True)
class _Counts:
    taught: dict[Label, int]

    def weights(self, labels: np.ndarray) -> np.ndarray:
        """Weights that make every label count alike in all; partial_fit offers no such option."""
        total, kinds = sum(self.taught.values()), len(self.taught)
        by_label = {label: total / (kinds * rows) for label, rows in self.taught.items()}
        return np.array([by_label[label] for label in labels.tolist()])


def _count(batches: Iterable[LabelledBatch], occurring: Occurring, plan: Plan) -> _Counts:
    """One pass: the balance of labels, and the columns, are known before the first row is taught."""
    found: Counter[tuple[int, Label]] = Counter()
    for batch in batches:
        occurring.note(batch.features)
        fold = plan.fold_of(batch.split)
        found.update(zip(fold.tolist(), batch.labels.tolist(), strict=True))

    def rows(folds: Iterable[int]) -> dict[Label, int]:
        chosen = list(folds)
        return {label: sum(found[fold, label] for fold in chosen) for label in plan.classes}

    folds = range(plan.folds)
    learnt = (_NO_FOLD,) if plan.folds == 1 else folds
    taught, calibrating = rows(learnt), rows(folds)
    _require(taught, "learn from")
    _require(rows((plan.folds,)), "be judged on")
    for own in folds if plan.folds > 1 else ():
        others = rows(fold for fold in folds if fold != own)
        _require_some(others, f"learn from outside fold {own + 1} of {plan.folds}")
    _require_some(calibrating, "calibrate on")
    return _Counts(taught)


def _require_some(counts: dict[Label, int], purpose: str) -> None:
    """Of several labels a rare one may be without rows: it moves the temperature little. Not of two."""
    if len(counts) == 2 or not any(counts.values()):  # noqa: PLR2004
        _require(counts, purpose)


def _require(counts: dict[Label, int], purpose: str) -> None:
    missing = [str(label) for label, rows in counts.items() if not rows]
    if missing:
        message = f"there is no row of {', '.join(missing)} to {purpose}"
        hint = "label more rows, in more groups of split_by, or remove the label from the output"
        raise UsageError(message, hint=hint)


@dataclass(slots=True)
class Decisions:
    """Decision values with their truths, collected batch by batch."""

    truth: list[Label] = field(default_factory=list)
    decided: list[np.ndarray] = field(default_factory=list)

    def add(self, truths: Sequence[Label], values: np.ndarray) -> None:
        """Append the rows of one batch."""
        self.truth.extend(truths)
        self.decided.append(values)

    def values(self) -> np.ndarray:
        """All decision values, shape (rows,) or (rows, classes)."""
        return np.concatenate(self.decided)

    def truths(self) -> list[Label]:
        """All true labels."""
        return self.truth


class _Learner:
    """The final model and its fold models, taught side by side."""

    def __init__(self, build: Callable[[], Pipeline], plan: Plan, counts: _Counts) -> None:
        self._plan, self._counts = plan, counts
        self._pipeline = build()
        self.final = learning_with(plan.seed, self._pipeline[-1], len(plan.classes))
        count = 0 if plan.folds == 1 else plan.folds
        self._folds = [
            learning_with(plan.seed, build()[-1], len(plan.classes)) for _ in range(count)
        ]
        self._random = np.random.default_rng(plan.seed)
        self._sorted_classes = np.array(sorted(plan.classes))
        # scikit-learn lets go of the interpreter while a linear model learns.
        self._threads = ThreadPoolExecutor(min(count + 1, os.cpu_count() or 1), "mlbatch-learn")
        self.rows_taught = 0

    def close(self) -> None:
        """Nothing more is taught."""
        self._threads.shutdown(cancel_futures=True)

    def teach(self, batches: Iterable[LabelledBatch], epoch: int) -> EpochMetrics:
        """One pass over the rows that are not held out."""
        started = time.perf_counter()
        taught = right = 0
        under_way: list[Future[int]] = []
        for labels, split, features in self._taught(batches):
            fold = self._plan.fold_of(split)
            asked = bool(taught) or epoch > 1
            coming = self._begin(under_way, labels, fold, features, asked=asked)
            # A thread without work begins with the next batch before the other one is done.
            right += sum(model.result() for model in under_way)
            under_way = coming
            taught += int((fold != len(self._folds)).sum())
        right += sum(model.result() for model in under_way)
        self.rows_taught = taught
        seconds = time.perf_counter() - started
        return EpochMetrics(epoch, taught, right / max(taught, 1), seconds)

    def _taught(
        self, batches: Iterable[LabelledBatch]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
        for batch in batches:
            wanted = np.flatnonzero(batch.split >= self._plan.holdout)
            if len(wanted):
                yield batch.labels[wanted], batch.split[wanted], batch.features[wanted]

    def _begin(
        self,
        before: Sequence[Future[int] | None],
        labels: np.ndarray,
        fold: np.ndarray,
        features: Any,  # noqa: ANN401
        *,
        asked: bool,
    ) -> list[Future[int]]:
        """Begin to teach every model, each after what is ``before``.

        The final one's result is how many labels of its rows it knew, if it is ``asked``.
        """
        weights = self._counts.weights(labels)
        order = self._random.permutation(len(labels))

        def teach(number: int, classifier: Any, before: Future[int] | None) -> int:  # noqa: ANN401
            if before is not None:
                before.result()
            learns, right = fold != number, 0
            if asked and classifier is self.final:
                right = int((learns & (classifier.predict(features) == labels)).sum())
            rows = order[learns[order]]
            if len(rows):
                # By name: classifiers have these two in either order.
                classifier.partial_fit(
                    features[rows],
                    labels[rows],
                    classes=self._sorted_classes,
                    sample_weight=weights[rows],
                )
            return right

        # The final model has the most to do, and begins.
        models = [(len(self._folds), self.final), *enumerate(self._folds)]
        last = before or [None] * len(models)
        return [
            self._threads.submit(teach, *model, taught)
            for model, taught in zip(models, last, strict=True)
        ]

    def decisions(self, batches: Iterable[LabelledBatch]) -> tuple[Decisions, Decisions]:
        """Decisions on rows that their model never saw: by the folds, and by the final model."""
        unseen, held_out = Decisions(), Decisions()
        for classifier in (*self._folds, self.final):
            quicken(classifier)
        for batch in batches:
            fold = self._plan.fold_of(batch.split)
            for number, classifier in enumerate([*(self._folds or [self.final]), self.final]):
                rows = np.flatnonzero(fold == number)
                if len(rows):
                    kind = held_out if number == self._plan.folds else unseen
                    decided = self._decide(classifier, batch.features[rows])
                    kind.add(batch.labels[rows].tolist(), decided)
        return unseen, held_out

    def _decide(self, classifier: Any, features: Any) -> np.ndarray:  # noqa: ANN401
        learnt = classifier.classes_.tolist()
        order = [learnt.index(label) for label in self._plan.classes]
        return declared_order(decision_values(classifier, features), order)

    def calibrated(self, unseen: Decisions) -> TrainedModel:
        """The final model with calibration and threshold from the fold models' decisions."""
        plan, values = self._plan, unseen.values()
        index = np.array([plan.classes.index(label) for label in unseen.truths()])
        calibration: Sigmoid | Temperature
        threshold = None
        if len(plan.classes) > 2:  # noqa: PLR2004  two classes have one decision value
            calibration = Temperature.fit(values, index)
        else:
            calibration = Sigmoid.fit(values, index == 1)
            if plan.threshold_recall is not None:
                scores = calibration.probabilities(values)[:, 1]
                threshold = choose_threshold(scores, index == 1, plan.threshold_recall)
        slim(self.final)
        seeded(self.final, plan.seed)
        return TrainedModel(self._pipeline, plan.classes, calibration, threshold, plan.inputs)
