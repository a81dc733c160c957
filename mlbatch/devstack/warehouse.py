"""The local Redshift as a process of its own, with its three faces, on a DuckDB file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mlbatch.devstack.objects import ACCESS_KEY, REGION, SECRET_KEY, ObjectServer
from mlbatch.devstack.process import LOOPBACK, Service, http_answers, port_answers

NAME = "redshift"
DATABASE = "dev"
USER = "awsuser"
TOKEN = "devstack"  # noqa: S105  a name; its secret is made anew for each stack
QUEUERY_PREFIX = "queuery/"


@dataclass(frozen=True, slots=True)
class Ports:
    """One for each face."""

    wire: int
    data_api: int
    queuery: int


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A Redshift that unloads to ``store``, listening on ``ports`` of the loopback."""

    folder: Path
    ports: Ports
    store: ObjectServer
    password: str = field(repr=False)
    token_secret: str = field(repr=False)
    name: str = NAME

    @property
    def endpoint(self) -> str:
        """Of the Data API; its faults are changed here too."""
        return f"http://{LOOPBACK}:{self.ports.data_api}"

    @property
    def queuery_endpoint(self) -> str:
        """Of Queuery."""
        return f"http://{LOOPBACK}:{self.ports.queuery}"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "redshift.log"

    def prepare(self) -> Service:
        """Write its configuration; how it is started then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config.unlink(missing_ok=True)
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        command = [sys.executable, "-m", "mlbatch.devstack.redshift.serve"]
        command += ["--config", str(self._config)]
        return Service(self.name, command, self.folder, self.log, self.answers)

    def answers(self) -> bool:
        """Whether it serves."""
        http = (f"{self.endpoint}/_faults", f"{self.queuery_endpoint}/_faults")
        return all(http_answers(url) for url in http) and port_answers(self.ports.wire)

    def complete(self) -> None:
        """It needs nothing more once it answers."""

    def clear(self) -> None:
        """Nothing lies outside of ``folder``."""

    @property
    def _config(self) -> Path:
        return self.folder.absolute() / "redshift.json"

    def _configuration(self) -> dict[str, object]:
        return {
            "host": LOOPBACK,
            # DuckDB calls a database by its file's name.
            "database": str(self.folder.absolute() / f"{DATABASE}.duckdb"),
            "store": {
                "endpoint": self.store.endpoint,
                "region": REGION,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
            },
            "wire": {"port": self.ports.wire, "users": {USER: self.password}},
            "data_api": {"port": self.ports.data_api},
            "queuery": {
                "port": self.ports.queuery,
                "tokens": {TOKEN: self.token_secret},
                "bucket": self.store.bucket,
                "prefix": QUEUERY_PREFIX,
            },
        }
