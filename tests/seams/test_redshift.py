"""Redshift as warehouse, by both transports, over the wires that the real clients speak."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, bad_input
from faulty import short

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.queuery import QueueryWarehouse, read_fields, rows_of
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.statements import UnloadOptions
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.devstack.redshift.data_api import DataApi as DataApiFace
from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.devstack.redshift.queuery_face import QueueryFace
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.errors import (
    DeclarationError,
    RunFailed,
    SettingsError,
    SnapshotError,
    TemporaryError,
    UsageError,
)
from mlbatch.query import FeatureQuery
from mlbatch.unloading import take_snapshot
from mlbatch.window import Window

ROWS = pa.table(
    {
        "id": pa.array(range(1, 8), pa.int64()),
        "text": ['a\'b\\c\n"d"', "牛丼 🍜", None, "", "x" * 3_000, "tab\there", "$t$ $1 :name"],
        "at": pa.array([datetime(2026, 1, n, 1, 2, 3, n) for n in range(1, 8)], pa.timestamp("us")),
        "good": [True, False, None, True, True, False, None],
        "share": [0.1, 1e300, None, -1.5, 1 / 3, 0.0, 2.0],
        "day": pa.array([date(2026, 1, n) for n in range(1, 8)], pa.date32()),
    }
)


@pytest.fixture
def engine(s3_access, s3_storage):
    store = S3Objects(s3_access.endpoint, s3_access.region, "test", "test")
    made = Engine(None, store, options=EngineOptions(part_rows=3))
    yield made
    made.close()


@pytest.fixture
def data_api(engine):
    face = DataApiFace(engine)
    face.start()
    yield DataApi("dev", "devstack", user="awsuser", access=_local(face.port))
    face.stop()


def _local(port):
    return AwsAccess("us-east-1", f"http://127.0.0.1:{port}", "test", "test")


@pytest.fixture
def wire(engine):
    face = WireServer(engine, users={"awsuser": "sesame"})
    face.start()
    password = FixedPassword("sesame")
    yield Wire("127.0.0.1", face.port, "dev", "awsuser", password, verify_tls=False)
    face.stop()


@pytest.fixture(params=["data_api", "wire", "real"])
def warehouse(request, s3_storage):
    """Both transports to the local one, and the real one that MLBATCH_TEST_REDSHIFT describes.

    That is JSON: the arguments of `DataApi` (database, cluster or workgroup, user), and iam_role.
    With it, MLBATCH_TEST_S3 must name a bucket that the role may write to.
    """
    if request.param == "real":
        given = os.environ.get("MLBATCH_TEST_REDSHIFT")
        if not given or not os.environ.get("MLBATCH_TEST_S3"):
            pytest.skip("no Redshift: set MLBATCH_TEST_REDSHIFT and MLBATCH_TEST_S3")
        described = json.loads(given)
        options = UnloadOptions(described.pop("iam_role", "default"))
        return RedshiftWarehouse(DataApi(**described), s3_storage, options)
    return RedshiftWarehouse(request.getfixturevalue(request.param), s3_storage)


@pytest.fixture
def queuery(engine, s3_storage):
    face = QueueryFace(engine, tokens={"me": "sesame"}, bucket=s3_storage.bucket)
    face.start()
    yield QueueryWarehouse(face.url, "me", "sesame", s3_storage, sleep=short)
    face.stop()


def read_back(storage, snapshot):
    import pyarrow.parquet as pq

    tables = []
    for part in snapshot.parts:
        with storage.open(part.uri, etag=part.etag) as file:
            tables.append(pq.ParquetFile(file).read())
    return pa.concat_tables(tables)


def test_every_type_goes_in_and_comes_back(warehouse, s3_storage):
    assert warehouse.copy("notes", ROWS, replace_by=("id",)) == 7
    select = "SELECT id, text, at, good, share, day FROM notes ORDER BY id"
    snapshot = take_snapshot(warehouse, s3_storage, select, s3_storage.prefix + "a/", cursor="at")
    assert snapshot.rows == 7
    assert len(snapshot.parts) > 1
    assert snapshot.highest_cursor == datetime(2026, 1, 7, 1, 2, 3, 7, tzinfo=UTC)
    found = read_back(s3_storage, snapshot).sort_by("id")
    assert found.cast(ROWS.schema).to_pylist() == ROWS.to_pylist()


def test_small_results_have_their_types(warehouse):
    warehouse.copy("notes", ROWS, replace_by=("id",))
    found = warehouse.fetch("SELECT id, text, at, good, share, day FROM notes ORDER BY id")
    assert found.to_pylist() == ROWS.to_pylist()
    assert warehouse.fetch("SELECT id, at FROM notes LIMIT 0").schema.types[0] == pa.int64()


@pytest.mark.parametrize("where", ["1 = 0", "1 = 1"])
def test_a_decimal_is_a_number_without_any_value(warehouse, where):
    select = f"SELECT CAST(NULL AS DECIMAL(10, 2)) AS price WHERE {where}"
    assert pa.types.is_decimal(warehouse.fetch(select).schema.field("price").type)


def test_copying_replaces_rows_of_the_same_key(warehouse):
    warehouse.copy("notes", ROWS, replace_by=("id",))
    changed = ROWS.slice(0, 2).set_column(1, "text", pa.array(["new", "newer"]))
    assert warehouse.copy("notes", changed, replace_by=("id",)) == 2
    found = warehouse.fetch("SELECT COUNT(*) AS n, MIN(text) AS t FROM notes WHERE id <= 2")
    assert found.to_pylist() == [{"n": 2, "t": "new"}]
    assert warehouse.copy("notes", ROWS.slice(0, 0), replace_by=("id",)) == 0


@pytest.fixture(params=["embedded", "data_api", "wire"])
def loadable(request, tmp_path, s3_storage):
    """Every warehouse that takes rows, with a table of three columns."""
    if request.param == "embedded":
        made = DuckdbWarehouse(tmp_path / "w.duckdb", FolderStorage(tmp_path / "parts"))
    else:
        made = RedshiftWarehouse(request.getfixturevalue(request.param), s3_storage)
    made.copy("foods", RICE, replace_by=("id",))
    return made


RICE = pa.table({"id": [1], "name": ["rice"], "kind": ["grain"]})


def test_columns_go_by_name_whatever_their_order(loadable):
    turned = pa.table({"kind": ["fish", "grain"], "id": [2, 1], "name": ["eel", "oats"]})
    assert loadable.copy("foods", turned, replace_by=("id",)) == 2
    found = loadable.fetch("SELECT id, name, kind FROM foods ORDER BY id").to_pylist()
    assert found == [
        {"id": 1, "name": "oats", "kind": "grain"},
        {"id": 2, "name": "eel", "kind": "fish"},
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (RICE.drop_columns(["kind"]), "the rows lack the column kind"),
        (RICE.append_column("cost", [[3]]), "the table lacks the column cost"),
        (RICE.slice(0, 0).rename_columns(["id", "name", "sort"]), "lack the column kind"),
    ],
    ids=["missing", "unknown", "renamed"],
)
def test_rows_that_do_not_fit_are_refused_alike_and_nothing_is_loaded(loadable, rows, told):
    with pytest.raises(UsageError, match=told):
        loadable.copy("foods", rows, replace_by=("id",))
    found = loadable.fetch("SELECT id, name, kind FROM foods").to_pylist()
    assert found == RICE.to_pylist()


def test_no_rows_are_no_parts(warehouse, s3_storage):
    select = "SELECT 1 AS one WHERE 1 = 0"
    snapshot = take_snapshot(warehouse, s3_storage, select, s3_storage.prefix + "none/")
    assert (snapshot.rows, snapshot.parts) == (0, ())


def test_nothing_is_overwritten(warehouse, s3_storage):
    prefix = s3_storage.prefix + "once/"
    warehouse.unload("SELECT 1 AS one", prefix)
    with pytest.raises(RunFailed, match="not empty"):
        warehouse.unload("SELECT 2 AS one", prefix)
    with pytest.raises(SnapshotError, match="outside"):
        warehouse.unload("SELECT 2 AS one", "s3://elsewhere/x/")


def test_an_author_s_comments_and_texts_reach_the_warehouse_unharmed(warehouse, s3_storage):
    words = "-- don't: 50 % of ? is $1, %s or :name\n/* isn't it */"
    query = FeatureQuery.parse(f"SELECT '50 %s :name' AS told {words}")
    assert warehouse.fetch(query.windowed(Window(), cursor=None)).to_pylist() == [
        {"told": "50 %s :name"}
    ]
    select = query.windowed(Window(), cursor=None)
    assert warehouse.unload(select, s3_storage.prefix + "words/").rows == 1


def test_a_wrong_query_is_a_declaration(warehouse):
    for select in ("SELECT x FROM nowhere", "SELECT FROM WHERE", "SELECT 1 AS a LIMIT 1; x"):
        with pytest.raises((DeclarationError, RunFailed)):
            warehouse.fetch(select)
    with pytest.raises(DeclarationError, match="refuses the query"):
        warehouse.fetch("SELECT x FROM nowhere")


def test_the_clock_is_the_warehouse_s_in_utc(warehouse):
    assert abs(warehouse.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert "Redshift" in warehouse.about()


@pytest.fixture
def in_tokyo(engine):
    """Whose sessions begin nine hours ahead: the users of both transports, and Queuery's."""
    session = engine.session()
    for user in ("awsuser", "me"):
        session.execute(f"ALTER USER {user} SET timezone TO 'Asia/Tokyo'")
    session.close()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize("name", ["data_api", "wire"])
