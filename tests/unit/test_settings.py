from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlbatch.errors import SettingsError
from mlbatch.settings import load_settings


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("MLBATCH_PROFILE", "MLBATCH_WORKERS", "MLBATCH_WAREHOUSE__PART_ROWS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlbatch.toml").write_text(
        "[profiles.default]\nworkers = 3\n[profiles.small]\nwarehouse = { part_rows = 7 }\n"
    )
    return tmp_path


def test_an_empty_file_is_a_project(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    settings = load_settings(tmp_path)
    assert settings.workers == len(os.sched_getaffinity(0))
    assert settings.path(settings.sink.path) == tmp_path / ".mlbatch/outputs.db"
    assert settings.path(Path("/x")) == Path("/x")


def test_profiles_and_the_environment(root, monkeypatch):
    assert load_settings(root).workers == 3
    assert load_settings(root, "small").warehouse.part_rows == 7
    monkeypatch.setenv("MLBATCH_PROFILE", "small")
    assert load_settings(root).profile == "small"
    monkeypatch.setenv("MLBATCH_WAREHOUSE__PART_ROWS", "9")
    assert load_settings(root).warehouse.part_rows == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "mlbatch.toml"),
        ("workers = 3", "unknown table or key 'workers'"),
        ("[profiles.default]\nworkers = 0", "workers"),
        ("[profiles.default]\nsink = { kind = 'oracle' }", "sink.kind"),
        ("[profiles.default.sink]\npth = 'x'", "sink.pth"),
    ],
)
def test_wrong_settings_are_named(root, text, message):
    (root / "mlbatch.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(root)
    assert message in caught.value.message


def test_an_unknown_profile_is_refused(root):
    with pytest.raises(SettingsError) as caught:
        load_settings(root, "prod")
    assert caught.value.hint == "it has: default, small"


LOCAL = "kind = 'mysql'\nhost = '127.0.0.1'\ndatabase = 'd'\nuser = 'u'\n"
STORAGE = "[profiles.default.storage]\nkind = 's3'\nbucket = 'b'\n"
QUEUERY = """[profiles.default.warehouse]
kind = 'queuery'
token = 't'
token_secret = 's'
"""
REDSHIFT = "[profiles.default.warehouse]\nkind = 'redshift'\ndatabase = 'd'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles = 3", "profiles is no table"),
        ("[profiles]\ndefault = 3", "default is no table"),
        ("[profiles.default]\nroot = '/'", "root is the folder of mlbatch.toml"),
        ("[profiles.default.sink]\n" + LOCAL + "port = 0", "sink.port"),
        ("[profiles.default.sink]\n" + LOCAL + "port = 65536", "sink.port"),
        ("[profiles.default.sink]\nkind = 'mysql'", "sink.host is required of the kind mysql"),
        ("[profiles.default.storage]\nkind = 's3'", "storage.bucket is required of the kind s3"),
        (
            "[profiles.default.storage]\nkind = 's3'\nbucket = 'b'\naccess_key = 'k'",
            "storage: keys are for stand-ins; on AWS use a role",
        ),
        (REDSHIFT, "warehouse: the transport data_api needs cluster or workgroup"),
        (REDSHIFT + "transport = 'wire'", "warehouse: the transport wire needs host"),
        (REDSHIFT + "cluster = 'c'\npart_megabytes = 4", "warehouse.part_megabytes"),
        (REDSHIFT + "cluster = 'c'\npart_megabytes = 6201", "warehouse.part_megabytes"),
        (REDSHIFT + "cluster = 'c'\nstatement_seconds = 0", "warehouse.statement_seconds"),
        (
            "[profiles.default.warehouse]\nkind = 'queuery'",
            "warehouse.endpoint is required of the kind queuery",
        ),
        ("[profiles.default.throttle]\nlag_seconds = nan", "throttle.lag_seconds"),
        ("[profiles.default.throttle]\nthreads_running = 0", "throttle.threads_running"),
        ("[profiles.default.tracking]\nkind = 'paper'", "tracking.kind"),
    ],
)
def test_wrong_values_are_named_by_section_and_setting(root, text, message):
    (root / "mlbatch.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(root)
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("section", "name", "log_in"),
    [
        (QUEUERY, "endpoint", ""),
        (REDSHIFT + "cluster = 'c'\n", "endpoint", ""),
        (STORAGE, "endpoint", ""),
        ("[profiles.default.tracking]\n", "uri", "me:hunter2@"),
    ],
    ids=["queuery", "redshift", "s3", "mlflow"],
)
def test_no_url_takes_credentials_further_than_this_machine_in_the_clear(
    root, section, name, log_in
):
    def given(url):
        (root / "mlbatch.toml").write_text(f"{section}{name} = '{url}'\n")
        return load_settings(root)

    for host in ("far.example.com", "127.0.0.1.example.com:9"):
        with pytest.raises(SettingsError, match="may be http only for this machine") as caught:
            given(f"HTTP://{log_in}{host}/")
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    for url in ("https://far.example.com", "http://[::1]:9", "http://localhost"):
        given(url.replace("://", f"://{log_in}"))


