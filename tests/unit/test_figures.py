"""Figures that people act on: calibration, evaluation, thresholds."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, f1_score

from mlbatch.calibration import (
    Sigmoid,
    Temperature,
    choose_threshold,
    expected_calibration_error,
    reliability,
)
from mlbatch.evaluation import confusion_svg, evaluate

DECISIONS = st.floats(-50, 50)
LABELS = ("麺", "<b>&\"'", "plain")


@given(st.floats(-5, 5), st.floats(-5, 5), st.lists(DECISIONS, min_size=1, max_size=9))
def test_probabilities_of_two_classes_add_up_and_keep_their_order(slope, intercept, decisions):
    found = Sigmoid(slope, intercept).probabilities(np.array(decisions))
    assert np.allclose(found.sum(axis=1), 1)
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(decisions, kind="stable")
    steps = np.diff(found[order, 1])
    assert (steps >= 0).all() if slope >= 0 else (steps <= 0).all()


@given(arrays.arrays(float, (4, 3), elements=DECISIONS), st.floats(0.05, 20))
def test_a_temperature_changes_no_winner(decisions, inverse):
    found = Temperature(inverse).probabilities(decisions)
    assert np.allclose(found.sum(axis=1), 1)
    winners = decisions.argmax(axis=1)
    assert np.allclose(found[np.arange(4), winners], found.max(axis=1))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1, 1e3, 1e6])
def test_a_temperature_fits_decisions_of_any_scale(scale):
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, 2_000)
    decisions = random.normal(size=(2_000, 5))
    decisions[np.arange(2_000), truth] += 1.5
    fitted = Temperature.fit(decisions * scale, truth)
    assert fitted.inverse * scale == pytest.approx(1.5, rel=0.1)
    found = fitted.probabilities(decisions * scale)
    correct = found.argmax(axis=1) == truth
    assert found.max(axis=1).mean() == pytest.approx(correct.mean(), abs=0.03)


def test_a_temperature_of_decisions_that_are_all_alike_says_nothing():
    found = Temperature.fit(np.full((4, 3), 7.0), np.array([0, 1, 2, 0])).probabilities(
        np.full((1, 3), 7.0)
    )
    assert np.allclose(found, 1 / 3)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0.05, 20))
def test_a_calibration_survives_the_card(slope, intercept, inverse):
    for made in (Sigmoid(slope, intercept), Temperature(inverse)):
        assert type(made).from_json(made.to_json()) == made


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=4, max_size=40))
def test_fitting_never_gives_what_is_no_number(rows):
    decisions, truths = (np.array(column) for column in zip(*rows, strict=True))
    fitted = Sigmoid.fit(decisions, truths)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert np.isfinite(fitted.probabilities(decisions)).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.01, 1))
def test_a_threshold_finds_its_share_and_is_the_highest_that_does(scores, recall):
    values, positive = np.array(scores), np.ones(len(scores), dtype=bool)
    threshold = choose_threshold(values, positive, recall)
    assert (values >= threshold).mean() >= recall - 1e-12
    higher = values[values > threshold]
    assert len(higher) < np.ceil(recall * len(values))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 12)
)
def test_reliability_loses_no_row(rows, bins):
    scores, correct = (np.array(column) for column in zip(*rows, strict=True))
    found = reliability(scores, correct, bins)
    assert sum(b.rows for b in found) == len(rows)
    assert sum(b.rows * b.mean_score for b in found) == pytest.approx(scores.sum())
    assert sum(b.rows * b.share_correct for b in found) == pytest.approx(correct.sum())
    assert 0 <= expected_calibration_error(found) <= 1


@given(
    st.lists(
        st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, None))),
        min_size=1,
        max_size=30,
    )
)
def test_an_evaluation_counts_as_scikit_learn_does(pairs):
    truths, told = ([pair[side] for pair in pairs] for side in (0, 1))
    found = evaluate(LABELS, truths, told, np.full((len(pairs), 3), 1 / 3))
    unanswered = told.count(None)
    told = [label or "no answer" for label in told]
    f1 = f1_score(truths, told, labels=list(LABELS), average="macro", zero_division=0)
    assert found.f1_macro == pytest.approx(f1)
    assert found.accuracy == pytest.approx(accuracy_score(truths, told))
    assert sum(c.rows for c in found.by_class) == found.confusion.sum() + unanswered == len(pairs)
    assert found.metrics()["rows_judged"] == len(pairs)
    assert all(name.isascii() for name in found.metrics())
    assert len(found.report().splitlines()) == len(LABELS) + 2


def test_a_picture_is_well_formed_whatever_labels_say():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 9]])
    root = ET.fromstring(confusion_svg(LABELS, matrix))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:9] == [str(n) for n in matrix.ravel()]
    assert texts[9:] == [label for label in LABELS for _ in range(2)]
