from typing import Annotated

from mlbatch import Doc, FeatureView


class Moods(FeatureView, entity="note_id"):
    """What people said of a note."""

    owner = "tests"

    note_id: Annotated[int, Doc("Number of the note.")]
    label: Annotated[str, Doc("Its mood.")]
