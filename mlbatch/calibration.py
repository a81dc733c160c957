"""Calibration: decision values into probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit, softmax

_MAX_WEIGHT = 20.0


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Platt's scaling for two classes: ``1 / (1 + exp(-(slope * decision + intercept)))``."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, decision: np.ndarray, positive: np.ndarray) -> Sigmoid:
        """Least log loss on decision values (n,) and truths (n,), with Platt's soft targets.

        The soft targets keep the slope finite where the classes separate perfectly.
        """
        ups, downs = int(positive.sum()), int((~positive).sum())
        target = np.where(positive, (ups + 1) / (ups + 2), 1 / (downs + 2))

        def loss(weights: np.ndarray) -> float:
            logit = weights[0] * decision + weights[1]
            return float(-(target * log_expit(logit) + (1 - target) * log_expit(-logit)).mean())

        found = minimize(loss, x0=np.array([1.0, 0.0]), method="BFGS")
        return cls(float(found.x[0]), float(found.x[1]))

    def probabilities(self, decision: np.ndarray) -> np.ndarray:
        """Probabilities (n, 2) of the second class and its opposite, from decisions (n,)."""
        second = expit(self.slope * decision + self.intercept)
        return np.column_stack([1 - second, second])

    def to_json(self) -> dict[str, float]:
        """For the model's card."""
        return {"slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_json(cls, document: Mapping[str, float]) -> Sigmoid:
        """Back from the card."""
        return cls(float(document["slope"]), float(document["intercept"]))


@dataclass(frozen=True, slots=True)
class Temperature:
    """One temperature for several classes: softmax of ``decisions * inverse``."""

    inverse: float

    @classmethod
    def fit(cls, decisions: np.ndarray, class_index: np.ndarray) -> Temperature:
        """Least log loss on decision values (n, k) and true classes (n,)."""
        rows = np.arange(len(class_index))
        # The bounds hold for decisions of about 1, and losses may have decisions in the thousands.
        spread = float((decisions - decisions.mean(axis=1, keepdims=True)).std()) or 1.0
        scaled = decisions / spread

        def loss(log_inverse: float) -> float:
            right = softmax(scaled * np.exp(log_inverse), axis=1)[rows, class_index]
            return float(-np.log(np.clip(right, 1e-15, 1)).mean())

        bounds = (-np.log(_MAX_WEIGHT), np.log(_MAX_WEIGHT))
        found = minimize_scalar(loss, bounds=bounds, method="bounded")
        return cls(float(np.exp(found.x)) / spread)

    def probabilities(self, decisions: np.ndarray) -> np.ndarray:
        """Probabilities (n, k) from decision values (n, k)."""
        return np.asarray(softmax(decisions * self.inverse, axis=1))

    def to_json(self) -> dict[str, float]:
        """For the model's card."""
        return {"inverse": self.inverse}

    @classmethod
    def from_json(cls, document: Mapping[str, float]) -> Temperature:
        """Back from the card."""
        return cls(float(document["inverse"]))


Calibration = Sigmoid | Temperature


def choose_threshold(scores: np.ndarray, positive: np.ndarray, at_least_recall: float) -> float:
    """The highest threshold whose ``score >= threshold`` finds that share of the positives."""
    ranked = np.sort(scores[positive])[::-1]
    needed = int(np.ceil(at_least_recall * len(ranked)))
    return float(ranked[max(needed, 1) - 1])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows of similar score: what was promised, and what was the case."""

    rows: int
    mean_score: float
    share_correct: float


def reliability(
    scores: np.ndarray, correct: np.ndarray, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Equal-width bins of scores (n,) in [0, 1] against truths (n,); empty bins are left out."""
    index = np.minimum((scores * bins).astype(int), bins - 1)
    groups = [index == number for number in range(bins)]
    return tuple(
        ReliabilityBin(int(g.sum()), float(scores[g].mean()), float(correct[g].mean()))
        for g in groups
        if g.any()
    )


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance of promise and truth, weighted by rows; 0 is perfect."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.mean_score - b.share_correct) for b in bins) / rows
