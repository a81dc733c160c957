"""The few requests that the stand-in makes of S3, over HTTP."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from mlbatch.devstack.redshift.object_store import S3Objects, StoredObject
from mlbatch.devstack.redshift.refusal import Refusal


@pytest.fixture(scope="module")
def store(s3_access):
    made = S3Objects(s3_access.endpoint, s3_access.region, "test", "test")
    made.client().create_bucket(Bucket="redshift-results")
    return made


@pytest.mark.parametrize("key", ["plain", "a/b c/日本", "a+b=c&d", "percent%20", "dot./..x"])
def test_an_object_is_kept_under_any_name(store, tmp_path, key):
    uri = f"s3://redshift-results/{key}"
    store.put(uri, b"one")
    assert store.get(uri) == b"one"
    assert store.list(uri) == [StoredObject(uri, 3)]
    (tmp_path / "file").write_bytes(b"other")
    store.put_file(uri, tmp_path / "file")
    assert store.get(uri) == b"other"
    store.delete(uri)
    store.delete(uri)  # again is nothing
    assert store.list(uri) == []
    assert f"redshift-results/{key[:1]}" in store.presigned(uri, 60)


def test_objects_are_listed_in_order_and_none_beside_the_prefix(store):
    store.put("s3://redshift-results/other", b"x")
    for number in reversed(range(7)):
        store.put(f"s3://redshift-results/pages/{number}", b"x")
    assert [one.uri[-1] for one in store.list("s3://redshift-results/pages/")] == list("0123456")


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda s: s.get("s3://redshift-results/none"), "NoSuchKey"),
        (lambda s: s.get("s3://no-such-bucket-here/x"), "NoSuchBucket"),
        (lambda s: s.put("s3://no-such-bucket-here/x", b""), "NoSuchBucket"),
        (lambda s: s.list("s3://no-such-bucket-here/"), "NoSuchBucket"),
        (lambda s: s.delete("s3://no-such-bucket-here/x"), "NoSuchBucket"),
    ],
)
def test_a_refusal_of_s3_is_told_as_redshift_tells_it(store, ask, code):
    with pytest.raises(Refusal, match=rf"^S3ServiceException:.*Error {code}$") as caught:
        ask(store)
    assert caught.value.sqlstate == "XX000"
    assert caught.value.detail.startswith("s3://")
    assert isinstance(caught.value.__cause__, ClientError)


def test_a_file_that_cannot_be_sent_is_told_too(store, tmp_path):
    for uri, file in (("s3://redshift-results/x", tmp_path / "none"),
                      ("s3://no-such-bucket-here/x", __file__)):  # fmt: skip
        with pytest.raises(Refusal, match="S3ServiceException"):
            store.put_file(uri, file)
