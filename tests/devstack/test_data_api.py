"""The Data API through the real boto3 client."""

from __future__ import annotations

import functools
import threading
import time

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from mlbatch.devstack.redshift.faults import Fault

WHERE = {"ClusterIdentifier": "devstack", "Database": "dev", "DbUser": "loader"}


@pytest.fixture
def run(redshift_data):
    """Run to the end: what DescribeStatement then says."""

    def of(sql, **options):
        many = isinstance(sql, list)
        call = redshift_data.batch_execute_statement if many else redshift_data.execute_statement
        given = {} if "SessionId" in options else WHERE
        submitted = call(**{"Sqls" if many else "Sql": sql}, **given, **options)
        return redshift_data.describe_statement(Id=submitted["Id"], WaitTimeSeconds=20)

    return of


@pytest.fixture
def values(redshift_data):
    """A result's values, over all pages."""

    def of(statement_id):
        pages = redshift_data.get_paginator("get_statement_result").paginate(Id=statement_id)
        return [
            [None if "isNull" in field else next(iter(field.values())) for field in record]
            for page in pages
            for record in page["Records"]
        ]

    return of


@pytest.fixture
def code(redshift_data):
    """The code of the error with which a call fails."""

    def of(operation, **given):
        with pytest.raises(ClientError) as caught:
            getattr(redshift_data, operation)(**given)
        return caught.value.response["Error"]["Code"]

    return of


def test_a_statement_finishes_and_says_what_it_did(run):
    run("CREATE TABLE t (id BIGINT)")
    found = run("INSERT INTO t VALUES (1), (2)")
    assert found["Status"] == "FINISHED"
    assert found["ResultRows"] == 2
    assert not found["HasResultSet"]
    assert found["Duration"] > 0
    assert (found["ClusterIdentifier"], found["Database"]) == ("devstack", "dev")
    assert "Error" not in found


def test_results_are_typed(run, redshift_data):
    found = run(
        "SELECT 1::BIGINT AS i, 1.5::FLOAT8 AS f, 2.50::NUMERIC(9, 2) AS n, true AS b, '日本' AS t,"
        " '2026-01-02'::DATE AS d, '2026-01-02 03:04:05.6'::TIMESTAMP AS ts,"
        " '2026-01-02'::TIMESTAMPTZ AS tz, NULL::INT AS nothing"
    )
    result = redshift_data.get_statement_result(Id=found["Id"])
    assert result["TotalNumRows"] == 1
    assert result["Records"][0] == [
        {"longValue": 1}, {"doubleValue": 1.5}, {"stringValue": "2.50"}, {"booleanValue": True},
        {"stringValue": "日本"}, {"stringValue": "2026-01-02"},
        {"stringValue": "2026-01-02 03:04:05.6"}, {"stringValue": "2026-01-02 00:00:00+00"},
        {"isNull": True},
    ]  # fmt: skip
    assert [(column["name"], column["typeName"]) for column in result["ColumnMetadata"]] == [
        ("i", "int8"), ("f", "float8"), ("n", "numeric"), ("b", "bool"), ("t", "varchar"),
        ("d", "date"), ("ts", "timestamp"), ("tz", "timestamptz"), ("nothing", "int4"),
    ]  # fmt: skip
    assert result["ColumnMetadata"][2]["precision"] == 9
    assert result["ColumnMetadata"][2]["scale"] == 2


def test_results_come_in_pages(run, values, redshift_data):
    found = run("SELECT i FROM generate_series(1, 8) g(i) ORDER BY i")
    assert found["ResultRows"] == 8
    first = redshift_data.get_statement_result(Id=found["Id"])
    assert len(first["Records"]) == 3
    assert first["NextToken"]
    assert values(found["Id"]) == [[n] for n in range(1, 9)]


def test_parameters_are_bound_by_name(run, values):
    given = [{"name": "a", "value": "it's \\ :b"}, {"name": "b", "value": "2"}]
    found = run("SELECT :a AS a, 1 + :b::INT AS b, ':a' AS c", Parameters=given)
    assert values(found["Id"]) == [["it's \\ :b", 3, ":a"]]
    assert found["QueryParameters"] == given


def test_a_failure_has_redshifts_text(run):
    found = run("SELECT * FROM nowhere")
    assert found["Status"] == "FAILED"
    assert found["Error"] == 'ERROR: relation "nowhere" does not exist'


def test_a_batch_is_one_transaction(run, values):
    run("CREATE TABLE t (id BIGINT)")
    found = run(["INSERT INTO t VALUES (1)", "SELECT * FROM nowhere", "INSERT INTO t VALUES (2)"])
    assert found["Status"] == "FAILED"
    assert found["Error"].startswith('Query #2 failed with ERROR: relation "nowhere"')
    assert [one["Status"] for one in found["SubStatements"]] == ["FINISHED", "FAILED", "ABORTED"]
    assert values(run("SELECT COUNT(*) AS n FROM t")["Id"]) == [[0]]


