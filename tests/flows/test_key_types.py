"""Rows are mended whatever their keys are: in each warehouse's SQL and in each database."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from toy.model import Obedient
from toy.things import job_of, things_of

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.devstack.redshift.data_api import DataApi as DataApiFace
from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.errors import GateRefused
from mlbatch.ledger import RunKind
from mlbatch.repair import reconcile, retry
from mlbatch.switching import switch
from mlbatch.testing import JobHarness

NOON = datetime(2026, 1, 1, 12)
KEYS = {
    datetime: [
        datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 6), datetime(1969, 12, 31, 23, 59, 59, 999_999),
        datetime(1583, 1, 1), datetime(9999, 12, 31, 23, 59, 59), datetime(2026, 1, 2, 0, 0, 0, 500_000),
    ],
    date: [date(2026, 1, 2), date(1583, 1, 1), date(9999, 12, 31), date(1970, 1, 1)],
    str: [
        "it's", '"', "c\\", "\\'", "%s", ":name", "?", "$$ $1", "/* -- */", "a\nb\t", "--", "", " ",
        "牛丼 🍜", "';DROP TABLE things;--", "{d '1'}", "E'\\x'",
    ],
    int: [0, -1, 2**63 - 1, -(2**63) + 1],
    bool: [True, False],
}  # fmt: skip


class ElsewhereHarness(JobHarness):
    """A harness with a warehouse of its own, or without one the embedded one."""

    elsewhere = None

    @property
    def tools(self):
        tools = super().tools
        if self.elsewhere is None:
            return tools
        return replace(tools, warehouse=self.elsewhere, storage=self.elsewhere.storage)


@pytest.fixture
def redshift(s3_access, s3_storage):
    store = S3Objects(s3_access.endpoint, s3_access.region, "test", "test")
    with closing(Engine(None, store, options=EngineOptions(part_rows=3))) as engine:
        face = DataApiFace(engine)
        face.start()
        access = AwsAccess("us-east-1", f"http://127.0.0.1:{face.port}", "test", "test")
        yield RedshiftWarehouse(
            DataApi("dev", "devstack", user="awsuser", access=access), s3_storage
        )
        face.stop()


@pytest.fixture(params=["duckdb-sqlite", "redshift-mysql"])
def harness_of(request, tmp_path):
    """Makes a harness of a job: all embedded, or with the stand-ins of production."""
    warehouse = sink = None
    if request.param == "redshift-mysql":
        warehouse = request.getfixturevalue("redshift")
        sink = MysqlSink(request.getfixturevalue("mysql_address"))

    def make(job):
        made = ElsewhereHarness(job, tmp_path, part_rows=3, sink=sink)
        made.elsewhere = warehouse
        return made.given_model(Obedient())

    return make


def put(harness, kind, keys, text, *, minutes=0, instead_of="thing"):
    at = NOON + timedelta(minutes=minutes)
    rows = [
        {
            "thing": key,
            "place": "x'y",
            "text": text,
            "label": "good",
            "updated_at": at,
            "deleted_at": None,
        }
        for key in keys
    ]
    return harness.given("things", rows, key=instead_of, schema=things_of(kind))


def test_a_key_that_no_query_can_name_is_mended_by_reading_everything(tmp_path):
    keys = ["a\0b", "c"]
    harness = JobHarness(job_of(str, ("thing",)), tmp_path).given_model(Obedient())
    put(harness, str, ["c"], "good")
    put(harness, str, keys[:1], "!nan")
    assert harness.infer().totals.quarantined == 1
    put(harness, str, keys, "good")
    assert retry(harness.job, harness.tools).run.new.kind is RunKind.FULL
    put(harness, str, keys, "sad", minutes=-9_000)
    assert reconcile(harness.job, harness.tools).run.run.new.kind is RunKind.FULL
    assert told(harness) == dict.fromkeys(keys, "bad")
    harness.given_model(Obedient())
    assert switch(harness.job, harness.tools).inspection.rescored == 1


def test_the_empty_text_is_a_key_and_no_missing_one(harness_of):
    harness = harness_of(job_of(str, ("thing",)))
    put(harness, str, ["a", "b"], "good")
    put(harness, str, ["", None], "!nan", instead_of="text")
    assert harness.infer().totals.quarantined == 2
    harness.given_model(Obedient())
    switched = switch(harness.job, harness.tools)
    assert (switched.set_aside, switched.inspection.rescored) == (1, 2)
    assert retry(harness.job, harness.tools).totals.quarantined == 1
    put(harness, str, [""], "good")
    assert retry(harness.job, harness.tools).totals.written == 1
    assert told(harness) == dict.fromkeys(["", "a", "b"], "good")


def told(harness):
    return {row["thing"]: row["label"] for row in harness.rows()}


def test_long_keys_that_are_gone_fit_the_statements_of_every_warehouse(harness_of):
    harness = harness_of(job_of(str, ("place", "thing")))
    many = [f"{n:03}" + "語" * 252 for n in range(200)]
    put(harness, str, many, "good")
    harness.infer()
    put(harness, str, many[199:], "good", instead_of="place")
    done = reconcile(harness.job, harness.tools, max_deletes=199)
    assert sum(run.totals.deleted for run in done.runs) == 199
    assert len(done.runs) > 1
    assert list(told(harness)) == many[199:]
    assert harness.infer().run.new.kind is RunKind.DELTA


def test_what_is_gone_from_a_source_without_tombstones_is_removed(harness_of):
    harness = harness_of(job_of(int, ("place", "thing"), tombstone=None))
    put(harness, int, range(9), "good")
    harness.infer()
    put(harness, int, range(7), "good", instead_of="place")
    put(harness, int, [100], "sad", minutes=-9_000)
    put(harness, int, [2], "!nan", minutes=-9_000)
    with pytest.raises(GateRefused, match="2 of 9 predictions have no row"):
        reconcile(harness.job, harness.tools, max_deletes=1)
    # What was wanting is mended all the same.
    kept = dict.fromkeys([*range(2), *range(3, 9)], "good") | {100: "bad"}
    assert told(harness) == kept
    put(harness, int, [101], "sad", minutes=-9_000)
    put(harness, int, [2], "good", minutes=-9_000)
    done = reconcile(harness.job, harness.tools, max_deletes=2)
    (run,) = done.runs
    assert (run.totals.written, run.totals.deleted) == (2, 2)
    assert told(harness) == dict.fromkeys(range(7), "good") | {100: "bad", 101: "bad"}
    assert reconcile(harness.job, harness.tools).run is None


@pytest.mark.parametrize("key", [("thing",), ("place", "thing")], ids=len)
@pytest.mark.parametrize("kind", KEYS, ids=lambda kind: kind.__name__)
def test_what_is_stale_missing_gone_or_set_aside_is_mended(harness_of, kind, key):
    harness, keys = harness_of(job_of(kind, key)), KEYS[kind]
    put(harness, kind, keys, "good")
    put(harness, kind, keys[:1], "!nan")
    assert harness.infer().totals.quarantined == 1
    put(harness, kind, keys[:1], "good")
    assert retry(harness.job, harness.tools).run.new.kind is RunKind.REPAIR
    assert told(harness) == dict.fromkeys(keys, "good")

    put(harness, kind, keys, "sad", minutes=-9_000)
    done = reconcile(harness.job, harness.tools)
    assert (done.run.run.new.kind, done.found.stale.count) == (RunKind.REPAIR, len(keys))
    assert told(harness) == dict.fromkeys(keys, "bad")

    put(harness, kind, keys[:-1], "sad", minutes=-9_000, instead_of="place")
    done = reconcile(harness.job, harness.tools, max_deletes=1)
    assert (done.found.gone.count, done.run.totals.deleted) == (1, 1)
    assert told(harness) == dict.fromkeys(keys[:-1], "bad")
    assert reconcile(harness.job, harness.tools).run is None
