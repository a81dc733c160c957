"""Jobs that answer by a function of their own, and models without decision values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from bad_inputs import FAILS, QUARANTINED, REFUSED, bad_input
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import make_pipeline
from toy import model as toy_model
from toy.harness import ToyHarness, note, notes
from toy.job import Mood, Toy
from toy.model import Obedient

from mlbatch import Prediction
from mlbatch.checks import LAWS
from mlbatch.errors import DeclarationError, PredictionError
from mlbatch.ledger import RunState
from mlbatch.text import words


def _in_the_folder(function):
    """As if the function stood beside the toy's job."""
    code = function.__code__.replace(co_filename=toy_model.__file__)
    function.__code__ = code
    return function


def job_with(predict, **changed):
    """The toy with a ``predict`` of its own."""
    attributes = {"__module__": Toy.__module__, "__doc__": "Tells moods.", "predict": predict}
    inherited = {name: getattr(Toy, name) for name in ("features", "labels", "inputs", "owner")}
    own = {"model": toy_model.build, "output": Mood} | changed
    return type("Ruled", (Toy,), attributes | inherited | own)


@_in_the_folder
def rule(model, batch):
    answer = model.predict(batch)
    known = ["always bad" in text for text in batch.column("text").to_pylist()]
    labels = ["bad" if k else label for k, label in zip(known, answer.labels, strict=True)]
    return Prediction(labels, np.where(known, 1.0, answer.scores))


@pytest.fixture
def taught(tmp_path):
    def teach(job, rows=200):
        harness = ToyHarness(job, tmp_path, part_rows=64)
        made = [
            note(n, f"{'good fine' if n % 2 else 'bad sad'} {n}", minutes=n) for n in range(rows)
        ]
        harness.notes(made)
        labels = [{"note_id": n, "label": "good" if n % 2 else "bad"} for n in range(rows)]
        return harness.given("moods", labels, key="note_id")

    return teach


@_in_the_folder
def rule_on_another_column(_model, batch):
    return Prediction(["good"] * len(batch), batch.column("txet").to_numpy())


def test_a_rule_that_reads_what_is_no_input_is_told(taught):
    harness = taught(job_with(rule_on_another_column))
    with pytest.raises(DeclarationError, match="reads the column 'txet', which is not one of its"):
        harness.train()


def test_a_rule_answers_before_the_model(taught):
    harness = taught(job_with(rule))
    assert harness.train().promoted
    harness.notes([note(900, "good fine but always bad"), note(901, "good fine")]).infer()
    found = {row["note_id"]: row for row in harness.rows()}
    assert (found[900]["label"], found[900]["score"]) == ("bad", 1.0)
    assert found[901]["label"] == "good"
    for law in LAWS:
        law(harness)


def test_the_gates_judge_what_will_answer(taught):
    @_in_the_folder
    def stubborn(model, batch):
        return Prediction(["good"] * batch.num_rows, np.full(batch.num_rows, 0.1))

    trained = taught(job_with(stubborn)).train()
    assert not trained.promoted
    assert trained.result.evaluation.f1_macro < 0.4


def unsure_of(wrong_label, wrong_score):
    """The model's answers, but for the first row of each batch."""

    @_in_the_folder
    def predict(model, batch):
        answer = model.predict(batch)
        labels, scores = list(answer.labels), answer.scores.copy()
        labels[0] = wrong_label or labels[0]
        scores[0] = scores[0] if wrong_score is None else wrong_score
        return Prediction(labels, scores)

    return predict


@pytest.mark.parametrize(
    ("label", "score", "told"),
    [
        ("odd", None, "as 'odd' with the score"),
        (None, 1.5, "with the score 1.5"),
        (None, -0.5, "with the score -0.5"),
        (None, float("nan"), "with the score nan"),
    ],
    ids=["undeclared", "above 1", "below 0", "no number"],
)
def test_a_rule_without_an_answer_for_a_row_is_wrong_there_and_trained(taught, label, score, told):
    harness = taught(job_with(unsure_of(label, score)))
    result = harness.train().result
    found = result.evaluation
    (notice,) = (line for line in harness.notices if "no valid answer" in line)
    assert told in notice
    unanswered = int(notice.split(" for ")[1].split()[0])
    assert unanswered == result.rows_held_out - found.confusion.sum() > 0
    assert found.accuracy == pytest.approx(1 - unanswered / result.rows_held_out)
    assert 0 < found.log_loss < 1


def build_bayes():
    return make_pipeline(words("text", n_features=2**10), BernoulliNB())


def test_an_estimator_of_probabilities_alone_is_learnt(taught):
    harness = taught(job_with(None, model=build_bayes))
    assert harness.train().result.evaluation.f1_macro > 0.9
    ended = harness.infer()
    assert ended.totals.written == 200
    scores = np.array([row["score"] for row in harness.rows()])
    assert ((scores >= 0) & (scores <= 1)).all()


def answering(answer):
    @_in_the_folder
    def predict(model, batch):
        return answer(batch)

    return predict


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: ["good"] * len(batch), "predict returned list, not a Prediction"),
        (
            lambda batch: Prediction(["good"], np.full(batch.num_rows, 0.5)),
            "for 5 rows predict gave 1 labels",
        ),
        (
            lambda batch: Prediction(["good"] * 5, np.full((5, 2), 0.5)),
            "scores of shape (5, 2)",
        ),
        (
            lambda batch: Prediction(["good", "good", 3, "bad", "bad"], np.full(5, 0.5)),
            "predict answered 3 for row 2 of its batch",
        ),
    ],
    ids=["92-no-prediction", "92-too-few", "92-two-columns", "93-another-type"],
)
@bad_input(outcome=FAILS)
def test_what_is_no_answer_fails_the_run_with_job_and_row(tmp_path, answer, message):
    harness = ToyHarness(job_with(answering(answer)), tmp_path).given_model(Obedient())
    with pytest.raises(PredictionError) as caught:
        harness.notes(notes(5)).infer()
    assert caught.value.message.startswith("toy: ")
    assert message in caught.value.message
    (run,) = harness.tools.sink.ledger().runs("mood")
    assert run.state is RunState.FAILED


@bad_input(93, outcome=QUARANTINED, says="unknown_label")
def test_93_a_label_that_is_not_declared_costs_its_row(tmp_path):
    def odd(batch: pa.RecordBatch):
        labels = ["odd" if "3" in text else "good" for text in batch.column("text").to_pylist()]
        return Prediction(labels, np.full(batch.num_rows, 0.5))

    harness = ToyHarness(job_with(answering(odd)), tmp_path).given_model(Obedient())
    ended = harness.notes(notes(5)).infer()
    (row,) = harness.quarantined(ended.run.run_id)
    assert (row.key, row.reason) == ("3", "unknown_label")


def outside(model, batch):
    return model.predict(batch)


@bad_input(123, outcome=REFUSED)
@pytest.mark.parametrize(
    ("predict", "hint"),
    [
        (3, "function"),
        (_in_the_folder(lambda batch: batch), "too many positional"),
        (outside, "job's folder"),
        (len, "(model, batch)"),
    ],
    ids=["number", "one argument", "elsewhere", "builtin"],
)
def test_a_wrong_predict_is_refused_at_import(predict, hint):
    with pytest.raises(DeclarationError, match="has a wrong `predict`") as caught:
        job_with(predict)
    assert hint in caught.value.hint
