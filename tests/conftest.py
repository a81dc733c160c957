"""What all tests share."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, settings
from toy import early
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient

from mlbatch.connectors.mlflow import MlflowTracking

pytest_plugins = ["servers"]

# Milliseconds of one example measure the machine; whole tests have a time-out of their own.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def _early():
    """First of all, before anything is opened."""
    early.provide()


@pytest.fixture
def harness(tmp_path):
    """The toy job with the obedient predictor; every test gives it its notes."""
    return ToyHarness(Toy, tmp_path, part_rows=10).given_model(Obedient())


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """MLflow's tables are made once; each test gets a copy."""
    folder = tmp_path_factory.mktemp("mlflow")
    tracking = MlflowTracking(f"sqlite:///{folder}/mlflow.db", folder)
    assert tracking._client.get_experiment_by_name("nobody") is None
    return folder / "mlflow.db"


@pytest.fixture
def mlflow(migrated, tmp_path):
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return MlflowTracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
