"""SQL text: identifiers, literals, binding, parsing. The only place that glues any.

Meaning is read from sqlglot's syntax tree, never with regular expressions. Redshift's dialect is the
one that authors write.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import cast

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import ParseError, TokenError

from mlbatch.errors import DeclarationError, UsageError

# It warns about statements that it does not know, which are refused here anyway.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

DIALECT = "redshift"
MAX_BYTES = 100_000
"""The Data API refuses longer statements."""
MAX_QUERY_BYTES = MAX_BYTES - 4_000
"""Of a SELECT that is unloaded: what stands around it names a bucket, roles and a key."""
_CHANGING = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Create,
    exp.Drop,
    exp.Command,
    exp.Copy,
)
_OUTER_LIMITS = ("limit", "offset", "fetch")
_NONDETERMINISTIC = {
    "getdate", "sysdate", "current_date", "current_timestamp", "current_time", "now", "random",
    "rand", "timeofday", "localtime", "localtimestamp", "uuid",
}  # fmt: skip


def quote_identifier(name: str) -> str:
    """``name`` in double quotes, as Redshift, SQLite and DuckDB read it."""
    if "\0" in name or not name:
        raise UsageError(f"{name!r} cannot name a column or table")
    return str(exp.to_identifier(name, quoted=True).sql(DIALECT))


def literal(value: object) -> exp.Expr:  # noqa: PLR0911  one line a type
    """A typed literal for a Python value; UsageError for what has no exact one.

    Datetimes must be aware and become naive timestamps in UTC.
    """
    if value is None:
        return exp.null()
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, (int, Decimal)) or (isinstance(value, float) and math.isfinite(value)):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime):
        return _timestamp(value)
    if isinstance(value, date):
        return exp.cast(exp.Literal.string(value.isoformat()), "DATE")
    if isinstance(value, (list, tuple)) and value:
        return exp.Tuple(expressions=[literal(item) for item in value])
    raise UsageError(f"{value!r} of type {type(value).__name__} cannot be written into SQL")


def _number(value: float | Decimal) -> exp.Expr:
    if isinstance(value, Decimal) and not value.is_finite():
        raise UsageError(f"{value!r} cannot be written into SQL")
    number = exp.Literal.number(abs(value))
    return exp.Neg(this=number) if value < 0 else number


def _text(value: str) -> exp.Expr:
    if "\0" in value:
        raise UsageError("a text with a NUL character cannot be written into SQL")
    return exp.Literal.string(value)


def _timestamp(value: datetime) -> exp.Expr:
    if value.tzinfo is None:
        raise UsageError(f"the instant {value.isoformat()} has no time zone")
    try:
        return naive_timestamp(value.astimezone(UTC).replace(tzinfo=None))
    except OverflowError as error:
        message = f"the instant {value.isoformat()} is beyond the years 1 to 9999 of UTC"
        raise UsageError(message) from error


def naive_timestamp(value: datetime) -> exp.Expr:
    """A timestamp literal without a zone, to the microsecond."""
    text = value.isoformat(sep=" ", timespec="microseconds")
    return exp.cast(exp.Literal.string(text), "TIMESTAMP")


def parse_select(text: str, *, file: Path | str | None = None) -> exp.Query:
    """The one SELECT that ``text`` is; anything else is a DeclarationError with file and line."""
    text = text.removeprefix("\ufeff")
    _check_text(text, file)
    try:
        trees = [tree for tree in sqlglot.parse(text, read=DIALECT) if tree is not None]
        trees = [tree for tree in trees if not isinstance(tree, exp.Semicolon)]
    except (ParseError, TokenError) as error:
        raise _syntax_error(error, file) from error
    except RecursionError as error:
        message = "the query nests too deeply to be read"
        hint = "move an inner part of it into a view"
        raise DeclarationError(message, hint=hint, file=file) from error
    if len(trees) != 1:
        message = f"the file holds {len(trees)} statements, not one SELECT"
        raise DeclarationError(message, hint="write exactly one SELECT", file=file, line=1)
    tree = trees[0]
    changing = next((node for node in tree.walk() if isinstance(node, _CHANGING)), None)
    if changing is not None or not isinstance(tree, exp.Query):
        kind = (changing or tree).key.upper()
        message = f"a feature query is one SELECT, this one has {kind}"
        hint = "mlbatch unloads and writes by itself; only say what to read"
        raise DeclarationError(message, hint=hint, file=file, line=_line(changing or tree))
    _check_outer(tree, file)
    return tree


def _check_text(text: str, file: Path | str | None) -> None:
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DeclarationError("the query holds a NUL character", file=file, line=line)
    size = len(text.encode())
    if size > MAX_BYTES:
        message = f"the query has {size:,} bytes, the Data API takes {MAX_BYTES:,}"
        raise DeclarationError(message, hint="move a part of it into a view", file=file)


def _syntax_error(error: ParseError | TokenError, file: Path | str | None) -> DeclarationError:
    first = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    what = first.get("description") or str(error).splitlines()[0]
    return DeclarationError(
        f"the query cannot be parsed: {what}",
        hint="mend the SQL; it is read in Redshift's dialect",
        file=file,
        line=first.get("line"),
        column=first.get("col"),
    )


def _check_outer(tree: exp.Query, file: Path | str | None) -> None:
    for name in _OUTER_LIMITS:
        node = tree.args.get(name)
        if node is not None:
            message = f"the query ends in an outer {name.upper()}, which UNLOAD refuses"
            hint = "put the limited SELECT into a subquery"
            raise DeclarationError(message, hint=hint, file=file, line=_line(node) or _line(tree))
    if tree.find(exp.Into):
        raise DeclarationError("SELECT INTO writes a table", file=file, line=_line(tree))


def _line(tree: exp.Expr) -> int | None:
    return next((node.meta["line"] for node in tree.walk() if "line" in node.meta), None)


def output_columns(select: exp.Query, *, file: Path | str | None = None) -> tuple[str, ...]:
    """The output's column names in order, as Redshift gives them: unquoted ones in lower case."""
    names: list[str] = []
    for item in select.selects:
        if item.is_star:
            message = "the query ends in *, so that its columns are not known"
            hint = "name every output column; people read them here"
            raise DeclarationError(message, hint=hint, file=file, line=_line(item))
        if not item.alias_or_name:
            message = f"the output column `{item.sql(DIALECT)}` has no name"
            hint = "give it one: ... AS name"
            raise DeclarationError(message, hint=hint, file=file, line=_line(item))
        name = item.alias_or_name.lower()
        if item.alias_or_name != name and _is_quoted(item):
            message = f"the output column {item.alias_or_name!r} has capital letters"
            hint = f"Redshift folds them even in quotes: name it {name!r}"
            raise DeclarationError(message, hint=hint, file=file, line=_line(item))
        if name in names:
            message = f"the output column {name!r} appears twice"
            raise DeclarationError(message, hint="rename one", file=file, line=_line(item))
        names.append(name)
    return tuple(names)


