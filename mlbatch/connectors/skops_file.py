"""Models as files: skops for the estimator, JSON for the card. Nothing is ever unpickled.

The weights of a linear model, which are nearly all of it, are a file of their own: it is mapped into
memory, so that loading copies nothing and all processes of a machine share one copy.

The card, ``mlbatch-model.json``, holds the SHA-256 of every other file; its own SHA-256 is the
model's digest, which the registry and the run's ledger row carry. Files are verified before any is
opened, and only types on a list kept in code are loaded.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from skops import io as skops_io

from mlbatch.calibration import Sigmoid, Temperature
from mlbatch.errors import ModelIncompatible, ModelTampered
from mlbatch.model import TrainedModel

CARD = "mlbatch-model.json"
ESTIMATOR = "model.skops"
WEIGHTS = "coef.npy"
FORMAT = 2
_READABLE = {1: ({ESTIMATOR},), FORMAT: ({ESTIMATOR}, {ESTIMATOR, WEIGHTS})}
"""Formats, and which files a model of each consists of; 1 kept the weights in the estimator."""
_CALIBRATIONS: dict[str, Any] = {"sigmoid": Sigmoid, "temperature": Temperature}


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the job and this installation demand of a model."""

    classes: tuple[str | int | bool, ...]
    inputs: tuple[str, ...]
    dictionary: str
    """Fingerprint of the tokeniser's dictionary."""
    trusted: tuple[str, ...]
    """Types that a model file may contain beside scikit-learn's own."""


def save_model(model: TrainedModel, folder: Path, *, dictionary: str) -> str:
    """Write ``model`` into ``folder``; returns the digest of its card."""
    folder.mkdir(parents=True, exist_ok=True)
    files = _dump(model.pipeline, folder)
    kind = next(k for k, cls in _CALIBRATIONS.items() if isinstance(model.calibration, cls))
    card = {
        "format": FORMAT,
        "files": {name: _sha256(folder / name) for name in files},
        "scikit_learn": sklearn.__version__,
        "dictionary": dictionary,
        "inputs": list(model.inputs),
        "classes": list(model.classes),
        "threshold": model.threshold,
        "calibration": {"kind": kind, **model.calibration.to_json()},
    }
    text = json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True)
    (folder / CARD).write_text(text, encoding="utf-8")
    return _sha256(folder / CARD)


def _dump(pipeline: Any, folder: Path) -> tuple[str, ...]:  # noqa: ANN401  any pipeline
    """Write the estimator's files; returns their names."""
    coef = getattr(pipeline[-1], "coef_", None)
    if not isinstance(coef, np.ndarray):
        skops_io.dump(pipeline, folder / ESTIMATOR)
        return (ESTIMATOR,)
    bare, classifier = copy.copy(pipeline), copy.copy(pipeline[-1])
    del classifier.coef_
    bare.steps = [*pipeline.steps[:-1], (pipeline.steps[-1][0], classifier)]
    skops_io.dump(bare, folder / ESTIMATOR)
    # In any other order the product with a sparse batch would copy all of it, every time.
    np.save(folder / WEIGHTS, np.asfortranarray(coef), allow_pickle=False)
    return ESTIMATOR, WEIGHTS


def load_model(folder: Path, *, digest: str, expected: Expectations) -> TrainedModel:
    """Verify every file of ``folder`` against ``digest``, then load.

    Raises ModelTampered when a file is not the registered one or holds a type that is not trusted,
    and ModelIncompatible when the model was made by another scikit-learn or dictionary, or for other
    inputs or labels.
    """
    card = _verified_card(folder, digest)
    _check_fit(card, expected)
    pipeline = _load_estimator(folder / ESTIMATOR, expected.trusted)
    if WEIGHTS in card["files"]:
        mapped = np.load(folder / WEIGHTS, mmap_mode="r", allow_pickle=False)
        pipeline[-1].coef_ = np.asarray(mapped)
    elif isinstance(getattr(pipeline[-1], "coef_", None), np.ndarray):
        pipeline[-1].coef_ = np.asfortranarray(pipeline[-1].coef_)
    calibration = dict(card["calibration"])
    kind = calibration.pop("kind")
    return TrainedModel(
        pipeline=pipeline,
        classes=tuple(card["classes"]),
        calibration=_CALIBRATIONS[kind].from_json(calibration),
        threshold=card["threshold"],
        inputs=tuple(card["inputs"]),
    )


def _verified_card(folder: Path, digest: str) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        raise ModelTampered(f"the model in {folder} has no {CARD}", hint=_RETRAIN)
    if _sha256(path) != digest:
        message = f"the model's {CARD} is not the registered one (digest {digest[:12]})"
        raise ModelTampered(message, hint=_RETRAIN)
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if set(card["files"]) not in _READABLE.get(card.get("format", 0), ()):
        message = f"the model is of format {card.get('format')}, this mlbatch reads {FORMAT}"
        raise ModelIncompatible(message, hint=_RETRAIN)
    for name, registered in card["files"].items():
        file = folder / name
        if not file.is_file() or file.is_symlink() or _sha256(file) != registered:
            raise ModelTampered(f"the model's {name} is not the registered one", hint=_RETRAIN)
    return card


_RETRAIN = "train again, or promote an earlier version"


def _check_fit(card: dict[str, Any], expected: Expectations) -> None:
    wanted = {
        "scikit_learn": ("scikit-learn", sklearn.__version__),
        "dictionary": ("tokeniser dictionary", expected.dictionary),
        "inputs": ("inputs", list(expected.inputs)),
        "classes": ("labels", list(expected.classes)),
    }
    for field, (name, here) in wanted.items():
        if card[field] != here:
            message = f"the model was made with {name} {card[field]}, here it is {here}"
            raise ModelIncompatible(message, hint=_RETRAIN)


def _load_estimator(file: Path, trusted: Sequence[str]) -> Any:  # noqa: ANN401  any pipeline
    foreign = set(skops_io.get_untrusted_types(file=file)) - set(trusted)
    if foreign:
        message = f"the model holds types that are not trusted: {', '.join(sorted(foreign))}"
        hint = "if they are the job's own, name them in its `trusted_types`"
        raise ModelTampered(message, hint=hint)
    return skops_io.load(file, trusted=list(trusted))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
