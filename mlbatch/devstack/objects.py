"""A private S3 server: moto's, over HTTP, in a process of its own. It keeps everything in memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mlbatch.devstack.process import LOOPBACK, Service, http_answers
from mlbatch.errors import MlbatchError

NAME = "s3"
BUCKET = "mlbatch"
REGION = "us-east-1"
ACCESS_KEY = "devstack"
SECRET_KEY = "devstack-not-a-secret"  # noqa: S105  moto does not check it
_AGAIN = 20.0


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """S3 with one bucket, listening on ``port`` of the loopback."""

    folder: Path
    port: int
    bucket: str = BUCKET
    name: str = NAME

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "moto.log"

    def prepare(self) -> Service:
        """How it is started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self.port)]
        # What moto asks AWS for, if anything, must not be asked with a person's own account.
        environment = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        return Service(self.name, command, self.folder, self.log, self.answers, environment)

    def answers(self) -> bool:
        """Whether it serves."""
        return http_answers(f"{self.endpoint}/moto-api/")

    def complete(self) -> None:
        """Make the bucket, unless it is there."""
        # Only the commands that start servers should pay for this import.
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            # A proxy of the environment is for other machines.
            config=Config(proxies={}, read_timeout=_AGAIN),
        )
        try:
            client.create_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError) as error:
            message = f"the bucket {self.bucket} cannot be made at {self.endpoint}: {error}"
            raise MlbatchError(message, hint=f"look into {self.log}") from error
        finally:
            client.close()

    def clear(self) -> None:
        """Nothing lies outside of ``folder``."""
