"""Servers as processes of their own: started, waited for, recognised later, and stopped.

A server outlives the command that started it. Its number alone is no proof later on, since numbers
are given out again; number and start time together are.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from mlbatch.errors import MlbatchError

LOOPBACK = "127.0.0.1"
MARK = "MLBATCH_DEVSTACK_MARK"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_LOG_LINES = 12
_PROC = Path("/proc")
_STATE, _GROUP, _THREADS, _STARTED = 0, 2, 17, 19
"""Places in /proc/PID/stat, counted from the state on."""

# Whoever starts a server in this process must also collect it, or it stays a zombie.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, and nobody who gets its number later."""

    pid: int
    started_at: str
    mark: str
    """What it and its children carry in their environment."""


@dataclass(frozen=True, slots=True)
class Service:
    """How a server is started, and how it is seen to be ready."""

    name: str
    command: Sequence[str]
    folder: Path
    """Where it runs."""
    log: Path
    answers: Callable[[], bool]
    """Whether it serves; False while it does not yet."""
    environment: Mapping[str, str] = field(default_factory=dict)


def launch(service: Service) -> Identity:
    """Start ``service`` in a session of its own, without waiting for it."""
    mark = secrets.token_hex(8)
    with service.log.open("ab") as log:
        try:
            child = subprocess.Popen(  # noqa: S603  the commands are ours
                service.command,
                cwd=service.folder,
                env={**os.environ, **service.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            message = f"{service.name} cannot be started: {error}"
            raise MlbatchError(message, hint=f"run {service.command[0]} by hand") from error
    _children[child.pid] = child
    return Identity(child.pid, _started_at(child.pid), mark)


def wait_until_ready(service: Service, identity: Identity, seconds: float = READY_SECONDS) -> None:
    """Until ``service`` answers; MlbatchError shows its last words when it died or is too slow."""
    end = time.monotonic() + seconds
    while True:
        if not is_alive(identity):
            raise _failed(service, "ended while it started")
        if service.answers():
            return
        if time.monotonic() > end:
            raise _failed(service, f"does not answer after {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)


def _failed(service: Service, what: str) -> MlbatchError:
    said = "\n".join(f"    {line}" for line in last_lines(service.log)) or "    (nothing)"
    hint = f"mend what it complains about, then start again; its whole log is {service.log}"
    return MlbatchError(f"{service.name} {what}. Its last words:\n{said}", hint=hint)


def last_lines(log: Path, count: int = _LOG_LINES) -> list[str]:
    """The end of a log; empty when there is none."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs."""
    if not _PROC.is_dir():
        _collect(identity.pid)
        return _exists(identity.pid) and _started_at(identity.pid) == identity.started_at
    fields = _fields(identity.pid)
    if _is_running(fields) and fields[_STARTED] == identity.started_at:
        return True
    _collect(identity.pid)
    return False


def stop(identity: Identity, seconds: float = STOP_SECONDS) -> bool:
    """End the process and its children, kindly first; False when nothing of it was there."""
    if not _members(identity):
        return False
    _signal(identity, signal.SIGTERM)
    # Somebody may have made it hang; it cannot end while it does.
    _signal(identity, signal.SIGCONT)
    if not _gone(identity, seconds):
        kill(identity)
    return True


def kill(identity: Identity) -> None:
    """End the process and its children at once, as a loss of power would."""
    _signal(identity, signal.SIGKILL)
    _gone(identity, _KILL_SECONDS)


def _signal(identity: Identity, number: signal.Signals) -> None:
    if is_alive(identity):
        # One call reaches the whole group, so that no child is born in between.
        with suppress(ProcessLookupError):
            os.killpg(identity.pid, number)
        return
    for pid in _members(identity):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _gone(identity: Identity, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while _members(identity):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    _collect(identity.pid)
    return True


def _members(identity: Identity) -> list[int]:
    """The process and what it left in its group; never a later process with the same number."""
    leads = is_alive(identity)
    if not _PROC.is_dir():
        return [identity.pid] if leads else []
    if not leads and _is_running(_fields(identity.pid)):
        return []
    group = str(identity.pid)
    found = []
    for entry in _PROC.glob("[0-9]*"):
        fields = _fields(int(entry.name))
        if _is_running(fields) and fields[_GROUP] == group:
            found.append(int(entry.name))
    return found if leads else [pid for pid in found if _carries(pid, identity.mark)]


def _carries(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False


def _collect(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat from the state on; empty when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _is_running(fields: list[str]) -> bool:
    # A process whose first thread has ended looks like a zombie until its other threads end too.
    return bool(fields) and (fields[_STATE] not in "ZX" or int(fields[_THREADS]) > 1)


def _started_at(pid: int) -> str:
    if _PROC.is_dir():
        fields = _fields(pid)
        return fields[_STARTED] if fields else ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def free_ports(count: int) -> list[int]:
    """Loopback ports where nobody listens, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of this machine's loopback."""
    with socket.socket() as probe:
        # As servers do: connections that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    """Whether somebody takes connections on ``port``."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def http_answers(url: str) -> bool:
    """Whether a GET of ``url`` succeeds. Proxies of the environment are for other machines."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0):
            return True
    except (OSError, HTTPException):
        return False
