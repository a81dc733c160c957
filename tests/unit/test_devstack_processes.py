"""Processes, state, certificates and settings of a stack, where things have gone wrong."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlbatch.devstack import process
from mlbatch.devstack import stack as stacks
from mlbatch.devstack.certificates import LIFE, make_certificates
from mlbatch.devstack.objects import ObjectServer
from mlbatch.devstack.process import Identity, Service
from mlbatch.devstack.redshift.serve import Config, main, read_config
from mlbatch.devstack.registry import Registry
from mlbatch.devstack.stack import Stack, as_toml
from mlbatch.devstack.state import FILE, PORTS, Running, State, read_state, write_state
from mlbatch.devstack.warehouse import Ports, Warehouse
from mlbatch.errors import ExitCode, MlbatchError

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def started(tmp_path):
    """Start Python with a text; whatever runs at the end is killed."""
    found = []

    def of(text, *, answers=lambda: True, name="small"):
        log = tmp_path / f"{name}.log"
        service = Service(name, [sys.executable, "-c", text], tmp_path, log, answers)
        found.append(process.launch(service))
        return service, found[-1]

    yield of
    for identity in found:
        process.kill(identity)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


# Processes


def test_a_process_knows_its_mark_and_writes_to_its_log(started, tmp_path):
    service, identity = started("import os; print(os.environ['MLBATCH_DEVSTACK_MARK'], flush=True)")
    until(lambda: process.last_lines(service.log))
    assert process.last_lines(service.log) == [identity.mark]
    until(lambda: not process.is_alive(identity))


def test_a_log_is_appended_to(started):
    service, first = started("print('first')")
    until(lambda: not process.is_alive(first))
    _, second = started("print('second')")
    until(lambda: not process.is_alive(second))
    assert process.last_lines(service.log) == ["first", "second"]


@pytest.mark.parametrize(
    ("content", "count", "lines"),
    [(b"", 12, []), (b"a\nb\n", 12, ["a", "b"]), (b"a\nb\nc\n", 2, ["b", "c"]),
     (b"\xff\n", 12, ["�"]), (b"no end", 12, ["no end"])],
)  # fmt: skip
def test_the_last_lines_of_a_log(tmp_path, content, count, lines):
    (tmp_path / "log").write_bytes(content)
    assert process.last_lines(tmp_path / "log", count) == lines


def test_the_last_lines_of_no_log(tmp_path):
    assert process.last_lines(tmp_path / "none") == []
    assert process.last_lines(tmp_path) == []


def test_a_process_that_said_nothing_is_said_to_have_said_nothing(started):
    service, identity = started("raise SystemExit(3)", answers=lambda: False)
    with pytest.raises(MlbatchError, match=r"small ended while it started[\s\S]*\(nothing\)"):
        process.wait_until_ready(service, identity)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_was_ended_by_others_is_dead(started, number):
    _, identity = started(SLEEP)
    assert process.is_alive(identity)
    os.kill(identity.pid, number)
    until(lambda: not process.is_alive(identity))
    assert process.stop(identity) is False


def test_another_start_time_is_another_process(started):
    _, identity = started(SLEEP)
    stranger = Identity(identity.pid, "1", identity.mark)
    assert not process.is_alive(stranger)
    assert process.stop(stranger) is False
    process.kill(stranger)
    assert process.is_alive(identity)


@pytest.mark.parametrize("pid", [2**22 + 1, 999_999_999])
def test_a_number_that_nobody_has(pid):
    identity = Identity(pid, "", "x")
    assert not process.is_alive(identity)
    assert process.stop(identity) is False
    assert not process._exists(pid)


def test_a_stopped_process_is_woken_to_end(started):
    _, identity = started(SLEEP)
    os.kill(identity.pid, signal.SIGSTOP)
    assert process.stop(identity, seconds=10)
    assert not process.is_alive(identity)


def test_a_process_that_ignores_the_kind_word_is_killed(started):
    text = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); "
        + SLEEP
    )
    service, identity = started(text)
    until(lambda: process.last_lines(service.log))
    began = time.monotonic()
    assert process.stop(identity, seconds=0.2)
    assert not process.is_alive(identity)
    assert time.monotonic() - began >= 0.2


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps on this machine")
def test_without_proc_the_same_is_asked_of_ps(started, monkeypatch, tmp_path):
    """As on a Mac, where there is no /proc."""
    monkeypatch.setattr(process, "_PROC", tmp_path / "none")
    _, identity = started(SLEEP)
    assert process.is_alive(identity)
    assert not process.is_alive(Identity(identity.pid, "another day", identity.mark))
    assert process._exists(identity.pid)
    assert process.stop(identity)
    assert not process.is_alive(identity)


def test_a_process_of_somebody_else_exists(monkeypatch):
    def refused(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert process._exists(1)


# Ports


@pytest.mark.parametrize("count", [0, 1, 20])
def test_free_ports_are_free_and_different(count):
    ports = process.free_ports(count)
    assert len(set(ports)) == count
    assert all(process.is_free(port) for port in ports)


def test_a_taken_port_is_not_free_and_answers():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert not process.port_answers(port)
        taken.listen()
        assert not process.is_free(port)
        assert process.port_answers(port)
    assert process.is_free(port)
    assert not process.port_answers(port)


class _Odd(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "answers"), [(200, True), (204, True), (404, False), (500, False)]
)
def test_only_a_success_is_an_answer(status, answers, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for other machines
    with http.server.HTTPServer(("127.0.0.1", 0), _Odd) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert process.http_answers(f"http://127.0.0.1:{server.server_port}/{status}") is answers
        thread.join()


def test_whoever_speaks_no_http_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 hello\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        assert process.http_answers(f"http://127.0.0.1:{server.getsockname()[1]}/") is False
        thread.join()
    assert process.http_answers(f"http://127.0.0.1:{process.free_ports(1)[0]}/") is False


# State


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"version": 2}', b'{"ports": {"s3": "x"}, "secrets": {}}',
     b'{"ports": {}, "secrets": {}, "face": "fax"}', b'{"ports": {}, "secrets": {}, "odd": 1}',
     b'{"ports": {}, "secrets": {}, "running": {"s3": {"pid": "x"}}}'],
)  # fmt: skip
def test_a_damaged_state_says_what_to_do(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    for ask in (lambda: read_state(tmp_path), Stack(tmp_path).status, Stack(tmp_path).down,
                lambda: stacks.profile(tmp_path)):  # fmt: skip
        with pytest.raises(MlbatchError, match="cannot be read") as caught:
            ask()
        assert "end its servers by hand" in caught.value.hint
        assert (tmp_path / FILE).read_bytes() == content


def test_a_damaged_state_shows_no_secret(tmp_path):
    (tmp_path / FILE).write_text('{"ports": {}, "secrets": {"mysql_admin": ["hush-hush"]}}')
    with pytest.raises(MlbatchError) as caught:
        read_state(tmp_path)
    assert "hush-hush" not in str(caught.value)


NAMES = st.sampled_from(sorted(PORTS))


@settings(deadline=None, max_examples=30)
@given(running=st.dictionaries(NAMES, st.tuples(st.integers(1, 2**22), st.booleans())),
       face=st.sampled_from(["data_api", "wire", "queuery"]))  # fmt: skip
def test_what_is_written_is_read(tmp_path_factory, running, face):
    state = State(face=face, ports={"s3": 1}, secrets={"redshift": "s"}, running={
        name: Running(pid=pid, started_at="7", mark="m", is_ready=ready)
        for name, (pid, ready) in running.items()})  # fmt: skip
    folder = tmp_path_factory.mktemp("state")
    write_state(folder, state)
    assert read_state(folder) == state
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == [FILE]


def test_a_leftover_of_a_write_that_was_cut_off_is_replaced(tmp_path):
    (tmp_path / f"{FILE}.part").write_text("half")
    state = State(ports={}, secrets={})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_a_fresh_state_has_a_port_for_each_face_and_new_secrets():
    one, other = State.fresh(), State.fresh()
    names = {name for names in PORTS.values() for name in names}
    assert set(one.ports) == names
    assert len(set(one.ports.values())) == len(names)
    assert not set(one.secrets.values()) & set(other.secrets.values())
    assert all(secret not in repr(one) for secret in one.secrets.values())


@pytest.mark.parametrize(("is_ready", "is_alive", "serves"), [(True, True, True), (False, True, False),
                                                             (True, False, False)])  # fmt: skip
def test_a_server_serves_when_it_is_ready_and_alive(started, is_ready, is_alive, serves):
    _, identity = started(SLEEP)
    started_at = identity.started_at if is_alive else "0"
    running = Running(
        pid=identity.pid, started_at=started_at, mark=identity.mark, is_ready=is_ready
    )
    state = State(ports={}, secrets={}, running={"s3": running})
    assert state.serves("s3") is serves
    assert state.serves("mysql") is False


# The stack without its servers


def test_a_stack_that_is_not_there_is_stopped_and_has_nothing(tmp_path):
    stack = Stack(tmp_path / "none")
    assert [(one.name, one.state, one.ports) for one in stack.status()] == [
        (name, "stopped", {}) for name in PORTS
    ]
    assert stack.down() == []
    assert stacks.profile(stack.root) is None
    assert not stack.root.exists()


def test_a_folder_without_a_state_is_left_alone(tmp_path):
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "mine.txt").write_text("x")
    assert Stack(tmp_path / "stack").down() == []
    assert (tmp_path / "stack" / "mine.txt").exists()


def test_a_state_whose_servers_are_dead_is_dead_and_goes(tmp_path):
    root = tmp_path / "stack"
    root.mkdir()
    state = State.fresh()
    state.running = {name: Running(pid=2**22 + 1, started_at="1", mark="x", is_ready=True)
                     for name in PORTS}  # fmt: skip
    write_state(root, state)
    assert {one.name: one.state for one in Stack(root).status()} == dict.fromkeys(
        ("redshift", "s3", "mysql", "mlflow"), "dead"
    )
    assert stacks.profile(root) is None
    assert Stack(root).down() == []
    assert not root.exists()


def test_keeping_forgets_the_servers_and_nothing_else(tmp_path):
    root = tmp_path / "stack"
    root.mkdir()
    state = State.fresh()
    state.running = {"s3": Running(pid=2**22 + 1, started_at="1", mark="x")}
    write_state(root, state)
    Stack(root).down(keep=True)
    kept = read_state(root)
    assert (kept.ports, kept.secrets, kept.running) == (state.ports, state.secrets, {})


@pytest.mark.parametrize("face", ["data_api", "wire", "queuery"])
def test_settings_are_toml_and_name_this_stack(face):
    state = State.fresh()
    state.face = face
    found = stacks.settings(state)
    assert tomllib.loads(as_toml(found, "devstack")) == {"profiles": {"devstack": found}}
    warehouse = found["warehouse"]
    assert warehouse["kind"] == ("queuery" if face == "queuery" else "redshift")
    assert found["sink"]["port"] == state.ports["mysql"]
    assert found["storage"]["endpoint"].endswith(f":{state.ports['s3']}")
    if face == "queuery":
        assert warehouse["token_secret"] == state.secrets["queuery"]
    else:
        assert (warehouse["transport"], warehouse["password"]) == (face, state.secrets["redshift"])


def test_ports_that_others_took_are_replaced_and_the_warehouse_follows_its_store(started):
    _, identity = started(SLEEP)
    state = State.fresh()
    state.running = {"redshift": Running(pid=identity.pid, started_at=identity.started_at,
                                         mark=identity.mark, is_ready=True)}  # fmt: skip
    before = dict(state.ports)
    with socket.create_server(("127.0.0.1", before["s3"])):
        stacks._mend_ports(state)
    changed = {name for name in before if before[name] != state.ports[name]}
    assert changed == {"s3"}
    assert state.running == {}
    assert not process.is_alive(identity)


# How each server is started


def test_every_server_listens_on_the_loopback_alone(tmp_path):
    store = ObjectServer(tmp_path / "s3", 1)
    command = store.prepare().command
    assert command[command.index("-H") + 1] == "127.0.0.1"
    registry = Registry(tmp_path / "mlflow", 2)
    command = registry.prepare().command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:2,localhost:2"
    assert not store.answers()
    assert not registry.answers()


def test_the_warehouse_is_configured_for_its_owner_alone(tmp_path):
    warehouse = Warehouse(tmp_path / "w", Ports(1, 2, 3), ObjectServer(tmp_path, 4), "pass", "hush")
    service = warehouse.prepare()
    (file,) = [Path(text) for text in service.command if text.endswith(".json")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = read_config(file)
    assert (config.wire.port, config.data_api.port, config.queuery.port) == (1, 2, 3)
    assert config.wire.users == {"awsuser": "pass"}
    assert config.queuery.tokens == {"devstack": "hush"}
    assert "pass" not in repr(warehouse)
    assert "hush" not in repr(config)
    assert warehouse.queuery_endpoint == "http://127.0.0.1:3"
    assert not warehouse.answers()


def test_a_bucket_that_cannot_be_made_is_named(tmp_path):
    """Whoever listens on the port is no S3."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        store = ObjectServer(tmp_path, server.server_port)
        with pytest.raises(MlbatchError, match="the bucket mlbatch cannot be made") as caught:
            store.complete()
        server.shutdown()
        thread.join()
    assert str(store.log) in caught.value.hint


