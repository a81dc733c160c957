"""Jobs whose rows have keys of any type, alone or beside a text."""

from datetime import datetime
from typing import Annotated, Literal

import pyarrow as pa

from mlbatch import Doc, FeatureView, Gate, Ge, Job, Le, Output
from mlbatch.declaration import ARROW_TYPES
from toy.model import build


def job_of(kind: type, key: tuple[str, ...]) -> type[Job]:
    """A job whose rows are things of type ``kind``, with the ``key`` thing, or thing and place."""

    class Things(FeatureView, entity=key, cursor="updated_at", tombstone="deleted_at"):
        """One thing."""

        owner = "tests"

        thing: Annotated[kind, Doc("Which one.")]
        place: Annotated[str, Doc("Where.")]
        text: Annotated[str, Doc("What people say of it.")]
        updated_at: Annotated[datetime, Doc("When it changed last.")]
        deleted_at: Annotated[datetime | None, Doc("When it was deleted.")]

    class ThingMoods(FeatureView, entity=key, query="things.sql"):
        """What people said of a thing."""

        owner = "tests"

        thing: Annotated[kind, Doc("Which one.")]
        place: Annotated[str, Doc("Where.")]
        label: Annotated[str, Doc("Its mood.")]

    class ThingMood(Output, table="thing_mood", key=key):
        """The mood of a thing, as predicted."""

        thing: Annotated[kind, Doc("Which one.")]
        place: Annotated[str, Doc("Where.")]
        label: Annotated[Literal["good", "bad"], Doc("Its mood.")]
        score: Annotated[float, Ge(0), Le(1), Doc("How sure the model is.")]

    class ThingJob(Job):
        """Tells good things from bad ones."""

        features = Things
        labels = ThingMoods
        inputs = ("text",)
        model = build
        output = ThingMood
        owner = "tests"
        gates = (Gate("f1_macro", at_least=0.5),)

    return ThingJob


def things_of(kind: type) -> pa.Schema:
    """The types of their source."""
    at, text = pa.timestamp("us"), pa.string()
    named = {"thing": ARROW_TYPES[kind], "place": text, "text": text, "label": text}
    return pa.schema([*named.items(), ("updated_at", at), ("deleted_at", at)])
