"""AWS's answers, over real HTTP where there is a server to ask: each becomes one error with a way on."""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    ReadTimeoutError,
)
from faulty import fails, serving

from mlbatch.connectors.aws import AwsAccess, ManagedSecret, RdsToken, aws_errors
from mlbatch.connectors.redshift import data_api
from mlbatch.connectors.redshift.data_api import DataApi
from mlbatch.connectors.redshift.transport import refused, session_settings, sqlstate_in
from mlbatch.devstack.redshift.data_api import DataApi as DataApiFace
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.http_face import HttpFace, Reply, json_reply
from mlbatch.errors import DeclarationError, RunFailed, SettingsError, TemporaryError

ARN = "arn:aws:secretsmanager:eu-west-1:1:secret:s"


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        ("AccessDenied", SettingsError, "log in as the role"),
        ("ExpiredToken", SettingsError, "log in as the role"),
        ("SignatureDoesNotMatch", SettingsError, "log in as the role"),
        ("NoSuchBucket", SettingsError, "mend storage.bucket"),
        ("PermanentRedirect", SettingsError, "the bucket is in eu-north-1: mend storage.region"),
        ("301", SettingsError, "the bucket is in eu-north-1: mend storage.region"),
        ("SlowDown", TemporaryError, "nothing was lost"),
        ("ThrottlingException", TemporaryError, "nothing was lost"),
        ("ActiveStatementsExceededException", TemporaryError, "nothing was lost"),
        ("ValidationException", RunFailed, ""),
        ("", RunFailed, ""),
    ],
)
def test_a_code_of_aws_says_what_to_do(code, kind, hint):
    place = {"HTTPHeaders": {"x-amz-bucket-region": "eu-north-1"}}
    told = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": place}
    with fails(kind, "reading: .*said so") as caught, aws_errors("reading"):
        raise ClientError(told, "GetObject")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (NoCredentialsError(), SettingsError, "no AWS credentials"),
        (NoRegionError(), SettingsError, "region"),
        (ProfileNotFound(profile="p"), SettingsError, "config profile"),
        (EndpointConnectionError(endpoint_url="http://x"), TemporaryError, "no answer"),
        (ReadTimeoutError(endpoint_url="http://x"), TemporaryError, "no answer"),
        (ConnectionResetError("reset"), TemporaryError, "no answer: reset"),
        (OSError(), TemporaryError, "no answer: OSError"),
        (BotoCoreError(), RunFailed, "unspecified error"),
    ],
)
def test_what_botocore_raises_by_itself(error, kind, words):
    with fails(kind, words) as caught, aws_errors("reading"):
        raise error
    assert caught.value.__cause__ is error


@pytest.fixture
def secrets():
    """A Secrets Manager that gives what a test says."""
    answers = {"reply": json_reply(500, {})}
    face = HttpFace(lambda _: answers["reply"], "127.0.0.1", 0)
    with serving(face):
        access = AwsAccess("eu-west-1", face.url, "test", "test")
        yield answers, ManagedSecret(ARN, access)


def test_a_managed_secret_is_read_anew_each_time(secrets):
    answers, secret = secrets
    for password in ("one", "two"):
        text = json.dumps({"username": "me", "password": password})
        answers["reply"] = json_reply(200, {"SecretString": text})
        assert secret() == password


@pytest.mark.parametrize(
    "document",
    [{}, {"SecretString": "hunter2"}, {"SecretString": "[]"}, {"SecretString": '{"user": "me"}'},
     {"SecretBinary": "aHVudGVyMg=="}],
)  # fmt: skip
def test_a_secret_of_another_shape_is_refused_without_showing_it(secrets, document):
    answers, secret = secrets
    answers["reply"] = json_reply(200, document)
    with fails(SettingsError, f"the secret {ARN} holds no JSON with a password") as caught:
        secret()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDeniedException", SettingsError), ("ResourceNotFoundException", RunFailed)],
)
def test_a_secret_that_may_not_be_read_is_named(secrets, code, kind):
    answers, secret = secrets
    answers["reply"] = Reply(400, json.dumps({"__type": code, "message": "no"}).encode())
    with fails(kind, f"reading the secret {ARN}: {code}"):
        secret()


def test_an_iam_token_is_made_here_for_one_user_of_one_server():
    access = AwsAccess("eu-west-1", access_key="AKIA", secret_key="s3cret")
    token = RdsToken("db.example.com", 3306, "me", access)()
    found = urlsplit("https://" + token)
    asked = parse_qs(found.query)
    assert (found.hostname, found.port) == ("db.example.com", 3306)
    assert (asked["Action"], asked["DBUser"]) == (["connect"], ["me"])
    assert asked["X-Amz-Expires"] == ["900"]
    assert "s3cret" not in token


@pytest.fixture
def asking(engine):
    face = DataApiFace(engine)
    with serving(face):
        access = AwsAccess("us-east-1", f"http://127.0.0.1:{face.port}", "test", "test")
        yield lambda seconds: DataApi(
            "dev", "c", user="awsuser", statement_seconds=seconds, access=access
        )


def test_a_statement_that_is_cancelled_over_there_says_so(asking, engine):
    engine.faults.add(Fault("delay", "slowly", seconds=30))

    def cancel():
        while not any(engine.cancel(pid) for pid in list(engine._sessions)):
            time.sleep(0.05)

    other = threading.Timer(0.5, cancel)
    other.start()
    with fails(RunFailed, "cancel"):
        asking(60).run(["SELECT 'slowly' AS a"])
    other.join()


def test_whoever_stops_waiting_cancels_the_statement(asking, engine, monkeypatch):
    engine.faults.add(Fault("delay", "slowly", seconds=30))
    monkeypatch.setattr(data_api, "growing", _interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asking(60).run(["SELECT 'slowly' AS a"])
    while engine._sessions and time.monotonic() - started < 20:
        threading.Event().wait(0.05)
    assert not engine._sessions


def _interrupted(_):
    yield 0.2
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('relation "t" does not exist', DeclarationError),
        ('syntax error at or near "x"', DeclarationError),
        ("permission denied for relation t", SettingsError),
        ("Query cancelled on user's request", RunFailed),
        ("canceling statement due to statement timeout", RunFailed),
        ("Serializable isolation violation on table - 1", TemporaryError),
        ("1023", TemporaryError),
        ("the cluster is being resized", TemporaryError),
        ("S3ServiceException:The specified bucket does not exist,Status 404", RunFailed),
        ("IAM role arn:aws:iam::1:role/x does not exist", RunFailed),
        ("Value out of range for 2 bytes. Value: 10231", RunFailed),
        ("Query (11023456) cancelled by WLM abort action", RunFailed),
        ("something else\nwith more lines", RunFailed),
        ("", RunFailed),
    ],
)
def test_the_data_api_tells_words_and_they_are_understood(said, kind):
    error = refused(sqlstate_in(said), said, "the Data API")
    assert type(error) is kind
    assert "\n" not in error.message
    assert (said.splitlines() or ["no reason given"])[0] in error.message


def test_a_queue_s_name_is_only_a_text():
    settings = session_settings(5, "it's; DROP TABLE t")
    assert settings == [
        "SET statement_timeout TO 5000",
        "SET timezone TO 'UTC'",
        r"SET query_group TO 'it\'s; DROP TABLE t'",
    ]
    assert session_settings(5, None) == settings[:2]
