from __future__ import annotations

from pathlib import Path

import pytest

from mlbatch.errors import SettingsError
from mlbatch.settings import load_settings


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("MLBATCH_PROFILE", "MLBATCH_WORKERS", "MLBATCH_WAREHOUSE__PART_ROWS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlbatch.toml").write_text(
        "[profiles.default]\nworkers = 3\n[profiles.small]\nwarehouse = { part_rows = 7 }\n"
    )
    return tmp_path


def test_an_empty_file_is_a_project(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    settings = load_settings(tmp_path)
    assert settings.workers >= 1
    assert settings.path(settings.sink.path) == tmp_path / ".mlbatch/outputs.db"
    assert settings.path(Path("/x")) == Path("/x")


def test_profiles_and_the_environment(root, monkeypatch):
    assert load_settings(root).workers == 3
    assert load_settings(root, "small").warehouse.part_rows == 7
    monkeypatch.setenv("MLBATCH_PROFILE", "small")
    assert load_settings(root).profile == "small"
    monkeypatch.setenv("MLBATCH_WAREHOUSE__PART_ROWS", "9")
    assert load_settings(root).warehouse.part_rows == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "mlbatch.toml"),
        ("workers = 3", "unknown table or key 'workers'"),
        ("[profiles.default]\nworkers = 0", "workers"),
        ("[profiles.default]\nsink = { kind = 'oracle' }", "sink.kind"),
        ("[profiles.default.sink]\npth = 'x'", "sink.pth"),
    ],
)
def test_wrong_settings_are_named(root, text, message):
    (root / "mlbatch.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(root)
    assert message in caught.value.message


def test_an_unknown_profile_is_refused(root):
    with pytest.raises(SettingsError) as caught:
        load_settings(root, "prod")
    assert caught.value.hint == "it has: default, small"
