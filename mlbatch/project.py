"""Finds the jobs of a project folder. One job's error never hides the others.

A project is a folder with ``mlbatch.toml``; its jobs are ``jobs/<name>/job.py``, its views
``feature_store/*.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mlbatch.errors import DeclarationError, UsageError
from mlbatch.job import Job, check_one_writer

MARKER = "mlbatch.toml"
_PACKAGES = ("jobs", "feature_store")


@dataclass(frozen=True, slots=True)
class Project:
    """The jobs of one folder, and what is wrong with the others."""

    root: Path
    jobs: dict[str, type[Job]]
    faults: dict[str, DeclarationError]

    def job(self, name: str) -> type[Job]:
        """The job called ``name``; a faulty or unknown one raises a UsageError."""
        if name in self.faults:
            raise self.faults[name]
        if name not in self.jobs:
            near = difflib.get_close_matches(name, self.jobs, n=1)
            known = ", ".join(self.jobs) or "none"
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise UsageError(f"no job called `{name}`", hint=f"{hint}Jobs here: {known}")
        return self.jobs[name]


def find_root(start: Path) -> Path:
    """The nearest folder from ``start`` upwards that holds mlbatch.toml."""
    for folder in (start, *start.parents):
        if (folder / MARKER).is_file():
            return folder
    message = f"no {MARKER} in {start} or above it"
    raise UsageError(message, hint=f"go to your project's folder, or make an empty {MARKER} there")


def load_project(root: Path) -> Project:
    """Import every ``jobs/*/job.py`` below ``root``."""
    make_importable(root)
    jobs: dict[str, type[Job]] = {}
    faults: dict[str, DeclarationError] = {}
    for file in sorted(root.glob("jobs/*/job.py")):
        name = file.parent.name
        try:
            jobs[name] = _load_job(name, file)
        except DeclarationError as error:
            faults[name] = error
    rivals = check_one_writer(jobs)
    kept = {name: job for name, job in jobs.items() if name not in rivals}
    return Project(root, kept, faults | rivals)


def load_job(root: Path, name: str) -> type[Job]:
    """Import one job alone, as worker processes do."""
    make_importable(root)
    return _load_job(name, root / "jobs" / name / "job.py")


def make_importable(root: Path) -> None:
    """Let ``jobs`` and ``feature_store`` mean this project's folders, and nobody else's."""
    for package in _PACKAGES:
        loaded = sys.modules.get(package)
        folder = str(root / package)
        if loaded is None or list(getattr(loaded, "__path__", [])) != [folder]:
            # Another project's packages may be loaded or findable, in tests and notebooks.
            for name in [n for n in sys.modules if n.partition(".")[0] == package]:
                del sys.modules[name]
            module = ModuleType(package)
            module.__path__ = [folder]
            sys.modules[package] = module
    path = str(root)
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)
    importlib.invalidate_caches()


def imported_root() -> Path | None:
    """The project whose folders `make_importable` made these packages mean; None where it did not."""
    for package in map(sys.modules.get, _PACKAGES):
        if package is not None and package.__spec__ is None:
            return Path(package.__path__[0]).parent
    return None


def _load_job(name: str, file: Path) -> type[Job]:
    try:
        module = importlib.import_module(f"jobs.{name}.job")
    except UsageError as error:
        if isinstance(error, DeclarationError) and error.file is not None:
            raise
        # A value that is wrong by itself, as a Gate, does not know where it stands.
        place, line = _place_of(error, file)
        raise DeclarationError(error.message, hint=error.hint, file=place, line=line) from error
    except (Exception, SystemExit) as error:
        # A script that exits would take the other jobs along.
        message = f"jobs/{name} cannot be imported: {type(error).__name__}: {error}"
        place, line = _place_of(error, file)
        raise DeclarationError(message, file=place, line=line) from error
    found = [v for v in vars(module).values() if _is_own_job(v, module)]
    if len(found) != 1:
        message = f"jobs/{name}/job.py declares {len(found)} jobs, not one"
        raise DeclarationError(message, hint="one folder, one Job class", file=file)
    return found[0]


def _is_own_job(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Job) and value.__module__ == module.__name__
    )


def _place_of(error: BaseException, file: Path) -> tuple[str, int | None]:
    """The innermost line of the project's own files that led to ``error``."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return error.filename, error.lineno
    # Not all of its root: an environment may lie there, with what the project's files call.
    homes = tuple(f"{file.parents[2] / package}{os.sep}" for package in _PACKAGES)
    place: tuple[str, int | None] = (str(file), None)
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(homes):
            place = (name, trace.tb_lineno)
        trace = trace.tb_next
    return place


def code_digest(job: type[Job]) -> str:
    """SHA-256 over what decides a job's predictions: its folder and its feature view.

    A run that was started with other code is not silently continued.
    """
    files = {Path(p) for p in (job.place.file, job.features.view.place.file) if p}
    files |= {Path(f) for f in (job.features.view.query.file,) if f}
    if job.place.file:
        folder = Path(job.place.file).parent
        files |= {*folder.glob("*.py"), *folder.glob("*.sql")}
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.name):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
