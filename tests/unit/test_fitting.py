"""Who is taught which rows; what is learnt from them stands in test_learning."""

from __future__ import annotations

from time import sleep

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import BernoulliNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from mlbatch.errors import UsageError
from mlbatch.fitting import LabelledBatch, Plan, fit

ROWS, BATCH_ROWS = 400, 64
SPLIT = np.random.default_rng(0).random(ROWS)
LABELS = np.random.default_rng(1).random(ROWS) < 0.5
HELD_OUT = frozenset(np.flatnonzero(SPLIT < 0.2).tolist())
REST = frozenset(range(ROWS)) - HELD_OUT


class Witness(SGDClassifier):
    """Tells the rows that it was taught from those that it decided; a row is its own feature."""

    def partial_fit(self, features, labels, classes=None, sample_weight=None):
        self.__dict__.setdefault("taught_", set()).update(features.indices.tolist())
        return super().partial_fit(features, labels, classes, sample_weight)

    def decision_function(self, features):
        self.__dict__.setdefault("decided_", []).extend(features.indices.tolist())
        return super().decision_function(features)

    def predict(self, features):
        """What accuracy on the way is measured with; it decides nothing."""
        return super().decision_function(features) > 0


def own_feature(rows):
    return csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=(len(rows), ROWS))


def batches(_):
    for low in range(0, ROWS, BATCH_ROWS):
        some = slice(low, low + BATCH_ROWS)
        yield LabelledBatch(own_feature(np.arange(ROWS)[some]), LABELS[some], SPLIT[some])


def witnesses(folds):
    """The final model, the models of the folds, and the result."""
    made = []

    def build():
        made.append(Witness(loss="log_loss"))
        return Pipeline([("own", FunctionTransformer(own_feature)), ("witness", made[-1])])

    plan = Plan(classes=(False, True), inputs=("row",), epochs=2, folds=folds, threshold_recall=0.9)
    result = fit(build, batches, plan)
    return made[0], made[1:], result


@pytest.mark.parametrize("folds", [2, 5])
def test_the_final_model_learns_from_all_rows_but_the_held_out(folds):
    final, others, result = witnesses(folds)
    assert len(others) == folds
    assert final.taught_ == REST
    assert set(final.decided_) == HELD_OUT
    assert (result.rows_taught, result.rows_held_out) == (len(REST), len(HELD_OUT))


@pytest.mark.parametrize("folds", [2, 5])
def test_each_row_is_decided_once_by_the_fold_that_never_saw_it(folds):
    _, others, _ = witnesses(folds)
    for fold in others:
        assert fold.taught_ == REST - set(fold.decided_)
    assert sorted(row for fold in others for row in fold.decided_) == sorted(REST)


