from datetime import datetime
from typing import Annotated

from mlbatch import Doc, FeatureView


class Notes(FeatureView, entity="note_id", cursor="updated_at", tombstone="deleted_at"):
    """One note a row."""

    owner = "tests"

    note_id: Annotated[int, Doc("Number of the note.")]
    text: Annotated[str, Doc("What it says.")]
    updated_at: Annotated[datetime, Doc("When it changed last.")]
    deleted_at: Annotated[datetime | None, Doc("When it was deleted.")]
