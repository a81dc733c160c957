"""Queuery's protocol, spoken by hand as its official clients do, and the process that serves it."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from mlbatch.devstack.redshift import serve
from mlbatch.devstack.redshift.faults import Fault


@pytest.fixture
def client(queuery):
    """As the Python client: forms, and Basic authentication."""
    with httpx.Client(base_url=queuery.url, auth=("token", "secret")) as made:
        yield made


@pytest.fixture
def run(client):
    """Submit and poll to the end."""

    def of(select, **given):
        created = client.post("/v1/queries", data={"q": select, **given})
        assert created.status_code == 201
        while True:
            found = client.get(f"/v1/queries/{created.json()['id']}").json()
            if found["status"] not in ("pending", "running"):
                return found
            time.sleep(0.02)

    return of


def texts(found):
    answers = [httpx.get(url) for url in found["data_file_urls"]]
    assert all("content-encoding" not in answer.headers for answer in answers)
    return "".join(gzip.decompress(answer.content).decode() for answer in answers)


def test_a_query_is_created_then_succeeds(client, run):
    created = client.post("/v1/queries", data={"q": "SELECT 1 AS a;"})
    assert created.status_code == 201
    assert created.headers["location"] == f"/v1/queries/{created.json()['id']}"
    assert created.json()["status"] == "pending"
    assert (created.json()["data_file_urls"], created.json()["error"]) == ([], None)
    found = run("SELECT 1 AS a; -- the end")
    assert found["status"] == "success"
    assert found["manifest_file_url"] is None
    assert found["s3_prefix"].endswith("result.csv.")


def test_data_files_are_quoted_gzip_with_escapes(run):
    found = run(
        "SELECT '日本 \"x\" ''y'' \\\\ , \\n z' AS t, NULL AS n, true AS b, 1.5::FLOAT8 AS f"
    )
    assert texts(found) == '"日本 \\"x\\" \\\'y\\\' \\\\ \\, \\\n z","","t","1.5"\n'
    for url in found["data_file_urls"]:
        name = urlsplit(url).path.rsplit("/", 1)[1]
        assert ".csv." in name
        assert "_part_" in name
        assert name.endswith(".gz")


def test_the_manifest_has_only_types_that_the_clients_know(run):
    found = run("SELECT 1 AS i, 2::REAL AS r, '10:00'::TIME AS t, 'x' AS s", enable_metadata="true")
    manifest = httpx.get(found["manifest_file_url"]).json()
    kinds = {e["name"]: e["type"]["base"] for e in manifest["schema"]["elements"]}
    assert kinds == {"i": "integer", "r": "double precision", "t": "character varying",
                     "s": "character varying"}  # fmt: skip
    assert manifest["meta"]["record_count"] == 1
    assert not any(url.split("?")[0].endswith("manifest") for url in found["data_file_urls"])


def test_json_bodies_and_values_as_the_ruby_client_sends_them(client):
    body = {
        "q": "SELECT ? AS a, '?' AS b, ? AS c",
        "values": ["it's", "2"],
        "enable_metadata": False,
    }
    created = client.post("/v1/queries", json=body)
    assert created.status_code == 201
    found = client.get(f"/v1/queries/{created.json()['id']}", params={"fields": "__default__"})
    assert found.json()["status"] == "success"
    assert texts(found.json()) == '"it\\\'s","?","2"\n'
    body["values"] = ["one"]
    assert client.post("/v1/queries", json=body).status_code == 400


def test_a_get_may_have_a_body(client):
    number = client.post("/v1/queries", data={"q": "SELECT 1 AS a"}).json()["id"]
    found = client.request("GET", f"/v1/queries/{number}", data={"fields": "manifest_file_url"})
    assert found.status_code == 200
    assert "manifest_file_url" in found.json()


def test_no_rows_are_one_empty_file(run):
    found = run("SELECT 1 AS a WHERE false", enable_metadata="1")
    assert len(found["data_file_urls"]) == 1
    assert texts(found) == ""
    assert found["manifest_file_url"]


@pytest.mark.parametrize(
    ("select", "error"),
    [("SELECT * FROM nowhere", "nowhere"), ("SELECT 1 AS a LIMIT 1", "Limit clause")],
)
def test_a_failed_query_says_why(run, select, error):
    found = run(select)
    assert found["status"] == "failed"
    assert error in found["error"]
    assert found["data_file_urls"] == []


def test_wrong_secrets_are_denied(queuery):
    for auth in (None, ("token", "wrong"), ("nobody", "secret")):
        answer = httpx.post(f"{queuery.url}/v1/queries", data={"q": "SELECT 1"}, auth=auth)
        assert answer.status_code == 401
        assert answer.text.strip() == "HTTP Basic: Access denied."
        assert answer.headers["www-authenticate"] == 'Basic realm="Application"'


def test_missing_and_foreign_queries_are_not_found(client, queuery):
    number = client.post("/v1/queries/", data={"q": "SELECT 1 AS a"}).json()["id"]
    assert client.get("/v1/queries/999").status_code == 404
    assert client.get("/v1/queries/x").status_code == 404
    assert httpx.get(f"{queuery.url}/v1/queries/{number}", auth=("other", "s")).status_code == 404


def test_a_request_without_a_query_is_refused(client):
    assert client.post("/v1/queries", data={"x": "1"}).status_code == 400
    assert client.post("/v1/queries", json=[1]).status_code == 400


def test_it_can_be_made_to_fail(client, engine, run):
    engine.faults.add(Fault("http", "^GET /v1/queries", status=503, times=1))
    number = client.post("/v1/queries", data={"q": "SELECT 1 AS a"}).json()["id"]
    assert client.get(f"/v1/queries/{number}").status_code == 503
    assert client.get(f"/v1/queries/{number}").status_code == 200
    engine.faults.add(Fault("drop", "orders"))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/v1/queries", data={"q": "SELECT 'orders' AS a"})
    engine.faults.add(Fault("error", "orders", message="Disk Full"))
    assert run("SELECT 'orders' AS a")["error"] == "ERROR: Disk Full"
    assert client.delete("/_faults").json() == {"faults": []}


def test_stopping_ends_what_runs(client, queuery, never_ends):
    number = client.post("/v1/queries", data={"q": never_ends}).json()["id"]
    queuery.stop()
    assert queuery._queries[number].status == "failed"


def test_one_process_serves_all_faces(tmp_path, s3_access, store):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "database": str(tmp_path / "dev.duckdb"),
        "store": {"endpoint": s3_access.endpoint, "access_key": "test", "secret_key": "test"},
        "data_api": {}, "queuery": {"tokens": {"t": "s"}, "bucket": store.bucket},
        "faults": [{"kind": "error", "pattern": "orders"}],
    }))  # fmt: skip
    command = [sys.executable, "-m", "mlbatch.devstack.redshift.serve", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ports = json.loads(process.stdout.readline())
        client = boto3.session.Session("a", "b", region_name="us-east-1").client(
            "redshift-data", endpoint_url=f"http://127.0.0.1:{ports['data_api']}"
        )
        where = {"ClusterIdentifier": "c", "Database": "dev", "WaitTimeSeconds": 20}
        made = client.execute_statement(Sql="CREATE TABLE t AS SELECT 7 AS a", **where)
        refused = client.execute_statement(Sql="SELECT 'orders' AS a", **where)
        client.close()
        answer = httpx.post(f"http://127.0.0.1:{ports['queuery']}/v1/queries", data={
            "q": "SELECT a FROM t"}, auth=("t", "s"))  # fmt: skip
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (made["Status"], refused["Status"]) == ("FINISHED", "FAILED")
    assert answer.status_code == 201


def test_a_wrong_configuration_is_named(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text('{"data_api": {"prot": 1}}')
    assert serve.main(["--config", str(config)]) == 2
    assert "data_api.prot" in capsys.readouterr().err
    assert serve.main(["--config", str(tmp_path / "none.json")]) == 2