@pytest.mark.parametrize("section", [QUEUERY, STORAGE], ids=["queuery", "s3"])
def test_an_endpoint_holds_no_log_in(root, section):
    (root / "mlbatch.toml").write_text(f"{section}endpoint = 'https://me:hunter2@far'\n")
    with pytest.raises(SettingsError, match="endpoint holds a log-in") as caught:
        load_settings(root)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_an_mlflow_without_a_log_in_may_be_http_anywhere(root, monkeypatch):
    (root / "mlbatch.toml").write_text("profiles.default.tracking.uri = 'http://far:5000'\n")
    load_settings(root)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    with pytest.raises(SettingsError, match="uri may be http only for this machine"):
        load_settings(root)


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.1", "127.0.0.1.example.com"])
@pytest.mark.parametrize(
    "section",
    [
        "[profiles.default.sink]\nkind = 'mysql'\ndatabase = 'd'\nuser = 'u'\n",
        REDSHIFT + "transport = 'wire'\n",
    ],
)
def test_passwords_never_travel_in_the_clear(root, section, host):
    secret = "password = 'hunter2'\n"
    (root / "mlbatch.toml").write_text(f"{section}host = '{host}'\ntls = 'off'\n{secret}")
    with pytest.raises(SettingsError) as caught:
        load_settings(root)
    assert f"tls may be off only for this machine, not for {host}" in caught.value.message
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    (root / "mlbatch.toml").write_text(f"{section}host = 'localhost'\ntls = 'off'\n{secret}")
    settings = load_settings(root)
    assert "hunter2" not in f"{settings!r} {settings}"


def test_a_file_that_is_not_utf_8_is_named(root):
    (root / "mlbatch.toml").write_bytes("# 設定\n".encode("euc-jp"))
    with pytest.raises(SettingsError, match=r"mlbatch\.toml.*utf-8"):
        load_settings(root)


def test_a_byte_order_mark_is_no_fault(root):
    (root / "mlbatch.toml").write_bytes(b"\xef\xbb\xbf[profiles.default]\nworkers = 2\n")
    assert load_settings(root).workers == 2


@pytest.mark.parametrize("value", ["three", "0", "-1", ""])
def test_a_wrong_variable_of_the_environment_is_named(root, monkeypatch, value):
    monkeypatch.setenv("MLBATCH_WORKERS", value)
    with pytest.raises(SettingsError, match="workers"):
        load_settings(root)


def test_the_environment_adds_to_a_section_of_the_file(root, monkeypatch):
    (root / "mlbatch.toml").write_text("[profiles.default.sink]\n" + LOCAL)
    monkeypatch.setenv("MLBATCH_SINK__PASSWORD", "hunter2")
    sink = load_settings(root).sink
    assert (sink.host, sink.password.get_secret_value()) == ("127.0.0.1", "hunter2")


def test_the_devstack_profile_needs_a_devstack(root):
    with pytest.raises(SettingsError) as caught:
        load_settings(root, "devstack")
    assert caught.value.message == "the devstack does not run"
    assert caught.value.hint == "start it: mlbatch devstack up"
    (root / "mlbatch.toml").write_text("[profiles.devstack]\nworkers = 4\n")
    assert load_settings(root, "devstack").workers == 4


