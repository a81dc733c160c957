"""The SELECT that an author wrote: checked, wrapped with its window, fingerprinted.

It is never edited. Windows, projections and joins go around it, as around a table called ``q``.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, cast
from zoneinfo import ZoneInfo

from sqlglot import exp

from mlbatch.errors import DeclarationError
from mlbatch.sql import (
    bind,
    literal,
    naive_timestamp,
    nondeterministic,
    output_columns,
    parse_select,
    placeholders,
    render,
)
from mlbatch.window import Window

NullCursor = Literal["always", "never"]
_BEGINNING = datetime(1, 1, 1)  # noqa: DTZ001  a literal of the cursor's own zone
_END = datetime(9999, 12, 31)  # noqa: DTZ001


@dataclass(frozen=True, slots=True)
class FeatureQuery:
    """One checked SELECT in Redshift's dialect."""

    text: str
    file: str | None
    columns: tuple[str, ...]
    """Output names, in order."""
    tree: exp.Query = field(repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> FeatureQuery:
        """Read a ``.sql`` file; DeclarationError names file and line of what is wrong."""
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DeclarationError(f"the file is not UTF-8: {error}", file=path) from error
        return cls.parse(text, file=path)

    @classmethod
    def parse(cls, text: str, file: Path | str | None = None) -> FeatureQuery:
        """Check the text of a SELECT."""
        tree = parse_select(text, file=file)
        name = None if file is None else str(file)
        return cls(text, name, output_columns(tree, file=file), tree)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the syntax tree: layout and comments do not matter, literals do."""
        return hashlib.sha256(render(self.tree).encode()).hexdigest()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is allowed but worth knowing."""
        return tuple(
            f"{call} gives another answer in every run; a resumed run keeps its snapshot"
            for call in nondeterministic(self.tree)
        )

    def require(self, names: Iterable[str], *, because: str) -> None:
        """Refuse a query that lacks one of ``names``; ``because`` says who needs it."""
        for name in names:
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1)
                hint = f"did you mean `{near[0]}`? " if near else ""
                have = ", ".join(self.columns)
                message = f"the query gives no column {name!r}, but {because}"
                raise DeclarationError(
                    message, hint=f"{hint}It gives: {have}", file=self.file, line=1
                )

    def windowed(
        self,
        window: Window,
        *,
        cursor: str | None,
        zone: str = "UTC",
        columns: Sequence[str] | None = None,
        null_cursor: NullCursor = "always",
        newest_of: tuple[str, ...] | None = None,
    ) -> str:
        """The SELECT of the rows of ``window``, as Redshift SQL.

        ``columns`` projects; ``null_cursor`` says whether rows without a cursor value belong to a
        bounded window; ``newest_of`` keeps the newest row of each key.
        """
        source = self._source(window, zone)
        chosen = exp.select(*[_column(name) for name in columns or self.columns]).from_(source)
        condition = _within(window, cursor, zone, null_cursor)
        if condition is not None:
            chosen = chosen.where(condition)
        if newest_of:
            chosen = _newest(chosen, newest_of, cursor)
        return render(chosen)

    def of_keys(
        self,
        keys: Sequence[tuple[object, ...]],
        *,
        key: tuple[str, ...],
        columns: Sequence[str],
        gone: Sequence[tuple[object, ...]] = (),
        marks: Mapping[str, datetime] | None = None,
        zone: str = "UTC",
        newest_by: str | None = None,
    ) -> str:
        """The SELECT of the rows with these ``keys``, and a tombstone for each of ``gone``.

        A key of ``gone`` that has a row after all gives that row: since it was missed, it may have
        come back and been predicted. ``marks`` gives the cursor and tombstone columns of tombstones
        their instant, which is written in ``zone``.
        """
        source = self._source(Window())
        everyone = exp.select(*[_column(name) for name in columns]).from_(source)
        chosen = everyone.where(_one_of((*keys, *gone), key))
        if newest_by is not None:
            chosen = _newest(chosen, key, newest_by)
        if not gone:
            return render(chosen)
        known = {name: _in_zone(at, zone) for name, at in (marks or {}).items()}
        # The branch without rows comes first, and gives the columns their types.
        branches = [everyone.where(exp.false())]
        branches += [_tombstone(values, key, columns, known) for values in gone]
        told = "\nUNION ALL\n".join(render(branch) for branch in branches)
        same = [exp.EQ(this=_column(k), expression=exp.column(_quoted(k), "g")) for k in key]
        there = exp.select("1").from_(source).where(exp.and_(*same))
        absent = render(exp.not_(exp.Exists(this=there)))
        return f"{render(chosen)}\nUNION ALL\nSELECT g.* FROM (\n{told}\n) AS g WHERE {absent}"

    def probe(
        self,
        window: Window,
        *,
        key: tuple[str, ...],
        cursor: str | None,
        zone: str = "UTC",
        null_cursor: NullCursor = "always",
        newer_than: datetime | None = None,
    ) -> str:
        """One row of counts: ``rows``, ``keyed_rows``, ``distinct_keys``, ``newer``."""
        grouped = exp.select(*[_column(name) for name in key]).from_(self._source(window, zone))
        grouped = grouped.select(exp.alias_(exp.Count(this=exp.Star()), "n"))
        grouped = grouped.select(exp.alias_(_count_newer(cursor, newer_than, zone), "newer"))
        condition = _within(window, cursor, zone, null_cursor)
        if condition is not None:
            grouped = grouped.where(condition)
        grouped = grouped.group_by(*[_column(name) for name in key])
        keyed = exp.and_(*[exp.column(_quoted(name), "g").is_(exp.null()).not_() for name in key])
        counts = {
            "rows": _sum(exp.column("n", "g")),
            "keyed_rows": _sum(_when(keyed, exp.column("n", "g"))),
            "distinct_keys": _sum(_when(keyed, exp.Literal.number(1))),
            "newer": _sum(exp.column("newer", "g")),
        }
        items = [exp.alias_(value, name, quoted=True) for name, value in counts.items()]
        return render(exp.select(*items).from_(grouped.subquery("g")))

    def empty(self) -> str:
        """The SELECT of no row, to learn the types of the columns."""
        source = self._source(Window())
        columns = [_column(name) for name in self.columns]
        return render(exp.select(*columns).from_(source).where(exp.false()))

    def _source(self, window: Window, zone: str = "UTC") -> exp.Subquery:
        tree = self.tree
        bounds = {"since": window.since, "until": window.until}
        edges = {"since": _BEGINNING, "until": _END}
        own = {name: bounds[name] for name in placeholders(tree) if name in bounds}

        def at_edge(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Placeholder) and node.name in own:
                value = own[node.name]
                return naive_timestamp(_in_zone(value, zone) if value else edges[node.name])
            return node

        bound = tree.copy().transform(at_edge)
        return bind(cast("exp.Query", bound), {}).subquery("q")


