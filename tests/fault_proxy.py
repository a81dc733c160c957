"""A TCP proxy that treats connections badly on purpose."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from typing import Self

CHUNK_BYTES = 65_536
LOOK_SECONDS = 0.05
"""How often a quiet connection looks whether the proxy ends or its rule has changed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a connection; without anything said, all passes."""

    reset: bool = False
    """It is reset at once."""
    cut_after: int | None = None
    """It is reset after so many bytes from the server."""
    black_hole: bool = False
    """It is accepted, and nothing passes any more in either direction."""
    delay: float = 0.0
    """Seconds by which each piece from the server is late."""
    bytes_per_second: int | None = None

    def __str__(self) -> str:
        """For the names of tests."""
        told = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return " and ".join(told).replace("_", " ") or "pass"


PASS = Rule()
RESET = Rule(reset=True)
BLACK_HOLE = Rule(black_hole=True)


class FaultProxy:
    """Listens on ``port`` of the loopback, and stands between a client and a server.

    ``next_rules`` each hold for one connection to come, and for its whole life. All other
    connections follow ``rule``, also when it changes while they are open.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        """Entered as a context, it serves."""
        self.rule = PASS
        self.next_rules: deque[Rule] = deque()
        self.accepted = 0
        self._target = (target_host, target_port)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """Serve."""
        self._listener.settimeout(LOOK_SECONDS)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, and wait for every thread."""
        self._ending.set()
        # The first one starts the others, so once it is over there are no new ones.
        for thread in self._threads[:1]:
            thread.join()
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.accepted += 1
                own = self.next_rules.popleft() if self.next_rules else None
                self._start(self._serve, client, own)

    def _serve(self, client: socket.socket, own: Rule | None) -> None:
        with closing(client), suppress(OSError):
            if (own or self.rule).reset:
                _reset(client)
            elif (own or self.rule).black_hole:
                self._swallow(client)
            else:
                with socket.create_connection(self._target, timeout=5) as server:
                    self._relay(client, server, own)

    def _swallow(self, client: socket.socket) -> None:
        while not self._ending.is_set():
            ready, _, _ = select.select([client], [], [], LOOK_SECONDS)
            if ready and not client.recv(CHUNK_BYTES):
                return

    def _relay(self, client: socket.socket, server: socket.socket, own: Rule | None) -> None:
        received = 0
        while not self._ending.is_set():
            ready, _, _ = select.select([client, server], [], [], LOOK_SECONDS)
            rule = own or self.rule
            if rule.reset:
                _reset(client)
                return
            for side in ready:
                data = side.recv(_piece(rule))
                if not data:
                    return
                if rule.black_hole:
                    continue
                if side is client:
                    server.sendall(data)
                    continue
                received += len(data)
                if not self._deliver(client, data, received, rule):
                    return

    def _deliver(self, client: socket.socket, data: bytes, received: int, rule: Rule) -> bool:
        """Hand on what the server sent; False once the connection is cut."""
        self._ending.wait(rule.delay)
        if rule.bytes_per_second:
            self._ending.wait(len(data) / rule.bytes_per_second)
        if rule.cut_after is None or received < rule.cut_after:
            client.sendall(data)
            return True
        client.sendall(data[: len(data) - (received - rule.cut_after)])
        # What was sent must arrive before the reset, which would overtake it.
        time.sleep(LOOK_SECONDS)
        _reset(client)
        return False


def _piece(rule: Rule) -> int:
    return max(1, rule.bytes_per_second // 20) if rule.bytes_per_second else CHUNK_BYTES


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
