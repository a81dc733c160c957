"""Gates: what must hold before a model is promoted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_OF_ALL = (
    "f1_macro",
    "precision_macro",
    "recall_macro",
    "accuracy",
    "log_loss",
    "calibration_error",
    "rows_judged",
)


def metric_names(classes: int) -> tuple[str, ...]:
    """The figures that the evaluation of so many classes has, in its order."""
    of_each = (f"class_{n:02d}_{figure}" for n in range(classes) for figure in ("f1", "recall"))
    return (*_OF_ALL, *of_each)


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on one metric of the held-out evaluation.

    ``Gate("f1_macro", at_least=0.8)`` is absolute; ``Gate("f1_macro",
    not_worse_than_champion_by=0.02)`` compares with the model in service and holds when there is
    none. Metrics are the names that training logs, all in [0, 1] unless MLflow shows otherwise.
    """

    metric: str
    at_least: float | None = None
    not_worse_than_champion_by: float | None = None

    def __post_init__(self) -> None:
        """Exactly one condition per gate, so that a refusal names one thing."""
        if (self.at_least is None) == (self.not_worse_than_champion_by is None):
            message = f"the gate on {self.metric!r} needs exactly one condition"
            raise UsageError(message, hint="give at_least= or not_worse_than_champion_by=")

    def __str__(self) -> str:
        """As a person would say it."""
        if self.at_least is not None:
            return f"{self.metric} at least {_figure(self.at_least)}"
        slack = _figure(self.not_worse_than_champion_by or 0.0)
        return f"{self.metric} at most {slack} below the champion's"

    def check(self, metrics: Mapping[str, float], champion: Mapping[str, float]) -> Verdict:
        """Judge the challenger's ``metrics``; ``champion`` is empty when there is none."""
        value = metrics.get(self.metric)
        bound = self._bound(champion)
        # What is no number passes nothing, not even where there is nothing to compare with.
        passed = value is not None and value >= (-math.inf if bound is None else bound)
        return Verdict(self, passed, value, bound)

    def _bound(self, champion: Mapping[str, float]) -> float | None:
        if self.at_least is not None:
            return self.at_least
        reference = champion.get(self.metric)
        if reference is None or self.not_worse_than_champion_by is None:
            return None
        return reference - self.not_worse_than_champion_by


def _figure(value: float) -> str:
    """With two digits, or all that were declared where they are more."""
    return str(value) if isinstance(value, int) else max(f"{value:.2f}", str(value), key=len)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one gate judged one model."""

    gate: Gate
    passed: bool
    value: float | None
    """The metric's value; None when training did not measure it, which never passes."""
    bound: float | None
    """What the value had to reach; None when there was nothing to compare with."""

    def __str__(self) -> str:
        """One line, as the command line prints it."""
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        bound = "no champion yet" if self.bound is None else f"at least {self.bound:.3f}"
        return f"{self.gate.metric} {value} ({bound}): {'ok' if self.passed else 'refused'}"


def judge(
    gates: Iterable[Gate], metrics: Mapping[str, float], champion: Mapping[str, float]
) -> tuple[Verdict, ...]:
    """The verdict of every gate, in order."""
    return tuple(gate.check(metrics, champion) for gate in gates)
