"""The Redshift Data API over HTTP, as boto3's ``redshift-data`` client speaks it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbatch.devstack.redshift import data_views as views
from mlbatch.devstack.redshift.data_statements import ENDED, Execution, Request, SubStatement
from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.faults import Dropped
from mlbatch.devstack.redshift.http_face import (
    FAULTS_PATH,
    HttpFace,
    Reply,
    faults_reply,
    json_reply,
)
from mlbatch.devstack.redshift.http_face import Request as HttpRequest
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.session import Session
from mlbatch.devstack.redshift.statement import bind_names

MAX_BYTES = 100_000
MAX_BATCH = 40
MAX_WAIT_SECONDS = 30
MAX_SESSION_SECONDS = 86_400
MAX_RESULTS = 100
_JSON = "application/x-amz-json-1.1"
_TARGET = "RedshiftData."


class DataApiError(Exception):
    """An error of the API itself, with the name that the client knows."""

    def __init__(self, code: str, message: str, *, status: int = 400, **more: str) -> None:
        """``more`` are further members of the error's shape."""
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more


def _invalid(message: str) -> DataApiError:
    return DataApiError("ValidationException", message)


@dataclass(slots=True)
class _KeptSession:
    session: Session
    seconds: int
    database: str
    user: str
    last: Execution | None = None
    created: float = field(default_factory=time.time)

    def is_over(self) -> bool:
        """Whether it was idle for too long."""
        if self.last is None or self.last.status not in ENDED:
            return False
        return time.time() - self.last.updated > self.seconds


