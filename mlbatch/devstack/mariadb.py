"""A private MariaDB server: its own data folder, its own port on the loopback, random passwords.

Nothing of an installed service is used or touched. The users are made before the server takes its
first connection, so it never listens with an open account.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlbatch.devstack import process
from mlbatch.devstack.process import LOOPBACK, Identity, Service
from mlbatch.errors import MlbatchError, UsageError

if TYPE_CHECKING:
    from mlbatch.devstack.certificates import Certificates

NAME = "mysql"
DATABASE = "mlbatch"
WRITER = "mlbatch"
ADMIN = "admin"
WRITER_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, TRIGGER"
"""TRIGGER only shows whether a table has some, which decides how rows are written."""
_PLACES = ("/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/bin", "/opt/homebrew/bin")
_ACCOUNT = "mysql"
_MAY_ENTER = 0o001
_GREETING_SECONDS = 2.0
_PROTOCOL_AT, _PROTOCOL = 4, b"\x0a"
_LOG_SIZE = "--innodb-log-file-size=16M"
_OPTIONS = (
    "--skip-name-resolve",
    "--local-infile=1",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    "--innodb-buffer-pool-size=64M",
    # What is committed survives the server's death, though not the machine's: faster, and enough.
    "--innodb-flush-log-at-trx-commit=2",
    "--max-allowed-packet=64M",
    # Looking whether it answers counts as a failed log-in.
    "--max-connect-errors=1000000",
    _LOG_SIZE,
)
_CLOSE_OPEN_ACCOUNTS = (
    "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');",
    "FLUSH PRIVILEGES;",
)


@dataclass(frozen=True, slots=True)
class Passwords:
    """Of the two users; made anew for each server."""

    writer: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    admin: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)


def find_program(name: str) -> str:
    """Where ``name`` is installed; UsageError says how to install it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    found = shutil.which(name, path=path)
    if found is None:
        message = f"{name} is not installed on this machine"
        raise UsageError(message, hint="run: make mariadb")
    return found


@dataclass(slots=True)
class MariaDb:
    """One server with all its files below ``folder``, listening on ``port`` of the loopback."""

    folder: Path
    port: int
    passwords: Passwords = field(default_factory=Passwords)
    certificates: Certificates | None = None
    """For TLS; without them, everything is sent in the clear."""
    options: tuple[str, ...] = ()
    """Further options of mariadbd."""
    identity: Identity | None = None
    name: str = NAME
    host: str = LOOPBACK
    database: str = DATABASE
    user: str = WRITER
    admin: str = ADMIN

    def __post_init__(self) -> None:
        """The server runs in its own folder, so relative names would mislead it."""
        self.folder = self.folder.absolute()

    @property
    def password(self) -> str:
        """Of the writer."""
        return self.passwords.writer

    @property
    def admin_password(self) -> str:
        """Of the administrator."""
        return self.passwords.admin

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "mariadbd.log"

    def start(self) -> None:
        """Start, and wait until it takes connections; data of an earlier start is kept."""
        service = self.prepare()
        self.identity = process.launch(service)
        try:
            process.wait_until_ready(service, self.identity)
        except BaseException:
            self.stop()
            raise
        self.complete()

    def stop(self) -> None:
        """Shut down cleanly."""
        if self.identity is not None:
            process.stop(self.identity)
        self.clear()

    def kill(self) -> None:
        """End it at once; the next start recovers what was committed."""
        if self.identity is not None:
            process.kill(self.identity)

    def restart(self) -> None:
        """Stop, where it runs, and start again on the same port with the same data."""
        self.stop()
        self.start()

    def prepare(self) -> Service:
        """Make the files that are missing; how the server is started then."""
        program = find_program("mariadbd")
        for place in (self.folder / "files", self._tls):
            place.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "data").is_dir():
            _make_data(self.folder / "data")
        self._write_accounts()
        self._copy_certificates()
        self._make_socket_folder()
        account = _account(self.folder)
        if account is not None:
            own = (self.folder / "data", self.folder / "files", self._tls)
            _give(account, *own, self._accounts, self._link.readlink())
        return Service(
            self.name, self._command(program, account), self.folder, self.log, self.answers
        )

    def answers(self) -> bool:
        """Whether it serves."""
        return _greets(self.port)

    def complete(self) -> None:
        """Once it answers, the file with the passwords has done its work."""
        self._accounts.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what lies outside of ``folder``, and the passwords."""
        self.complete()
        self._remove_socket_folder()

    @property
    def _accounts(self) -> Path:
        return self.folder / "accounts.sql"

    @property
    def _link(self) -> Path:
        return self.folder / "run"

    @property
    def _tls(self) -> Path:
        return self.folder / "tls"

    def _copy_certificates(self) -> None:
        # The account that the server runs as may not be allowed to read the originals.
        if self.certificates is not None:
            shutil.copy(self.certificates.certificate, self._tls / "server.pem")
            shutil.copy(self.certificates.key, self._tls / "server.key")

    def _make_socket_folder(self) -> None:
        self._remove_socket_folder()
        # A socket's path has room for some hundred bytes, which a project's folder may exceed.
        self._link.symlink_to(tempfile.mkdtemp(prefix="mlbatch-"))

    def _remove_socket_folder(self) -> None:
        if self._link.is_symlink():
            shutil.rmtree(self._link.readlink(), ignore_errors=True)
            self._link.unlink()

    def _write_accounts(self) -> None:
        statements = [
            *_CLOSE_OPEN_ACCOUNTS,
            f"CREATE DATABASE IF NOT EXISTS {self.database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;",
            f"CREATE OR REPLACE USER {self.user}@'%' IDENTIFIED BY '{self.passwords.writer}';",
            f"GRANT {WRITER_RIGHTS} ON {self.database}.* TO {self.user}@'%';",
            f"CREATE OR REPLACE USER {self.admin}@'%' IDENTIFIED BY '{self.passwords.admin}';",
            f"GRANT ALL PRIVILEGES ON *.* TO {self.admin}@'%' WITH GRANT OPTION;",
        ]
        self._accounts.unlink(missing_ok=True)
        self._accounts.touch(mode=0o600)
        self._accounts.write_text("\n".join(statements) + "\n", encoding="utf-8")

    def _command(self, program: str, account: str | None) -> list[str]:
        command = [
            program,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--port={self.port}",
            f"--bind-address={self.host}",
            f"--socket={self._link.readlink() / 's.sock'}",
            f"--pid-file={self._link.readlink() / 'pid'}",
            # A server that starts removes what it takes for an older one's leftovers in here.
            f"--tmpdir={self._link.readlink()}",
            f"--init-file={self._accounts}",
            f"--secure-file-priv={self.folder / 'files'}",
            *_OPTIONS,
            *self.options,
        ]
        if self.certificates is not None:
            command.append(f"--ssl-cert={self._tls / 'server.pem'}")
            command.append(f"--ssl-key={self._tls / 'server.key'}")
        return [*command, f"--user={account}"] if account else command


def _greets(port: int) -> bool:
    """Whether a MySQL server says hello; it listens a while before it does."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_GREETING_SECONDS) as connection:
            return connection.recv(_PROTOCOL_AT + 1)[_PROTOCOL_AT:] == _PROTOCOL
    except OSError:
        return False


