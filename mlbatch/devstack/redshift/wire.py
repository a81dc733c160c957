"""The face that redshift-connector and psql speak to: the PostgreSQL protocol over TCP or TLS."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import BinaryIO

from mlbatch.devstack.redshift import wire_messages as messages
from mlbatch.devstack.redshift.engine import Engine, Refusal
from mlbatch.devstack.redshift.parameters import SERVER_VERSION
from mlbatch.devstack.redshift.wire_conversation import Conversation
from mlbatch.devstack.redshift.wire_messages import Body, message
from mlbatch.devstack.redshift.wire_types import BINARY_PROTOCOL

STATUS = {
    # The driver parses it; what is newer than 8.2 would change how it reads COPY's answer.
    "server_version": SERVER_VERSION,
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "TimeZone": "UTC",
}
MD5_PASSWORD = 5
_POLL_SECONDS = 0.05
_Started = tuple[socket.socket, dict[str, str]]


class WireServer:
    """Answers on ``port`` for ``users`` and their passwords; with ``tls``, for whoever asks for it."""

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Binds at once; `start` answers."""
        self.engine, self.tls = engine, tls
        self.users = dict(users or {"awsuser": "secret"})
        self.secrets: dict[int, int] = {}
        self._open: set[socket.socket] = set()
        self._stopping = False
        self._lock = threading.Lock()
        self._server = _Listener((host, port), self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,))

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody and wait for the threads: they hold sessions of the engine."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        with self._lock:
            self._stopping = True
            for connection in self._open:
                _hang_up(connection)
        while self._open:
            # A thread sees that its client is gone only between two statements.
            for pid in list(self.secrets):
                self.engine.cancel(pid)
            time.sleep(_POLL_SECONDS)
        self._server.server_close()

    @contextlib.contextmanager
    def remembered(self, connection: socket.socket) -> Iterator[None]:
        """Known to `stop` while it is open."""
        with self._lock:
            self._open.add(connection)
            if self._stopping:
                _hang_up(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    @contextlib.contextmanager
    def secret_of(self, pid: int) -> Iterator[int]:
        """What a request to cancel ``pid`` has to know."""
        self.secrets[pid] = secrets.randbelow(2**31)
        try:
            yield self.secrets[pid]
        finally:
            del self.secrets[pid]


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], face: WireServer) -> None:
        self.face = face
        super().__init__(address, _Handler)


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        """One connection, from its first byte to its last."""
        face, connection = self.server.face, self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, EOFError, ValueError), ExitStack() as stack:
            stack.enter_context(face.remembered(connection))
            try:
                started = _start(connection, face, stack)
                if started is not None:
                    secured, parameters = started
                    stream = stack.enter_context(secured.makefile("rb"))
                    _converse(face, secured, stream, parameters)
            except Refusal as refusal:
                connection.sendall(messages.error_response(refusal, "FATAL"))


def _start(connection: socket.socket, face: WireServer, stack: ExitStack) -> _Started | None:
    """Up to the start-up message; None where the connection only cancels another."""
    while True:
        body = _startup_message(connection)
        code = body.number("!i")
        if code == messages.SSL_REQUEST and face.tls and not isinstance(connection, ssl.SSLSocket):
            connection.sendall(b"S")
            connection = _secured(connection, face, face.tls, stack)
        elif code in (messages.SSL_REQUEST, messages.GSS_REQUEST):
            connection.sendall(b"N")
        elif code == messages.CANCEL_REQUEST:
            pid, key = body.number("!i"), body.number("!i")
            if face.secrets.get(pid) == key:
                face.engine.cancel(pid)
            return None
        else:
            return connection, _startup_parameters(code, body)


def _startup_message(connection: socket.socket) -> Body:
    (length,) = struct.unpack("!i", _receive(connection, 4))
    if not 8 <= length <= messages.MAX_STARTUP_BYTES:  # noqa: PLR2004  length and code
        text = "invalid length of startup packet"
        raise Refusal("08P01", text)
    return Body(_receive(connection, length - 4))


def _startup_parameters(code: int, body: Body) -> dict[str, str]:
    if code >> 16 != messages.MAJOR_VERSION:
        text = f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0"
        raise Refusal("0A000", text)
    words = body.rest().rstrip(b"\0").decode().split("\0")
    # Drivers tell of themselves what no server needs; it stays unread.
    return dict(zip(words[::2], words[1::2], strict=False))


def _receive(connection: socket.socket, size: int) -> bytes:
    # Not through a buffer, which would swallow what TLS has to read.
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _secured(
    connection: socket.socket, face: WireServer, tls: ssl.SSLContext, stack: ExitStack
) -> ssl.SSLSocket:
    secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    stack.enter_context(secured)
    # Before the handshake, in which a client may stall.
    stack.enter_context(face.remembered(secured))
    secured.do_handshake()
    return secured


def _converse(
    face: WireServer, connection: socket.socket, stream: BinaryIO, parameters: dict[str, str]
) -> None:
    user = parameters.get("user", "")
    if not _authenticated(face, connection, stream, user):
        refusal = Refusal("28000", f'password authentication failed for user "{user}"')
        connection.sendall(messages.error_response(refusal, "FATAL"))
        return
    session = face.engine.session(user)
    try:
        with face.secret_of(session.pid) as key:
            protocol, told = _negotiated(parameters)
            greeting = message(b"R", struct.pack("!i", 0))
            greeting += b"".join(messages.parameter_status(*p) for p in {**STATUS, **told}.items())
            greeting += message(b"K", struct.pack("!ii", session.pid, key))
            connection.sendall(greeting)
            Conversation(session, connection.sendall, protocol).run(stream)
    finally:
        session.close()


def _negotiated(parameters: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """The driver's protocol, 0 for a client that asks for none, and what it is told of it."""
    asked = parameters.get("client_protocol_version")
    if asked is None:
        return 0, {}
    protocol = min(int(asked), BINARY_PROTOCOL) if asked.isdecimal() else 0
    return protocol, {"server_protocol_version": str(protocol)}


def _authenticated(
    face: WireServer, connection: socket.socket, stream: BinaryIO, user: str
) -> bool:
    salt = secrets.token_bytes(4)
    connection.sendall(message(b"R", struct.pack("!i", MD5_PASSWORD) + salt))
    kind, body = messages.read_message(stream)
    password = face.users.get(user)
    if kind != b"p" or password is None:
        return False
    # The protocol's own hashing; nobody's choice.
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return secrets.compare_digest(body.rstrip(b"\0"), b"md5" + outer.encode())
