"""One command under observation: its seconds as it tells them, and what its processes took meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender."""

    seconds: float
    """Of its work alone, without imports and start-up."""
    whole_seconds: float
    """Of the command, from its start to its end."""
    cpu_seconds: float
    """Of all its processes, everything included, the database excluded."""
    peak_pss_mb: float | None
    """Of all its processes together; None where nobody looked."""

    def to_json(self) -> dict[str, float]:
        """For the results."""
        return {name: round(value, 3) for name, value in asdict(self).items() if value is not None}


class FailedError(Exception):
    """The command did not end well; the message is its last words."""


def measure(
    command: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    seconds: float,
    *,
    memory: bool = False,
) -> Measured:
    """Run ``command`` for at most so many seconds; its last line of output is JSON with "seconds".

    To add up proportional sets the system walks through all pages of all processes, which slows those down
    the more that they share: whoever wants ``memory`` should not believe the seconds.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdout=subprocess.PIPE, stderr=errors,
            text=True, start_new_session=True,
        )  # fmt: skip
        watch = _Watch(process.pid, memory=memory)
        try:
            output, _ = process.communicate(timeout=seconds)
            whole = time.perf_counter() - started
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"took more than {seconds:.0f} s") from error
        finally:
            # Ctrl-C does not reach a session of its own.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            watch.stop()
        if process.returncode or not output.strip():
            errors.seek(0)
            raise FailedError("\n".join(errors.read().splitlines()[-3:]) or "said nothing")
    told = json.loads(output.strip().splitlines()[-1])
    peak = watch.peak_pss_mb if memory else None
    return Measured(told["seconds"], whole, watch.cpu_seconds, peak)


class _Watch:
    """Looks at all processes of a session, again and again."""

    def __init__(self, session: int, *, memory: bool) -> None:
        self._session, self._memory = session, memory
        self._ticks: dict[int, int] = {}
        self.peak_pss_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        return sum(self._ticks.values()) / TICKS

    def _look_on(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            pss = 0
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    pss += self._look(entry)
            self.peak_pss_mb = max(self.peak_pss_mb, pss / 1024)

    def _look(self, entry: Path) -> int:
        """Note the CPU time of a process of the session; its proportional set size in kB."""
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if int(fields[3]) != self._session:
                return 0
            self._ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
            if not self._memory:
                return 0
            lines = (entry / "smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
