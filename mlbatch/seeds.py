"""The generators that scikit-learn shuffles rows with, made once a model rather than at every call.

A linear model of several labels draws a seed for each of them in every call of `partial_fit`, and makes
a generator from each. numpy takes 0.1 ms for that, since it seeds a new generator twice, which came to a
seventh of an epoch; to seed one that is there takes 2 microseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import Perceptron, SGDClassifier

_ALIKE = (SGDClassifier, Perceptron)
"""They draw the labels' seeds in one call, and make nothing of them but generators."""


class LabelGenerators(np.random.RandomState):
    """Draws generators where it is asked for seeds: those that scikit-learn would make from the seeds.

    It starts anew at every call, as scikit-learn does from a number.
    """

    def __init__(self, seed: int) -> None:
        """Nothing is drawn yet."""
        super().__init__(seed)
        self._seed = seed
        self._made: list[np.random.RandomState] = []

    def randint(self, low: int, *more: Any, size: Any = None, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """A generator for each of ``size`` seeds below ``low``, in a list; asked otherwise, numbers."""
        if more or options or not isinstance(size, int):
            numbers: Any = super().randint
            return numbers(low, *more, size=size, **options)
        self.seed(self._seed)
        self._made = self._made or [np.random.RandomState() for _ in range(size)]
        for made, seed in zip(self._made, super().randint(low, size=size), strict=True):
            made.seed(seed)
        return self._made


def learning_with(seed: int, classifier: Any, labels: int) -> Any:  # noqa: ANN401  any classifier
    """``classifier``, which learns as after `seeded`, but sooner."""
    if type(classifier) in _ALIKE and labels > 2:  # noqa: PLR2004  two labels have one generator
        return classifier.set_params(random_state=LabelGenerators(seed))
    return seeded(classifier, seed)


def seeded(classifier: Any, seed: int) -> Any:  # noqa: ANN401  any classifier
    """``classifier``; learning twice from the same rows gives the same model."""
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=seed)
    return classifier