class DataApi:
    """The face; `start` and `stop` it, its `port` is known at once."""

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        page_rows: int = 1_000,
        max_active: int = 500,
    ) -> None:
        """``page_rows`` is the most rows of one page of a result."""
        self._engine = engine
        self._page_rows, self._max_active = page_rows, max_active
        self._executions: dict[str, Execution] = {}
        self._tokens: dict[str, Execution] = {}
        self._sessions: dict[str, _KeptSession] = {}
        self._lock = threading.Lock()
        self._face = HttpFace(self._handle, host, port)
        self.port, self.url = self._face.port, self._face.url

    def start(self) -> None:
        """Answer from now on."""
        self._face.start()

    def stop(self) -> None:
        """Cancel what runs, and hang up."""
        for execution in list(self._executions.values()):
            execution.cancel()
            execution.join()
        for kept in self._sessions.values():
            kept.session.close()
        self._face.stop()

    def _handle(self, request: HttpRequest) -> Reply:
        if request.path == FAULTS_PATH:
            return faults_reply(request, self._engine.faults)
        name = request.headers.get("x-amz-target", "").removeprefix(_TARGET)
        try:
            return json_reply(200, self._call(name, request.body), kind=_JSON)
        except DataApiError as error:
            document = {"__type": error.code, "Message": error.message, **error.more}
            return json_reply(error.status, document, kind=_JSON)

    def _call(self, name: str, body: bytes) -> dict[str, Any]:
        operation = _OPERATIONS.get(name)
        if operation is None:
            raise DataApiError("UnknownOperationException", f"no operation {name!r} here")
        try:
            given = json.loads(body or b"{}")
        except ValueError as error:
            raise DataApiError("SerializationException", str(error)) from error
        given = _shaped(given)
        about = f"{name} {_sql_of(given)}"
        fault = self._engine.faults.take("http", about)
        if fault:
            raise DataApiError(fault.code, fault.message, status=fault.status)
        return operation(self, given)

    def execute(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """ExecuteStatement."""
        return self._submit(given, [str(given.get("Sql", ""))], is_batch=False)

    def batch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """BatchExecuteStatement."""
        statements = [str(sql) for sql in given.get("Sqls", ())]
        if not 1 <= len(statements) <= MAX_BATCH:
            raise _invalid(f"Sqls must have between 1 and {MAX_BATCH} statements")
        return self._submit(given, statements, is_batch=True)

    def _submit(
        self, given: Mapping[str, Any], statements: list[str], *, is_batch: bool
    ) -> dict[str, Any]:
        text, seconds = _sql_of(given), _seconds(given)
        # A lost request and a lost reply look alike to the client; the work differs.
        if self._engine.faults.take("drop", text):
            raise Dropped
        request = _request(given, statements, is_batch=is_batch)
        execution = self._execution(given, request)
        execution.wait(seconds)
        if self._engine.faults.take("lose_reply", text):
            raise Dropped
        return views.submitted(execution)

    def _execution(self, given: Mapping[str, Any], request: Request) -> Execution:
        token = given.get("ClientToken")
        with self._lock:
            if token and token in self._tokens:
                return self._tokens[token]
            active = sum(e.status not in ENDED for e in self._executions.values())
            if active >= self._max_active:
                message = f"Active statements exceeded the allowed quota ({self._max_active})."
                raise DataApiError("ActiveStatementsExceededException", message)
            execution = self._begun(given, request)
            if token:
                self._tokens[token] = execution
        return execution

    def _begun(self, given: Mapping[str, Any], request: Request) -> Execution:
        session_id, session = self._session(given, request)
        execution = Execution(request, session, session_id)
        self._executions[execution.id] = execution
        if session_id:
            self._sessions[session_id].last = execution
        execution.start()
        return execution

    def _session(self, given: Mapping[str, Any], request: Request) -> tuple[str | None, Session]:
        asked, seconds = given.get("SessionId"), given.get("SessionKeepAliveSeconds")
        if seconds is not None and not 0 <= seconds <= MAX_SESSION_SECONDS:
            raise _invalid(f"SessionKeepAliveSeconds must be between 0 and {MAX_SESSION_SECONDS}")
        if asked:
            kept = self._kept(asked)
            if seconds is not None:
                kept.seconds = seconds
            return asked, kept.session
        session = self._engine.session(request.user, may_drop=False)
        if not seconds:
            return None, session
        made = str(uuid.uuid4())
        kept = _KeptSession(session, seconds, request.database, request.user)
        self._sessions[made] = kept
        return made, session

    def _kept(self, session_id: str) -> _KeptSession:
        kept = self._sessions.get(session_id)
        if kept is None or kept.is_over():
            if kept is not None:
                self._sessions.pop(session_id).session.close()
            message = f"Session {session_id} is not available."
            raise DataApiError("ResourceNotFoundException", message, ResourceId=session_id)
        if kept.last is not None and kept.last.status not in ENDED:
            raise _invalid(f"Session {session_id} is busy with another query.")
        return kept

    def describe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """DescribeStatement, of a whole call or of one statement in a batch."""
        execution, number = self._find(given)
        execution.wait(_seconds(given))
        return views.described(execution, number)

    def cancel(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """CancelStatement."""
        execution, _ = self._find(given)
        if not execution.cancel():
            message = f"Could not cancel a query that is already in {execution.status} state"
            raise _invalid(f"{message} with ID: {execution.id}")
        return {"Status": True}

    def result(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """GetStatementResult."""
        execution, number = self._find(given)
        execution.wait(_seconds(given))
        statements = execution.request.statements
        chosen = statements[(number or 1) - 1]
        table = chosen.answer.table if chosen.answer is not None else None
        if execution.status != "FINISHED" or table is None or (
            execution.request.is_batch and number is None
        ):  # fmt: skip
            message = (
                "Query does not have result. Please check query status with DescribeStatement."
            )
            raise DataApiError("ResourceNotFoundException", message, ResourceId=str(given["Id"]))
        return views.page(table, given.get("NextToken"), self._page_rows)

    def list_statements(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """ListStatements, the newest first."""
        wanted, name = given.get("Status") or "ALL", given.get("StatementName") or ""
        found = [
            views.listed(execution)
            for execution in reversed(list(self._executions.values()))
            if wanted in ("ALL", execution.status)
            and (execution.request.name or "").startswith(name)
        ]
        most, start = _most(given), int(given.get("NextToken") or 0)
        more = {"NextToken": str(start + most)} if start + most < len(found) else {}
        return {"Statements": found[start : start + most], **more}

    def list_sessions(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """ListSessions."""
        with self._lock:
            kept = [(key, one) for key, one in self._sessions.items() if not one.is_over()]
        return {"Sessions": [
            {"SessionId": key, "Database": one.database, "DbUser": one.user,
             "CreatedAt": one.created, "SessionAliveSeconds": one.seconds,
             "Status": "BUSY" if one.last and one.last.status not in ENDED else "AVAILABLE"}
            for key, one in kept
        ]}  # fmt: skip

    def _find(self, given: Mapping[str, Any]) -> tuple[Execution, int | None]:
        key, _, number = str(given.get("Id", "")).partition(":")
        execution = self._executions.get(key)
        count = len(execution.request.statements) if execution else 0
        if execution is None or (number and not (number.isdecimal() and 1 <= int(number) <= count)):
            message = f"Query {key} does not exist."
            raise DataApiError("ResourceNotFoundException", message, ResourceId=key)
        return execution, int(number) if number else None


_OPERATIONS: dict[str, Callable[[DataApi, Mapping[str, Any]], dict[str, Any]]] = {
    "ExecuteStatement": DataApi.execute,
    "BatchExecuteStatement": DataApi.batch,
    "DescribeStatement": DataApi.describe,
    "CancelStatement": DataApi.cancel,
    "GetStatementResult": DataApi.result,
    "ListStatements": DataApi.list_statements,
    "ListSessions": DataApi.list_sessions,
}


_SHAPES: dict[type, frozenset[str]] = {
    str: frozenset([
        "ClientToken", "ClusterIdentifier", "Database", "DbUser", "ExecutionMode", "Id", "NextToken",
        "SecretArn", "SessionId", "Sql", "StatementName", "Status", "WorkgroupName",
    ]),
    int: frozenset(["MaxResults", "SessionKeepAliveSeconds", "WaitTimeSeconds"]),
    list: frozenset(["Parameters", "Sqls"]),
}  # fmt: skip


def _shaped(given: object) -> dict[str, Any]:
    """What came, if it is an object whose members have their types; null is as good as nothing."""
    if not isinstance(given, dict):
        raise DataApiError("SerializationException", "the request is not a JSON object")
    found = {name: value for name, value in given.items() if value is not None}
    for kind, names in _SHAPES.items():
        for name in names & found.keys():
            if type(found[name]) is not kind:
                text = f"{name} is not of type {kind.__name__}"
                raise DataApiError("SerializationException", text)
    return found


def _sql_of(given: Mapping[str, Any]) -> str:
    texts = given.get("Sqls") or [given.get("Sql") or given.get("Id") or ""]
    return "; ".join(str(text) for text in texts)


def _seconds(given: Mapping[str, Any]) -> float:
    seconds = int(given.get("WaitTimeSeconds") or 0)
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise _invalid(f"WaitTimeSeconds must be between 0 and {MAX_WAIT_SECONDS}")
    return seconds


def _most(given: Mapping[str, Any]) -> int:
    """How many statements are listed at once."""
    most, token = given.get("MaxResults", MAX_RESULTS), given.get("NextToken", "0")
    if not 0 <= most <= MAX_RESULTS:
        raise _invalid(f"MaxResults must be between 0 and {MAX_RESULTS}")
    if not token.isdecimal():
        raise _invalid("NextToken is not one of ListStatements")
    return most or MAX_RESULTS


def _request(given: Mapping[str, Any], statements: list[str], *, is_batch: bool) -> Request:
    place = {k: given[k] for k in ("ClusterIdentifier", "WorkgroupName", "SecretArn") if k in given}
    has_target = "ClusterIdentifier" in place or "WorkgroupName" in place
    if not has_target and not given.get("SessionId"):
        raise _invalid("Either ClusterIdentifier or WorkgroupName is required.")
    if has_target and not given.get("Database"):
        raise _invalid("Database is required.")
    for sql in statements:
        if not sql.strip() or len(sql.encode()) > MAX_BYTES:
            raise _invalid(f"Sql must have between 1 and {MAX_BYTES} bytes.")
    parameters = list(given.get("Parameters") or ())
    return Request(
        tuple(_bound(sql, parameters) for sql in statements),
        is_batch,
        str(given.get("Database", "")),
        str(given.get("DbUser") or "awsuser"),
        place,
        parameters,
        given.get("StatementName"),
        given.get("ExecutionMode", "TRANSACTION") == "TRANSACTION",
    )


def _bound(sql: str, parameters: list[dict[str, str]]) -> SubStatement:
    if not parameters:
        return SubStatement(sql, sql)
    if not all(isinstance(item, dict) and {"name", "value"} <= item.keys() for item in parameters):
        raise _invalid("Each of Parameters has a name and a value.")
    values = {str(item["name"]): str(item["value"]) for item in parameters}
    try:
        return SubStatement(sql, bind_names(sql, values))
    except Refusal as refusal:
        raise _invalid(f"Parameters list does not fit the query: {refusal.message}") from refusal
