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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from mlbatch.devstack.redshift import wire_messages as messages
from mlbatch.devstack.redshift.engine import Answer, Engine, Refusal, Session
from mlbatch.devstack.redshift.faults import Dropped
from mlbatch.devstack.redshift.wire_messages import Body, message

STATUS = {
    # The driver parses it; what is newer than 8.2 would change how it reads COPY's answer.
    "server_version": "8.0.2",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "integer_datetimes": "on",
    "TimeZone": "UTC",
    "server_protocol_version": "0",
}
MD5_PASSWORD = 5


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
        self._lock = threading.Lock()
        self._server = _Listener((host, port), self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody and wait for the threads: they hold sessions of the engine."""
        self._server.shutdown()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def remembered(self, connection: socket.socket) -> Any:  # noqa: ANN401  a context
        """Known to `stop` while it is open."""
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


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
        with face.remembered(connection), contextlib.suppress(OSError, EOFError, ValueError):
            started = _start(connection, face)
            if started is None:
                return
            secured, parameters = started
            with face.remembered(secured), secured, secured.makefile("rb") as stream:
                _converse(face, secured, stream, parameters)


def _start(
    connection: socket.socket, face: WireServer
) -> tuple[socket.socket, dict[str, str]] | None:
    """Up to the start-up message; None where the connection only cancels another."""
    while True:
        (length,) = struct.unpack("!i", _receive(connection, 4))
        body = Body(_receive(connection, length - 4))
        code = body.number("!i")
        if code == messages.SSL_REQUEST:
            connection.sendall(b"S" if face.tls else b"N")
            if face.tls:
                connection = face.tls.wrap_socket(connection, server_side=True)
        elif code == messages.CANCEL_REQUEST:
            pid, key = body.number("!i"), body.number("!i")
            if face.secrets.get(pid) == key:
                face.engine.cancel(pid)
            return None
        else:
            words = body.rest().rstrip(b"\0").decode().split("\0")
            return connection, dict(zip(words[::2], words[1::2], strict=False))


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _converse(
    face: WireServer, connection: socket.socket, stream: BinaryIO, parameters: dict[str, str]
) -> None:
    user = parameters.get("user", "")
    if not _authenticated(face, connection, stream, user):
        text = f'password authentication failed for user "{user}"'
        connection.sendall(messages.error_response("28000", text))
        return
    session = face.engine.session(user)
    face.secrets[session.pid] = secrets.randbelow(2**31)
    try:
        greeting = message(b"R", struct.pack("!i", 0))
        greeting += b"".join(messages.parameter_status(*pair) for pair in STATUS.items())
        greeting += message(b"K", struct.pack("!ii", session.pid, face.secrets[session.pid]))
        connection.sendall(greeting)
        _Conversation(session, connection.sendall).run(stream)
    finally:
        face.secrets.pop(session.pid, None)
        session.close()


def _authenticated(
    face: WireServer, connection: socket.socket, stream: BinaryIO, user: str
) -> bool:
    salt = secrets.token_bytes(4)
    connection.sendall(message(b"R", struct.pack("!i", MD5_PASSWORD) + salt))
    _, body = messages.read_message(stream)
    password = face.users.get(user)
    if password is None:
        return False
    # The protocol's own hashing; nobody's choice.
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return secrets.compare_digest(body.rstrip(b"\0"), b"md5" + outer.encode())


@dataclass(slots=True)
class _Prepared:
    sql: str
    oids: list[int]
    schema: pa.Schema | None = None
    is_described: bool = False


@dataclass(slots=True)
class _Portal:
    prepared: _Prepared
    values: list[object]
    formats: list[int] = field(default_factory=list)


class _Conversation:
    """One session's messages: simple queries, and prepared ones in their steps."""

    def __init__(self, session: Session, send: Callable[[bytes], None]) -> None:
        self._session, self._send = session, send
        self._prepared: dict[str, _Prepared] = {}
        self._portals: dict[str, _Portal] = {}
        self._skipping = False
        self._steps: dict[bytes, Callable[[Body], None]] = {
            b"P": self._parse,
            b"B": self._bind,
            b"D": self._describe,
            b"E": self._execute,
            b"C": self._close,
        }

    def run(self, stream: BinaryIO) -> None:
        """Until the client says good-bye."""
        self._ready()
        while True:
            kind, data = messages.read_message(stream)
            if kind == b"X":
                return
            if kind == b"S":
                self._skipping = False
                self._ready()
            elif kind == b"Q":
                self._guarded(self._query, Body(data))
                self._ready()
            elif kind in self._steps and not self._skipping:
                # After an error everything is passed over up to the next Sync.
                self._skipping = not self._guarded(self._steps[kind], Body(data))

    def _guarded(self, step: Callable[[Body], None], body: Body) -> bool:
        try:
            step(body)
        except Refusal as refusal:
            self._send(messages.error_response(refusal.sqlstate, refusal.message))
            return False
        except Dropped as dropped:
            raise EOFError from dropped
        return True

    def _ready(self) -> None:
        open_state = b"E" if self._session.failed else b"T"
        state = open_state if self._session.in_transaction else b"I"
        self._send(message(b"Z", state))

    def _query(self, body: Body) -> None:
        answer = self._session.execute(body.text())
        if answer.table is not None:
            self._send(messages.row_description(answer.table.schema))
        self._finish(answer, [])

    def _parse(self, body: Body) -> None:
        name, sql = body.text(), body.text()
        self._prepared[name] = _Prepared(sql, body.numbers("!i"))
        self._send(message(b"1"))

    def _described(self, prepared: _Prepared) -> pa.Schema | None:
        if not prepared.is_described:
            prepared.schema = self._session.describe(prepared.sql, len(prepared.oids))
            prepared.is_described = True
        return prepared.schema

    def _describe(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        prepared = self._named(name) if kind == b"S" else self._portal(name).prepared
        schema = self._described(prepared)
        if kind == b"S":
            oids = struct.pack("!h", len(prepared.oids))
            oids += b"".join(struct.pack("!i", oid) for oid in prepared.oids)
            self._send(message(b"t", oids))
        self._send(message(b"n") if schema is None else messages.row_description(schema))

    def _bind(self, body: Body) -> None:
        portal, prepared = body.text(), self._named(body.text())
        formats = body.numbers("!h")
        count = body.number("!h")
        formats = formats * count if len(formats) == 1 else formats or [0] * count
        oids = prepared.oids + [0] * (count - len(prepared.oids))
        values: list[object] = []
        for oid, form in zip(oids, formats, strict=True):
            size = body.number("!i")
            data = None if size < 0 else body.take(size)
            values.append(None if data is None else messages.argument(data, oid, form))
        self._portals[portal] = _Portal(prepared, values, body.numbers("!h"))
        self._send(message(b"2"))

    def _execute(self, body: Body) -> None:
        portal = self._portal(body.text())
        answer = self._session.execute(portal.prepared.sql, portal.values)
        schema = portal.prepared.schema
        if answer.table is not None and schema is not None and answer.table.schema != schema:
            # The client was told these types; rows in others would be misread.
            answer = Answer(answer.tag, answer.table.cast(schema), answer.notices, answer.rows)
        self._finish(answer, portal.formats)

    def _finish(self, answer: Answer, formats: list[int]) -> None:
        waiting: list[bytes] = []
        for row in messages.data_rows(answer.table, formats) if answer.table is not None else ():
            waiting.append(row)
            if len(waiting) >= 1_000:  # noqa: PLR2004  rows to a packet
                self._send(b"".join(waiting))
                waiting.clear()
        waiting += [messages.notice_response(text) for text in answer.notices]
        waiting.append(message(b"C", answer.tag.encode() + b"\0"))
        self._send(b"".join(waiting))

    def _close(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            self._prepared.pop(name, None)
        else:
            self._portals.pop(name, None)
        self._send(message(b"3"))

    def _named(self, name: str) -> _Prepared:
        if name not in self._prepared:
            raise Refusal("26000", f'prepared statement "{name}" does not exist')
        return self._prepared[name]

    def _portal(self, name: str) -> _Portal:
        if name not in self._portals:
            raise Refusal("34000", f'portal "{name}" does not exist')
        return self._portals[name]
