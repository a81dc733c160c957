"""A server that is not where the settings say: every connector tells which setting, and why."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.mlflow import MlflowTracking
from mlbatch.connectors.mysql.address import MysqlAddress
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.queuery import QueueryWarehouse
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.connectors.s3 import S3Storage
from mlbatch.errors import MlbatchError, SettingsError, TemporaryError

pytestmark = pytest.mark.usefixtures("impatient")
SECRET = FixedPassword("sesame")
PLACE = "the region in the settings, or the endpoint"


def mysql(host, port, _):
    MysqlSink(MysqlAddress(host, port, "ml", "me", SECRET)).about()


def wire(host, port, _):
    Wire(host, port, "ml", "me", SECRET).run(["SELECT 1"])


def data_api(host, port, scheme):
    access = AwsAccess("us-east-1", f"{scheme}://{host}:{port}", "key", "secret")
    DataApi("ml", cluster="c", user="me", access=access).run(["SELECT 1"])


def s3(host, port, scheme):
    access = AwsAccess("us-east-1", f"{scheme}://{host}:{port}", "key", "secret")
    S3Storage("bucket", access=access).about()


def queuery(host, port, scheme):
    QueueryWarehouse(f"{scheme}://{host}:{port}", "token", "secret", None).about()


def mlflow(host, port, scheme):
    MlflowTracking(f"{scheme}://{host}:{port}", None).about()


CONNECTORS = [
    (mysql, "sink.host and sink.port"),
    (wire, "warehouse.host and warehouse.port"),
    (data_api, PLACE),
    (s3, PLACE),
    (queuery, "warehouse.endpoint"),
    (mlflow, "tracking.uri"),
]


def named(value):
    return getattr(value, "__name__", value)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def refused(connector, host, port, scheme="http"):
    with pytest.raises(MlbatchError) as caught:
        connector(host, port, scheme)
    return caught.value


@pytest.mark.parametrize(("connector", "setting"), CONNECTORS, ids=named)
def test_a_wrong_port_is_told_with_its_setting(unused_tcp_port, connector, setting):
    error = refused(connector, "127.0.0.1", unused_tcp_port)
    assert type(error) is TemporaryError
    assert f":{unused_tcp_port}" in error.message or connector is data_api
    assert f"nothing listens there: look at {setting}" in error.hint
    assert "again" in error.hint


@pytest.mark.parametrize(("connector", "setting"), CONNECTORS, ids=named)
def test_an_unknown_name_is_told_with_its_setting(connector, setting):
    error = refused(connector, "nowhere.invalid", 5439)
    assert type(error) is TemporaryError
    assert f"look at {setting}" in error.hint
    assert "DNS" in error.hint


@pytest.mark.parametrize(
    ("connector", "setting"),
    [(data_api, PLACE), (s3, PLACE), (queuery, "warehouse.endpoint"), (mlflow, "tracking.uri")],
    ids=named,
)
def test_a_server_without_tls_is_told_with_its_setting(connector, setting):
    with without_tls() as port:
        error = refused(connector, "127.0.0.1", port, "https")
    assert f"look at {setting}" in error.hint
    assert "speaks TLS" in error.hint


def test_what_is_no_redshift_is_not_taken_for_a_matter_of_certificates():
    with without_tls() as port:
        error = refused(wire, "127.0.0.1", port)
    assert type(error) is SettingsError
    assert "look whether warehouse.host and warehouse.port name a Redshift" in error.hint


def test_the_reason_is_told_and_not_a_screenful(unused_tcp_port):
    error = refused(mlflow, "127.0.0.1", unused_tcp_port)
    assert error.message.endswith("does not answer: connection refused")
    error = refused(wire, "nowhere.invalid", unused_tcp_port)
    assert error.message.endswith("communication error: no host of that name is known")


@contextmanager
def without_tls():
    """A server that answers HTTP to whatever is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer(server):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(4_096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