class _Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("content", "place"),
    [("{", "the file"), ("[]", "the file"), ('{"odd": 1}', "odd"), ('{"slices": "x"}', "slices"),
     ('{"wire": {"port": "x"}}', "wire.port"), ('{"queuery": {}}', "queuery.tokens"),
     ('{"empty_unload": "x"}', "empty_unload"), ('{"store": {"bucket": 1}}', "store.bucket"),
     ('{"faults": [1]}', "faults.0")],
)  # fmt: skip
def test_a_wrong_configuration_of_the_warehouse_is_named(tmp_path, capsys, content, place):
    file = tmp_path / "redshift.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file}: {place}: "):
        read_config(file)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert main(["--config", str(file)]) == ExitCode.USAGE
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert f"{place}: " in capsys.readouterr().err


def test_a_warehouse_without_its_file_or_with_a_taken_port_ends_with_a_word(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = tmp_path / "redshift.json"
        file.write_text(json.dumps({"data_api": {"port": taken.getsockname()[1]}}))
        for config in (tmp_path / "none.json", file):
            ended = subprocess.run(
                [sys.executable, "-m", "mlbatch.devstack.redshift.serve", "--config", str(config)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert ended.returncode == ExitCode.USAGE
            assert ended.stderr.startswith("cannot start the local Redshift: ")
            assert "Traceback" not in ended.stderr


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError):
        Config().host = "0.0.0.0"


# Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1", "::1")


def test_a_certificate_names_its_hosts_and_its_authority(certificates):
    made = x509.load_pem_x509_certificate(certificates.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(certificates.ca.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    made.verify_directly_issued_by(authority)
    constraints = x509.BasicConstraints
    assert authority.extensions.get_extension_for_class(constraints).value.ca
    assert not made.extensions.get_extension_for_class(constraints).value.ca
    now = datetime.now(UTC)
    assert made.not_valid_before_utc < now < made.not_valid_after_utc <= now + LIFE
    assert stat.S_IMODE(certificates.key.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("host", "trusts"), [("localhost", True), ("127.0.0.1", True), ("other.example", False)]
)
def test_clients_trust_it_for_its_hosts_alone(certificates, host, trusts):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.certificate, certificates.key)
    client = ssl.create_default_context(cafile=str(certificates.ca))
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(theirs, ours, server_hostname=host)
    other = server.wrap_bio(ours, theirs, server_side=True)

    def shake():
        for _ in range(4):
            for side in (one, other):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue

    if trusts:
        shake()
        assert one.version() == other.version() == "TLSv1.3"
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake()


def test_two_authorities_do_not_vouch_for_each_other(certificates, tmp_path):
    stranger = make_certificates(tmp_path, "localhost")
    made = x509.load_pem_x509_certificate(certificates.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(stranger.ca.read_bytes())
    with pytest.raises(InvalidSignature):
        made.verify_directly_issued_by(authority)
