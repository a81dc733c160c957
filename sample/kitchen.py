"""Loads the sample kitchen into the warehouse, as a recipe service's own tables.

Day one is a year of recipes with people's labels; the next day some are added, edited and deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from mlbatch.warehouse import Warehouse

HOME = Path(__file__).parent
LINES_PER_RECIPE = 100
"""A line's id is its recipe's times this, plus its position."""

_INSTANT = pa.timestamp("us")
SCHEMAS = {
    "recipes": pa.schema(
        [
            ("id", pa.int64()),
            ("title", pa.string()),
            ("created_at", _INSTANT),
            ("updated_at", _INSTANT),
            ("deleted_at", _INSTANT),
        ]
    ),
    "ingredients": pa.schema(
        [
            ("recipe_id", pa.int64()),
            ("position", pa.int64()),
            ("name", pa.string()),
            ("updated_at", _INSTANT),
        ]
    ),
    "steps": pa.schema(
        [
            ("id", pa.int64()),
            ("recipe_id", pa.int64()),
            ("position", pa.int64()),
            ("text", pa.string()),
            ("created_at", _INSTANT),
            ("updated_at", _INSTANT),
            ("deleted_at", _INSTANT),
        ]
    ),
    "recipe_labels": pa.schema([("recipe_id", pa.int64()), ("category", pa.string())]),
    "step_labels": pa.schema(
        [("step_id", pa.int64()), ("is_step", pa.bool_()), ("kind", pa.string())]
    ),
}
KEYS = {
    "recipes": ("id",),
    "ingredients": ("recipe_id", "position"),
    "steps": ("id",),
    "recipe_labels": ("recipe_id",),
    "step_labels": ("step_id",),
}


def recipes(folder: str = "kitchen") -> Iterator[dict[str, Any]]:
    """The recipes of one folder, in the order of their ids."""
    found = [
        json.loads(line)
        for file in sorted((HOME / folder).glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    yield from sorted(found, key=lambda recipe: int(recipe["id"]))


@dataclass(slots=True)
class Tables:
    """Rows by table, as the warehouse will hold them."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {n: [] for n in SCHEMAS})

    def add(self, recipe: dict[str, Any], *, labelled: bool) -> None:
        """A recipe with its ingredients, lines and, perhaps, labels."""
        created, updated = _instant(recipe["created_at"]), _instant(recipe["updated_at"])
        deleted = _instant(recipe["deleted_at"]) if recipe.get("deleted_at") else None
        self.rows["recipes"].append(
            {
                "id": recipe["id"],
                "title": recipe["title"],
                "created_at": created,
                "updated_at": deleted or updated,
                "deleted_at": deleted,
            }
        )
        for position, name in enumerate(recipe["ingredients"], start=1):
            self.rows["ingredients"].append(
                {
                    "recipe_id": recipe["id"],
                    "position": position,
                    "name": name,
                    "updated_at": updated,
                }
            )
        for position, (kind, text) in enumerate(recipe["lines"], start=1):
            self._add_line(recipe, position, kind, text, labelled=labelled)
        if labelled:
            label = {"recipe_id": recipe["id"], "category": recipe["category"]}
            self.rows["recipe_labels"].append(label)

    def _add_line(
        self, recipe: dict[str, Any], position: int, kind: str, text: str, *, labelled: bool
    ) -> None:
        line_id = recipe["id"] * LINES_PER_RECIPE + position
        self.rows["steps"].append(
            {
                "id": line_id,
                "recipe_id": recipe["id"],
                "position": position,
                "text": text,
                "created_at": _instant(recipe["created_at"]),
                "updated_at": _instant(recipe["updated_at"]),
                "deleted_at": None,
            }
        )
        if labelled:
            label = {"step_id": line_id, "is_step": kind == "step", "kind": kind}
            self.rows["step_labels"].append(label)

    def remove_lines_after(self, recipe: dict[str, Any], lines_before: int) -> None:
        """Mark the lines that an edit took away as deleted."""
        updated = _instant(recipe["updated_at"])
        for position in range(len(recipe["lines"]) + 1, lines_before + 1):
            self.rows["steps"].append(
                {
                    "id": recipe["id"] * LINES_PER_RECIPE + position,
                    "recipe_id": recipe["id"],
                    "position": position,
                    "text": "",
                    "created_at": updated,
                    "updated_at": updated,
                    "deleted_at": updated,
                }
            )

    def copy_into(self, warehouse: Warehouse) -> dict[str, int]:
        """Load every table; rows of the same key are replaced. Returns rows by table."""
        return {
            name: warehouse.copy(
                name, pa.Table.from_pylist(rows, schema=SCHEMAS[name]), replace_by=KEYS[name]
            )
            for name, rows in self.rows.items()
        }


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def load_first_day(warehouse: Warehouse) -> dict[str, int]:
    """The kitchen as it stood, with people's labels. Returns rows by table."""
    tables = Tables()
    for recipe in recipes():
        tables.add(recipe, labelled=True)
    return tables.copy_into(warehouse)


def load_next_day(warehouse: Warehouse) -> dict[str, list[int]]:
    """What was added, edited and deleted the day after; nobody has labelled it. Returns ids."""
    before = {recipe["id"]: recipe for recipe in recipes()}
    done: dict[str, list[int]] = {"add": [], "edit": [], "delete": []}
    tables = Tables()
    for change in stamped(recipes("next_day"), before):
        tables.add(change, labelled=False)
        if change["op"] == "edit":
            tables.remove_lines_after(change, len(before[change["id"]]["lines"]))
        done[change["op"]].append(change["id"])
    tables.copy_into(warehouse)
    return done


def stamped(
    changes: Iterable[dict[str, Any]], before: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Give each change an instant of the day after the kitchen's last one."""
    last = max(_instant(recipe["updated_at"]) for recipe in before.values())
    morning = (last + timedelta(days=1)).replace(hour=7, minute=0, second=0, microsecond=0)
    for number, change in enumerate(changes):
        at = (morning + timedelta(minutes=3 * number)).isoformat()
        old = before.get(change["id"], {})
        if change["op"] == "delete":
            yield {**old, **change, "deleted_at": at}
        else:
            yield {**change, "created_at": old.get("created_at", at), "updated_at": at}
