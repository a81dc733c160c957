"""What one statement gives back."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one statement."""

    tag: str
    """Command tag as Redshift sends it, such as ``INSERT 0 3``."""
    table: pa.Table | None = None
    """The result set; None for a statement without one."""
    notices: tuple[str, ...] = ()
    """Texts of severity INFO."""
    rows: int = 0
    """Rows returned, affected, unloaded or loaded."""
