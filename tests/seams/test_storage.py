"""One behaviour suite for every object store: a folder, and S3 over HTTP."""

from __future__ import annotations

import io
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.s3 import ReadAhead, S3Storage
from mlbatch.errors import SettingsError, SnapshotError, TemporaryError


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path):
    if request.param == "folder":
        return FolderStorage(tmp_path / "parts")
    return request.getfixturevalue("s3_storage")


def test_what_was_put_is_read_back(storage):
    uri = storage.prefix + "a/b c/牛?#.bin"
    storage.put(uri, b"\0hello")
    stored = storage.stat(uri)
    assert stored.bytes == 6
    assert storage.read(uri) == b"\0hello"
    with storage.open(uri, etag=stored.etag) as file:
        assert file.read() == b"\0hello"
        file.seek(1)
        assert file.read(4) == b"hell"


def test_an_empty_object_is_read_as_nothing(storage):
    uri = storage.prefix + "empty"
    storage.put(uri, b"")
    assert storage.stat(uri).bytes == 0
    assert storage.read(uri) == b""


def test_a_missing_object_is_named(storage):
    for look in (storage.stat, storage.read):
        with pytest.raises(SnapshotError, match="nowhere is missing"):
            look(storage.prefix + "nowhere")


def test_nothing_outside_the_prefix_is_touched(storage):
    for uri in ("file:///etc/passwd", "s3://other/key", storage.prefix[:-2] + "x"):
        with pytest.raises(SnapshotError, match="outside"):
            storage.read(uri)


def test_what_is_discarded_is_gone_and_nothing_beside_it(tmp_path):
    storage = FolderStorage(tmp_path / "parts")
    for name in ("a/one/x", "a/one/deep/y", "a/two", "a/one more"):
        storage.put(storage.prefix + name, b"1")
    storage.discard(storage.prefix + "a/one/")
    storage.discard(storage.prefix + "a/nowhere/")
    kept = sorted(str(p.relative_to(storage.root)) for p in storage.root.rglob("*") if p.is_file())
    assert kept == ["a/one more", "a/two"]
    for prefix in (
        storage.prefix,
        storage.prefix + "a/../",
        storage.prefix + "../",
        "file:///tmp/",
    ):
        with pytest.raises(SnapshotError):
            storage.discard(prefix)
    assert len(list(storage.root.rglob("*"))) == 3


def test_a_folder_tells_what_is_old_right_below_a_prefix(tmp_path):
    storage = FolderStorage(tmp_path / "parts")
    for name in ("a/new/x", "a/old one/x", "a/x", "b/old/x"):
        storage.put(storage.prefix + name, b"1")
    for name in ("a/old one", "a/x", "b/old"):
        os.utime(storage.root / name, (0, 0))
    below = storage.prefix + "a/"
    assert storage.older(below, timedelta(days=1)) == (below + "old%20one/",)
    assert storage.older(storage.prefix + "nowhere/", timedelta(days=1)) == ()
    storage.discard(below + "old%20one/")
    assert sorted(path.name for path in (storage.root / "a").iterdir()) == ["new", "x"]


def test_nothing_of_a_bucket_is_deleted_by_us(s3_storage):
    s3_storage.put(s3_storage.prefix + "a/part", b"1")
    assert s3_storage.older(s3_storage.prefix, timedelta(0)) == ()
    s3_storage.discard(s3_storage.prefix + "a/")
    assert s3_storage.read(s3_storage.prefix + "a/part") == b"1"


def test_an_object_that_was_replaced_is_refused(storage):
    uri = storage.prefix + "part"
    storage.put(uri, b"first")
    etag = storage.stat(uri).etag
    storage.put(uri, b"other")
    with pytest.raises(SnapshotError, match="replaced"), storage.open(uri, etag=etag):
        pass


