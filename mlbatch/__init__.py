"""mlbatch: train on the warehouse, write predictions back, exactly once.

The names that a job author needs are importable from here; they are loaded on first use,
so that ``import mlbatch`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from annotated_doc import Doc
    from annotated_types import Ge, Le, MaxLen

    from mlbatch.gates import Gate
    from mlbatch.job import Delta, Job, Limits, Training
    from mlbatch.model import Prediction
    from mlbatch.table import Output
    from mlbatch.view import FeatureView

__version__ = "0.1.0"

_HOMES = {
    "Delta": "mlbatch.job",
    "Doc": "annotated_doc",
    "FeatureView": "mlbatch.view",
    "Gate": "mlbatch.gates",
    "Ge": "annotated_types",
    "Job": "mlbatch.job",
    "Le": "annotated_types",
    "Limits": "mlbatch.job",
    "MaxLen": "annotated_types",
    "Output": "mlbatch.table",
    "Prediction": "mlbatch.model",
    "Training": "mlbatch.job",
}

__all__ = [
    "Delta",
    "Doc",
    "FeatureView",
    "Gate",
    "Ge",
    "Job",
    "Le",
    "Limits",
    "MaxLen",
    "Output",
    "Prediction",
    "Training",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module 'mlbatch' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)
