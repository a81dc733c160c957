"""Queuery as warehouse: a server that unloads queries for whoever may not reach Redshift itself.

Its files are text, gzip, every field in double quotes, with a backslash before what would be misread.
NULL and the empty text look the same there; both come back as NULL. The files are read in parallel,
cast by the manifest and written to the storage as Parquet parts, so that what follows is the same
as with an UNLOAD of our own.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import stamina

from mlbatch.connectors.polling import growing
from mlbatch.connectors.unreached import advice, unreached
from mlbatch.errors import (
    MlbatchError,
    RunFailed,
    SettingsError,
    SnapshotError,
    TemporaryError,
    UsageError,
)
from mlbatch.snapshot import ManifestEntry, write_manifest
from mlbatch.storage import Storage
from mlbatch.warehouse import Unloaded

POLL_SECONDS = (0.0, 1.0, 3.0, 6.0, 9.0, 15.0, 30.0)
"""Growing waits between questions; the last one repeats."""
ANSWER_SECONDS = 60.0
DOWNLOADS = 4
TRIES = 5
GROUP_ROWS = 5_000
_UNKNOWN_ANSWERS = 10
_AGAIN = "try again; nothing was lost"
_EXPIRED = frozenset({400, 403})
"""S3 says 400 where the signer's own log-in has run out, 403 where the URL's time has."""
Result = TypeVar("Result")
# A query is a session of its own, whose settings are the server's: they can only be looked at.
_CLOCKS = """SELECT GETDATE() AS local, CAST(GETDATE() AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS utc"""
_TYPES = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "date": pa.date32(),
    "boolean": pa.bool_(),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}


@dataclass(frozen=True, slots=True)
class QueueryWarehouse:
    """`mlbatch.warehouse.Warehouse` behind the server at ``endpoint``, with parts in ``storage``."""

    endpoint: str
    token: str
    token_secret: str = field(repr=False)
    storage: Storage
    query_seconds: int = 4 * 3600
    sleep: Callable[[float], None] = time.sleep

    def about(self) -> str:
        """See `mlbatch.warehouse.Warehouse.about`."""
        self.fetch("SELECT 1 AS one")
        return f"Queuery at {self.endpoint}"

    def now(self) -> datetime:
        """See `mlbatch.warehouse.Warehouse.now`; SettingsError where the server is not in UTC."""
        (row,) = self.fetch(_CLOCKS).to_pylist()
        moment: datetime = row["utc"]
        if abs(row["local"] - moment) > timedelta(minutes=1):
            message = f"Queuery at {self.endpoint} reads and tells times in another zone than UTC"
            hint = "ALTER USER ... SET timezone TO 'UTC' for the user of the Queuery server"
            raise SettingsError(message, hint=hint)
        return moment.replace(tzinfo=UTC)

    def fetch(self, select: str) -> pa.Table:
        """See `mlbatch.warehouse.Warehouse.fetch`."""
        with self._client() as client:
            answer = self._ended(client, select)
            schema = self._schema(client, answer)
            tables = [self._file(client, answer, n, schema) for n in range(_files(answer))]
        _check_count(answer, schema, sum(table.num_rows for table in tables))
        return pa.concat_tables([schema.arrow.empty_table(), *tables])

    def unload(self, select: str, prefix: str) -> Unloaded:
        """See `mlbatch.warehouse.Warehouse.unload`."""
        with self._client() as client, ThreadPoolExecutor(DOWNLOADS) as threads:
            answer = self._ended(client, select)
            schema = self._schema(client, answer)
            waiting = [
                threads.submit(self._part, client, answer, n, schema, prefix)
                for n in range(_files(answer))
            ]
            try:
                entries = tuple(entry for entry in (w.result() for w in waiting) if entry.rows)
            except BaseException:
                # Or whoever leaves waits for all the files that are still to come.
                threads.shutdown(cancel_futures=True)
                raise
        rows = sum(entry.rows for entry in entries)
        _check_count(answer, schema, rows)
        if not entries:
            return Unloaded(0, None)
        self.storage.put(prefix + "manifest", write_manifest(entries))
        return Unloaded(rows, prefix + "manifest")

    def copy(self, table: str, rows: pa.Table, *, replace_by: tuple[str, ...]) -> int:  # noqa: ARG002
        """Queuery only reads."""
        message = f"Queuery cannot load {table}"
        raise UsageError(message, hint="use warehouse.kind redshift for what writes to Redshift")

    def _client(self) -> httpx.Client:
        secret = httpx.BasicAuth(self.token, self.token_secret)
        trusted = _authorities()
        return httpx.Client(
            base_url=self.endpoint, auth=secret, timeout=ANSWER_SECONDS, verify=trusted
        )

    def _ended(self, client: httpx.Client, select: str) -> dict[str, Any]:
        """Ask, and wait for the end; a query that did not go well is refused."""
        with _translated(self.endpoint):
            # Not repeated when its answer is lost: a second query would cost a second UNLOAD.
            posted = client.post("/v1/queries", data={"q": select, "enable_metadata": "true"})
            _check_status(posted, self.endpoint)
            return self._waited(client, int(posted.json()["id"]))

    def _waited(self, client: httpx.Client, query: int) -> dict[str, Any]:
        deadline, unknown = time.monotonic() + self.query_seconds, 0
        for seconds in growing(POLL_SECONDS):
            self.sleep(seconds)
            answer = self._look(client, query)
            status = answer.get("status")
            if status == "success":
                return answer
            unknown += status not in ("pending", "running")
            if (
                status in ("failed", "canceled")
                or answer.get("error")
                or unknown > _UNKNOWN_ANSWERS
            ):
                raise RunFailed(
                    f"query {query} {status}: {answer.get('error') or 'no reason given'}"
                )
            if time.monotonic() > deadline:
                message = f"query {query}: no end after {self.query_seconds} s"
                raise RunFailed(
                    message, hint="raise warehouse.query_seconds; it goes on over there"
                )
        raise AssertionError  # the waits never end

    def _look(self, client: httpx.Client, query: int) -> dict[str, Any]:
        fields = {"fields": "__default__,s3_prefix,manifest_file_url"}
        for attempt in _attempts():
            with attempt:
                answer = client.get(f"/v1/queries/{query}", params=fields)
                answer.raise_for_status()
                found: dict[str, Any] = answer.json()
                return found
        raise AssertionError  # the loop returns or raises

    def _schema(self, client: httpx.Client, answer: dict[str, Any]) -> Schema:
        if not answer.get("manifest_file_url"):
            message = f"query {answer['id']} has no manifest, so its columns are not known"
            raise SnapshotError(message, hint="the server must unload with MANIFEST VERBOSE")
        return self._downloaded(
            client,
            answer,
            lambda known: str(known["manifest_file_url"]),
            lambda stream: Schema.of(json.loads(stream.read())),
        )

    def _part(
        self, client: httpx.Client, answer: dict[str, Any], number: int, schema: Schema, prefix: str
    ) -> ManifestEntry:
        table = self._file(client, answer, number, schema)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", row_group_size=GROUP_ROWS)
        uri = f"{prefix}{number:04d}_part_00.parquet"
        if table.num_rows:
            self.storage.put(uri, buffer.getvalue())
        return ManifestEntry(uri, buffer.tell(), table.num_rows)

    def _file(
        self, client: httpx.Client, answer: dict[str, Any], number: int, schema: Schema
    ) -> pa.Table:
        return self._downloaded(
            client,
            answer,
            lambda known: str(known["data_file_urls"][number]),
            lambda stream: schema.table(_unzipped(stream.iter_raw())),
        )

    def _downloaded(
        self,
        client: httpx.Client,
        answer: dict[str, Any],
        url_of: Callable[[dict[str, Any]], str],
        read: Callable[[httpx.Response], Result],
    ) -> Result:
        """A file read to its end; its signed URL is asked for anew when it has expired."""
        how: Any = {"timeout": ANSWER_SECONDS, "verify": _authorities()}
        with _translated(self.endpoint):
            for attempt in _attempts():
                with attempt, httpx.stream("GET", url_of(answer), **how) as stream:
                    if stream.status_code in _EXPIRED:
                        answer = self._look(client, int(answer["id"]))
                    stream.raise_for_status()
                    return read(stream)
        raise AssertionError  # the loop returns or raises


def _authorities() -> ssl.SSLContext:
    """Whom clients trust, which each would read anew: a twentieth of a second a file."""
    return _read_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=2)
def _read_authorities(*named: str | None) -> ssl.SSLContext:  # noqa: ARG001  httpx asks for them itself
    return httpx.create_ssl_context()


def _check_count(answer: dict[str, Any], schema: Schema, rows: int) -> None:
    if schema.rows is not None and rows != schema.rows:
        message = f"query {answer['id']}: {rows} rows came, its manifest says {schema.rows}"
        raise SnapshotError(message, hint="run again; a file is missing")


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a result, as its manifest tells them."""

    arrow: pa.Schema
    rows: int | None

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Schema:
        """Read a verbose manifest."""
        fields = [
            (element["name"], _arrow_type(element["type"]))
            for element in manifest["schema"]["elements"]
        ]
        return cls(pa.schema(fields), manifest.get("meta", {}).get("record_count"))

    def table(self, text: str) -> pa.Table:
        """The rows of one file."""
        rows = [read_fields(line) for line in rows_of(text)]
        wrong = next((row for row in rows if len(row) != len(self.arrow)), None)
        if wrong is not None:
            message = f"a row has {len(wrong)} fields, the manifest names {len(self.arrow)}"
            raise SnapshotError(message)
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self.arrow)
        arrays = [
            _cast(values, field.type) for values, field in zip(columns, self.arrow, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.arrow)


def _arrow_type(described: dict[str, Any]) -> pa.DataType:
    if described["base"] == "numeric":
        return pa.decimal128(described.get("precision", 38), described.get("scale", 0))
    return _TYPES.get(described["base"], pa.string())


def _cast(values: tuple[str, ...], kind: pa.DataType) -> pa.Array:
    texts = pa.array([value or None for value in values], pa.string())
    if pa.types.is_boolean(kind):
        return pa.array([None if not v else v == "t" for v in values], kind)
    return texts.cast(kind)


_ROW = re.compile(r"(?:[^\\\n]|\\.)*(?:\n|$)", re.DOTALL)
_FIELD = re.compile(r'"((?:[^"\\]|\\.)*)"(?:,|$)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def rows_of(text: str) -> Iterator[str]:
    """The rows of a file: a line feed ends one unless a backslash stands before it."""
    place = 0
    while place < len(text):
        found = _ROW.match(text, place)
        if found is None or found.end() == place:
            raise SnapshotError("a data file ends in the middle of a row")
        place = found.end()
        yield found[0].removesuffix("\n")


def read_fields(row: str) -> list[str]:
    """The fields of a row; one that is not quoted as UNLOAD does is refused."""
    fields, place = [], 0
    while place < len(row):
        found = _FIELD.match(row, place)
        if found is None:
            raise SnapshotError("a data file has a field that is not quoted")
        fields.append(_ESCAPED.sub(r"\1", found[1]))
        place = found.end()
    return fields


def _unzipped(chunks: Iterator[bytes]) -> str:
    pieces, stream = [], zlib.decompressobj(wbits=31)
    for chunk in chunks:
        data = chunk
        while data:
            try:
                pieces.append(stream.decompress(data))
            except zlib.error as error:
                message = f"a data file is not gzip, or has garbage after its end: {error}"
                raise SnapshotError(message) from error
            data = stream.unused_data
            if stream.eof and data:
                stream = zlib.decompressobj(wbits=31)
    if pieces and not stream.eof:
        raise httpx.ReadError("the file broke off")
    try:
        return b"".join(pieces).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SnapshotError(f"a data file is not UTF-8: {error}") from error


def _attempts() -> Iterable[stamina.Attempt]:
    # Without a limit of time: one slow attempt would be the only one.
    return stamina.retry_context(on=_worth_retrying, attempts=TRIES, timeout=None)


def _files(answer: dict[str, Any]) -> int:
    return len(answer.get("data_file_urls") or ())


def _worth_retrying(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _EXPIRED | {429, 500, 502, 503, 504}
    return isinstance(error, httpx.TransportError)


def _check_status(answer: httpx.Response, endpoint: str) -> None:
    if answer.status_code in (401, 403):
        message = f"Queuery at {endpoint} refuses the token"
        raise SettingsError(message, hint="check warehouse.token and warehouse.token_secret")
    answer.raise_for_status()


@contextmanager
def _translated(endpoint: str) -> Iterator[None]:
    """The one place where HTTP's errors become ours."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _by_status(error, endpoint) from error
    except httpx.TransportError as error:
        message = f"Queuery at {endpoint}: {type(error).__name__}: {error}"
        hint = advice(error, "warehouse.endpoint", _AGAIN)
        raise unreached(error, message, hint, "SSL_CERT_FILE") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"Queuery at {endpoint} gives an answer that is not its protocol's: {error}"
        raise RunFailed(message) from error


def _by_status(error: httpx.HTTPStatusError, endpoint: str) -> MlbatchError:
    message = f"Queuery at {endpoint}: HTTP {error.response.status_code}"
    if error.response.status_code >= 500:  # noqa: PLR2004  the server's own fault
        return TemporaryError(message, hint=_AGAIN)
    return RunFailed(message)
