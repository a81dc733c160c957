"""The SELECT that an author wrote: checked, wrapped with its window, fingerprinted.

It is never edited, but for the literals of a window that it places itself. Windows, projections and joins go around it, as around a table called ``q``.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

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
    verbatim,
)
from mlbatch.window import Window, in_zone, since_in_zone, until_in_zone

NullCursor = Literal["always", "never"]
_BEGINNING = datetime(1, 1, 1)  # noqa: DTZ001  a literal of the cursor's own zone
_END = datetime(9999, 12, 31)  # noqa: DTZ001
GONE = "mlbatch_gone"
"""Column by which a repair's query marks tombstones, where the view has no column of its own for it."""


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
        source = self.source(window, zone)
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
        their instant, which is written in ``zone``; `GONE` may be one of ``columns``.
        """
        named = self._named(keys, gone, key)
        same = [exp.EQ(this=_column(k), expression=exp.column(_quoted(k), "g")) for k in key]
        known = {name: in_zone(at, zone) for name, at in (marks or {}).items()}
        chosen = (
            exp.select(*[_or_tombstone(name, key, known) for name in columns])
            .from_(named.subquery("g"))
            .join(self.source(Window()), on=exp.and_(*same), join_type="left")
            .where(exp.or_(_is_there(key), exp.column(_quoted(GONE), "g").eq(1)))
        )
        if newest_by is not None:
            chosen = _newest(chosen, key, newest_by)
        return render(chosen)

    def _named(
        self,
        keys: Sequence[tuple[object, ...]],
        gone: Sequence[tuple[object, ...]],
        key: tuple[str, ...],
    ) -> exp.Query:
        """A table of ``keys`` and ``gone``, in the fewest bytes that every warehouse reads."""
        first = exp.select(*[_column(name) for name in key]).from_(self.source(Window()))
        # The branch without rows gives the columns their names and types.
        first = first.select(exp.alias_(exp.Literal.number(0), GONE, quoted=True))
        marked = dict.fromkeys(keys, 0) | dict.fromkeys(gone, 1)
        rows = [
            exp.select(*[_literal(value) for value in values], exp.Literal.number(mark))
            for values, mark in marked.items()
        ]
        first = first.where(exp.false())
        return exp.union(first, *rows, distinct=False, copy=False) if rows else first

    def probe(
        self,
        window: Window,
        *,
        key: tuple[str, ...],
        cursor: str | None,
        zone: str = "UTC",
        null_cursor: NullCursor = "always",
        newer_than: datetime | None = None,
        clock: datetime | None = None,
    ) -> str:
        """One row of counts: ``rows``, ``keyed_rows``, ``distinct_keys``, ``newer``, ``future``."""
        grouped = exp.select(*[_column(name) for name in key]).from_(self.source(window, zone))
        grouped = grouped.select(exp.alias_(exp.Count(this=exp.Star()), "n"))
        grouped = grouped.select(exp.alias_(_count_newer(cursor, newer_than, zone), "newer"))
        ahead = _count_newer(cursor, clock, zone) if clock else exp.Literal.number(0)
        grouped = grouped.select(exp.alias_(ahead, "future"))
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
            "future": _sum(exp.column("future", "g")),
        }
        items = [exp.alias_(value, name, quoted=True) for name, value in counts.items()]
        return render(exp.select(*items).from_(grouped.subquery("g")))

    def empty(self) -> str:
        """The SELECT of no row, to learn the types of the columns."""
        source = self.source(Window())
        columns = [_column(name) for name in self.columns]
        return render(exp.select(*columns).from_(source).where(exp.false()))

    def source(self, window: Window, zone: str = "UTC", name: str = "q") -> exp.Subquery:
        """The author's own words as a source; what they leave open is bound to the window's edges."""
        bounds = {
            "since": since_in_zone(window.since, zone) if window.since else _BEGINNING,
            "until": until_in_zone(window.until, zone) if window.until else _END,
        }
        own = {p: naive_timestamp(bounds[p]) for p in placeholders(self.tree) if p in bounds}

        def at_edge(node: exp.Expr) -> exp.Expr:
            is_own = isinstance(node, exp.Placeholder) and node.name in own
            return own[node.name] if is_own else node

        bound = bind(cast("exp.Query", self.tree.copy().transform(at_edge)), {})
        source = verbatim(self.text.removeprefix("\ufeff"), own, name)
        if own and parse_select(source.this.name, file=self.file) != bound:
            message = f"it is not clear where {', '.join(f':{p}' for p in own)} stand"
            raise DeclarationError(
                message, hint="write each with nothing before it", file=self.file
            )
        return source


def _quoted(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def _column(name: str) -> exp.Column:
    return exp.column(_quoted(name), "q")


def _within(
    window: Window, cursor: str | None, zone: str, null_cursor: NullCursor
) -> exp.Expr | None:
    if cursor is None or window.is_everything:
        return None
    conditions: list[exp.Expr] = []
    if window.since is not None:
        low = naive_timestamp(since_in_zone(window.since, zone))
        conditions.append(exp.GTE(this=_column(cursor), expression=low))
    if window.until is not None:
        high = naive_timestamp(until_in_zone(window.until, zone))
        conditions.append(exp.LT(this=_column(cursor), expression=high))
    inside: exp.Expr = exp.and_(*conditions)
    if null_cursor == "never":
        return inside
    return exp.or_(inside, _column(cursor).is_(exp.null()))


def _literal(value: object) -> exp.Expr:
    """A key's value; an instant has no zone there, in the source as in the table."""
    return naive_timestamp(value) if isinstance(value, datetime) else literal(value)


