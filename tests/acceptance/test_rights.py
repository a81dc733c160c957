"""Files and folders that this account may not use: a clear error, one exit code, and no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_command_line import make_project

import mlbatch as package

_RIGHTS = "-dac_override,-dac_read_search"
# Root heeds no modes until it gives these rights away.
_HEEDING = ["setpriv", "--bounding-set", _RIGHTS, "--inh-caps", _RIGHTS]
# The code under test, wherever another one is installed.
_HOME = {"PYTHONPATH": str(Path(package.__file__).parents[1])}
_MAIN = "from mlbatch.cli.main import main; main()"

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root heeds no modes"
)


def mlbatch(root, *arguments, **streams):
    """How the command ends for an account that heeds the modes of files."""
    heeding = _HEEDING if os.geteuid() == 0 else []
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    command = [*heeding, sys.executable, "-c", _MAIN, *arguments]
    environment = os.environ | _HOME
    return subprocess.run(command, cwd=root, text=True, check=False, env=environment, **given)


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A project with a model and predictions."""
    root = make_project(tmp_path_factory.mktemp("worked"))
    for mode in ("train", "infer"):
        done = mlbatch(root, "run", "toy", "--mode", mode)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def project(worked, tmp_path):
    """The same with a model of its own; its artifacts' place is told by the original's path."""
    return shutil.copytree(worked, tmp_path / "project")


@contextmanager
def without(rights, *places):
    """``places``, and all below them, without ``rights`` (an octal mode) for the while."""
    found = [path for place in places for path in (*place.rglob("*"), place)]
    modes = {path: path.stat().st_mode for path in found}
    for path in found:
        path.chmod(modes[path] & ~rights)
    try:
        yield
    finally:
        for path in reversed(found):
            path.chmod(modes[path])


def is_told(done, code, *words):
    """One error with what to do next, and nothing else."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in error for word in words), error
    assert "\nhint: " in done.stderr


def test_parts_that_cannot_be_written_are_told_and_leave_no_run(project):
    parts = project / ".mlbatch" / "parts"
    with without(0o222, parts):
        for command in (["run", "toy", "--mode", "train"], ["reconcile", "toy"]):
            is_told(mlbatch(project, *command), 1, str(parts), "Permission denied")
        done = mlbatch(project, "run", "toy", "--mode", "infer", "--full", "--json")
        is_told(done, 1, str(parts), "Permission denied")
    assert json.loads(done.stdout)["error"] == "NoAccess"
    (job,) = json.loads(mlbatch(project, "status", "--json").stdout)["jobs"]
    assert job["state"] == "failed"
    assert str(parts) in job["error"]


def test_doctor_goes_on_after_a_storage_that_cannot_be_written(project):
    with without(0o222, project / ".mlbatch" / "parts"):
        done = mlbatch(project, "doctor", "--json")
    assert done.returncode == 1, done.stderr
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert "Permission denied" in checks["storage"]["detail"]
    assert checks["storage"]["hint"]
    assert checks["unload"]["ok"] is None
    assert checks["job toy"]["ok"]