def _quoted(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def _column(name: str) -> exp.Column:
    return exp.column(_quoted(name), "q")


def _in_zone(instant: datetime, zone: str) -> datetime:
    try:
        return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    except OverflowError:
        # Within a day of either end of the calendar: no real row is on the other side.
        return instant.replace(tzinfo=None)


def _within(
    window: Window, cursor: str | None, zone: str, null_cursor: NullCursor
) -> exp.Expr | None:
    if cursor is None or window.is_everything:
        return None
    conditions: list[exp.Expr] = []
    if window.since is not None:
        low = naive_timestamp(_in_zone(window.since, zone))
        conditions.append(exp.GTE(this=_column(cursor), expression=low))
    if window.until is not None:
        high = naive_timestamp(_in_zone(window.until, zone))
        conditions.append(exp.LT(this=_column(cursor), expression=high))
    inside: exp.Expr = exp.and_(*conditions)
    if null_cursor == "never":
        return inside
    return exp.or_(inside, _column(cursor).is_(exp.null()))


def _literal(value: object) -> exp.Expr:
    """A key's value; an instant has no zone there, in the source as in the table."""
    return naive_timestamp(value) if isinstance(value, datetime) else literal(value)


def _one_of(keys: Sequence[tuple[object, ...]], key: tuple[str, ...]) -> exp.Expr:
    if not keys:
        return exp.false()
    if len(key) == 1:
        return _column(key[0]).isin(*[_literal(values[0]) for values in keys])
    return exp.or_(
        *[
            exp.and_(
                *[
                    exp.EQ(this=_column(name), expression=_literal(value))
                    for name, value in zip(key, values, strict=True)
                ]
            )
            for values in keys
        ]
    )


def _tombstone(
    values: tuple[object, ...],
    key: tuple[str, ...],
    columns: Sequence[str],
    marks: Mapping[str, datetime],
) -> exp.Select:
    known: dict[str, exp.Expr] = {
        name: _literal(value) for name, value in zip(key, values, strict=True)
    }
    known |= {name: naive_timestamp(at) for name, at in marks.items() if name in columns}
    items = [exp.alias_(known.get(name, exp.null()), name, quoted=True) for name in columns]
    return exp.select(*items)


def _newest(chosen: exp.Select, key: tuple[str, ...], cursor: str | None) -> exp.Select:
    """Keep rows without a key, and of each key the row with the highest cursor."""
    order = None
    if cursor is not None:
        newest_first = exp.Ordered(this=_column(cursor), desc=True, nulls_first=False)
        order = exp.Order(expressions=[newest_first])
    rank = exp.Window(
        this=exp.RowNumber(), partition_by=[_column(name) for name in key], order=order
    )
    first = exp.EQ(this=rank, expression=exp.Literal.number(1))
    keyless = [_column(name).is_(exp.null()) for name in key]
    return chosen.qualify(exp.or_(first, *keyless))


def _count_newer(cursor: str | None, newer_than: datetime | None, zone: str) -> exp.Expr:
    if cursor is None or newer_than is None:
        return exp.Count(this=exp.Star())
    mark = naive_timestamp(_in_zone(newer_than, zone))
    newer = exp.GT(this=_column(cursor), expression=mark)
    return exp.Sum(this=_when(newer, exp.Literal.number(1)))


def _when(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.Case().when(condition, value).else_(exp.Literal.number(0))


def _sum(value: exp.Expr) -> exp.Expr:
    total = exp.Coalesce(this=exp.Sum(this=value), expressions=[exp.Literal.number(0)])
    return exp.cast(total, "BIGINT")


def training_query(
    features: FeatureQuery,
    labels: FeatureQuery,
    *,
    key: tuple[str, ...],
    split_by: tuple[str, ...],
    tombstone: str | None,
    feature_columns: Sequence[str],
    label: str,
) -> str:
    """Features joined with labels by ``key``, in the order of a stable hash of the key.

    Adds ``mlbatch_order`` (MD5 of the key) and ``mlbatch_split`` (MD5 of ``split_by``). Deleted
    entities are left out.
    """
    order = exp.alias_(_md5(key), "mlbatch_order", quoted=True)
    split = exp.alias_(_md5(split_by), "mlbatch_split", quoted=True)
    wanted = [_column(name) for name in feature_columns]
    joined = exp.select(*wanted, exp.column(_quoted(label), "l"), order, split)
    joined = joined.from_(features.tree.copy().subquery("q"))
    same = [exp.EQ(this=_column(k), expression=exp.column(_quoted(k), "l")) for k in key]
    joined = joined.join(labels.tree.copy().subquery("l"), on=exp.and_(*same))
    if tombstone is not None:
        joined = joined.where(_column(tombstone).is_(exp.null()))
    return render(joined.order_by(exp.column(_quoted("mlbatch_order"))))


def _md5(names: tuple[str, ...]) -> exp.Expr:
    text: exp.Expr = exp.cast(_column(names[0]), "VARCHAR")
    for name in names[1:]:
        slash = exp.DPipe(this=text, expression=exp.Literal.string("/"))
        text = exp.DPipe(this=slash, expression=exp.cast(_column(name), "VARCHAR"))
    return exp.MD5(this=text)
