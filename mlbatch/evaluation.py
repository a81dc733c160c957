"""How good a model is on rows that it never saw, in numbers, as a table, and as a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from mlbatch.calibration import ReliabilityBin, expected_calibration_error, reliability
from mlbatch.model import Label


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One label's figures, all in [0, 1] but the rows."""

    label: Label
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures on held-out rows."""

    by_class: tuple[ClassMetrics, ...]
    """In declared order."""
    accuracy: float
    log_loss: float
    reliability: tuple[ReliabilityBin, ...]
    confusion: np.ndarray
    """Rows by true label, columns by predicted one, shape (classes, classes)."""

    @property
    def f1_macro(self) -> float:
        """Mean F1 of the labels, each counting alike."""
        return float(np.mean([c.f1 for c in self.by_class]))

    @property
    def calibration_error(self) -> float:
        """Mean distance between a score and the share that was right."""
        return expected_calibration_error(self.reliability)

    def metrics(self) -> dict[str, float]:
        """Flat names for tracking and gates; labels by number, since stores allow only ASCII."""
        figures = {
            "f1_macro": self.f1_macro,
            "precision_macro": float(np.mean([c.precision for c in self.by_class])),
            "recall_macro": float(np.mean([c.recall for c in self.by_class])),
            "accuracy": self.accuracy,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "rows_judged": float(sum(c.rows for c in self.by_class)),
        }
        for number, c in enumerate(self.by_class):
            figures |= {f"class_{number:02d}_f1": c.f1, f"class_{number:02d}_recall": c.recall}
        return figures

    def report(self) -> str:
        """A table of the labels and a line of totals, aligned for Japanese too."""
        width = max(5, *(_width(str(c.label)) for c in self.by_class))
        lines = [f"{_pad('label', width)}  precision  recall     F1   rows"]
        lines += [
            f"{_pad(str(c.label), width)}  {c.precision:9.3f}  {c.recall:6.3f}  {c.f1:5.3f}  {c.rows:5,}"
            for c in self.by_class
        ]
        lines.append(
            f"macro F1 {self.f1_macro:.3f} · accuracy {self.accuracy:.3f} · "
            f"log loss {self.log_loss:.3f} · calibration error {self.calibration_error:.3f}"
        )
        return "\n".join(lines) + "\n"

    def confusion_svg(self) -> str:
        """The confusion matrix as a picture whose text can be selected."""
        return confusion_svg([str(c.label) for c in self.by_class], self.confusion)


def evaluate(
    classes: tuple[Label, ...],
    truths: Sequence[Label],
    labels: Sequence[Label | None],
    probabilities: np.ndarray,
) -> Evaluation:
    """Compare ``labels`` (rows,) with ``truths`` (rows,); ``probabilities`` is (rows, classes).

    A label that is None is a wrong answer, which the confusion has no column for.
    """
    unanswered = len(classes)
    places: dict[Label | None, int] = {label: number for number, label in enumerate(classes)}
    places[None] = unanswered
    true = np.array([places[label] for label in truths])
    told = np.array([places[label] for label in labels])
    numbers = list(range(len(classes)))
    precision, recall, f1, rows = precision_recall_fscore_support(
        true, told, labels=numbers, zero_division=0
    )
    by_class = tuple(
        ClassMetrics(classes[n], float(precision[n]), float(recall[n]), float(f1[n]), int(rows[n]))
        for n in numbers
    )
    right = (probabilities.argmax(axis=1) == true) & (told != unanswered)
    return Evaluation(
        by_class=by_class,
        accuracy=float((true == told).mean()),
        log_loss=float(log_loss(true, probabilities, labels=numbers)),
        reliability=reliability(probabilities.max(axis=1), right),
        confusion=confusion_matrix(true, told, labels=numbers),
    )


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


_CELL, _MARGIN = 44, 150


def confusion_svg(labels: Sequence[str], matrix: np.ndarray) -> str:
    """True labels downwards, predicted ones across; a darker cell holds a larger share of its row."""
    size = _MARGIN + _CELL * len(labels)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cells = [
        _cell(row, column, int(matrix[row, column]), float(shares[row, column]))
        for row in range(len(labels))
        for column in range(len(labels))
    ]
    names = [_name(number, escape(label)) for number, label in enumerate(labels)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" '
        f'aria-label="confusion matrix" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, *cells, *names, "</svg>"]) + "\n"


def _cell(row: int, column: int, count: int, share: float) -> str:
    x, y = _MARGIN + column * _CELL, _MARGIN + row * _CELL
    ink = "#fff" if share > 0.5 else "#000"  # noqa: PLR2004  white is legible on the darker half
    return (
        f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#1f5fa8" '
        f'fill-opacity="{share:.2f}" stroke="#ccc"/>'
        f'<text x="{x + _CELL / 2}" y="{y + _CELL / 2 + 4}" text-anchor="middle" fill="{ink}">{count}</text>'
    )


def _name(number: int, label: str) -> str:
    middle = _MARGIN + number * _CELL + _CELL / 2
    return (
        f'<text x="{_MARGIN - 6}" y="{middle + 4}" text-anchor="end">{label}</text>'
        f'<text transform="translate({middle + 4} {_MARGIN - 6}) rotate(-60)">{label}</text>'
    )
