"""From a fitted model to a registered, perhaps promoted, one; on disk until it is there."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlbatch.errors import GateRefused, MlbatchError, UsageError
from mlbatch.gates import Verdict, judge
from mlbatch.tracking import ModelVersion, TrainingRecord

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.model import TrainedModel
    from mlbatch.tools import Tools

_RECORD = "record.json"
_MODEL = "model"
_PREFIX = "training-"


@dataclass(frozen=True, slots=True)
class Registered:
    """How a fitted model was taken."""

    version: ModelVersion
    verdicts: tuple[Verdict, ...]
    promoted: bool

    def require_promotion(self, job: str) -> None:
        """Raise GateRefused when a gate refused the new version."""
        if not self.promoted:
            refused = "; ".join(str(v) for v in self.verdicts if not v.passed)
            message = f"{job} version {self.version.version} was not promoted: {refused}"
            raise GateRefused(message, hint="the champion, if there is one, stays in service")


def keep(model: TrainedModel, training: TrainingRecord, training_id: str, tools: Tools) -> None:
    """Put the model and what is known of it where `register` finds them."""
    folder = _folder(training.job, training_id, tools)
    digest = tools.save_model(model, folder / _MODEL)
    known = {"digest": digest, "training": asdict(training)}
    (folder / _RECORD).write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")


def register(job: type[Job], training_id: str, tools: Tools) -> Registered:
    """Register a model that was kept, and promote it when its gates hold; then it is kept no more.

    Raises UsageError when no such training is kept. Any other error leaves it there to try again.
    """
    folder = _folder(job.name, training_id, tools)
    if not (folder / _RECORD).is_file():
        kept = sorted(path.parent.name.removeprefix(_PREFIX) for path in _records(job, tools))
        message = f"{job.name} has no training {training_id} that waits to be registered"
        raise UsageError(message, hint=f"there is: {', '.join(kept) or 'none'}")
    try:
        registered = _register(job, folder, tools)
    except MlbatchError as error:
        again = f"the fitted model is kept; then: mlbatch register {job.name} {training_id}"
        error.hint = f"{error.hint}; {again}" if error.hint else again
        raise
    shutil.rmtree(folder)
    return registered


def _register(job: type[Job], folder: Path, tools: Tools) -> Registered:
    known = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    training = TrainingRecord(**known["training"])
    champion = tools.tracking.resolve(job.name)
    version = tools.tracking.record(training, folder / _MODEL, known["digest"])
    verdicts = judge(job.gates, training.metrics, champion.metrics if champion else {})
    promoted = all(verdict.passed for verdict in verdicts)
    if promoted:
        tools.tracking.promote(version)
    return Registered(version, verdicts, promoted)


def _folder(job: str, training_id: str, tools: Tools) -> Path:
    return tools.models / job / f"{_PREFIX}{training_id}"


def _records(job: type[Job], tools: Tools) -> list[Path]:
    return list((tools.models / job.name).glob(f"{_PREFIX}*/{_RECORD}"))
