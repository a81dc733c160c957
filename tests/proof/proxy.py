"""A proxy in front of MySQL that loses replies to COMMIT, or the COMMIT itself, or tears a packet."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass, field

HEADER = 4
QUERY = 3
FAULTS = ("lost reply", "not delivered", "torn packet")


@dataclass
class Counts:
    """What has happened so far."""

    commits: int = 0
    struck: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))


class Proxy:
    """Listens on ``port`` and forwards to MySQL at ``target``; strikes one COMMIT in ``one_in``."""

    def __init__(self, target: int, seed: int, one_in: int = 6) -> None:
        self._target, self._random, self._one_in = target, random.Random(seed), one_in
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.counts = Counts()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            answers = _Pump(server, client)
            answers.start()
            self._forward(client, server, answers)

    def _forward(self, client: socket.socket, server: socket.socket, answers: _Pump) -> None:
        while True:
            packet = _packet(client)
            if packet is None:
                return
            fault = self._fault(packet)
            if fault == "not delivered":
                return
            if fault == "torn packet":
                server.sendall(packet[: len(packet) // 2])
                return
            if fault == "lost reply":
                answers.is_muted = True
                server.sendall(packet)
                answers.heard.wait(5)
                return
            server.sendall(packet)

    def _fault(self, packet: bytes) -> str | None:
        if packet[HEADER : HEADER + 1] != bytes([QUERY]) or packet[HEADER + 1 :] != b"COMMIT":
            return None
        with self._lock:
            self.counts.commits += 1
            if self._random.randrange(self._one_in):
                return None
            fault = self._random.choice(FAULTS)
            self.counts.struck[fault] += 1
            return fault


class _Pump(threading.Thread):
    """Carries the server's bytes to the client until it is muted."""

    def __init__(self, server: socket.socket, client: socket.socket) -> None:
        super().__init__(daemon=True)
        self._server, self._client = server, client
        self.is_muted = False
        self.heard = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 16):
                if self.is_muted:
                    self.heard.set()
                    return
                self._client.sendall(data)


def _packet(connection: socket.socket) -> bytes | None:
    header = _exactly(connection, HEADER)
    if header is None:
        return None
    (length,) = struct.unpack("<I", header[:3] + b"\0")
    body = _exactly(connection, length)
    return None if body is None else header + body


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return data
