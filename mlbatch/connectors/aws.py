"""AWS clients, one kind of configuration for all, and secrets that AWS keeps."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)

from mlbatch.connectors.unreached import advice, unreached
from mlbatch.errors import MlbatchError, RunFailed, SettingsError, TemporaryError

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
ATTEMPTS = 6
_DENIED = frozenset(
    [
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "403",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidSignatureException",
    ]
)
_TEMPORARY = frozenset(
    [
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "InternalServerException",
        "RequestTimeout",
        "500",
        "503",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "429",
        "ActiveStatementsExceededException",
    ]
)
_MOVED = (301, 307)
_REGION = "x-amz-bucket-region"
_AGAIN = "try again; nothing was lost"
_PLACE = "the region in the settings, or the endpoint if one is set"
_LOG_IN = "log in as the role that deploy/iam describes; `mlbatch doctor` checks each right"


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """How a service is reached. Without keys, the standard chain of roles and profiles applies."""

    region: str | None = None
    endpoint: str | None = None
    """A stand-in's URL; AWS's own otherwise."""
    access_key: str | None = None
    """For stand-ins only, as settings see to."""
    secret_key: str | None = field(default=None, repr=False)
    connections: int = 16

    def client(self, service: str) -> Any:  # noqa: ANN401  boto3 makes its classes at run time
        """A client of this process, made once."""
        return _client(service, self, os.getpid())


@functools.lru_cache(maxsize=32)
def _client(service: str, access: AwsAccess, pid: int) -> Any:  # noqa: ANN401, ARG001  not shared over a fork
    configured = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=ANSWER_SECONDS,
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        max_pool_connections=access.connections,
        tcp_keepalive=True,
        s3={"addressing_style": "path"} if access.endpoint else None,
    )
    with aws_errors(service):
        # A session of its own, whose credentials nobody else changes.
        session = botocore.session.Session()
        session.register_component("data_loader", _descriptions())
        client = boto3.session.Session(botocore_session=session).client(
            service,
            region_name=access.region,
            endpoint_url=access.endpoint,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            config=configured,
        )
    if service == "s3":
        client.meta.events.register_first("needs-retry.s3.HeadBucket", _end_of_redirections)
    return client


@functools.cache
def _descriptions() -> Any:  # noqa: ANN401  botocore has no types
    """Of the services, which every session would read anew: a tenth of a second a client."""
    return botocore.session.Session().get_component("data_loader")


def _end_of_redirections(response: tuple[Any, dict[str, Any]] | None, **_: object) -> None:
    """Looking for a bucket's region is redirected too where nobody tells it: without end."""
    told = response[1] if response else {}
    about = told.get("ResponseMetadata", {})
    if about.get("HTTPStatusCode") in _MOVED and _REGION not in about.get("HTTPHeaders", {}):
        raise ClientError(told, "HeadBucket")


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """The one place where boto3's errors become ours; ``what`` says what was being done."""
    try:
        yield
    except ClientError as error:
        raise _refused(error, what) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise SettingsError(f"{what}: no AWS credentials: {error}", hint=_LOG_IN) from error
    except (NoRegionError, ProfileNotFound) as error:
        raise SettingsError(f"{what}: {error}", hint="set the region or AWS_PROFILE") from error
    except (NoConnectionError, HTTPClientError, OSError) as error:
        message = f"{what}: no answer: {_first_line(error)}"
        hint = advice(error, _PLACE, _AGAIN)
        raise unreached(error, message, hint, "AWS_CA_BUNDLE") from error
    except BotoCoreError as error:
        raise RunFailed(f"{what}: {_first_line(error)}") from error


def code_of(error: ClientError) -> str:
    """AWS's code for an error, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(error: ClientError, what: str) -> MlbatchError:
    code = code_of(error)
    said = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code in _DENIED:
        return SettingsError(said, hint=_LOG_IN)
    if code == "NoSuchBucket":
        return SettingsError(said, hint="make the bucket, or mend storage.bucket")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "307"):
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        place = headers.get(_REGION, "another region")
        return SettingsError(said, hint=f"the bucket is in {place}: mend storage.region")
    if code in _TEMPORARY:
        return TemporaryError(said, hint=_AGAIN)
    return RunFailed(said)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True, slots=True)
class RdsToken:
    """A database password that IAM gives for 15 minutes, made anew for each connection."""

    host: str
    port: int
    user: str
    access: AwsAccess

    def __call__(self) -> str:
        """A fresh token."""
        with aws_errors(f"making an IAM token for {self.user} at {self.host}"):
            token: str = self.access.client("rds").generate_db_auth_token(
                DBHostname=self.host, Port=self.port, DBUsername=self.user
            )
        return token


@dataclass(frozen=True, slots=True)
class ManagedSecret:
    """A password that Secrets Manager keeps and rotates."""

    arn: str
    access: AwsAccess

    def __call__(self) -> str:
        """The secret's current password."""
        with aws_errors(f"reading the secret {self.arn}"):
            answer = self.access.client("secretsmanager").get_secret_value(SecretId=self.arn)
        try:
            return str(json.loads(answer["SecretString"])["password"])
        except (KeyError, ValueError, TypeError) as error:
            message = f"the secret {self.arn} holds no JSON with a password"
            raise SettingsError(message, hint="store it as RDS does") from error
