"""A small HTTP server for the faces: requests in, replies out, stopped cleanly."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlbatch.devstack.redshift.faults import Dropped, Fault, Faults

FAULTS_PATH = "/_faults"
LONGEST_LINE = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What it gets."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(
    status: int, document: object, *, kind: str = "application/json", **headers: str
) -> Reply:
    """A reply of JSON."""
    body = json.dumps(document, ensure_ascii=False).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, {"Content-Type": kind, **named})


class HttpFace:
    """One port that answers by ``handle``; `Dropped` closes the connection without a reply."""

    def __init__(self, handle: Callable[[Request], Reply], host: str, port: int) -> None:
        """Binds at once, so that ``port`` says which one it is when 0 was asked for."""
        self._server = _Server((host, port), handle)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.host, self.port = host, int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection and wait for their threads."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    # Threads that outlive the interpreter abort it, so they are waited for.
    daemon_threads = False

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], Reply]) -> None:
        super().__init__(address, _Handler)
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that went away is no news."""

    def hang_up(self) -> None:
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Turns one connection's requests over to its server's ``answer``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        """One request of any method."""
        self.raw_requestline = self.rfile.readline(LONGEST_LINE)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        try:
            request = self._request()
        except ValueError:
            self.close_connection = True
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            reply = self.server.answer(request)
        except Dropped:
            self.close_connection = True
            return
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _request(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        if length < 0:
            raise ValueError(length)
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        return Request(self.command, parts.path, query, headers, self.rfile.read(length))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def faults_reply(request: Request, faults: Faults) -> Reply:
    """GET, POST and DELETE of the rules that make the stand-in misbehave."""
    if request.method == "DELETE":
        faults.clear()
    elif request.method == "POST":
        try:
            found = json.loads(request.body)
            made = [Fault.of(rule) for rule in (found if isinstance(found, list) else [found])]
        except ValueError as error:
            return json_reply(400, {"error": str(error)})
        for fault in made:
            faults.add(fault)
    rules = [{"kind": r.kind, "pattern": r.pattern, "times": r.times} for r in faults.rules]
    return json_reply(200, {"faults": rules})