def test_a_user_s_own_time_zone_moves_neither_the_clock_nor_a_window(
    request, engine, s3_storage, name
):
    session = engine.session("somebody")
    session.execute("CREATE TABLE moments AS SELECT '2026-01-01 12:00:00+00'::TIMESTAMPTZ AS at")
    warehouse = RedshiftWarehouse(request.getfixturevalue(name), s3_storage)
    assert abs(warehouse.now() - datetime.now(UTC)) < timedelta(seconds=10)
    within = (
        "SELECT at FROM moments WHERE at >= '2026-01-01 11:00:00' AND at < '2026-01-01 13:00:00'"
    )
    assert warehouse.fetch(within).num_rows == 1
    assert warehouse.unload(within, s3_storage.prefix + "zone/").rows == 1


@pytest.mark.usefixtures("in_tokyo")
def test_a_queuery_in_another_time_zone_is_refused(queuery):
    with pytest.raises(SettingsError, match="another zone than UTC"):
        queuery.now()


def test_an_unload_that_is_cut_short_is_never_believed(warehouse, engine, s3_storage):
    warehouse.copy("notes", ROWS, replace_by=("id",))
    engine.faults.add(Fault("abort_unload_after_parts", "unload", parts=1))
    prefix = s3_storage.prefix + "cut/"
    with pytest.raises((RunFailed, TemporaryError)):
        take_snapshot(warehouse, s3_storage, "SELECT id FROM notes", prefix)
    again = take_snapshot(
        warehouse, s3_storage, "SELECT id FROM notes", s3_storage.prefix + "again/"
    )
    assert again.rows == 7


