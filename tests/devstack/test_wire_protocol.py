"""The PostgreSQL face, spoken to byte by byte and by psql."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
import time

import pytest
from wire_client import (
    SYNC,
    Client,
    bind,
    cells,
    code,
    execute,
    kinds,
    parse,
    query,
    statuses,
)

from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.devstack.redshift.wire_messages import message, read_message


@pytest.fixture
def engine():
    """An engine that has nowhere to unload to."""
    made = Engine(None, store=None)
    yield made
    made.close()


@pytest.fixture
def client(face):
    made = Client(face)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("asked", "granted"), [("0", "0"), ("1", "1"), ("2", "2"), ("9", "2"), ("x", "0")]
)
def test_the_driver_s_protocol_is_negotiated(face, asked, granted):
    client = Client(face, client_protocol_version=asked)
    client.close()
    assert statuses(client)["server_protocol_version"] == granted
    assert statuses(client)["server_version"] == "8.0.2"


def test_a_client_that_knows_no_protocols_is_told_of_none(client):
    assert "server_protocol_version" not in statuses(client)


def test_a_simple_query_comes_as_text(client):
    sql = (
        "SELECT true AS a, 1.50::numeric(6,2) AS b, '2026-01-02 03:04:05.5'::timestamp AS c,"
        " '2026-01-02 03:04:05+09'::timestamptz AS d, '-Infinity'::float8 AS e, NULL::int AS f"
    )
    replies = client.ask(query(sql))
    assert kinds(replies) == "TDCZ"
    assert cells(replies) == [
        [b"t", b"1.50", b"2026-01-02 03:04:05.5", b"2026-01-01 18:04:05+00", b"-Infinity", None]
    ]
    assert replies[-2:] == [(b"C", b"SELECT\0"), (b"Z", b"I")]


def test_several_statements_in_one_message_are_one_transaction(client):
    replies = client.ask(query("CREATE TABLE t (a INT); INSERT INTO t VALUES (1); SELECT 1 AS x"))
    assert kinds(replies) == "CCTDCZ"
    replies = client.ask(query("INSERT INTO t VALUES (2); SELECT * FROM nowhere; SELECT 1 AS x"))
    assert kinds(replies) == "CEZ"
    assert replies[-1] == (b"Z", b"I")
    assert cells(client.ask(query("SELECT COUNT(*) FROM t"))) == [[b"1"]]


def test_statements_with_their_own_transaction_keep_it(client):
    client.ask(query("CREATE TABLE t (a INT)"))
    assert client.ask(query("BEGIN; INSERT INTO t VALUES (1)"))[-1] == (b"Z", b"T")
    assert client.ask(query("SELECT * FROM nowhere"))[-1] == (b"Z", b"E")
    assert client.ask(query("ROLLBACK; SELECT 1 AS x"))[-1] == (b"Z", b"I")
    assert cells(client.ask(query("SELECT COUNT(*) FROM t"))) == [[b"0"]]


def test_after_an_error_messages_are_passed_over_up_to_sync(client):
    replies = client.ask(parse("SELECT * FROM nowhere"), bind(), execute(), execute(), SYNC)
    assert kinds(replies) == "12EZ"
    assert code(replies) == "42P01"
    assert kinds(client.ask(parse("SELECT 1 AS x"), bind(), execute(), SYNC)) == "12DCZ"


def test_rows_come_in_portions(client):
    sql = "SELECT i FROM generate_series(1, 5) g(i)"
    replies = client.ask(
        query("BEGIN"), parse(sql), bind(), execute(2), execute(2), execute(2), execute(2), SYNC
    )
    replies += client.replies()
    assert kinds(replies) == "CZ12DDsDDsDCCZ"
    assert [int(value) for (value,) in cells(replies)] == [1, 2, 3, 4, 5]


def test_portals_end_with_the_transaction(client):
    client.ask(parse("SELECT 1 AS x"), bind(), execute(), SYNC)
    assert code(client.ask(execute(), SYNC)) == "34000"


def test_parameters_without_a_type_and_with_binary_values(client):
    sql = "SELECT $2::int + $1 AS a"
    described = client.ask(parse(sql, 23), message(b"D", b"S\0"), SYNC)
    assert described[1] == (b"t", struct.pack("!hii", 2, 23, 705))
    bound = bind(struct.pack("!i", 40), b"2", formats=(1, 0), results=(1,))
    assert cells(client.ask(bound, execute(), SYNC)) == [[struct.pack("!i", 42)]]


@pytest.mark.parametrize(
    ("oid", "form", "value", "state"),
    [
        (23, 0, b"many", "22P02"),
        (1082, 0, b"yesterday", "22P02"),
        (23, 1, b"\0\1", "22P03"),
        (1082, 1, b"\x7f\xff\xff\xff", "22P03"),
        (705, 0, b"\xff\xfe", "22021"),
        (1700, 1, b"\0" * 8, "0A000"),
        (1007, 1, b"\0" * 20, "0A000"),
    ],
)
def test_a_parameter_that_cannot_be_read_is_refused(client, oid, form, value, state):
    replies = client.ask(parse("SELECT $1 AS a", oid), bind(value, formats=(form,)), SYNC)
    assert (code(replies), kinds(replies)) == (state, "1EZ")


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        ((bind(name=b"nobody"),), "26000"),
        ((message(b"D", b"Pnobody\0"),), "34000"),
        ((parse("SELECT $1 AS a"), bind()), "08P01"),
        ((parse("SELECT 1 AS a"), bind(results=(0, 0)), execute()), "08P01"),
        ((parse("SELECT 1.5::numeric(4,1) AS a"), bind(results=(1,)), execute()), "0A000"),
        ((parse("SELECT 1; SELECT 2"), message(b"D", b"S\0")), "42601"),
    ],
)
def test_steps_out_of_order_are_refused(client, messages, state):
    assert code(client.ask(*messages, SYNC)) == state
    assert kinds(client.ask(message(b"C", b"Snobody\0"), message(b"C", b"P\0"), SYNC)) == "33Z"


@pytest.mark.parametrize(
    "broken",
    [
        b"Q" + struct.pack("!i", 3),
        b"Q" + struct.pack("!i", 1 << 30),
        message(b"?"),
        message(b"Q", b"without end"),
        message(b"D"),
        parse("x")[:-1] + b"\5",
    ],
)
def test_what_is_no_message_ends_the_connection(client, broken):
    client.socket.sendall(broken)
    kind, body = read_message(client.stream)
    assert (kind, body[:15]) == (b"E", b"SFATAL\0C08P01\0M")
    assert client.stream.read() == b""


def test_flush_sends_what_is_ready(client):
    client.socket.sendall(parse("SELECT 1 AS x") + message(b"H"))
    assert read_message(client.stream) == (b"1", b"")
    client.socket.sendall(execute())
    assert read_message(client.stream)[0] == b"E"  # an error does not wait


@pytest.mark.parametrize(
    ("packet", "state"),
    [
        (struct.pack("!ii", 8, 2 << 16), b"C0A000"),
        (struct.pack("!i", 7), b"C08P01"),
        (b"GET / HTTP/1.1\r\n\r\n", b"C08P01"),
    ],
)
def test_a_start_that_is_none_is_refused(face, packet, state):
    with socket.create_connection(("127.0.0.1", face.port)) as raw:
        raw.sendall(packet)
        with raw.makefile("rb") as stream:
            kind, body = read_message(stream)
    assert kind == b"E"
    assert state in body


def test_encryption_that_is_not_there_is_declined(face):
    with socket.create_connection(("127.0.0.1", face.port)) as raw:
        for request in (80_877_104, 80_877_103):
            raw.sendall(struct.pack("!ii", 8, request))
            assert raw.recv(1) == b"N"


def test_stopping_what_never_started_is_nothing(engine):
    WireServer(engine).stop()


def test_stopping_waits_for_no_handshake_and_no_silent_client(engine, tmp_path):
    files = make_certificates(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    face = WireServer(engine, tls=context)
    face.start()
    place = ("127.0.0.1", face.port)
    with socket.create_connection(place) as silent, socket.create_connection(place) as raw:
        raw.sendall(struct.pack("!ii", 8, 80_877_103))
        assert raw.recv(1) == b"S"
        started = time.monotonic()
        face.stop()
        assert time.monotonic() - started < 5
        assert raw.recv(1) == silent.recv(1) == b""


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_psql_reads_it(face):
    sql = "CREATE TABLE t (a INT, b VARCHAR(9)); INSERT INTO t VALUES (1, '牛丼'), (2, NULL)"
    command = ["psql", "-X", "-h", "127.0.0.1", "-p", str(face.port), "-U", "awsuser", "-d", "dev"]
    command += ["-A", "-t", "-c", sql, "-c", "SELECT * FROM t ORDER BY a"]
    environment = {**os.environ, "PGPASSWORD": "sesame", "PGCONNECT_TIMEOUT": "20"}
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2:] == ["1|牛丼", "2|"]
