"""Redshift's definitions of tables as DuckDB can keep them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from itertools import pairwise

import sqlglot
from sqlglot import exp

from mlbatch.devstack.redshift.lexer import tokens, words

Lookup = Callable[[str, Sequence[object]], object]

MAX_LENGTH = 65_535
_CHARACTERS = (exp.DataType.Type.VARCHAR, exp.DataType.Type.NVARCHAR, exp.DataType.Type.CHAR,
               exp.DataType.Type.NCHAR, exp.DataType.Type.BPCHAR)  # fmt: skip
# Redshift believes keys without checking them, so DuckDB must not check them either.
_DROPPED = (
    exp.EncodeColumnConstraint, exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint,
    exp.GeneratedAsIdentityColumnConstraint, exp.Reference, exp.CollateColumnConstraint,
)  # fmt: skip
_KEYS = (exp.PrimaryKey, exp.UniqueColumnConstraint, exp.ForeignKey, exp.Constraint)


def without_column_keys(sql: str) -> str:
    """``sql`` without the DISTKEY and SORTKEY of single columns, which sqlglot does not read."""
    pieces = []
    meaning = words(sql)
    after = {token.start: following.raw for token, following in pairwise(meaning)}
    for token in tokens(sql):
        is_key = token.value in ("DISTKEY", "SORTKEY") and token.kind == "word"
        if not is_key or after.get(token.start) == "(":
            pieces.append(token.raw)
    return "".join(pieces)


def rewritten(tree: exp.Expr, lookup: Lookup) -> list[exp.Expr]:
    """The statements that DuckDB needs for ``tree``, in order."""
    if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema):
        return _like(tree, lookup) if tree.find(exp.LikeProperty) else _table(tree)
    if isinstance(tree, exp.Alter):
        for column in tree.find_all(exp.ColumnDef):
            _plain(column)
    if isinstance(tree, exp.Create):
        tree.set("properties", _kept(tree))
    if isinstance(tree, exp.Drop):
        return _drops(tree)
    return [tree]


def _like(tree: exp.Create, lookup: Lookup) -> list[exp.Expr]:
    """CREATE TABLE a (LIKE b): b's columns, their lengths and NOT NULL."""
    source = tree.find(exp.LikeProperty)
    table = source.this if source else tree.this
    text = str(lookup("create_table", (table.db.lower(), table.name.lower())))
    copied = sqlglot.parse_one(text, read="duckdb")
    copied.this.set("this", tree.this.this)
    copied.set("properties", _kept(tree))
    copied.set("exists", tree.args.get("exists"))
    return [copied]


def _drops(tree: exp.Drop) -> list[exp.Expr]:
    each: list[exp.Expr] = []
    for name in tree.args.get("tables", ()):
        one = tree.copy()
        one.set("tables", [name.copy()])
        each.append(one)
    return each or [tree]


def _kept(tree: exp.Create) -> exp.Properties | None:
    properties = tree.args.get("properties")
    found = properties.expressions if properties else []
    kept = [item for item in found if isinstance(item, exp.TemporaryProperty)]
    return exp.Properties(expressions=kept) if kept else None


def _table(tree: exp.Create) -> list[exp.Expr]:
    tree.set("properties", _kept(tree))
    before: list[exp.Expr] = []
    items: list[exp.Expr] = []
    for item in tree.this.expressions:
        if isinstance(item, exp.ColumnDef):
            before += _identity(item)
            items += [item, *_plain(item)]
        elif not isinstance(item, _KEYS):
            items.append(item)
    tree.this.set("expressions", items)
    return [*before, tree]


def _identity(column: exp.ColumnDef) -> list[exp.Expr]:
    """A sequence for an IDENTITY column, and its next value as the default."""
    found = column.find(exp.GeneratedAsIdentityColumnConstraint)
    if found is None:
        return []
    name = f"public.identity_{secrets.token_hex(6)}"
    start, step = found.args.get("start") or "1", found.args.get("increment") or "1"
    made: exp.Expr = exp.maybe_parse(
        f"CREATE SEQUENCE {name} START WITH {start} INCREMENT BY {step}", dialect="duckdb"
    )
    default = exp.func("nextval", exp.Literal.string(name), dialect="duckdb")
    kind = exp.DefaultColumnConstraint(this=default)
    column.set("constraints", [*column.constraints, exp.ColumnConstraint(kind=kind)])
    return [made]


def _plain(column: exp.ColumnDef) -> list[exp.Expr]:
    """Drop what only Redshift knows; the column's length as a check."""
    kept = [c for c in column.constraints if not isinstance(c.kind, _DROPPED)]
    column.set("constraints", kept)
    kind = column.args.get("kind")
    if not isinstance(kind, exp.DataType):
        return []
    if kind.this == exp.DataType.Type.SUPER:
        column.set("kind", exp.DataType.build("json"))
        return []
    length = _length(kind)
    kind.set("expressions", kind.expressions if kind.is_type("decimal") else [])
    return [_check(column, length)] if length else []


def _length(kind: exp.DataType) -> int | None:
    if kind.this == exp.DataType.Type.TEXT:
        return 256
    if kind.this not in _CHARACTERS:
        return None
    if not kind.expressions:
        return 1 if "CHAR" in kind.this.value and kind.this.value != "VARCHAR" else 256
    given = kind.expressions[0].name
    return int(given) if given.isdigit() else MAX_LENGTH


def _check(column: exp.ColumnDef, length: int) -> exp.Expr:
    bytes_of = exp.Anonymous(this="strlen", expressions=[exp.column(column.this.copy())])
    test = exp.LTE(this=bytes_of, expression=exp.Literal.number(length))
    return exp.CheckColumnConstraint(this=test)
