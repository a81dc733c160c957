"""What the tracking does when connections misbehave."""

from __future__ import annotations

import pytest
from fault_proxy import BLACK_HOLE, RESET, FaultProxy
from faulty import fails, serving

from mlbatch.connectors.mlflow import MlflowTracking
from mlbatch.devstack.redshift.http_face import HttpFace, Reply
from mlbatch.errors import (
    TemporaryError,
)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize("rule", [RESET, BLACK_HOLE], ids=str)
def test_a_registry_whose_connections_fail_is_temporary(tmp_path, monkeypatch, rule):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with FaultProxy("127.0.0.1", 9) as proxy:
        proxy.rule = rule
        with fails(TemporaryError, "MLflow at"):
            MlflowTracking(f"http://127.0.0.1:{proxy.port}", tmp_path).resolve("toy")


def test_a_registry_that_answers_503_is_temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    busy = HttpFace(lambda _: Reply(503, b"busy"), "127.0.0.1", 0)
    with serving(busy) as face, fails(TemporaryError, "MLflow at"):
        MlflowTracking(face.url, tmp_path).resolve("toy")
