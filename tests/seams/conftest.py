"""Impatience, a bucket and a Redshift for the tests of faulty connections."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from faulty import TurningUrls

from mlbatch.connectors import aws, queuery, s3
from mlbatch.connectors.mysql import address as mysql_settings
from mlbatch.connectors.mysql import session as mysql_session
from mlbatch.connectors.redshift import wire as wire_settings
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack.redshift.engine import Engine, EngineOptions


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits by the minute here."""
    for module in (mysql_settings, aws):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 1)
        monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(mysql_settings, "GREETING_SECONDS", 1)
    monkeypatch.setattr(aws, "ATTEMPTS", 3)
    monkeypatch.setattr(queuery, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(mysql_session, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(mysql_session, "REDO_SECONDS", 3.0)
    monkeypatch.setattr(wire_settings, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(wire_settings, "SLACK_SECONDS", 1)


@pytest.fixture
def hopeless(monkeypatch):
    """What stays bad is given up sooner still."""
    monkeypatch.setattr(aws, "ATTEMPTS", 2)
    monkeypatch.setattr(s3, "TRIES", 2)
    monkeypatch.setattr(queuery, "TRIES", 2)
    monkeypatch.setattr(mysql_session, "REDO_SECONDS", 1.0)


@pytest.fixture
def bucket(s3_access):
    """A bucket with one object of 50,000 bytes, reached without any proxy."""
    made = S3Storage(f"t{time.time_ns()}", "staging", s3_access)
    s3_access.client("s3").create_bucket(Bucket=made.bucket)
    made.put(made.prefix + "part", b"0123456789" * 5_000)
    return made


@pytest.fixture
def engine(bucket):
    store = TurningUrls(bucket.access.endpoint, bucket.access.region, "test", "test")
    with closing(Engine(None, store, options=EngineOptions(part_rows=30))) as made:
        yield made
