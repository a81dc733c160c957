"""Chooses the model that a new run is pinned to, and fetches it.

A table is made by one version of a model. Its runs keep to that version, whatever the champion is
meanwhile; another one comes by `mlbatch.switching`, or in place where somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mlbatch.errors import ModelIncompatible, ModelTampered, UsageError
from mlbatch.job import Job
from mlbatch.ledger import ModelPin, Run, served
from mlbatch.scoring import Predictor
from mlbatch.tracking import CHAMPION, ModelVersion

if TYPE_CHECKING:
    from mlbatch.planner import Request
    from mlbatch.tools import Tools


def resolve(job: type[Job], wanted: str, tools: Tools) -> ModelPin:
    """The version that an alias or number stands for; UsageError where there is none."""
    version = tools.tracking.resolve(job.name, wanted)
    if version is None:
        message = f"{job.name} has no model {wanted!r}"
        hint = f"train one: mlbatch run {job.name} --mode train"
        if wanted != CHAMPION:
            hint = (
                f"name an alias or a number, such as 1; mlbatch show {job.name} names the champion"
            )
        raise UsageError(message, hint=hint)
    return ModelPin(version.name, version.version, version.digest)


def pin_for(
    job: type[Job], request: Request, runs: tuple[Run, ...], tools: Tools, wanted: str
) -> ModelPin:
    """The model of a new run beside ``runs``, which are those of its generation, newest first.

    It is the one that made the table, unless nothing did yet or ``request`` says in place. Raises
    UsageError where ``wanted`` names another version outright.
    """
    before = served(runs)
    if before is None or request.in_place:
        return resolve(job, wanted, tools)
    if wanted != CHAMPION:
        _check_same(job, resolve(job, wanted, tools), before)
        return before
    champion = tools.tracking.resolve(job.name)
    if champion is not None and champion.version != before.version:
        table = job.output.table.name
        line = f"{table} is of model v{before.version} and stays so, the champion is v{champion.version}: "
        tools.notify("notice", line + ways(job))
    return before


def ways(job: type[Job]) -> str:
    """How a table comes to another model, for people."""
    return (
        f"`mlbatch switch {job.name}` changes the model, "
        f"`mlbatch run {job.name} --mode infer --in-place` does so under the readers' eyes"
    )


def _check_same(job: type[Job], wanted: ModelPin, before: ModelPin) -> None:
    if wanted.version != before.version:
        message = (
            f"{job.output.table.name} is of model v{before.version}, "
            f"and v{wanted.version} would be mixed into it"
        )
        raise UsageError(message, hint=ways(job))


def loader(job: type[Job], pin: ModelPin, tools: Tools) -> Callable[[], Predictor]:
    """Load the pinned model once here, so that a refusal comes before any row.

    It is fetched unless it is here since an earlier run: every file is verified against the pin's digest
    before it is opened, wherever it comes from.
    """
    folder = tools.models / pin.name / str(pin.version)
    load = partial(tools.load_model, job, folder, pin.digest)
    try:
        load()
    except ModelTampered:
        tools.tracking.fetch(ModelVersion(pin.name, pin.version, pin.digest), folder)
        load()
    return load


def first_loader(
    job: type[Job], pin: ModelPin, runs: tuple[Run, ...], tools: Tools
) -> Callable[[], Predictor]:
    """The model of a new run; where the table's own is no longer usable, the way to another one."""
    try:
        return loader(job, pin, tools)
    except (ModelTampered, ModelIncompatible) as error:
        if served(runs) is not None:
            error.hint = (
                f"{error.hint or 'train another model'}; then {ways(job)}; where another project made "
                f"{job.output.table.name}, give one of the two a database or a table of its own"
            )
        raise


def pinned_loader(job: type[Job], run: Run, tools: Tools) -> Callable[[], Predictor]:
    """The model that an unfinished run was created with, or a way out when it is no longer usable."""
    try:
        return loader(job, run.new.model, tools)
    except (ModelTampered, ModelIncompatible) as error:
        error.hint = (
            f"run {run.run_id} is pinned to it; --supersede starts anew with the champion, "
            "together with --in-place where the table was finished before"
        )
        raise
