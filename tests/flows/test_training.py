"""Training on the toy job, from labelled rows to a promoted model that infers."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from functools import partial

import numpy as np
import pytest
from bad_inputs import ACCEPTED, REFUSED, bad_input
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from toy.harness import ToyHarness, note
from toy.job import Toy
from toy.things import job_of, things_of

from mlbatch.doctor import examine
from mlbatch.engine import WorkerDied
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import (
    DeclarationError,
    ExitCode,
    GateRefused,
    ModelIncompatible,
    ModelTampered,
    RunFailed,
    UsageError,
)
from mlbatch.gates import Gate, judge
from mlbatch.job import Training, reading_inputs_only
from mlbatch.rehearsal import invented
from mlbatch.saved_model import _load_once as load_once
from mlbatch.testing import FolderTracking, JobHarness
from mlbatch.text import words
from mlbatch.training import train


@pytest.fixture
def taught(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=64)
    rows = [note(n, f"{'good fine' if n % 2 else 'bad sad'} {n}", minutes=n) for n in range(200)]
    harness.notes(rows)
    labels = [{"note_id": n, "label": "good" if n % 2 else "bad"} for n in range(200)]
    return harness.given("moods", labels, key="note_id")


def test_a_model_is_trained_promoted_and_used(taught):
    trained = taught.train()
    assert trained.promoted
    assert trained.version.version == 1
    assert trained.rows == 200
    assert trained.result.evaluation.f1_macro > 0.9
    trained.require_promotion("toy")
    ended = taught.infer()
    labels = {row["note_id"]: row["label"] for row in taught.rows()}
    right = sum(labels[n] == ("good" if n % 2 else "bad") for n in range(200))
    assert right > 190
    assert ended.run.new.model.version == 1


def test_a_second_training_makes_a_second_version(taught):
    taught.train()
    assert taught.train().version.version == 2
    assert taught.infer().run.new.model.version == 2
    tools = taught.tools
    assert tools.tracking.resolve("toy", "1").version == 1
    assert tools.tracking.resolve("toy", "7") is None


def test_a_model_is_fetched_once_and_again_where_the_copy_is_not_the_registered_one(
    taught, monkeypatch
):
    fetched = []
    fetch = FolderTracking.fetch

    def counted(tracking, version, target):
        fetched.append(version.version)
        return fetch(tracking, version, target)

    monkeypatch.setattr(FolderTracking, "fetch", counted)
    taught.train()
    taught.infer(full=True)
    copy = taught.tools.models / "toy" / "1"
    load_once.cache_clear()
    taught.infer(full=True)
    assert fetched == [1]
    weights = (copy / "coef.npy").read_bytes()
    # Never into a file that may be mapped.
    (copy / "coef.npy").unlink()
    (copy / "coef.npy").write_bytes(weights[:-1] + b"x")
    load_once.cache_clear()
    taught.infer(full=True)
    assert fetched == [1, 1]
    registered = taught.tools.tracking.root / "toy" / "1"
    assert (copy / "coef.npy").read_bytes() == weights
    (copy / "model.skops").unlink()
    (registered / "model.skops").write_bytes(b"another")
    load_once.cache_clear()
    with pytest.raises(ModelTampered, match="not the registered one"):
        taught.infer(full=True)


def test_a_refused_model_does_not_serve(taught, monkeypatch):
    taught.train()
    monkeypatch.setattr(Toy, "gates", (Gate("f1_macro", at_least=2.0),))
    trained = taught.train()
    assert not trained.promoted
    with pytest.raises(GateRefused, match="version 2 was not promoted: f1_macro"):
        trained.require_promotion("toy")
    assert taught.infer().run.new.model.version == 1


@bad_input(89, outcome=ACCEPTED)
def test_89_a_run_keeps_its_model_when_the_alias_moves(taught):
    taught.train()
    first = taught.infer()
    taught.train()
    assert first.run.new.model.version == 1
    assert {row["model_version"] for row in taught.rows()} == {1}


def test_rows_that_cannot_be_learnt_from_are_left_out_and_counted(taught):
    odd = [note(300, "good", minutes=1), note(301, None, minutes=1), note(302, "x" * 10_001)]
    labels = [{"note_id": 300, "label": "odd"}, {"note_id": 301, "label": "good"}]
    labels.append({"note_id": 302, "label": "good"})
    taught.notes(odd).given("moods", labels, key="note_id")
    trained = taught.train()
    assert trained.left_out == {"unknown_label": 1, "missing_value": 1, "too_long": 1}


def test_training_takes_the_newest_row_of_a_key_as_inference_does(taught):
    older = [note(n, "good, once", minutes=n - 1_000) for n in range(50)]
    gone = [note(400, "good", minutes=1), note(400, "good", minutes=2)]
    gone[1]["deleted_at"] = gone[1]["updated_at"]
    taught.notes([*older, *gone], key=("id", "updated_at"))
    taught.given("moods", [{"note_id": 400, "label": "good"}], key="note_id")
    trained = taught.train()
    # The older row of an entity that was deleted since does not come back either.
    assert trained.rows == 200
    assert "51 rows repeat a key (note_id); the newest row of each key is taken" in taught.notices


def test_a_key_is_learnt_with_one_label_or_not_at_all(taught):
    said = [(1, "good"), (1, "good"), (2, "bad"), (2, "good"), (4, "bad"), (4, "good")]
    taught.given("moods", [{"note_id": n, "label": told} for n, told in said], key="note_id")
    assert taught.train().rows == 198
    assert "Moods gives 2 keys more than one label, as note_id 2; left out" in taught.notices


@pytest.mark.parametrize("split_by", ["place", ("place", "thing"), ("thing", "place")])
def test_rows_without_a_split_key_are_left_out_and_counted(tmp_path, split_by):
    job = job_of(int, ("thing",))
    job.training = Training(split_by=split_by)
    harness = JobHarness(job, tmp_path)
    rows = [
        {
            "thing": n,
            "place": None if n < 3 else f"place {n // 2}",
            "text": f"{'good fine' if n % 3 else 'bad sad'} {n}",
            "label": "good" if n % 3 else "bad",
            "updated_at": datetime(2026, 1, 1),
        }
        for n in range(200)
    ]
    harness.given("things", rows, key="thing", schema=things_of(int))
    assert harness.train().left_out == {"no_split_key": 3}


def model_of(taught, workers):
    """The weights that training with so many workers gives, and what it told on the way."""
    told = []
    engine = LocalEngine(workers)
    tools = replace(taught.tools, engine=engine, notify=lambda stage, line: told.append(line))
    trained = train(Toy, tools)
    return trained.result.model.pipeline[-1].coef_.tobytes(), told


def test_workers_and_cache_do_not_change_what_is_learnt(taught, monkeypatch):
    weights, told = model_of(taught, 1)
    assert any("4 of 4 parts kept for the epochs" in line for line in told)
    assert model_of(taught, 2)[0] == weights
    monkeypatch.setattr(Toy, "training", Training(cache_megabytes=0))
    again, told = model_of(taught, 1)
    assert any("0 of 4 parts kept for the epochs" in line for line in told)
    assert again == weights


def test_extracted_features_do_not_stay_behind(taught):
    taught.train()
    left = [path.name for path in taught.tools.models.rglob("*") if "features" in path.name]
    assert left == []


def test_a_worker_that_dies_at_extracting_is_told_with_its_part(taught, monkeypatch):
    def die(_engine, _work, tasks, on_death, **_):
        yield on_death(WorkerDied(tasks[2], -9))

    monkeypatch.setattr(LocalEngine, "run", die)
    with pytest.raises(RunFailed, match="died at part 2"):
        taught.train()


def _model_of(column):
    return make_pipeline(words(column, n_features=2**10), SGDClassifier(loss="log_loss"))


def test_a_model_that_reads_what_is_no_input_is_told_with_job_column_and_inputs(
    taught, monkeypatch
):
    monkeypatch.setattr(Toy, "model", partial(_model_of, "txet"))
    with pytest.raises(DeclarationError) as caught:
        taught.train()
    assert caught.value.message == (
        "toy: its code reads the column 'txet', which is not one of its inputs"
    )
    assert caught.value.hint == "did you mean 'text'? `inputs` of the job names: text"
    assert caught.value.location.endswith(f"toy/job.py:{Toy.place.line}")


def _texts(batch):
    return batch.column("text").to_pylist()


def _lengths(batch):
    return np.array([[len(text)] for text in _texts(batch)], float)


def _refuses_what_is_invented(batch):
    if "good" not in " ".join(_texts(batch)):
        message = "unheard of"
        raise ValueError(message)
    return _texts(batch)


class Unweighted(SGDClassifier):
    """As PassiveAggressiveClassifier: all labels count as often as they occur."""

    def partial_fit(self, features, labels, classes=None):
        return super().partial_fit(features, labels, classes)


LEARNER = SGDClassifier(loss="log_loss")
UNTEACHABLE = [
    ((FunctionTransformer(_lengths), StandardScaler(), LEARNER), "the step 'standardscaler'"),
    (
        (make_column_transformer((StandardScaler(), ["text"])), LEARNER),
        "a ColumnTransformer, would",
    ),
    ((FunctionTransformer(_texts), TfidfVectorizer(), LEARNER), "the step 'tfidfvectorizer'"),
    ((make_union(words("text"), TfidfVectorizer()), LEARNER), "the step 'featureunion'"),
    ((words("text"), LogisticRegression()), "a LogisticRegression, has no partial_fit"),
    (
        (words("text"), Unweighted()),
        "cannot be taught with weights and all labels: its partial_fit got an unexpected keyword "
        "argument 'sample_weight'",
    ),
    ((LEARNER,), "its model is a Pipeline that makes no features"),
]


@pytest.mark.parametrize(("steps", "message"), UNTEACHABLE)
def test_a_model_that_cannot_learn_is_told_before_anything_is_unloaded(
    taught, monkeypatch, steps, message
):
    monkeypatch.setattr(Toy, "model", lambda: make_pipeline(*map(clone, steps)))
    with pytest.raises(DeclarationError) as caught:
        taught.train()
    assert caught.value.message.startswith("toy: ")
    assert message in caught.value.message
    assert "keep no state: words()" in caught.value.hint or "partial_fit" in caught.value.hint
    assert caught.value.location.endswith(f"toy/job.py:{Toy.place.line}")
    assert not list(taught.tools.storage.root.rglob("*.parquet"))
    (told,) = (finding for finding in examine(taught.tools, [Toy]) if finding.name == "job toy")
    assert (told.exit_code, told.detail) == (ExitCode.USAGE, str(caught.value))


def test_a_model_that_cannot_be_built_is_told_with_its_job(taught, monkeypatch):
    monkeypatch.setattr(Toy, "model", lambda: words("text", n_feature=1))
    with pytest.raises(DeclarationError, match="toy: its model cannot be built: TypeError"):
        taught.train()


def test_what_refuses_invented_rows_alone_is_trained(taught, monkeypatch):
    steps = (FunctionTransformer(_refuses_what_is_invented), HashingVectorizer(), LEARNER)
    monkeypatch.setattr(Toy, "model", lambda: make_pipeline(*map(clone, steps)))
    trusted = (f"{__name__}._refuses_what_is_invented",)
    monkeypatch.setattr(Toy, "trusted_types", trusted)
    assert taught.train().rows == 200


@pytest.mark.parametrize("kind", [bool, int, float, str, date, datetime])
def test_rows_are_invented_of_every_type(kind):
    job = job_of(kind, ("place",))
    job.inputs = ("thing", "text")
    assert [column.null_count for column in invented(job).columns] == [0, 0]


@pytest.mark.parametrize("error", [KeyError("good"), KeyError(), KeyError(3)])
def test_another_key_that_is_missing_is_left_as_it_is(error):
    with pytest.raises(KeyError) as caught, reading_inputs_only(Toy):
        raise error
    assert caught.value is error


def test_no_labelled_rows(tmp_path):
    harness = ToyHarness(Toy, tmp_path).notes([note(1, "good")])
    harness.given("moods", [{"note_id": 99, "label": "good"}], key="note_id")
    with pytest.raises(UsageError, match="no labelled rows"):
        harness.train()


def test_inference_without_a_model_says_what_to_do(tmp_path):
    harness = ToyHarness(Toy, tmp_path).notes([note(1, "good")])
    with pytest.raises(UsageError) as caught:
        harness.infer()
    assert "mlbatch run toy --mode train" in caught.value.hint


@bad_input(60, outcome=REFUSED, says="is declared int64, the query gives string")
def test_60_a_column_of_another_type_is_refused_before_anything_runs(tmp_path):
    harness = ToyHarness(Toy, tmp_path)
    harness.given("notes", [{"id": "a", "text": "x", "updated_at": None, "deleted_at": None}])
    harness.given("moods", [{"note_id": 1, "label": "good"}], key="note_id")
    with pytest.raises(UsageError, match="note_id is declared int64, the query gives string"):
        harness.train()


def test_86_a_model_of_another_scikit_learn_is_refused_and_no_run_begins(taught, monkeypatch):
    taught.train()
    monkeypatch.setattr("sklearn.__version__", "0.1")
    with pytest.raises(ModelIncompatible):
        taught.infer()
    assert taught.tools.sink.ledger().runs("mood") == ()


def test_gates():
    gates = (
        Gate("a", at_least=0.5),
        Gate("a", not_worse_than_champion_by=0.1),
        Gate("b", at_least=0),
    )
    verdicts = judge(gates, {"a": 0.6}, {"a": 0.8})
    assert [v.passed for v in verdicts] == [True, False, False]
    assert str(verdicts[1]) == "a 0.600 (at least 0.700): refused"
    assert str(verdicts[2]) == "b not measured (at least 0.000): refused"
    assert str(judge(gates[1:2], {"a": 0.1}, {})[0]) == "a 0.100 (no champion yet): ok"
    for wrong in ({}, {"at_least": 1.0, "not_worse_than_champion_by": 0.1}):
        with pytest.raises(UsageError, match="exactly one condition"):
            Gate("a", **wrong)
