"""The Data API and Queuery, spoken to without their clients: what no client would send, too."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import secrets
import socket
import time
import urllib.parse
import urllib.request
from contextlib import closing
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift.data_api import MAX_BATCH, MAX_BYTES, DataApi
from mlbatch.devstack.redshift.data_results import column_metadata, records, size
from mlbatch.devstack.redshift.data_views import page
from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.queuery_face import QueueryFace

PLACE = {"ClusterIdentifier": "c", "Database": "dev"}


@pytest.fixture(scope="module")
def engine(lasting_store):
    with closing(Engine(None, lasting_store)) as made:
        yield made


@pytest.fixture(scope="module")
def api(engine):
    face = DataApi(engine, page_rows=2)
    face.start()
    yield face
    face.stop()


@pytest.fixture(scope="module")
def queuery(engine):
    face = QueueryFace(engine, tokens={"token": "secret", "other": "s"}, bucket=engine.store.bucket)
    face.start()
    yield face
    face.stop()


@pytest.fixture(autouse=True)
def no_faults(engine):
    yield
    engine.faults.clear()


def request(face, method, path, body=b"", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", face.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        reply = connection.getresponse()
        return reply.status, reply.read(), dict(reply.getheaders())
    finally:
        connection.close()


def call(api, operation, given):
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    status, content, headers = request(
        api, "POST", "/", body, X_Amz_Target=f"RedshiftData.{operation}"
    )
    assert headers["Content-Type"] in ("application/x-amz-json-1.1", "application/json")
    return status, json.loads(content)


def run(api, sql, **more):
    status, found = call(
        api, "ExecuteStatement", {**PLACE, "Sql": sql, "WaitTimeSeconds": 20, **more}
    )
    assert status == 200, found
    return found["Id"]


def described(api, key):
    return call(api, "DescribeStatement", {"Id": key, "WaitTimeSeconds": 20})[1]


# The Data API


@pytest.mark.parametrize(
    ("operation", "given", "error", "text"),
    [
        ("Nonsense", {}, "UnknownOperationException", "no operation 'Nonsense'"),
        ("", {}, "UnknownOperationException", "no operation ''"),
        ("ExecuteStatement", b"{", "SerializationException", ""),
        ("ExecuteStatement", b"[]", "SerializationException", "object"),
        ("ExecuteStatement", b"5", "SerializationException", "object"),
        ("ExecuteStatement", b"\xff", "SerializationException", ""),
        ("ExecuteStatement", {}, "ValidationException", "ClusterIdentifier or WorkgroupName"),
        ("ExecuteStatement", {"ClusterIdentifier": "c", "Sql": "SELECT 1"}, "ValidationException",
         "Database is required"),
        ("ExecuteStatement", {**PLACE}, "ValidationException", "between 1 and 100000 bytes"),
        ("ExecuteStatement", {**PLACE, "Sql": " \n "}, "ValidationException", "between 1 and"),
        ("ExecuteStatement", {**PLACE, "Sql": "日" * (MAX_BYTES // 3 + 1)}, "ValidationException",
         "between 1 and"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT 1", "WaitTimeSeconds": 31},
         "ValidationException", "between 0 and 30"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT 1", "WaitTimeSeconds": -1},
         "ValidationException", "between 0 and 30"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT 1", "WaitTimeSeconds": "soon"},
         "SerializationException", "WaitTimeSeconds"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT 1", "SessionKeepAliveSeconds": 86_401},
         "ValidationException", "SessionKeepAliveSeconds must be between 0 and 86400"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT 1", "SessionKeepAliveSeconds": -1},
         "ValidationException", "SessionKeepAliveSeconds"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT :a", "Parameters": [{"name": "b", "value": "1"}]},
         "ValidationException", "there is no parameter :a"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT :a", "Parameters": [{"name": "a"}]},
         "ValidationException", "name and a value"),
        ("ExecuteStatement", {**PLACE, "Sql": "SELECT :a", "Parameters": ["a"]},
         "ValidationException", "name and a value"),
        ("ExecuteStatement", {"Sql": "SELECT 1", "SessionId": "nobody"}, "ResourceNotFoundException",
         "Session nobody is not available"),
        ("BatchExecuteStatement", {**PLACE, "Sqls": []}, "ValidationException", "between 1 and 40"),
        ("BatchExecuteStatement", {**PLACE}, "ValidationException", "between 1 and 40"),
        ("BatchExecuteStatement", {**PLACE, "Sqls": ["SELECT 1"] * (MAX_BATCH + 1)},
         "ValidationException", "between 1 and 40"),
        ("BatchExecuteStatement", {**PLACE, "Sqls": ["SELECT 1", ""]}, "ValidationException",
         "between 1 and"),
        ("DescribeStatement", {"Id": "nobody"}, "ResourceNotFoundException", "nobody does not exist"),
        ("DescribeStatement", {}, "ResourceNotFoundException", "does not exist"),
        ("CancelStatement", {"Id": "nobody"}, "ResourceNotFoundException", "does not exist"),
        ("GetStatementResult", {"Id": "nobody:1"}, "ResourceNotFoundException", "does not exist"),
        ("ListStatements", {"MaxResults": 101}, "ValidationException", "MaxResults"),
        ("ListStatements", {"MaxResults": "many"}, "SerializationException", "MaxResults"),
        ("ListStatements", {"NextToken": "x"}, "ValidationException", "NextToken"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)  # fmt: skip
def test_what_the_data_api_refuses(api, operation, given, error, text):
    status, found = call(api, operation, given)
    assert (status, found["__type"]) == (400, error)
    assert text in found["Message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
NAMES = ["Id", "Sql", "Sqls", "Database", "ClusterIdentifier", "Parameters", "NextToken", "MaxResults",
         "Status", "StatementName", "SessionId", "WorkgroupName", "ClientToken", "DbUser"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    operation=st.sampled_from(["ExecuteStatement", "BatchExecuteStatement", "DescribeStatement",
                               "CancelStatement", "GetStatementResult", "ListStatements",
                               "ListSessions"]),
    given_=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5),
)  # fmt: skip
def test_any_document_is_answered(api, operation, given_):
    """Nothing that a client may send ends the connection without a reply."""
    status, found = call(api, operation, given_)
    assert (status == 200) or (status == 400 and found["__type"].endswith("Exception"))


@pytest.mark.parametrize(
    ("sql", "status", "has_result", "rows"),
    [
        ("SELECT 1 AS a", "FINISHED", True, 1),
        ("SELECT 1 AS a WHERE false", "FINISHED", True, 0),
        ("CREATE TEMP TABLE x (a INT)", "FINISHED", False, 0),
        ("SHOW timezone", "FINISHED", True, 1),
        ("SELECT nothing", "FAILED", False, -1),
        ("nonsense", "FAILED", False, -1),
    ],
)
def test_the_states_of_a_statement(api, sql, status, has_result, rows):
    found = described(api, run(api, sql))
    assert (found["Status"], found["HasResultSet"], found["ResultRows"]) == (
        status,
        has_result,
        rows,
    )
    assert found["QueryString"] == sql
    assert ("Error" in found) == (status == "FAILED")
    assert found["CreatedAt"] <= found["UpdatedAt"]
    assert found["Database"] == "dev"
    assert found["ClusterIdentifier"] == "c"


@pytest.mark.parametrize("sql", ["CREATE TEMP TABLE y (a INT)", "SELECT nothing"])
def test_what_has_no_result_says_so(api, sql):
    status, found = call(api, "GetStatementResult", {"Id": run(api, sql)})
    assert (status, found["__type"]) == (400, "ResourceNotFoundException")
    assert found["Message"].startswith("Query does not have result")


@pytest.mark.parametrize(
    ("count", "pages"), [(0, [[]]), (1, [[1]]), (2, [[1, 2]]), (3, [[1, 2], [3]]), (5, [[1, 2], [3, 4], [5]])]
)  # fmt: skip
def test_pages_have_every_row_once(api, count, pages):
    key = run(api, f"SELECT i::INT AS i FROM generate_series(1, {count}) g(i) ORDER BY i")
    token, found = {}, []
    while True:
        _, answer = call(api, "GetStatementResult", {"Id": key, **token})
        assert answer["TotalNumRows"] == count
        assert answer["ColumnMetadata"][0]["typeName"] == "int4"
        found.append([row[0]["longValue"] for row in answer["Records"]])
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert found == pages


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=9), st.integers(1, 4))
def test_pages_of_any_size_are_the_table(values, rows):
    table = pa.table({"a": pa.array(values, pa.int64())})
    found, token = [], None
    while True:
        document = page(table, token, rows)
        assert len(document["Records"]) <= rows
        found += [row[0]["longValue"] for row in document["Records"]]
        token = document.get("NextToken")
        if token is None:
            break
    assert found == values


@pytest.mark.parametrize(
    ("array", "type_name", "field", "signed", "precision", "scale"),
    [
        (pa.array([True]), "bool", {"booleanValue": True}, False, 1, 0),
        (pa.array([1], pa.int16()), "int2", {"longValue": 1}, True, 5, 0),
        (pa.array([1], pa.int32()), "int4", {"longValue": 1}, True, 10, 0),
        (pa.array([2**62], pa.int64()), "int8", {"longValue": 2**62}, True, 19, 0),
        (pa.array([1.5], pa.float32()), "float4", {"doubleValue": 1.5}, True, 8, 0),
        (pa.array([0.1]), "float8", {"doubleValue": 0.1}, True, 17, 0),
        (pa.array([Decimal("1.50")], pa.decimal128(9, 2)), "numeric", {"stringValue": "1.50"},
         True, 9, 2),
        (pa.array(["日"]), "varchar", {"stringValue": "日"}, False, 65_535, 0),
        (pa.array([date(2026, 1, 2)]), "date", {"stringValue": "2026-01-02"}, False, 0, 0),
        (pa.array([clock(1, 2, 3)]), "time", {"stringValue": "01:02:03"}, False, 0, 0),
        (pa.array([datetime(2026, 1, 2, 3, 4, 5)]), "timestamp",
         {"stringValue": "2026-01-02 03:04:05"}, False, 0, 0),
        (pa.array([datetime(2026, 1, 2, 3, 4, 5, 120_000)]), "timestamp",
         {"stringValue": "2026-01-02 03:04:05.12"}, False, 0, 0),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), "timestamptz",
         {"stringValue": "2026-01-02 00:00:00+00"}, False, 0, 0),
        (pa.array([b"\x00\xff"]), "varbyte", {"blobValue": "AP8="}, False, 0, 0),
        (pa.array([None], pa.int64()), "int8", {"isNull": True}, True, 19, 0),
    ],
)  # fmt: skip
def test_each_type_of_a_result(array, type_name, field, signed, precision, scale):
    table = pa.table({"a": array})
    assert records(table) == [[field]]
    (column,) = column_metadata(table.schema)
    assert (column["name"], column["label"], column["typeName"]) == ("a", "a", type_name)
    assert (column["isSigned"], column["precision"], column["scale"]) == (signed, precision, scale)
    assert size(table) > 0
    assert size(table.slice(0, 0)) == 0


def test_a_statement_under_way_is_started_and_then_aborted(api, never_ends):
    _, begun = call(api, "ExecuteStatement", {**PLACE, "Sql": never_ends})
    assert begun["Status"] in ("SUBMITTED", "STARTED")
    assert "HasResultSet" not in begun
    assert call(api, "GetStatementResult", {"Id": begun["Id"]})[0] == 400
    assert call(api, "CancelStatement", {"Id": begun["Id"]}) == (200, {"Status": True})
    found = described(api, begun["Id"])
    assert (found["Status"], found["Error"]) == (
        "ABORTED", "ERROR: Query cancelled on user's request",
    )  # fmt: skip
    status, again = call(api, "CancelStatement", {"Id": begun["Id"]})
    assert (status, again["__type"]) == (400, "ValidationException")
    assert "already in ABORTED state" in again["Message"]


def batch(api, *statements, **more):
    _, found = call(
        api, "BatchExecuteStatement",
        {**PLACE, "Sqls": list(statements), "WaitTimeSeconds": 20, **more},
    )  # fmt: skip
    return described(api, found["Id"])


def test_a_batch_tells_of_each_statement(api):
    found = batch(api, "SELECT 1 AS a", "SELECT 2 AS b")
    assert (found["Status"], found["ResultRows"], found["HasResultSet"]) == ("FINISHED", -1, True)
    assert [one["QueryString"] for one in found["SubStatements"]] == [
        "SELECT 1 AS a",
        "SELECT 2 AS b",
    ]
    assert [one["Id"] for one in found["SubStatements"]] == [f"{found['Id']}:{n}" for n in (1, 2)]
    status, second = call(api, "GetStatementResult", {"Id": f"{found['Id']}:2"})
    assert (status, second["Records"]) == (200, [[{"longValue": 2}]])
    one = described(api, f"{found['Id']}:2")
    assert (one["Id"], one["QueryString"]) == (f"{found['Id']}:2", "SELECT 2 AS b")
    for wrong in ("", ":0", ":3", ":x"):
        assert call(api, "GetStatementResult", {"Id": f"{found['Id']}{wrong}"})[0] == 400


@pytest.mark.parametrize(
    ("mode", "kept", "states"),
    [("TRANSACTION", 0, ["FINISHED", "FAILED", "ABORTED"]),
     ("AUTO_COMMIT", 2, ["FINISHED", "FAILED", "FINISHED"])],
)  # fmt: skip
def test_a_failure_in_a_batch(api, engine, mode, kept, states):
    table = f"b{secrets.token_hex(4)}"
    run(api, f"CREATE TABLE {table} (a INT)")
    insert = f"INSERT INTO {table} VALUES (1)"
    found = batch(api, insert, "SELECT nothing", insert, ExecutionMode=mode)
    assert found["Status"] == "FAILED"
    assert found["Error"].startswith("Query #2 failed with ERROR: column")
    assert [one["Status"] for one in found["SubStatements"]] == states
    count = engine.session().execute(f"SELECT COUNT(*) AS n FROM {table}").table
    assert count.to_pylist() == [{"n": kept}]


def test_a_client_token_is_the_same_statement(api):
    token = secrets.token_hex(8)
    first = run(api, "SELECT 1 AS a", ClientToken=token)
    assert run(api, "SELECT 1 AS a", ClientToken=token) == first
    assert run(api, "SELECT 1 AS a", ClientToken=token + "x") != first


def test_a_session_lives_on_and_is_listed(api):
    _, made = call(api, "ExecuteStatement", {
        **PLACE, "Sql": "CREATE TEMP TABLE mine (a INT)", "SessionKeepAliveSeconds": 60,
        "WaitTimeSeconds": 20})  # fmt: skip
    key = made["SessionId"]
    found = described(api, run(api, "SELECT * FROM mine", SessionId=key))
    assert (found["Status"], found["SessionId"]) == ("FINISHED", key)
    listed = {one["SessionId"]: one for one in call(api, "ListSessions", {})[1]["Sessions"]}
    assert (listed[key]["Status"], listed[key]["SessionAliveSeconds"]) == ("AVAILABLE", 60)
    run(api, "SELECT 1 AS a", SessionId=key, SessionKeepAliveSeconds=0)
    time.sleep(0.01)
    assert key not in {one["SessionId"] for one in call(api, "ListSessions", {})[1]["Sessions"]}
    status, gone = call(api, "ExecuteStatement", {"Sql": "SELECT 1", "SessionId": key})
    assert (status, gone["__type"], gone["ResourceId"]) == (400, "ResourceNotFoundException", key)


def test_statements_are_listed_by_state_and_name(api):
    name = f"n{secrets.token_hex(4)}"
    good, bad = (
        run(api, "SELECT 1 AS a", StatementName=name),
        run(api, "x", StatementName=name + "2"),
    )

    def listed(**given):
        document = call(api, "ListStatements", given)[1]
        return [one["Id"] for one in document["Statements"]], document.get("NextToken")

    assert listed(StatementName=name) == ([bad, good], None)
    assert listed(StatementName=name, Status="FINISHED") == ([good], None)
    assert listed(StatementName=name, Status="FAILED") == ([bad], None)
    assert listed(StatementName=name, Status="ABORTED") == ([], None)
    first, token = listed(StatementName=name, MaxResults=1)
    assert first == [bad]
    assert listed(StatementName=name, MaxResults=1, NextToken=token) == ([good], None)


def test_a_made_up_error_has_its_own_status_and_code(api, engine):
    engine.faults.add(Fault("http", "DescribeStatement", status=500, code="InternalServerException",
                            message="it hurts"))  # fmt: skip
    status, found = call(api, "DescribeStatement", {"Id": "x"})
    assert (status, found) == (500, {"__type": "InternalServerException", "Message": "it hurts"})


@pytest.mark.parametrize("kind", ["drop", "lose_reply"])
def test_a_connection_can_end_without_a_reply(api, engine, kind):
    engine.faults.add(Fault(kind, "dropped_table"))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        call(api, "ExecuteStatement", {**PLACE, "Sql": "CREATE TEMP TABLE dropped_table (a INT)"})
    listed = call(api, "ListStatements", {})[1]["Statements"]
    assert any("dropped_table" in one["QueryString"] for one in listed) == (kind == "lose_reply")


# HTTP itself


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/9.9\r\n\r\n", b"505"),
    ],
)
def test_what_is_no_request_is_told_so(api, sent, status):
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(sent)
        answer = connection.recv(65_536)
    assert status in answer


def test_one_connection_carries_many_requests(api):
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/_faults")
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())) == (200, {"faults": []})
    connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"kind": "delay", "seconds": 0}', 200), (b'[{"kind": "error"}, {"kind": "drop"}]', 200),
     (b"{", 400), (b'{"kind": "?"}', 400), (b'{"kind": "error", "pattern": "("}', 400),
     (b'{"odd": 1}', 400), (b"5", 400), (b"null", 400), (b"[5]", 400)],
)  # fmt: skip
def test_rules_come_over_http(api, engine, body, status):
    found, content, _ = request(api, "POST", "/_faults", body)
    assert found == status
    assert ("error" in json.loads(content)) == (status == 400)
    assert len(engine.faults.rules) == {200: body.count(b"kind"), 400: 0}[status]
    assert json.loads(request(api, "DELETE", "/_faults")[1]) == {"faults": []}
    assert engine.faults.rules == []


# Queuery


def basic(token="token", secret="secret"):
    return "Basic " + base64.b64encode(f"{token}:{secret}".encode()).decode()


def ask(queuery, method, path, body=b"", kind="application/x-www-form-urlencoded", auth=None):
    status, content, headers = request(
        queuery, method, path, body, Authorization=auth or basic(), Content_Type=kind
    )
    return status, json.loads(content) if headers.get("Content-Type") != "text/plain" else content


def form(**parameters):
    return urllib.parse.urlencode(parameters, doseq=True).encode()


def finished(queuery, body, kind="application/x-www-form-urlencoded"):
    status, begun = ask(queuery, "POST", "/v1/queries", body, kind)
    assert (status, begun["status"], begun["data_file_urls"]) == (201, "pending", [])
    while True:
        _, found = ask(queuery, "GET", f"/v1/queries/{begun['id']}")
        if found["status"] not in ("pending", "running"):
            return found
        time.sleep(0.02)


def data(found):
    pieces = []
    for url in found["data_file_urls"]:
        assert ".csv." in urllib.parse.urlsplit(url).path
        with urllib.request.urlopen(url) as answer:
            assert answer.headers.get("Content-Encoding") is None
            pieces.append(gzip.decompress(answer.read()).decode())
    return "".join(pieces)


@pytest.mark.parametrize(
    "auth",
    ["Basic", "Basic x", "Basic " + base64.b64encode(b"\xff").decode(), "Bearer token",
     basic(secret="wrong"), basic("nobody"), basic(secret=""), basic("", ""), basic("token", "s"),
     "Bearer " + basic()[6:]],
)  # fmt: skip
def test_whoever_has_no_secret_is_denied(queuery, auth):
    status, content, headers = request(queuery, "GET", "/v1/queries/1", Authorization=auth)
    assert (status, content) == (401, b"HTTP Basic: Access denied.\n")
    assert headers["WWW-Authenticate"] == 'Basic realm="Application"'


def test_no_authorization_at_all_is_denied(queuery):
    assert request(queuery, "POST", "/v1/queries", form(q="SELECT 1"))[0] == 401


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (form(query="SELECT 1"), "application/x-www-form-urlencoded"),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"q": "SELECT 1", "values": 5}', "application/json"),
    ],
)
def test_a_query_that_is_none_is_refused(queuery, body, kind):
    status, found = ask(queuery, "POST", "/v1/queries", body, kind)
    assert (status, found) == (400, {"status_code": 400, "error_code": "invalid_parameter",
                                     "error": "invalid parameters are given"})  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/queries"), ("GET", "/v1/queries/999"), ("GET", "/v1/queries/x"),
     ("GET", "/v1/queries/²"), ("DELETE", "/v1/queries/1"), ("PUT", "/v1/queries"), ("GET", "/"),
     ("POST", "/v2/queries"), ("GET", "/v1/queries/-1")],
)  # fmt: skip
def test_what_is_not_there_is_not_found(queuery, method, path):
    path = urllib.parse.quote(path)
    assert ask(queuery, method, path) == (404, {"status_code": 404, "error": "not found"})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(q="SELECT 1 AS a, 'x' AS b"), "application/x-www-form-urlencoded"),
        (form(q="SELECT 1 AS a, 'x' AS b;"), "application/x-www-form-urlencoded"),
        (form(q="SELECT 1 AS a, 'x' AS b -- why"), "application/x-www-form-urlencoded"),
        (form(q="SELECT 1 AS a, ? AS b", **{"values[]": ["x"]}), "application/x-www-form-urlencoded"),
        (json.dumps({"q": "SELECT 1 AS a, 'x' AS b", "values": [], "enable_metadata": False}).encode(),
         "application/json"),
        (json.dumps({"q": "SELECT ?::INT AS a, ? AS b", "values": [1, "x"]}).encode(),
         "application/json; charset=utf-8"),
        (json.dumps({"q": "SELECT 1 AS a, 'x' AS b", "values": None, "enable_metadata": None}).encode(),
         "application/json"),
    ],
)  # fmt: skip
def test_a_query_in_all_its_dresses(queuery, body, kind):
    found = finished(queuery, body, kind)
    assert (found["status"], found["error"]) == ("success", None)
    assert data(found) == '"1","x"\n'
    assert found["manifest_file_url"] is None
    assert found["s3_prefix"].endswith("/result.csv.")
    assert found["client_account_name"] == "token"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("NULL::VARCHAR", '""'), ("''", '""'), ("true", '"t"'), ("false", '"f"'), ("1.50::DECIMAL(5,2)", '"1.50"'),
        ("'a,b'", '"a\\,b"'), ("'say \"x\"'", '"say \\"x\\""'), ("'it''s'", '"it\\\'s"'),
        ("CHR(10)", '"\\\n"'), ("CHR(13)", '"\\\r"'), ("CHR(9)", '"\t"'), ("'日本 🍣'", '"日本 🍣"'),
        ("DATE '2026-01-02'", '"2026-01-02"'), ("1::FLOAT8", '"1"'),
    ],
)  # fmt: skip
def test_every_field_is_quoted_and_escaped(queuery, value, field):
    assert data(finished(queuery, form(q=f"SELECT {value} AS a"))) == f"{field}\n"


@pytest.mark.parametrize(
    ("kind", "known"),
    [("SMALLINT", "smallint"), ("REAL", "double precision"), ("FLOAT8", "double precision"),
     ("TIME", "character varying"), ("DATE", "date"), ("BOOL", "boolean"), ("TEXT", "character varying"),
     ("TIMESTAMP", "timestamp without time zone"), ("TIMESTAMPTZ", "timestamp with time zone")],
)  # fmt: skip
def test_a_manifest_has_types_that_clients_know(queuery, kind, known):
    found = finished(queuery, form(q=f"SELECT NULL::{kind} AS a", enable_metadata="true"))
    with urllib.request.urlopen(found["manifest_file_url"]) as answer:
        document = json.load(answer)
    assert document["schema"]["elements"][0]["type"]["base"] == known
    assert document["meta"]["record_count"] == 1
    assert len(document["entries"]) == len(found["data_file_urls"])


@pytest.mark.parametrize(
    ("select", "text"),
    [("SELECT nothing", 'column "nothing" does not exist'), ("SELECT * FROM nowhere", "nowhere"),
     ("SELECT 1 LIMIT 1", "Limit clause is not supported"), ("SELEC 1", "syntax error"),
     ("", "syntax error"), ("DELETE FROM t", "syntax error")],
)  # fmt: skip
def test_a_query_that_fails_says_why(queuery, select, text):
    found = finished(queuery, form(q=select))
    assert (found["status"], found["data_file_urls"], found["manifest_file_url"]) == (
        "failed",
        [],
        None,
    )
    assert found["error"].startswith("ERROR: ")
    assert text in found["error"]


def test_a_wrong_number_of_values_is_refused_at_once(queuery):
    status, found = ask(
        queuery, "POST", "/v1/queries", form(q="SELECT ?", **{"values[]": ["a", "b"]})
    )
    assert status == 400
    assert found["error"].startswith("wrong number of bind variables (2)")


def test_nobody_sees_another_account_s_query(queuery):
    number = finished(queuery, form(q="SELECT 1 AS a"))["id"]
    status, _ = ask(queuery, "GET", f"/v1/queries/{number}", auth=basic("other", "s"))
    assert status == 404


@pytest.mark.parametrize(
    ("fields", "status"),
    [("__default__", 200), ("__default__,s3_prefix,manifest_file_url", 200), ("*", 200), ("id,status", 200),
     ("a[b,c]", 200), ("a[", 400), ("a,,b", 400), ("]", 400), ("a b", 400)],
)  # fmt: skip
def test_fields_are_read_and_refused_as_garage_does(queuery, fields, status):
    number = finished(queuery, form(q="SELECT 1 AS a"))["id"]
    found, document = ask(
        queuery, "GET", f"/v1/queries/{number}?fields={urllib.parse.quote(fields)}"
    )
    assert found == status
    if status == 400:
        assert document == {"status_code": 400, "error": "Invalid query in ?fields="}
    else:
        assert {"id", "status", "error", "data_file_urls", "manifest_file_url"} <= set(document)


def test_queuery_can_be_made_to_fail_and_to_hang_up(queuery, engine):
    engine.faults.add(Fault("http", "GET /v1/queries", status=503, message="away"))
    assert ask(queuery, "GET", "/v1/queries/1") == (503, {"status_code": 503, "error": "away"})
    for kind in ("drop", "lose_reply"):
        engine.faults.add(Fault(kind, "gone"))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            ask(queuery, "POST", "/v1/queries", form(q="SELECT 'gone' AS a"))
