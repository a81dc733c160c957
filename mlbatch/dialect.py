"""Redshift's dialect on DuckDB: what sqlglot translates, and the rules for what it gets wrong.

"Runs" is not "same answer". Each rule below stands for an idiom whose plain translation gives another
value than Redshift documents; tests hold the documented value. What has no exact twin is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.redshift import Redshift
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.parsers.redshift import RedshiftParser

from mlbatch.errors import UsageError

Rule = Callable[[exp.Expr], exp.Expr]

CONNECTION_SETTINGS = (
    "SET integer_division = true",  # 7 / 2 is 3
    "SET TimeZone = 'UTC'",
    # The argument's type decides the result's, so these are overloads and not rewrites.
    """CREATE OR REPLACE TEMP MACRO mlbatch_trunc
         (x TIMESTAMP) AS CAST(x AS DATE), (x DOUBLE) AS trunc(x)""",
    """CREATE OR REPLACE TEMP MACRO mlbatch_avg
         (x BIGINT) AS CAST(trunc(sum(x) / count(x)) AS BIGINT), (x DOUBLE) AS avg(x)""",
    # A macro over a window holds one aggregate, whose means beyond 2^53 are rounded.
    """CREATE OR REPLACE TEMP MACRO mlbatch_avg_over
         (x BIGINT) AS CAST(trunc(avg(x)) AS BIGINT), (x DOUBLE) AS avg(x)""",
    """CREATE OR REPLACE TEMP MACRO mlbatch_sum
         (x BIGINT) AS CAST(sum(x) AS BIGINT), (x) AS sum(x)""",
    # A character of UTF-8 has up to four bytes.
    """CREATE OR REPLACE TEMP MACRO mlbatch_cut(x, n) AS
         CASE WHEN strlen(x) <= n THEN x ELSE coalesce(
           try(decode(encode(x)[:n])), try(decode(encode(x)[:n - 1])),
           try(decode(encode(x)[:n - 2])), try(decode(encode(x)[:n - 3]))) END""",
    # The last day of a month becomes the last day of another.
    """CREATE OR REPLACE TEMP MACRO mlbatch_add_months(t, n) AS
         CASE WHEN CAST(t AS DATE) = last_day(t)
           THEN last_day(t + to_months(n)) + (t - date_trunc('day', t))
           ELSE t + to_months(n) END""",
)

_REFUSED = {
    "FNV_HASH": "its hash has no twin in DuckDB",
    "FROMBASE": "STRTOL: DuckDB reads no numbers of another base",
    "STRTOL": "DuckDB reads no numbers of another base",
    "CRC32": "DuckDB has no CRC-32",
    "FARMHASH64": "its hash differs between versions",
    "CHECKSUM": "its value is not documented",
}


class _Parser(RedshiftParser):
    """sqlglot makes one thing of ADD_MONTHS and DATEADD, which differ at a month's end."""

    FUNCTIONS: ClassVar = {
        name: made for name, made in RedshiftParser.FUNCTIONS.items() if name != "ADD_MONTHS"
    }


class _Redshift(Redshift):
    Parser = _Parser


def parse(redshift: str) -> exp.Expr:
    """The syntax tree of one Redshift statement, as `to_duckdb` needs it."""
    return sqlglot.parse_one(redshift, read=_Redshift)


def to_duckdb(redshift: str | exp.Expr) -> str:
    """DuckDB's SQL for one Redshift statement; UsageError names what has no exact twin."""
    tree = parse(redshift) if isinstance(redshift, str) else redshift
    folded = normalize_identifiers(tree.copy(), dialect="redshift")
    return str(_rewritten(folded).sql("duckdb", comments=False))


def _rewritten(tree: exp.Expr) -> exp.Expr:
    # From the leaves up: a rule's answer holds its arguments, and is not looked into again.
    for node in reversed(list(tree.dfs())):
        parent, key, index = node.parent, node.arg_key, node.index
        made = _rewrite(node)
        if made is node:
            continue
        if parent is None or key is None:
            return made
        parent.set(key, made, index)
    return tree


