"""The one tree of errors. Whatever leaves mlbatch on purpose is one of these.

::

    MlbatchError                     1   failed, a human is needed
    ├── UsageError                   2   typed or configured wrongly; retrying is useless
    │   ├── DeclarationError         2   a job, view, output or .sql file is wrong; names file and line
    │   ├── SettingsError            2   mlbatch.toml or the environment is wrong
    │   └── ModelIncompatible        2   the model was made by another scikit-learn, dictionary or job
    ├── RunFailed                    1   a run stopped; the ledger says how far it came
    │   ├── SnapshotError            1   the unloaded parts are not what was promised
    │   ├── ModelTampered            1   a model's files are not the registered ones
    │   ├── PredictionError          1   a model's answer has the wrong shape
    │   ├── NoAccess                 1   this account may not read or write a file, or it is not there
    │   ├── QuarantineLimitError     1   more rows were set aside than the job allows
    │   └── ConservationError        1   rows read and rows accounted for differ
    ├── GateRefused                  3   a quality gate said no; nothing was published
    └── TemporaryError              75   try again later
        ├── OutOfResources          75   this machine has no disk, memory or file descriptor left
        ├── Busy                    75   somebody else works on this output table
        └── Fenced                  75   somebody else took this run over; this process stops
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ExitCode(IntEnum):
    """What the command line returns, for schedulers to act on."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    QUARANTINED = 4
    TEMPORARY = 75
    INTERRUPTED = 130
    TERMINATED = 143


class MlbatchError(Exception):
    """Something failed."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """``message`` says what happened and where; ``hint`` says what to do next."""
        self.message = message or (self.__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)


class UsageError(MlbatchError):
    """The command or its configuration is wrong."""

    exit_code = ExitCode.USAGE


class DeclarationError(UsageError):
    """A declaration is wrong."""

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        file: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        """``file``, ``line`` and ``column`` (both from 1) point at the declaration to mend."""
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.column = column

    @property
    def location(self) -> str | None:
        """``file:line:column``, as far as it is known."""
        if self.file is None:
            return None
        places = [str(self.file)]
        places += [str(n) for n in (self.line, self.column) if n is not None]
        return ":".join(places)

    def __str__(self) -> str:
        """The message with the place in front, for logs and tracebacks."""
        return f"{self.location}: {self.message}" if self.location else self.message


class SettingsError(UsageError):
    """The settings are wrong."""


class ModelIncompatible(UsageError):
    """The model does not fit this installation or this job."""


class RunFailed(MlbatchError):
    """The run failed."""


class SnapshotError(RunFailed):
    """The unloaded parts are not what was promised."""


class ModelTampered(RunFailed):
    """The model's files are not the registered ones."""


class PredictionError(RunFailed):
    """The model's answer has the wrong shape."""


class NoAccess(RunFailed):
    """A file or folder cannot be read or written."""


class QuarantineLimitError(RunFailed):
    """More rows were quarantined than the job allows."""


class ConservationError(RunFailed):
    """Rows read and rows accounted for differ."""


class GateRefused(MlbatchError):
    """A gate refused to publish."""

    exit_code = ExitCode.REFUSED


class TemporaryError(MlbatchError):
    """Something is not available now; try again later."""

    exit_code = ExitCode.TEMPORARY


class OutOfResources(TemporaryError):
    """This machine has no room left."""


_SHORTAGES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk's quota is used up",
    errno.EFBIG: "a file would become larger than this process may write",
    errno.EMFILE: "this process may open no more files",
    errno.ENFILE: "this machine may open no more files",
    errno.ENOMEM: "memory is used up",
}
_SHORTAGE_HINT = "what was committed stays; make room, then run again: it goes on from there"


def out_of_resources(error: BaseException) -> OutOfResources | None:
    """What ``error``, or one behind it, says of this machine; None where that is nothing.

    Libraries that have no numbers for such errors quote the system's words.
    """
    for cause in causes(error):
        number = getattr(cause, "errno", None)
        if isinstance(cause, MemoryError):
            number = errno.ENOMEM
        said = [n for n in _SHORTAGES if n == number or os.strerror(n) in str(cause)]
        if said:
            return OutOfResources(f"{_SHORTAGES[said[0]]}: {cause}", hint=_SHORTAGE_HINT)
    return None


_BARRED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def barred(error: BaseException) -> NoAccess | None:
    """Which file ``error``, or one behind it, was kept from; None where it was not.

    Connections are refused by the same numbers, and name no path.
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in _BARRED and os.sep in str(cause):
            hint = "let the account that runs mlbatch read and write there, then run again"
            return NoAccess(_of_file(cause), hint=hint)
    return None


_ASTRAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})


def astray(error: OSError) -> NoAccess | None:
    """Which path leads to no file of the kind that ``error`` wanted; None where it is about none."""
    if error.errno not in _ASTRAY or not error.filename:
        return None
    return NoAccess(_of_file(error), hint="look at that path, and at what names it")


def _of_file(error: OSError) -> str:
    # Arrow's errors hold the path in their text alone.
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and those behind it, the nearest first, each once: some lead back to themselves."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class Busy(TemporaryError):
    """Somebody else works on this output table."""


class Fenced(TemporaryError):
    """Another process took this run over."""
