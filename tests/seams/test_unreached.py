"""A server that is not where the settings say: every connector tells which setting, and why."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress

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
from mlbatch.devstack.certificates import make_certificates
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


OVER_HTTP = [
    (data_api, PLACE, "AWS_CA_BUNDLE"),
    (s3, PLACE, "AWS_CA_BUNDLE"),
    (queuery, "warehouse.endpoint", "SSL_CERT_FILE"),
    (mlflow, "tracking.uri", "REQUESTS_CA_BUNDLE"),
]


@pytest.mark.parametrize(("connector", "setting", "trust"), OVER_HTTP, ids=named)
def test_a_server_without_tls_is_told_with_its_setting(connector, setting, trust):
    with answering() as port:
        error = refused(connector, "127.0.0.1", port, "https")
    assert type(error) is SettingsError
    assert f"look at {setting}" in error.hint
    assert "speaks TLS" in error.hint
    assert trust in error.hint


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Of another host, and of another authority."""
    return make_certificates(tmp_path_factory.mktemp("elsewhere"), "elsewhere.invalid")


@pytest.mark.parametrize(("connector", "setting", "trust"), OVER_HTTP, ids=named)
@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_certificate_that_does_not_verify_is_a_matter_of_settings(
    monkeypatch, certificates, elsewhere, connector, setting, trust, wrong
):
    monkeypatch.setenv(trust, str(elsewhere.ca))
    shown = certificates if wrong == "authority" else elsewhere
    with answering(shown) as port:
        error = refused(connector, "127.0.0.1", port, "https")
    assert type(error) is SettingsError
    assert f"look at {setting}" in error.hint
    assert "at the host that the certificate names, and at who signed it" in error.hint
    assert f"{trust} may name a file" in error.hint


@pytest.mark.parametrize(("connector", "_", "trust"), OVER_HTTP, ids=named)
def test_the_variable_of_the_hint_makes_a_certificate_trusted(
    monkeypatch, certificates, connector, _, trust
):
    monkeypatch.setenv(trust, str(certificates.ca))
    with answering(certificates) as port:
        error = refused(connector, "127.0.0.1", port, "https")
    # Whatever this server answers over TLS, it is no API.
    assert trust not in (error.hint or "")
    assert "certificate" not in error.message


def test_who_listens_and_never_speaks_is_not_waited_for_as_long_as_for_a_statement(monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.mysql.address.ANSWER_SECONDS", 600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(mysql, *silent.getsockname(), "")
    assert type(error) is TemporaryError
    assert "it is connected to, and timed out after 1 s of silence" in error.message
    assert "look at sink.host and sink.port" in error.hint


def test_what_is_no_redshift_is_not_taken_for_a_matter_of_certificates():
    with answering() as port:
        error = refused(wire, "127.0.0.1", port)
    assert type(error) is SettingsError
    assert "look whether warehouse.host and warehouse.port name a Redshift" in error.hint


def test_the_reason_is_told_and_not_a_screenful(unused_tcp_port):
    error = refused(mlflow, "127.0.0.1", unused_tcp_port)
    assert error.message.endswith("does not answer: connection refused")
    error = refused(wire, "nowhere.invalid", unused_tcp_port)
    assert error.message.endswith("communication error: no host of that name is known")


@contextmanager
def answering(certificates=None):
    """A server that answers HTTP to whatever is said; over TLS where it has ``certificates``."""
    tls = None
    if certificates is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates.certificate, certificates.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, tls), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer(server, tls):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        # Whoever does not like the certificate hangs up in the middle of its greeting.
        with connection, suppress(OSError):
            told = tls.wrap_socket(connection, server_side=True) if tls else connection
            told.recv(4_096)
            told.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            told.close()
