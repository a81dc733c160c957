"""The only reader of ``mlbatch.toml`` and the environment.

Order: environment (``MLBATCH_...``) over the profile's table in ``mlbatch.toml`` over defaults. An
empty ``mlbatch.toml`` is a working project: DuckDB, a folder, SQLite and a local MLflow, all below
``.mlbatch/``.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mlbatch.errors import SettingsError
from mlbatch.project import MARKER
from mlbatch.setting_faults import PREFIX, Faults

HOME = Path(".mlbatch")
DEVSTACK = "devstack"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Tls = Literal["verify", "off"]
"""Whether a connection is encrypted and the server's name checked. No third way."""
_MLFLOW_LOG_IN = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables from which MLflow's own client takes what it logs in with."""
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def _own_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refuse_clear_text(tls: str, host: str | None) -> None:
    if tls == "off" and host not in (*_THIS_MACHINE, None):
        raise ValueError(f"tls may be off only for this machine, not for {host}")


def _refuse_clear_url(name: str, url: str | None) -> None:
    """For a URL to which credentials go: in the clear no further than this machine."""
    parts = urlsplit(url or "")
    if parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
        raise ValueError(f"{name} may be http only for this machine, not for {parts.hostname}")


def _check_endpoint(url: str | None) -> None:
    if "@" in urlsplit(url or "").netloc:
        raise ValueError("endpoint holds a log-in; keys and tokens are settings of their own")
    _refuse_clear_url("endpoint", url)


def _by_kind(default: str) -> Discriminator:
    """Which section a table is meant to be, by its ``kind``."""

    def kind(value: object) -> str:
        if isinstance(value, dict):
            return str(value.get("kind", default))
        return str(getattr(value, "kind", default))

    return Discriminator(kind)


class DuckdbSettings(_Section):
    """The embedded warehouse."""

    kind: Literal["duckdb"] = "duckdb"
    path: Path = HOME / "warehouse.duckdb"
    part_rows: int = Field(20_000, ge=1)
    """Rows per unloaded part."""


