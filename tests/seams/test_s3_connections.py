"""What the object store does when connections misbehave."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from bad_inputs import ACCEPTED, TEMPORARY, bad_input
from fault_proxy import BLACK_HOLE, PASS, RESET, FaultProxy, Rule
from faulty import fails, serving

from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack.redshift.http_face import HttpFace, Reply
from mlbatch.errors import (
    SettingsError,
    TemporaryError,
)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def over_proxy(bucket):
    """A proxy before the S3 server, and the bucket as it is seen through it."""
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        yield proxy, replace(bucket, access=replace(bucket.access, endpoint=endpoint))


@bad_input(39, 40, outcome=ACCEPTED)
@pytest.mark.parametrize(
    "faults",
    [[RESET, RESET], [Rule(cut_after=20_000)], [RESET, Rule(cut_after=300)], [BLACK_HOLE]],
    ids=["reset", "cut in the body", "cut in the header", "black hole"],
)
def test_s3_is_asked_again_until_the_object_is_whole(bucket, over_proxy, faults):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.next_rules.extend(faults)
    with seen.open(uri, etag=etag) as file:
        assert file.read() == b"0123456789" * 5_000
    assert proxy.accepted == len(faults) + 1


@bad_input(39, 40, outcome=TEMPORARY)
@pytest.mark.parametrize(
    ("fault", "said"),
    [(RESET, "no answer"), (BLACK_HOLE, "no answer"), (Rule(cut_after=20_000), "2 times")],
    ids=["reset", "black hole", "cut in the body"],
)
def test_s3_that_stays_bad_is_temporary(hopeless, bucket, over_proxy, fault, said):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.rule = fault
    with fails(TemporaryError, said), seen.open(uri, etag=etag):
        pass


def test_a_large_object_whose_ranges_break_off_is_read_whole(bucket, over_proxy):
    proxy, seen = over_proxy
    uri = bucket.prefix + "part"
    etag = bucket.stat(uri).etag
    proxy.next_rules.extend([PASS, Rule(cut_after=3_000), RESET, PASS, Rule(cut_after=9_000)])
    seen = replace(seen, whole_bytes=100, block_bytes=5_000)
    with seen.open(uri, etag=etag) as file:
        assert file.read() == b"0123456789" * 5_000
    assert proxy.accepted > 5


def test_a_slow_object_store_is_only_slow(bucket, over_proxy):
    proxy, seen = over_proxy
    proxy.rule = Rule(bytes_per_second=60_000)
    assert len(seen.read(bucket.prefix + "part")) == 50_000


def test_what_is_written_over_a_bad_line_arrives_whole(bucket, over_proxy):
    proxy, seen = over_proxy
    proxy.next_rules.extend([RESET, Rule(cut_after=30), PASS])
    seen.put(bucket.prefix + "new", b"x" * 40_000)
    assert bucket.read(bucket.prefix + "new") == b"x" * 40_000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", TemporaryError),
        (403, "AccessDenied", SettingsError),
        (301, "PermanentRedirect", SettingsError),
        (404, "NoSuchBucket", SettingsError),
    ],
)
def test_what_s3_refuses_to_show_and_to_take(hopeless, status, code, kind):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    region = {"x-amz-bucket-region": "eu-west-1"}
    face = HttpFace(lambda _: Reply(status, body, region), "127.0.0.1", 0)
    with serving(face):
        storage = S3Storage("b", access=AwsAccess("us-east-1", face.url, "k", "s"))
        with fails(kind, code):
            storage.about()
        with fails(kind, code):
            storage.put("s3://b/x", b"1")


@pytest.mark.parametrize("status", [301, 307])
def test_a_bucket_elsewhere_of_which_nobody_tells_the_region_is_a_setting(hopeless, status):
    asked = []

    def moved(request):
        asked.append(request.method)
        body = b"<?xml version='1.0'?><Error><Code>PermanentRedirect</Code></Error>"
        return Reply(status, b"" if request.method == "HEAD" else body)

    with serving(HttpFace(moved, "127.0.0.1", 0)) as face:
        storage = S3Storage("far-away", access=AwsAccess("us-east-1", face.url, "k", "s"))
        with fails(SettingsError, "far-away") as caught:
            storage.about()
        assert "mend storage.region" in caught.value.hint
        with fails(SettingsError, "far-away"):
            storage.stat("s3://far-away/x")
        with fails(SettingsError, "far-away"):
            storage.put("s3://far-away/x", b"1")
    assert len(asked) < 12
