"""A private MLflow: tracking server and model registry over SQLite, in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mlbatch.devstack.process import LOOPBACK, Service, http_answers

NAME = "mlflow"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # Seven processes more, for features that batches do not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@dataclass(frozen=True, slots=True)
class Registry:
    """MLflow with runs and artifacts below ``folder``, listening on ``port`` of the loopback."""

    folder: Path
    port: int
    name: str = NAME

    @property
    def uri(self) -> str:
        """Where clients find it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "mlflow.log"

    def prepare(self) -> Service:
        """How it is started."""
        (self.folder / "artifacts").mkdir(parents=True, exist_ok=True)
        return Service(
            self.name, self._command(), self.folder, self.log, self.answers, _ENVIRONMENT
        )

    def answers(self) -> bool:
        """Whether it serves."""
        return http_answers(f"{self.uri}/health")

    def complete(self) -> None:
        """It needs nothing more once it answers."""

    def clear(self) -> None:
        """Nothing lies outside of ``folder``."""

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--backend-store-uri", f"sqlite:///{self.folder.absolute() / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder.absolute() / "artifacts")),
            "--serve-artifacts",
            *("--host", LOOPBACK),
            *("--port", str(self.port)),
            *("--workers", "1"),
            # Pages of the internet that a browser shows must not reach it by a name of their own.
            *("--allowed-hosts", f"{LOOPBACK}:{self.port},localhost:{self.port}"),
        ]
