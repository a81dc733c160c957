"""Generators made once a model are those that scikit-learn makes at every call."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Perceptron, SGDClassifier
from sklearn.naive_bayes import MultinomialNB

from mlbatch.seeds import LabelGenerators, learning_with, seeded

LABELS = np.array(["bread", "soup", "tea"])
ROWS = 200


class OfAnotherMaking(SGDClassifier):
    """May do with seeds what it likes."""


def taught(classifier):
    random = np.random.default_rng(5)
    for _ in range(3):
        classifier.partial_fit(random.random((ROWS, 20)), random.choice(LABELS, ROWS), LABELS)
    return classifier


@pytest.mark.parametrize(
    "build",
    [
        lambda: SGDClassifier(loss="log_loss"),
        lambda: SGDClassifier(average=True, n_jobs=2),
        lambda: Perceptron(penalty="l1"),
    ],
)
def test_what_is_learnt_is_what_a_number_gives(build):
    found, wanted = taught(learning_with(7, build(), 3)), taught(seeded(build(), 7))
    assert isinstance(found.random_state, LabelGenerators)
    assert np.array_equal(found.coef_, wanted.coef_)
    assert np.array_equal(found.intercept_, wanted.intercept_)


def test_a_generator_is_as_new_whatever_was_drawn_from_it():
    generators = LabelGenerators(7)
    for made in generators.randint(1000, size=3):
        made.normal(size=1001)
    wanted = [
        np.random.RandomState(seed) for seed in np.random.RandomState(7).randint(1000, size=3)
    ]
    for made, new in zip(generators.randint(1000, size=3), wanted, strict=True):
        assert np.array_equal(made.normal(size=5), new.normal(size=5))


def test_whoever_asks_otherwise_is_given_numbers():
    assert LabelGenerators(7).randint(1000) == np.random.RandomState(7).randint(1000)
    found = LabelGenerators(7).randint(0, 1000, size=3)
    assert np.array_equal(found, np.random.RandomState(7).randint(0, 1000, size=3))


@pytest.mark.parametrize(
    ("classifier", "labels"), [(SGDClassifier(), 2), (OfAnotherMaking(), 3), (MultinomialNB(), 3)]
)
def test_others_are_given_the_number_where_they_take_one(classifier, labels):
    assert learning_with(7, classifier, labels).get_params().get("random_state", 7) == 7
