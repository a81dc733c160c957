"""A job: which features, which model, which output table. Attributes only, checked at import.

::

    class RecipeClassifier(Job):
        '''Tells which kind of dish a recipe is.'''
        features = RecipeText
        labels = RecipeLabel
        inputs = ("title", "ingredients", "steps")
        model = build
        output = RecipeCategory
        owner = "research, #ml-recipes"
        gates = (Gate("f1_macro", at_least=0.7),)
"""

from __future__ import annotations

import difflib
import inspect
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mlbatch.declaration import Place, check_number, description_of
from mlbatch.errors import DeclarationError
from mlbatch.gates import Gate, less_is_better, metric_names
from mlbatch.query import GONE
from mlbatch.table import Output
from mlbatch.view import FeatureView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Training:
    """How a job's model is fitted."""

    epochs: int = 5
    folds: int = 5
    """Cross-fitted models that give honest scores for calibration and threshold."""
    holdout: float = 0.2
    """Share of the split keys that the model never sees and is judged on."""
    split_by: str | tuple[str, ...] | None = None
    """Columns whose rows stay on one side of every split; the entity key by default. A row where one of
    them is NULL is left out."""
    threshold_recall: float | None = None
    """For two classes: choose the threshold that finds this share of the positives."""
    seed: int = 0
    cache_megabytes: int = 8_192
    """Disk that the extracted features may take while they are learnt from; see `extraction`."""

    def __post_init__(self) -> None:
        """Refuse what nothing could be learnt or judged with; DeclarationError."""
        check_number(self, "epochs", int, least=1)
        check_number(self, "folds", int, least=1)
        check_number(self, "holdout", float, above=0, below=1)
        if self.threshold_recall is not None:
            check_number(self, "threshold_recall", float, above=0, most=1)
        check_number(self, "seed", int, least=0, most=2**32 - 1)
        check_number(self, "cache_megabytes", int, least=0)
        names = self.split_by if isinstance(self.split_by, tuple) else (self.split_by,)
        named = names and all(isinstance(name, str) and name for name in names)
        if self.split_by is not None and not named:
            message = f"Training(split_by={self.split_by!r}) names no column"
            raise DeclarationError(message, hint='write split_by="recipe_id", or a tuple of names')


