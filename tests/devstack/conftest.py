"""The local Redshift over a real S3 server in this process, and the clients that people use."""

from __future__ import annotations

import contextlib
import secrets

import boto3
import pytest

from mlbatch.devstack.redshift.data_api import DataApi
from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.devstack.redshift.queuery_face import QueueryFace
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.wire import WireServer

NEVER_ENDS = (
    "SELECT SUM(a.i * b.i) AS s FROM generate_series(1, 1000000) a(i),"
    " generate_series(1, 1000000) b(i)"
)


def _store(s3_access):
    made = S3Objects(s3_access.endpoint, s3_access.region, "test", "test")
    made.bucket = f"t{secrets.token_hex(6)}"
    made.client().create_bucket(Bucket=made.bucket)
    return made


@pytest.fixture
def store(s3_access):
    """The object store of the engine, with a bucket of its own."""
    return _store(s3_access)


@pytest.fixture(scope="module")
def lasting_store(s3_access):
    """The same for a whole module, whose tests keep to prefixes of their own."""
    return _store(s3_access)


@pytest.fixture(scope="module")
def lasting_engine():
    """An engine for a whole module, that has nowhere to unload to."""
    with contextlib.closing(Engine(None, store=None)) as made:
        yield made


@pytest.fixture
def place(store):
    """An unused prefix."""
    return f"s3://{store.bucket}/unloaded/"


@pytest.fixture
def engine_with(store):
    """Engines with options of the test's own, all closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(database=None, **options):
            engine = Engine(database, store, options=EngineOptions(**options))
            stack.callback(engine.close)
            return engine

        yield make


@pytest.fixture
def engine(engine_with):
    """An engine in memory."""
    return engine_with()


@pytest.fixture
def session(engine):
    """A session of it."""
    return engine.session()


@pytest.fixture
def face(engine):
    """The PostgreSQL face."""
    made = WireServer(engine, users={"awsuser": "sesame"})
    made.start()
    yield made
    made.stop()


@pytest.fixture
def data_api(engine):
    """The Data API's face, with small pages."""
    face = DataApi(engine, page_rows=3, max_active=3)
    face.start()
    yield face
    face.stop()


@pytest.fixture
def redshift_data(data_api):
    """The real client."""
    client = boto3.client(
        "redshift-data",
        endpoint_url=data_api.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


@pytest.fixture
def queuery(engine, store):
    """Queuery's face."""
    face = QueueryFace(engine, tokens={"token": "secret", "other": "s"}, bucket=store.bucket)
    face.start()
    yield face
    face.stop()


@pytest.fixture
def refused():
    """The SQLSTATE with which a statement fails."""

    def of(session, sql, parameters=()):
        with pytest.raises(Refusal) as caught:
            session.execute(sql, parameters)
        return caught.value.sqlstate

    return of


@pytest.fixture
def rows():
    """The rows of a query, as tuples."""

    def of(session, sql, parameters=()):
        table = session.execute(sql, parameters).table
        return [tuple(row.values()) for row in table.to_pylist()]

    return of


@pytest.fixture
def never_ends():
    """A query that has to be stopped."""
    return NEVER_ENDS
