"""The command tags by which Redshift tells what a statement has changed."""

from __future__ import annotations

from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.statement import Statement

_ROWS = {"INSERT": "INSERT 0 {}", "UPDATE": "UPDATE {}", "DELETE": "DELETE {}"}
_FIXED = {
    "TRUNCATE": "TRUNCATE TABLE and COMMIT TRANSACTION",
    "MERGE": "MERGE",
    "COMMENT": "COMMENT",
}
_CHANGES = frozenset([*_ROWS, *_FIXED, "CREATE", "DROP", "ALTER"])
_KINDS = ("TABLE", "VIEW", "SCHEMA", "FUNCTION", "PROCEDURE")


def is_change(statement: Statement) -> bool:
    """Whether a statement changes rows or definitions."""
    return statement.verb in _CHANGES


def changed(statement: Statement, count: int) -> Answer:
    """The answer to a change of ``count`` rows, or to one of a definition."""
    if statement.verb in _ROWS:
        return Answer(_ROWS[statement.verb].format(count), rows=count)
    return Answer(_FIXED.get(statement.verb) or _defining_tag(statement))


def _defining_tag(statement: Statement) -> str:
    kind = next((word.value for word in statement.words[:6] if word.value in _KINDS), "")
    if any(word.value == "SELECT" for word in statement.words) and kind == "TABLE":
        return "SELECT"
    return f"{statement.verb} {kind}".strip()
