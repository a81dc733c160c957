"""A job whose rows have a key of two columns, of which one is text, and which its table turns round."""

from datetime import datetime
from typing import Annotated, Literal

import pyarrow as pa

from mlbatch import Doc, FeatureView, Gate, Ge, Job, Le, Output
from toy.model import build


class Lines(
    FeatureView,
    entity=("book", "number"),
    cursor="updated_at",
    tombstone="deleted_at",
):
    """One line of a book."""

    owner = "tests"

    book: Annotated[str, Doc("Its title.")]
    number: Annotated[int, Doc("Which of its lines.")]
    text: Annotated[str, Doc("What it says.")]
    updated_at: Annotated[datetime, Doc("When it changed last.")]
    deleted_at: Annotated[datetime | None, Doc("When it was deleted.")]


class LineMoods(FeatureView, entity=("book", "number"), query="lines.sql"):
    """What people said of a line."""

    owner = "tests"

    book: Annotated[str, Doc("Its title.")]
    number: Annotated[int, Doc("Which of its lines.")]
    label: Annotated[str, Doc("Its mood.")]


class LineMood(Output, table="line_mood", key=("number", "book")):
    """The mood of a line, as predicted."""

    number: Annotated[int, Doc("Which of its lines.")]
    book: Annotated[str, Doc("Its title.")]
    label: Annotated[Literal["good", "bad"], Doc("Its mood.")]
    score: Annotated[float, Ge(0), Le(1), Doc("How sure the model is.")]


class LineJob(Job):
    """Tells good lines from bad ones."""

    features = Lines
    labels = LineMoods
    inputs = ("text",)
    model = build
    output = LineMood
    owner = "tests"
    gates = (Gate("f1_macro", at_least=0.5),)


LINES = pa.schema(
    [
        ("book", pa.string()),
        ("number", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("updated_at", pa.timestamp("us")),
        ("deleted_at", pa.timestamp("us")),
    ]
)
