"""Private servers for the behaviour suites, one of each per test process."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.mysql.address import MysqlAddress, connect
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack.mariadb import find_program, private_mariadb
from mlbatch.errors import UsageError


def need_mariadb():
    """Skip where no server is installed."""
    try:
        find_program("mariadbd")
    except UsageError as error:
        pytest.skip(f"{error.message}; {error.hint}")


@contextmanager
def mariadb(folder, *, options=(), **how):
    """A private MariaDB in ``folder``, of a test's own or of many, each with its pools of connections."""
    need_mariadb()
    options = (*options, "--max-connections=1000")
    with private_mariadb(folder, options=options, **how) as server:
        yield server


def writer_of(server):
    """The address of the user that mlbatch has in production."""
    password = FixedPassword(server.password)
    return MysqlAddress(
        server.host, server.port, server.database, server.user, password, verify_tls=False
    )


def admin_of(server):
    """The address of the user who may do everything."""
    password = FixedPassword(server.admin_password)
    return replace(writer_of(server), user=server.admin, password=password)


@pytest.fixture(scope="session")
def mysql_admin(tmp_path_factory):
    """A server's administrator: of a private MariaDB, or as MLBATCH_TEST_MYSQL says.

    That is host:port:user:password, of a server where databases may be made and dropped.
    """
    given = os.environ.get("MLBATCH_TEST_MYSQL")
    if given:
        host, port, user, password = given.split(":", 3)
        yield MysqlAddress(
            host, int(port), "mysql", user, FixedPassword(password), verify_tls=False
        )
        return
    with mariadb(tmp_path_factory.mktemp("mysql")) as server:
        yield replace(admin_of(server), database="mysql")


@pytest.fixture
def mysql_address(mysql_admin):
    """A database of its own."""
    name = f"t{secrets.token_hex(6)}"
    with closing(connect(mysql_admin)) as connection:
        connection.query(f'CREATE DATABASE "{name}"')
    yield replace(mysql_admin, database=name)
    with closing(connect(mysql_admin)) as connection:
        connection.query(f'DROP DATABASE "{name}"')


@pytest.fixture(scope="session")
def s3_access():
    """An S3 server over HTTP in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield AwsAccess("us-east-1", f"http://{host}:{port}", "test", "test")
    server.stop()


@pytest.fixture
def s3_storage(request):
    """A bucket of its own, or a folder of its own of the real one that MLBATCH_TEST_S3 names.

    That is bucket/prefix, reached with the standard chain of credentials. Read in small blocks.
    """
    given = os.environ.get("MLBATCH_TEST_S3")
    if given:
        bucket, _, prefix = given.partition("/")
        folder = f"{prefix.strip('/')}/{secrets.token_hex(6)}".strip("/")
        return S3Storage(bucket, folder, AwsAccess(), block_bytes=1_000, whole_bytes=100)
    s3_access = request.getfixturevalue("s3_access")
    bucket = f"t{secrets.token_hex(6)}"
    s3_access.client("s3").create_bucket(Bucket=bucket)
    return S3Storage(bucket, "staging", s3_access, block_bytes=1_000, whole_bytes=100)


@pytest.fixture
def unused_tcp_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
