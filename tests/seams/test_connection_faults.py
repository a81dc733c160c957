"""What the production connectors do when connections misbehave."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pymysql
import pytest
from bad_inputs import ACCEPTED, REFUSED, TEMPORARY, bad_input
from fault_proxy import BLACK_HOLE, PASS, RESET, FaultProxy, Rule
from test_sink import TABLE, begin, commit, ids, rows

from mlbatch.connectors import aws, queuery, s3
from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.mlflow import MlflowTracking
from mlbatch.connectors.mysql import address as mysql_settings
from mlbatch.connectors.mysql import session as mysql_session
from mlbatch.connectors.mysql.address import MysqlAddress, connect, connect_to_writer
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.queuery import QueueryWarehouse
from mlbatch.connectors.redshift import wire as wire_settings
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.mariadb import find_program, private_mariadb
from mlbatch.devstack.redshift.data_api import DataApi as DataApiFace
from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.http_face import HttpFace, Reply
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.devstack.redshift.queuery_face import QueueryFace
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.errors import (
    ExitCode,
    MlbatchError,
    RunFailed,
    SettingsError,
    SnapshotError,
    TemporaryError,
    UsageError,
)
from mlbatch.unloading import take_snapshot

EXIT = {
    RunFailed: ExitCode.FAILED,
    SnapshotError: ExitCode.FAILED,
    SettingsError: ExitCode.USAGE,
    TemporaryError: ExitCode.TEMPORARY,
}


@contextmanager
def fails(kind, match):
    """The block fails with exactly this class, its exit code, and these words."""
    with pytest.raises(MlbatchError, match=match) as caught:
        yield caught
    assert type(caught.value) is kind
    assert caught.value.exit_code == EXIT[kind]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody waits by the minute here."""
    for module in (mysql_settings, aws):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 1)
        monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(aws, "ATTEMPTS", 3)
    monkeypatch.setattr(queuery, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(mysql_session, "REDO_SECONDS", 3.0)
    monkeypatch.setattr(wire_settings, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(wire_settings, "SLACK_SECONDS", 1)


@pytest.fixture
def hopeless(monkeypatch):
    """What stays bad is given up sooner still."""
    monkeypatch.setattr(aws, "ATTEMPTS", 2)
    monkeypatch.setattr(s3, "TRIES", 2)
    monkeypatch.setattr(queuery, "TRIES", 2)
    monkeypatch.setattr(mysql_session, "REDO_SECONDS", 1.0)


@contextmanager
def serving(face):
    """A face that answers for as long as the block lasts."""
    face.start()
    try:
        yield face
    finally:
        face.stop()


# MySQL


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A MariaDB of our own with TLS, whose certificate is for localhost alone."""
    try:
        find_program("mariadbd")
    except UsageError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    folder = tmp_path_factory.mktemp("faulty")
    certificates = make_certificates(folder / "made", "localhost")
    with private_mariadb(folder / "server", certificates=certificates) as made:
        yield made


@pytest.fixture
def admin(server):
    password = FixedPassword(server.admin_password)
    return MysqlAddress(server.host, server.port, "mysql", server.admin, password, verify_tls=False)


@pytest.fixture
def writer(server, admin):
    """The user that mlbatch has in production, in an empty database."""
    for statement in ("DROP DATABASE mlbatch", "CREATE DATABASE mlbatch CHARACTER SET utf8mb4"):
        execute(admin, statement)
    password = FixedPassword(server.password)
    return MysqlAddress(
        server.host, server.port, "mlbatch", server.user, password, verify_tls=False
    )


@pytest.fixture
def sink(writer):
    made = MysqlSink(writer)
    made.ledger()
    made.prepare(TABLE)
    return made


@pytest.fixture
def run(sink):
    return begin(sink, rows=1_000)[0]


@pytest.fixture
def proxied(writer):
    """A proxy before the server, and the address of the proxy."""
    with FaultProxy(writer.host, writer.port) as proxy:
        yield proxy, replace(writer, port=proxy.port)


def execute(address, statement):
    with closing(connect(address)) as connection:
        connection.query(statement)


@contextmanager
def session_of(address, run, way=Way.LOAD):
    with closing(MysqlPartSession(address, TABLE, run, way)) as session:
        yield session


@pytest.mark.parametrize("rule", [RESET, BLACK_HOLE, Rule(cut_after=40)], ids=str)
def test_mysql_that_does_not_greet_is_temporary(proxied, rule):
    proxy, address = proxied
    proxy.rule = rule
    with fails(TemporaryError, "does not answer"):
        MysqlSink(address).ledger().runs()


@pytest.mark.parametrize("fault", [RESET, BLACK_HOLE, Rule(cut_after=1)], ids=str)
def test_a_batch_whose_connection_goes_bad_is_applied_once(proxied, sink, run, fault):
    proxy, address = proxied
    with session_of(address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        proxy.rule = fault
        threading.Timer(0.5, lambda: setattr(proxy, "rule", PASS)).start()
        session.commit(commit(2, 4, rows(3, 4)))
        state = session.position(0)
    assert (state.done, state.written, state.checksum) == (4, 4, 14)
    assert ids(sink) == [1, 2, 3, 4]
    assert proxy.accepted > 1


def test_a_batch_gives_up_when_the_outage_lasts(hopeless, proxied, sink, run):
    proxy, address = proxied
    with session_of(address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        proxy.rule = BLACK_HOLE
        with fails(TemporaryError, "does not answer"):
            session.commit(commit(2, 4, rows(3, 4)))
    assert ids(sink) == [1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_rows_that_break_off_are_temporary(proxied, sink, run):
    proxy, address = proxied
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 900, rows(*range(900))))
    proxy.rule = Rule(cut_after=20_000)
    try:
        with fails(TemporaryError, "does not answer"):
            MysqlSink(address).rows(TABLE).read_all()
    finally:
        gc.collect()  # the driver's complaints belong to this test


def test_a_slow_line_is_only_slow(proxied, sink):
    proxy, address = proxied
    proxy.rule = Rule(delay=0.05, bytes_per_second=20_000)
    assert "MariaDB" in MysqlSink(address).about()


def test_a_killed_connection_loses_nothing(sink, run, admin):
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        execute(admin, f"KILL CONNECTION {session._connection.thread_id()}")
        session.commit(commit(2, 4, rows(3, 4)))
    assert ids(sink) == [1, 2, 3, 4]


def test_a_table_that_stays_locked_is_temporary(hopeless, sink, run, admin):
    with closing(connect(replace(admin, database="mlbatch"))) as locking:
        locking.query("LOCK TABLES mood READ")
        with session_of(sink.address, run) as session, fails(TemporaryError, "does not answer"):
            session.commit(commit(0, 2, rows(1, 2)))
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    assert ids(sink) == [1, 2]


@bad_input(113, outcome=REFUSED)
def test_a_right_that_was_taken_away_is_a_setting(sink, run, admin, server):
    execute(admin, f"REVOKE INSERT ON mlbatch.* FROM {server.user}")
    try:
        with session_of(sink.address, run) as session, fails(SettingsError, "1142.*INSERT"):
            session.commit(commit(0, 2, rows(1, 2)))
    finally:
        execute(admin, f"GRANT INSERT ON mlbatch.* TO {server.user}")
    assert ids(sink) == []


def test_too_many_connections_are_temporary(sink, admin):
    with closing(connect(admin)) as spare, ExitStack() as crowd:
        spare.query("SET GLOBAL max_connections = 10")
        try:
            with fails(TemporaryError, "1040"):
                for _ in range(12):
                    address = replace(sink.address, local_infile=False)
                    try:
                        crowd.enter_context(closing(connect_to_writer(address)))
                    except pymysql.err.OperationalError:
                        MysqlSink(address).about()
        finally:
            spare.query("SET GLOBAL max_connections = 151")


def test_too_many_connections_of_one_user_are_temporary(sink, admin, server):
    execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 1")
    try:
        with closing(connect(sink.address)), fails(TemporaryError, "1226"):
            MysqlSink(sink.address).about()
    finally:
        execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 0")


def test_a_certificate_of_another_name_is_a_setting(server, writer):
    trusted = replace(writer, verify_tls=True, ca=server.certificates.ca)
    assert "TLS, name checked" in MysqlSink(replace(trusted, host="localhost")).about()
    with fails(SettingsError, "not valid for '127.0.0.1'"):
        MysqlSink(trusted).about()


# S3


@pytest.fixture
def bucket(s3_access):
    """A bucket with one object of 50,000 bytes, reached without any proxy."""
    made = S3Storage(f"t{time.time_ns()}", "staging", s3_access)
    s3_access.client("s3").create_bucket(Bucket=made.bucket)
    made.put(made.prefix + "part", b"0123456789" * 5_000)
    return made


@pytest.fixture
def over_proxy(bucket):
    """A proxy before the S3 server, and the bucket as it is seen through it."""
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        yield proxy, replace(bucket, access=replace(bucket.access, endpoint=endpoint))


@bad_input(39, 40, outcome=ACCEPTED)
@pytest.mark.parametrize(
    "faults",
    [[RESET, RESET], [Rule(cut_after=20_000)], [RESET, Rule(cut_after=300)], [BLACK_HOLE]],
    ids=["reset", "cut in the body", "cut in the header", "black hole"],
)
def test_s3_is_asked_again_until_the_object_is_whole(bucket, over_proxy, faults):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.next_rules.extend(faults)
    with seen.open(uri, etag=etag) as file:
        assert file.read() == b"0123456789" * 5_000
    assert proxy.accepted == len(faults) + 1


@bad_input(39, 40, outcome=TEMPORARY)
@pytest.mark.parametrize(
    ("fault", "said"),
    [(RESET, "no answer"), (BLACK_HOLE, "no answer"), (Rule(cut_after=20_000), "2 times")],
    ids=["reset", "black hole", "cut in the body"],
)
def test_s3_that_stays_bad_is_temporary(hopeless, bucket, over_proxy, fault, said):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.rule = fault
    with fails(TemporaryError, said), seen.open(uri, etag=etag):
        pass


def test_a_large_object_whose_ranges_break_off_is_read_whole(bucket, over_proxy):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.next_rules.extend([PASS, Rule(cut_after=3_000), RESET, PASS, Rule(cut_after=9_000)])
    seen = replace(seen, whole_bytes=100, block_bytes=5_000)
    with seen.open(uri, etag=etag) as file:
        assert file.read() == b"0123456789" * 5_000
    assert proxy.accepted > 5


def test_a_slow_object_store_is_only_slow(bucket, over_proxy):
    proxy, seen = over_proxy
    proxy.rule = Rule(bytes_per_second=60_000)
    assert len(seen.read(bucket.prefix + "part")) == 50_000


def test_what_is_written_over_a_bad_line_arrives_whole(bucket, over_proxy):
    proxy, seen = over_proxy
    proxy.next_rules.extend([RESET, Rule(cut_after=30), PASS])
    seen.put(bucket.prefix + "new", b"x" * 40_000)
    assert bucket.read(bucket.prefix + "new") == b"x" * 40_000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", TemporaryError),
        (403, "AccessDenied", SettingsError),
        (301, "PermanentRedirect", SettingsError),
        (404, "NoSuchBucket", SettingsError),
    ],
)
def test_what_s3_refuses_to_show_and_to_take(hopeless, status, code, kind):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    region = {"x-amz-bucket-region": "eu-west-1"}
    face = HttpFace(lambda _: Reply(status, body, region), "127.0.0.1", 0)
    with serving(face):
        storage = S3Storage("b", access=AwsAccess("us-east-1", face.url, "k", "s"))
        with fails(kind, code):
            storage.about()
        with fails(kind, code):
            storage.put("s3://b/x", b"1")


@pytest.mark.parametrize("status", [301, 307])
def test_a_bucket_elsewhere_of_which_nobody_tells_the_region_is_a_setting(hopeless, status):
    asked = []

    def moved(request):
        asked.append(request.method)
        body = b"<?xml version='1.0'?><Error><Code>PermanentRedirect</Code></Error>"
        return Reply(status, b"" if request.method == "HEAD" else body)

    with serving(HttpFace(moved, "127.0.0.1", 0)) as face:
        storage = S3Storage("far-away", access=AwsAccess("us-east-1", face.url, "k", "s"))
        with fails(SettingsError, "far-away") as caught:
            storage.about()
        assert "mend storage.region" in caught.value.hint
        with fails(SettingsError, "far-away"):
            storage.stat("s3://far-away/x")
        with fails(SettingsError, "far-away"):
            storage.put("s3://far-away/x", b"1")
    assert len(asked) < 12


# Redshift


@pytest.fixture
def engine(bucket):
    store = TurningUrls(bucket.access.endpoint, bucket.access.region, "test", "test")
    with closing(Engine(None, store, options=EngineOptions(part_rows=30))) as made:
        yield made


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


NUMBERS = "SELECT i FROM generate_series(1, 100) g(i)"


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


# Queuery


class TurningUrls(S3Objects):
    """Never gives the same URL twice, as with the real one's signatures."""

    turns = itertools.count()

    def presigned(self, uri, seconds):
        return f"{super().presigned(uri, seconds)}&turn={next(self.turns)}"


@pytest.fixture
def asking(bucket, engine):
    face = QueueryFace(engine, tokens={"me": "sesame"}, bucket=bucket.bucket)
    with serving(face):
        yield QueueryWarehouse(face.url, "me", "sesame", bucket, sleep=lambda _: None)


@contextmanager
def between(bucket, port):
    """Files come from ``port``, where somebody stands in between."""
    real, place = TurningUrls.presigned, urlsplit(bucket.access.endpoint).netloc
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            TurningUrls,
            "presigned",
            lambda store, uri, seconds: real(store, uri, seconds).replace(
                place, f"127.0.0.1:{port}"
            ),
        )
        yield


def test_queuery_that_is_busy_for_a_while_is_asked_again(asking, engine):
    engine.faults.add(Fault("http", "GET", times=2, status=503))
    assert asking.fetch(NUMBERS).num_rows == 100
    assert engine.faults.rules[0].times == 0


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_queuery_that_stays_busy_is_temporary(hopeless, asking, engine, method):
    engine.faults.add(Fault("http", method, times=-1, status=503))
    with fails(TemporaryError, "HTTP 503"):
        asking.fetch(NUMBERS)


def test_a_query_whose_reply_is_lost_is_not_asked_twice(asking, engine):
    engine.faults.add(Fault("lose_reply", "generate_series"))
    with fails(TemporaryError, "Queuery at"):
        asking.fetch(NUMBERS)
    assert engine.faults.rules[0].times == 0


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("kind", ["manifest", "result.csv."])
@bad_input(41, outcome=ACCEPTED)
def test_an_expired_url_is_asked_for_anew(asking, bucket, kind, status):
    turns = []

    def expiring(request):
        if kind in request.path:
            turns.append(request.query["turn"])
            if len(turns) < 3:
                return Reply(status, b"<Error><Code>ExpiredToken</Code></Error>")
        got = httpx.get(bucket.access.endpoint + request.path, params=request.query)
        return Reply(got.status_code, got.content)

    with serving(HttpFace(expiring, "127.0.0.1", 0)) as face, between(bucket, face.port):
        assert asking.fetch(NUMBERS).num_rows == 100
    assert turns[0] != turns[1] != turns[2]


def test_a_url_that_stays_refused_fails_in_its_own_words(hopeless, asking, bucket):
    closed = HttpFace(lambda _: Reply(403, b""), "127.0.0.1", 0)
    with serving(closed), between(bucket, closed.port), fails(RunFailed, "HTTP 403"):
        asking.fetch(NUMBERS)


@pytest.mark.parametrize("fault", [RESET, Rule(cut_after=400), BLACK_HOLE], ids=str)
def test_a_data_file_that_breaks_off_is_read_again_whole(asking, bucket, engine, fault):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.extend([PASS, fault])
        got = asking.fetch(NUMBERS)
    assert sorted(got["i"].to_pylist()) == list(range(1, 101))
    assert not proxy.next_rules


@pytest.mark.parametrize("fault", [RESET, Rule(cut_after=100), BLACK_HOLE], ids=str)
def test_a_manifest_that_breaks_off_is_read_again(asking, bucket, fault):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.append(fault)
        assert asking.fetch(NUMBERS).num_rows == 100
    assert not proxy.next_rules


def test_a_manifest_that_stays_cut_is_temporary(hopeless, asking, bucket):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.rule = Rule(cut_after=100)
        with fails(TemporaryError, "Queuery at"):
            asking.fetch(NUMBERS)


def test_a_data_file_that_stays_cut_is_temporary(hopeless, asking, bucket, engine):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.append(PASS)
        proxy.rule = Rule(cut_after=400)
        with fails(TemporaryError, "Queuery at"):
            asking.unload(NUMBERS, bucket.prefix + "cut/")
    with fails(SnapshotError, "missing"):
        bucket.stat(bucket.prefix + "cut/manifest")


# MLflow


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
