"""What takes too long ends, with real processes; here pytest has an alarm of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from mlbatch.engine import PartOutcome, PartTask
from mlbatch.engines.local import LocalEngine
from mlbatch.time_limit import time_limit

ALONE = '''
import ctypes, signal, time
from mlbatch import time_limit
from mlbatch.errors import TemporaryError
from mlbatch.time_limit import time_limit as at_most
time_limit.GRACE_SECONDS = 0.5
def hang():
    """In C, where neither other threads nor signals come through to Python."""
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(lock)
'''


def ended(code):
    """A process of its own that runs ``code``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", ALONE + code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def hang():
    """In C, and without letting go of Python."""
    ctypes.PyDLL(None).sleep(300)


class Hanging:
    def __call__(self, task):
        with time_limit(1.0, "it"):
            if task.part_number and not task.careful_until:
                hang()
        return PartOutcome(task.part_number, {})


def test_a_worker_that_hangs_in_native_code_is_a_death():
    engine, died = LocalEngine(2), []
    engine.warm_up()

    def on_death(death):
        died.append((death.task.part_number, death.exit_code))
        return PartTask(1, careful_until=1)

    outcomes = engine.run(Hanging(), [PartTask(0), PartTask(1)], on_death)
    assert {outcome.part_number for outcome in outcomes} == {0, 1}
    assert died == [(1, 1)]


def test_the_calling_process_gets_an_error_and_its_alarm_back():
    done = ended("""
try:
    with at_most(0.5, "a batch"):
        time.sleep(300)
except TemporaryError as error:
    print(error, error.exit_code.value, signal.getitimer(signal.ITIMER_REAL)[0])
print(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)
with at_most(0.5, "a batch"), at_most(None, "nothing"):
    pass
time.sleep(1.5)
""")
    assert done.stdout == "a batch took longer than 0.5 s 75 0.0\nTrue\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_calling_process_that_hangs_in_native_code_ends_and_says_where():
    done = ended("""
with at_most(0.5, "a batch"):
    hang()
""")
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_whoever_is_asked_to_terminate_meanwhile_keeps_the_alarm():
    done = ended("""
try:
    with at_most(300, "a batch"):
        signal.signal(signal.SIGALRM, lambda *_: print("rang"))
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    time.sleep(1)
""")
    assert done.stdout == "rang\n"


def test_an_alarm_of_somebody_else_is_left_alone():
    if not signal.getitimer(signal.ITIMER_REAL)[0]:
        pytest.skip("pytest has set none")
    rings_in = signal.getitimer(signal.ITIMER_REAL)[0]
    with time_limit(0.05, "it"):
        time.sleep(0.1)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < rings_in
