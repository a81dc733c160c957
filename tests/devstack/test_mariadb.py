"""The private MariaDB: starts anywhere, loses nothing that was committed, gives the writer little."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest
from servers import writer_of
from toy.job import Toy

from mlbatch.connectors.mysql.address import LoadingConnection
from mlbatch.connectors.mysql.address import connect as connect_as_is
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.devstack import mariadb, process
from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.mariadb import MariaDb, private_mariadb
from mlbatch.errors import MlbatchError, UsageError

TABLE = Toy.output.table


def connect(server, user=None, password=None, **options):
    return pymysql.connect(
        host=server.host,
        port=server.port,
        user=user or server.user,
        password=server.password if password is None else password,
        database=options.pop("database", server.database),
        autocommit=True,
        **options,
    )


def connect_as_admin(server):
    return connect(server, server.admin, server.admin_password)


def run(connection, *statements):
    rows = ()
    with closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = cursor.fetchall()
    return rows


def refusal(connection, statement):
    with pytest.raises(pymysql.err.Error) as raised:
        run(connection, statement)
    return raised.value.args[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with private_mariadb(tmp_path_factory.mktemp("mariadb")) as made:
        yield made


@pytest.fixture
def writer(server):
    with closing(connect(server)) as connection:
        yield connection


def test_it_listens_on_the_loopback_alone(server, writer):
    variables = dict(run(writer, "SHOW VARIABLES WHERE Variable_name IN ('bind_address', 'port')"))
    assert variables == {"bind_address": "127.0.0.1", "port": str(server.port)}


def test_text_is_utf8_and_compares_bytes(writer):
    assert run(writer, "SELECT @@collation_database, @@character_set_server, @@local_infile") == (
        ("utf8mb4_bin", "utf8mb4", 1),
    )
    run(writer, "CREATE TABLE words (word VARCHAR(9) PRIMARY KEY)")
    run(writer, "INSERT INTO words VALUES ('a'), ('A'), ('á'), ('🍜')")
    assert run(writer, "SELECT COUNT(*) FROM words") == ((4,),)


@pytest.mark.parametrize("user", ["root", "", "admin", "mlbatch"])
def test_no_account_is_open(server, user):
    with pytest.raises(pymysql.err.OperationalError) as raised:
        pymysql.connect(host=server.host, port=server.port, user=user or None, password="")
    assert raised.value.args[0] == 1045


def test_the_writers_rights_are_enough_for_tables_ledger_and_loading(server):
    sink = MysqlSink(writer_of(server))
    ledger = sink.ledger()
    assert sink.prepare(TABLE) == "LOAD DATA LOCAL"
    assert not ledger.runs()
    added = replace(TABLE, columns=(*TABLE.columns, replace(TABLE.columns[0], name="later")))
    sink.prepare(added)
    with closing(connect(server)) as connection:
        columns = [row[0] for row in run(connection, f"SHOW COLUMNS FROM {TABLE.name}")]
        run(connection, f"DELETE FROM {TABLE.name}")
    assert "later" in columns


def test_the_writer_loads_data_that_it_sends(server, writer):
    run(writer, "CREATE TABLE loaded (id BIGINT PRIMARY KEY, text VARCHAR(20))")
    address = writer_of(server)
    with closing(
        LoadingConnection(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password(),
            database=address.database,
            local_infile=True,
            autocommit=True,
        )
    ) as connection:
        connection.load_data = "1\tラーメン\n2\tカレー\n".encode()
        connection.query(
            "LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE loaded CHARACTER SET utf8mb4"
        )
    assert run(writer, "SELECT text FROM loaded ORDER BY id") == (("ラーメン",), ("カレー",))


def test_the_writer_sees_triggers_so_that_rows_are_written_one_by_one(server):
    table = replace(TABLE, name="watched")
    sink = MysqlSink(writer_of(server))
    sink.prepare(table)
    assert sink.way(table) is Way.LOAD
    with closing(connect_as_admin(server)) as admin:
        run(admin, "CREATE TRIGGER seen BEFORE INSERT ON watched FOR EACH ROW SET @seen = 1")
    assert sink.way(table) is Way.ROWS


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("CREATE DATABASE other", 1044),
        ("SELECT * FROM mysql.global_priv", 1142),
        ("DROP TABLE kept", 1142),
        ("CREATE USER other IDENTIFIED BY 'x'", 1227),
        ("SELECT 1 INTO OUTFILE 'x'", 1227),
        ("SELECT LOAD_FILE('/etc/passwd') FROM mysql.user", 1142),
        ("SET GLOBAL local_infile = 0", 1227),
        ("GRANT SELECT ON mlbatch.* TO mlbatch", 1044),
        ("SHUTDOWN", 1227),
    ],
)
def test_the_writer_may_do_nothing_else(server, writer, statement, code):
    with closing(connect_as_admin(server)) as admin:
        run(admin, "CREATE TABLE IF NOT EXISTS kept (id INT)")
    assert refusal(writer, statement) == code


def test_the_writer_cannot_end_other_peoples_connections(server, writer):
    with closing(connect_as_admin(server)) as admin:
        assert refusal(writer, f"KILL {admin.thread_id()}") == 1095
        assert run(admin, "SELECT 1") == ((1,),)


def test_passwords_are_not_shown_or_left_in_a_file(server):
    assert server.password not in repr(server)
    assert server.admin_password not in repr(server)
    texts = [p.read_bytes() for p in server.folder.glob("*") if p.is_file()]
    assert texts
    assert not any(server.password.encode() in text for text in texts)


def test_committed_rows_survive_a_restart_and_a_kill(tmp_path):
    with private_mariadb(tmp_path) as server:
        with closing(connect(server)) as connection:
            run(connection, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        port, first = server.port, server.identity
        server.restart()
        assert server.port == port
        assert server.identity.pid != first.pid
        with closing(connect(server)) as connection:
            run(connection, "INSERT INTO t VALUES (2)", "BEGIN", "INSERT INTO t VALUES (3)")
            server.kill()
            assert not process.is_alive(server.identity)
            assert refusal(connection, "COMMIT") == 2013
        server.restart()
        with closing(connect(server)) as connection:
            assert run(connection, "SELECT id FROM t") == ((1,), (2,))


def test_after_the_block_nothing_is_left_but_the_folder(tmp_path):
    with private_mariadb(tmp_path) as server:
        outside = (tmp_path / "run").readlink()
        assert outside.is_dir()
        identity = server.identity
    assert not outside.exists()
    assert not process.is_alive(identity)
    assert process.is_free(server.port)


def test_a_folder_with_a_very_long_name_will_do(tmp_path):
    folder = tmp_path / ("long" * 30) / "and with space"
    with private_mariadb(folder) as server, closing(connect(server)) as connection:
        assert run(connection, "SELECT 1") == ((1,),)


def test_a_taken_port_shows_the_servers_last_words(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(MlbatchError, match="ended while it started") as raised,
            private_mariadb(tmp_path, port=port),
        ):
            pass
    assert "Address already in use" in raised.value.message
    assert str(tmp_path) in raised.value.hint
    assert not (tmp_path / "run").is_symlink()


def test_with_certificates_it_is_encrypted_and_proves_its_name(tmp_path):
    own = make_certificates(tmp_path / "own", "127.0.0.1")
    other = make_certificates(tmp_path / "other", "127.0.0.1")
    with private_mariadb(tmp_path / "db", certificates=own) as server:
        trusting = replace(writer_of(server), verify_tls=True, ca=own.ca)
        assert "TLS, name checked" in MysqlSink(trusting).about()
        with closing(connect_as_is(trusting)) as connection:
            assert run(connection, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
        with pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            connect_as_is(replace(trusting, ca=other.ca))


def test_without_mariadb_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mariadb, "_PLACES", ())
    with pytest.raises(UsageError, match="mariadbd is not installed") as raised:
        MariaDb(tmp_path, 1).start()
    assert raised.value.hint == "run: make mariadb"


def test_the_second_server_copies_the_first_ones_empty_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with private_mariadb(tmp_path / "one") as one, closing(connect(one)) as connection:
        run(connection, "CREATE TABLE only_here (id INT)")
    monkeypatch.setattr(mariadb, "_install", lambda _: pytest.fail("installed again"))
    with private_mariadb(tmp_path / "two") as two, closing(connect(two)) as connection:
        assert run(connection, "SHOW TABLES") == ()
        assert two.password != one.password


def test_a_machine_without_a_writable_home_does_without_the_copy(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with private_mariadb(tmp_path / "data") as server, closing(connect(server)) as connection:
        assert run(connection, "SELECT DATABASE()") == (("mlbatch",),)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose an account")
@pytest.mark.parametrize(("mode", "account"), [(0o755, "mysql"), (0o700, "root")])
def test_root_hands_the_server_to_mariadbs_own_account_where_it_can_enter(mode, account):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        with private_mariadb(Path(folder)) as server, closing(connect(server)) as connection:
            assert run(connection, "SELECT 1") == ((1,),)
            owner = Path(f"/proc/{server.identity.pid}").stat().st_uid
    assert owner == pwd.getpwnam(account).pw_uid