def test_a_batch_keeps_the_results_of_each_statement(run, values, store, place):
    found = run([
        "SET query_group TO 'nightly'",
        f"UNLOAD ('SELECT 1 AS a UNION ALL SELECT 2') TO '{place}' IAM_ROLE DEFAULT PARQUET",
        "SELECT pg_last_unload_count() AS n",
    ])  # fmt: skip
    assert found["Status"] == "FINISHED"
    assert found["HasResultSet"]
    assert [one["HasResultSet"] for one in found["SubStatements"]] == [False, False, True]
    assert values(found["Id"] + ":3") == [[2]]
    assert len(store.list(place)) == 2


def test_a_batch_may_commit_each_statement(run, values):
    run("CREATE TABLE t (id BIGINT)")
    statements = ["INSERT INTO t VALUES (1)", "SELECT * FROM nowhere", "INSERT INTO t VALUES (2)"]
    assert run(statements, ExecutionMode="AUTO_COMMIT")["Status"] == "FAILED"
    assert values(run("SELECT COUNT(*) AS n FROM t")["Id"]) == [[2]]


def test_a_client_token_submits_once(run, redshift_data, values):
    run("CREATE TABLE t (id BIGINT)")
    first = redshift_data.execute_statement(
        Sql="INSERT INTO t VALUES (1)", ClientToken="k", **WHERE
    )
    again = redshift_data.execute_statement(
        Sql="INSERT INTO t VALUES (1)", ClientToken="k", **WHERE
    )
    assert first["Id"] == again["Id"]
    redshift_data.describe_statement(Id=first["Id"], WaitTimeSeconds=20)
    assert values(run("SELECT COUNT(*) AS n FROM t")["Id"]) == [[1]]


def test_a_lost_reply_is_retried_by_the_client_and_done_once(run, engine, values):
    run("CREATE TABLE t (id BIGINT)")
    for kind in ("drop", "lose_reply"):
        engine.faults.add(Fault(kind, "INSERT"))
    assert run("INSERT INTO t VALUES (1)", ClientToken="k")["Status"] == "FINISHED"
    assert all(rule.times == 0 for rule in engine.faults.rules)
    assert values(run("SELECT COUNT(*) AS n FROM t")["Id"]) == [[1]]


def test_waiting_ends_with_the_statement(redshift_data, engine):
    engine.faults.add(Fault("delay", "slow", seconds=0.3))
    began = time.monotonic()
    found = redshift_data.execute_statement(Sql="SELECT 'slow' AS a", WaitTimeSeconds=20, **WHERE)
    assert found["Status"] == "FINISHED"
    assert found["HasResultSet"]
    assert time.monotonic() - began < 15


def test_without_waiting_the_statement_is_under_way(redshift_data, never_ends, code):
    found = redshift_data.execute_statement(Sql=never_ends, **WHERE)
    assert found["Status"] in ("SUBMITTED", "PICKED", "STARTED")
    assert redshift_data.describe_statement(Id=found["Id"])["Status"] in ("SUBMITTED", "STARTED")
    assert code("get_statement_result", Id=found["Id"]) == "ResourceNotFoundException"
    assert redshift_data.cancel_statement(Id=found["Id"])["Status"]
    ended = redshift_data.describe_statement(Id=found["Id"], WaitTimeSeconds=5)
    assert (ended["Status"], ended["Error"]) == (
        "ABORTED",
        "ERROR: Query cancelled on user's request",
    )
    assert code("cancel_statement", Id=found["Id"]) == "ValidationException"


def test_a_cancelled_batch_is_rolled_back(run, redshift_data, never_ends, values):
    run("CREATE TABLE t (id BIGINT)")
    batch = redshift_data.batch_execute_statement(
        Sqls=["INSERT INTO t VALUES (1)", never_ends], **WHERE
    )
    redshift_data.cancel_statement(Id=batch["Id"])
    assert redshift_data.describe_statement(Id=batch["Id"])["Status"] == "ABORTED"
    assert values(run("SELECT COUNT(*) AS n FROM t")["Id"]) == [[0]]


def test_a_time_limit_is_a_failure(run, never_ends):
    found = run(["SET statement_timeout TO 100", never_ends])
    assert found["Status"] == "FAILED"
    assert "statement timeout" in found["Error"]


def test_a_session_keeps_temporary_tables(run, redshift_data, values, code):
    made = run("CREATE TEMP TABLE staged (id BIGINT)", SessionKeepAliveSeconds=60)
    kept = made["SessionId"]
    run("INSERT INTO staged VALUES (7)", SessionId=kept)
    assert values(run("SELECT id FROM staged", SessionId=kept)["Id"]) == [[7]]
    assert run("SELECT id FROM staged")["Status"] == "FAILED"
    sessions = redshift_data.list_sessions()["Sessions"]
    assert [(one["SessionId"], one["Status"]) for one in sessions] == [(kept, "AVAILABLE")]
    assert code("execute_statement", Sql="SELECT 1", SessionId="x" * 36) == (
        "ResourceNotFoundException"
    )


