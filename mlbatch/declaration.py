"""Reads an author's class: its annotated columns, their documentation, and where each stands.

Views and outputs are declared alike, as classes whose annotations are columns::

    score: Annotated[float, Ge(0), Le(1), Doc("How sure the model is of the label.")]

This room turns such a class into `Column` values and knows file and line for every complaint.
"""

from __future__ import annotations

import ast
import inspect
import operator
import re
import sys
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from annotated_doc import Doc
from annotated_types import Ge, Le, MaxLen

from mlbatch.errors import DeclarationError

NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")

ARROW_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    date: pa.date32(),
    datetime: pa.timestamp("us"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One documented column of a view or of an output table."""

    name: str
    type: pa.DataType
    """Arrow type; timestamps are UTC without a zone, microseconds."""
    description: str
    nullable: bool = False
    choices: tuple[str | int | bool, ...] = ()
    """The only values allowed, in the declared order; empty when anything goes."""
    lower: float | None = None
    upper: float | None = None
    max_length: int | None = None
    """Characters, for text."""

    @property
    def field(self) -> pa.Field:
        """The Arrow field."""
        return pa.field(self.name, self.type, nullable=self.nullable)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a class was declared; knows the line of each of its columns."""

    file: str | None
    line: int | None
    column_lines: dict[str, int]

    @classmethod
    def of(cls, declared: type) -> Place:
        """Find the source of ``declared``; without source (a REPL) every line is unknown."""
        module = sys.modules.get(declared.__module__)
        file = getattr(module, "__file__", None)
        if file is None or not Path(file).exists():
            return cls(None, None, {})
        node = _class_node(Path(file), declared.__qualname__)
        if node is None:
            return cls(file, None, {})
        lines = {
            item.target.id: item.lineno
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        return cls(file, node.lineno, lines)

    def error(
        self, message: str, *, hint: str | None = None, column: str | None = None
    ) -> DeclarationError:
        """A DeclarationError that points at the class, or at one of its columns."""
        line = self.column_lines.get(column, self.line) if column else self.line
        return DeclarationError(message, hint=hint, file=self.file, line=line)


def _class_node(file: Path, qualname: str) -> ast.ClassDef | None:
    name = qualname.rpartition(".")[2]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next((n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name), None)


def check_name(name: str, what: str, place: Place) -> None:
    """Refuse names that are not portable between Redshift, MySQL and file systems."""
    if not NAME.fullmatch(name):
        message = f"{what} {name!r} is not a portable name"
        hint = "use lower-case letters, digits and _, at most 48, starting with a letter"
        raise place.error(message, hint=hint)


def check_number(
    declared: object,
    name: str,
    kind: type[int | float],
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse an attribute ``name`` of ``declared`` that is not of this ``kind`` or out of its range.

    The DeclarationError has no place yet: who imports the declaration's file knows it.
    """
    value = getattr(declared, name)
    bounds = [
        (least, operator.ge, "at least"),
        (above, operator.gt, "more than"),
        (most, operator.le, "at most"),
        (below, operator.lt, "less than"),
    ]
    given = [(bound, holds, words) for bound, holds, words in bounds if bound is not None]
    kinds = int if kind is int else int | float
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not all(holds(value, bound) for bound, holds, _ in given):
        message = f"{type(declared).__name__}({name}={value!r}) is out of range"
        wanted = " and ".join(f"{words} {bound}" for bound, _, words in given)
        whole = "a whole number" if kind is int else "a number"
        raise DeclarationError(message, hint=f"{name} is {whole}, {wanted}")


def description_of(declared: type, place: Place, wanted: str = "what one row is") -> str:
    """The class docstring, which readers of other departments will see; refused when missing."""
    text = inspect.cleandoc(declared.__doc__ or "")
    if not text:
        message = f"{declared.__name__} has no docstring"
        hint = f"say in one sentence {wanted}; it is shown to people of other departments"
        raise place.error(message, hint=hint)
    return text


def columns_of(declared: type, place: Place) -> tuple[Column, ...]:
    """The annotated columns of ``declared``, in order."""
    own = [n for n in inspect.get_annotations(declared) if not n.startswith("_")]
    names = [name for name in own if name != "owner"]
    if not names:
        message = f"{declared.__name__} declares no columns"
        hint = 'write one line a column: name: Annotated[str, Doc("...")]'
        raise place.error(message, hint=hint)
    hints = _resolved_hints(declared, place)
    return tuple(_column(declared, name, hints[name], place) for name in names)


def _resolved_hints(declared: type, place: Place) -> dict[str, Any]:
    try:
        return get_type_hints(declared, include_extras=True)
    except NameError as error:
        message = f"{declared.__name__}: {error}"
        raise place.error(message, hint="import the name that the annotation uses") from error


def _column(declared: type, name: str, hint: object, place: Place) -> Column:
    if not NAME.fullmatch(name):
        check_name(name, f"{declared.__name__}: column", place)
    base, extras = (hint, ()) if get_origin(hint) is not Annotated else _split(hint)
    plain, nullable = _without_none(base)
    description = next((e.documentation for e in extras if isinstance(e, Doc)), "").strip()
    if not description:
        message = f"{declared.__name__}.{name} has no description"
        example = f"{name}: Annotated[{_spell(base)}, Doc('...')]"
        reason = f"readers in other departments need one: {example}"
        raise place.error(message, hint=reason, column=name)
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    return Column(
        name=name,
        type=_arrow_type(declared, name, type(choices[0]) if choices else plain, place),
        description=description,
        nullable=nullable,
        choices=choices,
        lower=_bound(extras, Ge, "ge"),
        upper=_bound(extras, Le, "le"),
        max_length=next((e.max_length for e in extras if isinstance(e, MaxLen)), None),
    )


def _split(hint: object) -> tuple[object, tuple[object, ...]]:
    base, *extras = get_args(hint)
    return base, tuple(extras)


def _without_none(base: object) -> tuple[object, bool]:
    if get_origin(base) not in (Union, UnionType):
        return base, False
    rest = tuple(a for a in get_args(base) if a is not NoneType)
    return (rest[0], True) if len(rest) == 1 else (base, False)


def _spell(base: object) -> str:
    return base.__name__ if isinstance(base, type) else str(base).replace("typing.", "")


def _arrow_type(declared: type, name: str, plain: object, place: Place) -> pa.DataType:
    known = ARROW_TYPES.get(plain) if isinstance(plain, type) else None
    if known is None:
        message = f"{declared.__name__}.{name}: {_spell(plain)} is not a column type"
        hint = f"use one of {', '.join(t.__name__ for t in ARROW_TYPES)}, a Literal, or `| None`"
        raise place.error(message, hint=hint, column=name)
    return known


def _bound(extras: tuple[object, ...], kind: type, attribute: str) -> float | None:
    found = next((getattr(e, attribute) for e in extras if isinstance(e, kind)), None)
    return None if found is None else float(found)
