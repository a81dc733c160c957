"""Gates: what must hold before a model is promoted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlbatch.errors import DeclarationError

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
_LESS_IS_BETTER = frozenset({"log_loss", "calibration_error"})


def metric_names(classes: int) -> tuple[str, ...]:
    """The figures that the evaluation of so many classes has, in its order."""
    of_each = (f"class_{n:02d}_{figure}" for n in range(classes) for figure in ("f1", "recall"))
    return (*_OF_ALL, *of_each)


def less_is_better(metric: str) -> bool:
    """Whether a model is the better for less of ``metric``; of all others it is for more."""
    return metric in _LESS_IS_BETTER


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on one metric of the held-out evaluation.

    ``Gate("f1_macro", at_least=0.8)`` is absolute, and so is ``Gate("log_loss", at_most=0.5)``, of a
    metric whose less is better: a job refuses the other bound. ``Gate("f1_macro",
    not_worse_than_champion_by=0.02)`` compares with the model in service, in the metric's own
    direction, and holds when there is none. Metrics are the names that training logs, all in [0, 1]
    but log_loss and rows_judged.
    """

    metric: str
    at_least: float | None = None
    not_worse_than_champion_by: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        """Exactly one condition per gate, so that a refusal names one thing."""
        conditions = (self.at_least, self.at_most, self.not_worse_than_champion_by)
        given = [condition for condition in conditions if condition is not None]
        if len(given) != 1:
            message = f"the gate on {self.metric!r} needs exactly one condition"
            hint = "give at_least=, at_most= or not_worse_than_champion_by="
            raise DeclarationError(message, hint=hint)
        if not isinstance(given[0], int | float) or not math.isfinite(given[0]):
            message = (
                f"the gate on {self.metric!r} compares with {given[0]!r}, which no value passes"
            )
            raise DeclarationError(message, hint="write a number, as 0.8")

    def __str__(self) -> str:
        """As a person would say it."""
        if self.at_least is not None:
            return f"{self.metric} at least {_figure(self.at_least)}"
        if self.at_most is not None:
            return f"{self.metric} at most {_figure(self.at_most)}"
        slack = _figure(self.not_worse_than_champion_by or 0.0)
        side = "above" if self.has_ceiling else "below"
        return f"{self.metric} at most {slack} {side} the champion's"

    @property
    def has_ceiling(self) -> bool:
        """Whether values above the bound are refused; else those below it are."""
        if self.not_worse_than_champion_by is not None:
            return less_is_better(self.metric)
        return self.at_most is not None

    def check(self, metrics: Mapping[str, float], champion: Mapping[str, float]) -> Verdict:
        """Judge the challenger's ``metrics``; ``champion`` is empty when there is none."""
        value = metrics.get(self.metric)
        bound = self._bound(champion)
        if value is None or bound is None:
            # What is no number passes nothing, not even where there is nothing to compare with.
            passed = value is not None and not math.isnan(value)
        else:
            passed = value <= bound if self.has_ceiling else value >= bound
        return Verdict(self, passed, value, bound)

    def _bound(self, champion: Mapping[str, float]) -> float | None:
        if self.not_worse_than_champion_by is None:
            return self.at_least if self.at_most is None else self.at_most
        reference = champion.get(self.metric)
        if reference is None:
            return None
        slack = self.not_worse_than_champion_by
        return reference + slack if self.has_ceiling else reference - slack


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
    """What the value was compared with; None when there was nothing to compare with."""

    def __str__(self) -> str:
        """One line, as the command line prints it."""
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        side = "at most" if self.gate.has_ceiling else "at least"
        bound = "no champion yet" if self.bound is None else f"{side} {self.bound:.3f}"
        return f"{self.gate.metric} {value} ({bound}): {'ok' if self.passed else 'refused'}"


def judge(
    gates: Iterable[Gate], metrics: Mapping[str, float], champion: Mapping[str, float]
) -> tuple[Verdict, ...]:
    """The verdict of every gate, in order."""
    return tuple(gate.check(metrics, champion) for gate in gates)
