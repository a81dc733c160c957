"""Where UNLOAD writes and COPY reads: the few things that the engine asks of S3."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mlbatch.devstack.redshift.refusal import Refusal


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object below a prefix."""

    uri: str
    bytes: int


class ObjectStore(Protocol):
    """Objects by their ``s3://bucket/key``; a Refusal in Redshift's words for what fails."""

    def list(self, prefix: str) -> list[StoredObject]:
        """Every object whose name begins with ``prefix``, in order."""
        ...

    def put(self, uri: str, data: bytes) -> None:
        """Write an object."""
        ...

    def put_file(self, uri: str, file: Path) -> None:
        """Write an object out of a file."""
        ...

    def get(self, uri: str) -> bytes:
        """The whole object."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object, if it is there."""
        ...

    def presigned(self, uri: str, seconds: int) -> str:
        """A URL that anybody may GET for so long."""
        ...


def place(uri: str) -> tuple[str, str]:
    """Bucket and key of ``uri``."""
    bucket = urlsplit(uri).netloc
    if not uri.startswith("s3://") or not bucket:
        raise Refusal("22023", f"The S3 path is invalid: {uri}")
    return bucket, uri.removeprefix(f"s3://{bucket}").removeprefix("/")


class S3Objects:
    """`ObjectStore` over boto3."""

    def __init__(
        self,
        endpoint_url: str | None,
        region: str = "us-east-1",
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        """Without keys, boto3's own chain of credentials applies."""
        self._place = (endpoint_url, region, access_key, secret_key)

    def client(self) -> Any:  # noqa: ANN401  boto3 makes its classes at run time
        """The one client of this place, which all threads may use."""
        with _MAKING:
            return _client(*self._place)

    def list(self, prefix: str) -> list[StoredObject]:
        """See `ObjectStore.list`."""
        with _s3_errors(prefix):
            return list(self._listed(prefix))

    def _listed(self, prefix: str) -> Iterator[StoredObject]:
        bucket, key = place(prefix)
        pages = self.client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=key):
            for item in page.get("Contents", ()):
                yield StoredObject(f"s3://{bucket}/{item['Key']}", item["Size"])

    def put(self, uri: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        bucket, key = place(uri)
        with _s3_errors(uri):
            self.client().put_object(Bucket=bucket, Key=key, Body=data)

    def put_file(self, uri: str, file: Path) -> None:
        """See `ObjectStore.put_file`."""
        with _s3_errors(uri):
            self.client().upload_file(str(file), *place(uri))

    def get(self, uri: str) -> bytes:
        """See `ObjectStore.get`."""
        bucket, key = place(uri)
        with _s3_errors(uri):
            data: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def delete(self, uri: str) -> None:
        """See `ObjectStore.delete`."""
        bucket, key = place(uri)
        with _s3_errors(uri):
            self.client().delete_object(Bucket=bucket, Key=key)

    def presigned(self, uri: str, seconds: int) -> str:
        """See `ObjectStore.presigned`."""
        bucket, key = place(uri)
        url: str = self.client().generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
        )
        return url


_MAKING = threading.Lock()


@functools.lru_cache(maxsize=8)
def _client(
    endpoint_url: str | None, region: str, access_key: str | None, secret_key: str | None
) -> Any:  # noqa: ANN401  boto3 makes its classes at run time
    session = boto3.session.Session(access_key, secret_key, region_name=region)
    config = Config(s3={"addressing_style": "path"}, signature_version="s3v4")
    return session.client("s3", endpoint_url=endpoint_url, config=config)


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    """S3's refusals as Redshift reports them."""
    try:
        yield
    except ClientError as error:
        told = error.response.get("Error", {})
        message = f"S3ServiceException:{told.get('Message')},Error {told.get('Code')}"
        raise Refusal("XX000", message, detail=uri) from error
    except (BotoCoreError, Boto3Error, OSError) as error:
        raise Refusal("XX000", f"S3ServiceException:{error}", detail=uri) from error