@dataclass(frozen=True, slots=True)
class Delta:
    """Which rows a daily run reads again."""

    overlap: timedelta = timedelta(hours=1)
    """How far before the watermark a delta starts, for rows that were committed late."""
    lag: timedelta = timedelta(0)
    """How far behind the warehouse's clock the watermark stays."""

    def __post_init__(self) -> None:
        """Refuse to look ahead: rows between the watermark and a delta's start would never be read."""
        for name in ("overlap", "lag"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < timedelta(0):
                message = f"Delta({name}={value!r}) is not a time to look back"
                raise DeclarationError(
                    message, hint=f"write {name}=timedelta(hours=1), or 0 of them"
                )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one row, and one run, may do before it is set aside or stopped."""

    quarantined_share: float = 0.01
    """Share of a run's rows that may be quarantined before the run fails; of a repair, of its table's
    rows, and those that were set aside before do not count."""
    quarantined_rows: int = 10
    """Rows that may be quarantined whatever their share, so that one bad row fails no small delta."""
    quarantined_parts: int = 1
    """Parts that may be set aside whole although they are a larger share of the run's parts than
    ``quarantined_share``, because they kill their workers."""
    parts_share: float = 0.5
    """Share of a run's rows that may be set aside with whole parts. Beyond it, as beyond
    ``quarantined_parts``, the run fails before it sets the next part aside."""
    text_characters: int = 10_000
    """Longest text a model is given; MeCab's time grows with the square of some texts."""
    batch_seconds: float | None = 600.0
    """How long a batch, which has up to 8,192 rows, may take to be scored; a worker that takes longer ends
    itself and counts as killed, so that the row it hangs on is found. None is no limit."""
    label_distance: float = 0.2
    """Share of labels that may go to other labels when a new model takes over, by their counts."""

    def __post_init__(self) -> None:
        """Refuse shares beyond [0, 1] and counts below zero; DeclarationError."""
        check_number(self, "quarantined_share", float, least=0, most=1)
        check_number(self, "quarantined_rows", int, least=0)
        check_number(self, "quarantined_parts", int, least=0)
        check_number(self, "parts_share", float, least=0, most=1)
        check_number(self, "text_characters", int, least=1)
        if self.batch_seconds is not None:
            check_number(self, "batch_seconds", float, above=0, most=86_400)
        check_number(self, "label_distance", float, least=0, most=1)

    def allows(self, quarantined: int, rows: int) -> bool:
        """Whether a run of ``rows`` rows may go on with so many of them set aside."""
        return quarantined <= max(self.quarantined_rows, self.quarantined_share * rows)

    def allows_parts(self, aside: int, parts: int, *, rows_aside: int, rows: int) -> bool:
        """Whether ``aside`` of a run's ``parts`` may be set aside whole, with so many of its ``rows``."""
        few = aside <= max(self.quarantined_parts, self.quarantined_share * parts)
        return few and rows_aside <= self.parts_share * rows


class Job:
    """Base class of jobs. ``name`` is the folder under ``jobs/`` that holds the class."""

    name: ClassVar[str]
    place: ClassVar[Place]
    description: ClassVar[str]

    features: ClassVar[type[FeatureView]]
    labels: ClassVar[type[FeatureView]]
    inputs: ClassVar[tuple[str, ...]]
    model: ClassVar[Callable[[], Any]]
    output: ClassVar[type[Output]]
    owner: ClassVar[str]

    training: ClassVar[Training] = Training()
    delta: ClassVar[Delta] = Delta()
    limits: ClassVar[Limits] = Limits()
    gates: ClassVar[tuple[Gate, ...]] = ()
    predict: ClassVar[Callable[[Any, pa.RecordBatch], Any] | None] = None
    """``(model, batch) -> Prediction``, asked instead of the learnt model: for rules beside it."""
    trusted_types: ClassVar[tuple[str, ...]] = ()
    """Types of the job's own that its saved model may contain, beside mlbatch's."""

    def __init_subclass__(cls) -> None:
        """Check the declaration; a wrong one raises DeclarationError with file and line."""
        cls.place = Place.of(cls)
        cls.description = description_of(cls, cls.place, "what the job tells")
        parts = cls.__module__.split(".")
        cls.name = parts[-2] if parts[-1] == "job" and len(parts) > 1 else cls.__name__.lower()
        if "model" in cls.__dict__:
            cls.model = staticmethod(cls.__dict__["model"])
        if callable(cls.__dict__.get("predict")):
            cls.predict = staticmethod(cls.__dict__["predict"])
        _check_attributes(cls)
        _check_predict(cls)
        _check_features(cls)
        _check_labels(cls)
        _check_training(cls)
        _check_gates(cls)

    @classmethod
    def classes(cls) -> tuple[str | int | bool, ...]:
        """The labels in declared order; (False, True) for a yes-or-no job."""
        return cls.output.table.column(cls.output.table.label).choices or (False, True)

    @classmethod
    def split_key(cls) -> tuple[str, ...]:
        """The columns that keep rows together in every split."""
        split = cls.training.split_by
        if split is None:
            return cls.features.view.key
        return (split,) if isinstance(split, str) else tuple(split)


_NEEDED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "features": ("a FeatureView class", lambda v: _is_class(v, FeatureView)),
    "labels": ("a FeatureView class with the known labels", lambda v: _is_class(v, FeatureView)),
    "inputs": ("a tuple of column names", lambda v: isinstance(v, tuple) and bool(v)),
    "model": ("a function that returns a scikit-learn pipeline", callable),
    "output": ("an Output class", lambda v: _is_class(v, Output)),
    "owner": ("who answers for the job", lambda v: isinstance(v, str) and bool(v.strip())),
    "training": ("a Training(...)", lambda v: isinstance(v, Training)),
    "delta": ("a Delta(...)", lambda v: isinstance(v, Delta)),
    "limits": ("a Limits(...)", lambda v: isinstance(v, Limits)),
}


