"""The laws hold for a good job and are broken by bad ones."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from bad_inputs import UNLAWFUL, bad_input
from toy.harness import ToyHarness, note
from toy.job import Toy
from toy.model import Obedient

from mlbatch import checks
from mlbatch.checks import LawBroken
from mlbatch.model import Prediction

TEXTS = ["good", "bad", "good x", "sad"]


@pytest.fixture
def harness(tmp_path):
    made = ToyHarness(Toy, tmp_path).given_model(Obedient())
    return made.notes([note(n, text) for n, text in enumerate(TEXTS)])


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_a_good_job_obeys(law, harness):
    law(harness)


class Moody:
    """Answers by how often it was asked, by its batch, or with nonsense."""

    def __init__(self, how):
        self.how, self.asked = how, count()

    def predict(self, batch):
        rows, turn = batch.num_rows, next(self.asked)
        score = {"turn": turn / 100, "batch": rows / 1_000, "nonsense": 7.0}[self.how]
        return Prediction(["good"] * rows, np.full(rows, score))


@bad_input(96, outcome=UNLAWFUL)
@pytest.mark.parametrize(
    ("how", "law"),
    [
        ("turn", checks.check_running_twice_changes_nothing),
        ("batch", checks.check_batches_do_not_matter),
        ("nonsense", checks.check_any_text_is_answered),
    ],
)
def test_a_bad_job_is_caught(harness, how, law):
    with pytest.raises(LawBroken):
        law(harness.given_model(Moody(how)))


def test_a_job_without_a_model_cannot_be_checked(tmp_path):
    with pytest.raises(LawBroken, match="no champion"):
        checks.check_batches_do_not_matter(ToyHarness(Toy, tmp_path))
