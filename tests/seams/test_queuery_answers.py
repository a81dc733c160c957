"""A Queuery server that answers oddly, over real HTTP: each answer is understood or refused in words."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
from faulty import fails, serving
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.queuery import QueueryWarehouse, Schema, _unzipped, read_fields, rows_of
from mlbatch.devstack.redshift.http_face import HttpFace, Reply, json_reply
from mlbatch.errors import RunFailed, SettingsError, SnapshotError, TemporaryError, UsageError

pytestmark = pytest.mark.usefixtures("impatient", "hopeless")


def manifest(**changed):
    elements = [{"name": "a", "type": {"base": "bigint"}}]
    return {"schema": {"elements": elements}, "meta": {"record_count": 2}} | changed


class Script:
    """Answers as a test says; what it does not say goes well."""

    def __init__(self):
        self.posted = json_reply(201, {"id": 7, "status": "pending"})
        self.looked = [{}]
        self.manifest = Reply(200, json.dumps(manifest()).encode())
        self.data = [Reply(200, gzip.compress(b'"1"\n"2"\n'))]
        self.asked = []
        self.url = ""

    def __call__(self, request):
        self.asked.append((request.method, request.path))
        if request.method == "POST":
            return self.posted
        if request.path.startswith("/v1/queries/"):
            said = self.looked.pop(0) if len(self.looked) > 1 else self.looked[0]
            return said if isinstance(said, Reply) else json_reply(200, self.done() | said)
        if request.path == "/manifest":
            return self.manifest
        return self.data[int(request.path.removeprefix("/"))]

    def done(self):
        urls = [f"{self.url}/{n}" for n in range(len(self.data))]
        manifest_url = f"{self.url}/manifest"
        return {
            "id": 7,
            "status": "success",
            "data_file_urls": urls,
            "manifest_file_url": manifest_url,
        }


@pytest.fixture
def script():
    answers = Script()
    face = HttpFace(answers, "127.0.0.1", 0)
    answers.url = face.url
    with serving(face):
        yield answers


@pytest.fixture
def warehouse(script, tmp_path):
    return QueueryWarehouse(
        script.url, "me", "sesame", FolderStorage(tmp_path), sleep=lambda _: None
    )


def test_what_goes_well(script, warehouse):
    script.looked = [{"status": "pending"}, {"status": "running"}, {}]
    assert warehouse.fetch("SELECT a FROM t")["a"].to_pylist() == [1, 2]
    assert [method for method, _ in script.asked].count("POST") == 1
    assert "Queuery at http://127.0.0.1" in warehouse.about()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_a_matter_of_settings(script, warehouse, status):
    script.posted = Reply(status)
    with fails(SettingsError, "refuses the token") as caught:
        warehouse.fetch("SELECT 1")
    assert "warehouse.token_secret" in caught.value.hint
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("posted", "kind", "words"),
    [
        (Reply(200, b"<html>"), RunFailed, "not its protocol's"),
        (Reply(200, b""), RunFailed, "not its protocol's"),
        (json_reply(200, {}), RunFailed, "not its protocol's: 'id'"),
        (json_reply(200, {"id": None}), RunFailed, "not its protocol's"),
        (json_reply(200, {"id": "x"}), RunFailed, "not its protocol's"),
        (json_reply(200, [1]), RunFailed, "not its protocol's"),
        (json_reply(400, {"error": "bad"}), RunFailed, "HTTP 400"),
        (Reply(503), TemporaryError, "HTTP 503"),
    ],
)  # fmt: skip
def test_odd_answers_to_a_query(script, warehouse, posted, kind, words):
    script.posted = posted
    with fails(kind, words):
        warehouse.fetch("SELECT 1")
    assert len(script.asked) == 1  # never asked twice: it would be run twice


@pytest.mark.parametrize(
    ("looked", "words"),
    [
        ({"status": "failed", "error": "ERROR: disk full"}, "query 7 failed: ERROR: disk full"),
        ({"status": "failed"}, "query 7 failed: no reason given"),
        ({"status": "canceled"}, "query 7 canceled: no reason given"),
        ({"status": "running", "error": "ERROR: gone"}, "query 7 running: ERROR: gone"),
        ({"status": "meditating"}, "query 7 meditating: no reason given"),
        (json_reply(200, []), "not its protocol's"),
        (Reply(200, b"{"), "not its protocol's"),
        (Reply(404), "HTTP 404"),
    ],
)
def test_queries_that_do_not_go_well(script, warehouse, looked, words):
    script.looked = [looked]
    with fails(RunFailed, words):
        warehouse.fetch("SELECT 1")


def test_a_query_that_never_ends_is_given_up(script, tmp_path):
    script.looked = [{"status": "running"}]
    storage = FolderStorage(tmp_path)
    waiting = QueueryWarehouse(
        script.url, "me", "sesame", storage, query_seconds=0, sleep=lambda _: None
    )
    with fails(RunFailed, "query 7: no end after 0 s") as caught:
        waiting.fetch("SELECT 1")
    assert "warehouse.query_seconds" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b"null", b'{"schema": {"elements": [{}]}}', b'{"schema": {"elements": 3}}', b"{",
     b'{"schema": {"elements": [{"name": "a", "type": "bigint"}]}}'],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_refused(script, warehouse, content):
    script.manifest = Reply(200, content)
    with fails(RunFailed, "not its protocol's"):
        warehouse.fetch("SELECT 1")


def test_a_result_without_a_manifest_is_refused(script, warehouse):
    script.looked = [{"manifest_file_url": None}]
    with fails(SnapshotError, "query 7 has no manifest") as caught:
        warehouse.fetch("SELECT 1")
    assert "MANIFEST VERBOSE" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b'"1"\n', SnapshotError, "query 7: 1 rows came, its manifest says 2"),
        (b'"1"\n"x"\n', RunFailed, "not its protocol's"),
        (b'"1","2"\n"1","2"\n', SnapshotError, "a row has 2 fields, the manifest names 1"),
        (b"1\n2\n", SnapshotError, "a field that is not quoted"),
        (b'"1"\n"2"\\', SnapshotError, "ends in the middle of a row"),
    ],
)
def test_data_that_is_not_what_the_manifest_says(script, warehouse, tmp_path, data, kind, words):
    script.data = [Reply(200, gzip.compress(data))]
    with fails(kind, words):
        warehouse.fetch("SELECT 1")
    prefix = warehouse.storage.prefix + "run/"
    with fails(kind, words):
        warehouse.unload("SELECT 1", prefix)
    assert not list(tmp_path.rglob("manifest"))  # what has no manifest is no snapshot


def test_a_result_of_no_rows_leaves_nothing(script, warehouse, tmp_path):
    script.data = []
    script.manifest = Reply(200, json.dumps(manifest(meta={"record_count": 0})).encode())
    assert warehouse.fetch("SELECT 1").schema == pa.schema([("a", pa.int64())])
    unloaded = warehouse.unload("SELECT 1", warehouse.storage.prefix + "run/")
    assert (unloaded.rows, unloaded.manifest_uri) == (0, None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_only_reads(warehouse):
    with pytest.raises(UsageError, match="cannot load t"):
        warehouse.copy("t", pa.table({"a": [1]}), replace_by=("a",))


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def written(rows):
    """A file as UNLOAD writes it with ESCAPE and ADDQUOTES."""

    def quoted(field):
        return '"' + "".join("\\" + c if c in "\\\n\r\"',|" else c for c in field) + '"'

    return "".join(",".join(map(quoted, row)) + "\n" for row in rows)


@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=6), st.integers(1, 40))
def test_any_text_is_read_as_it_was_written(rows, size):
    content = gzip.compress(written(rows).encode())
    text = _unzipped(content[n : n + size] for n in range(0, len(content), size))
    assert [read_fields(row) for row in rows_of(text)] == rows
    table = Schema(pa.schema([("a", pa.string()), ("b", pa.string())]), None).table(text)
    assert [[a or "", b or ""] for a, b in zip(*table.to_pydict().values(), strict=True)] == rows


@given(st.text(st.sampled_from('"a,\\\n'), max_size=12))
def test_any_other_text_is_rows_or_refused(text):
    try:
        for row in rows_of(text):
            read_fields(row)
    except SnapshotError as error:
        assert "a data file" in error.message  # noqa: PT017
