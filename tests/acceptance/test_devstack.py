"""The main job on real wires: the local Redshift, S3 over HTTP, MariaDB and an MLflow server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from servers import need_mariadb

from mlbatch.connectors.mysql.address import connect, scalar
from mlbatch.settings import load_settings
from mlbatch.wiring import connect as wire

ROOT = Path(__file__).parents[2]
MLBATCH = Path(sys.executable).with_name("mlbatch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, with its servers running."""
    need_mariadb()
    folder = tmp_path_factory.mktemp("project")
    for name in ("jobs", "feature_store", "sample"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mlbatch.toml", folder)
    run(folder, MLBATCH, "devstack", "up")
    yield folder
    run(folder, MLBATCH, "devstack", "down")


def run(folder, *command, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLBATCH_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def count(folder, query):
    sink = wire(load_settings(folder, "devstack"), lambda *_: None).sink
    with closing(connect(sink.address)) as connection:
        return scalar(connection, query)


def test_the_whole_demonstration_over_the_data_api(project):
    told = run(project, sys.executable, "-m", "sample.demo", "--profile", "devstack")
    assert "LOAD DATA LOCAL" in told
    assert "delta: changed since the watermark" in told
    assert count(project, "SELECT COUNT(*) FROM recipe_category") > 600
    assert count(project, "SELECT COUNT(*) FROM step_or_not") > 4_000
    assert count(project, "SELECT COUNT(*) FROM mlbatch_run WHERE state = 'done'") == 4
    assert count(project, "SELECT COUNT(tracking_run_id) FROM mlbatch_run") == 4


def test_the_doctor_finds_nothing_by_any_face(project):
    for face in ("data_api", "wire"):
        told = run(
            project, MLBATCH, "--profile", "devstack", "doctor", MLBATCH_WAREHOUSE__TRANSPORT=face
        )
        assert "All is well." in told


def test_the_wire_gives_the_same_predictions(project):
    digest = "SELECT SUM(CRC32(CONCAT(recipe_id, label, ROUND(score, 9)))) FROM recipe_category"
    before = count(project, digest)
    told = run(
        project, MLBATCH, "--profile", "devstack", "run", "recipe_classifier", "--mode", "infer",
        "--full", MLBATCH_WAREHOUSE__TRANSPORT="wire",
    )  # fmt: skip
    assert "0 quarantined" not in told
    assert count(project, digest) == before
    assert count(project, "SELECT COUNT(DISTINCT run_no) FROM recipe_category") == 1


def test_training_over_the_wire_promotes_through_the_server(project):
    told = run(
        project, MLBATCH, "--profile", "devstack", "run", "recipe_classifier", "--mode", "train",
        MLBATCH_WAREHOUSE__TRANSPORT="wire",
    )  # fmt: skip
    assert "model v2" in told


def test_no_secret_is_told(project):
    """What logs, tables and the settings' own faults show never holds a password."""
    secrets = [
        section[name]
        for section in _profile(project).values()
        for name in ("password", "secret_key", "token_secret")
        if name in section
    ]
    assert secrets
    told = run(project, MLBATCH, "--profile", "devstack", "doctor")
    told += run(project, MLBATCH, "--profile", "devstack", "show", "recipe_classifier")
    told += str(load_settings(project, "devstack"))
    told += repr(wire(load_settings(project, "devstack"), lambda *_: None))
    query = "SELECT GROUP_CONCAT(query, COALESCE(error, '')) FROM mlbatch_run"
    told += str(count(project, query))
    for log in (project / ".mlbatch" / "devstack").rglob("*.log"):
        told += log.read_text(errors="replace")
    assert [secret for secret in secrets if secret in told] == []


def _profile(project):
    from mlbatch.devstack.stack import profile

    return profile(project / ".mlbatch" / "devstack")
