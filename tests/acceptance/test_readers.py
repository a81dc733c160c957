"""Commands that only read leave nothing behind, and need no right to write."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from bad_inputs import REFUSED, bad_input
from click.testing import CliRunner
from test_command_line import load, note, project  # noqa: F401  a fixture
from toy.job import Mood

from mlbatch.cli.main import cli
from mlbatch.connectors.mysql.address import connect
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.errors import SettingsError
from mlbatch.settings import load_settings
from mlbatch.wiring import connect as connect_tools

READING = (["plan", "toy"], ["plan", "toy", "--json"], ["show", "toy"], ["status"], ["list"])


def invoke(*words):
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0
    return done.output


def files(root):
    found = [file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return {str(file.relative_to(root)): file.stat().st_mtime_ns for file in found}


@pytest.fixture
def fresh(project, monkeypatch, tmp_path):  # noqa: F811
    """The project before its first run, in a folder of its own."""
    import shutil

    root = tmp_path / "fresh"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("outputs*", "mlflow*", "models"))
    monkeypatch.chdir(root)
    return root


def test_reading_makes_no_file(fresh):
    before = files(fresh)
    for words in READING:
        invoke(*words)
    assert files(fresh) == before
    told = json.loads(invoke("plan", "toy", "--json"))
    assert (told["kind"], told["rows"], told["model_version"]) == ("backfill", 200, None)
    assert "never run" in invoke("status")


def test_reading_makes_no_warehouse(fresh):
    for file in fresh.rglob("*.duckdb"):
        file.unlink()
    before = files(fresh)
    warehouse = connect_tools(load_settings(fresh), print).warehouse
    assert warehouse.fetch("SELECT 1 AS one").num_rows == 1
    assert files(fresh) == before


@pytest.fixture
def reader(mysql_admin, mysql_address):
    """A user who may SELECT in the database and nothing else."""
    name = mysql_address.database[:20]
    with closing(connect(mysql_admin)) as connection:
        connection.query(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'sesame'")
        connection.query(f"GRANT SELECT ON {mysql_address.database}.* TO '{name}'@'%'")
    yield replace(mysql_address, user=name, password=FixedPassword("sesame"))
    with closing(connect(mysql_admin)) as connection:
        connection.query(f"DROP USER '{name}'@'%'")


def use(root, address):
    (root / "mlbatch.toml").write_text(
        f'[profiles.default.sink]\nkind = "mysql"\nhost = "{address.host}"\nport = {address.port}\n'
        f'database = "{address.database}"\nuser = "{address.user}"\n'
        f'password = "{address.password()}"\ntls = "off"\n'
    )


def tables(address):
    with closing(connect(address)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SHOW TABLES")
        return [row[0] for row in cursor.fetchall()]


def test_a_user_with_select_alone_may_look(fresh, mysql_address, reader):
    use(fresh, reader)
    for words in READING:
        invoke(*words)
    assert tables(mysql_address) == []
    use(fresh, mysql_address)
    invoke("run", "toy", "--mode", "train")
    invoke("run", "toy", "--mode", "infer")
    made = tables(mysql_address)
    load(fresh, [note(500)])
    use(fresh, reader)
    told = json.loads(invoke("plan", "toy", "--json"))
    assert (told["kind"], told["newer"]) == ("delta", 1)
    assert "done" in invoke("show", "toy")
    assert "200 written" in invoke("status")
    assert tables(mysql_address) == made


@bad_input(113, outcome=REFUSED, says="1142")
def test_113_a_user_without_insert_is_refused_before_the_unload(fresh, mysql_address, reader):
    owner = connect_tools(load_settings(fresh), print).owner
    MysqlSink(mysql_address).ledger().acquire("other", "job", owner, 5)
    MysqlSink(mysql_address).prepare(Mood.table)
    use(fresh, reader)
    with pytest.raises(SettingsError, match="1142"):
        CliRunner().invoke(
            cli, ["run", "toy", "--mode", "infer"], catch_exceptions=False, standalone_mode=False
        )
    assert not list(fresh.rglob("*.parquet"))