def _rewrite(node: exp.Expr) -> exp.Expr:
    name = _function_name(node)
    if name in _REFUSED:
        raise _no_twin(name, _REFUSED[name])
    rule = _RULES.get(name)
    return rule(node) if rule else node


def _no_twin(what: str, why: str) -> UsageError:
    message = f"the embedded warehouse cannot run {what}: {why}"
    return UsageError(message, hint="compute it in the job's model, or run on Redshift")


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


def _trunc(node: exp.Expr) -> exp.Expr:
    digits = node.args.get("decimals")
    if digits is None:
        return _anonymous("mlbatch_trunc", node.this)
    if not isinstance(digits.this if isinstance(digits, exp.Neg) else digits, exp.Literal):
        raise _no_twin(node.sql("redshift"), "its number of digits must be a literal here")
    return _anonymous("trunc", node.this, digits)


def _avg(node: exp.Expr) -> exp.Expr:
    if isinstance(node.this, exp.Distinct):
        raise _no_twin("AVG(DISTINCT ...)", "DuckDB's gives no integer for integers")
    over = _is_over(node)
    return _anonymous("mlbatch_avg_over" if over else "mlbatch_avg", node.this)


def _is_over(node: exp.Expr) -> bool:
    return isinstance(node.parent, exp.Window) and node.arg_key == "this"


def _filter(node: exp.Expr) -> exp.Expr:
    if isinstance(node.this, exp.Anonymous):
        name = node.this.name.upper().removeprefix("MLBATCH_")
        raise _no_twin(f"{name} with FILTER", "write a CASE in it")
    return node


def _add_months(node: exp.Expr) -> exp.Expr:
    moment, months = _arguments(node)
    return _anonymous("mlbatch_add_months", exp.cast(moment, "TIMESTAMP"), months)


def _like(node: exp.Expr) -> exp.Expr:
    """Redshift's wildcards are escaped by a backslash unless another sign is named."""
    pattern = node.expression
    is_plain = isinstance(pattern, exp.Literal) and "\\" not in pattern.this
    if is_plain or isinstance(node.parent, exp.Escape):
        return node
    return exp.Escape(this=node, expression=exp.Literal.string("\\"))


_PRINTED = re.compile(r'%-?[YymdHIMSfj]|"[^"]*"|T(?=%)|[^%"A-Za-z]')
"""What DuckDB prints as Redshift does, in sqlglot's translation of the format."""


def _to_char(node: exp.Expr) -> exp.Expr:
    known = "a literal format of YYYY, YY, MM, DD, DDD, HH24, HH12, MI, SS and US is what runs here"
    form = node.args["format"]
    text = form.this if isinstance(form, exp.Literal) else ""
    if "%" not in text or _PRINTED.sub("", text):
        raise _no_twin(node.sql("redshift"), known)
    node.set("format", exp.Literal.string(text.replace('"', "")))
    return node


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
    if "\\" in pattern.this:
        raise _no_twin("SIMILAR TO with a backslash", "it is read as a plain regular expression")
    regex = pattern.this.replace(".", "[.]").replace("%", ".*").replace("_", ".")
    return _anonymous("regexp_full_match", node.this, exp.Literal.string(regex))


def _cast(node: exp.Expr) -> exp.Expr:
    """A SUPER value is JSON here; a text is cut to its type's bytes."""
    kind = node.args["to"]
    if kind.sql("redshift").upper() == "SUPER":
        return _anonymous("to_json", node.this)
    if kind.this not in exp.DataType.TEXT_TYPES or not kind.expressions:
        return node
    size, plain = kind.expressions[0].this, node.copy()
    plain.set("to", exp.DataType.build("TEXT"))
    return _anonymous("mlbatch_cut", plain, size) if isinstance(size, exp.Literal) else plain


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
    "AVG": _avg,
    "FILTER": _filter,
    "ADD_MONTHS": _add_months,
    "LIKE": _like,
    "ILIKE": _like,
    "TIMETOSTR": _to_char,
    "SUM": _sum,
    "TRUNC": _trunc,
    "DATE_PART_YEAR": _to("year"),
    "WINDOW": _share,
    "SIMILARTO": _similar,
    "CAST": _cast,
    "TRYCAST": _cast,
    "GROUPCONCAT": _listagg,
}
