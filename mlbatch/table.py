"""Output tables: where predictions land, and what each column means.

One `Output` class gives the DDL with column comments, the Arrow schema and the contract that every
batch of predictions is checked against::

    class RecipeCategory(Output, table="recipe_category", key="recipe_id"):
        '''The kind of dish a recipe is, as predicted. One row per recipe.'''
        recipe_id: Annotated[int, Doc("Number of the recipe, recipes.id.")]
        label: Annotated[Literal["soup", "bread"], Doc("The likeliest kind.")]
        score: Annotated[float, Ge(0), Le(1), Doc("How sure the model is of the label.")]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from mlbatch.declaration import Column, Place, check_name, columns_of, description_of
from mlbatch.generation import is_beside

MODEL_VERSION = Column(
    "model_version", pa.int64(), "Version of the model that made this row, in the registry."
)
SOURCE_UPDATED_AT = Column(
    "src_updated_at",
    pa.timestamp("us"),
    "When the source row last changed (UTC), as of the run that predicted it.",
)
RUN_NO = Column("run_no", pa.int64(), "Number of the run that wrote this row, see mlbatch_run.")
FRAMEWORK_COLUMNS = (MODEL_VERSION, SOURCE_UPDATED_AT, RUN_NO)
"""Added to every output table; never declared by authors."""
KEY_CHARACTERS = 255
"""Longest text key: InnoDB indexes 3072 bytes, four a character, for up to three such columns."""
TEXT_BYTES = 65_535
"""Longest text of a column that declares no length: what MySQL's TEXT holds, in UTF-8."""


@dataclass(frozen=True, slots=True)
class OutputTable:
    """A declared output table."""

    name: str
    description: str
    key: tuple[str, ...]
    label: str
    """Name of the column that carries the predicted label."""
    score: str
    """Name of the column that carries its probability."""
    columns: tuple[Column, ...]
    """The author's columns, in order."""
    place: Place

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The author's columns and the framework's."""
        return self.columns + FRAMEWORK_COLUMNS

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of one batch of rows to write."""
        return pa.schema([column.field for column in self.all_columns])

    @property
    def passed_through(self) -> tuple[str, ...]:
        """Columns that are copied from the feature view: all but label and score."""
        return tuple(c.name for c in self.columns if c.name not in (self.label, self.score))

    @property
    def checked(self) -> tuple[str, ...]:
        """The columns that a row's checksum covers: its key, label and score."""
        return (*self.key, self.label, self.score)

    def characters(self, column: Column) -> int | None:
        """How many characters a text of ``column`` may have; None where `TEXT_BYTES` are the limit."""
        longest = max((len(str(choice)) for choice in column.choices), default=0)
        otherwise = KEY_CHARACTERS if column.name in self.key else None
        return column.max_length or longest or otherwise

    def column(self, name: str) -> Column:
        """The column called ``name``; KeyError when there is none."""
        return {column.name: column for column in self.all_columns}[name]


class Output:
    """Base class of output declarations; see the module's example.

    Class arguments: ``table`` the name in the sink; ``key`` the column, or tuple of columns, that
    identifies a row; ``label`` and ``score`` the names of the predicted columns.
    """

    table: ClassVar[OutputTable]

    def __init_subclass__(
        cls,
        *,
        table: str,
        key: str | tuple[str, ...],
        label: str = "label",
        score: str = "score",
    ) -> None:
        """Check the declaration; a wrong one raises DeclarationError with file and line."""
        place = Place.of(cls)
        check_name(table, "table", place)
        cls.table = OutputTable(
            name=table,
            description=description_of(cls, place),
            key=(key,) if isinstance(key, str) else tuple(key),
            label=label,
            score=score,
            columns=columns_of(cls, place),
            place=place,
        )
        _check(cls.__name__, cls.table)


def _check(name: str, table: OutputTable) -> None:
    columns = {column.name: column for column in table.columns}
    _check_present(name, table, columns)
    for column in table.columns:
        if column.name in {c.name for c in FRAMEWORK_COLUMNS}:
            message = f"{name}.{column.name} is written by mlbatch itself"
            raise table.place.error(message, hint="remove the line", column=column.name)
    for key in table.key:
        if columns[key].nullable or pa.types.is_floating(columns[key].type):
            message = f"{name}.{key} cannot be a key: {columns[key].type}, may be NULL or inexact"
            raise table.place.error(message, hint="use int, str or date", column=key)
    if not pa.types.is_floating(columns[table.score].type):
        message = f"{name}.{table.score} holds a probability and must be float"
        raise table.place.error(message, column=table.score)
    if not columns[table.label].choices and not pa.types.is_boolean(columns[table.label].type):
        message = f"{name}.{table.label} does not say which labels there are"
        hint = 'use Annotated[Literal["a", "b"], Doc("...")], or bool'
        raise table.place.error(message, hint=hint, column=table.label)


def _check_present(name: str, table: OutputTable, columns: dict[str, Column]) -> None:
    if not table.key:
        raise table.place.error(f"{name} has no key", hint='say key="recipe_id"')
    roles = [("key", k) for k in table.key] + [("label", table.label), ("score", table.score)]
    for role, wanted in roles:
        if wanted not in columns:
            message = f"{name} has no column {wanted!r}, named as its {role}"
            hint = f"it declares: {', '.join(columns)}"
            raise table.place.error(message, hint=hint)
    if table.name.startswith("mlbatch_"):
        message = f"{name}: tables called mlbatch_... belong to mlbatch itself"
        raise table.place.error(message, hint="choose another table name")
    if is_beside(table.name):
        message = f"{name}: tables called ...__g1, ...__g2 are generations of another table"
        raise table.place.error(message, hint="choose another table name")
