"""What a stack remembers between two commands: ports, secrets, and which processes are its own."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlbatch.devstack import process
from mlbatch.devstack.process import Identity
from mlbatch.errors import MlbatchError

FILE = "stack.json"
Face = Literal["data_api", "wire", "queuery"]
"""By which of Redshift's faces the profile reads."""
PORTS = {
    "redshift": ("redshift_wire", "redshift_data_api", "redshift_queuery"),
    "s3": ("s3",),
    "mysql": ("mysql",),
    "mlflow": ("mlflow",),
}
"""Each server's ports, by name."""
_SECRETS = ("redshift", "queuery", "mysql_writer", "mysql_admin")


class Running(BaseModel):
    """A process that was started."""

    model_config = ConfigDict(extra="forbid")

    pid: int
    started_at: str
    mark: str
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    is_ready: bool = False
    """Whether it came as far as to serve."""

    @property
    def identity(self) -> Identity:
        """To recognise it by."""
        return Identity(self.pid, self.started_at, self.mark)


class State(BaseModel):
    """One stack."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    face: Face = "data_api"
    ports: dict[str, int]
    secrets: dict[str, str] = Field(repr=False)
    running: dict[str, Running] = {}

    @classmethod
    def fresh(cls) -> State:
        """Free ports and new secrets; nothing runs."""
        names = [name for names in PORTS.values() for name in names]
        ports = dict(zip(names, process.free_ports(len(names)), strict=True))
        return cls(ports=ports, secrets={name: secrets.token_hex(16) for name in _SECRETS})

    def serves(self, name: str) -> bool:
        """Whether the server called ``name`` was started to the end and still runs."""
        found = self.running.get(name)
        return found is not None and found.is_ready and process.is_alive(found.identity)


def read_state(root: Path) -> State | None:
    """The state of the stack in ``root``; None where there is none."""
    file = root / FILE
    try:
        return State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]["msg"]
        message = f"{file} cannot be read: {first}"
        hint = f"end its servers by hand, if there are any, and remove {root}"
        raise MlbatchError(message, hint=hint) from error


def write_state(root: Path, state: State) -> None:
    """Keep ``state``, readable for its owner alone; a reader sees the old or the new, whole."""
    part = root / f"{FILE}.part"
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(state.model_dump_json(indent=2), encoding="utf-8")
    os.replace(part, root / FILE)  # noqa: PTH105  that it replaces is the point
