"""What all tests share."""

from __future__ import annotations

import pytest
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient

pytest_plugins = ["servers"]


@pytest.fixture
def harness(tmp_path):
    """The toy job with the obedient predictor; every test gives it its notes."""
    return ToyHarness(Toy, tmp_path, part_rows=10).given_model(Obedient())
