"""A job's model is tried on two invented rows, before anything is unloaded for it.

What it cannot do at all, it then says at once, and not after an hour's unload.
"""

from __future__ import annotations

import inspect
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from mlbatch.errors import DeclarationError
from mlbatch.job import Job, reading_inputs_only

if TYPE_CHECKING:
    from mlbatch.declaration import Column

_ROWS = 2
_SHAPE = "it is a Pipeline: steps that make features, and a classifier that learns by partial_fit"
_TAUGHT = (
    "its partial_fit takes classes and sample_weight, as those of SGDClassifier, Perceptron and "
    "BernoulliNB do; labels of few rows weigh more, so that each counts alike"
)
_STATELESS = (
    "features are made of one batch after the other, and keep no state: words() and characters() of "
    "mlbatch.text, HashingVectorizer, FeatureHasher, FunctionTransformer and a make_union of such; "
    "scale numbers by constants, in the .sql file or in a FunctionTransformer"
)


def rehearse(job: type[Job]) -> None:
    """Build the job's pipeline and let its steps but the last transform `invented` rows.

    Raises DeclarationError where it is no such pipeline, where a step must be fitted before it
    transforms, and where one reads a column that is not an input.
    """
    pipeline = _built(job)
    rows = invented(job)
    for count in range(1, len(pipeline.steps)):
        try:
            with reading_inputs_only(job):
                pipeline[:count].transform(rows)
        except NotFittedError as error:
            name, step = pipeline.steps[count - 1]
            message = (
                f"{job.name}: the step {name!r} of its pipeline, a {type(step).__name__}, would have "
                "to be fitted before it makes features"
            )
            raise job.place.error(message, hint=_STATELESS) from error
        except DeclarationError:
            raise
        except Exception:  # noqa: BLE001  the job's own code may rightly refuse what was invented
            return


def _built(job: type[Job]) -> Pipeline:
    try:
        pipeline: Any = job.model()
    except Exception as error:
        message = f"{job.name}: its model cannot be built: {type(error).__name__}: {error}"
        raise job.place.error(message, hint=_SHAPE) from error
    if not isinstance(pipeline, Pipeline) or not pipeline.steps[:-1]:
        message = f"{job.name}: its model is a {type(pipeline).__name__} that makes no features"
        raise job.place.error(message, hint=_SHAPE)
    _check_classifier(job, pipeline.steps[-1][1])
    return pipeline


def _check_classifier(job: type[Job], classifier: Any) -> None:  # noqa: ANN401  any classifier
    last = f"{job.name}: the last step of its pipeline, a {type(classifier).__name__},"
    if not hasattr(classifier, "partial_fit"):
        raise job.place.error(f"{last} has no partial_fit", hint=_SHAPE)
    try:
        inspect.signature(classifier.partial_fit).bind(
            "rows", "labels", classes=None, sample_weight=None
        )
    except TypeError as error:
        message = f"{last} cannot be taught with weights and all labels: its partial_fit {error}"
        raise job.place.error(message, hint=_TAUGHT) from error


def invented(job: type[Job]) -> pa.RecordBatch:
    """Two rows of the job's inputs, of their types and within what is declared of them."""
    columns = [job.features.view.column(name) for name in job.inputs]
    arrays = [pa.array([_value(column)] * _ROWS, column.type) for column in columns]
    return pa.record_batch(arrays, schema=pa.schema([column.field for column in columns]))


def _value(column: Column) -> object:
    if column.choices:
        return column.choices[0]
    bounds = [bound for bound in (column.lower, column.upper) if bound is not None]
    number = bounds[0] if bounds else 1
    values: dict[pa.DataType, object] = {
        pa.bool_(): True,
        pa.int64(): int(number),
        pa.float64(): float(number),
        pa.date32(): date(2026, 1, 1),
        pa.timestamp("us"): datetime(2026, 1, 1),  # noqa: DTZ001  as sources have them
    }
    return values.get(column.type, "text")