class RedshiftSettings(_Section):
    """Amazon Redshift, unloading to the storage."""

    kind: Literal["redshift"]
    transport: Literal["data_api", "wire"] = "data_api"
    """Statements over HTTP, or a connection of redshift-connector."""
    database: str
    cluster: str | None = None
    workgroup: str | None = None
    """Of Redshift Serverless, instead of a cluster."""
    user: str | None = None
    password: SecretStr | None = None
    """For the wire only; without one, IAM gives temporary credentials."""
    secret_arn: str | None = None
    host: str | None = None
    port: int = Field(5439, ge=1, le=65_535)
    tls: Tls = "verify"
    ca: Path | None = None
    region: str | None = None
    endpoint: str | None = None
    iam_role: str = "default"
    """Role that the warehouse takes to write to and read from the storage."""
    kms_key: str | None = None
    part_megabytes: int = Field(64, ge=5, le=6200)
    """Longest part."""
    query_group: str | None = None
    statement_seconds: int = Field(4 * 3600, ge=1)
    """A statement that runs longer is cancelled."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.transport == "wire" and self.host is None:
            raise ValueError("the transport wire needs host")
        if self.transport == "data_api" and not (self.cluster or self.workgroup):
            raise ValueError("the transport data_api needs cluster or workgroup")
        _refuse_clear_text(self.tls, self.host)
        _check_endpoint(self.endpoint)
        return self


class QueuerySettings(_Section):
    """A Queuery server in front of Redshift."""

    kind: Literal["queuery"]
    endpoint: str
    token: str
    token_secret: SecretStr
    query_seconds: int = Field(4 * 3600, ge=1)

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        _check_endpoint(self.endpoint)
        return self


class FolderSettings(_Section):
    """Parts in a folder."""

    kind: Literal["folder"] = "folder"
    path: Path = HOME / "parts"


class S3Settings(_Section):
    """Parts in S3."""

    kind: Literal["s3"]
    bucket: str
    prefix: str = ""
    region: str | None = None
    owner: str | None = None
    """Account that must own the bucket."""
    kms_key: str | None = None
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None

    @model_validator(mode="after")
    def _no_lasting_keys(self) -> Self:
        if self.access_key and not self.endpoint:
            raise ValueError("keys are for stand-ins; on AWS use a role")
        _check_endpoint(self.endpoint)
        return self


class SqliteSettings(_Section):
    """Predictions and ledger in one SQLite file."""

    kind: Literal["sqlite"] = "sqlite"
    path: Path = HOME / "outputs.db"


class MysqlSettings(_Section):
    """Predictions and ledger in Aurora MySQL or MariaDB."""

    kind: Literal["mysql"]
    host: str
    port: int = Field(3306, ge=1, le=65_535)
    database: str
    user: str
    password: SecretStr | None = None
    """Without one, `secret_arn` or an IAM token."""
    secret_arn: str | None = None
    region: str | None = None
    tls: Tls = "verify"
    ca: Path | None = None
    local_infile: bool = True
    """Whether LOAD DATA LOCAL is used where the server allows it."""
    lag_query: str | None = None
    """A SELECT that says how many seconds the replicas are behind; `throttle` acts on it."""

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        _refuse_clear_text(self.tls, self.host)
        return self


class ThrottleSettings(_Section):
    """When a run holds back for others."""

    transaction_seconds: float = Field(0.5, gt=0)
    """Longer transactions get fewer rows."""
    lag_seconds: float = Field(1.0, gt=0)
    """Replicas further behind pause the run."""
    threads_running: int = Field(25, ge=1)
    """More statements at once pause the run."""
    threads_running_most: int = Field(50, ge=1)
    """More statements at once end the run, to be resumed later."""
    history_length: int | None = Field(None, ge=1)
    """A longer list of old row versions in the database pauses the run."""
    flag_file: Path | None = None
    """While it exists, the run pauses."""


WarehouseSettings = Annotated[
    Annotated[DuckdbSettings, Tag("duckdb")]
    | Annotated[RedshiftSettings, Tag("redshift")]
    | Annotated[QueuerySettings, Tag("queuery")],
    _by_kind("duckdb"),
]
StorageSettings = Annotated[
    Annotated[FolderSettings, Tag("folder")] | Annotated[S3Settings, Tag("s3")],
    _by_kind("folder"),
]
SinkSettings = Annotated[
    Annotated[SqliteSettings, Tag("sqlite")] | Annotated[MysqlSettings, Tag("mysql")],
    _by_kind("sqlite"),
]


class TrackingSettings(_Section):
    """Where training is recorded and models are registered."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """An MLflow server; by default a local store in ``path``."""
    path: Path = HOME / "mlflow"

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if "@" in urlsplit(self.uri or "").netloc or any(map(os.environ.get, _MLFLOW_LOG_IN)):
            _refuse_clear_url("uri", self.uri)
        return self


class Settings(BaseSettings):
    """Everything that may differ between two installations of one project."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # passwords may be among it
    )

    root: Path
    profile: str = "default"
    workers: int = Field(default_factory=_own_cores, ge=1)
    """Processes that score parts."""
    warehouse: WarehouseSettings = DuckdbSettings()
    storage: StorageSettings = FolderSettings()
    sink: SinkSettings = SqliteSettings()
    tracking: TrackingSettings = TrackingSettings()
    throttle: ThrottleSettings = ThrottleSettings()

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
    """Read the settings of the project in ``root``; SettingsError says which ones are wrong."""
    file = root / MARKER
    try:
        # Editors of Windows put a byte order mark in front.
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}", hint="mend the TOML") from error
    except OSError as error:
        hint = "let the account that runs mlbatch read it"
        raise SettingsError(f"{file}: {error.strerror}", hint=hint) from error
    chosen = profile or os.environ.get("MLBATCH_PROFILE") or "default"
    values = _profile(document, chosen, file)
    faults = Faults(Settings, f"{file}, profile {chosen}", os.environ)
    unknown = faults.of_variables()
    try:
        settings = Settings(root=root, **(values | {"profile": chosen}))
    except ValidationError as error:
        raise _wrong([*faults.of(error), *unknown]) from error
    if unknown:
        raise _wrong(unknown)
    return settings


def _wrong(faults: list[str]) -> SettingsError:
    return SettingsError("\n  ".join(faults), hint="docs/settings.md lists every setting")


def _profile(document: dict[str, Any], chosen: str, file: Path) -> dict[str, Any]:
    profiles = dict(_table(document, "profiles", file))
    if chosen == DEVSTACK and chosen not in profiles:
        profiles |= _running_devstack(file.parent)
    if chosen != "default" and chosen not in profiles:
        message = f"{file} has no profile {chosen!r}"
        raise SettingsError(message, hint=f"it has: {', '.join(profiles) or 'none'}")
    surplus = set(document) - {"profiles"}
    if surplus:
        message = f"{file}: unknown table or key {min(surplus)!r}"
        raise SettingsError(message, hint="settings stand in [profiles.NAME]")
    values = dict(_table(profiles, chosen, file))
    if "root" in values:
        message = f"{file}, profile {chosen}: root is the folder of {MARKER}"
        raise SettingsError(message, hint="leave it out; paths are relative to it")
    return values


def _table(document: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        message = f"{file}: {name} is no table"
        raise SettingsError(message, hint="settings stand in [profiles.NAME]")
    return value


def _running_devstack(root: Path) -> dict[str, Any]:
    """The profile of the private servers that `mlbatch devstack up` started, if they run."""
    from mlbatch.devstack.stack import profile  # noqa: PLC0415  nobody else pays for its imports

    found = profile(root / HOME / "devstack")
    if found is None:
        message = "the devstack does not run"
        raise SettingsError(message, hint="start it: mlbatch devstack up")
    return {DEVSTACK: found}
