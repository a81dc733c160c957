"""The Data API's documents about an execution."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mlbatch.devstack.redshift.data_results import column_metadata, records, size
from mlbatch.devstack.redshift.data_statements import ENDED, Execution, SubStatement

Document = dict[str, Any]


def submitted(execution: Execution) -> Document:
    """The answer to ExecuteStatement and BatchExecuteStatement."""
    is_over = execution.status in ENDED
    return {
        "Id": execution.id,
        "CreatedAt": execution.created,
        "Database": execution.request.database,
        "DbUser": execution.request.user,
        "DbGroups": [],
        "Status": execution.status,
        "RedshiftPid": execution.session.pid,
        **({"HasResultSet": _has_result(*execution.request.statements)} if is_over else {}),
        **execution.request.place,
        **({"SessionId": execution.session_id} if execution.session_id else {}),
    }


def described(execution: Execution, number: int | None) -> Document:
    """The answer to DescribeStatement."""
    statements = execution.request.statements
    chosen = statements[(number or 1) - 1]
    document = {
        **_outline(chosen),
        "Id": execution.id if number is None else f"{execution.id}:{number}",
        "Database": execution.request.database,
        "DbUser": execution.request.user,
        "RedshiftPid": execution.session.pid,
        "ResultFormat": "JSON",
        **execution.request.place,
        **_whole(execution, number),
    }
    if execution.request.parameters:
        document["QueryParameters"] = execution.request.parameters
    if execution.session_id:
        document["SessionId"] = execution.session_id
    return document


def _whole(execution: Execution, number: int | None) -> Document:
    if number is not None:
        return {}
    whole: Document = {
        "Status": execution.status,
        "CreatedAt": execution.created,
        "UpdatedAt": execution.updated,
        "HasResultSet": _has_result(*execution.request.statements),
        "Duration": sum(one.nanoseconds for one in execution.request.statements),
    }
    if execution.error is not None:
        whole["Error"] = execution.error
    if execution.request.is_batch:
        whole |= {"QueryString": "", "ResultRows": -1, "ResultSize": -1, "RedshiftQueryId": 0}
        whole["SubStatements"] = [
            {"Id": f"{execution.id}:{place}", **_outline(one)}
            for place, one in enumerate(execution.request.statements, start=1)
        ]
    return whole


def _outline(statement: SubStatement) -> Document:
    answer = statement.answer
    table = answer.table if answer is not None else None
    counted = answer is not None and answer.tag != "UNLOAD"
    document: Document = {
        "Status": statement.status,
        "CreatedAt": statement.created,
        "UpdatedAt": statement.updated,
        "Duration": statement.nanoseconds,
        "QueryString": statement.sql,
        "HasResultSet": _has_result(statement),
        "ResultRows": answer.rows if answer is not None and counted else -1,
        "ResultSize": size(table) if table is not None else 0,
        "RedshiftQueryId": statement.query,
    }
    return document if statement.error is None else document | {"Error": statement.error}


def _has_result(*statements: SubStatement) -> bool:
    return any(one.answer is not None and one.answer.table is not None for one in statements)


def listed(execution: Execution) -> Document:
    """One item of ListStatements."""
    request = execution.request
    texts = [one.sql for one in request.statements]
    name = {"StatementName": request.name} if request.name else {}
    return {
        "Id": execution.id,
        "Status": execution.status,
        "CreatedAt": execution.created,
        "UpdatedAt": execution.updated,
        "IsBatchStatement": request.is_batch,
        "QueryString": texts[0],
        **({"QueryStrings": texts} if request.is_batch else {}),
        **name,
    }


def page(table: pa.Table, token: str | None, rows: int) -> Document:
    """One page of a result."""
    start = int(token) if token and token.isdecimal() else 0
    more = {"NextToken": str(start + rows)} if start + rows < table.num_rows else {}
    return {
        "Records": records(table.slice(start, rows)),
        "ColumnMetadata": column_metadata(table.schema),
        "TotalNumRows": table.num_rows,
        **more,
    }
