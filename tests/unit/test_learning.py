"""Learning, calibration, evaluation and the saved model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, FAILS, REFUSED, bad_input
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline, make_union
from skops import io as skops_io

from mlbatch.calibration import (
    Sigmoid,
    Temperature,
    choose_threshold,
    expected_calibration_error,
    reliability,
)
from mlbatch.connectors.skops_file import (
    CARD,
    ESTIMATOR,
    WEIGHTS,
    Expectations,
    load_model,
    save_model,
)
from mlbatch.errors import ModelIncompatible, ModelTampered, UsageError
from mlbatch.evaluation import confusion_svg, evaluate
from mlbatch.fitting import LabelledBatch, Plan, fit
from mlbatch.gates import Gate, less_is_better, metric_names
from mlbatch.model import TrainedModel
from mlbatch.text import TRUSTED, characters, words

DISHES = {"soup": ["湯", "汁", "鍋"], "bread": ["粉", "焼き", "窯"], "tea": ["茶", "葉", "香り"]}


def build():
    features = make_union(words("text", n_features=2**10), characters("text", n_features=2**10))
    return make_pipeline(features, SGDClassifier(loss="log_loss", average=True))


def rows(classes, count=300, seed=0):
    random = np.random.default_rng(seed)
    labels = random.choice(list(classes), count)
    texts = [" ".join(random.choice(DISHES[label], 3)) + f" {n}" for n, label in enumerate(labels)]
    return pa.record_batch({"text": texts}), labels, random.random(count)


def batches_of(batch, labels, split, size=50):
    def epoch(_):
        for low in range(0, len(labels), size):
            part = slice(low, low + size)
            features = build()[:-1].transform(batch.slice(low, size))
            yield LabelledBatch(features, labels[part], split[part])

    return epoch


def plan(classes, **more):
    return Plan(classes=classes, inputs=("text",), epochs=2, **more)


@pytest.fixture(scope="module")
def three():
    classes = ("soup", "bread", "tea")
    return fit(build, batches_of(*rows(classes)), plan(classes))


@pytest.fixture(scope="module")
def two():
    batch, labels, split = rows(("soup", "bread"))
    return fit(
        build,
        batches_of(batch, labels == "soup", split),
        plan((False, True), threshold_recall=0.9),
    )


def test_several_classes_are_learnt(three):
    assert three.evaluation.f1_macro > 0.95
    assert three.model.threshold is None
    assert three.rows_taught + three.rows_held_out == 300
    answer = three.model.predict(pa.record_batch({"text": ["汁 鍋 湯", "茶 葉 香り"]}))
    assert answer.labels == ["soup", "tea"]
    assert ((answer.scores > 1 / 3) & (answer.scores <= 1)).all()


def test_two_classes_have_a_threshold(two):
    assert 0 < two.model.threshold < 1
    answer = two.model.predict(pa.record_batch({"text": ["汁 鍋 湯", "粉 窯"]}))
    assert answer.labels == [True, False]
    assert answer.scores[0] > answer.scores[1]


def test_learning_twice_gives_the_same_model():
    classes = ("soup", "bread", "tea")
    first = fit(build, batches_of(*rows(classes), size=50), plan(classes))
    second = fit(build, batches_of(*rows(classes), size=50), plan(classes))
    probe = pa.record_batch({"text": ["汁 湯", "粉", "葉"]})
    assert np.array_equal(first.model.decide(probe), second.model.decide(probe))


def test_held_out_rows_are_never_taught():
    batch, labels, split = rows(("soup", "bread"), count=200)
    secret = np.where(split < 0.2)[0]
    labels = labels.copy()
    labels[secret] = np.where(labels[secret] == "soup", "bread", "soup")
    result = fit(build, batches_of(batch, labels, split), plan(("soup", "bread")))
    assert result.evaluation.accuracy < 0.1
    assert result.rows_held_out == len(secret)


def test_a_label_without_rows_is_refused():
    batch, labels, split = rows(("soup", "bread"), count=100)
    with pytest.raises(UsageError, match="no row of tea to learn from"):
        fit(build, batches_of(batch, labels, split), plan(("soup", "bread", "tea")))
    with pytest.raises(UsageError, match="to be judged on"):
        fit(build, batches_of(batch, labels, split), plan(("soup", "bread"), holdout=0.0))


@settings(max_examples=25)
@given(st.floats(0.3, 3), st.floats(-2, 2))
def test_platt_finds_the_slope(slope, intercept):
    random = np.random.default_rng(0)
    decision = random.normal(0, 2, 20_000)
    positive = random.random(20_000) < 1 / (1 + np.exp(-(slope * decision + intercept)))
    found = Sigmoid.fit(decision, positive)
    assert abs(found.slope - slope) < 0.2
    assert abs(found.intercept - intercept) < 0.2


def test_perfectly_separated_classes_keep_a_finite_slope():
    found = Sigmoid.fit(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert np.isfinite(found.slope)
    assert 0 < found.probabilities(np.array([1.0]))[0, 1] < 1


def test_temperature_softens_boasts():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 3_000)
    decisions = random.normal(0, 1, (3_000, 3))
    decisions[np.arange(3_000), truth] += 1.0
    found = Temperature.fit(decisions * 10, truth)
    assert 0.05 < found.inverse < 0.2
    assert np.allclose(found.probabilities(decisions).sum(axis=1), 1)


def test_thresholds_and_reliability():
    scores = np.array([0.1, 0.2, 0.6, 0.9])
    positive = np.array([False, True, True, True])
    assert choose_threshold(scores, positive, 0.66) == 0.6
    assert choose_threshold(scores, positive, 1.0) == 0.2
    bins = reliability(scores, positive, bins=2)
    assert [b.rows for b in bins] == [2, 2]
    assert expected_calibration_error(bins) == pytest.approx((0.35 * 2 + 0.25 * 2) / 4)


def test_an_evaluation_tells_numbers_a_table_and_a_picture(three):
    metrics = three.evaluation.metrics()
    assert metrics["class_00_f1"] == pytest.approx(three.evaluation.by_class[0].f1)
    assert all(name.isascii() for name in metrics)
    assert "macro F1" in three.evaluation.report()
    svg = three.evaluation.confusion_svg()
    assert svg.count("<rect") == 9
    assert "&lt;b&gt;" in confusion_svg(["<b>"], np.array([[1]]))


@pytest.mark.parametrize("classes", [(False, True), ("a", "b", "c")])
def test_gates_may_name_exactly_what_an_evaluation_measures(classes):
    answers = [*classes, classes[0]]
    chances = np.full((len(answers), len(classes)), 1 / len(classes))
    found = evaluate(classes, answers, answers, chances)
    assert metric_names(len(classes)) == tuple(found.metrics())


@pytest.mark.parametrize("classes", [(False, True), ("a", "b", "c")])
def test_a_worse_model_is_worse_in_each_metric_s_own_direction(classes):
    truths = [*classes, *classes, classes[0]]
    places = np.array([classes.index(truth) for truth in truths])
    # Each class has its misses, and they are told with confidence.
    told = np.where(np.arange(len(places)) < len(classes), (places + 1) % len(classes), places)
    sure = np.eye(len(classes)) * 0.9 + 0.1 / len(classes)
    good = evaluate(classes, truths, truths, sure[places]).metrics()
    bad = evaluate(classes, truths, [classes[n] for n in told], sure[told]).metrics()
    for metric in set(good) - {"rows_judged"}:
        assert (bad[metric] > good[metric]) == less_is_better(metric), metric
        gate = Gate(metric, not_worse_than_champion_by=0.01)
        assert gate.check(good, bad).passed
        assert not gate.check(bad, good).passed, metric


def test_tables_are_aligned_for_japanese():
    found = evaluate(("麺類", "x"), ["麺類", "x"], ["麺類", "x"], np.array([[1.0, 0], [0, 1.0]]))
    assert found.report().splitlines()[1].startswith("麺類       1.000")


def expected(model, **more):
    values = {
        "classes": model.classes, "inputs": model.inputs, "dictionary": "d", "trusted": TRUSTED,
    }  # fmt: skip
    return Expectations(**(values | more))


@pytest.mark.parametrize("which", ["two", "three"])
def test_a_saved_model_answers_bit_by_bit_alike(which, request, tmp_path):
    model = request.getfixturevalue(which).model
    digest = save_model(model, tmp_path, dictionary="d")
    again = load_model(tmp_path, digest=digest, expected=expected(model))
    probe, _, _ = rows(("soup", "bread", "tea"), count=50, seed=9)
    first, second = model.predict(probe), again.predict(probe)
    assert first.labels == second.labels
    assert np.array_equal(first.scores, second.scores)
    assert again.threshold == model.threshold
    assert again.pipeline[-1].coef_.flags.f_contiguous
    assert isinstance(again.pipeline[-1].coef_.base, np.memmap)
    assert not again.pipeline[-1].coef_.flags.writeable
    assert model.pipeline[-1].coef_.flags.writeable


def test_a_model_of_the_first_format_is_read(three, tmp_path):
    first, second = three.model, tmp_path / "second"
    save_model(first, second, dictionary="d")
    skops_io.dump(first.pipeline, tmp_path / ESTIMATOR)
    card = json.loads((second / CARD).read_text()) | {"format": 1, "files": {ESTIMATOR: ""}}
    (tmp_path / CARD).write_text(json.dumps(card))
    again = load_model(tmp_path, digest=redigest(tmp_path), expected=expected(first))
    assert np.array_equal(again.pipeline[-1].coef_, first.pipeline[-1].coef_)
    assert again.pipeline[-1].coef_.flags.f_contiguous


@pytest.fixture
def saved(three, tmp_path):
    return save_model(three.model, tmp_path, dictionary="d"), tmp_path, three.model


@bad_input(85, outcome=FAILS, says="not the registered one")
@pytest.mark.parametrize("name", [CARD, ESTIMATOR, WEIGHTS])
def test_85_a_changed_file_is_refused(saved, name):
    digest, folder, model = saved
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelTampered, match="not the registered one"):
        load_model(folder, digest=digest, expected=expected(model))


@bad_input(85, outcome=FAILS)
def test_85_a_swapped_or_linked_file_is_refused(saved):
    digest, folder, model = saved
    (folder / ESTIMATOR).rename(folder / "elsewhere")
    with pytest.raises(ModelTampered):
        load_model(folder, digest=digest, expected=expected(model))
    (folder / ESTIMATOR).symlink_to(folder / "elsewhere")
    with pytest.raises(ModelTampered):
        load_model(folder, digest=digest, expected=expected(model))


@bad_input(80, 86, 94, outcome=REFUSED, says="the model was made with")
def test_86_80_94_a_model_of_other_making_is_refused(saved, monkeypatch):
    digest, folder, model = saved
    for change in (
        {"dictionary": "other"},
        {"inputs": ("x",)},
        {"classes": ("tea", "soup", "bread")},
    ):
        with pytest.raises(ModelIncompatible, match="the model was made with"):
            load_model(folder, digest=digest, expected=expected(model, **change))
    monkeypatch.setattr("sklearn.__version__", "0.1")
    with pytest.raises(ModelIncompatible, match="scikit-learn"):
        load_model(folder, digest=digest, expected=expected(model))


def redigest(folder, name=ESTIMATOR):
    import hashlib

    card = json.loads((folder / CARD).read_text())
    card["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / CARD).write_text(json.dumps(card))
    return hashlib.sha256((folder / CARD).read_bytes()).hexdigest()


@bad_input(87, outcome=FAILS, says="not trusted")
def test_87_a_type_that_is_not_trusted_is_refused(saved):
    _, folder, model = saved
    forest = RandomForestClassifier(2).fit([[0.0], [1.0]], [0, 1])
    skops_io.dump(make_pipeline(forest), folder / ESTIMATOR)
    digest = redigest(folder)
    with pytest.raises(ModelTampered, match="not trusted"):
        load_model(folder, digest=digest, expected=expected(model, trusted=()))


class Evil:
    def __reduce__(self):
        return (Path("marker").touch, ())


@bad_input(88, outcome=FAILS, says="has no")
def test_88_a_pickle_is_never_opened(saved, monkeypatch):
    _, folder, model = saved
    monkeypatch.chdir(folder)
    (folder / ESTIMATOR).write_bytes(pickle.dumps(Evil()))
    digest = redigest(folder)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever a zip reader says
        load_model(folder, digest=digest, expected=expected(model))
    assert not (folder / "marker").exists()
    (folder / CARD).unlink()
    with pytest.raises(ModelTampered, match="has no"):
        load_model(folder, digest=digest, expected=expected(model))


def test_another_format_is_refused(saved):
    _, folder, model = saved
    card = json.loads((folder / CARD).read_text()) | {"format": 99}
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelIncompatible, match="format 99"):
        load_model(folder, digest=redigest(folder), expected=expected(model))


@bad_input(94, outcome=ACCEPTED)
def test_94_the_order_of_classes_is_the_declared_one(three):
    model = three.model
    turned = TrainedModel(
        model.pipeline, ("tea", "soup", "bread"), model.calibration, None, ("text",)
    )
    probe = pa.record_batch({"text": ["汁 鍋 湯"]})
    assert turned.predict(probe).labels == model.predict(probe).labels
    with pytest.raises(ModelIncompatible, match="the job declares"):
        TrainedModel(model.pipeline, ("tea", "soup"), model.calibration, None, ("text",))


@bad_input(95, outcome=ACCEPTED)
def test_95_the_input_is_not_changed(three):
    probe = pa.record_batch({"text": ["汁 鍋", "ﾌﾗｲﾊﾟﾝ"]})
    before = probe.to_pylist()
    three.model.predict(probe)
    assert probe.to_pylist() == before


@bad_input(96, outcome=ACCEPTED)
def test_96_the_same_rows_get_the_same_answer_in_any_batch(three):
    probe, _, _ = rows(("soup", "bread", "tea"), count=64, seed=3)
    whole = three.model.predict(probe)
    single = [three.model.predict(probe.slice(n, 1)) for n in range(64)]
    assert whole.labels == [answer.labels[0] for answer in single]
    assert np.array_equal(whole.scores, np.concatenate([answer.scores for answer in single]))
