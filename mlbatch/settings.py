"""The only reader of ``mlbatch.toml`` and the environment.

Order: environment (``MLBATCH_...``) over the profile's table in ``mlbatch.toml`` over defaults. An
empty ``mlbatch.toml`` is a working project: DuckDB, a folder, SQLite and a local MLflow, all below
``.mlbatch/``.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mlbatch.errors import SettingsError
from mlbatch.project import MARKER

HOME = Path(".mlbatch")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarehouseSettings(_Section):
    """Where features come from."""

    kind: Literal["duckdb"] = "duckdb"
    path: Path = HOME / "warehouse.duckdb"
    part_rows: int = Field(20_000, ge=1)
    """Rows per unloaded part."""


class StorageSettings(_Section):
    """Where unloaded parts lie."""

    kind: Literal["folder"] = "folder"
    path: Path = HOME / "parts"


class SinkSettings(_Section):
    """Where predictions go, and the ledger beside them."""

    kind: Literal["sqlite"] = "sqlite"
    path: Path = HOME / "outputs.db"


class TrackingSettings(_Section):
    """Where training is recorded and models are registered."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """An MLflow server; by default a local store in ``path``."""
    path: Path = HOME / "mlflow"


class Settings(BaseSettings):
    """Everything that may differ between two installations of one project."""

    model_config = SettingsConfigDict(
        env_prefix="MLBATCH_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    root: Path
    profile: str = "default"
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Processes that score parts."""
    warehouse: WarehouseSettings = WarehouseSettings()
    storage: StorageSettings = StorageSettings()
    sink: SinkSettings = SinkSettings()
    tracking: TrackingSettings = TrackingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose values are handed to the constructor."""
        return env_settings, init_settings

    def path(self, relative: Path) -> Path:
        """A configured path, taken from the project's folder when it is relative."""
        return (self.root / relative).resolve()


def load_settings(root: Path, profile: str | None = None) -> Settings:
    """Read the settings of the project in ``root``; SettingsError says which one is wrong."""
    file = root / MARKER
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {error}", hint="mend the TOML") from error
    chosen = profile or os.environ.get("MLBATCH_PROFILE") or "default"
    values = _profile(document, chosen, file)
    try:
        return Settings(root=root, **(values | {"profile": chosen}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{file}, profile {chosen}: {where}: {first['msg']}"
        raise SettingsError(message, hint="docs/settings.md lists every setting") from error


def _profile(document: dict[str, Any], chosen: str, file: Path) -> dict[str, Any]:
    profiles = document.get("profiles", {})
    if chosen != "default" and chosen not in profiles:
        message = f"{file} has no profile {chosen!r}"
        raise SettingsError(message, hint=f"it has: {', '.join(profiles) or 'none'}")
    surplus = set(document) - {"profiles"}
    if surplus:
        message = f"{file}: unknown table or key {min(surplus)!r}"
        raise SettingsError(message, hint="settings stand in [profiles.NAME]")
    values: dict[str, Any] = profiles.get(chosen, {})
    return values
