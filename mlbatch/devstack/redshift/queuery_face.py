"""A face that speaks Queuery's protocol: a SELECT in, URLs of gzip text out."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.faults import Dropped
from mlbatch.devstack.redshift.http_face import (
    FAULTS_PATH,
    HttpFace,
    Reply,
    Request,
    faults_reply,
    json_reply,
)
from mlbatch.devstack.redshift.queuery_query import Query
from mlbatch.devstack.redshift.refusal import Refusal

ROOT = "/v1/queries"
URL_SECONDS = 6 * 3600
FIRST_WAIT_SECONDS = 1.0
"""The first GET waits so long: official clients look again only after three seconds."""

_FIELDS = re.compile(r"(?:\*|\w+)(?:,(?:\*|\w+))*")
_INNERMOST = re.compile(rf"(?<=\w)\[{_FIELDS.pattern}\]")


class _Denied(Exception):
    """Wrong token or secret."""


class QueueryFace:
    """The face; ``tokens`` are tokens and their secrets, results go below s3://bucket/prefix."""

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tokens: Mapping[str, str],
        bucket: str,
        prefix: str = "queuery/",
    ) -> None:
        """Binds at once; `start` answers."""
        self._engine, self._tokens = engine, dict(tokens)
        self._place = f"s3://{bucket}/{prefix}"
        self._queries: dict[int, Query] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._face = HttpFace(self._handle, host, port)
        self.port, self.url = self._face.port, self._face.url

    def start(self) -> None:
        """Answer from now on."""
        self._face.start()

    def stop(self) -> None:
        """Cancel what runs, and hang up."""
        for query in list(self._queries.values()):
            query.stop()
        self._face.stop()

    def _handle(self, request: Request) -> Reply:
        if request.path == FAULTS_PATH:
            return faults_reply(request, self._engine.faults)
        try:
            return self._answer(request, self._account(request))
        except _Denied:
            told = {"WWW-Authenticate": 'Basic realm="Application"', "Content-Type": "text/plain"}
            return Reply(401, b"HTTP Basic: Access denied.\n", told)

    def _account(self, request: Request) -> str:
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            token, _, secret = base64.b64decode(encoded).decode().partition(":")
        except ValueError as error:
            raise _Denied from error
        known = self._tokens.get(token, "")
        if kind.lower() != "basic" or not known:
            raise _Denied
        if not hmac.compare_digest(known.encode(), secret.encode()):
            raise _Denied
        return token

    def _answer(self, request: Request, account: str) -> Reply:
        path = request.path.rstrip("/")
        fault = self._engine.faults.take("http", f"{request.method} {path} {request.body!r}")
        if fault:
            return json_reply(fault.status, {"status_code": fault.status, "error": fault.message})
        if request.method == "POST" and path == ROOT:
            return self._create(request, account)
        number = path.removeprefix(f"{ROOT}/")
        query = self._queries.get(int(number)) if number.isdecimal() else None
        if request.method != "GET" or query is None or query.account != account:
            return json_reply(404, {"status_code": 404, "error": "not found"})
        if not all(_are_fields(text) for text in request.query.get("fields", ())):
            return json_reply(400, {"status_code": 400, "error": "Invalid query in ?fields="})
        query.wait_once(FIRST_WAIT_SECONDS)
        return json_reply(200, self._document(query))

    def _create(self, request: Request, account: str) -> Reply:
        try:
            given = _parameters(request)
            select = str(given["q"])
            values = [str(value) for value in given.get("values") or ()]
        except (ValueError, KeyError, TypeError, AttributeError):
            return json_reply(400, {"status_code": 400, "error_code": "invalid_parameter",
                                    "error": "invalid parameters are given"})  # fmt: skip
        if self._engine.faults.take("drop", select):
            raise Dropped
        try:
            query = self._begun(select, values, account, has_manifest=_truth(given))
        except Refusal as refusal:
            return json_reply(400, {"status_code": 400, "error": refusal.message})
        if self._engine.faults.take("lose_reply", select):
            raise Dropped
        document = self._document(query) | {"status": "pending", "data_file_urls": []}
        return json_reply(201, document, Location=f"{ROOT}/{query.number}")

    def _begun(self, select: str, values: list[str], account: str, *, has_manifest: bool) -> Query:
        with self._lock:
            number = next(self._numbers)
        day = datetime.now(UTC).strftime("%Y%m%d")
        prefix = f"{self._place}{account}/{day}/{number}/result.csv."
        query = Query(number, account, select, values, prefix, has_manifest)
        session = self._engine.session(account, may_drop=False)
        query.start(session)
        self._queries[number] = query
        return query

    def _document(self, query: Query) -> dict[str, Any]:
        store = self._engine.store
        files = [store.presigned(uri, URL_SECONDS) for uri in query.files]
        manifest = query.manifest_uri
        return {
            "id": query.number,
            "status": query.status,
            "data_file_urls": files,
            "error": query.error,
            "manifest_file_url": store.presigned(manifest, URL_SECONDS) if manifest else None,
            "s3_prefix": query.prefix,
            "select_stmt": query.select,
            "created_at": query.created.isoformat(),
            "job_id": None,
            "client_account_name": query.account,
        }


def _parameters(request: Request) -> dict[str, Any]:
    """A form's or a JSON body's parameters."""
    if "json" in request.headers.get("content-type", ""):
        found = json.loads(request.body)
        if not isinstance(found, dict):
            raise TypeError
        return found
    form = parse_qs(request.body.decode(), keep_blank_values=True)
    single = {name: values[0] for name, values in form.items()}
    return single | {"values": form.get("values[]", [])}


def _are_fields(text: str) -> bool:
    """Whether ``text`` is a comma list of names, each with a list of its own in brackets or none.

    Which of them are asked for makes no difference: every field is always sent.
    """
    while _INNERMOST.search(text):
        text = _INNERMOST.sub("", text)
    return _FIELDS.fullmatch(text) is not None


def _truth(given: Mapping[str, Any]) -> bool:
    """A form's "false" is a text and so counts as true, in the real server too."""
    return bool(given.get("enable_metadata"))
