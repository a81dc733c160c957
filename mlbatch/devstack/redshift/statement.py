"""One statement of Redshift's, made ready for DuckDB."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from mlbatch.devstack.redshift import catalog, definition
from mlbatch.devstack.redshift.lexer import Token, split, tokens, words
from mlbatch.devstack.redshift.literals import sql_literal
from mlbatch.devstack.redshift.refusal import Refusal, translated
from mlbatch.dialect import parse, to_duckdb
from mlbatch.errors import UsageError

_QUERIES = frozenset(["SELECT", "WITH", "VALUES", "TABLE", "("])
_BEGINS = frozenset(["BEGIN", "START"])
_COMMITS = frozenset(["COMMIT", "END"])
_ROLLBACKS = frozenset(["ROLLBACK", "ABORT"])
IGNORED = frozenset(["ANALYZE", "GRANT", "REVOKE", "VACUUM", "LOCK", "REINDEX", "DEALLOCATE"])

SystemCall = Callable[[str, Sequence[object]], object]
"""Name and literal arguments of a system function in, its value out."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement's text and its first word, which says who runs it."""

    sql: str
    verb: str

    @property
    def is_query(self) -> bool:
        """Whether rows come back and nothing else happens."""
        return self.verb in _QUERIES

    @property
    def words(self) -> list[Token]:
        """The statement's tokens."""
        return words(self.sql)


def one_statement(sql: str) -> Statement:
    """The single statement of ``sql``; an empty verb for none."""
    found = split(sql)
    if len(found) > 1:
        raise Refusal("42601", "cannot insert multiple commands into a prepared statement")
    if not found:
        return Statement("", "")
    first = words(found[0])[0]
    return Statement(found[0][first.start :].rstrip(), _verb(first.value))


def _verb(first: str) -> str:
    for verb, group in (("BEGIN", _BEGINS), ("COMMIT", _COMMITS), ("ROLLBACK", _ROLLBACKS)):
        if first in group:
            return verb
    return first


def bind_positions(sql: str, parameters: Sequence[object]) -> str:
    """``sql`` with $1, $2, ... replaced by literals."""
    return _bind(sql, {f"${n}": value for n, value in enumerate(parameters, start=1)}, "$")


def bind_names(sql: str, parameters: Mapping[str, object]) -> str:
    """``sql`` with :name replaced by literals."""
    return _bind(sql, {f":{name}": value for name, value in parameters.items()}, ":")


def _bind(sql: str, values: Mapping[str, object], sign: str) -> str:
    pieces = []
    for token in tokens(sql):
        if token.kind != "parameter" or not token.raw.startswith(sign):
            pieces.append(token.raw)
        elif token.raw not in values:
            raise Refusal("42P02", f"there is no parameter {token.raw}")
        else:
            pieces.append(sql_literal(values[token.raw]))
    return "".join(pieces)


def for_duckdb(sql: str, system: SystemCall) -> tuple[str, ...]:
    """DuckDB's statements for a query, a definition or a change of rows."""
    meaning = words(sql)
    if not meaning:
        raise Refusal("42601", "syntax error at end of input")
    is_definition = meaning[0].value == "CREATE"
    text = definition.without_column_keys(sql) if is_definition else sql
    try:
        tree = parse(text)
    except Exception as error:
        raise _syntax_error(error, sql) from error
    if isinstance(tree, (exp.Command, exp.Column, exp.Alias)):
        raise Refusal("42601", f'syntax error at or near "{meaning[0].raw}"')
    _name_columns(tree)
    known = tree.transform(lambda node: _system(node, system))
    try:
        return tuple(to_duckdb(part) for part in definition.rewritten(known, system))
    except UsageError as error:
        raise translated(error) from error


def _syntax_error(error: Exception, sql: str) -> Refusal:
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
    near = words(sql)[0].raw
    return Refusal("42601", f'syntax error in or near "{near}": {lines[0] if lines else ""}')


def _name_columns(tree: exp.Expr) -> None:
    """Columns without a name get the one that Redshift gives them."""
    query = tree.expression if isinstance(tree, exp.Create) else tree
    while isinstance(query, (exp.SetOperation, exp.Subquery)):
        query = query.this
    if not isinstance(query, exp.Select):
        return
    named = [_named(item) for item in query.expressions]
    query.set("expressions", named)


def _named(item: exp.Expr) -> exp.Expr:
    is_named = item.output_name and not isinstance(item, exp.Literal)
    if is_named or item.is_star or isinstance(item, exp.Aliases):
        return item
    inner = item.this if isinstance(item, exp.Window) else item
    if isinstance(inner, exp.Anonymous):
        return exp.alias_(item, inner.name.lower(), quoted=True)
    if isinstance(inner, exp.Func):
        known = isinstance(inner, (exp.Case, exp.Cast))
        return exp.alias_(item, inner.key if known else inner.sql_name().lower(), quoted=True)
    return exp.alias_(item, "?column?", quoted=True)


_NILADIC: dict[type[exp.Expr], str] = {
    exp.CurrentUser: "current_user",
    exp.SessionUser: "current_user",
    exp.CurrentVersion: "version",
    exp.CurrentDatabase: "current_database",
    exp.CurrentSchema: "current_schema",
    exp.CurrentUserId: "current_user_id",
}
SYSTEM_FUNCTIONS = frozenset([
    "pg_last_copy_count", "pg_last_unload_count", "pg_last_query_id", "pg_last_copy_id",
    "pg_last_unload_id", "pg_backend_pid", "pg_cancel_backend", "pg_terminate_backend", "version",
    "current_setting", "current_database", "current_schema",
])  # fmt: skip


def _system(node: exp.Expr, system: SystemCall) -> exp.Expr:
    if isinstance(node, exp.Table):
        return _catalog_table(node)
    if isinstance(node, exp.Anonymous):
        return _system_function(node, system)
    name = _NILADIC.get(type(node))
    if name is None and isinstance(node, exp.Column) and not node.table:
        name = "current_user" if node.name.upper() == "USER" else None
    return _value(system(name, ())) if name else node


def _system_function(node: exp.Anonymous, system: SystemCall) -> exp.Expr:
    name = node.name.lower()
    if name not in SYSTEM_FUNCTIONS:
        return node
    arguments = [item.to_py() for item in node.expressions if isinstance(item, exp.Literal)]
    return _value(system(name, arguments))


def _value(value: object) -> exp.Expr:
    if isinstance(value, int):
        return exp.cast(exp.Literal.number(value), "BIGINT")
    return exp.cast(exp.Literal.string(str(value)), "TEXT")


def _catalog_table(node: exp.Table) -> exp.Expr:
    name, schema = node.name.lower(), node.db.lower()
    if name not in catalog.NAMES or schema not in ("", "pg_catalog", "information_schema"):
        return node
    if (schema == "information_schema") == (name in catalog.SHADOWED):
        node.set("db", exp.to_identifier(catalog.SCHEMA))
    return node
