"""Feature views: a documented SELECT with an entity key and a cursor column.

The SELECT is a plain ``.sql`` file in Redshift's dialect beside the declaration, under the same
name; nobody writes a window in it. `RecipeText` in ``feature_store/recipe_text.py`` reads
``feature_store/recipe_text.sql``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa

from mlbatch.declaration import Column, Place, columns_of, description_of
from mlbatch.query import FeatureQuery, NullCursor


@dataclass(frozen=True, slots=True)
class View:
    """A checked feature view."""

    name: str
    description: str
    owner: str
    key: tuple[str, ...]
    """Columns that identify the entity of a row."""
    cursor: str | None
    """Column whose value grows whenever the row changes; None for views that are only trained on."""
    tombstone: str | None
    """Column that is not NULL when the entity was deleted at the source."""
    zone: str
    """Time zone of the cursor column's values."""
    null_cursor: NullCursor
    """Whether rows whose cursor is NULL belong to every delta or to none."""
    columns: tuple[Column, ...]
    query: FeatureQuery
    place: Place

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of one batch of features."""
        return pa.schema([column.field for column in self.columns])

    def column(self, name: str) -> Column:
        """The column called ``name``; KeyError when there is none."""
        return {column.name: column for column in self.columns}[name]

    @property
    def notices(self) -> tuple[str, ...]:
        """What is allowed but worth knowing, in the query and beside it."""
        surplus = [n for n in self.query.columns if n not in {c.name for c in self.columns}]
        ignored = tuple(f"{self.name} does not declare {name!r}: ignored" for name in surplus)
        return self.query.notices + ignored

    def check_source(self, found: pa.Schema) -> None:
        """Compare the declared types with what the warehouse gives; DeclarationError on drift."""
        for column in self.columns:
            if column.name not in found.names:
                message = f"the warehouse gives no column {self.name}.{column.name}"
                hint = f"it gives {', '.join(found.names)}; mend {self.query.file}"
                raise self.place.error(message, hint=hint, column=column.name)
            given = found.field(column.name).type
            if not any(test(column.type) and test(given) for test in _FAMILIES):
                message = (
                    f"{self.name}.{column.name} is declared {column.type}, the query gives {given}"
                )
                hint = f"cast it in {self.query.file}, or mend the declaration"
                raise self.place.error(message, hint=hint, column=column.name)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


_FAMILIES = (
    pa.types.is_integer,
    _is_number,
    pa.types.is_boolean,
    pa.types.is_timestamp,
    pa.types.is_date,
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
)


class FeatureView:
    """Base class of view declarations.

    Class arguments: ``entity`` the key column or columns; ``cursor`` and ``tombstone`` column names;
    ``zone`` the time zone of the cursor's values (UTC); ``null_cursor`` whether rows without a
    cursor value are read "always" (nothing is ever missed) or "never" by deltas; ``query`` the name
    of the ``.sql`` file when it differs from the module's.
    """

    view: ClassVar[View]
    owner: ClassVar[str]

    def __init_subclass__(
        cls,
        *,
        entity: str | tuple[str, ...],
        cursor: str | None = None,
        tombstone: str | None = None,
        zone: str = "UTC",
        null_cursor: NullCursor = "always",
        query: str | None = None,
    ) -> None:
        """Check the declaration against its SQL; DeclarationError names file and line."""
        place = Place.of(cls)
        _check_null_cursor(cls, place, null_cursor)
        _check_zone(cls, place, zone)
        cls.view = View(
            name=cls.__name__,
            description=description_of(cls, place),
            owner=_owner(cls, place),
            key=(entity,) if isinstance(entity, str) else tuple(entity),
            cursor=cursor,
            tombstone=tombstone,
            zone=zone,
            null_cursor=null_cursor,
            columns=columns_of(cls, place),
            query=FeatureQuery.load(_sql_file(cls, place, query)),
            place=place,
        )
        _check(cls.view)


def _owner(declared: type, place: Place) -> str:
    owner = declared.__dict__.get("owner")
    if not isinstance(owner, str) or not owner.strip():
        message = f"{declared.__name__} has no owner"
        raise place.error(message, hint='say who answers for it: owner = "research, #ml-recipes"')
    return owner


def _sql_file(declared: type, place: Place, query: str | None) -> Path:
    if place.file is None:
        message = f"{declared.__name__} must stand in a file, with its .sql beside it"
        raise place.error(message)
    home = Path(place.file)
    file = home.with_name(query) if query else home.with_suffix(".sql")
    if not file.exists():
        message = f"{declared.__name__}: its query {file.name} is missing"
        raise place.error(message, hint=f"write the SELECT in {file}")
    return file


def _check_null_cursor(declared: type, place: Place, null_cursor: str) -> None:
    known = get_args(NullCursor)
    if null_cursor not in known:
        message = f"{declared.__name__}: null_cursor is {null_cursor!r}"
        raise place.error(message, hint=f"it is {' or '.join(map(repr, known))}")


def _check_zone(declared: type, place: Place, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, TypeError, OSError) as error:
        # Folders of zones and paths out of them are other errors than an unknown name.
        near = difflib.get_close_matches(str(zone), available_timezones(), n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        message = f"{declared.__name__}: {zone!r} is no time zone"
        hint = f'{meant}write zone="UTC", or a name as "Asia/Tokyo"'
        raise place.error(message, hint=hint) from error


def _check(view: View) -> None:
    declared = {column.name for column in view.columns}
    roles = [("entity key", k) for k in view.key]
    roles += [(r, n) for r, n in (("cursor", view.cursor), ("tombstone", view.tombstone)) if n]
    for role, name in roles:
        if name not in declared:
            message = f"{view.name} does not declare its {role} column {name!r}"
            hint = f"it declares: {', '.join(sorted(declared))}"
            raise view.place.error(message, hint=hint)
    if view.cursor and not pa.types.is_timestamp(view.column(view.cursor).type):
        message = f"{view.name}.{view.cursor} is a cursor and must be a datetime"
        raise view.place.error(message, column=view.cursor)
    view.query.require([c.name for c in view.columns], because=f"{view.name} declares it")