def test_a_serializable_conflict_is_temporary(warehouse, engine):
    engine.faults.add(
        Fault("error", "select 1", sqlstate="XX000", message="1023 Serializable isolation")
    )
    with pytest.raises(TemporaryError, match="1023"):
        warehouse.fetch("SELECT 1 AS one")


def test_a_limit_of_time_is_told(warehouse):
    from dataclasses import replace

    slow = replace(warehouse, transport=replace(warehouse.transport, statement_seconds=1))
    never = (
        "SELECT SUM(a.i * b.i) AS s FROM generate_series(1, 1000000) a(i),"
        " generate_series(1, 1000000) b(i)"
    )
    with pytest.raises(RunFailed, match=r"timeout|cancel"):
        slow.fetch(never)


@bad_input(46, outcome=ACCEPTED)
def test_queuery_gives_the_same_rows_but_for_the_empty_text(data_api, queuery, s3_storage):
    RedshiftWarehouse(data_api, s3_storage).copy("notes", ROWS, replace_by=("id",))
    select = "SELECT id, text, at, good, share, day FROM notes ORDER BY id"
    snapshot = take_snapshot(queuery, s3_storage, select, s3_storage.prefix + "q/", cursor="at")
    found = read_back(s3_storage, snapshot).sort_by("id").cast(ROWS.schema).to_pylist()
    expected = [row | {"text": row["text"] or None} for row in ROWS.to_pylist()]
    assert found == expected
    assert queuery.fetch("SELECT id, text FROM notes").num_rows == 7
    assert "Queuery" in queuery.about()
    assert abs(queuery.now() - datetime.now(UTC)) < timedelta(seconds=10)


def test_queuery_s_refusals(queuery, s3_storage):
    from dataclasses import replace

    nothing = take_snapshot(
        queuery, s3_storage, "SELECT 1 AS one WHERE 1 = 0", s3_storage.prefix + "n/"
    )
    assert nothing.rows == 0
    with pytest.raises(RunFailed, match="nowhere"):
        queuery.fetch("SELECT x FROM nowhere")
    with pytest.raises(SettingsError, match="refuses the token") as caught:
        replace(queuery, token_secret="open").fetch("SELECT 1 AS one")
    assert "open" not in repr(queuery) + str(caught.value)
    with pytest.raises(UsageError, match="cannot load"):
        queuery.copy("t", ROWS, replace_by=("id",))
    with pytest.raises(TemporaryError):
        replace(queuery, endpoint="http://127.0.0.1:9").fetch("SELECT 1 AS one")


def test_fields_are_read_as_unload_writes_them():
    text = '"1","a\\\\b\\"c\\,d"\n"2","line\\\nbreak"\n"3",""\n'
    assert [read_fields(row) for row in rows_of(text)] == [
        ["1", 'a\\b"c,d'], ["2", "line\nbreak"], ["3", ""]
    ]  # fmt: skip
    with pytest.raises(SnapshotError, match="not quoted"):
        read_fields("1,2")
