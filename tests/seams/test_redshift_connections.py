"""What the Redshift warehouse, by either transport, does when connections misbehave."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from bad_inputs import REFUSED, bad_input
from fault_proxy import BLACK_HOLE, RESET, FaultProxy, Rule
from faulty import NUMBERS, fails, serving

from mlbatch.cli.main import Terminated
from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.devstack.redshift.data_api import DataApi as DataApiFace
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.errors import (
    DeclarationError,
    RunFailed,
    SettingsError,
    TemporaryError,
)
from mlbatch.unloading import take_snapshot

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def api_face(engine):
    with serving(DataApiFace(engine)) as face:
        yield face


@pytest.fixture
def wire_face(engine):
    with serving(WireServer(engine, users={"awsuser": "sesame"})) as face:
        yield face


def by_data_api(bucket, port):
    access = AwsAccess("us-east-1", f"http://127.0.0.1:{port}", "test", "test")
    return RedshiftWarehouse(DataApi("dev", "devstack", user="awsuser", access=access), bucket)


def by_wire(bucket, port, password="sesame"):
    transport = Wire(
        "127.0.0.1", port, "dev", "awsuser", FixedPassword(password), verify_tls=False,
        statement_seconds=2,
    )  # fmt: skip
    return RedshiftWarehouse(transport, bucket)


@pytest.mark.parametrize("rule", [RESET, Rule(cut_after=60), BLACK_HOLE], ids=str)
@pytest.mark.parametrize("way", [by_data_api, by_wire])
def test_redshift_that_is_away_is_temporary(hopeless, bucket, request, way, rule):
    face = request.getfixturevalue("wire_face" if way is by_wire else "api_face")
    with FaultProxy("127.0.0.1", face.port) as proxy:
        proxy.rule = rule
        with fails(TemporaryError, "Redshift|Data API"):
            way(bucket, proxy.port).fetch("SELECT 1 AS one")


def test_a_wrong_password_is_a_setting(bucket, wire_face):
    with fails(SettingsError, "Redshift at 127") as caught:
        by_wire(bucket, wire_face.port, "open").fetch("SELECT 1 AS one")
    assert "open" not in str(caught)


def test_an_unload_whose_reply_is_lost_is_repeated_under_a_fresh_prefix(bucket, engine, wire_face):
    warehouse = by_wire(bucket, wire_face.port)
    engine.faults.add(Fault("lose_reply", "unload"))
    with fails(TemporaryError, "Redshift at 127"):
        take_snapshot(warehouse, bucket, NUMBERS, bucket.prefix + "a/")
    with fails(RunFailed, "not empty"):
        take_snapshot(warehouse, bucket, NUMBERS, bucket.prefix + "a/")
    assert take_snapshot(warehouse, bucket, NUMBERS, bucket.prefix + "b/").rows == 100


@pytest.mark.parametrize(
    "fault",
    [
        Fault("lose_reply", "unload"),
        Fault("drop", "unload"),
        Fault("http", "BatchExecute", times=2),
        Fault("http", "DescribeStatement", times=2, status=500, code="InternalServerException"),
    ],
    ids=["reply lost", "request lost", "throttled", "state not told"],
)
def test_the_data_api_unloads_once_however_often_it_is_asked(bucket, engine, api_face, fault):
    engine.faults.add(replace(fault))
    warehouse = by_data_api(bucket, api_face.port)
    assert take_snapshot(warehouse, bucket, NUMBERS, bucket.prefix + "a/").rows == 100
    assert engine.faults.rules[0].times == 0


@bad_input(41, outcome=REFUSED)
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ThrottlingException", TemporaryError),
        (400, "ExpiredToken", SettingsError),
        (400, "ExpiredTokenException", SettingsError),
        (400, "AccessDeniedException", SettingsError),
    ],
)
def test_what_the_data_api_refuses_for_ever(hopeless, bucket, engine, api_face, status, code, kind):
    engine.faults.add(Fault("http", times=-1, status=status, code=code))
    with fails(kind, code):
        by_data_api(bucket, api_face.port).fetch("SELECT 1 AS one")


def test_a_statement_that_takes_too_long_is_cancelled(bucket, engine, wire_face):
    engine.faults.add(Fault("delay", "select 7", seconds=8))
    began = time.monotonic()
    with fails(RunFailed, r"timeout|no end"):
        by_wire(bucket, wire_face.port).fetch("SELECT 7 AS n")
    assert time.monotonic() - began < 6


@pytest.fixture
def ending():
    """Half a second from now, what SIGTERM raises in the command line."""

    def end(*_):
        raise Terminated

    before = signal.signal(signal.SIGUSR1, end)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGUSR1])
    yield timer.start
    timer.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("way", [by_data_api, by_wire])
def test_whoever_is_terminated_leaves_no_statement_running(bucket, engine, request, way, ending):
    face = request.getfixturevalue("wire_face" if way is by_wire else "api_face")
    engine.faults.add(Fault("delay", "unload", seconds=30))
    transport = replace(way(bucket, face.port).transport, statement_seconds=60)
    ending()
    with pytest.raises(Terminated):
        RedshiftWarehouse(transport, bucket).unload(NUMBERS, bucket.prefix + "a/")
    until = time.monotonic() + 5
    while any(session._running for session in list(engine._sessions.values())):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.02)


def test_what_the_server_refused_is_not_cancelled(bucket, engine, wire_face, monkeypatch):
    asked = []
    monkeypatch.setattr(engine, "cancel", asked.append)
    with pytest.raises(DeclarationError, match="refuses the query"):
        by_wire(bucket, wire_face.port).fetch("SELECT x FROM nowhere")
    assert asked == []