def _is_there(key: tuple[str, ...]) -> exp.Expr:
    """Whether a left join found a row: where it did, every column of the key has a value."""
    return _column(key[0]).is_(exp.null()).not_()


def _or_tombstone(name: str, key: tuple[str, ...], marks: Mapping[str, datetime]) -> exp.Expr:
    """The column of the row, or what stands there where the named key has no row."""
    value: exp.Expr = _column(name)
    if name in key:
        value = exp.Coalesce(this=value, expressions=[exp.column(_quoted(name), "g")])
    elif name in marks:
        value = exp.null() if name == GONE else value
        value = exp.Case().when(_is_there(key), value).else_(naive_timestamp(marks[name]))
    else:
        return value
    return exp.alias_(value, name, quoted=True)


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
    mark = naive_timestamp(in_zone(newer_than, zone))
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
    cursor: str | None,
    tombstone: str | None,
    feature_columns: Sequence[str],
    label: str,
) -> str:
    """Features joined with labels by ``key``, in the order of a stable hash of the key.

    One row a key: its newest by ``cursor``, if that is no tombstone, with its one label; a key whose
    labels contradict each other has none. Adds ``mlbatch_order`` (MD5 of the key) and
    ``mlbatch_split`` (MD5 of ``split_by``, NULL where one of its columns is).
    """
    order = exp.alias_(_md5(key), "mlbatch_order", quoted=True)
    split = exp.alias_(_md5(split_by), "mlbatch_split", quoted=True)
    wanted = [_column(name) for name in feature_columns]
    joined = exp.select(*wanted, exp.column(_quoted(label), "l"), order, split)
    joined = joined.from_(features.source(Window()))
    same = [exp.EQ(this=_column(k), expression=exp.column(_quoted(k), "l")) for k in key]
    joined = joined.join(_one_label(labels, key, label).subquery("l"), on=exp.and_(*same))
    joined = _newest(joined, key, cursor)
    if tombstone is not None:
        # Not before the newest is known: an older row of a deleted entity would come back.
        joined = joined.qualify(_column(tombstone).is_(exp.null()))
    return render(joined.order_by(exp.column(_quoted("mlbatch_order"))))


def _one_label(labels: FeatureQuery, key: tuple[str, ...], label: str) -> exp.Select:
    """Of each key its one label, repeated or not; NULL is no label where there is another."""
    columns = [_column(name) for name in (*key, label)]
    each = exp.select(*columns).distinct().from_(labels.source(Window()))
    kinds = exp.Window(
        this=exp.Count(this=_column(label)), partition_by=[_column(name) for name in key]
    )
    known = _newest(exp.select(*columns).from_(each.subquery("q")), key, label)
    return known.qualify(exp.LTE(this=kinds, expression=exp.Literal.number(1)))


def contradiction_query(labels: FeatureQuery, *, key: tuple[str, ...], label: str) -> str:
    """The first key with several labels, and in ``mlbatch_keys`` how many there are; else no row."""
    names = [_column(name) for name in key]
    several = exp.GT(
        this=exp.Count(this=exp.Distinct(expressions=[_column(label)])),
        expression=exp.Literal.number(1),
    )
    keyed = [name.is_(exp.null()).not_() for name in names]
    found = exp.select(*names).from_(labels.source(Window())).where(exp.and_(*keyed))
    found = found.group_by(*names).having(several)
    total = exp.Window(this=exp.Count(this=exp.Star()))
    told = exp.select(*names, exp.alias_(total, "mlbatch_keys", quoted=True))
    return render(told.from_(found.subquery("q")).order_by(*names).limit(1))


def _md5(names: tuple[str, ...]) -> exp.Expr:
    text: exp.Expr = _as_text(names[0])
    for name in names[1:]:
        slash = exp.DPipe(this=text, expression=exp.Literal.string("/"))
        text = exp.DPipe(this=slash, expression=_as_text(name))
    return exp.MD5(this=text)


def _as_text(name: str) -> exp.Expr:
    # Without a length it may be VARCHAR(256): long keys would share one hash.
    return exp.cast(_column(name), "VARCHAR(65535)")