def _is_class(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _check_attributes(job: type[Job]) -> None:
    for name, (meaning, fits) in _NEEDED.items():
        value = getattr(job, name, None)
        if value is None or not fits(value):
            verb = "lacks" if value is None else "has a wrong"
            raise job.place.error(f"{job.__name__} {verb} `{name}`", hint=f"it is {meaning}")
    known = set(Job.__annotations__)
    for name in (n for n in vars(job) if not n.startswith("_") and n not in known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "a job has the attributes of mlbatch.Job"
        raise job.place.error(f"{job.__name__} has an unknown attribute `{name}`", hint=hint)


def _check_predict(job: type[Job]) -> None:
    if job.predict is None:
        return
    message = f"{job.__name__} has a wrong `predict`"
    try:
        inspect.signature(job.predict).bind("model", "batch")
    except (TypeError, ValueError) as error:
        hint = f"it is a function (model, batch) that returns a Prediction: {error}"
        raise job.place.error(message, hint=hint) from error
    file = getattr(getattr(job.predict, "__code__", None), "co_filename", None)
    if file is None or Path(file).parent != Path(str(job.place.file)).parent:
        # What stands outside the project is not in the digest that keeps a run from going on with other code.
        raise job.place.error(message, hint="it is a function of a file in the job's folder")


def _check_features(job: type[Job]) -> None:
    view, table = job.features.view, job.output.table
    if view.cursor is None:
        message = f"{job.__name__}: {view.name} has no cursor column, so no delta can be read"
        raise view.place.error(message, hint='say cursor="updated_at" in its class line')
    have = {column.name: column for column in view.columns}
    for name in job.inputs:
        if name not in have:
            message = f"{job.__name__}: input {name!r} is not a column of {view.name}"
            raise job.place.error(message, hint=f"it has: {', '.join(have)}")
    for name in table.passed_through:
        if name not in have:
            message = f"{table.name}.{name} is neither predicted nor a column of {view.name}"
            raise table.place.error(message, hint=f"it has: {', '.join(have)}", column=name)
        if not table.column(name).type.equals(have[name].type):
            message = f"{table.name}.{name} and {view.name}.{name} differ in type"
            raise table.place.error(message, column=name)
    for name in job.split_key():
        if name not in have:
            message = f"{job.__name__}: split_by {name!r} is not a column of {view.name}"
            raise job.place.error(message, hint=f"it has: {', '.join(have)}")
    if set(view.key) != set(table.key):
        message = f"{table.name} is keyed by {table.key}, {view.name} by {view.key}"
        raise table.place.error(message, hint="one row of the view makes one row of the table")


def _check_labels(job: type[Job]) -> None:
    view, labels, table = job.features.view, job.labels.view, job.output.table
    if table.label in job.inputs:
        # The rows to learn from hold inputs and label side by side, each under its own name.
        message = f"{job.__name__}: input {table.label!r} is named as the label of {table.name}"
        hint = f"give the column of {view.name} another name, in its class and its .sql file"
        raise job.place.error(message, hint=hint)
    have = {column.name: column for column in labels.columns}
    for name in (*view.key, table.label):
        if name not in have:
            message = f"{job.__name__}: {labels.name} has no column {name!r} to train with"
            raise labels.place.error(message, hint=f"it has: {', '.join(have)}")
    if not have[table.label].type.equals(table.column(table.label).type):
        message = f"{labels.name}.{table.label} is not of the type of {table.name}.{table.label}"
        raise labels.place.error(message, column=table.label)


def _check_training(job: type[Job]) -> None:
    count = len(job.classes())
    if job.training.threshold_recall is not None and count > 2:  # noqa: PLR2004  yes or no
        message = f"{job.__name__}: threshold_recall is for two labels, and its output has {count}"
        raise job.place.error(message, hint="leave it out; a gate on a label's recall may do")


def _check_gates(job: type[Job]) -> None:
    """Now, since the gates are asked only after the whole training."""
    gates = job.gates
    if not isinstance(gates, tuple) or not all(isinstance(gate, Gate) for gate in gates):
        hint = "it is a tuple of gates; one alone has a comma after it: (Gate(...),)"
        raise job.place.error(f"{job.__name__} has a wrong `gates`", hint=hint)
    known = metric_names(len(job.classes()))
    for gate in gates:
        if gate.metric not in known:
            near = difflib.get_close_matches(gate.metric, known, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            message = f"{job.__name__}: {gate.metric!r} of a gate is no metric of its evaluation"
            raise job.place.error(message, hint=f"{meant}it has: {', '.join(known)}")
        _check_direction(job, gate)


def _check_direction(job: type[Job], gate: Gate) -> None:
    is_less = less_is_better(gate.metric)
    given, better, wrong, right = (
        (gate.at_least, "less", "at_least", "at_most")
        if is_less
        else (gate.at_most, "more", "at_most", "at_least")
    )
    if given is not None:
        message = (
            f"{job.__name__}: of {gate.metric} {better} is better, a gate has no {wrong} for it"
        )
        hint = f'write Gate("{gate.metric}", {right}={given})'
        raise job.place.error(message, hint=hint)


def check_one_writer(jobs: dict[str, type[Job]]) -> dict[str, DeclarationError]:
    """Find jobs that write one table: both of each pair are refused, by name."""
    writers: dict[str, list[str]] = {}
    for name, job in jobs.items():
        writers.setdefault(job.output.table.name, []).append(name)
    return {
        name: jobs[name].place.error(
            f"{' and '.join(names)} both write the table {table}",
            hint="give each job a table of its own",
        )
        for table, names in writers.items()
        if len(names) > 1
        for name in names
    }


def required_columns(job: type[Job], *, repairs: bool = False) -> tuple[str, ...]:
    """The columns of the feature view that inference reads, in the view's order.

    A run that ``repairs`` is told which rows are gone; `GONE` says it where the view has no tombstone.
    """
    view, table = job.features.view, job.output.table
    wanted = {*job.inputs, *table.passed_through, *view.key, view.cursor, view.tombstone}
    names = tuple(column.name for column in view.columns if column.name in wanted)
    return (*names, GONE) if repairs and view.tombstone is None else names


def required_schema(job: type[Job], *, repairs: bool = False) -> pa.Schema:
    """Arrow schema of `required_columns`."""
    view = job.features.view
    known = {column.name: column.field for column in view.columns}
    mark = pa.field(GONE, pa.timestamp("us"))
    return pa.schema([known.get(name, mark) for name in required_columns(job, repairs=repairs)])


_NO_COLUMN = re.compile(
    r"""(?:Field|Column) (["']?)(.+)\1 (?:does not exist in schema|not found)"""
)
"""What Arrow says when a batch has no such column."""


@contextmanager
def reading_inputs_only(job: type[Job]) -> Iterator[None]:
    """Around the job's own code, which is given its inputs: a DeclarationError names any other column."""
    try:
        yield
    except KeyError as error:
        found = _NO_COLUMN.fullmatch(str(error.args[0])) if error.args else None
        if found is None:
            raise
        message = (
            f"{job.name}: its code reads the column {found[2]!r}, which is not one of its inputs"
        )
        near = difflib.get_close_matches(found[2], job.inputs, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        hint = f"{meant}`inputs` of the job names: {', '.join(job.inputs)}"
        raise job.place.error(message, hint=hint) from error
