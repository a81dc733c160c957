"""Finds the jobs of a project folder. One job's error never hides the others.

A project is a folder with ``mlbatch.toml``; its jobs are ``jobs/<name>/job.py``, its views
``feature_store/*.py``.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mlbatch.errors import DeclarationError, UsageError
from mlbatch.job import Job, check_one_writer

MARKER = "mlbatch.toml"
_PACKAGES = ("jobs", "feature_store")
_CODE = frozenset({".py", ".sql"})
_FRAMEWORK = __name__.partition(".")[0]


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
    for folder in _job_folders(root / "jobs"):
        name, file = folder.name, folder / "job.py"
        try:
            if _is_there(file):
                jobs[name] = _load_job(name, file)
        except DeclarationError as error:
            faults[name] = error
    rivals = check_one_writer(jobs)
    kept = {name: job for name, job in jobs.items() if name not in rivals}
    return Project(root, kept, faults | rivals)


def _job_folders(jobs: Path) -> list[Path]:
    # What a glob may not read is for it not there, and a job that vanished would pass for none.
    try:
        found = sorted(jobs.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(jobs, error) from error
    return [folder for folder in found if not folder.name.startswith((".", "__"))]


def _is_there(file: Path) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(file.parent, error) from error
    return True


def _unreadable(folder: Path, error: OSError) -> DeclarationError:
    message = f"{folder} cannot be read: {error.strerror}"
    return DeclarationError(message, hint="let the account that runs mlbatch read it", file=folder)


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
    """SHA-256 over the code that decides a job's predictions, the same in every process and folder.

    That is all Python and SQL below the job's folder, its feature view, and what these import from
    within the project, directly or not; mlbatch itself is not of the project, even where it lies there.
    A run that was started with other code is not silently continued.
    """
    root = _root_of(job)
    own = {Path(p) for p in (job.features.view.place.file, job.features.view.query.file) if p}
    if job.place.file:
        own |= set(_code_below(Path(job.place.file).parent))
    files = own if root is None else _with_imports(own, root)
    digest = hashlib.sha256()
    for name, file in sorted((_name_below(root, file), file) for file in files):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _root_of(job: type[Job]) -> Path | None:
    """The folder from which the job's module was imported; None where it has no file."""
    if job.place.file is None:
        return None
    return Path(job.place.file).parents[job.__module__.count(".")]


def _code_below(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix in _CODE and not hidden and file.is_file():
            yield file


def _name_below(root: Path | None, file: Path) -> str:
    return file.relative_to(root).as_posix() if root and file.is_relative_to(root) else file.name


def _with_imports(files: set[Path], root: Path) -> set[Path]:
    """``files``, and those below ``root`` that they import, and so on."""
    found, waiting = set(files), [file for file in files if file.is_relative_to(root)]
    names: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file.suffix == ".py":
            imported = set(_imports(file, root)) - names
            names |= imported
            fresh = {f for name in imported for f in _sources(name, root)} - found
            found |= fresh
            waiting += fresh
    return found


def _imports(file: Path, root: Path) -> Iterator[str]:
    """Dotted names that ``file`` may import. Read, not run: what is loaded by now does not matter."""
    package, tree = file.relative_to(root).parent.parts, ast.Module([], [])
    # What does not parse, somebody's scratch file, cannot be imported either.
    with suppress(SyntaxError, ValueError):
        tree = ast.parse(file.read_bytes(), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            start = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _sources(name: str, root: Path) -> Iterator[Path]:
    """The modules of the project that an import of ``name`` runs, its packages' own included."""
    place, parts = root, name.split(".")
    for part in parts if parts[0] != _FRAMEWORK else ():
        place = place / part
        choices = (place.with_suffix(".py"), place / "__init__.py")
        yield from (file for file in choices if file.is_file())
