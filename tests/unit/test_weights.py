"""Learning on the columns that occur gives what learning on all of them does."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from sklearn.linear_model import Perceptron, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_info

from mlbatch.errors import DeclarationError
from mlbatch.fitting import LabelledBatch, Plan, fit
from mlbatch.weights import Occurring

ROWS, WIDTH = 300, 5_000
CLASSES = ("bread", "soup", "tea")


class OnAllColumns(SGDClassifier):
    """Not exactly scikit-learn's own, and left alone for it."""


class OnAllColumnsToo(Perceptron):
    """The same of the other one."""


def batches(_):
    random = np.random.default_rng(3)
    for _ in range(3):
        features = random_array((ROWS, WIDTH), density=0.002, rng=random).tocsr()
        yield LabelledBatch(features, random.choice(CLASSES, ROWS), random.random(ROWS))


def learnt(classifier, of=batches, **options):
    def build():
        return make_pipeline(FunctionTransformer(), classifier(**options))

    return fit(build, of, Plan(CLASSES, ("row",), epochs=2, folds=2))


@pytest.mark.parametrize(
    ("narrowed", "whole", "options"),
    [
        (SGDClassifier, OnAllColumns, {"loss": "log_loss"}),
        (SGDClassifier, OnAllColumns, {"loss": "modified_huber", "penalty": "elasticnet"}),
        (Perceptron, OnAllColumnsToo, {"penalty": "l1"}),
    ],
)
def test_what_is_learnt_is_the_same_to_the_bit(narrowed, whole, options):
    found, wanted = learnt(narrowed, **options), learnt(whole, **options)
    one, other = found.model.pipeline[-1], wanted.model.pipeline[-1]
    assert one.coef_.shape == (3, WIDTH)
    assert np.array_equal(one.coef_, other.coef_)
    assert np.array_equal(one.intercept_, other.intercept_)
    assert found.model.calibration == wanted.model.calibration
    assert one.random_state == other.random_state == 0
    assert found.evaluation.metrics() == wanted.evaluation.metrics()


def test_averaged_weights_are_the_same_but_for_how_blas_rounds():
    options = {"loss": "log_loss", "average": True}
    found, wanted = learnt(SGDClassifier, **options), learnt(OnAllColumns, **options)
    one, other = found.model.pipeline[-1].coef_, wanted.model.pipeline[-1].coef_
    assert np.allclose(one, other, rtol=1e-12, atol=1e-15)
    assert np.array_equal(one == 0, other == 0)


def test_a_widened_model_answers_rows_of_columns_that_it_never_saw():
    model = learnt(SGDClassifier, loss="log_loss").model
    assert model.pipeline[-1].coef_.flags.f_contiguous
    every_column = csr_matrix(np.ones((1, WIDTH)))
    assert len(model.predict(every_column).labels) == 1


class Watched(SGDClassifier):
    """Tells how wide its features were, and how many threads BLAS had."""

    widths: ClassVar[set[int]] = set()
    threads: ClassVar[set[int]] = set()

    def partial_fit(self, features, labels, classes=None, sample_weight=None):
        self.widths.add(features.shape[1])
        self.threads.update(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")
        return super().partial_fit(features, labels, classes, sample_weight)


def test_models_side_by_side_are_not_given_threads_of_blas_as_well():
    learnt(Watched, loss="log_loss")
    assert Watched.threads == {1}


def test_a_class_of_ones_own_sees_all_columns():
    learnt(Watched, loss="log_loss")
    assert Watched.widths == {WIDTH}


def test_a_model_that_learns_from_absence_sees_all_columns():
    assert learnt(MultinomialNB).model.pipeline[-1].feature_log_prob_.shape == (3, WIDTH)


def test_plain_features_stay_as_they_are():
    def plain(epoch):
        for batch in batches(epoch):
            yield LabelledBatch(batch.features.toarray(), batch.labels, batch.split)

    found, wanted = learnt(SGDClassifier, plain), learnt(OnAllColumns, plain)
    assert np.array_equal(found.model.pipeline[-1].coef_, wanted.model.pipeline[-1].coef_)


def test_rows_without_any_feature_are_learnt_from():
    def empty(epoch):
        for batch in batches(epoch):
            yield LabelledBatch(batch.features * 0, batch.labels, batch.split)

    def none_at_all(epoch):
        for batch in batches(epoch):
            nothing = csr_matrix(batch.features.shape)
            yield LabelledBatch(nothing, batch.labels, batch.split)

    for of in (empty, none_at_all):
        assert not learnt(SGDClassifier, of, loss="log_loss").model.pipeline[-1].coef_.any()


def test_only_the_columns_that_occur_are_learnt_on():
    occurring = Occurring()
    occurring.note(csr_matrix([[0, 2.0, 0, 1.0]]))
    narrow = occurring.narrowing(SGDClassifier()).narrow(csr_matrix([[0, 5.0, 0, 7.0]]))
    assert narrow.toarray().tolist() == [[5.0, 7.0]]


def test_features_that_change_between_epochs_are_refused_instead_of_written_beside_the_weights():
    def drifting(epoch):
        for batch in batches(epoch):
            moved = csr_matrix(np.roll(batch.features.toarray(), epoch, axis=1))
            yield LabelledBatch(moved, batch.labels, batch.split)

    with pytest.raises(DeclarationError, match="other features than it had before"):
        learnt(SGDClassifier, drifting)