class Slow(SGDClassifier):
    """Notes the batches that it is taught; the final model takes its time over the first."""

    def partial_fit(self, features, labels, classes=None, sample_weight=None):
        seen = self.__dict__.setdefault("seen_", [])
        if not seen:
            sleep(0.02 * self.eta0)
        super().partial_fit(features, labels, classes, sample_weight)
        seen.append(features.indices.min() // BATCH_ROWS)
        return self


def test_each_model_is_taught_batch_after_batch_however_long_another_takes():
    made = []

    def build():
        made.append(Slow(loss="log_loss", eta0=10 if not made else 1))
        return Pipeline([("own", FunctionTransformer(own_feature)), ("slow", made[-1])])

    fit(build, batches, Plan(classes=(False, True), inputs=("row",), epochs=2, folds=3))
    order = list(range(-(-ROWS // BATCH_ROWS))) * 2
    assert [model.seen_ for model in made] == [order] * 4


def test_one_fold_is_one_model_and_a_slice_that_it_never_sees():
    final, others, result = witnesses(1)
    kept_apart = set(final.decided_) - HELD_OUT
    assert others == []
    assert final.taught_ == REST - kept_apart
    assert len(final.decided_) == len(set(final.decided_)) == len(kept_apart) + len(HELD_OUT)
    assert 0.1 < len(kept_apart) / len(REST) < 0.3
    assert (result.rows_taught, result.rows_held_out) == (len(final.taught_), len(HELD_OUT))
    assert 0 < result.model.threshold < 1


def test_with_one_fold_the_epochs_count_what_they_teach():
    made, epochs = [], []

    def build():
        made.append(Witness(loss="log_loss"))
        return Pipeline([("own", FunctionTransformer(own_feature)), ("witness", made[-1])])

    # Of a row that was taught the model knows the label by heart, and of no other.
    plan = Plan(classes=(False, True), inputs=("row",), epochs=2, folds=1)
    fit(build, batches, plan, epochs.append)
    assert [(epoch.rows, epoch.accuracy) for epoch in epochs[1:]] == [(len(made[0].taught_), 1.0)]


# Rows of each place: held out, in the first fifth of the others, and further up.
JUDGED, FIRST, LATER = 0.1, 0.25, 0.9


@pytest.mark.parametrize(
    ("folds", "places", "message"),
    [
        (5, {(True, FIRST), (False, FIRST)}, "False, True to learn from outside fold 1 of 5"),
        (5, {(True, FIRST), (False, FIRST), (False, LATER)}, "True to learn from outside fold 1"),
        (1, {(True, LATER), (False, LATER)}, "False, True to calibrate on"),
        (1, {(True, LATER), (False, LATER), (False, FIRST)}, "True to calibrate on"),
        (1, {(True, FIRST), (False, FIRST)}, "False, True to learn from"),
        (1, {(True, FIRST), (False, FIRST), (False, LATER)}, "True to learn from"),
    ],
)
def test_a_model_without_rows_of_a_label_is_refused_before_it_is_taught(folds, places, message):
    rows = sorted({(True, JUDGED), (False, JUDGED)} | places)
    labels, split = (np.array(column) for column in zip(*rows, strict=True))

    def told(_):
        yield LabelledBatch(own_feature(np.arange(len(rows))), labels, split)

    def build():
        return Pipeline([("own", FunctionTransformer(own_feature)), ("last", Untaught())])

    plan = Plan(classes=(False, True), inputs=("row",), folds=folds, threshold_recall=0.9)
    with pytest.raises(UsageError, match=f"no row of {message}"):
        fit(build, told, plan)


class Untaught(SGDClassifier):
    def partial_fit(self, *_, **__):
        pytest.fail("it was taught")


def test_of_many_labels_one_may_have_no_row_to_calibrate_on():
    labels = np.array(["a", "b", "c"] * 2 + ["a", "b"])
    split = np.array([JUDGED] * 3 + [LATER] * 3 + [FIRST] * 2)

    def told(_):
        yield LabelledBatch(own_feature(np.arange(len(labels))), labels, split)

    def build():
        return Pipeline([("own", FunctionTransformer(own_feature)), ("last", BernoulliNB())])

    result = fit(build, told, Plan(classes=("a", "b", "c"), inputs=("row",), folds=1))
    assert (result.rows_taught, result.rows_held_out) == (3, 3)


def test_no_fold_is_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="0 folds leave no row"):
        Plan(classes=(False, True), inputs=("row",), folds=0)


@pytest.mark.parametrize("classifier", [BernoulliNB, MLPClassifier])
def test_labels_and_weights_are_taught_by_name(classifier):
    def told(_):
        features = csr_matrix(np.column_stack([LABELS, ~LABELS]).astype(float))
        yield LabelledBatch(features, LABELS, SPLIT)

    def build():
        return Pipeline([("own", FunctionTransformer()), ("last", classifier())])

    plan = Plan(classes=(False, True), inputs=("row",), epochs=60, folds=2)
    assert fit(build, told, plan).evaluation.accuracy == 1
