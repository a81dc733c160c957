"""The two jobs that are measured: real declarations, with labels that mean nothing."""

from datetime import datetime
from typing import Annotated, Literal

from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from mlbatch import Doc, FeatureView, Ge, Job, Le, Output
from mlbatch.text import words

C30 = Literal[
    "c00", "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09",
    "c10", "c11", "c12", "c13", "c14", "c15", "c16", "c17", "c18", "c19",
    "c20", "c21", "c22", "c23", "c24", "c25", "c26", "c27", "c28", "c29",
]  # fmt: skip
C20 = Literal[
    "c00", "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09",
    "c10", "c11", "c12", "c13", "c14", "c15", "c16", "c17", "c18", "c19",
]  # fmt: skip


def build() -> Pipeline:
    """Words, hashed, and a linear model."""
    return make_pipeline(words("text", pairs=False), SGDClassifier(loss="log_loss"))


class Texts(
    FeatureView, entity="id", cursor="updated_at", tombstone="deleted_at", query="texts.sql"
):
    """One text a row."""

    owner = "benchmarks"

    id: Annotated[int, Doc("Number of the text.")]
    text: Annotated[str, Doc("What it says.")]
    updated_at: Annotated[datetime, Doc("When it changed last.")]
    deleted_at: Annotated[datetime | None, Doc("When it was deleted.")]


class Labels(FeatureView, entity="id", query="labels.sql"):
    """A label for a text."""

    owner = "benchmarks"

    id: Annotated[int, Doc("Number of the text.")]
    label: Annotated[str, Doc("Its label.")]


class Recipe(Output, table="bench_recipes", key="id"):
    """A label for a long text."""

    id: Annotated[int, Doc("Number of the text.")]
    label: Annotated[C30, Doc("One of thirty.")]
    score: Annotated[float, Ge(0), Le(1), Doc("How sure that is.")]


class Step(Output, table="bench_steps", key="id"):
    """A label for a short text."""

    id: Annotated[int, Doc("Number of the text.")]
    label: Annotated[C20, Doc("One of twenty.")]
    score: Annotated[float, Ge(0), Le(1), Doc("How sure that is.")]


class Recipes(Job):
    """Long texts."""

    features = Texts
    labels = Labels
    inputs = ("text",)
    model = build
    output = Recipe
    owner = "benchmarks"


class Steps(Job):
    """Short texts."""

    features = Texts
    labels = Labels
    inputs = ("text",)
    model = build
    output = Step
    owner = "benchmarks"


JOBS = {"recipes": Recipes, "steps": Steps}