def _account(folder: Path) -> str | None:
    """Whom root's server runs as: MariaDB's own account, where it can get at ``folder``."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_ACCOUNT)
    except KeyError:
        return "root"
    around = (folder, *folder.resolve().parents)
    return _ACCOUNT if all(place.stat().st_mode & _MAY_ENTER for place in around) else "root"


def _give(account: str, *places: Path) -> None:
    for place in places:
        for path in (place, *place.rglob("*")):
            shutil.chown(path, account, pwd.getpwnam(account).pw_gid)


def _make_data(data: Path) -> None:
    """A new data folder: a copy of the one that this machine keeps ready, if it can keep one."""
    part = data.with_name("data.part")
    shutil.rmtree(part, ignore_errors=True)
    template = _template()
    if template is None:
        _install(part)
    else:
        shutil.copytree(template, part)
    part.rename(data)


def _template() -> Path | None:
    version = subprocess.run(  # noqa: S603  found by us
        [find_program("mariadbd"), "--no-defaults", "--version"],
        capture_output=True,
        check=False,
    )
    key = hashlib.sha256(version.stdout + _LOG_SIZE.encode()).hexdigest()[:16]
    try:
        cache = _cache_folder()
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        template = cache / f"mariadb-{key}"
        if not template.is_dir():
            _install_once(template)
    except (OSError, RuntimeError):
        # No home, or none that can be written to.
        return None
    return template


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return Path(given or "~/.cache").expanduser() / "mlbatch"


def _install_once(template: Path) -> None:
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        _install(Path(folder) / "data")
        # Somebody else may have been faster; theirs is as good.
        with suppress(OSError):
            (Path(folder) / "data").rename(template)


def _install(data: Path) -> None:
    command = [
        find_program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
        _LOG_SIZE,
    ]
    if os.geteuid() == 0:
        command.append("--user=root")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        message = f"MariaDB cannot make its data folder {data}:\n{said}"
        raise MlbatchError(message, hint="mend what it complains about, then start again")


@contextmanager
def private_mariadb(
    folder: Path,
    *,
    port: int | None = None,
    certificates: Certificates | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[MariaDb]:
    """A server below ``folder`` for as long as the block lasts; it can be restarted and killed."""
    chosen = process.free_ports(1)[0] if port is None else port
    server = MariaDb(folder, chosen, certificates=certificates, options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
