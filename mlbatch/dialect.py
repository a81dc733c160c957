"""Redshift's dialect on DuckDB: what sqlglot translates, and the rules for what it gets wrong.

"Runs" is not "same answer". Each rule below stands for an idiom whose plain translation gives another
value than Redshift documents; tests hold the documented value. What has no exact twin is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from mlbatch.errors import UsageError

Rule = Callable[[exp.Expr], exp.Expr]

CONNECTION_SETTINGS = (
    "SET integer_division = true",  # 7 / 2 is 3
    "SET TimeZone = 'UTC'",
    # The argument's type decides the result's, so these are overloads and not rewrites.
    """CREATE OR REPLACE TEMP MACRO mlbatch_trunc
         (x TIMESTAMP) AS CAST(x AS DATE), (x DOUBLE) AS trunc(x),
         (x DOUBLE, digits INTEGER) AS trunc(x, digits)""",
    """CREATE OR REPLACE TEMP MACRO mlbatch_avg
         (x BIGINT) AS CAST(trunc(sum(x) / count(x)) AS BIGINT), (x DOUBLE) AS avg(x)""",
    """CREATE OR REPLACE TEMP MACRO mlbatch_sum
         (x BIGINT) AS CAST(sum(x) AS BIGINT), (x DECIMAL(38, 6)) AS sum(x), (x DOUBLE) AS sum(x)""",
)

_REFUSED = {
    "FNV_HASH": "its hash has no twin in DuckDB",
    "FROMBASE": "STRTOL: DuckDB reads no numbers of another base",
    "STRTOL": "DuckDB reads no numbers of another base",
    "CRC32": "DuckDB has no CRC-32",
    "FARMHASH64": "its hash differs between versions",
    "CHECKSUM": "its value is not documented",
}


def to_duckdb(redshift: str | exp.Expr) -> str:
    """DuckDB's SQL for one Redshift statement; UsageError names what has no exact twin."""
    tree = sqlglot.parse_one(redshift, read="redshift") if isinstance(redshift, str) else redshift
    folded = normalize_identifiers(tree.copy(), dialect="redshift")
    return str(folded.transform(_rewrite).sql("duckdb", comments=False))


def _rewrite(node: exp.Expr) -> exp.Expr:
    name = _function_name(node)
    if name in _REFUSED:
        message = f"the embedded warehouse cannot run {name}: {_REFUSED[name]}"
        raise UsageError(message, hint="compute it in the job's model, or run on Redshift")
    rule = _RULES.get(name)
    return rule(node) if rule else node


def _function_name(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return node.name.upper()
    if isinstance(node, exp.Column):
        return _bare(node)
    return type(node).__name__.upper()


def _bare(column: exp.Column) -> str:
    is_sysdate = column.name.upper() == "SYSDATE" and not column.table
    return "SYSDATE" if is_sysdate else ""


def _arguments(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    return [node.this, *node.expressions] if node.this is not None else list(node.expressions)


def _call(name: str, *arguments: exp.Expr | str) -> exp.Expr:
    return exp.func(name, *arguments, dialect="duckdb")


def _anonymous(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _now(_: exp.Expr) -> exp.Expr:
    return exp.cast(_anonymous("now"), "TIMESTAMP")


def _replace_all(node: exp.Expr) -> exp.Expr:
    replacement = node.args.get("replacement") or exp.Literal.string("")
    return _anonymous(
        "regexp_replace", node.this, node.expression, replacement, exp.Literal.string("g")
    )


def _concat(node: exp.Expr) -> exp.Expr:
    """CONCAT of a NULL is NULL, as with ||; DuckDB's ignores it."""
    first, *rest = node.expressions
    joined: exp.Expr = exp.cast(first, "TEXT")
    for item in rest:
        joined = exp.DPipe(this=joined, expression=exp.cast(item, "TEXT"))
    return exp.paren(joined)


def _octet_length(node: exp.Expr) -> exp.Expr:
    return _anonymous("strlen", exp.cast(_arguments(node)[0], "TEXT"))


def _coalesce(node: exp.Expr) -> exp.Expr:
    first, *rest = _arguments(node)
    return exp.Coalesce(this=first, expressions=rest)


def _to(name: str) -> Rule:
    """Another function of the same arguments, such as one of the macros above."""

    def rule(node: exp.Expr) -> exp.Expr:
        return _anonymous(name, *_arguments(node))

    return rule


def _sum(node: exp.Expr) -> exp.Expr:
    # A macro takes no DISTINCT; that sum keeps DuckDB's wider type.
    return node if isinstance(node.this, exp.Distinct) else _anonymous("mlbatch_sum", node.this)


def _share(node: exp.Expr) -> exp.Expr:
    """RATIO_TO_REPORT(x) OVER w is x / SUM(x) OVER w."""
    if not isinstance(node.this, exp.Anonymous) or node.this.name.upper() != "RATIO_TO_REPORT":
        return node
    value = node.this.expressions[0]
    window = node.copy()
    window.set("this", exp.Sum(this=value.copy()))
    return exp.Div(
        this=exp.cast(value.copy(), "DOUBLE"), expression=window, typed=False, safe=False
    )


def _similar(node: exp.Expr) -> exp.Expr:
    """SIMILAR TO has % and _ for its wildcards; DuckDB reads a plain regular expression."""
    pattern = node.expression
    if not isinstance(pattern, exp.Literal):
        raise UsageError("SIMILAR TO needs a literal pattern on the embedded warehouse")
    regex = pattern.this.replace(".", "[.]").replace("%", ".*").replace("_", ".")
    return _anonymous("regexp_full_match", node.this, exp.Literal.string(regex))


def _super(node: exp.Expr) -> exp.Expr:
    """A SUPER value is JSON here."""
    if isinstance(node, exp.Cast) and node.to.sql("redshift").upper() == "SUPER":
        return _anonymous("to_json", node.this)
    return node


def _listagg(node: exp.Expr) -> exp.Expr:
    """LISTAGG(DISTINCT x, s): sqlglot makes a tuple of the two arguments."""
    distinct = node.this
    if not isinstance(distinct, exp.Distinct) or len(distinct.expressions) != 2:  # noqa: PLR2004
        return node
    value, separator = distinct.expressions
    return exp.GroupConcat(this=exp.Distinct(expressions=[value]), separator=separator)


_RULES: dict[str, Rule] = {
    "CURRENTTIMESTAMP": _now,
    "GETDATE": _now,
    "SYSDATE": _now,
    "REGEXPREPLACE": _replace_all,
    "CONCAT": _concat,
    "OCTET_LENGTH": _octet_length,
    "BYTELENGTH": _octet_length,
    "ISNULL": _coalesce,
    "TEXTLEN": _to("length"),
    "AVG": _to("mlbatch_avg"),
    "SUM": _sum,
    "TRUNC": _to("mlbatch_trunc"),
    "DATE_PART_YEAR": _to("year"),
    "WINDOW": _share,
    "SIMILARTO": _similar,
    "CAST": _super,
    "GROUPCONCAT": _listagg,
}
