"""Whether the process that holds a lease is still there."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path

from mlbatch.ledger import Owner


def this_process(owner_id: str) -> Owner:
    """This process, as an owner of leases."""
    pid = os.getpid()
    return Owner(owner_id, socket.gethostname(), pid, f"{_started_at(pid)}@{_world()}")


def is_surely_dead(owner: Owner) -> bool:
    """True only where this very machine says so; a mistake is harmless, the fence holds anyway."""
    started_at, _, world = owner.started_at.partition("@")
    if owner.host != socket.gethostname() or world not in ("", _world()):
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started_at(owner.pid) != started_at or _is_zombie(owner.pid)


def _world() -> str:
    """Where our process ids mean something: machines and containers may have one name in common."""
    told = ""
    with suppress(OSError):
        told = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        told += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _fields(pid: int) -> list[str]:
    try:
        # The command's name stands in parentheses and may itself hold spaces and parentheses.
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return []


def _started_at(pid: int) -> str:
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 else ""  # noqa: PLR2004  start time is field 22 of stat


def _is_zombie(pid: int) -> bool:
    return _fields(pid)[:1] == ["Z"]