def test_an_idle_session_is_closed(run, data_api, code):
    kept = run("SELECT 1 AS a", SessionKeepAliveSeconds=1)["SessionId"]
    data_api._sessions[kept].last.updated -= 2
    assert code("execute_statement", Sql="SELECT 1", SessionId=kept) == "ResourceNotFoundException"


def test_a_busy_session_takes_no_second_statement(redshift_data, never_ends, code):
    made = redshift_data.execute_statement(Sql=never_ends, SessionKeepAliveSeconds=60, **WHERE)
    assert code("execute_statement", Sql="SELECT 1", SessionId=made["SessionId"]) == (
        "ValidationException"
    )


@pytest.mark.parametrize(
    ("operation", "given", "expected"),
    [
        ("execute_statement", {"Sql": "SELECT 1", "Database": "dev"}, "ValidationException"),
        ("execute_statement", {"Sql": "SELECT 1", "ClusterIdentifier": "c"}, "ValidationException"),
        ("execute_statement", {"Sql": "SELECT '" + "x" * 100_000, **WHERE}, "ValidationException"),
        ("execute_statement", {"Sql": "SELECT :a", "Parameters": [{"name": "b", "value": "1"}],
                               **WHERE}, "ValidationException"),
        ("batch_execute_statement", {"Sqls": ["SELECT 1"] * 41, **WHERE}, "ParamValidationError"),
        ("describe_statement", {"Id": "nothing"}, "ResourceNotFoundException"),
        ("get_statement_result", {"Id": "nothing:2"}, "ResourceNotFoundException"),
        ("list_tables", {"Database": "dev"}, "UnknownOperationException"),
    ],
)  # fmt: skip
def test_what_the_api_refuses(code, redshift_data, operation, given, expected):
    if expected == "ParamValidationError":
        with pytest.raises(Exception, match="Sqls"):
            getattr(redshift_data, operation)(**given)
    else:
        assert code(operation, **given) == expected


def test_too_many_statements_at_once_are_refused(redshift_data, never_ends, code):
    for _ in range(3):
        redshift_data.execute_statement(Sql=never_ends, **WHERE)
    assert code("execute_statement", Sql="SELECT 1", **WHERE) == "ActiveStatementsExceededException"


def test_statements_are_listed_newest_first(run, redshift_data):
    run("SELECT 1 AS a", StatementName="first")
    run(["SELECT 2 AS a", "SELECT 3 AS a"], StatementName="second")
    run("SELECT * FROM nowhere")
    found = redshift_data.list_statements(Status="FINISHED")["Statements"]
    assert [one["StatementName"] for one in found] == ["second", "first"]
    assert found[0]["QueryStrings"] == ["SELECT 2 AS a", "SELECT 3 AS a"]
    named = redshift_data.list_statements(StatementName="fir", Status="ALL")["Statements"]
    assert [one["QueryString"] for one in named] == ["SELECT 1 AS a"]
    paged = redshift_data.get_paginator("list_statements").paginate(
        PaginationConfig={"PageSize": 2}
    )
    assert sum(len(page["Statements"]) for page in paged) == 3


def test_throttling_is_retried_by_the_client(run, engine):
    engine.faults.add(Fault("http", "ExecuteStatement", times=2))
    assert run("SELECT 1 AS a")["Status"] == "FINISHED"


def test_other_answers_of_the_api_can_be_made_up(engine, code):
    engine.faults.add(Fault("http", "^DescribeStatement", code="InternalServerException", status=500,
                            times=-1))  # fmt: skip
    assert code("describe_statement", Id="x") == "InternalServerException"


def test_faults_are_set_and_cleared_over_http(data_api, run):
    url = f"{data_api.url}/_faults"
    rule = {"kind": "error", "pattern": "orders", "message": "Disk Full", "sqlstate": "53100"}
    assert httpx.post(url, json=rule).json()["faults"][0]["pattern"] == "orders"
    assert run("SELECT 'orders' AS a")["Error"] == "ERROR: Disk Full"
    httpx.post(url, json=[rule, rule])
    assert httpx.delete(url).json() == {"faults": []}
    assert run("SELECT 'orders' AS a")["Status"] == "FINISHED"
    assert httpx.post(url, json={"kind": "explode"}).status_code == 400


def test_many_clients_at_once(data_api):
    def ask(number, found):
        config = Config(retries={"mode": "standard"})
        client = boto3.session.Session("a", "b", region_name="us-east-1").client(
            "redshift-data", endpoint_url=data_api.url, config=config
        )
        submitted = client.execute_statement(
            Sql=f"SELECT {number} AS a", WaitTimeSeconds=20, **WHERE
        )
        record = client.get_statement_result(Id=submitted["Id"])["Records"][0][0]
        found[number] = record["longValue"]
        client.close()

    found: dict[int, int] = {}
    threads = [threading.Thread(target=functools.partial(ask, n, found)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: 0, 1: 1, 2: 2}


def test_stopping_ends_what_runs(data_api, redshift_data, never_ends):
    redshift_data.execute_statement(Sql=never_ends, **WHERE)
    before = threading.active_count()
    data_api.stop()
    assert threading.active_count() < before