def test_parquet_is_read_by_row_groups(storage):
    table = pa.table({"id": range(5_000), "text": [f"row {n}" for n in range(5_000)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=500)
    uri = storage.prefix + "part.parquet"
    storage.put(uri, buffer.getvalue())
    with storage.open(uri, etag=storage.stat(uri).etag) as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(7)["id"][0].as_py() == 3_500
        assert parquet.read().equals(table)


def test_who_peeks_gets_the_end_and_refuses_another_content(storage):
    uri = storage.prefix + "part"
    storage.put(uri, bytes(range(256)) * 4_000)
    with storage.peek(uri, storage.stat(uri)) as file:
        assert file.size() == 1_024_000
        file.seek(-3, io.SEEK_END)
        assert file.read(9) == b"\xfd\xfe\xff"
    stale = storage.stat(uri)
    storage.put(uri, bytes(1_024_000))
    with pytest.raises(SnapshotError, match="replaced"), storage.peek(uri, stale) as file:
        file.read(1)


def requests_to(storage):
    """Filled with what is asked from now on."""
    asked = []
    events = storage.access.client("s3").meta.events
    events.register("before-send.s3", lambda request, **_: asked.append(request))
    return asked


def test_peeking_fetches_little(s3_storage):
    uri = s3_storage.prefix + "part"
    s3_storage.put(uri, bytes(3_000_000))
    asked = requests_to(s3_storage)
    with s3_storage.peek(uri, s3_storage.stat(uri)) as file:
        file.seek(-8, io.SEEK_END)
        file.read()
    (request,) = asked[1:]
    assert request.headers["Range"] == b"bytes=2883584-2999999"


def test_a_small_object_takes_one_request(s3_storage):
    uri = s3_storage.prefix + "manifest"
    s3_storage.put(uri, b"{}")
    asked = requests_to(s3_storage)
    assert s3_storage.read(uri) == b"{}"
    assert [request.method for request in asked] == ["GET"]


def test_a_store_is_a_value(storage):
    assert pickle.loads(pickle.dumps(storage)) == storage


def test_an_object_replaced_while_it_is_read_is_refused(s3_storage):
    uri = s3_storage.prefix + "part"
    s3_storage.put(uri, b"a" * 5_000)
    with s3_storage.open(uri, etag=s3_storage.stat(uri).etag) as file:
        assert file.read(10) == b"a" * 10
        s3_storage.put(uri, b"b" * 5_000)
        file.seek(4_500)
        with pytest.raises(SnapshotError, match="replaced"):
            file.read(10)


def test_long_objects_are_written_in_pieces(s3_storage):
    data = bytes(range(256)) * 50_000
    s3_storage.put(s3_storage.prefix + "long", data)
    assert s3_storage.read(s3_storage.prefix + "long") == data


def test_a_missing_bucket_and_a_dead_server_are_told_apart(s3_storage, unused_tcp_port):
    from dataclasses import replace

    lost = replace(s3_storage, bucket="no-such-bucket")
    with pytest.raises(SettingsError, match="NoSuchBucket"):
        lost.put("s3://no-such-bucket/staging/x", b"1")
    dead = AwsAccess("us-east-1", f"http://127.0.0.1:{unused_tcp_port}", "k", "s")
    with pytest.raises(TemporaryError, match="no answer"):
        S3Storage("b", access=dead).stat("s3://b/x")


def test_without_credentials_the_error_says_so(monkeypatch, tmp_path, s3_storage):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    bare = AwsAccess("us-east-1", s3_storage.access.endpoint)
    with pytest.raises(SettingsError, match="no AWS credentials"):
        S3Storage("b", access=bare).stat("s3://b/x")


class Recorder:
    """Serves ranges of ``data`` and remembers how many were alive at once."""

    def __init__(self, data):
        self.data, self.asked, self.lock = data, [], threading.Lock()

    def __call__(self, start, end):
        with self.lock:
            self.asked.append((start, end))
        return self.data[start:end]


def test_reading_ahead_fetches_each_block_once_and_keeps_few():
    data = bytes(n % 251 for n in range(10_000))
    with ThreadPoolExecutor(4) as readers:
        serve = Recorder(data)
        file = ReadAhead(serve, len(data), readers, block_bytes=100, ahead=3)
        file.seek(-10, io.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(0)
        got, most = b"", 0
        while piece := file.read(37):
            got += piece
            most = max(most, len(file._blocks))
    assert got == data
    assert most <= 5
    assert len(serve.asked) == len(set(serve.asked)) == 100


def test_any_pattern_of_reads_gives_the_bytes(tmp_path):
    import random

    choose = random.Random(5)
    data = choose.randbytes(3_333)
    with ThreadPoolExecutor(2) as readers:
        file = ReadAhead(Recorder(data), len(data), readers, block_bytes=64, ahead=2)
        for _ in range(500):
            start, size = choose.randrange(3_500), choose.randrange(300)
            file.seek(start)
            assert file.read(size) == data[start : start + size]
            assert file.tell() == start + len(data[start : start + size])
