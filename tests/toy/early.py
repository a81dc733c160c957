"""Processes that cost a test no imports: forks of ones that were made before any test opened anything.

Workers are made so by every command, see `mlbatch.engines.stem`; a program of a test's own is, too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Self

from mlbatch.engines.local import LocalEngine
from mlbatch.engines.stem import Stem

_programs: list[Stem] = []
_workers = LocalEngine(1)


def provide() -> None:
    """Make both, now; those of a process that this one was forked from are not asked."""
    _programs[:] = [Stem(_live)]
    provide_workers()


def provide_workers() -> None:
    """For a program whose workers shall be as it is by now."""
    _workers._early.clear()
    _workers.warm_up()


def engine(workers: int) -> LocalEngine:
    """So many workers, forked early where that was provided for, of a fresh interpreter else."""
    made = LocalEngine(workers)
    object.__setattr__(made, "_early", _workers._early)
    return made


class Program:
    """Python code in a process of its own; the names are those of `subprocess.Popen`."""

    def __init__(self, code: str) -> None:
        """Start it, with the folder of the tests among those that are imported from."""
        self._alive, theirs = multiprocessing.Pipe()
        self.returncode: int | None = None
        self.pid = _programs[0].start(theirs)
        self._alive.send(code)
        self.stdout, self.stderr = self._read_end(), self._read_end()

    def _read_end(self):
        ours, theirs = os.pipe()
        send_handle(self._alive, theirs, self.pid)
        os.close(theirs)
        return os.fdopen(ours, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def poll(self) -> int | None:
        """How it ended; None while it lives."""
        return self.wait() if self._alive.poll() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; TimeoutError when it does not come in time."""
        if self.returncode is None:
            if timeout is not None and not self._alive.poll(timeout):
                raise TimeoutError(timeout)
            self.returncode = _programs[0].exit_code(self.pid)
            for end in (self._alive, self.stdout, self.stderr):
                end.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it said and what it complained of."""
        told = self.stdout.read(), self.stderr.read()
        self.wait(timeout)
        return told

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_COMMAND = """
import os, sys
from mlbatch import failpoint
from mlbatch.cli.main import main
os.chdir({root!r})
os.environ.update({environment!r})
failpoint.arm({armed!r})
sys.argv = ["mlbatch", *{arguments!r}]
main()
"""


def command(root: Path, *arguments: str, armed: str = "", **environment: str) -> Program:
    """What a person types in a project's folder, with a failpoint."""
    code = _COMMAND.format(
        root=str(root), arguments=arguments, armed=armed, environment=environment
    )
    return Program(code)


def _live(pipe: Connection) -> None:
    """A program's life, which is no daemon's: it has workers of its own."""
    code = pipe.recv()
    for number in (1, 2):
        theirs = recv_handle(pipe)
        os.dup2(theirs, number)
        os.close(theirs)
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2)
    )
    _as_python_starts()
    multiprocessing.current_process()._config["daemon"] = False
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})


def _as_python_starts() -> None:
    """What pytest put into its place to hear of it is told on stderr again."""
    logging.getLogger().handlers.clear()
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    warnings.resetwarnings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