def test_settings_cannot_be_changed_afterwards(root):
    settings = load_settings(root)
    for target, name in ((settings, "workers"), (settings.sink, "path")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(target, name, 1)


def faults_of(root):
    with pytest.raises(SettingsError) as caught:
        load_settings(root)
    return caught.value.message.split("\n  ")


def test_every_fault_is_told_in_plain_words_with_what_was_meant(root):
    (root / "mlbatch.toml").write_text(
        "[profiles.default]\nworkrs = 2\nstorage = 3\n"
        "[profiles.default.sink]\nkind = 'mysql'\nhots = 'db'\ndatabase = 'd'\nuser = 'u'\n"
        "[profiles.default.warehouse]\nkind = 'redshfit'\n"
        "[profiles.default.throttle]\nlag_secnds = 1\n"
    )
    place = f"{root / 'mlbatch.toml'}, profile default"
    assert sorted(faults_of(root)) == sorted(
        [
            f"{place}: workrs is no setting; did you mean workers?",
            f"{place}: sink.hots is no setting of the kind mysql; did you mean sink.host?",
            f"{place}: throttle.lag_secnds is no setting; did you mean throttle.lag_seconds?",
            f"{place}: warehouse.kind: 'redshfit' is none of 'duckdb', 'redshift', 'queuery'; "
            "did you mean redshift?",
            f"{place}: storage is a table of settings, not one value",
            f"{place}: sink.host is required of the kind mysql",
        ]
    )


def test_a_setting_of_another_kind_is_told_as_such(root):
    (root / "mlbatch.toml").write_text("[profiles.default.sink]\nhost = 'db'\n")
    (told,) = faults_of(root)
    assert told.endswith("sink.host is no setting of the kind sqlite; it is one of the kind mysql")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MLBATCH_WORKERS", "three", "environment, MLBATCH_WORKERS: workers: Input should be"),
        ("mlbatch_sink__pth", "x", "environment, mlbatch_sink__pth: sink.pth is no setting of the"),
        ("MLBATCH_SINK", "x", "environment, MLBATCH_SINK: sink is a table of settings"),
        ("MLBATCH_SINK__KIND", "mysqll", "environment, MLBATCH_SINK__KIND: sink.kind: 'mysqll' is"),
        ("MLBATCH_SINK__KIND__X", "y", "environment, MLBATCH_SINK__KIND__X: sink.kind: "),
        ("MLBATCH_WORKRS", "3", "environment: MLBATCH_WORKRS is no setting; did you mean MLBATCH_WORKERS?"),
        ("MLBATCH_SNK__KIND", "x", "environment: MLBATCH_SNK__KIND is no setting; did you mean MLBATCH_SINK__KIND?"),
        ("MLBATCH_SINK_PORT", "1", "environment: MLBATCH_SINK_PORT is no setting; did you mean MLBATCH_SINK__PORT?"),
        ("MLBATCH_WORKERS__X", "3", "environment: MLBATCH_WORKERS__X is no setting"),
        ("MLBATCH_ROOT", "/", "environment: MLBATCH_ROOT is no setting"),
    ],
)  # fmt: skip
def test_a_fault_of_the_environment_is_not_the_file_s(root, monkeypatch, variable, value, told):
    monkeypatch.setenv(variable, value)
    (fault,) = faults_of(root)
    assert fault.startswith(told)


def test_what_is_wanting_names_the_variables_that_ask_for_it(root, monkeypatch):
    monkeypatch.setenv("MLBATCH_SINK__KIND", "mysql")
    monkeypatch.setenv("MLBATCH_SINK__PASSWORD", "hunter2")
    monkeypatch.setenv("MLBATCH_WORKRS", "3")
    *wanting, unknown = faults_of(root)
    place = f"{root / 'mlbatch.toml'}, profile default, with"
    around = f"{place} MLBATCH_SINK__KIND, MLBATCH_SINK__PASSWORD: sink"
    assert wanting == [
        f"{around}.{key} is required of the kind mysql" for key in ("host", "database", "user")
    ]
    assert unknown.startswith("environment: MLBATCH_WORKRS")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLBATCH_FAILPOINT", "after_commit:kill"),
        ("MLBATCH_SHARED_DATA", "/data"),
        ("MLBATCH_DEVSTACK_MARK", "x"),
        ("MLBATCH_TEST_MYSQL", "x"),
        ("MLBATCH_PROFILE", "small"),
        ("MLBATCH_MLFLOW_SERVICE_HOST", "10.0.0.1"),
        ("MLBATCH_SERVICE_PORT_HTTP", "80"),
        ("MLBATCH_MLFLOW_SERVICE_PORT", "80"),
        ("MLBATCH_MLFLOW_PORT_80_TCP_PORT", "80"),
        ("MLBATCH_MLFLOW_PORT", "tcp://10.0.0.1:80"),
        ("MLBATCH_MLFLOW_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_others_read_or_write_are_left_alone(root, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert load_settings(root).root == root
