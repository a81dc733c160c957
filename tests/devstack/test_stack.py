"""The stack: starts whole or not at all, is found again later, and never ends a stranger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

import boto3
import httpx
import pymysql
import pytest
import redshift_connector
from click.testing import CliRunner

from mlbatch.cli.main import cli
from mlbatch.devstack import mariadb, process
from mlbatch.devstack.process import Service
from mlbatch.devstack.stack import Stack, as_toml, profile, settings
from mlbatch.devstack.state import FILE, PORTS, Running, State, read_state, write_state
from mlbatch.doctor import examine
from mlbatch.errors import ExitCode, MlbatchError, SettingsError
from mlbatch.settings import load_settings
from mlbatch.wiring import connect


def service(folder, code, answers=lambda: True, name="child"):
    command = [sys.executable, "-c", code]
    return Service(name, command, folder, folder / "child.log", answers)


SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path('ready').touch(); time.sleep(60)"
)
PARENT = (
    "import pathlib, subprocess, sys, time;"
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]);"
    "pathlib.Path('part').write_text(str(child.pid)); pathlib.Path('part').rename('ready');"
    "time.sleep(60)"
)


def started(folder, code):
    """A child that has come so far as to make the file ``ready``."""
    wanted = service(folder, code, (folder / "ready").exists)
    identity = process.launch(wanted)
    process.wait_until_ready(wanted, identity, 20)
    return identity


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_is_stopped_kindly_and_only_once(tmp_path):
    identity = process.launch(service(tmp_path, SLEEP))
    assert process.is_alive(identity)
    assert process.stop(identity)
    assert not process.is_alive(identity)
    assert not process.stop(identity)


def test_a_process_that_will_not_go_is_killed(tmp_path):
    identity = started(tmp_path, STUBBORN)
    assert process.stop(identity, seconds=0.2)
    assert not runs(identity.pid)


def test_what_a_dead_process_left_behind_is_stopped_too(tmp_path):
    identity = started(tmp_path, PARENT)
    child = int((tmp_path / "ready").read_text())
    os.kill(identity.pid, signal.SIGKILL)
    while process.is_alive(identity):
        time.sleep(0.01)
    assert runs(child)
    assert process.stop(identity)
    assert not runs(child)


def test_a_number_that_was_given_to_somebody_else_is_left_alone(tmp_path):
    stranger = process.launch(service(tmp_path, SLEEP))
    stale = process.Identity(stranger.pid, "1", "another mark")
    assert not process.is_alive(stale)
    assert not process.stop(stale)
    process.kill(stale)
    assert process.is_alive(stranger)
    process.stop(stranger)


def test_a_process_that_dies_shows_its_last_words(tmp_path):
    dying = service(tmp_path, "raise SystemExit('no such disk')", lambda: False)
    identity = process.launch(dying)
    with pytest.raises(MlbatchError, match="child ended while it started") as raised:
        process.wait_until_ready(dying, identity)
    assert "    no such disk" in raised.value.message
    assert str(tmp_path / "child.log") in raised.value.hint


def test_a_process_that_never_answers_is_not_waited_for_for_ever(tmp_path):
    silent = service(tmp_path, SLEEP, lambda: False)
    identity = process.launch(silent)
    with pytest.raises(MlbatchError, match="does not answer after 0 s") as raised:
        process.wait_until_ready(silent, identity, 0.2)
    assert "(nothing)" in raised.value.message
    process.stop(identity)


def test_a_program_that_is_not_there_is_named(tmp_path):
    missing = Service("child", ["no-such-program"], tmp_path, tmp_path / "log", lambda: True)
    with pytest.raises(MlbatchError, match="child cannot be started") as raised:
        process.launch(missing)
    assert "no-such-program" in raised.value.hint


def test_free_ports_are_different_and_free():
    ports = process.free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(process.is_free, ports))
    assert not any(map(process.port_answers, ports))
    assert not process.http_answers(f"http://127.0.0.1:{ports[0]}/")


class Small(Stack):
    """S3 and MySQL only, which start within two seconds."""

    def servers(self, state):
        return [s for s in super().servers(state) if s.name in ("s3", "mysql")]


@pytest.fixture
def small(tmp_path):
    stack = Small(tmp_path / "devstack")
    yield stack
    stack.down()


def states(stack):
    return {one.name: one.state for one in stack.status()}


def pids(stack):
    return {one.name: one.pid for one in stack.status()}


def bucket_names(state):
    client = boto3.client("s3", **keys(f"http://127.0.0.1:{state.ports['s3']}"))
    return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def keys(endpoint):
    return {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "devstack",
        "aws_secret_access_key": "devstack-not-a-secret",
    }


def mysql(state):
    return pymysql.connect(
        host="127.0.0.1",
        port=state.ports["mysql"],
        user="mlbatch",
        password=state.secrets["mysql_writer"],
        database="mlbatch",
        autocommit=True,
    )


def test_before_the_first_start_nothing_runs_and_nothing_is_made(tmp_path):
    stack = Stack(tmp_path / "devstack")
    assert states(stack) == dict.fromkeys(PORTS, "stopped")
    assert stack.down() == []
    assert profile(stack.root) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_start_changes_nothing(small):
    first = small.up()
    before = pids(small)
    assert small.up() == first
    assert pids(small) == before
    assert states(small) == {"s3": "running", "mysql": "running"}


def test_a_dead_server_is_named_and_the_next_start_mends_it_alone(small):
    state = small.up()
    before = pids(small)
    os.kill(before["s3"], signal.SIGKILL)
    while process.is_alive(state.running["s3"].identity):
        time.sleep(0.01)
    assert states(small) == {"s3": "dead", "mysql": "running"}
    again = small.up()
    after = pids(small)
    assert after["s3"] != before["s3"]
    assert after["mysql"] == before["mysql"]
    assert again.ports == state.ports
    assert bucket_names(again) == ["mlbatch"]


@pytest.mark.parametrize("name", ["s3", "mysql"])
def test_a_server_that_hangs_is_called_silent_and_can_be_stopped(small, name):
    state = small.up()
    os.kill(state.running[name].pid, signal.SIGSTOP)
    assert states(small) == {"s3": "running", "mysql": "running", name: "silent"}
    began = time.monotonic()
    assert sorted(small.down()) == ["mysql", "s3"]
    assert time.monotonic() - began < process.STOP_SECONDS


def test_data_can_be_kept_for_the_next_start(small):
    state = small.up()
    with closing(mysql(state)) as connection:
        connection.query("CREATE TABLE kept (id INT PRIMARY KEY)")
        connection.query("INSERT INTO kept VALUES (7)")
    assert sorted(small.down(keep=True)) == ["mysql", "s3"]
    assert states(small) == {"s3": "stopped", "mysql": "stopped"}
    again = small.up()
    assert again.secrets == state.secrets
    with closing(mysql(again)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT id FROM kept")
        assert cursor.fetchall() == ((7,),)


def test_after_the_end_no_process_port_or_file_is_left(small):
    state = small.up()
    outside = (small.root / "mysql" / "run").readlink()
    assert sorted(small.down()) == ["mysql", "s3"]
    assert not any(process.is_alive(one.identity) for one in state.running.values())
    assert all(process.is_free(state.ports[name]) for name in ("s3", "mysql"))
    assert not small.root.exists()
    assert not outside.exists()


def test_a_port_that_was_taken_in_the_meantime_is_replaced(small):
    state = small.up()
    small.down(keep=True)
    thief = f"import http.server as h; h.test(port={state.ports['s3']}, bind='127.0.0.1')"
    taken = service(small.root, thief, lambda: process.port_answers(state.ports["s3"]))
    identity = process.launch(taken)
    process.wait_until_ready(taken, identity)
    again = small.up()
    process.stop(identity)
    assert again.ports["s3"] != state.ports["s3"]
    assert again.ports["mysql"] == state.ports["mysql"]
    assert bucket_names(again) == ["mlbatch"]


def test_when_one_server_cannot_start_none_stays(small, monkeypatch):
    monkeypatch.setattr(mariadb, "_OPTIONS", ("--no-such-option",))
    launched = []
    launch = process.launch
    monkeypatch.setattr(
        process, "launch", lambda wanted: launched.append(launch(wanted)) or launched[-1]
    )
    with pytest.raises(MlbatchError, match="mysql ended while it started") as raised:
        small.up()
    assert "unknown option '--no-such-option'" in raised.value.message
    assert launched
    assert not any(map(process.is_alive, launched))
    assert states(small) == {"s3": "stopped", "mysql": "stopped"}
    assert profile(small.root) is None


def test_a_start_that_was_cut_off_is_done_again(small):
    small.root.mkdir()
    left = process.launch(service(small.root, SLEEP))
    state = State.fresh()
    state.running["mysql"] = Running(pid=left.pid, started_at=left.started_at, mark=left.mark)
    write_state(small.root, state)
    assert profile(small.root) is None
    small.up()
    assert not process.is_alive(left)
    assert states(small) == {"s3": "running", "mysql": "running"}


def test_a_state_from_before_a_reboot_ends_no_stranger(small, tmp_path):
    small.root.mkdir()
    stranger = process.launch(service(tmp_path, SLEEP))
    state = State.fresh()
    stale = Running(pid=stranger.pid, started_at="1", mark="x", is_ready=True)
    gone = Running(pid=2**22 + 1, started_at="1", mark="x", is_ready=True)
    state.running = {"s3": stale, "mysql": gone}
    write_state(small.root, state)
    assert states(small) == {"s3": "dead", "mysql": "dead"}
    assert profile(small.root) is None
    assert small.down() == []
    assert process.is_alive(stranger)
    process.stop(stranger)


def test_the_state_is_for_its_owner_alone_and_shows_no_secret(tmp_path):
    state = State.fresh()
    write_state(tmp_path, state)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert read_state(tmp_path) == state
    assert not any(secret in repr(state) for secret in state.secrets.values())
    assert len({*state.secrets.values(), *State.fresh().secrets.values()}) == 8


def test_a_broken_state_file_says_what_to_do(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(MlbatchError, match=r"stack\.json cannot be read") as raised:
        Stack(tmp_path).status()
    assert f"remove {tmp_path}" in raised.value.hint


@pytest.mark.parametrize("face", ["data_api", "wire", "queuery"])
def test_the_settings_are_the_same_when_pasted_and_are_understood(face, tmp_path):
    state = State.fresh()
    state.face = face
    text = as_toml(settings(state), "pasted")
    assert tomllib.loads(text)["profiles"]["pasted"] == settings(state)
    (tmp_path / "mlbatch.toml").write_text(text)
    read = load_settings(tmp_path, "pasted")
    assert read.warehouse.kind == ("queuery" if face == "queuery" else "redshift")
    assert getattr(read.warehouse, "transport", "queuery") == face
    assert read.sink.port == state.ports["mysql"]
    assert str(state.ports["mlflow"]) in read.tracking.uri


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "mlbatch.toml").touch()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    Stack(tmp_path / ".mlbatch" / "devstack").down()


def invoke(*words):
    return CliRunner().invoke(cli, ["devstack", *words], standalone_mode=False)


def test_without_a_stack_the_commands_say_so(project):
    assert invoke("down").output == "Nothing ran.\n"
    told = invoke("status")
    assert told.return_value == ExitCode.DONE
    assert told.output.count("stopped") == 4
    with pytest.raises(SettingsError, match="the devstack does not run") as raised:
        load_settings(project, "devstack")
    assert raised.value.hint == "start it: mlbatch devstack up"


@pytest.mark.slow
def test_the_whole_production_path_comes_up_works_and_goes(project):
    up = invoke("up", "--warehouse", "wire")
    assert up.return_value == ExitCode.DONE
    assert "mlflow     ready after" in up.stderr
    assert tomllib.loads(up.stdout)["profiles"]["devstack"] == profile(
        project / ".mlbatch" / "devstack"
    )

    told = json.loads(invoke("status", "--json").stdout)
    assert {one["server"]: one["state"] for one in told["servers"]} == dict.fromkeys(
        PORTS, "running"
    )

    assert load_settings(project, "devstack").warehouse.transport == "wire"
    assert invoke("up", "--warehouse", "data_api").return_value == ExitCode.DONE
    tools = connect(load_settings(project, "devstack"), lambda *_: None)
    findings = {one.name: one for one in examine(tools, [])}
    assert {one.name: one.detail for one in findings.values() if not one.is_well} == {}
    assert "1 row through s3://mlbatch/staging/" in findings["unload"].detail
    assert "LOAD DATA LOCAL" in findings["sink"].detail

    state = read_state(project / ".mlbatch" / "devstack")
    check_wire(state)
    check_queuery(state)
    check_faults(state)

    os.kill(state.running["mlflow"].pid, signal.SIGKILL)
    while process.is_alive(state.running["mlflow"].identity):
        time.sleep(0.01)
    dead = invoke("status")
    assert dead.return_value == ExitCode.FAILED
    assert any(line.startswith("mlflow     dead") for line in dead.output.splitlines())
    assert "start it again: mlbatch devstack up" in dead.output

    down = invoke("down")
    assert set(down.output.removeprefix("Stopped: ").rstrip(".\n").split(", ")) == set(PORTS)
    assert all(map(process.is_free, state.ports.values()))
    assert not (project / ".mlbatch" / "devstack").exists()


def check_wire(state):
    with redshift_connector.connect(
        host="127.0.0.1",
        port=state.ports["redshift_wire"],
        database="dev",
        user="awsuser",
        password=state.secrets["redshift"],
        ssl=False,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 'ラーメン' AS dish, 2 AS bowls")
        assert cursor.fetchall() == (["ラーメン", 2],)
        cursor.close()


def check_queuery(state):
    url = f"http://127.0.0.1:{state.ports['redshift_queuery']}/v1/queries"
    auth = ("devstack", state.secrets["queuery"])
    with httpx.Client(trust_env=False, auth=auth) as client:
        made = client.post(url, data={"q": "SELECT 1 AS one"})
        assert made.status_code == 201
        end = time.monotonic() + 30
        while (told := client.get(f"{url}/{made.json()['id']}").json())["status"] != "success":
            assert told["status"] in ("pending", "running")
            assert time.monotonic() < end
        assert len(told["data_file_urls"]) >= 1
        assert client.post(url, data={"q": "SELECT 1"}, auth=("devstack", "x")).status_code == 401


def check_faults(state):
    endpoint = f"http://127.0.0.1:{state.ports['redshift_data_api']}"
    rule = {"kind": "error", "pattern": "unlucky", "sqlstate": "53100", "message": "disk full"}
    httpx.post(f"{endpoint}/_faults", json=rule, trust_env=False).raise_for_status()
    client = boto3.client("redshift-data", **keys(endpoint))
    sent = client.execute_statement(
        ClusterIdentifier="devstack", Database="dev", DbUser="awsuser", Sql="SELECT 1 AS unlucky"
    )
    end = time.monotonic() + 30
    while (told := client.describe_statement(Id=sent["Id"]))["Status"] not in (
        "FAILED",
        "FINISHED",
    ):
        assert time.monotonic() < end
    assert "disk full" in told["Error"]


def test_help_imports_no_server():
    code = "import sys, mlbatch.cli.devstack; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "mlbatch.devstack.stack" in loaded.split()
    assert not {"boto3", "moto", "mlflow", "duckdb", "pymysql"} & set(loaded.split())
