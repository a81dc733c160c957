"""How connections to the PostgreSQL face begin and end, whatever is sent to it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_client import SYNC, Client, code, kinds, query

from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.devstack.redshift.wire_messages import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    MAX_STARTUP_BYTES,
    SSL_REQUEST,
    message,
    read_message,
)


@pytest.fixture(scope="module")
def engine(lasting_engine):
    return lasting_engine


@pytest.fixture(scope="module")
def face(engine):
    made = WireServer(engine, users={"awsuser": "sesame", "日本": "語"})
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def secured(engine, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    made = WireServer(engine, users={"awsuser": "sesame"}, tls=context)
    made.start()
    yield made
    made.stop()


def connected(face):
    return socket.create_connection(("127.0.0.1", face.port), timeout=20)


def packet(code_, rest=b""):
    return struct.pack("!ii", 8 + len(rest), code_) + rest


def answer(face, sent):
    """All that comes back until the server hangs up; our side is closed for sending."""
    found = b""
    # A server that hangs up before it has read everything resets the connection.
    with connected(face) as connection, suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65_536):
            found += piece
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda rest: packet(3 << 16, rest)))
def test_any_first_bytes_leave_the_server_alive(face, sent):
    """It hangs up, with or without a word, and takes the next client."""
    found = answer(face, sent)
    assert found[:1] in (b"", b"E", b"N", b"R")


def test_after_all_that_it_still_serves(face):
    client = Client(face)
    assert kinds(client.ask(query("SELECT 1 AS a"))) == "TDCZ"
    client.close()


@pytest.mark.parametrize("length", [0, 4, 7, -1, MAX_STARTUP_BYTES + 1, 2**31 - 1])
def test_a_start_of_an_impossible_length_is_fatal(face, length):
    found = answer(face, struct.pack("!i", length))
    assert b"SFATAL\0C08P01\0Minvalid length of startup packet\0" in found


@pytest.mark.parametrize("version", [2 << 16, 4 << 16, 0, 1])
def test_another_protocol_is_refused(face, version):
    assert b"C0A000\0Munsupported frontend protocol" in answer(face, packet(version))


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSS_REQUEST])
def test_encryption_may_be_asked_for_and_is_declined(face, request_):
    assert answer(face, packet(request_)) == b"N"
    assert answer(face, packet(request_) * 2) == b"NN"


def test_inside_of_encryption_there_is_no_other(secured, certificates):
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with connected(secured) as plain:
        plain.sendall(packet(SSL_REQUEST))
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            wrapped.sendall(packet(SSL_REQUEST))
            assert wrapped.recv(1) == b"N"


def test_a_handshake_that_is_none_ends_the_connection(secured):
    with connected(secured) as connection:
        connection.sendall(packet(SSL_REQUEST))
        assert connection.recv(1) == b"S"
        connection.sendall(b"this is no handshake at all\n" * 3)
        with suppress(ConnectionError):
            while connection.recv(65_536):
                pass
    assert answer(secured, packet(SSL_REQUEST))[:1] == b"S"


@pytest.mark.parametrize(
    ("user", "reply"),
    [(b"nobody", b"pmd5x\0"), (b"awsuser", b"pmd5x\0"), (b"awsuser", b"p\0"), (b"", b"p\0"), (b"awsuser", b"Q\0"),
     ("日本".encode(), b"pmd5x\0")],
)  # fmt: skip
def test_a_wrong_proof_is_refused_with_the_user_s_name(face, user, reply):
    proof = reply[:1] + struct.pack("!i", 3 + len(reply)) + reply[1:]
    found = answer(face, packet(3 << 16, b"user\0" + user + b"\0\0") + proof)
    assert found[:1] == b"R"
    assert b'C28000\0Mpassword authentication failed for user "' + user + b'"' in found


@pytest.mark.parametrize("wrong", ["pid", "key", "nobody"])
def test_a_cancellation_with_a_wrong_number_does_nothing(face, wrong, never_ends):
    client = Client(face)
    (told,) = [body for kind, body in client.greeting if kind == b"K"]
    pid, key = struct.unpack("!ii", told)
    numbers = {"pid": (pid + 1_000, key), "key": (pid, (key + 1) % 2**31), "nobody": (0, 0)}[wrong]
    session = face.engine._sessions[pid]
    client.socket.sendall(query(never_ends))
    while session._running is None:
        time.sleep(0.01)
    running = session._running
    assert answer(face, packet(CANCEL_REQUEST, struct.pack("!ii", *numbers))) == b""
    time.sleep(0.05)
    assert session._running is running
    assert answer(face, packet(CANCEL_REQUEST, told)) == b""
    assert code(client.replies()) == "57014"
    client.close()


def test_a_cancellation_for_an_idle_session_is_forgotten(face):
    client = Client(face)
    (told,) = [body for kind, body in client.greeting if kind == b"K"]
    assert answer(face, packet(CANCEL_REQUEST, told)) == b""
    assert kinds(client.ask(query("SELECT 1 AS a"))) == "TDCZ"
    client.close()


@pytest.mark.parametrize("kind", [b"?", b"\0", b"Z", b"z"])
def test_a_message_of_no_known_kind_is_fatal(face, kind):
    client = Client(face)
    client.socket.sendall(message(kind))
    found, body = read_message(client.stream)
    assert (found, b"SFATAL\0C08P01" in body) == (b"E", True)
    assert client.stream.read() == b""
    client.close()


@pytest.mark.parametrize("kind", [b"d", b"c", b"f"])
def test_data_of_a_copy_from_the_client_is_passed_over(face, kind):
    client = Client(face)
    assert kinds(client.ask(message(kind, b"x"), SYNC)) == "Z"
    client.close()


def test_good_bye_ends_the_session(face, engine):
    client = Client(face)
    (told,) = [body for kind, body in client.greeting if kind == b"K"]
    pid, _ = struct.unpack("!ii", told)
    client.socket.sendall(message(b"X"))
    assert client.stream.read() == b""
    client.close()
    assert pid not in engine._sessions
    assert pid not in face.secrets


def test_a_query_that_is_no_text_is_refused_and_the_session_goes_on(face):
    client = Client(face)
    assert code(client.ask(message(b"Q", b"SELECT '\xff'\0"))) == "22021"
    assert kinds(client.ask(query("SELECT 1 AS a"))) == "TDCZ"
    client.close()


def test_many_clients_at_once_get_their_own_answers(face):
    found, lock = {}, threading.Lock()

    def ask(number):
        client = Client(face)
        replies = client.ask(query(f"SELECT {number} AS a, pg_backend_pid() AS p"))
        with lock:
            (found[number],) = [body for kind, body in replies if kind == b"D"]
        client.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10, 22)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found.values())) == 12
    assert all(str(number).encode() in body for number, body in found.items())
