"""The composition root: settings in, connected tools out. Nobody else picks a connector."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import mlbatch
from mlbatch.connectors.database.liveness import this_process
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.mlflow import MlflowTracking
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import SettingsError
from mlbatch.saved_model import load_job_model, save_job_model
from mlbatch.settings import (
    HOME,
    DuckdbSettings,
    FolderSettings,
    MysqlSettings,
    QueuerySettings,
    RedshiftSettings,
    S3Settings,
    Settings,
    SqliteSettings,
)
from mlbatch.text import dictionary_fingerprint
from mlbatch.throttle import Limits
from mlbatch.tools import Notify, Tools

if TYPE_CHECKING:
    from mlbatch.connectors.aws import AwsAccess
    from mlbatch.connectors.redshift.transport import Transport
    from mlbatch.sink import Sink
    from mlbatch.storage import Storage
    from mlbatch.warehouse import Warehouse

ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
ID_LENGTH = 12


def connect(settings: Settings, notify: Notify) -> Tools:
    """Build the tools that ``settings`` describe; nothing is opened yet."""
    storage = _storage(settings)
    return Tools(
        warehouse=_warehouse(settings, storage),
        storage=storage,
        sink=_sink(settings),
        tracking=_tracking(settings),
        engine=LocalEngine(settings.workers),
        owner=this_process(str(uuid.uuid4())),
        models=settings.path(HOME / "models"),
        code_version=mlbatch.__version__,
        dictionary=dictionary_fingerprint(),
        new_id=new_id,
        new_epoch=new_epoch,
        load_model=load_job_model,
        save_model=save_job_model,
        notify=notify,
        limits=_limits(settings),
    )


def _limits(settings: Settings) -> Limits:
    values = settings.throttle.model_dump()
    flag = settings.throttle.flag_file
    return Limits(**values | {"flag_file": settings.path(flag) if flag else None})


def _warehouse(settings: Settings, storage: Storage) -> Warehouse:
    chosen = settings.warehouse
    if isinstance(chosen, DuckdbSettings):
        if not isinstance(storage, FolderStorage):
            message = "the embedded warehouse unloads into a folder"
            raise SettingsError(message, hint="set storage.kind to folder, or warehouse.kind")
        return DuckdbWarehouse(settings.path(chosen.path), storage, chosen.part_rows)
    if isinstance(chosen, QueuerySettings):
        from mlbatch.connectors.queuery import QueueryWarehouse  # noqa: PLC0415

        secret = chosen.token_secret.get_secret_value()
        return QueueryWarehouse(
            chosen.endpoint, chosen.token, secret, storage, chosen.query_seconds
        )
    return _redshift(chosen, settings, storage)


def _redshift(chosen: RedshiftSettings, settings: Settings, storage: Storage) -> Warehouse:
    if isinstance(storage, FolderStorage):
        message = "Redshift unloads into S3, not into a folder"
        raise SettingsError(message, hint="set storage.kind to s3, and storage.bucket")
    from mlbatch.connectors.redshift.statements import UnloadOptions  # noqa: PLC0415
    from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse  # noqa: PLC0415

    bucket = settings.storage.region if isinstance(settings.storage, S3Settings) else None
    elsewhere = bucket if bucket != chosen.region else None
    options = UnloadOptions(chosen.iam_role, chosen.part_megabytes, chosen.kms_key, elsewhere)
    wired = chosen.transport == "wire"
    transport = _wire(chosen, settings) if wired else _data_api(chosen, settings)
    return RedshiftWarehouse(transport, storage, options)


def _data_api(chosen: RedshiftSettings, settings: Settings) -> Transport:
    from mlbatch.connectors.aws import AwsAccess  # noqa: PLC0415
    from mlbatch.connectors.redshift.data_api import DataApi  # noqa: PLC0415

    access = AwsAccess(chosen.region, chosen.endpoint)
    if chosen.endpoint and isinstance(settings.storage, S3Settings):
        # A stand-in checks no signature, but the client wants keys to make one.
        access = replace(_access(settings.storage), endpoint=chosen.endpoint)
    return DataApi(
        database=chosen.database,
        cluster=chosen.cluster,
        workgroup=chosen.workgroup,
        user=chosen.user,
        secret_arn=chosen.secret_arn,
        query_group=chosen.query_group,
        statement_seconds=chosen.statement_seconds,
        access=access,
    )


def _wire(chosen: RedshiftSettings, settings: Settings) -> Transport:
    from mlbatch.connectors.password import FixedPassword  # noqa: PLC0415
    from mlbatch.connectors.redshift.wire import Wire  # noqa: PLC0415

    password = chosen.password
    return Wire(
        host=str(chosen.host),
        port=chosen.port,
        database=chosen.database,
        user=chosen.user,
        password=FixedPassword(password.get_secret_value()) if password else None,
        cluster=chosen.cluster,
        region=chosen.region,
        verify_tls=chosen.tls == "verify",
        ca=settings.path(chosen.ca) if chosen.ca else None,
        query_group=chosen.query_group,
        statement_seconds=chosen.statement_seconds,
    )


def _storage(settings: Settings) -> Storage:
    chosen = settings.storage
    if isinstance(chosen, FolderSettings):
        return FolderStorage(settings.path(chosen.path))
    from mlbatch.connectors.s3 import S3Storage  # noqa: PLC0415

    return S3Storage(
        bucket=chosen.bucket,
        folder=chosen.prefix.strip("/"),
        access=_access(chosen),
        owner=chosen.owner,
        kms_key=chosen.kms_key,
    )


def _sink(settings: Settings) -> Sink:
    chosen = settings.sink
    if isinstance(chosen, SqliteSettings):
        return SqliteSink(settings.path(chosen.path))
    from mlbatch.connectors.mysql.address import MysqlAddress  # noqa: PLC0415
    from mlbatch.connectors.mysql.sink import MysqlSink  # noqa: PLC0415

    address = MysqlAddress(
        host=chosen.host,
        port=chosen.port,
        database=chosen.database,
        user=chosen.user,
        password=_password(chosen),
        verify_tls=chosen.tls == "verify",
        ca=settings.path(chosen.ca) if chosen.ca else None,
        local_infile=chosen.local_infile,
    )
    return MysqlSink(address, chosen.lag_query, settings.throttle.history_length is not None)


def _password(chosen: MysqlSettings) -> Callable[[], str]:
    from mlbatch.connectors.password import FixedPassword  # noqa: PLC0415

    if chosen.password is not None:
        return FixedPassword(chosen.password.get_secret_value())
    from mlbatch.connectors.aws import AwsAccess, ManagedSecret, RdsToken  # noqa: PLC0415

    access = AwsAccess(chosen.region)
    if chosen.secret_arn is not None:
        return ManagedSecret(chosen.secret_arn, access)
    return RdsToken(chosen.host, chosen.port, chosen.user, access)


def _access(chosen: S3Settings) -> AwsAccess:
    from mlbatch.connectors.aws import AwsAccess  # noqa: PLC0415

    secret = chosen.secret_key.get_secret_value() if chosen.secret_key else None
    return AwsAccess(chosen.region, chosen.endpoint, chosen.access_key, secret)


def _tracking(settings: Settings) -> MlflowTracking:
    folder = settings.path(settings.tracking.path)
    return MlflowTracking(settings.tracking.uri or f"sqlite:///{folder}/mlflow.db", folder)


def new_id() -> str:
    """A random name for runs and unload attempts, without letters that look like digits."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def new_epoch() -> int:
    """A random positive 63-bit number."""
    return secrets.randbits(63) | 1
