from typing import Annotated, Literal

from mlbatch import Doc, Gate, Ge, Job, Le, Output
from toy.model import build
from toy.moods import Moods
from toy.notes import Notes


class Mood(Output, table="mood", key="note_id"):
    """The mood of a note, as predicted."""

    note_id: Annotated[int, Doc("Number of the note.")]
    label: Annotated[Literal["good", "bad"], Doc("Its mood.")]
    score: Annotated[float, Ge(0), Le(1), Doc("How sure the model is.")]


class Toy(Job):
    """Tells good notes from bad ones."""

    features = Notes
    labels = Moods
    inputs = ("text",)
    model = build
    output = Mood
    owner = "tests"
    gates = (Gate("f1_macro", at_least=0.5),)
