"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient

pytest_plugins = ["servers"]

# Milliseconds of one example measure the machine; whole tests have a time-out of their own.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture
def harness(tmp_path):
    """The toy job with the obedient predictor; every test gives it its notes."""
    return ToyHarness(Toy, tmp_path, part_rows=10).given_model(Obedient())
