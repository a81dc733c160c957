"""What all tests share."""

from __future__ import annotations

import hypothesis
import pytest
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient

pytest_plugins = ["servers"]

# How long one example takes tells of the machine's other work, not of ours.
hypothesis.settings.register_profile("mlbatch", deadline=None)
hypothesis.settings.load_profile("mlbatch")


@pytest.fixture
def harness(tmp_path):
    """The toy job with the obedient predictor; every test gives it its notes."""
    return ToyHarness(Toy, tmp_path, part_rows=10).given_model(Obedient())
