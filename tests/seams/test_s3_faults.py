"""S3 that storms, cuts answers short, refuses or sends elsewhere: an HTTP server that does as told."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bad_inputs import ACCEPTED, TEMPORARY, bad_input

from mlbatch.connectors import aws
from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.s3 import S3Storage
from mlbatch.errors import ExitCode, SettingsError, SnapshotError, TemporaryError

CONTENT = bytes(range(256)) * 40
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>as told</Message></Error>"


class Told(BaseHTTPRequestHandler):
    """Answers GET by the next line of the server's script: a status with a code, or "cut"."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(200, b"", length=len(CONTENT))

    def do_GET(self):
        script = self.server.script
        told = script.pop(0) if script else "fine"
        self.server.asked.append(told)
        if told == "fine":
            self._answer(200, CONTENT)
        elif told == "cut":
            self._answer(200, CONTENT[: len(CONTENT) // 2], length=len(CONTENT))
            self.close_connection = True
        else:
            status, code = told.split()
            self._answer(int(status), ERROR.format(code).encode())

    def _answer(self, status, body, *, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def told():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    server.script, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def read(told):
    """Reads the object while the server follows a script."""
    endpoint = f"http://127.0.0.1:{told.server_address[1]}"
    storage = S3Storage("b", "p", AwsAccess("us-east-1", endpoint, "k", "s"))

    def follow(*script):
        told.script[:] = script
        with storage.open("s3://b/p/x", etag='"tag"') as file:
            return file.read()

    return follow


@bad_input(38, outcome=ACCEPTED)
def test_a_storm_of_503_passes(read, told):
    assert read("503 SlowDown", "503 SlowDown") == CONTENT
    assert told.asked == ["503 SlowDown", "503 SlowDown", "fine"]


@bad_input(38, outcome=TEMPORARY, says="SlowDown")
def test_a_storm_that_does_not_pass_is_temporary(read, told, monkeypatch):
    monkeypatch.setattr(aws, "ATTEMPTS", 2)
    with pytest.raises(TemporaryError, match="SlowDown") as caught:
        read(*["503 SlowDown"] * 50)
    assert caught.value.exit_code is ExitCode.TEMPORARY
    assert len(told.asked) == 2


@bad_input(40, outcome=ACCEPTED)
def test_a_body_that_is_cut_short_is_read_again_whole(read, told):
    assert read("cut", "cut") == CONTENT
    assert told.asked == ["cut", "cut", "fine"]


def test_slow_answers_are_read_again_as_often_as_quick_ones(read, told, monkeypatch):
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 60 * len(told.asked))
    assert read("cut", "cut", "cut") == CONTENT


@bad_input(40, outcome=TEMPORARY, says="4 times")
def test_a_body_that_stays_short_is_temporary(read):
    with pytest.raises(TemporaryError, match="4 times") as caught:
        read(*["cut"] * 9)
    assert caught.value.exit_code is ExitCode.TEMPORARY


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ("403 AccessDenied", SettingsError, "AccessDenied"),
        ("400 ExpiredToken", SettingsError, "ExpiredToken"),
        ("400 AuthorizationHeaderMalformed", SettingsError, "AuthorizationHeaderMalformed"),
        ("404 NoSuchKey", SnapshotError, "missing"),
        ("404 NoSuchBucket", SettingsError, "NoSuchBucket"),
        ("412 PreconditionFailed", SnapshotError, "replaced"),
    ],
)
def test_a_refusal_says_what_to_do(read, answer, error, text):
    with pytest.raises(error, match=text) as caught:
        read(*[answer] * 9)
    assert caught.value.hint
