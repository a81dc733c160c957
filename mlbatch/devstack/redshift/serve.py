"""The local Redshift as a process: ``python -m mlbatch.devstack.redshift.serve --config FILE``.

It prints one line of JSON with the ports once every face answers, and stops on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import ssl
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlbatch.devstack.redshift.data_api import DataApi
from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.faults import Fault, Faults
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.devstack.redshift.queuery_face import QueueryFace
from mlbatch.errors import ExitCode


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreConfig(_Part):
    """The S3 that UNLOAD and COPY use."""

    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = Field(default=None, repr=False)


class WireConfig(_Part):
    """The PostgreSQL protocol, for redshift_connector."""

    port: int = 0
    users: dict[str, str] = Field(default={"awsuser": "secret"}, repr=False)
    certificate: Path | None = None
    """With ``key``: TLS is offered."""
    key: Path | None = None


class DataApiConfig(_Part):
    """The Data API."""

    port: int = 0
    page_rows: int = 1_000
    max_active: int = 500


class QueueryConfig(_Part):
    """Queuery's protocol."""

    port: int = 0
    tokens: dict[str, str] = Field(repr=False)
    bucket: str
    prefix: str = "queuery/"


class Config(_Part):
    """The whole file. A face that is not named is not started."""

    host: str = "127.0.0.1"
    database: Path | None = None
    """A DuckDB file; in memory when there is none."""
    store: StoreConfig = StoreConfig()
    slices: int = 2
    part_rows: int | None = None
    empty_unload: Literal["nothing", "schema_file"] = "nothing"
    faults: list[dict[str, Any]] = []
    wire: WireConfig | None = None
    data_api: DataApiConfig | None = None
    queuery: QueueryConfig | None = None


class Face(Protocol):
    """What every face has."""

    port: int

    def start(self) -> None:
        """Answer from now on."""
        ...

    def stop(self) -> None:
        """Hang up."""
        ...


class Server:
    """The engine and its faces."""

    def __init__(self, config: Config) -> None:
        """Binds every port."""
        store = S3Objects(
            config.store.endpoint,
            config.store.region,
            config.store.access_key,
            config.store.secret_key,
        )
        options = EngineOptions(config.slices, config.part_rows, config.empty_unload)
        faults = Faults([Fault.of(rule) for rule in config.faults])
        self.engine = Engine(config.database, store, faults, options)
        self.faces = _faces(self.engine, config)

    @property
    def ports(self) -> dict[str, int]:
        """Each face's port."""
        return {name: face.port for name, face in self.faces.items()}

    def start(self) -> None:
        """Answer on every port."""
        for face in self.faces.values():
            face.start()

    def stop(self) -> None:
        """Hang up, and close the database."""
        for face in self.faces.values():
            face.stop()
        self.engine.close()


def _faces(engine: Engine, config: Config) -> dict[str, Face]:
    faces: dict[str, Face] = {}
    if config.wire is not None:
        faces["wire"] = _wire(engine, config.host, config.wire)
    if config.data_api is not None:
        api = config.data_api
        faces["data_api"] = DataApi(
            engine, config.host, api.port, page_rows=api.page_rows, max_active=api.max_active
        )
    if config.queuery is not None:
        queuery = config.queuery
        faces["queuery"] = QueueryFace(
            engine,
            config.host,
            queuery.port,
            tokens=queuery.tokens,
            bucket=queuery.bucket,
            prefix=queuery.prefix,
        )
    return faces


def _wire(engine: Engine, host: str, config: WireConfig) -> Face:
    # The face stands on its own, and is loaded only where it is wanted.
    server = import_module("mlbatch.devstack.redshift.wire").WireServer
    made: Face = server(engine, host, config.port, config.users, _tls(config))
    return made


def _tls(config: WireConfig) -> ssl.SSLContext | None:
    if config.certificate is None or config.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.certificate, config.key)
    return context


def read_config(file: Path) -> Config:
    """The configuration in ``file``; ValueError says what is wrong with it."""
    try:
        return Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{file}: {place}: {first['msg']}"
        raise ValueError(message) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m mlbatch.devstack.redshift.serve")
    parser.add_argument("--config", type=Path, required=True, help="a JSON file")
    file = parser.parse_args(arguments).config
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server = Server(read_config(file))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot start the local Redshift: {error}\n")
        return ExitCode.USAGE
    server.start()
    sys.stdout.write(json.dumps(server.ports) + "\n")
    sys.stdout.flush()
    stopped.wait()
    server.stop()
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
