"""Files and folders that this account may not use: a clear error, one exit code, and no traceback."""

from __future__ import annotations

import errno
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
from mlbatch.errors import NoAccess

_RIGHTS = "-dac_override,-dac_read_search"
# Root heeds no modes until it gives these rights away.
_HEEDING = ["setpriv", "--bounding-set", _RIGHTS, "--inh-caps", _RIGHTS]
# The code under test, wherever another one is installed.
_HOME = {"PYTHONPATH": str(Path(package.__file__).parents[1])}
_MAIN = "from mlbatch.cli.main import main; main()"
_COMMAND = [*(_HEEDING if os.geteuid() == 0 else []), sys.executable, "-c", _MAIN]

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root heeds no modes"
)


def mlbatch(root, *arguments):
    """How the command ends for an account that heeds the modes of files."""
    return run_in(root, [*_COMMAND, *arguments])


def run_in(root, command):
    environment = os.environ | _HOME
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


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
    """A copy, for one test to spoil."""
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


def test_settings_that_cannot_be_read_are_an_error_of_settings(tmp_path):
    (tmp_path / "mlbatch.toml").touch(0o200)
    done = mlbatch(tmp_path, "list", "--json")
    is_told(done, 2, str(tmp_path / "mlbatch.toml"), "Permission denied")
    assert json.loads(done.stdout)["error"] == "SettingsError"


def test_a_devstack_in_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    with without(0o222, tmp_path):
        done = mlbatch(tmp_path, "devstack", "up")
    is_told(done, 1, f"{tmp_path}/.mlbatch", "Permission denied")


def test_a_path_that_leads_to_no_file_is_told(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    (tmp_path / ".mlbatch").write_text("in the way")
    done = mlbatch(tmp_path, "devstack", "up")
    is_told(done, 1, f"{tmp_path}/.mlbatch")


def test_an_mlflow_that_cannot_be_written_is_not_tried_again(project):
    folder = project / ".mlbatch" / "mlflow"
    with without(0o222, folder):
        done = mlbatch(project, "run", "toy", "--mode", "train", "--json")
    is_told(done, 1, str(folder), "may not be written")
    told = json.loads(done.stdout)
    assert (told["try_again"], str(folder) in told["hint"]) == (False, True)


def test_an_mlflow_that_cannot_be_read_is_told_at_once(project):
    folder = project / ".mlbatch" / "mlflow"
    with without(0o444, folder):
        is_told(mlbatch(project, "show", "toy"), 1, str(folder), "may not be read")


def test_artifacts_that_cannot_be_written_are_not_tried_again(mlflow, tmp_path, monkeypatch):
    # Of a folder below that of MLflow, whose own rights are well.
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/toy")

    monkeypatch.setattr(mlflow._client, "get_experiment_by_name", refused)
    with pytest.raises(NoAccess, match=f"{tmp_path}/toy"):
        mlflow.ready("toy")


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_fails_no_run(project, closed):
    command = [*_COMMAND, "run", "toy", "--mode", "infer", "--full"]
    done = run_in(project, ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command])
    assert done.returncode == 0, done.stderr
    assert ("200 written" in done.stdout) == (closed == 2)


@pytest.mark.parametrize("place", ["jobs", "jobs/toy"])
def test_jobs_that_cannot_be_read_do_not_vanish(project, place):
    (project / "jobs" / "__pycache__").mkdir(exist_ok=True)
    (project / "jobs" / "notes.txt").touch()
    with without(0o777, project / place):
        done = mlbatch(project, "list")
    assert done.returncode == 2, done.stderr
    assert f"{project / place} cannot be read: Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert "no jobs" not in done.stderr
    assert "toy " in mlbatch(project, "list").stdout


@pytest.mark.parametrize("command", [["status"], ["show", "toy"]])
def test_a_ledger_that_cannot_be_written_is_told_to_its_readers(project, command):
    home = project / ".mlbatch"
    with without(0o222, home):
        done = mlbatch(project, *command)
    is_told(done, 1, str(home / "outputs.db"))
    assert "the open batch" not in done.stderr
    assert f"write {home / 'outputs.db'} and its folder" in done.stderr
