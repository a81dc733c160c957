"""What the Queuery warehouse does when connections misbehave."""

from __future__ import annotations

import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from bad_inputs import ACCEPTED, bad_input
from fault_proxy import BLACK_HOLE, PASS, RESET, FaultProxy, Rule
from faulty import NUMBERS, TurningUrls, fails, serving, short

from mlbatch.connectors.queuery import QueueryWarehouse
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.http_face import HttpFace, Reply
from mlbatch.devstack.redshift.queuery_face import QueueryFace
from mlbatch.errors import (
    RunFailed,
    SnapshotError,
    TemporaryError,
)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def asking(bucket, engine):
    face = QueueryFace(engine, tokens={"me": "sesame"}, bucket=bucket.bucket)
    with serving(face):
        yield QueueryWarehouse(face.url, "me", "sesame", bucket, sleep=short)


@contextmanager
def between(bucket, port):
    """Files come from ``port``, where somebody stands in between."""
    real, place = TurningUrls.presigned, urlsplit(bucket.access.endpoint).netloc
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            TurningUrls,
            "presigned",
            lambda store, uri, seconds: real(store, uri, seconds).replace(
                place, f"127.0.0.1:{port}"
            ),
        )
        yield


def test_queuery_that_is_busy_for_a_while_is_asked_again(asking, engine):
    engine.faults.add(Fault("http", "GET", times=2, status=503))
    assert asking.fetch(NUMBERS).num_rows == 100
    assert engine.faults.rules[0].times == 0


def test_queuery_that_is_slow_is_asked_as_often(asking, engine, monkeypatch):
    rule, clock = Fault("http", "GET", times=3, status=503), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 60 * (3 - rule.times))
    engine.faults.add(rule)
    assert asking.fetch(NUMBERS).num_rows == 100


def test_a_slow_file_is_asked_for_as_often(asking, bucket, monkeypatch):
    asked, clock = [], time.monotonic

    def busy(request):
        asked.append(request.path)
        if len(asked) < 4:
            return Reply(503, b"")
        got = httpx.get(bucket.access.endpoint + request.path, params=request.query)
        return Reply(got.status_code, got.content)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + 60 * len(asked))
    with serving(HttpFace(busy, "127.0.0.1", 0)) as face, between(bucket, face.port):
        assert asking.fetch(NUMBERS).num_rows == 100


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_queuery_that_stays_busy_is_temporary(hopeless, asking, engine, method):
    engine.faults.add(Fault("http", method, times=-1, status=503))
    with fails(TemporaryError, "HTTP 503"):
        asking.fetch(NUMBERS)


def test_a_query_whose_reply_is_lost_is_not_asked_twice(asking, engine):
    engine.faults.add(Fault("lose_reply", "generate_series"))
    with fails(TemporaryError, "Queuery at"):
        asking.fetch(NUMBERS)
    assert engine.faults.rules[0].times == 0


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("kind", ["manifest", "result.csv."])
@bad_input(41, outcome=ACCEPTED)
def test_an_expired_url_is_asked_for_anew(asking, bucket, kind, status):
    turns = []

    def expiring(request):
        if kind in request.path:
            turns.append(request.query["turn"])
            if len(turns) < 3:
                return Reply(status, b"<Error><Code>ExpiredToken</Code></Error>")
        got = httpx.get(bucket.access.endpoint + request.path, params=request.query)
        return Reply(got.status_code, got.content)

    with serving(HttpFace(expiring, "127.0.0.1", 0)) as face, between(bucket, face.port):
        assert asking.fetch(NUMBERS).num_rows == 100
    assert turns[0] != turns[1] != turns[2]


def test_a_url_that_stays_refused_fails_in_its_own_words(hopeless, asking, bucket):
    closed = HttpFace(lambda _: Reply(403, b""), "127.0.0.1", 0)
    with serving(closed), between(bucket, closed.port), fails(RunFailed, "HTTP 403"):
        asking.fetch(NUMBERS)


@pytest.mark.parametrize("fault", [RESET, Rule(cut_after=400), BLACK_HOLE], ids=str)
def test_a_data_file_that_breaks_off_is_read_again_whole(asking, bucket, engine, fault):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.extend([PASS, fault])
        got = asking.fetch(NUMBERS)
    assert sorted(got["i"].to_pylist()) == list(range(1, 101))
    assert not proxy.next_rules


@pytest.mark.parametrize("fault", [RESET, Rule(cut_after=100), BLACK_HOLE], ids=str)
def test_a_manifest_that_breaks_off_is_read_again(asking, bucket, fault):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.append(fault)
        assert asking.fetch(NUMBERS).num_rows == 100
    assert not proxy.next_rules


def test_a_manifest_that_stays_cut_is_temporary(hopeless, asking, bucket):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.rule = Rule(cut_after=100)
        with fails(TemporaryError, "Queuery at"):
            asking.fetch(NUMBERS)


def test_a_data_file_that_stays_cut_is_temporary(hopeless, asking, bucket, engine):
    place = urlsplit(bucket.access.endpoint)
    with FaultProxy(place.hostname, place.port) as proxy, between(bucket, proxy.port):
        proxy.next_rules.append(PASS)
        proxy.rule = Rule(cut_after=400)
        with fails(TemporaryError, "Queuery at"):
            asking.unload(NUMBERS, bucket.prefix + "cut/")
    with fails(SnapshotError, "missing"):
        bucket.stat(bucket.prefix + "cut/manifest")


def test_after_an_error_no_further_file_is_fetched(asking, bucket):
    asked = []

    def missing_first(request):
        if not request.path.endswith("manifest"):
            asked.append(request.path)
            if len(asked) == 1:
                return Reply(404, b"")
            time.sleep(0.05)
        got = httpx.get(bucket.access.endpoint + request.path, params=request.query)
        return Reply(got.status_code, got.content)

    many, face = NUMBERS.replace("100", "1200"), HttpFace(missing_first, "127.0.0.1", 0)
    with serving(face), between(bucket, face.port), fails(RunFailed, "HTTP 404"):
        asking.unload(many, bucket.prefix + "gone/")
    assert len(asked) < 20, "of 40 files"
