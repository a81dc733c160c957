"""Settings in, connectors out: each setting arrives where it belongs, and nothing is opened."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from mlbatch.connectors.aws import AwsAccess, ManagedSecret, RdsToken
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.queuery import QueueryWarehouse
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.connectors.s3 import S3Storage
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import SettingsError
from mlbatch.settings import load_settings
from mlbatch.wiring import ID_ALPHABET, connect, new_epoch, new_id

PAGE = Path(__file__).parents[2] / "docs/settings.md"
S3 = "storage = { kind = 's3', bucket = 'b', prefix = '/staging/', region = 'eu-west-1' }\n"


@pytest.fixture
def wired(tmp_path):
    """The tools of a profile whose lines a test gives."""

    def make(*lines, profile="default"):
        text = "\n".join([f"[profiles.{profile}]", *lines])
        (tmp_path / "mlbatch.toml").write_text(text, encoding="utf-8")
        return connect(load_settings(tmp_path, profile), lambda *_: None)

    return make


def redshift(more):
    return f"warehouse = {{ kind = 'redshift', database = 'dwh', {more} }}"


def test_an_empty_file_is_all_embedded(wired, tmp_path):
    tools = wired()
    assert isinstance(tools.warehouse, DuckdbWarehouse)
    assert isinstance(tools.storage, FolderStorage)
    assert isinstance(tools.sink, SqliteSink)
    assert tools.models == tmp_path / ".mlbatch/models"
    assert tools.limits.flag_file is None
    assert not (tmp_path / ".mlbatch").exists()


def test_the_production_profile_of_the_page(wired, tmp_path):
    block = re.search(
        r"\[profiles\.production\]\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    tools = wired(block[1], profile="production")
    warehouse = tools.warehouse
    assert isinstance(warehouse, RedshiftWarehouse)
    assert str(warehouse.transport) == "the Data API of analytics/dwh"
    assert warehouse.options.iam_role.endswith("role/mlbatch-unload")
    assert tools.storage.prefix == "s3://example-mlbatch/staging/"
    assert tools.storage.owner == "123456789012"
    address = tools.sink.address
    assert (address.port, address.user, address.verify_tls) == (3306, "mlbatch_writer", True)
    assert address.ca == tmp_path / "rds-bundle.pem"
    assert isinstance(address.password, RdsToken)
    assert tools.tracking.uri == "https://mlflow.example.com"


def test_the_data_api_of_a_workgroup(wired):
    settings = "workgroup = 'w', user = 'me', secret_arn = 'arn', query_group = 'ml', statement_seconds = 9"
    transport = wired(S3, redshift(settings)).warehouse.transport
    assert isinstance(transport, DataApi)
    assert transport._target() == {"Database": "dwh", "WorkgroupName": "w", "SecretArn": "arn"}
    assert (transport.query_group, transport.statement_seconds) == ("ml", 9)
    assert transport.access == AwsAccess()


def test_a_stand_in_of_the_data_api_gets_the_storage_s_keys(wired):
    keys = "endpoint = 'http://127.0.0.1:9', access_key = 'k', secret_key = 's'"
    storage = f"storage = {{ kind = 's3', bucket = 'b', {keys} }}"
    access = wired(
        storage, redshift("cluster = 'c', endpoint = 'http://127.0.0.1:8'")
    ).warehouse.transport.access
    assert (access.endpoint, access.access_key, access.secret_key) == (
        "http://127.0.0.1:8",
        "k",
        "s",
    )


def test_the_wire_with_a_password_or_with_iam(wired, tmp_path):
    base = "transport = 'wire', host = 'dwh.example.com', cluster = 'c', user = 'me', ca = 'ca.pem'"
    transport = wired(S3, redshift(f"{base}, password = 'hunter2'")).warehouse.transport
    assert isinstance(transport, Wire)
    assert str(transport) == "Redshift at dwh.example.com:5439/dwh"
    assert (transport.verify_tls, transport.ca) == (True, tmp_path / "ca.pem")
    assert transport.password() == "hunter2"
    assert wired(S3, redshift(base)).warehouse.transport.password is None


@pytest.mark.parametrize(
    ("cluster", "told"),
    [("", "eu-west-1"), ("region = 'us-east-1'", "eu-west-1"), ("region = 'eu-west-1'", None)],
)
def test_unload_is_told_the_region_of_a_bucket_elsewhere(wired, cluster, told):
    options = wired(S3, redshift(f"cluster = 'c', {cluster}".rstrip(", "))).warehouse.options
    assert options.region == told


def test_queuery_reads_into_either_storage(wired):
    warehouse = "warehouse = { kind = 'queuery', endpoint = 'https://q', token = 't', token_secret = 'hunter2', query_seconds = 3 }"
    for storage, kind in (("", FolderStorage), (S3, S3Storage)):
        tools = wired(warehouse, storage)
        assert isinstance(tools.warehouse, QueueryWarehouse)
        assert isinstance(tools.warehouse.storage, kind)
        assert (tools.warehouse.token_secret, tools.warehouse.query_seconds) == ("hunter2", 3)


@pytest.mark.parametrize(
    ("warehouse", "storage", "message", "hint"),
    [
        ("", S3, "the embedded warehouse unloads into a folder", "storage.kind to folder"),
        (redshift("cluster = 'c'"), "", "Redshift unloads into S3", "storage.kind to s3"),
    ],
)
def test_a_warehouse_that_cannot_unload_into_the_storage_is_refused(
    wired, warehouse, storage, message, hint
):
    with pytest.raises(SettingsError, match=message) as caught:
        wired(warehouse, storage)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("password = 'hunter2'", FixedPassword),
        ("secret_arn = 'arn:aws:secretsmanager:eu-west-1:1:secret:s'", ManagedSecret),
        ("region = 'eu-west-1'", RdsToken),
    ],
)
def test_three_ways_to_log_in_to_mysql(wired, given, kind):
    sink = wired(
        f"sink = {{ kind = 'mysql', host = 'db', database = 'ml', user = 'me', {given} }}"
    ).sink
    assert isinstance(sink, MysqlSink)
    assert isinstance(sink.address.password, kind)
    assert str(sink.address) == "db:3306/ml"


def test_passwords_are_never_shown_and_travel_to_workers(wired):
    tools = wired(
        S3,
        redshift("transport = 'wire', host = 'h', password = 'hunter2'"),
        "sink = { kind = 'mysql', host = 'db', database = 'ml', user = 'me', password = 'hunter2' }",
    )
    for tool in (tools.warehouse, tools.sink.address, tools.storage):
        assert "hunter2" not in f"{tool!r} {tool}"
    assert pickle.loads(pickle.dumps(tools.sink.address)).password() == "hunter2"


def test_a_limit_of_the_history_s_length_makes_sessions_ask_for_it(wired):
    sink = "sink = { kind = 'mysql', host = '127.0.0.1', database = 'd', user = 'u', tls = 'off' }"
    assert not wired(sink).sink.tells_history
    assert wired(f"{sink}\nthrottle = {{ history_length = 9 }}").sink.tells_history


def test_limits_come_from_throttle(wired, tmp_path):
    limits = wired(
        "throttle = { lag_seconds = 3, threads_running = 7, flag_file = 'pause' }"
    ).limits
    assert (limits.lag_seconds, limits.threads_running) == (3.0, 7)
    assert limits.flag_file == tmp_path / "pause"


def test_ids_are_read_aloud_without_mistakes_and_epochs_are_positive():
    ids, epochs = {new_id() for _ in range(500)}, {new_epoch() for _ in range(500)}
    assert len(ids) == len(epochs) == 500
    assert set("".join(ids)) <= set(ID_ALPHABET)
    assert not set("lo01") & set(ID_ALPHABET)
    assert all(0 < epoch < 2**63 for epoch in epochs)
