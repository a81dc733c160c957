"""The private MariaDB, where something is missing or in the way; no server is started."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import threading
from pathlib import Path

import pytest

from mlbatch.devstack import mariadb, process
from mlbatch.devstack.mariadb import MariaDb, Passwords, find_program
from mlbatch.errors import MlbatchError, UsageError

installed = pytest.mark.skipif(
    not any(Path(place, "mariadbd").exists() for place in mariadb._PLACES), reason="no MariaDB here"
)


@pytest.fixture
def server(tmp_path):
    return MariaDb(tmp_path / "mysql", process.free_ports(1)[0])


def test_what_never_started_is_stopped_and_killed_without_a_word(server):
    server.kill()
    server.stop()
    assert not server.answers()
    assert not server.folder.exists()


def test_passwords_are_new_each_time_and_not_shown():
    one, other = Passwords(), Passwords()
    assert len({one.writer, one.admin, other.writer, other.admin}) == 4
    assert one.writer not in repr(one)
    assert one.admin not in repr(MariaDb(Path("x"), 1, one))


@pytest.mark.parametrize(("said", "greets"), [(b"\x4a\0\0\0\x0a11.4", True), (b"\x4a\0\0\0\x09", False),
                                             (b"HTTP/1.1 200", False), (b"", False), (b"\0\0", False)])  # fmt: skip
def test_only_a_mysql_server_greets(said, greets):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=talk)
        thread.start()
        assert mariadb._greets(listener.getsockname()[1]) is greets
        thread.join()


def test_a_program_is_found_beside_the_path_or_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mariadb, "_PLACES", (str(tmp_path),))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="mariadbd is not installed") as caught:
        find_program("mariadbd")
    assert caught.value.hint == "run: make mariadb"
    (tmp_path / "mariadbd").touch(mode=0o755)
    assert find_program("mariadbd") == str(tmp_path / "mariadbd")
    (tmp_path / "mariadbd").chmod(0o644)
    with pytest.raises(UsageError):
        find_program("mariadbd")


@pytest.mark.parametrize(
    ("user", "has_account", "mode", "account"),
    [(1000, True, 0o755, None), (0, False, 0o755, "root"), (0, True, 0o755, "mysql"), (0, True, 0o700, "root")],
)  # fmt: skip
def test_whom_the_server_runs_as(monkeypatch, user, has_account, mode, account):
    """Only root has to choose; the account must be there, and be able to enter the folder."""

    def named(name):
        if not has_account:
            raise KeyError(name)
        return name

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(pwd, "getpwnam", named)
    folder = Path("/tmp") / f"mlbatch-account-{mode:o}"
    folder.mkdir(mode=mode, exist_ok=True)
    try:
        folder.chmod(mode)
        assert mariadb._account(folder) == account
    finally:
        folder.rmdir()


def test_the_accounts_are_for_the_server_alone_and_gone_afterwards(server):
    server.folder.mkdir(parents=True)
    server._write_accounts()
    assert stat.S_IMODE(server._accounts.stat().st_mode) == 0o600
    text = server._accounts.read_text()
    assert text.index("DELETE FROM mysql.global_priv") < text.index("CREATE OR REPLACE USER")
    assert server.password in text
    assert f"GRANT {mariadb.WRITER_RIGHTS} ON {server.database}.*" in text
    server.complete()
    server.complete()
    assert not server._accounts.exists()


def test_the_socket_lies_in_a_short_folder_that_goes_with_the_server(server):
    server.folder.mkdir(parents=True)
    server._make_socket_folder()
    first = server._link.readlink()
    assert first.is_dir()
    server._make_socket_folder()  # after a crash the old one is still there
    second = server._link.readlink()
    assert not first.exists()
    server.clear()
    assert not second.exists()
    assert not server._link.is_symlink()


def test_the_command_listens_on_the_loopback_and_reads_no_configuration(server):
    server.folder.mkdir(parents=True)
    server._make_socket_folder()
    command = server._command("mariadbd", "mysql")
    assert command[:2] == ["mariadbd", "--no-defaults"]
    assert {f"--port={server.port}", "--bind-address=127.0.0.1", "--user=mysql"} <= set(command)
    assert not any(option.startswith("--ssl") for option in command)
    assert not any(option.startswith("--user") for option in server._command("mariadbd", None))
    server.clear()


@installed
def test_a_data_folder_that_cannot_be_made_shows_why(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MlbatchError, match="MariaDB cannot make its data folder") as caught:
        mariadb._install(tmp_path / "file" / "data")
    assert caught.value.hint


@pytest.mark.parametrize("given", ["", "there"])
def test_the_cache_is_where_the_desktop_rules_say(monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / given) if given else "")
    assert mariadb._cache_folder() == tmp_path / (given or ".cache") / "mlbatch"