def _is_quoted(item: exp.Expr) -> bool:
    identifier = item.args.get("alias") if isinstance(item, exp.Alias) else item.this
    return isinstance(identifier, exp.Identifier) and bool(identifier.args.get("quoted"))


def placeholders(select: exp.Expr) -> tuple[str, ...]:
    """The ``:name`` placeholders of a query, each once, in order."""
    found = (node.name for node in select.find_all(exp.Placeholder, bfs=False))
    return tuple(dict.fromkeys(found))


def bind(select: exp.Query, values: Mapping[str, object]) -> exp.Query:
    """A copy of ``select`` with every placeholder replaced by a typed literal."""
    wanted = placeholders(select)
    for name in wanted:
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            hint = (
                f"did you mean `:{near[0]}`?" if near else f"given: {', '.join(values) or 'none'}"
            )
            raise UsageError(f"the query's parameter :{name} has no value", hint=hint)
    for name in values:
        if name not in wanted:
            hint = f"it has: {', '.join(wanted) or 'none'}"
            raise UsageError(f"the query has no parameter :{name}", hint=hint)

    def replace(node: exp.Expr) -> exp.Expr:
        return literal(values[node.name]) if isinstance(node, exp.Placeholder) else node

    bound = select.copy().transform(replace)
    return cast("exp.Query", bound)


def verbatim(text: str, values: Mapping[str, exp.Expr], alias: str) -> exp.Subquery:
    """The SELECT that ``text`` is, word for word, as a source; ``values`` stand for placeholders.

    Written anew from its tree it could mean something else: ADD_MONTHS becomes a DATEADD, which
    treats ends of months differently, and ``::text`` a VARCHAR(MAX).
    """
    pieces: list[str] = []
    place, opened = 0, False
    tokens = sqlglot.tokenize(text, read=DIALECT)
    for number, token in enumerate(tokens):
        if token.token_type is TokenType.SEMICOLON and opened:
            text = text[: token.start]
            break
        opened = opened or token.token_type is not TokenType.SEMICOLON
        place = place if opened else token.end + 1
        after = tokens[number + 1 : number + 2]
        if token.token_type is TokenType.COLON and after and after[0].text in values:
            pieces += [text[place : token.start], render(values[after[0].text])]
            place = after[0].end + 1
    own = "".join([*pieces, text[place:]]).strip()
    return exp.Subquery(this=exp.Var(this=f"\n{own}\n"), alias=exp.to_identifier(alias))


def nondeterministic(select: exp.Expr) -> tuple[str, ...]:
    """Calls in the query whose answer differs from run to run, as Redshift spells them."""
    found = []
    for node in select.find_all(exp.Func, exp.Column):
        named = isinstance(node, (exp.Anonymous, exp.Column))
        name = node.name if named else cast("exp.Func", node).sql_name()
        if name.lower() in _NONDETERMINISTIC and not (isinstance(node, exp.Column) and node.table):
            found.append(node.sql(DIALECT))
    return tuple(dict.fromkeys(found))


def render(select: exp.Expr, *, dialect: str = DIALECT) -> str:
    """The text of a tree."""
    return str(select.sql(dialect, comments=False))
