"""What the tests of faulty connections share."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager

import pytest

from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.errors import (
    ExitCode,
    MlbatchError,
    RunFailed,
    SettingsError,
    SnapshotError,
    TemporaryError,
)

NUMBERS = "SELECT i FROM generate_series(1, 100) g(i)"
EXIT = {
    RunFailed: ExitCode.FAILED,
    SnapshotError: ExitCode.FAILED,
    SettingsError: ExitCode.USAGE,
    TemporaryError: ExitCode.TEMPORARY,
}


def short(_):
    """Instead of seconds. Asking without any pause would take the time of whoever answers."""
    time.sleep(0.01)


@contextmanager
def fails(kind, match):
    """The block fails with exactly this class, its exit code, and these words."""
    with pytest.raises(MlbatchError, match=match) as caught:
        yield caught
    assert type(caught.value) is kind
    assert caught.value.exit_code == EXIT[kind]


@contextmanager
def serving(face):
    """A face that answers for as long as the block lasts."""
    face.start()
    try:
        yield face
    finally:
        face.stop()


class TurningUrls(S3Objects):
    """Never gives the same URL twice, as with the real one's signatures."""

    turns = itertools.count()

    def presigned(self, uri, seconds):
        return f"{super().presigned(uri, seconds)}&turn={next(self.turns)}"
