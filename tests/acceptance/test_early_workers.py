"""Commands provide for workers before they open anything: see decision 14."""

import subprocess
import sys
from pathlib import Path

import pytest
from acceptance.test_command_line import make_project

TYPED = """
import os, sys
from contextlib import suppress
from mlbatch.cli.main import main
from mlbatch.engines.local import LocalEngine

def opened(_):
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            file = os.readlink(f"/proc/self/fd/{number}")
            if file.startswith(("socket:", os.getcwd())):
                print("open:", file)
    print("warmed up")

LocalEngine.warm_up = opened
main()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_nothing_is_open_when_workers_are_provided_for(tmp_path):
    make_project(tmp_path)
    for command in (
        "run toy --mode train", "run toy --mode infer", "reconcile toy", "retry toy --quarantined",
        "switch toy",
    ):  # fmt: skip
        typed = [sys.executable, "-c", TYPED, "--profile", "tiny", *command.split()]
        done = subprocess.run(typed, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "warmed up" in done.stdout, command
        assert "open:" not in done.stdout, command
